//! Nonces in a text: as they are, percent-encoded, and inside base64, as `Basic` credentials have them.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use percent_encoding::percent_decode;
use zeroize::Zeroizing;

use crate::model::NonceHash;
use crate::model::nonce::{NONCE_BYTES, find_all};

/// The shortest base64 that can hold a nonce.
const BASE64_MIN: usize = NONCE_BYTES * 4 / 3;

/// What is cut out of a text has its own idea of how it should end.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The hashes of all texts with the shape of a nonce.
pub(in crate::control) fn nonces(text: &str) -> BTreeSet<NonceHash> {
    let mut found = BTreeSet::new();
    look(text.as_bytes(), &mut found);
    if text.contains('%') {
        look(&Zeroizing::new(percent_decode(text.as_bytes()).collect::<Vec<u8>>()), &mut found);
    }
    found
}

fn look(text: &[u8], found: &mut BTreeSet<NonceHash>) {
    found.extend(find_all(text).map(NonceHash::of));
    for run in text.split(|byte| !is_base64(*byte)).filter(|run| run.len() >= BASE64_MIN) {
        // Something of the same letters may stand before it.
        for start in 0..4 {
            found.extend(find_all(&decoded(&run[start..])).map(NonceHash::of));
        }
    }
}

/// Both alphabets (RFC 4648, 4 and 5).
fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte)
}

/// As much as is whole.
fn decoded(run: &[u8]) -> Zeroizing<Vec<u8>> {
    let standard = |byte: &u8| match byte {
        b'-' => b'+',
        b'_' => b'/',
        other => *other,
    };
    let mut run: Zeroizing<Vec<u8>> = Zeroizing::new(run.iter().map(standard).collect());
    if run.len() % 4 == 1 {
        run.pop();
    }
    Zeroizing::new(BASE64.decode(run.as_slice()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    use super::*;
    use crate::model::Nonce;

    #[test]
    fn a_nonce_is_found_in_every_form() {
        let nonce = Nonce::from_entropy(&[7; 32]);
        let text = nonce.as_str();
        let encoded: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
        for hiding in [
            text.to_owned(),
            format!("export STRIPE_KEY=sk_test_{text}; # done"),
            text.replace('_', "%5F"),
            encoded,
            format!("Authorization: Basic {}", STANDARD.encode(format!("{text}:"))),
            format!("authorization: basic {}", STANDARD.encode(format!("x-access-token:{text}"))),
            format!("u={}", URL_SAFE_NO_PAD.encode(format!("user:{text}"))),
            format!("Basic%20{}", STANDARD.encode(format!("ab:{text}")).replace('=', "%3D")),
            format!("xyz{}", STANDARD.encode(text)),
        ] {
            assert_eq!(nonces(&hiding), BTreeSet::from([nonce.hash()]), "{hiding}");
        }
    }

    #[test]
    fn each_is_found_once_and_nothing_else_is() {
        let (one, other) = (Nonce::from_entropy(&[1; 32]), Nonce::from_entropy(&[2; 32]));
        let text = format!("{0} {1} {0} {0}", one.as_str(), other.as_str());
        assert_eq!(nonces(&text), BTreeSet::from([one.hash(), other.hash()]));
        for nothing in ["", "an_", "%", "%zz", &one.as_str()[..35], &"A".repeat(60_000), &"%41".repeat(20_000)] {
            assert!(nonces(nothing).is_empty());
        }
    }
}
