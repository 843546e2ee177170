//! What our certificates say, and what one that is read must say.

use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber, date_time_ymd,
};
use ring::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::model::Host;

use super::permitted::Permitted;
use super::{AuthorityError, Description, Home};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// Life of a CA, in seconds; one in memory ends with its process anyway.
pub(super) const AUTHORITY_SECONDS: i64 = 365 * DAY;
/// With less than this left, the start warns, in seconds.
pub(super) const WARN_SECONDS: i64 = 30 * DAY;
/// Longest span of a leaf from start to end, in seconds; a day under the 200 days that clients are about to accept.
pub(super) const LEAF_SECONDS_MAX: i64 = 199 * DAY;
/// A leaf with less than this left is made anew, in seconds.
pub(super) const LEAF_RENEW_SECONDS: i64 = DAY;
/// How far a CA is dated back, for clients whose clock is behind, in seconds.
const AUTHORITY_BACKDATED_SECONDS: i64 = HOUR;
/// How far a leaf is dated back (never before its CA), in seconds.
const LEAF_BACKDATED_SECONDS: i64 = DAY;

/// The subject of every CA of ours begins so; eight random hex digits follow.
pub(super) const SUBJECT_PREFIX: &str = "valetkey local CA ";

/// From when until when, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) from: i64,
    pub(super) until: i64,
}

impl Validity {
    /// Whether a moment lies within.
    pub(super) fn holds(self, now: i64) -> bool {
        self.from <= now && now < self.until
    }

    /// The span of a leaf made now under a CA with this span.
    pub(super) fn of_leaf(self, now: i64) -> Self {
        let from = (now - LEAF_BACKDATED_SECONDS).max(self.from);
        Self { from, until: (from + LEAF_SECONDS_MAX).min(self.until) }
    }

    fn write(self, params: &mut CertificateParams) {
        let since = |seconds: i64| Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        params.not_before = date_time_ymd(1970, 1, 1) + since(self.from);
        params.not_after = date_time_ymd(1970, 1, 1) + since(self.until);
    }
}

/// The moment for showing; beyond what can be shown, the epoch.
pub(super) fn timestamp(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A new P-256 key.
pub(super) fn new_key() -> Result<KeyPair, AuthorityError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|_| AuthorityError::Generation)
}

/// A self-signed CA for `key` (RFC 5280, 4.2.1.9 and 4.2.1.3): it may sign leaves and nothing that signs, and only for
/// what is `permitted` where that is limited.
pub(super) fn new_authority(
    key: &KeyPair,
    now: i64,
    seconds: i64,
    permitted: Option<&Permitted>,
) -> Result<CertificateDer<'static>, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("{SUBJECT_PREFIX}{}", hex::encode(random::<4>()?)));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints = permitted.map(Permitted::constraints);
    params.serial_number = Some(serial()?);
    Validity { from: now - AUTHORITY_BACKDATED_SECONDS, until: now + seconds }.write(&mut params);
    let certificate = params.self_signed(key).map_err(|_| AuthorityError::Generation)?;
    Ok(certificate.der().clone())
}

/// A server certificate for one host, the name in the SAN alone.
///
/// AKI, SKI and an explicit "not a CA" are what strict verifiers (Python 3.13, `openssl verify -x509_strict`) ask for.
pub(super) fn new_leaf(
    host: &Host,
    validity: Validity,
    key: &impl PublicKeyData,
    issuer: &Issuer<'_, KeyPair>,
) -> Result<CertificateDer<'static>, AuthorityError> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![match host.ip() {
        Some(address) => SanType::IpAddress(address),
        None => SanType::DnsName(host.as_str().try_into().map_err(|_| AuthorityError::Generation)?),
    }];
    // A fixed name, since some clients stumble over an empty subject; never the host, which can be too long for a CN.
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "valetkey leaf");
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.serial_number = Some(serial()?);
    validity.write(&mut params);
    let certificate = params.signed_by(key, issuer).map_err(|_| AuthorityError::Generation)?;
    Ok(certificate.der().clone())
}

/// 126 random bits, positive and in minimal DER whatever they are: the first byte is 0x40 to 0x7f.
fn serial() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = random::<16>()?;
    bytes[0] = (bytes[0] & 0x3f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn random<const N: usize>() -> Result<[u8; N], AuthorityError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| AuthorityError::Generation)?;
    Ok(bytes)
}

/// What is known of a CA's certificate.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) subject: String,
    pub(super) validity: Validity,
    pub(super) public_key_sha256: [u8; 32],
    pub(super) fingerprint_sha256: [u8; 32],
    /// May it sign certificates (basicConstraints, and keyUsage where there is one)?
    pub(super) signs: bool,
    /// What it may sign, if it is limited as ours are.
    pub(super) permitted: Option<Permitted>,
    public_key: Vec<u8>,
}

impl Facts {
    /// Reads a certificate; `None` if it is not exactly one.
    pub(super) fn read(der: &[u8]) -> Option<Self> {
        let (rest, certificate) = X509Certificate::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let usage = certificate.key_usage().ok()?.is_none_or(|usage| usage.value.key_cert_sign());
        let validity = certificate.validity();
        Some(Self {
            subject: certificate.subject().to_string(),
            validity: Validity { from: validity.not_before.timestamp(), until: validity.not_after.timestamp() },
            public_key_sha256: sha256(certificate.public_key().raw),
            fingerprint_sha256: sha256(der),
            signs: certificate.is_ca() && usage,
            permitted: Permitted::read(&certificate),
            public_key: certificate.public_key().raw.to_vec(),
        })
    }

    /// What there is to say in public of a CA that lives there.
    pub(super) fn describe(&self, home: &Home) -> Description {
        Description {
            subject: self.subject.clone(),
            fingerprint_sha256: self.fingerprint_sha256,
            not_before: timestamp(self.validity.from),
            not_after: timestamp(self.validity.until),
            home: home.clone(),
            permitted: self.permitted.clone(),
        }
    }

    /// Whether the certificate is for this key.
    pub(super) fn belongs_to(&self, key: &KeyPair) -> bool {
        self.public_key == key.subject_public_key_info()
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn host(text: &str) -> Host {
        Host::parse(text).unwrap()
    }

    fn authority(seconds: i64) -> (Facts, Issuer<'static, KeyPair>, CertificateDer<'static>) {
        let key = new_key().unwrap();
        let der = new_authority(&key, NOW, seconds, None).unwrap();
        (Facts::read(&der).unwrap(), Issuer::from_ca_cert_der(&der, key).unwrap(), der)
    }

    #[test]
    fn the_ca_signs_leaves_only_and_is_dated_back() {
        let (facts, _, der) = authority(AUTHORITY_SECONDS);
        assert!(facts.signs);
        assert!(facts.subject.starts_with("CN=valetkey local CA "), "{}", facts.subject);
        assert_eq!(facts.validity, Validity { from: NOW - 3600, until: NOW + 365 * 86_400 });
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        let constraints = certificate.basic_constraints().unwrap().unwrap();
        assert!(constraints.critical && constraints.value.ca && constraints.value.path_len_constraint == Some(0));
        let usage = certificate.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
        assert!(!usage.value.digital_signature());
    }

    #[test]
    fn a_leaf_says_what_strict_verifiers_ask_for() {
        let (facts, issuer, authority) = authority(AUTHORITY_SECONDS);
        let key = new_key().unwrap();
        let der = new_leaf(&host("api.test"), facts.validity.of_leaf(NOW), &key, &issuer).unwrap();
        let (_, leaf) = X509Certificate::from_der(&der).unwrap();
        let (_, parent) = X509Certificate::from_der(&authority).unwrap();
        let text = format!("{:?}", leaf.extensions());
        for part in ["AuthorityKeyIdentifier", "SubjectKeyIdentifier", "DNSName(\"api.test\")", "server_auth: true"] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        assert!(!leaf.is_ca());
        assert!(leaf.basic_constraints().unwrap().is_some());
        assert!(leaf.key_usage().unwrap().unwrap().value.digital_signature());
        assert_eq!(leaf.issuer(), parent.subject());
        assert!(!leaf.subject().to_string().contains("api.test"));
        leaf.verify_signature(Some(parent.public_key())).unwrap();
        assert!(leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp() <= 199 * 86_400);
    }

    #[test]
    fn an_address_is_named_as_an_address() {
        let (facts, issuer, _) = authority(AUTHORITY_SECONDS);
        let key = new_key().unwrap();
        for (text, octets) in [("127.0.0.1", "[127, 0, 0, 1]"), ("[::1]", "0, 0, 0, 1]")] {
            let der = new_leaf(&host(text), facts.validity.of_leaf(NOW), &key, &issuer).unwrap();
            let (_, leaf) = X509Certificate::from_der(&der).unwrap();
            let names = format!("{:?}", leaf.subject_alternative_name().unwrap().unwrap().value.general_names);
            assert!(names.contains("IPAddress") && names.contains(octets), "{names}");
        }
    }

    #[test]
    fn a_leaf_never_outlives_its_ca_nor_199_days() {
        let long = Validity { from: 0, until: i64::MAX };
        let leaf = long.of_leaf(NOW);
        assert_eq!(leaf, Validity { from: NOW - DAY, until: NOW + 198 * DAY });
        let young = Validity { from: NOW - HOUR, until: NOW + 7 * DAY };
        assert_eq!(young.of_leaf(NOW), young);
    }

    #[test]
    fn validity_ends_before_its_last_second() {
        let span = Validity { from: 10, until: 20 };
        assert_eq!([9, 10, 19, 20].map(|now| span.holds(now)), [false, true, true, false]);
    }

    #[test]
    fn serials_are_positive_minimal_and_different() {
        let serials: Vec<_> = (0..200).map(|_| serial().unwrap().to_bytes()).collect();
        assert!(serials.iter().all(|s| s.len() == 16 && (0x40..0x80).contains(&s[0])));
        let distinct: std::collections::HashSet<_> = serials.iter().collect();
        assert_eq!(distinct.len(), 200);
    }

    #[test]
    fn a_certificate_with_a_tail_is_not_read() {
        let (_, _, der) = authority(AUTHORITY_SECONDS);
        let longer = [der.as_ref(), b"x"].concat();
        assert!(Facts::read(&longer).is_none());
        assert!(Facts::read(&der[..der.len() - 1]).is_none());
        assert!(Facts::read(b"").is_none());
    }
}
