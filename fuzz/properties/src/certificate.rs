//! Names in clients' certificates and SPIFFE IDs.

use std::sync::OnceLock;

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose, SanType};
use valetkey::identity::{certificate_identity, is_certificate_name, spiffe_id};
use valetkey::model::Identity;

use crate::cuts::Input;

/// Whatever is read out of a certificate stands in it, letter for letter, and is a name of the kind that it is called; a
/// SPIFFE ID has one spelling; and a certificate that was made here names whom it was made for, or nobody.
///
/// # Panics
/// Where that does not hold.
pub fn certificate(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Some(identity) = spiffe_id(text)
    {
        assert_eq!(identity.to_string(), text, "a SPIFFE ID has one spelling");
        let path = text.splitn(4, '/').nth(3).unwrap_or_default();
        let plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"%?#@\\".contains(&byte));
        assert!(plain && !path.split('/').any(|part| matches!(part, "" | "." | "..")), "{text:?}");
    }
    made_for(Input(data));
    let Some(identity) = certificate_identity(data) else { return };
    let name = match &identity {
        Identity::Mtls(name) => {
            assert!(is_certificate_name(name), "{name:?} is no name");
            name.to_string()
        }
        Identity::Spiffe(id) => {
            assert_eq!(spiffe_id(id).as_ref(), Some(&identity), "{id:?} is no SPIFFE ID");
            id.to_string()
        }
        other => panic!("a certificate proves no {other}"),
    };
    assert!(data.windows(name.len()).any(|part| part == name.as_bytes()), "{name:?} does not stand in it");
}

/// Alternative names of a certificate at most.
const NAMES_MAX: u8 = 4;

/// A certificate with names of several kinds, of a CA or not, that may sign others or not.
fn made_for(mut input: Input<'_>) {
    let (choice, mut uris, mut hosts) = (input.byte(), Vec::new(), Vec::new());
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for _ in 0..choice % (NAMES_MAX + 1) {
        let (kind, length) = (input.byte(), usize::from(input.byte() % 64));
        let Ok(text) = std::str::from_utf8(input.take(length)) else { return };
        let Ok(name) = text.try_into() else { return };
        params.subject_alt_names.push(match kind % 4 {
            0 => SanType::Rfc822Name(name),
            1 => SanType::IpAddress([127, 0, 0, 1].into()),
            2 => {
                hosts.push(text);
                SanType::DnsName(name)
            }
            _ => {
                uris.push(text);
                SanType::URI(name)
            }
        });
    }
    let common = (choice & 0x80 != 0).then(|| String::from_utf8_lossy(input.0));
    if let Some(name) = &common {
        params.distinguished_name.push(DnType::CommonName, name.as_ref());
    }
    let (is_ca, signs) = (choice & 0x40 != 0, choice & 0x20 != 0);
    params.is_ca = if is_ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
    params.key_usages =
        if signs { vec![KeyUsagePurpose::KeyCertSign] } else { vec![KeyUsagePurpose::DigitalSignature] };
    let has_names = !params.subject_alt_names.is_empty();
    let Ok(certificate) = params.self_signed(key()) else { return };
    let mtls = |name: &str| is_certificate_name(name).then(|| Identity::Mtls(name.into()));
    let expected = match (uris.as_slice(), hosts.as_slice()) {
        _ if is_ca => None,
        _ if !has_names => common.as_deref().and_then(mtls),
        ([uri], _) if !signs => spiffe_id(uri),
        ([], [host]) => mtls(host),
        _ => None,
    };
    assert_eq!(certificate_identity(certificate.der()), expected, "{uris:?} {hosts:?} {common:?}");
}

fn key() -> &'static KeyPair {
    static KEY: OnceLock<KeyPair> = OnceLock::new();
    KEY.get_or_init(|| KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key"))
}
