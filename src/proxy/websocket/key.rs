//! `Sec-WebSocket-Key` and the answer to it (RFC 6455, 4.1 and 4.2.2): shows that somebody speaks WebSocket, no secret.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// What every server hashes together with the key.
const FIXED: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Sixteen bytes in base64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// A key as a client sends it; `None` for anything that is not 16 bytes in their one spelling.
    pub(super) fn parse(value: &HeaderValue) -> Option<Self> {
        let text = value.to_str().ok()?;
        let bytes = STANDARD.decode(text).ok()?;
        (bytes.len() == 16).then(|| Self(text.to_owned()))
    }

    /// A fresh one; `None` where the system has no randomness.
    pub(super) fn random() -> Option<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).ok()?;
        Some(Self(STANDARD.encode(bytes)))
    }

    pub(super) fn value(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.0).ok()
    }

    /// The one right answer.
    pub(super) fn accept(&self) -> Option<HeaderValue> {
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{}{FIXED}", self.0).as_bytes());
        HeaderValue::from_str(&STANDARD.encode(hash)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &'static str) -> Option<Key> {
        Key::parse(&HeaderValue::from_static(text))
    }

    #[test]
    fn the_answer_is_that_of_the_rfc() {
        let key = parse("dGhlIHNhbXBsZSBub25jZQ==").unwrap();
        assert_eq!(key.accept().unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_key_is_sixteen_bytes_in_one_spelling() {
        for bad in ["", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZR==", "dGhlIHNhbXBsZSBub25j", "an_0==", "x, y"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
        let (one, other) = (Key::random().unwrap(), Key::random().unwrap());
        assert_ne!(one, other);
        assert_eq!(Key::parse(&one.value().unwrap()), Some(one));
    }
}
