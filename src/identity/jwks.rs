//! Key sets (RFC 7517) and signatures (RFC 7518): public keys of three families, read strictly.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;

use crate::json::Json;

/// Longest key set, in bytes.
pub(super) const SET_BYTES_MAX: usize = 256 * 1024;
/// Keys of a set at most.
const KEYS_MAX: usize = 128;
/// Longest name of a key, in bytes.
pub(super) const KID_BYTES_MAX: usize = 256;

/// A signature algorithm. There is none for shared secrets, and no `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// With SHA-384.
    Rs384,
    /// With SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// With SHA-384.
    Ps384,
    /// With SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

/// What kind of key an algorithm takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// `RSA`
    Rsa,
    /// `EC`
    Ec,
    /// `OKP`
    Okp,
}

/// All algorithms, by their names.
pub const ALGORITHMS: [(&str, Algorithm); 9] = [
    ("RS256", Algorithm::Rs256),
    ("RS384", Algorithm::Rs384),
    ("RS512", Algorithm::Rs512),
    ("PS256", Algorithm::Ps256),
    ("PS384", Algorithm::Ps384),
    ("PS512", Algorithm::Ps512),
    ("ES256", Algorithm::Es256),
    ("ES384", Algorithm::Es384),
    ("EdDSA", Algorithm::EdDsa),
];

impl Algorithm {
    /// By its name, case and all.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        ALGORITHMS.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
    }

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        ALGORITHMS.iter().find(|(_, algorithm)| *algorithm == self).map_or("", |(name, _)| name)
    }

    /// The kind of key that it takes.
    #[must_use]
    pub fn family(self) -> Family {
        match self {
            Self::Rs256 | Self::Rs384 | Self::Rs512 | Self::Ps256 | Self::Ps384 | Self::Ps512 => Family::Rsa,
            Self::Es256 | Self::Es384 => Family::Ec,
            Self::EdDsa => Family::Okp,
        }
    }
}

/// What a key may be for, as its `use` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// `sig`, or not said.
    Signatures,
    /// Reports of a secret scanner: the set has a form of its own.
    SecretScanning,
    /// `jwt-svid`, which a SPIFFE bundle has to say.
    JwtSvid,
}

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    kid: String,
    /// The only algorithm that it is for, if it says so.
    algorithm: Option<Algorithm>,
    material: Material,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// A key set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct KeySet(Vec<Key>);

impl KeySet {
    /// Reads the keys of this use; `None` when the set is not well-formed. Keys of kinds that are not known here are
    /// passed over.
    pub(super) fn parse(bytes: &[u8], wanted: Use) -> Option<Self> {
        if wanted == Use::SecretScanning {
            return Self::of_scanner(bytes);
        }
        let set = Json::parse_object(bytes)?;
        let list = set.get("keys")?.array()?;
        if list.len() > KEYS_MAX {
            return None;
        }
        let mut keys: Vec<Key> = Vec::new();
        for entry in list {
            let key = entry.object()?;
            if !is_for(key, wanted)? {
                continue;
            }
            let Some(key) = read_key(key)? else { continue };
            // Two keys of one name: nobody could say which of them is meant.
            if keys.iter().any(|known| known.kid == key.kid) {
                return None;
            }
            keys.push(key);
        }
        Some(Self(keys))
    }

    /// GitHub's form: `public_keys`, each a PEM with a name. One that is not current is not believed any more.
    fn of_scanner(bytes: &[u8]) -> Option<Self> {
        let set = Json::parse_object(bytes)?;
        let list = set.get("public_keys")?.array()?;
        if list.len() > KEYS_MAX {
            return None;
        }
        let mut keys: Vec<Key> = Vec::new();
        for entry in list {
            let entry = entry.object()?;
            let kid = entry.get("key_identifier")?.text()?;
            let pem = entry.get("key")?.text()?;
            let Json::Bool(is_current) = entry.get("is_current")? else { return None };
            if kid.is_empty() || kid.len() > KID_BYTES_MAX || keys.iter().any(|known| known.kid == kid) {
                return None;
            }
            if let Some(point) = p256_of_pem(pem).filter(|_| *is_current) {
                keys.push(Key {
                    kid: kid.to_owned(),
                    algorithm: Some(Algorithm::Es256),
                    material: Material::P256(point),
                });
            }
        }
        Some(Self(keys))
    }

    pub(super) fn find(&self, kid: &str) -> Option<&Key> {
        self.0.iter().find(|key| key.kid == kid)
    }
}

/// `None` where `use` or `key_ops` has another form.
fn is_for(key: &Json, wanted: Use) -> Option<bool> {
    let for_verifying = match key.get("key_ops") {
        None => true,
        Some(ops) => ops.array()?.iter().any(|op| op.text() == Some("verify")),
    };
    let said = match key.get("use") {
        None => None,
        Some(text) => Some(text.text()?),
    };
    Some(
        for_verifying
            && match wanted {
                Use::Signatures => said.is_none_or(|said| said == "sig"),
                Use::JwtSvid => said == Some("jwt-svid"),
                Use::SecretScanning => false,
            },
    )
}

/// `None` where the key is malformed, `Some(None)` where it is of a kind that is not known here, or has no name.
fn read_key(key: &Json) -> Option<Option<Key>> {
    let text = |name: &str| key.get(name).map(Json::text);
    let Some(kid) = text("kid") else { return Some(None) };
    let kid = kid.filter(|kid| !kid.is_empty() && kid.len() <= KID_BYTES_MAX)?;
    let algorithm = match text("alg") {
        None => None,
        Some(name) => match Algorithm::parse(name?) {
            None => return Some(None),
            known => known,
        },
    };
    let curve = text("crv").flatten();
    let material = match (text("kty")??, curve) {
        ("RSA", _) => Material::Rsa { n: bytes(key, "n")?, e: bytes(key, "e")? },
        ("EC", Some("P-256")) => Material::P256(point(key, 32)?),
        ("EC", Some("P-384")) => Material::P384(point(key, 48)?),
        ("OKP", Some("Ed25519")) => Material::Ed25519(bytes(key, "x").filter(|x| x.len() == 32)?),
        _ => return Some(None),
    };
    Some(Some(Key { kid: kid.to_owned(), algorithm, material }))
}

fn bytes(key: &Json, name: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(key.get(name)?.text()?).ok().filter(|bytes| !bytes.is_empty())
}

/// An uncompressed point (SEC 1, 2.3.3).
fn point(key: &Json, length: usize) -> Option<Vec<u8>> {
    let (x, y) = (bytes(key, "x")?, bytes(key, "y")?);
    (x.len() == length && y.len() == length).then(|| [&[4], x.as_slice(), y.as_slice()].concat())
}

/// The point of a public key on P-256, uncompressed, in the one DER that it has (RFC 5480, 2).
fn p256_of_pem(pem: &str) -> Option<Vec<u8>> {
    const BEFORE_POINT: [u8; 26] = [
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
        0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
    ];
    let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).ok()?;
    let point = der.strip_prefix(&BEFORE_POINT)?;
    (point.len() == 65 && point[0] == 4).then(|| point.to_vec())
}

impl Key {
    /// True when the signature, in DER, is this key's on P-256.
    pub(super) fn verifies_der(&self, message: &[u8], signature: &[u8]) -> bool {
        let Material::P256(point) = &self.material else { return false };
        let key = signature::UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_ASN1, point);
        key.verify(message, signature).is_ok()
    }

    /// True when the signature is this key's by this algorithm; never by an algorithm of another family, or by another
    /// than the key says.
    pub(super) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        if self.algorithm.is_some_and(|own| own != algorithm) {
            return false;
        }
        let plain = |kind: &'static dyn signature::VerificationAlgorithm, key: &[u8]| {
            signature::UnparsedPublicKey::new(kind, key).verify(message, signature).is_ok()
        };
        match (&self.material, algorithm) {
            (Material::Rsa { n, e }, algorithm) => {
                let Some(kind) = rsa(algorithm) else { return false };
                signature::RsaPublicKeyComponents { n, e }.verify(kind, message, signature).is_ok()
            }
            (Material::P256(point), Algorithm::Es256) => plain(&signature::ECDSA_P256_SHA256_FIXED, point),
            (Material::P384(point), Algorithm::Es384) => plain(&signature::ECDSA_P384_SHA384_FIXED, point),
            (Material::Ed25519(key), Algorithm::EdDsa) => plain(&signature::ED25519, key),
            (Material::P256(_) | Material::P384(_) | Material::Ed25519(_), _) => false,
        }
    }
}

fn rsa(algorithm: Algorithm) -> Option<&'static signature::RsaParameters> {
    match algorithm {
        Algorithm::Rs256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::Rs384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::Rs512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::Ps256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
        Algorithm::Ps384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
        Algorithm::Ps512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
        Algorithm::Es256 | Algorithm::Es384 | Algorithm::EdDsa => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P256: &str = r#""kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0""#;

    fn set(keys: &str, wanted: Use) -> Option<usize> {
        KeySet::parse(format!("{{\"keys\":[{keys}]}}").as_bytes(), wanted).map(|set| set.0.len())
    }

    #[test]
    fn keys_are_read_strictly() {
        let key = |more: &str| format!("{{{P256}{more}}}");
        assert_eq!(set(&key(r#","kid":"a","use":"sig","alg":"ES256""#), Use::Signatures), Some(1));
        assert_eq!(set(&key(r#","kid":"a""#), Use::Signatures), Some(1));
        assert_eq!(set(&key(r#","kid":"a""#), Use::JwtSvid), Some(0), "a bundle says what a key is for");
        assert_eq!(set(&key(r#","kid":"a","use":"jwt-svid""#), Use::JwtSvid), Some(1));
        for passed_over in
            [r#","kid":"a","use":"enc""#, "", r#","kid":"a","key_ops":["sign"]"#, r#","kid":"a","alg":"HS256""#]
        {
            assert_eq!(set(&key(passed_over), Use::Signatures), Some(0), "{passed_over}");
        }
        assert_eq!(set(r#"{"kty":"oct","kid":"a","k":"AAAA"}"#, Use::Signatures), Some(0), "no shared secret");
        let twice = format!("{},{}", key(r#","kid":"a""#), key(r#","kid":"a""#));
        assert_eq!(set(&twice, Use::Signatures), None);
        for bad in [
            key(r#","kid":"""#),
            key(r#","kid":7"#),
            key(r#","kid":"a","kid":"b""#),
            r#"{"kty":"EC","crv":"P-256","kid":"a","x":"AAAA","y":"AAAA"}"#.to_owned(),
            r#"{"kty":"RSA","kid":"a","n":"!","e":"AQAB"}"#.to_owned(),
            "7".to_owned(),
        ] {
            assert_eq!(set(&bad, Use::Signatures), None, "{bad}");
        }
    }

    #[test]
    fn names_are_exact() {
        for (name, algorithm) in ALGORITHMS {
            assert_eq!((Algorithm::parse(name), algorithm.as_str()), (Some(algorithm), name));
        }
        for bad in ["none", "None", "HS256", "rs256", "", "ES256K"] {
            assert_eq!(Algorithm::parse(bad), None);
        }
    }
}
