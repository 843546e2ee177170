//! What a credential can be.

use super::certificate::ClientCertificate;
use crate::model::Credential;
use crate::model::secret::Mark;

/// The secret itself.
#[derive(Debug)]
pub enum Value {
    /// A text that goes into a request.
    Text(Credential),
    /// A key pair that signs requests, and is in none: the one text that [`crate::model::key_pair::KeyPair`] splits.
    KeyPair(Credential),
    /// A certificate with its key, for the connection that a request goes out on.
    Certificate(ClientCertificate),
}

impl Value {
    /// The text that goes into a request; `None` where it is something else.
    pub(super) fn text(&self) -> Option<&Credential> {
        match self {
            Self::Text(credential) => Some(credential),
            Self::KeyPair(_) | Self::Certificate(_) => None,
        }
    }

    /// The key pair that signs; `None` where it is something else.
    pub(super) fn key_pair(&self) -> Option<&Credential> {
        match self {
            Self::KeyPair(pair) => Some(pair),
            Self::Text(_) | Self::Certificate(_) => None,
        }
    }

    /// What it is known again by once it is let go of; `None` where `fill` finds no random bytes.
    pub(super) fn trace(&self, fill: impl FnOnce(&mut [u8]) -> bool) -> Option<Trace> {
        match self {
            Self::Text(credential) | Self::KeyPair(credential) => Mark::of(credential, fill).map(Trace::Text),
            // As hard to guess as the key that it is of.
            Self::Certificate(certificate) => Some(Trace::Certificate(certificate.digest())),
        }
    }

    /// True where it never stands in an answer, or is long enough to be found there.
    pub(super) fn is_scrubbable(&self) -> bool {
        match self {
            Self::Text(credential) | Self::KeyPair(credential) => credential.is_scrubbable(),
            // A key signs, and is never sent.
            Self::Certificate(_) => true,
        }
    }

    /// True for the same secret.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(one), Self::Text(other)) | (Self::KeyPair(one), Self::KeyPair(other)) => one.same_as(other),
            (Self::Certificate(one), Self::Certificate(other)) => one.same_as(other),
            (Self::Text(_) | Self::KeyPair(_) | Self::Certificate(_), _) => false,
        }
    }
}

/// What is left of a value that was let go of. Says nothing of it but whether another one is the same.
pub(super) enum Trace {
    Text(Mark),
    Certificate([u8; 32]),
}

impl Trace {
    /// True for the same secret.
    pub(super) fn is_of(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Text(mark), Value::Text(credential) | Value::KeyPair(credential)) => mark.is_of(credential),
            (Self::Certificate(digest), Value::Certificate(certificate)) => *digest == certificate.digest(),
            (Self::Text(_), Value::Certificate(_)) | (Self::Certificate(_), Value::Text(_) | Value::KeyPair(_)) => {
                false
            }
        }
    }
}
