//! Who asks, and where the sidecar serves.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Who the caller is, here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WhoAmI {
    /// How it was proven: `uid:1000`, `supervisor`.
    pub identity: String,
    /// As whom it may act.
    pub minters: Vec<MinterView>,
    /// The version of the sidecar.
    pub version: String,
    /// SHA-256 of the policy file, in hex.
    pub policy_digest: String,
    /// What an agent sets as `HTTPS_PROXY`.
    pub proxy: String,
    /// What the caller should know about this set-up; absent when there is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub warning: Option<String>,
}

/// Where a sidecar serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ready {
    /// Agents connect here.
    #[schema(value_type = String, example = "127.0.0.1:8080")]
    pub proxy: SocketAddr,
    /// Probes connect here.
    #[schema(value_type = String, example = "127.0.0.1:9090")]
    pub admin: SocketAddr,
}

/// One minter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MinterView {
    /// Its name in the policy, or `self`, or `run` for a supervisor.
    pub name: String,
    /// For which agents; `*` is all.
    pub agents: Vec<String>,
    /// `mint`, `read`, `revoke`, `events`, `risk`.
    pub may: Vec<String>,
}
