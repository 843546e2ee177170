//! The two halves of an AWS key, and the token that may belong to them.

use zeroize::Zeroizing;

/// Longest access key id, in bytes (AWS, IAM `AccessKey`).
const ID_BYTES_MAX: usize = 128;
/// Longest secret, in bytes.
const SECRET_BYTES_MAX: usize = 256;
/// Shortest secret and shortest token, in bytes: what can be searched for in answers.
const SECRET_BYTES_MIN: usize = 16;

/// A key pair, read out of a [`super::Credential`] that holds one. No `Debug`.
#[derive(Clone, Copy)]
pub struct KeyPair<'a> {
    /// Goes with every request; no secret by itself.
    pub access_key_id: &'a str,
    /// Signs.
    pub secret: &'a str,
    /// Goes with every request that was signed by it, where there is one.
    pub session_token: Option<&'a str>,
}

impl<'a> KeyPair<'a> {
    /// Reads the one text that [`KeyPair::joined`] makes; `None` for anything else.
    #[must_use]
    pub fn split(text: &'a [u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(text).ok()?.split(' ');
        let pair = Self { access_key_id: words.next()?, secret: words.next()?, session_token: words.next() };
        (words.next().is_none() && pair.is_valid()).then_some(pair)
    }

    /// As one text, since a credential is one; `None` where a part is not what it should be.
    #[must_use]
    pub fn joined(&self) -> Option<Zeroizing<Vec<u8>>> {
        if !self.is_valid() {
            return None;
        }
        let parts = [Some(self.access_key_id), Some(self.secret), self.session_token];
        let bytes_max = parts.iter().flatten().map(|part| part.len() + 1).sum();
        // Allocated once: a buffer that grows leaves copies behind that nobody wipes.
        let mut text = Zeroizing::new(Vec::with_capacity(bytes_max));
        for part in parts.into_iter().flatten() {
            if !text.is_empty() {
                text.push(b' ');
            }
            text.extend_from_slice(part.as_bytes());
        }
        Some(text)
    }

    fn is_valid(&self) -> bool {
        let id = self.access_key_id;
        let is_id =
            (1..=ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let printable = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
        let is_secret = (SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&self.secret.len()) && printable(self.secret);
        is_id && is_secret && self.session_token.is_none_or(|token| token.len() >= SECRET_BYTES_MIN && printable(token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_joined_is_split_again() {
        for session_token in [None, Some("a-token-of-some-bytes==")] {
            let pair = KeyPair { access_key_id: "AKIDEXAMPLE", secret: "wJalrXUtnFEMI/K7MDENG+bPx", session_token };
            let joined = pair.joined().unwrap();
            let split = KeyPair::split(&joined).unwrap();
            assert_eq!((split.access_key_id, split.secret), (pair.access_key_id, pair.secret));
            assert_eq!(split.session_token, session_token);
        }
    }

    #[test]
    fn nothing_else_is_a_pair() {
        for text in ["", "sk_live_0123456789abcdef", "A short", "A 0123456789abcdef short", "A/B 0123456789abcdef"] {
            assert!(KeyPair::split(text.as_bytes()).is_none(), "{text}");
        }
        let four = "A 0123456789abcdef 0123456789abcdef 0123456789abcdef";
        assert!(KeyPair::split(four.as_bytes()).is_none());
        let odd = KeyPair { access_key_id: "A", secret: "0123456789 abcdef", session_token: None };
        assert!(odd.joined().is_none(), "a space would make another word");
    }
}
