//! What is said of delegations.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{GrantAsked, ScopeList, TtlAsked};

/// A delegation: for what, either `service` and `scope`, or `grants`, or neither for all that the nonce above has and
/// the agent may have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DelegationAsked {
    /// For which agent, as the policy names it.
    #[schema(min_length = 1, max_length = 128, example = "researcher")]
    pub agent: String,
    /// The one service; with `scope`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "stripe")]
    pub service: Option<String>,
    /// Its scopes; with `service`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<ScopeList>)]
    pub scope: Option<ScopeList>,
    /// Several services; in place of `service` and `scope`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_items = 1, max_items = 32)]
    pub grants: Option<Vec<GrantAsked>>,
    /// All that it may do, whatever its scopes allow: lines such as `GET /v1/customers/{id}`, each within what the nonce
    /// above may do. Absent: as the nonce above, and what its scopes allow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 64, example = json!(["GET /v1/customers/{id}"]))]
    pub rules: Vec<String>,
    /// How long, at most; the policy's default if absent, and never longer than the nonce above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<TtlAsked>)]
    pub ttl: Option<TtlAsked>,
    /// Requests in the whole life of the nonce; what the nonce above has left if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 1, example = 20)]
    pub max_uses: Option<u32>,
    /// How fast the whole nonce may be used, such as `10/min`; that of the nonce above if absent, and never faster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "10/min")]
    pub rate: Option<String>,
    /// Which run of the agent. Recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 1, max_length = 128, example = "run-9")]
    pub instance: Option<String>,
    /// On whose behalf: as of the nonce above, if that says so. Recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 1, max_length = 256, example = "user:ana")]
    pub on_behalf_of: Option<String>,
    /// Why. Recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 1, max_length = 256, example = "look it up")]
    pub reason: Option<String>,
    /// Beside those of the nonce above; at most 16 with those.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// What ended with a nonce that was revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RevocationGiven {
    /// Live nonces that were delegated from it, and from those.
    pub descendants: usize,
}
