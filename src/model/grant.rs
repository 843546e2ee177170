//! What a nonce is minted for.

use super::{Rate, ScopeName, ServiceName};

/// A service with some of its scopes; never empty of scopes once it is in a lease.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The service, as the policy names it.
    pub service: ServiceName,
    /// Its scopes, as the policy names them.
    pub scopes: Vec<ScopeName>,
}

/// One service of a lease: what the policy gave of a [`Grant`], with the limits that it sets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LeaseGrant {
    /// The service.
    pub service: ServiceName,
    /// Its scopes, each with limits of its own.
    pub scopes: Vec<(ScopeName, ScopeLimits)>,
}

/// How often one nonce may use one scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ScopeLimits {
    /// Uses altogether (`None`: no limit of its own).
    pub uses: Option<u32>,
    /// How fast (`None`: no limit of its own).
    pub rate: Option<Rate>,
}
