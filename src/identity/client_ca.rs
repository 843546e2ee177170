//! Certificates that agents show to the proxy: whose CA vouches for them, and whom they prove.
//!
//! The handshake has proven that the client holds the certificate's key, and nothing else. What the certificate is worth
//! is judged here, each time anew: by the CAs of the policy that is in force, as their files are now.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, Error, RootCertStore};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::certificate::{certificate_identity, evades_constraints, may_sign_handshakes};
use super::issuer::trust_domain_of;
use super::{FileProblem, Refused, read_public};
use crate::model::{Identity, Now};

/// Longest file with CAs, in bytes.
const BYTES_MAX: usize = 256 * 1024;

/// One `[client_cas.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCa {
    /// Its name in the policy.
    pub name: Arc<str>,
    /// The SPIFFE trust domain whose IDs it vouches for, and nothing else; without one, it vouches for names.
    pub trust_domain: Option<String>,
    /// Where its certificates are, PEM.
    pub path: PathBuf,
}

impl ClientCa {
    /// True where it is for this one to say who that is.
    pub(super) fn vouches_for(&self, identity: &Identity) -> bool {
        match (identity, &self.trust_domain) {
            (Identity::Spiffe(id), Some(domain)) => trust_domain_of(id) == Some(domain),
            (Identity::Mtls(_), None) => true,
            (
                Identity::Spiffe(_)
                | Identity::Mtls(_)
                | Identity::Uid(_)
                | Identity::Supervisor
                | Identity::Bearer(_)
                | Identity::Kubernetes(_)
                | Identity::Oidc(_)
                | Identity::Anybody
                | Identity::Scanner(_),
                _,
            ) => false,
        }
    }

    fn roots(&self) -> Result<RootCertStore, FileProblem> {
        let pem = read_public(&self.path, BYTES_MAX)?;
        let mut roots = RootCertStore::empty();
        for der in CertificateDer::pem_slice_iter(&pem) {
            let der = der.map_err(|_| FileProblem::Content("it is not PEM"))?;
            roots.add(der).map_err(|_| FileProblem::Content("a block in it is no certificate"))?;
        }
        if roots.is_empty() {
            return Err(FileProblem::Content("it holds no certificate"));
        }
        Ok(roots)
    }
}

/// What a client has shown in its handshake.
#[derive(Debug)]
pub struct Shown {
    /// Its certificate, and those above it; never empty.
    pub chain: Vec<CertificateDer<'static>>,
    /// When it opened the connection: nothing was proven before that, and the key is not asked for again.
    pub at: Now,
}

/// Whom a chain proves at this second, and the second at which that is over.
pub(super) fn certify(
    cas: &[ClientCa],
    chain: &[CertificateDer<'static>],
    now: i64,
) -> Result<(Identity, i64), Refused> {
    let (leaf, above) = chain.split_first().ok_or(Refused::CertificateName)?;
    let identity = certificate_identity(leaf).ok_or(Refused::CertificateName)?;
    let ca = cas.iter().find(|ca| ca.vouches_for(&identity)).ok_or(Refused::CertificateAuthority)?;
    if !may_sign_handshakes(leaf, matches!(identity, Identity::Spiffe(_))) {
        return Err(Refused::CertificateUse);
    }
    let roots = ca.roots().map_err(|problem| {
        tracing::warn!(path = %ca.path.display(), %problem, "the certificates of this file are not taken");
        Refused::Unavailable
    })?;
    if evades_constraints(leaf, above, &roots) {
        return Err(Refused::CertificateName);
    }
    verify(roots, leaf, above, now)?;
    // With those above it: one of them may be over first.
    let end = chain.iter().map(end).min().flatten().ok_or(Refused::CertificateOver)?;
    Ok((identity, end))
}

fn verify(
    roots: RootCertStore,
    leaf: &CertificateDer<'static>,
    above: &[CertificateDer<'static>],
    now: i64,
) -> Result<(), Refused> {
    let seconds = u64::try_from(now).map_err(|_| Refused::CertificateOver)?;
    let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider())).build();
    let verifier = verifier.map_err(|_| Refused::Unavailable)?;
    verifier.verify_client_cert(leaf, above, now).map(drop).map_err(|error| because(&error))
}

fn because(error: &Error) -> Refused {
    match error {
        Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => Refused::CertificateOver,
        Error::InvalidCertificate(
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. },
        ) => Refused::CertificateUse,
        _ => Refused::CertificateAuthority,
    }
}

/// The last second of a certificate; what cannot be read has none, which is before all others.
fn end(der: &CertificateDer<'static>) -> Option<i64> {
    X509Certificate::from_der(der).ok().map(|(_, certificate)| certificate.validity().not_after.timestamp())
}

#[cfg(test)]
mod tests;
