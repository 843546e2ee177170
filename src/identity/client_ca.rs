//! Certificates that agents show to the proxy: whose CA vouches for them, and whom they prove.
//!
//! The handshake has proven that the client holds the certificate's key, and nothing else. What the certificate is worth
//! is judged here, each time anew: by the CAs of the policy that is in force, as their files are now, or the bundle that is followed.
//!
//! - `anchors`: the CAs, and the end of the one that a chain leads to

mod anchors;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::certificate::{certificate_identity, evades_constraints, may_sign_handshakes};
use super::issuer::trust_domain_of;
use super::standing::Standing;
use super::verifier::Proven;
use super::workload::{Bundle, WorkloadApi};
use super::{FileProblem, Refused, read_public};
use crate::clock::SharedClock;
use crate::model::{Identity, Now};

use anchors::Anchors;

/// Longest file with CAs, in bytes.
const BYTES_MAX: usize = 256 * 1024;

/// One `[client_cas.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCa {
    /// Its name in the policy.
    pub name: Arc<str>,
    /// The SPIFFE trust domain whose IDs it vouches for, and nothing else; without one, it vouches for names.
    pub trust_domain: Option<String>,
    /// Where its certificates come from.
    pub source: CaSource,
}

/// Where the CAs of a table come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaSource {
    /// A PEM file.
    File(PathBuf),
    /// The bundle of the trust domain, which the Workload API streams.
    Workload(WorkloadApi),
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
}

/// A `[client_cas.NAME]` in force; where its CAs come from the Workload API, they are followed until this is dropped.
pub(super) struct Voucher {
    ca: ClientCa,
    followed: Option<Bundle<Anchors>>,
    standing: Standing,
}

impl Voucher {
    /// Wants to be called within a runtime where there is something to be followed.
    pub(super) fn new(ca: ClientCa, clock: &SharedClock) -> Self {
        let followed = match (&ca.source, &ca.trust_domain) {
            (CaSource::Workload(api), Some(domain)) => {
                Some(Bundle::follow(api.clone(), domain, ca.name.clone(), SharedClock::clone(clock)))
            }
            // A bundle is a trust domain's: the policy has refused one without.
            (CaSource::Workload(_), None) | (CaSource::File(_), _) => None,
        };
        Self { ca, followed, standing: Standing::default() }
    }

    /// What it was made of.
    pub(super) fn ca(&self) -> &ClientCa {
        &self.ca
    }

    /// What it has vouched for falls with it.
    pub(super) fn standing(&self) -> &Standing {
        &self.standing
    }

    /// The CAs as they are now.
    fn anchors(&self) -> Result<Arc<Anchors>, Refused> {
        match (&self.ca.source, &self.followed) {
            (CaSource::File(path), _) => of_file(path).map(Arc::new).map_err(|problem| {
                tracing::warn!(path = %path.display(), %problem, "the certificates of this file are not taken");
                Refused::Unavailable
            }),
            (CaSource::Workload(_), Some(bundle)) => bundle.content(),
            (CaSource::Workload(_), None) => Err(Refused::Unavailable),
        }
    }
}

fn of_file(path: &Path) -> Result<Anchors, FileProblem> {
    let pem = read_public(path, BYTES_MAX)?;
    let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|_| FileProblem::Content("it is not PEM"))?;
    let anchors = Anchors::of(&certificates).ok_or(FileProblem::Content("a block in it is no certificate"))?;
    if certificates.is_empty() {
        return Err(FileProblem::Content("it holds no certificate"));
    }
    Ok(anchors)
}

/// What a client has shown in its handshake.
#[derive(Debug)]
pub struct Shown {
    /// Its certificate, and those above it; never empty.
    pub chain: Vec<CertificateDer<'static>>,
    /// When it opened the connection: nothing was proven before that, and the key is not asked for again.
    pub at: Now,
}

/// Whom a chain proves at this second.
pub(super) fn certify(
    vouchers: &[Arc<Voucher>],
    chain: &[CertificateDer<'static>],
    now: i64,
) -> Result<Proven, Refused> {
    let (leaf, above) = chain.split_first().ok_or(Refused::CertificateName)?;
    let identity = certificate_identity(leaf).ok_or(Refused::CertificateName)?;
    let voucher = vouchers.iter().find(|voucher| voucher.ca.vouches_for(&identity));
    let voucher = voucher.ok_or(Refused::CertificateAuthority)?;
    if !may_sign_handshakes(leaf, matches!(identity, Identity::Spiffe(_))) {
        return Err(Refused::CertificateUse);
    }
    let anchors = voucher.anchors()?;
    if evades_constraints(leaf, above, anchors.are_limited()) {
        return Err(Refused::CertificateName);
    }
    let anchor_end = anchors.verify(leaf, above, now)?;
    // With those above it: one of them may be over first.
    let end = chain.iter().map(end).min().flatten().ok_or(Refused::CertificateOver)?;
    Ok(Proven { identity, end: end.min(anchor_end), standing: voucher.standing.clone() })
}

/// The last second of a certificate; what cannot be read has none, which is before all others.
fn end(der: &CertificateDer<'static>) -> Option<i64> {
    X509Certificate::from_der(der).ok().map(|(_, certificate)| certificate.validity().not_after.timestamp())
}

#[cfg(test)]
mod tests;
