//! The real secret.

use std::fmt;

use ring::digest;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Longest credential, in bytes: what fits a header line of the strictest well-known servers.
pub const CREDENTIAL_BYTES_MAX: usize = 8 * 1024;
/// Shortest credential that can be searched for in answers without false finds, in bytes.
pub const CREDENTIAL_BYTES_SCRUBBABLE: usize = 16;

/// A real credential: printable ASCII, wiped on drop, never printed, read only through [`Credential::expose`].
pub struct Credential(Zeroizing<Box<[u8]>>);

/// Why bytes were refused as a credential. Says nothing of the bytes themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// There is nothing in it.
    #[error("is empty")]
    Empty,
    /// It is longer than [`CREDENTIAL_BYTES_MAX`].
    #[error("is longer than 8192 bytes")]
    TooLong,
    /// It holds CR, LF, NUL, another control character or a byte beyond ASCII (RFC 9110, 5.5).
    #[error("holds a control character, a line end or a byte that is not ASCII")]
    Character,
}

impl Credential {
    /// Takes a credential in; `bytes` should be the only copy.
    ///
    /// # Errors
    /// [`CredentialError`] when it could not stand in a header field: header injection stops here.
    #[expect(clippy::needless_pass_by_value, reason = "the caller's copy ends here, wiped")]
    pub fn parse(bytes: Zeroizing<Vec<u8>>) -> Result<Self, CredentialError> {
        match bytes.len() {
            0 => Err(CredentialError::Empty),
            n if n > CREDENTIAL_BYTES_MAX => Err(CredentialError::TooLong),
            _ if !bytes.iter().all(|b| (0x20..=0x7e).contains(b)) => Err(CredentialError::Character),
            _ => Ok(Self(Zeroizing::new(bytes.as_slice().into()))),
        }
    }

    /// The secret itself. Only `proxy/inject.rs` may call this (clippy's `disallowed-methods`).
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Its length in bytes.
    #[must_use]
    pub fn bytes_count(&self) -> usize {
        self.0.len()
    }

    /// True when both hold the same bytes; takes the same time wherever two of one length differ.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    /// True when it is long enough to be searched for in answers: [`CREDENTIAL_BYTES_SCRUBBABLE`] or more.
    #[must_use]
    pub fn is_scrubbable(&self) -> bool {
        self.0.len() >= CREDENTIAL_BYTES_SCRUBBABLE
    }
}

/// By which a credential is known again that is not kept: a digest of it under a pad that was made for it.
///
/// Whoever reads both can try guesses, and nothing else.
pub struct Mark {
    /// As long as the credential.
    pad: Box<[u8]>,
    digest: digest::Digest,
}

impl Mark {
    /// Of this credential; `fill` makes random bytes, and without them there is no mark.
    pub fn of(credential: &Credential, fill: impl FnOnce(&mut [u8]) -> bool) -> Option<Self> {
        let mut pad = vec![0; credential.bytes_count()].into_boxed_slice();
        let is_random = fill(&mut pad);
        is_random.then(|| Self { digest: padded(credential, &pad), pad })
    }

    /// Whether it is of the same bytes.
    #[must_use]
    pub fn is_of(&self, credential: &Credential) -> bool {
        credential.bytes_count() == self.pad.len() && self.digest.as_ref() == padded(credential, &self.pad).as_ref()
    }
}

/// The digest works on what is not the credential: it leaves parts of what it reads on the stack.
fn padded(credential: &Credential, pad: &[u8]) -> digest::Digest {
    let padded: Zeroizing<Vec<u8>> = Zeroizing::new(credential.0.iter().zip(pad).map(|(a, b)| a ^ b).collect());
    digest::digest(&digest::SHA256, &padded)
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<Credential, CredentialError> {
        Credential::parse(Zeroizing::new(bytes.to_vec()))
    }

    #[test]
    fn what_cannot_stand_in_a_header_is_refused() {
        for bad in [&b"a\rb"[..], b"a\nb", b"a\0b", "a\u{e9}".as_bytes(), b"a\tb", b"a\x7fb"] {
            assert_eq!(parse(bad).err(), Some(CredentialError::Character));
        }
        assert_eq!(parse(b"").err(), Some(CredentialError::Empty));
        assert_eq!(parse(&[b'a'; 8193]).err(), Some(CredentialError::TooLong));
    }

    #[test]
    fn sameness_is_of_every_byte_and_the_length() {
        let secret = parse(b"sk_live_1234567890").unwrap();
        assert!(secret.same_as(&parse(b"sk_live_1234567890").unwrap()));
        for other in [&b"sk_live_1234567891"[..], b"Sk_live_1234567890", b"sk_live_123456789"] {
            assert!(!secret.same_as(&parse(other).unwrap()));
        }
    }

    #[test]
    fn a_mark_knows_its_credential_again_and_no_other() {
        let secret = parse(b"sk_live_1234567890").unwrap();
        let fill = |pad: &mut [u8]| {
            pad.fill(0x5a);
            true
        };
        let mark = Mark::of(&secret, fill).unwrap();
        assert!(mark.is_of(&secret) && mark.is_of(&parse(b"sk_live_1234567890").unwrap()));
        for other in [&b"sk_live_1234567891"[..], b"sk_live_123456789", b"sk_live_12345678900"] {
            assert!(!mark.is_of(&parse(other).unwrap()));
        }
        assert!(Mark::of(&secret, |_| false).is_none());
    }

    #[test]
    fn sixteen_bytes_can_be_searched_for() {
        assert!(!parse(&[b'a'; 15]).unwrap().is_scrubbable());
        assert!(parse(&[b'a'; 16]).unwrap().is_scrubbable());
    }

    #[test]
    fn it_is_never_printed() {
        let secret = parse(b"sk_live_1234567890").unwrap();
        assert_eq!(format!("{secret:?}"), "Credential(…)");
    }
}
