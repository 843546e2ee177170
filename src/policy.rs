//! The policy: pure decisions. (policy, facts) → allow or denial; no clock, no I/O, no async, no TOML.
//!
//! | file | holds |
//! | --- | --- |
//! | `target` | the path and query of a request, parsed once and strictly |
//! | `rule` | one line of `allow` or `deny` |
//! | `host`, `slot`, `service` | what the policy says of an API |
//! | `directory` | which services list a destination |
//! | `index` | the rules of a service, as a trie that finds all that match |
//! | `decide` | deny first, then the least risky scope that allows |
//! | `current` | the policy in force, which a reload replaces |
//! | `delegate` | what a delegation gets: never more than the nonce above it |
//! | `explain` | the same questions for people: would it be allowed, and why |
//! | `mint` | what a minter gets for what it asks, in a mint and in a renewal |

mod current;
mod decide;
mod delegate;
mod directory;
pub mod explain;
mod host;
mod index;
mod mint;
mod rule;
mod service;
mod slot;
mod target;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

pub use current::Current;
pub use decide::{Allowing, RequestFacts, Verdict};
pub use delegate::{
    CHILDREN_MAX, DEPTH_MAX, DelegateRule, DelegationPlan, DelegationRefusal, DelegationRequest, Delegator, Excess,
};
pub use host::HostPattern;
pub use mint::{MintPlan, MintRefusal, MintRequest, RenewalPlan};
pub use rule::{BadSyntax, QueryRule, RULE_BYTES_MAX, RULE_SEGMENTS_MAX, Rule};
pub use service::{Dialect, Scope, Service};
pub use slot::{Placeholder, Slot};
pub use target::{QueryParameter, QuerySlot, TARGET_BYTES_MAX, Target};

use directory::Directory;
use index::RuleIndex;

use crate::model::{
    AgentName, CredentialName, Destination, Grant, Host, Identity, IdentityRule, LeaseGrant, LevelName, MinterName,
    Risk, RiskCap, ScopeName, ServiceName, Table,
};

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

/// A policy, whole and checked.
pub struct Policy {
    digest: Arc<str>,
    is_reloaded: bool,
    unlisted: Unlisted,
    parent_proxy: Option<ParentProxy>,
    proxy_auth: ProxyAuth,
    on_misplaced: OnMisplaced,
    default_ttl: Duration,
    ceilings: [Ceiling; 3],
    risk_levels: Vec<RiskLevel>,
    services: Vec<Arc<Service>>,
    /// Beside `services`.
    indexes: Vec<RuleIndex>,
    by_name: Table<ServiceName, usize>,
    directory: Directory,
    agents: Vec<AgentRule>,
    agents_by_name: Table<AgentName, usize>,
    minters: Vec<MinterRule>,
}

impl Policy {
    /// Indexes the parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let services: Vec<Arc<Service>> = parts.services.into_iter().map(Arc::new).collect();
        let agents: Vec<AgentRule> =
            parts.agents.into_iter().map(|agent| AgentRule { grants: mint::fold(agent.grants), ..agent }).collect();
        Self {
            digest: parts.digest,
            is_reloaded: false,
            unlisted: parts.unlisted,
            parent_proxy: parts.parent_proxy,
            proxy_auth: parts.proxy_auth,
            on_misplaced: parts.on_misplaced,
            default_ttl: parts.default_ttl,
            ceilings: parts.ceilings,
            risk_levels: parts.risk_levels,
            indexes: services.iter().map(|service| RuleIndex::new(service)).collect(),
            by_name: services.iter().enumerate().map(|(at, service)| (service.name.clone(), at)).collect(),
            directory: Directory::new(&services),
            services,
            agents_by_name: agents.iter().enumerate().map(|(at, agent)| (agent.name.clone(), at)).collect(),
            agents,
            minters: parts.minters,
        }
    }

    /// The same policy as one that was read while nonces of another one live: what those hold is held against it.
    #[must_use]
    pub fn reloaded(self) -> Self {
        Self { is_reloaded: true, ..self }
    }

    /// True for a scope that the agent may still have. A nonce was minted with no more than the policy gave then, so
    /// that only a reload can have taken it back.
    #[must_use]
    pub fn still_grants(&self, agent: &AgentName, service: &ServiceName, scope: &ScopeName) -> bool {
        !self.is_reloaded || self.grantable(agent, service).contains(scope)
    }

    /// Who may present an agent's nonces, where a reload may have changed it since they were minted; `None` for what
    /// they say themselves.
    #[must_use]
    pub fn identities_since(&self, agent: &AgentName) -> Option<&[IdentityRule]> {
        if self.is_reloaded { self.agent(agent).map(|agent| &*agent.identities) } else { None }
    }

    /// SHA-256 of the file, in hex.
    #[must_use]
    pub fn digest(&self) -> &Arc<str> {
        &self.digest
    }

    /// What unlisted hosts get.
    #[must_use]
    pub fn unlisted(&self) -> Unlisted {
        self.unlisted
    }

    /// The proxy through which listed names are reached, if there is one.
    #[must_use]
    pub fn parent_proxy(&self) -> Option<&ParentProxy> {
        self.parent_proxy.as_ref()
    }

    /// What has to come as the proxy's credentials.
    #[must_use]
    pub fn proxy_auth(&self) -> ProxyAuth {
        self.proxy_auth
    }

    /// What happens to misplaced nonces.
    #[must_use]
    pub fn on_misplaced(&self) -> OnMisplaced {
        self.on_misplaced
    }

    /// The levels of risk that a monitor can put an agent or a task at, in the order of the file.
    #[must_use]
    pub fn risk_levels(&self) -> &[RiskLevel] {
        &self.risk_levels
    }

    /// The services that list this destination (several may share a host), in the order of the file.
    #[must_use]
    pub fn services_at(&self, destination: &Destination) -> &Arc<[Arc<Service>]> {
        self.directory.at(destination)
    }

    /// True when any service lists this host on any port.
    #[must_use]
    pub fn lists_host(&self, host: &Host) -> bool {
        self.directory.lists_host(host)
    }

    /// All services.
    #[must_use]
    pub fn services(&self) -> &[Arc<Service>] {
        &self.services
    }

    /// One service.
    #[must_use]
    pub fn service(&self, name: &ServiceName) -> Option<&Arc<Service>> {
        self.by_name.get(name).map(|at| &self.services[*at])
    }

    /// Decides a request to a service over the scopes that a lease holds of it. `grantable` are the scopes that the
    /// agent may have. A service that this policy does not have allows nothing.
    ///
    /// ```
    /// # use valetkey::model::{Ambiguity, Host};
    /// # use valetkey::policy::{RequestFacts, Target};
    /// let host = Host::parse("api.stripe.com")?;
    /// let target = Target::parse("/v1/customers?limit=3").map_err(|_| "ambiguous")?;
    /// let facts = RequestFacts { method: "GET", websocket: false, host: &host, target: &target };
    /// assert_eq!(facts.target.query(), Some("limit=3"));
    /// assert_eq!(Target::parse("/v1/x/%2e%2E/admin"), Err(Ambiguity::DotSegment));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn decide(
        &self,
        service: &ServiceName,
        scopes: &[ScopeName],
        grantable: &[ScopeName],
        facts: &RequestFacts<'_>,
    ) -> Verdict<'_> {
        match self.by_name.get(service) {
            Some(at) => decide::decide(&self.services[*at], &self.indexes[*at], scopes, grantable, facts),
            None => Verdict::Deny { allowed: Vec::new(), required_scope: None },
        }
    }

    /// Decides a request of a nonce that was delegated, over the scopes that it holds and those that each nonce above it
    /// holds (`above`): what one of those may not do, it may not do either. Scopes alone do not say so, since a scope can
    /// deny what others allow, and the nonce below may have been given only the others.
    #[must_use]
    pub fn decide_below(
        &self,
        service: &ServiceName,
        scopes: &[ScopeName],
        above: &[impl AsRef<[ScopeName]>],
        facts: &RequestFacts<'_>,
    ) -> Verdict<'_> {
        delegate::decide(self, service, scopes, above, facts)
    }

    /// The deny, of the service or of one of these scopes, that stands against a request, as the policy spells it: what
    /// [`Verdict::Deny`] keeps to itself, for whoever writes the policy.
    #[must_use]
    pub fn denying(&self, service: &ServiceName, scopes: &[ScopeName], facts: &RequestFacts<'_>) -> Option<&str> {
        let at = *self.by_name.get(service)?;
        decide::denying(&self.services[at], &self.indexes[at], scopes, facts)
    }

    /// The scope under which a request that no rule allows goes on where its service is only observed: the least risky
    /// of these. `None` where it is enforced, and where a deny forbids the request: a deny was meant.
    #[must_use]
    pub fn observed(
        &self,
        service: &ServiceName,
        scopes: &[ScopeName],
        facts: &RequestFacts<'_>,
        now: Timestamp,
    ) -> Option<&Scope> {
        let service = self.service(service).filter(|service| service.is_observed(now))?;
        if self.denying(&service.name, scopes, facts).is_some() {
            return None;
        }
        scopes.iter().filter_map(|name| service.scope(name)).min_by_key(|scope| scope.risk)
    }

    /// Scopes of a service that an agent may have.
    #[must_use]
    pub fn grantable(&self, agent: &AgentName, service: &ServiceName) -> &[ScopeName] {
        let grants = self.agent(agent).map_or(&[][..], |agent| &agent.grants);
        grants.iter().find(|grant| grant.service == *service).map_or(&[], |grant| &grant.scopes)
    }

    /// The agents.
    #[must_use]
    pub fn agents(&self) -> Vec<&AgentName> {
        self.agents.iter().map(|agent| &agent.name).collect()
    }

    /// The agents' rules.
    #[must_use]
    pub fn agent_rules(&self) -> &[AgentRule] {
        &self.agents
    }

    /// One agent.
    #[must_use]
    pub fn agent(&self, name: &AgentName) -> Option<&AgentRule> {
        self.agents_by_name.get(name).map(|at| &self.agents[*at])
    }

    /// True when some agent is this identity, which never mints; `any` makes nobody in particular an agent.
    #[must_use]
    pub fn is_agent(&self, identity: &Identity) -> bool {
        let names = |rule: &IdentityRule| *rule != IdentityRule::Any && rule.admits(Some(identity));
        self.agents.iter().any(|agent| agent.identities.iter().any(names))
    }

    /// The minters as which this identity may act; none for an agent's identity.
    #[must_use]
    pub fn minters_for(&self, identity: &Identity) -> Vec<&MinterRule> {
        if self.is_agent(identity) {
            return Vec::new();
        }
        self.minters.iter().filter(|minter| minter.identities.iter().any(|rule| rule.admits(Some(identity)))).collect()
    }

    /// Decides what a mint gets: the shortest of what was asked (or the default) and the ceiling of the riskiest scope.
    ///
    /// # Errors
    /// [`MintRefusal`].
    pub fn plan(&self, request: &MintRequest) -> Result<MintPlan, MintRefusal> {
        mint::plan(self, request)
    }

    /// Decides what a delegation gets: at most what the nonce above it has left, and at most what could be minted for the
    /// agent that gets it.
    ///
    /// # Errors
    /// [`DelegationRefusal`], with everything that exceeds.
    pub fn plan_delegation(
        &self,
        parent: &Delegator<'_>,
        request: &DelegationRequest,
    ) -> Result<DelegationPlan, DelegationRefusal> {
        delegate::plan(self, parent, request)
    }

    /// Decides what a renewal of these grants gets: the shortest of what was asked (or the default) and the ceiling of
    /// the riskiest scope. The lease itself knows what is left of its life.
    #[must_use]
    pub fn plan_renewal(&self, grants: &[LeaseGrant], asked: Option<Duration>) -> RenewalPlan {
        mint::plan_renewal(self, grants, asked)
    }

    fn ceiling(&self, risk: Risk) -> &Ceiling {
        let [low, medium, high] = &self.ceilings;
        match risk {
            Risk::Low => low,
            Risk::Medium => medium,
            Risk::High => high,
        }
    }
}
