//! The leak oracle: looks for a credential in every form that is promised to be masked.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Fails if `secret` is anywhere in `bytes`, plainly or encoded.
pub fn assert_clean(secret: &str, bytes: &[u8], what: &str) {
    for (form, needle) in forms(secret) {
        let found = memchr::memmem::find(&bytes.to_ascii_lowercase(), needle.to_ascii_lowercase().as_bytes());
        assert!(found.is_none(), "the credential is in {what}, as {form}: {}", String::from_utf8_lossy(bytes));
    }
}

/// The secret in its forms.
pub fn forms(secret: &str) -> Vec<(&'static str, String)> {
    let bytes = secret.as_bytes();
    let mut forms = vec![
        ("plain text", secret.to_owned()),
        ("hex", hex::encode(bytes)),
        ("percent", bytes.iter().map(|byte| format!("%{byte:02X}")).collect()),
        ("JSON escapes", bytes.iter().map(|byte| format!("\\u{byte:04x}")).collect()),
    ];
    for offset in 0..3 {
        let padded: Vec<u8> = [&b"\0\0"[..offset], bytes].concat();
        // Characters that the neighbours have a say in are left out at both ends.
        let (start, end) = ([0, 2, 3][offset], if padded.len().is_multiple_of(3) { 0 } else { 1 });
        for (form, text) in
            [("base64", STANDARD_NO_PAD.encode(&padded)), ("base64url", URL_SAFE_NO_PAD.encode(&padded))]
        {
            forms.push((form, text[start..text.len() - end].to_owned()));
        }
    }
    forms
}
