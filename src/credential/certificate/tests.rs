use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, SignatureAlgorithm, date_time_ymd};

use super::*;

fn now() -> Timestamp {
    "2026-06-01T00:00:00Z".parse().unwrap()
}

fn key_of(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).unwrap()
}

fn certificate(key: &KeyPair, edit: impl FnOnce(&mut CertificateParams)) -> String {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2026, 12, 31);
    edit(&mut params);
    params.self_signed(key).unwrap().pem()
}

fn problem(chain: &str, key: &str) -> Option<CertificateProblem> {
    ClientCertificate::parse(chain.as_bytes(), key.as_bytes(), now()).err()
}

fn block(label: &str, der: &[u8]) -> String {
    // Made here, so that a scanner for keys finds none in this file.
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

#[test]
fn a_pair_is_taken_with_the_end_of_its_first_certificate_to_end() {
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let key = key_of(algorithm);
        let (leaf, above) = (
            certificate(&key, |_| {}),
            certificate(&key_of(&rcgen::PKCS_ED25519), |params| params.not_after = date_time_ymd(2026, 7, 1)),
        );
        let text = key.serialize_pem();
        let (pair, end) = ClientCertificate::parse(leaf.as_bytes(), text.as_bytes(), now()).unwrap();
        assert_eq!(end.to_string(), "2026-12-31T00:00:01Z");
        let chain = format!("subject=CN = x\r\n\r\n{}{above}", leaf.replace('\n', "\r\n"));
        let (longer, end) = ClientCertificate::parse(chain.as_bytes(), text.as_bytes(), now()).unwrap();
        assert_eq!(end.to_string(), "2026-07-01T00:00:01Z");
        assert!(!pair.same_as(&longer) && pair.same_as(&pair));
        let both = format!("{text}{leaf}");
        let (one_file, _) = ClientCertificate::parse(both.as_bytes(), both.as_bytes(), now()).unwrap();
        assert!(pair.same_as(&one_file));
        assert_eq!(format!("{pair:?}"), "ClientCertificate(…)");
    }
}

#[test]
fn what_does_not_fit_is_told_apart() {
    let key = key_of(&rcgen::PKCS_ECDSA_P256_SHA256);
    let text = key.serialize_pem();
    let leaf = certificate(&key, |_| {});
    let usage =
        |usages: &[ExtendedKeyUsagePurpose]| certificate(&key, |params| params.extended_key_usages = usages.to_vec());
    let (server, client) = (ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth);
    let other = key_of(&rcgen::PKCS_ECDSA_P256_SHA256).serialize_pem();
    let cut = leaf.replace("-----END", "-----FIN");
    let headed = text.replacen("-----\n", "-----\nProc-Type: 4,ENCRYPTED\n\n", 1);
    use CertificateProblem as P;
    let cases = [
        (leaf.clone(), text.clone(), None),
        (usage(&[client]), text.clone(), None),
        (usage(&[ExtendedKeyUsagePurpose::Any]), text.clone(), None),
        (usage(&[server]), text.clone(), Some(P::Use)),
        (leaf.clone(), other, Some(P::Mismatch)),
        (leaf.clone(), String::new(), Some(P::NoKey)),
        (leaf.clone(), leaf.clone(), Some(P::NoKey)),
        (leaf.clone(), format!("{text}{text}"), Some(P::Keys)),
        (leaf.clone(), block("ENCRYPTED PRIVATE KEY", b"x"), Some(P::Encrypted)),
        (leaf.clone(), headed, Some(P::Encrypted)),
        (leaf.clone(), block("PRIVATE KEY", b"x"), Some(P::KeyKind)),
        (leaf.clone(), block("OPENSSH PRIVATE KEY", b"x"), Some(P::KeyKind)),
        (text.clone(), text.clone(), Some(P::Chain)),
        (leaf.repeat(17), text.clone(), Some(P::Chain)),
        (block("CERTIFICATE", b"x"), text.clone(), Some(P::Unreadable)),
        (format!("{leaf}{}", block("CERTIFICATE", b"x")), text.clone(), Some(P::Unreadable)),
        (cut, text.clone(), Some(P::Malformed)),
        (leaf.replacen('M', "*", 1), text.clone(), Some(P::Malformed)),
        (leaf.replace("END CERT", "END X CERT"), text.clone(), Some(P::Malformed)),
        (certificate(&key, |params| params.not_after = date_time_ymd(2026, 5, 1)), text.clone(), Some(P::Over)),
        (certificate(&key, |params| params.not_before = date_time_ymd(2026, 7, 1)), text.clone(), Some(P::NotYet)),
    ];
    for (place, (chain, key, wanted)) in cases.iter().enumerate() {
        assert_eq!(problem(chain, key), *wanted, "case {place}");
    }
}

#[test]
fn a_chain_holds_until_the_last_second_of_its_end() {
    let key = key_of(&rcgen::PKCS_ED25519);
    let leaf = certificate(&key, |_| {});
    let at = |text: &str| {
        let parsed = ClientCertificate::parse(leaf.as_bytes(), key.serialize_pem().as_bytes(), text.parse().unwrap());
        parsed.err()
    };
    assert_eq!(at("2026-12-31T00:00:00.9Z"), None);
    assert_eq!(at("2026-12-31T00:00:01Z"), Some(CertificateProblem::Over));
    assert_eq!(at("2026-01-01T00:00:00Z"), None);
    assert_eq!(at("2025-12-31T23:59:59.9Z"), Some(CertificateProblem::NotYet));
}
