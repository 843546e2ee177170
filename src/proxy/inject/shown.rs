//! The client certificate that a connection shows upstream.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rustls::sign::CertifiedKey;

use crate::credential::{Value, Versioned};
use crate::model::CredentialName;

/// A client certificate with what signs for it. Of one name and version there is one alone, so that these tell it from
/// others. Small, since it is moved with every request.
#[derive(Clone)]
pub struct Shown(Arc<Inner>);

struct Inner {
    version: (CredentialName, u64),
    certified: Arc<CertifiedKey>,
}

impl Shown {
    /// `None` where the credential is something else.
    pub(super) fn of(versioned: &Versioned) -> Option<Self> {
        match &versioned.value {
            Value::Text(_) | Value::KeyPair(_) => None,
            Value::Certificate(certificate) => {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "the connection is given what signs, here and nowhere else"
                )]
                let certified = certificate.certified();
                Some(Self(Arc::new(Inner { version: (versioned.name.clone(), versioned.version), certified })))
            }
        }
    }

    /// Which credential, and which version of it.
    pub(in crate::proxy) fn version(&self) -> &(CredentialName, u64) {
        &self.0.version
    }

    /// The chain, and what signs with its key.
    pub(in crate::proxy) fn signer(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0.certified)
    }
}

impl PartialEq for Shown {
    fn eq(&self, other: &Self) -> bool {
        self.version() == other.version()
    }
}

impl Eq for Shown {}

impl Hash for Shown {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.version().hash(state);
    }
}
