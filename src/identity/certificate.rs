//! Whom a client's certificate names. That it is valid has been settled by the TLS handshake.

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::issuer::spiffe_id;
use crate::model::Identity;

/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 253;

/// The identity of a client's certificate; `None` when it names nobody, or more than one.
///
/// With a URI among its names it is an X.509-SVID: that must be the only URI, a SPIFFE ID with a path, and the
/// certificate no CA's. Else its one DNS name; or, if it has no alternative names at all, its one common name.
#[must_use]
pub fn certificate_identity(der: &[u8]) -> Option<Identity> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    if certificate.is_ca() {
        return None;
    }
    let Some(names) = certificate.subject_alternative_name().ok()? else {
        let mut names = certificate.subject().iter_common_name();
        let (Some(name), None) = (names.next(), names.next()) else { return None };
        return mtls(name.as_str().ok()?);
    };
    let (mut uris, mut hosts) = (Vec::new(), Vec::new());
    for name in &names.value.general_names {
        match name {
            GeneralName::URI(uri) => uris.push(*uri),
            GeneralName::DNSName(host) => hosts.push(*host),
            _ => {}
        }
    }
    match (uris.as_slice(), hosts.as_slice()) {
        ([uri], _) => may_sign_certificates(&certificate).then_some(()).map_or_else(|| spiffe_id(uri), |()| None),
        ([], [host]) => mtls(host),
        _ => None,
    }
}

/// Whom a chain names that was verified against these roots; `None` as of [`certificate_identity`], and where only a common
/// name says who it is, beneath an authority whose names are limited.
#[must_use]
pub fn chain_identity(chain: &[CertificateDer<'_>], roots: &RootCertStore) -> Option<Identity> {
    let (leaf, above) = chain.split_first()?;
    certificate_identity(leaf).filter(|_| !evades_constraints(leaf, above, are_limited(roots)))
}

/// True for a common name beneath an authority that is limited by name constraints: those say nothing of common names, only
/// of alternative ones (RFC 5280, 4.2.1.10), so that such an authority could name anybody.
pub(super) fn evades_constraints(leaf: &[u8], above: &[CertificateDer<'_>], are_roots_limited: bool) -> bool {
    let has_alternatives = |der: &[u8]| match X509Certificate::from_der(der) {
        Ok((_, certificate)) => certificate.subject_alternative_name().is_ok_and(|names| names.is_some()),
        Err(_) => false,
    };
    let is_limited = |der: &CertificateDer<'_>| match X509Certificate::from_der(der) {
        Ok((_, certificate)) => certificate.name_constraints().map_or(true, |limits| limits.is_some()),
        Err(_) => true,
    };
    !has_alternatives(leaf) && (are_roots_limited || above.iter().any(is_limited))
}

/// True where one of them may vouch for some names alone.
pub(super) fn are_limited(roots: &RootCertStore) -> bool {
    roots.roots.iter().any(|root| root.name_constraints.is_some())
}

/// X.509-SVID, 4.3: a leaf must not sign certificates or lists of revoked ones.
fn may_sign_certificates(certificate: &X509Certificate<'_>) -> bool {
    match certificate.key_usage() {
        Ok(Some(usage)) => usage.value.key_cert_sign() || usage.value.crl_sign(),
        Ok(None) => false,
        Err(_) => true,
    }
}

/// True where the key may sign a TLS handshake. An SVID has to say so (X.509-SVID, 4.3); for the others it is enough not to
/// say otherwise (RFC 5280, 4.2.1.3).
pub(super) fn may_sign_handshakes(der: &[u8], is_svid: bool) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return false };
    match certificate.key_usage() {
        Ok(Some(usage)) => usage.value.digital_signature(),
        Ok(None) => !is_svid,
        Err(_) => false,
    }
}

fn mtls(name: &str) -> Option<Identity> {
    is_certificate_name(name).then(|| Identity::Mtls(name.into()))
}

/// True for a name that a certificate can prove: printable ASCII without spaces at its ends, and no wildcard.
#[must_use]
pub fn is_certificate_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'*')
        && name.trim() == name
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose, SanType};

    use super::*;

    fn identity(names: &[SanType], edit: impl FnOnce(&mut CertificateParams)) -> Option<String> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.subject_alt_names = names.to_vec();
        edit(&mut params);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        certificate_identity(certificate.der()).map(|identity| identity.to_string())
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    fn dns(text: &str) -> SanType {
        SanType::DnsName(text.try_into().unwrap())
    }

    #[test]
    fn an_svid_has_one_uri_and_signs_nothing() {
        let svid = "spiffe://example.org/minter";
        assert_eq!(identity(&[uri(svid)], |_| {}).as_deref(), Some(svid));
        assert_eq!(identity(&[uri(svid), dns("a.test")], |_| {}).as_deref(), Some(svid));
        assert_eq!(identity(&[uri(svid), uri("spiffe://example.org/other")], |_| {}), None);
        assert_eq!(identity(&[uri("spiffe://example.org")], |_| {}), None);
        assert_eq!(identity(&[uri("https://example.org/minter"), dns("a.test")], |_| {}), None);
        let ca = |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        assert_eq!(identity(&[uri(svid)], ca), None);
        let signs = |params: &mut CertificateParams| params.key_usages = vec![KeyUsagePurpose::CrlSign];
        assert_eq!(identity(&[uri(svid)], signs), None);
    }

    #[test]
    fn without_a_uri_there_is_one_name() {
        assert_eq!(identity(&[dns("a.test")], |_| {}).as_deref(), Some("mtls:a.test"));
        assert_eq!(identity(&[dns("a.test"), dns("b.test")], |_| {}), None);
        let named = |params: &mut CertificateParams| params.distinguished_name.push(DnType::CommonName, "minter 1");
        assert_eq!(identity(&[], named).as_deref(), Some("mtls:minter 1"));
        assert_eq!(identity(&[dns("a.test")], named).as_deref(), Some("mtls:a.test"), "not the common name");
        assert_eq!(identity(&[dns("*.test")], |_| {}), None);
        assert_eq!(identity(&[], |_| {}), None);
    }
}
