//! What the tables of a policy come to, before they are indexed.

use std::sync::Arc;
use std::time::Duration;

use super::{AgentRule, MinterRule, Service};
use crate::model::{CredentialName, Destination, LevelName, RiskCap};

/// What a host that no service lists gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unlisted {
    /// Refused.
    Deny,
    /// Relayed unread, on port 443.
    Tunnel,
}

/// What a client has to send as the proxy's credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyAuth {
    /// Nothing; a nonce there is taken.
    None,
    /// A live nonce of an agent that the caller is.
    Required,
}

/// What happens to a nonce seen on a host that is not its service's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnMisplaced {
    /// Refused, alarmed and revoked.
    Revoke,
    /// Refused and alarmed.
    Refuse,
}

/// Longest period and whole life of a nonce, by risk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ceiling {
    /// One period, from mint or renewal.
    pub ttl: Duration,
    /// From mint to the last renewal's end.
    pub lifetime: Duration,
}

/// What no level of risk is called: with it a monitor takes a level back.
pub const RISK_NORMAL: &str = "normal";

/// One of `[risk.levels]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RiskLevel {
    /// Its name.
    pub name: LevelName,
    /// The most that is allowed while it is in force.
    pub cap: RiskCap,
}

/// A proxy between the sidecar and the upstreams, as corporate networks have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentProxy {
    /// Where it listens; spoken to in clear text, with TLS to the upstream inside its tunnels.
    pub proxy: Destination,
    /// `user:password` for it.
    pub credential: Option<CredentialName>,
}

/// A policy's content, each part parsed and every name checked by `config`.
#[derive(Debug)]
pub struct Parts {
    /// SHA-256 of the file, in hex.
    pub digest: Arc<str>,
    /// What unlisted hosts get.
    pub unlisted: Unlisted,
    /// The proxy through which listed names are reached, if there is one.
    pub parent_proxy: Option<ParentProxy>,
    /// What has to come as the proxy's credentials.
    pub proxy_auth: ProxyAuth,
    /// What happens to misplaced nonces.
    pub on_misplaced: OnMisplaced,
    /// TTL where a mint names none.
    pub default_ttl: Duration,
    /// By risk: low, medium, high.
    pub ceilings: [Ceiling; 3],
    /// The levels of risk that a monitor can put an agent or a task at.
    pub risk_levels: Vec<RiskLevel>,
    /// The services.
    pub services: Vec<Service>,
    /// The agents.
    pub agents: Vec<AgentRule>,
    /// The minters.
    pub minters: Vec<MinterRule>,
}
