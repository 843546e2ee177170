//! The shapes of the calls that are about many nonces, or about none that there is yet.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{PlainNonce, ScopeList, TtlAsked};

/// Nonces of one report of leaks at most.
pub const LEAK_NONCES_MAX: usize = 1000;
/// Where a leak was found, in bytes at most.
pub const SOURCE_BYTES_MAX: usize = 256;
/// A URL in bytes at most.
pub const URL_BYTES_MAX: usize = 16 * 1024;
/// The longest time of a level of risk, in seconds.
pub const RISK_TTL_SECONDS_MAX: u64 = 24 * 60 * 60;

/// Which nonces to end: exactly one of `agent`, `task`, `service` and `all`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevocationAsked {
    /// Those of this agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "billing")]
    pub agent: Option<String>,
    /// Those for this task, of one's own agents, whoever minted them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub task: Option<String>,
    /// Those with a grant of this service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub service: Option<String>,
    /// `true`: those of all one's own agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub all: Option<bool>,
    /// Why. Recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 1, max_length = 256)]
    pub reason: Option<String>,
}

/// How a task is completed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CompletionAsked {
    /// Why. Recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 1, max_length = 256)]
    pub reason: Option<String>,
}

/// What became of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Revoked {
    /// How many were alive and are not any more.
    pub revoked: u64,
}

/// What may hold nonces: exactly one of `text` and `nonces`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LeakReport {
    /// Any text: a log, a diff, a request. Looked through as it is, percent-decoded, and for base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<String>)]
    pub text: Option<PlainNonce>,
    /// Or the nonces themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Vec<String>>, min_items = 1, max_items = 1000)]
    pub nonces: Option<Vec<PlainNonce>>,
    /// Where it was found: a URL, a file, a log's name. Recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 1, max_length = 256)]
    pub source: Option<String>,
}

/// A request that may never be made, and the nonce that it would come with: exactly one of `agent` and `id`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExplanationAsked {
    /// A nonce of this agent, with all that it may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "billing")]
    pub agent: Option<String>,
    /// With `agent`: of this service only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "stripe")]
    pub service: Option<String>,
    /// With `service`: with these scopes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<ScopeList>)]
    pub scope: Option<ScopeList>,
    /// A live nonce, by its accessor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub id: Option<String>,
    /// `GET`, `POST`, …; `WEBSOCKET` for an upgrade.
    #[schema(min_length = 1, max_length = 32, example = "GET")]
    pub method: String,
    /// `https://HOST[:PORT]/PATH[?QUERY]`
    #[schema(min_length = 1, max_length = 16384, example = "https://api.stripe.com/v1/customers")]
    pub url: String,
    /// With `id`: the body of the request, for conditions that look at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub body: Option<String>,
    /// With `body`: its `Content-Type`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 1, max_length = 256, example = "application/json")]
    pub content_type: Option<String>,
}

/// Whether a request would be allowed, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// The verdict.
    pub allowed: bool,
    /// The code of the refusal; null where it is allowed.
    pub code: Option<String>,
    /// A sentence.
    pub why: String,
    /// By what it is allowed; null where it is not, and where the host is relayed unread.
    pub by: Option<WayView>,
    /// Scopes that it would be tried with once the uses of that one are gone.
    pub also: Vec<String>,
    /// The deny that stands against it, as the policy spells it.
    pub denied_by: Option<String>,
    /// The code with which it would be refused, were the service's path rules enforced and not only observed.
    pub observed: Option<String>,
    /// Scopes that would allow it, and that some agent of the caller's may have; the least risky first.
    pub would: Vec<WayView>,
    /// What the nonce allows instead, as the policy spells it; at most 16.
    pub instead: Vec<String>,
}

/// A scope and its rule that allow a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WayView {
    /// The service.
    pub service: String,
    /// The scope.
    pub scope: String,
    /// `low`, `medium`, `high`.
    pub risk: String,
    /// The rule, as the policy spells it; empty where none allows the request and the service is observed.
    pub rule: String,
    /// The name of the credential that it would go with.
    pub credential: String,
    /// Uses in a nonce's life; null is no limit.
    pub max_uses: Option<u32>,
    /// Which of the caller's agents may have it.
    pub agents: Vec<String>,
}

/// What a monitor says: exactly one of `agent` and `task`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RiskAsked {
    /// Of this agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "billing")]
    pub agent: Option<String>,
    /// Of this task of one's own agents, whoever minted for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub task: Option<String>,
    /// A level of the policy's `[risk.levels]`; `normal` takes back what is in force.
    #[schema(min_length = 1, max_length = 128, example = "elevated")]
    pub level: String,
    /// How long, up to a day; absent with `normal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<TtlAsked>)]
    pub ttl: Option<TtlAsked>,
    /// Why. Recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 1, max_length = 256)]
    pub reason: Option<String>,
}

/// A level of risk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RiskView {
    /// Its name in the policy; `normal` where none is in force.
    pub level: String,
    /// The riskiest scopes that may still be used: `none`, `low`, `medium`; null where there is no such limit.
    pub max_risk: Option<String>,
    /// When it ends; null where none is in force.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub until: Option<Timestamp>,
}
