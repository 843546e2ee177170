//! What a credential can be.

use super::certificate::ClientCertificate;
use crate::model::Credential;

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

    /// What can be known again by its bytes; `None` for a certificate.
    pub(super) fn bytes(&self) -> Option<&Credential> {
        self.text().or(self.key_pair())
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
