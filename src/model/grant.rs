//! What a nonce is minted for.

use super::{ScopeName, ServiceName};

/// A service with some of its scopes; never empty of scopes once it is in a lease.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The service, as the policy names it.
    pub service: ServiceName,
    /// Its scopes, as the policy names them.
    pub scopes: Vec<ScopeName>,
}

/// One service of a lease: what the policy gave of a [`Grant`], with the uses that it allows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LeaseGrant {
    /// The service.
    pub service: ServiceName,
    /// Its scopes and the uses each has (`None`: no limit of its own).
    pub scopes: Vec<(ScopeName, Option<u32>)>,
}
