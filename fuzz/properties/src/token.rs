//! Signed tokens: only what the issuer's key has signed, to the letter, is taken for it.

use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use valetkey::identity::fuzzing::is_signed;

use crate::cuts::Input;

const HEADER: &str = r#"{"alg":"EdDSA","kid":"k"}"#;

/// Any text but the signed token is refused: a change of any byte, another header, another key set.
///
/// # Panics
/// Where that does not hold.
pub fn token(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        assert!(!is_signed(text, key_set().as_bytes()), "a token of nobody's");
    }
    // A set of keys of the input's own proves nothing that our key has signed, unless it is ours.
    let mut input = Input(data);
    let (place, change) = (input.number(), input.byte().max(1));
    let claims = serde_json::json!({ "sub": String::from_utf8_lossy(input.0) }).to_string();
    let signed = signed(HEADER, &claims);
    assert!(is_signed(&signed, key_set().as_bytes()), "a token of ours");
    let mut changed = signed.clone().into_bytes();
    let at = place % changed.len();
    changed[at] ^= change;
    if let Ok(changed) = String::from_utf8(changed) {
        assert!(!is_signed(&changed, key_set().as_bytes()), "byte {at} was changed by {change:#x}");
    }
    with_header(input.0, &claims);
    let of_input = is_signed(&signed, input.0);
    assert!(!of_input || input.0.windows(43).any(|part| part == public().as_bytes()), "somebody else's key");
}

/// A header of the input's own, signed by our key: taken only where it names the algorithm and the key.
fn with_header(header: &[u8], claims: &str) {
    let Ok(header) = std::str::from_utf8(header) else { return };
    if is_signed(&signed(header, claims), key_set().as_bytes()) {
        let header: serde_json::Value = serde_json::from_str(header).expect("a header is JSON");
        assert_eq!((&header["alg"], &header["kid"]), (&"EdDSA".into(), &"k".into()));
        for name in ["crit", "jku", "jwk", "x5u", "x5c", "b64", "zip", "enc"] {
            assert!(header.get(name).is_none(), "{name} is obeyed or overlooked");
        }
    }
}

fn pair() -> &'static Ed25519KeyPair {
    static PAIR: OnceLock<Ed25519KeyPair> = OnceLock::new();
    PAIR.get_or_init(|| Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a key"))
}

fn public() -> &'static str {
    static PUBLIC: OnceLock<String> = OnceLock::new();
    PUBLIC.get_or_init(|| URL_SAFE_NO_PAD.encode(pair().public_key()))
}

fn key_set() -> &'static str {
    static SET: OnceLock<String> = OnceLock::new();
    SET.get_or_init(|| format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"k","x":"{}"}}]}}"#, public()))
}

fn signed(header: &str, claims: &str) -> String {
    let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(pair().sign(text.as_bytes()));
    format!("{text}.{signature}")
}
