//! What the policy says of agents and minters.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::{DelegateRule, Policy};
use crate::model::{AgentName, Budget, Grant, Identity, IdentityRule, MinterName, Rate, Risk};

/// Whom agents are told by.
impl Policy {
    /// True when some agent is this identity, which never mints; `any` makes nobody in particular an agent.
    #[must_use]
    pub fn is_agent(&self, identity: &Identity) -> bool {
        let names = |rule: &IdentityRule| *rule != IdentityRule::Any && rule.admits(Some(identity));
        self.agents.iter().any(|agent| agent.identities.iter().any(names))
    }

    /// True when some agent is known by its local user.
    #[must_use]
    pub fn has_local_agents(&self) -> bool {
        let is_local = |rule: &IdentityRule| matches!(rule, IdentityRule::Uid(_));
        self.agents.iter().any(|agent| agent.identities.iter().any(is_local))
    }
}

/// One `[agents.NAME]`.
#[derive(Debug, Clone)]
pub struct AgentRule {
    /// Its name.
    pub name: AgentName,
    /// Who may present its nonces.
    pub identities: Arc<[IdentityRule]>,
    /// The most that may be minted for it.
    pub grants: Vec<Grant>,
    /// How its nonces may be delegated; `None` is never.
    pub delegate: Option<DelegateRule>,
    /// What it has of its own beside the limits of the scopes.
    pub limits: AgentLimits,
}

impl AgentRule {
    /// True where a token can prove it.
    #[must_use]
    pub fn is_proven_by_token(&self) -> bool {
        self.identities.iter().any(|rule| match rule {
            IdentityRule::Kubernetes(_) | IdentityRule::Spiffe(_) | IdentityRule::Oidc { .. } => true,
            IdentityRule::Any | IdentityRule::Uid(_) | IdentityRule::Bearer(_) | IdentityRule::Mtls(_) => false,
        })
    }
}

/// How long, how often and how fast an agent may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AgentLimits {
    /// The longest period of a nonce of its, where that is shorter than the ceilings say.
    pub ttl: Option<Duration>,
    /// What all its nonces of one task and minter may do together.
    pub budget: Option<Budget>,
    /// It may renew its nonces itself; never where it may have a scope of high risk.
    pub self_renew: bool,
    /// Its nonces are refused unless who presents them was proven within this time.
    pub reattest: Option<Duration>,
    /// Nothing riskier is among its grants.
    pub max_risk: Option<Risk>,
}

/// One `[minters.NAME]`.
#[derive(Debug, Clone)]
pub struct MinterRule {
    /// Its name.
    pub name: MinterName,
    /// Who may act as it.
    pub identities: Vec<IdentityRule>,
    /// For which agents; `None` is all (`"*"`).
    pub agents: Option<Vec<AgentName>>,
    /// What it may do.
    pub may: Vec<Permission>,
    /// Nothing riskier may it mint, renew or delegate; `None` is no limit.
    pub max_risk: Option<Risk>,
    /// How much of the control API is its.
    pub limits: MinterLimits,
}

/// How much of what all minters share one of them may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinterLimits {
    /// How fast it may call; of each kind of calls (making, asking) so many, and of those that end something no fewer than
    /// by default.
    pub rate: Rate,
    /// Live nonces, those included that were delegated from its own.
    pub nonces_max: usize,
}

impl Default for MinterLimits {
    /// A thousand calls a second, and a tenth of the nonces that there may be.
    fn default() -> Self {
        const THOUSAND: NonZeroU32 = NonZeroU32::MIN.saturating_add(999);
        Self { rate: Rate::per_second(THOUSAND), nonces_max: 100_000 }
    }
}

/// What a minter may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Make nonces.
    Mint,
    /// List and read leases.
    Read,
    /// End them.
    Revoke,
    /// Follow the audit's records.
    Events,
    /// Say how risky an agent or a task is just now, which lowers what is allowed.
    Risk,
}
