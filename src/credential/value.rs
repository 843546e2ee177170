//! What a credential can be.

use super::certificate::ClientCertificate;
use crate::model::Credential;

/// The secret itself.
#[derive(Debug)]
pub enum Value {
    /// A text that goes into a request.
    Text(Credential),
    /// A certificate with its key, for the connection that a request goes out on.
    Certificate(ClientCertificate),
}

impl Value {
    /// The text that goes into a request; `None` where it is a certificate.
    pub(super) fn text(&self) -> Option<&Credential> {
        match self {
            Self::Text(credential) => Some(credential),
            Self::Certificate(_) => None,
        }
    }

    /// True where it never stands in an answer, or is long enough to be found there.
    pub(super) fn is_scrubbable(&self) -> bool {
        match self {
            Self::Text(credential) => credential.is_scrubbable(),
            // A key signs, and is never sent.
            Self::Certificate(_) => true,
        }
    }

    /// True for the same secret.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(one), Self::Text(other)) => one.same_as(other),
            (Self::Certificate(one), Self::Certificate(other)) => one.same_as(other),
            (Self::Text(_), Self::Certificate(_)) | (Self::Certificate(_), Self::Text(_)) => false,
        }
    }
}
