//! Certificates that chains lead to. Each is tried by itself, so that it is known which one it was: when that is over, so is
//! what it vouches for. The library does not look at the time of what it trusts.

use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, Error, RootCertStore};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::identity::Refused;
use crate::identity::certificate::are_limited;
use crate::identity::workload::Content;

/// The CAs of a file or a bundle.
pub(in crate::identity) struct Anchors(Vec<Anchor>);

struct Anchor {
    /// Of this one alone.
    roots: Arc<RootCertStore>,
    /// Its first and its last second.
    from: i64,
    until: i64,
}

/// `X509BundlesResponse`: the bundles are certificates in DER, one behind the other.
impl Content for Anchors {
    const CALL: &'static str = "FetchX509Bundles";
    const FIELD: u64 = 2;

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (mut rest, mut certificates) = (bytes, Vec::new());
        while !rest.is_empty() {
            let (behind, _) = X509Certificate::from_der(rest).ok()?;
            let (certificate, _) = rest.split_at_checked(rest.len() - behind.len())?;
            certificates.push(CertificateDer::from(certificate));
            rest = behind;
        }
        Self::of(&certificates)
    }
}

impl Anchors {
    /// `None` where one of them is no certificate.
    pub(super) fn of(certificates: &[CertificateDer<'_>]) -> Option<Self> {
        certificates.iter().map(Anchor::of).collect::<Option<_>>().map(Self)
    }

    /// True where one of them may vouch for some names alone.
    pub(super) fn are_limited(&self) -> bool {
        self.0.iter().any(|anchor| are_limited(&anchor.roots))
    }

    /// The last second of the anchor that the chain leads to; of several, the one that is there longest.
    pub(super) fn verify(
        &self,
        leaf: &CertificateDer<'static>,
        above: &[CertificateDer<'static>],
        now: i64,
    ) -> Result<i64, Refused> {
        let provider = Arc::new(default_provider());
        let (mut end, mut refused) = (None, Refused::CertificateAuthority);
        for anchor in &self.0 {
            match anchor.verify(leaf, above, now, &provider) {
                Ok(()) => end = end.max(Some(anchor.until)),
                // Another one may be nearer to the chain: what that has to say tells more.
                Err(Refused::CertificateAuthority) => {}
                Err(reason) => refused = reason,
            }
        }
        end.ok_or(refused)
    }
}

impl Anchor {
    fn of(der: &CertificateDer<'_>) -> Option<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(der.clone().into_owned()).ok()?;
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let validity = certificate.validity();
        let (from, until) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        Some(Self { roots: Arc::new(roots), from, until })
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'static>,
        above: &[CertificateDer<'static>],
        now: i64,
        provider: &Arc<CryptoProvider>,
    ) -> Result<(), Refused> {
        let seconds = u64::try_from(now).map_err(|_| Refused::CertificateOver)?;
        let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.roots), Arc::clone(provider));
        let verifier = verifier.build().map_err(|_| Refused::Unavailable)?;
        verifier.verify_client_cert(leaf, above, at).map_err(|error| because(&error))?;
        if (self.from..=self.until).contains(&now) { Ok(()) } else { Err(Refused::CertificateOver) }
    }
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
