//! The roots as PKCS#12 (RFC 7292), for Java, whose `trustStore` replaces its own.
//!
//! Written by hand: the crates that write PKCS#12 bring ciphers and key formats along, and there is no key here. The
//! certificates are public, so nothing is enciphered, and the password (which every reader asks for) is well known;
//! it only keys the checksum. Sources: RFC 7292 (4, 4.2, 5, and appendix B for the key of the checksum), RFC 2985
//! (5.5.1, friendlyName), X.690 (DER).

use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use ring::hmac;
use rustls::pki_types::CertificateDer;

/// What our own CA is called in the store; the roots are `root-1`, `root-2` ….
pub(super) const OWN_ALIAS: &str = "valetkey";
/// The one that will sign after it, while it is being changed.
const OWN_NEXT_ALIAS: &str = "valetkey-next";
/// Rounds of hashing for the key of the checksum; as RFC 7292 (appendix B.2) has them at least. More would slow down
/// who guesses a password, and this one is known.
const ROUNDS: u32 = 1024;
/// Bytes of salt.
const SALT_BYTES: usize = 20;
/// Room for what is around the certificates, in bytes; some 160.
const AROUND_BYTES: usize = 256;
/// The block size of SHA-256, which the key's inputs are filled up to, in bytes.
const BLOCK_BYTES: usize = 64;

const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const NULL: u8 = 0x05;
const OBJECT: u8 = 0x06;
const BMP_STRING: u8 = 0x1E;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// `[0] EXPLICIT`.
const CONTEXT_0: u8 = 0xA0;

/// id-data, 1.2.840.113549.1.7.1
const DATA: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x07, 0x01];
/// certBag, 1.2.840.113549.1.12.10.1.3
const CERTIFICATE_BAG: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x0C, 0x0A, 0x01, 0x03];
/// x509Certificate, 1.2.840.113549.1.9.22.1
const X509_CERTIFICATE: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x09, 0x16, 0x01];
/// friendlyName, 1.2.840.113549.1.9.20
const FRIENDLY_NAME: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x09, 0x14];
/// Oracle's trustedKeyUsage, 2.16.840.1.113894.746875.1.1: without it Java does not take a certificate for a root.
const TRUSTED_KEY_USAGE: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x86, 0xF9, 0x66, 0xAD, 0xCA, 0x7B, 0x01, 0x01];
/// anyExtendedKeyUsage, 2.5.29.37.0
const ANY_KEY_USAGE: &[u8] = &[0x55, 0x1D, 0x25, 0x00];
/// id-sha256, 2.16.840.1.101.3.4.2.1
const ID_SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];

/// A store of trusted certificates, with our `own` last, under `password`.
pub(super) fn pkcs12(roots: &[CertificateDer<'_>], own: &[CertificateDer<'_>], password: &str) -> Vec<u8> {
    let named = roots.iter().enumerate().map(|(at, root)| bag(&format!("root-{}", at + 1), root));
    let own = own.iter().zip([OWN_ALIAS, OWN_NEXT_ALIAS]).map(|(own, alias)| bag(alias, own));
    let bags: Vec<Vec<u8>> = named.chain(own).collect();
    let bytes_count = bags.iter().map(Vec::len).sum::<usize>();
    // All that is around the certificates finds room here: every start makes the store, and copies would be its cost.
    let mut store = Vec::with_capacity(bytes_count + AROUND_BYTES);
    bags.iter().for_each(|bag| store.extend_from_slice(bag));
    let contents = enclosed(SEQUENCE, store);
    let authenticated = enclosed(SEQUENCE, data(contents));
    // Of the content, so that the same content is the same file.
    let digest = ring::digest::digest(&SHA256, &authenticated);
    let salt = &digest.as_ref()[..SALT_BYTES];
    let key = hmac::Key::new(hmac::HMAC_SHA256, &checksum_key(password, salt));
    let checksum = hmac::sign(&key, &authenticated);
    let mac = mac_data(checksum.as_ref(), salt);
    let mut store = before(&integer(3), data(authenticated));
    store.extend_from_slice(&mac);
    enclosed(SEQUENCE, store)
}

/// A SafeBag with one certificate, which Java is to trust for everything (RFC 7292, 4.2 and 4.2.3).
fn bag(alias: &str, certificate: &CertificateDer<'_>) -> Vec<u8> {
    let value = sequence(&[object(X509_CERTIFICATE), element(CONTEXT_0, &element(OCTETS, certificate))]);
    let attribute = |name: &[u8], value: Vec<u8>| sequence(&[object(name), element(SET, &value)]);
    // DER sorts the members of a set by their bytes; after its tag and length, friendlyName's identifier comes first
    // or last by its length alone.
    let mut attributes = [
        attribute(FRIENDLY_NAME, element(BMP_STRING, &utf16(alias))),
        attribute(TRUSTED_KEY_USAGE, object(ANY_KEY_USAGE)),
    ];
    attributes.sort();
    sequence(&[object(CERTIFICATE_BAG), element(CONTEXT_0, &value), element(SET, &attributes.concat())])
}

/// MacData: algorithm, checksum, salt, rounds (RFC 7292, 4).
fn mac_data(checksum: &[u8], salt: &[u8]) -> Vec<u8> {
    let algorithm = sequence(&[object(ID_SHA256), element(NULL, &[])]);
    sequence(&[sequence(&[algorithm, element(OCTETS, checksum)]), element(OCTETS, salt), integer(ROUNDS)])
}

/// The key of the checksum, as long as one SHA-256, so that one pass of appendix B.2 makes it.
fn checksum_key(password: &str, salt: &[u8]) -> [u8; SHA256_OUTPUT_LEN] {
    /// "ID=3" of appendix B.3: a key for a MAC.
    const PURPOSE: [u8; BLOCK_BYTES] = [3; BLOCK_BYTES];
    let password = [utf16(password), vec![0, 0]].concat();
    let mut hash = Context::new(&SHA256);
    for part in [&PURPOSE[..], &filled(salt), &filled(&password)] {
        hash.update(part);
    }
    let mut digest = hash.finish();
    for _ in 1..ROUNDS {
        digest = ring::digest::digest(&SHA256, digest.as_ref());
    }
    let mut key = [0; SHA256_OUTPUT_LEN];
    key.copy_from_slice(digest.as_ref());
    key
}

/// `bytes` again and again, up to whole blocks.
fn filled(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().cycle().take(bytes.len().next_multiple_of(BLOCK_BYTES)).collect()
}

/// A BMPString's content: two bytes for each character.
fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

/// A ContentInfo of plain data.
fn data(content: Vec<u8>) -> Vec<u8> {
    enclosed(SEQUENCE, before(&object(DATA), enclosed(CONTEXT_0, enclosed(OCTETS, content))))
}

fn object(identifier: &[u8]) -> Vec<u8> {
    element(OBJECT, identifier)
}

fn sequence(members: &[Vec<u8>]) -> Vec<u8> {
    element(SEQUENCE, &members.concat())
}

/// The shortest form of a number that is not negative.
fn integer(number: u32) -> Vec<u8> {
    let bytes = u64::from(number).to_be_bytes();
    let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len() - 1);
    // A leading one bit would be a minus sign.
    let first = first - usize::from(bytes[first] >= 0x80);
    element(INTEGER, &bytes[first..])
}

/// Tag, length in its shortest form, content.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    [&header(tag, content.len()), content].concat()
}

/// The same of what is large: in its own memory.
fn enclosed(tag: u8, content: Vec<u8>) -> Vec<u8> {
    before(&header(tag, content.len()), content)
}

fn before(front: &[u8], mut content: Vec<u8>) -> Vec<u8> {
    content.splice(0..0, front.iter().copied());
    content
}

fn header(tag: u8, length: usize) -> Vec<u8> {
    let length = length.to_be_bytes();
    let digits = &length[length.iter().position(|byte| *byte != 0).unwrap_or(length.len() - 1)..];
    match digits {
        [short @ 0..=0x7F] => vec![tag, *short],
        // A length of eight bytes at most: the count fits.
        long => [&[tag, 0x80 | u8::try_from(long.len()).unwrap_or(u8::MAX)], long].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn certificates(count: usize) -> Vec<CertificateDer<'static>> {
        webpki_root_certs::TLS_SERVER_ROOT_CERTS[..count].to_vec()
    }

    /// What a tool prints; `None`, with a sentence, where it is not installed.
    fn tool(name: &str, arguments: &[&str]) -> Option<String> {
        let Ok(output) = Command::new(name).args(arguments).env_remove("JAVA_TOOL_OPTIONS").output() else {
            crate::skips::skip(format!("no {name} on this machine"));
            return None;
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{name}: {text}{}", String::from_utf8_lossy(&output.stderr));
        Some(text)
    }

    fn written(count: usize) -> (tempfile::TempDir, String) {
        let directory = tempfile::tempdir().unwrap();
        let all = certificates(count + 1);
        let path = directory.path().join("t.p12");
        std::fs::write(&path, pkcs12(&all[..count], &all[count..=count], "changeit")).unwrap();
        let path = path.to_str().unwrap().to_owned();
        (directory, path)
    }

    #[test]
    fn lengths_and_numbers_take_their_shortest_form() {
        assert_eq!(element(OCTETS, &[7; 127])[..2], [OCTETS, 127]);
        assert_eq!(element(OCTETS, &[7; 128])[..3], [OCTETS, 0x81, 128]);
        assert_eq!(element(OCTETS, &[7; 256])[..4], [OCTETS, 0x82, 1, 0]);
        assert_eq!(element(NULL, &[]), [NULL, 0]);
        assert_eq!(integer(0), [INTEGER, 1, 0]);
        assert_eq!(integer(3), [INTEGER, 1, 3]);
        assert_eq!(integer(128), [INTEGER, 2, 0, 128]);
        assert_eq!(integer(10_000), [INTEGER, 2, 0x27, 0x10]);
    }

    #[test]
    fn openssl_verifies_the_checksum_and_finds_every_certificate() {
        let (_directory, path) = written(5);
        let arguments = ["pkcs12", "-in", &path, "-nokeys", "-passin", "pass:changeit"];
        let Some(text) = tool("openssl", &arguments) else { return };
        assert_eq!(text.matches("BEGIN CERTIFICATE").count(), 6, "{text}");
        assert!(text.contains("friendlyName: valetkey"), "{text}");
        let wrong = Command::new("openssl").args(["pkcs12", "-in", &path, "-nokeys", "-passin", "pass:x"]).output();
        assert!(!wrong.unwrap().status.success(), "the checksum is verified");
    }

    #[test]
    fn java_takes_every_certificate_for_a_root() {
        let (_directory, path) = written(3);
        let arguments = ["-list", "-keystore", &path, "-storetype", "PKCS12", "-storepass", "changeit"];
        let Some(text) = tool("keytool", &arguments) else { return };
        assert_eq!(text.matches("trustedCertEntry").count(), 4, "{text}");
        assert!(text.contains("root-1,") && text.contains("valetkey,"), "{text}");
    }
}
