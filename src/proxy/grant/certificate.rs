//! The client certificate of a permit.

use super::{Licence, Permit};
use crate::model::CredentialName;

impl Permit {
    /// The one that is shown upstream: that of the service, for a nonce alone.
    pub(in crate::proxy) fn certificate(&self) -> Option<&CredentialName> {
        match &self.licence {
            Licence::Anonymous => None,
            Licence::Credential { .. } => self.service.client_certificate.as_ref(),
        }
    }
}
