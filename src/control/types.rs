//! What is said over the control API, in both directions: the shapes of `docs/openapi.json`.
//!
//! Answers may gain members; a client must not mind ones that it does not know. Requests may not: an unknown member
//! is refused.

mod aws;
mod delegation;
mod many;
mod operations;
mod problem;

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zeroize::Zeroizing;

pub use aws::AwsKeys;
pub use delegation::{DelegationAsked, RevocationGiven};
pub use many::{
    CompletionAsked, Explanation, ExplanationAsked, LEAK_NONCES_MAX, LeakReport, RISK_TTL_SECONDS_MAX, RevocationAsked,
    Revoked, RiskAsked, RiskView, SOURCE_BYTES_MAX, URL_BYTES_MAX, WayView,
};
pub use operations::{MinterView, Ready, WhoAmI};
pub use problem::{Mistake, Problem};

/// Names of agents, tasks, services and scopes, in bytes at most.
pub const NAME_BYTES_MAX: usize = crate::model::name::NAME_BYTES_MAX;
/// Grants of one nonce at most.
pub const GRANTS_MAX: usize = 32;
/// Scopes of one nonce at most, over all its grants.
pub const SCOPES_MAX: usize = 64;
/// `instance` in bytes at most.
pub const INSTANCE_BYTES_MAX: usize = 128;
/// `on_behalf_of` in bytes at most.
pub const ON_BEHALF_OF_BYTES_MAX: usize = 256;
/// `reason` in bytes at most.
pub const REASON_BYTES_MAX: usize = 256;
/// Labels at most.
pub const LABELS_MAX: usize = 16;
/// A label's name in bytes at most.
pub const LABEL_NAME_BYTES_MAX: usize = 64;
/// A label's value in bytes at most.
pub const LABEL_VALUE_BYTES_MAX: usize = 256;
/// Leases on one page of a list at most.
pub const PAGE_MAX: usize = 500;
/// Leases on one page of a list when the call does not say.
pub const PAGE_DEFAULT: usize = 100;

/// A mint: either `service` and `scope`, or `grants`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewNonce {
    /// For which agent, as the policy names it.
    #[schema(min_length = 1, max_length = 128, example = "billing")]
    pub agent: String,
    /// For what, in the minter's words: letters, digits and `-_.:@/+*`.
    #[schema(min_length = 1, max_length = 128, example = "refund-4711")]
    pub task: String,
    /// True for a canary: a nonce that opens nothing and is left lying about, so that any use of it is an alarm. It goes
    /// with no service, scope, grant or count of uses, and lives for 30 days if nothing else is asked, for 366 at most.
    #[serde(default, skip_serializing_if = "is_false")]
    pub canary: bool,
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
    /// How long, at most; the policy's default if absent. The answer says what was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<TtlAsked>)]
    pub ttl: Option<TtlAsked>,
    /// Requests in the whole life of the nonce; unlimited if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 1, example = 20)]
    pub max_uses: Option<u32>,
    /// How fast the whole nonce may be used, such as `10/min`; as fast as its scopes may if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "10/min")]
    pub rate: Option<String>,
    /// Which run of the agent. Recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 1, max_length = 128, example = "run-9")]
    pub instance: Option<String>,
    /// On whose behalf. Recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 1, max_length = 256, example = "user:ana")]
    pub on_behalf_of: Option<String>,
    /// Why. Recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 1, max_length = 256, example = "refund check")]
    pub reason: Option<String>,
    /// At most 16, names up to 64 and values up to 256 bytes of printable text. Recorded.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// What is said only where it is so.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// One scope, or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum ScopeList {
    /// `"read:customers"`
    One(String),
    /// `["read:customers", "write:refunds"]`
    Many(Vec<String>),
}

/// A time to live: a number of seconds, or a text such as `90s`, `5m`, `1h`, `1d`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum TtlAsked {
    /// Seconds, from 1.
    Seconds(u32),
    /// A whole number and a unit of `s`, `m`, `h`, `d`.
    Text(String),
}

/// A service with some of its scopes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GrantAsked {
    /// The service.
    #[schema(example = "stripe")]
    pub service: String,
    /// Its scopes.
    #[schema(min_items = 1, max_items = 64)]
    pub scopes: Vec<String>,
}

/// A plain nonce on its way to whoever asked for it: wiped when dropped, never printed by `Debug`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct PlainNonce(Zeroizing<String>);

impl From<String> for PlainNonce {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl Serialize for PlainNonce {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl PlainNonce {
    /// Takes the text in.
    #[must_use]
    pub fn new(text: String) -> Self {
        text.into()
    }

    /// The text, for the agent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PlainNonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlainNonce(…)")
    }
}

/// A nonce that was just minted. The nonce itself is in this answer and nowhere ever again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Minted {
    /// The accessor: safe in logs and URLs, useless for calling.
    #[schema(example = "nc_01J8Z4T6V0Q2W4E6R8T0Y2V4X6")]
    pub id: String,
    /// The accessor of the nonce that it was delegated from; absent where it was minted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub parent: Option<String>,
    /// What the agent presents.
    #[schema(value_type = String, example = "an_4xK9mP…")]
    pub nonce: PlainNonce,
    /// For each granted service the nonce in the shape that its SDKs accept.
    #[schema(value_type = BTreeMap<String, String>)]
    pub placeholders: BTreeMap<String, PlainNonce>,
    /// What an AWS SDK signs with; there where a granted service has the slot `aws-sigv4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub aws: Option<AwsKeys>,
    /// Whose.
    pub agent: String,
    /// For what.
    pub task: String,
    /// What it opens.
    pub grants: Vec<GrantGiven>,
    /// All that it may do, whatever the grants allow; absent where it has no such list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<String>,
    /// When it was minted.
    #[schema(value_type = String, format = DateTime)]
    pub issued_at: Timestamp,
    /// When this period ends.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
    /// The same, in seconds from now.
    pub expires_in: u64,
    /// When its life ends for good.
    #[schema(value_type = String, format = DateTime)]
    pub ends_at: Timestamp,
    /// What made the time shorter than asked: `ceilings.high`, `agents.NAME.ttl` or `parent`; null when it was given as
    /// asked.
    pub ttl_capped_by: Option<String>,
    /// Uses of the whole nonce; null is no limit.
    pub max_uses: Option<u32>,
    /// Uses left; null is no limit.
    pub uses_left: Option<u32>,
    /// How fast the whole nonce may be used; absent where only its scopes say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "10/min")]
    pub rate: Option<String>,
    /// What made the rate slower than asked: `parent`, or `services.NAME.scopes.SCOPE.rate`; absent when it was given as
    /// asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub rate_capped_by: Option<String>,
    /// What the agent sets as `HTTPS_PROXY`.
    #[schema(example = "http://127.0.0.1:8080")]
    pub proxy: String,
    /// What the minter should know about this set-up; absent when there is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub warning: Option<String>,
}

/// What one service's part of a nonce opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GrantGiven {
    /// The service.
    pub service: String,
    /// Its scopes.
    pub scopes: Vec<String>,
    /// Where: hosts, with the port where it is not 443.
    pub hosts: Vec<String>,
    /// What: the rules as the policy spells them.
    pub allow: Vec<String>,
}

/// A live lease, read back; never the nonce itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeaseView {
    /// The accessor.
    pub id: String,
    /// The accessor of the nonce that it was delegated from; null where it was minted.
    pub parent: Option<String>,
    /// How many delegations lie between it and the nonce that was minted.
    #[serde(default)]
    pub depth: usize,
    /// Live nonces that were delegated from it.
    #[serde(default)]
    pub children: usize,
    /// Whose.
    pub agent: String,
    /// For what.
    pub task: String,
    /// Who asked for it.
    pub minter: String,
    /// What it opens.
    pub grants: Vec<GrantGiven>,
    /// All that it may do, whatever the grants allow; absent where it has no such list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<String>,
    /// True for a canary, which opens nothing; absent otherwise.
    #[serde(default, skip_serializing_if = "is_false")]
    pub canary: bool,
    /// When it was minted.
    #[schema(value_type = String, format = DateTime)]
    pub issued_at: Timestamp,
    /// When this period ends.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
    /// The same, in seconds from now.
    pub expires_in: u64,
    /// When its life ends for good.
    #[schema(value_type = String, format = DateTime)]
    pub ends_at: Timestamp,
    /// Uses of the whole nonce; null is no limit.
    pub max_uses: Option<u32>,
    /// Uses left; null is no limit.
    pub uses_left: Option<u32>,
    /// How fast the whole nonce may be used; absent where only its scopes say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub rate: Option<String>,
    /// Which run of the agent.
    pub instance: Option<String>,
    /// On whose behalf.
    pub on_behalf_of: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The level of risk that a monitor put it at, which lowers what is allowed; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub risk: Option<RiskView>,
    /// In the answer to a renewal, what made it shorter than asked: `ceilings.high`, `lifetime`, or `parent`; absent when
    /// it was given as asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub ttl_capped_by: Option<String>,
}

/// How a nonce is to be renewed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RenewalAsked {
    /// How long from now on, at most; the policy's default if absent. The answer says what was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<TtlAsked>)]
    pub ttl: Option<TtlAsked>,
}

/// One page of leases, in the order of their ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeasePage {
    /// The leases.
    pub nonces: Vec<LeaseView>,
    /// `after` of the next page; null on the last.
    pub next_after: Option<String>,
}

/// Which leases to list; all members are optional.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// Of this agent only.
    pub agent: Option<String>,
    /// For this task only.
    pub task: Option<String>,
    /// With a grant of this service only.
    pub service: Option<String>,
    /// After this id.
    pub after: Option<String>,
    /// At most so many, up to [`PAGE_MAX`].
    pub limit: Option<usize>,
}

/// What a nonce is to be introspected by: exactly one of the two.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IntrospectionAsked {
    /// The plain nonce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<String>)]
    pub nonce: Option<PlainNonce>,
    /// The same under RFC 7662's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<String>)]
    pub token: Option<PlainNonce>,
}

/// RFC 7662, 2.2: nothing but `active` unless it is true.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Introspection {
    /// True for a live nonce of one of the caller's agents.
    pub active: bool,
    /// `service:scope` of each scope, with blanks between them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub scope: Option<String>,
    /// The agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub sub: Option<String>,
    /// The minter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub client_id: Option<String>,
    /// When it expires, in seconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub exp: Option<i64>,
    /// When it was minted, in seconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub iat: Option<i64>,
    /// The accessor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub jti: Option<String>,
    /// The task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub task: Option<String>,
}

/// What may be minted for the caller's agents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceList {
    /// The services of which some agent of the caller's may have a scope.
    pub services: Vec<ServiceView>,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceView {
    /// Its name.
    pub name: String,
    /// Its hosts, with the port where it is not 443.
    pub hosts: Vec<String>,
    /// The scopes that some agent of the caller's may have.
    pub scopes: Vec<ScopeView>,
}

/// One scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScopeView {
    /// Its name.
    pub name: String,
    /// `low`, `medium`, `high`.
    pub risk: String,
    /// Uses in a nonce's life; null is no limit.
    pub max_uses: Option<u32>,
    /// How fast one nonce may use it; null is no limit.
    #[schema(example = "10/min")]
    pub rate: Option<String>,
    /// What it allows, as the policy spells it.
    pub allow: Vec<String>,
    /// Which of the caller's agents may have it.
    pub agents: Vec<String>,
    /// What is wrong with its credential; null when it can be had.
    pub problem: Option<String>,
}
