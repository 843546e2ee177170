//! The policy: pure decisions. (policy, facts) → allow or denial; no clock, no I/O, no async, no TOML.
//!
//! | file | holds |
//! | --- | --- |
//! | `target` | the path and query of a request, parsed once and strictly |
//! | `rule` | one line of `allow` or `deny` |
//! | `host` (`suffix`), `slot`, `service` | what the policy says of an API |
//! | `directory` | which services list a destination |
//! | `condition` | what a rule asks beyond its line: bodies and CEL |
//! | `index` | the rules of a service, as a trie that finds all that match |
//! | `decide` | deny first, then the least risky scope that allows |
//! | `current` | the policy in force, which a reload replaces |
//! | `delegate` | what a delegation gets: never more than the nonce above it |
//! | `explain` | the same questions for people: would it be allowed, and why |
//! | `narrow` | the list of its own that a delegated nonce can have |
//! | `parts` | what the file's tables come to, one type each |
//! | `mint` | what a minter gets for what it asks, in a mint and in a renewal |
//! | `people` | what the policy says of agents and minters |

mod condition;
mod current;
mod decide;
mod delegate;
mod directory;
pub mod explain;
mod host;
mod index;
mod mint;
mod narrow;
mod parts;
mod people;
mod rule;
mod service;
mod signing;
mod slot;
mod suffix;
mod target;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

pub use condition::{
    BODY_BYTES_MAX, BodyFault, BodyKind, BodyRule, Circumstances, Condition, EXPRESSION_BYTES_MAX, Expression,
    FieldType, HeldBody, NonceFacts, Variables,
};
pub use current::Current;
pub use decide::{Allowing, Given, Recording, RequestFacts, Unmet, Verdict};
pub use delegate::{
    CHILDREN_MAX, DEPTH_MAX, DelegateRule, DelegationPlan, DelegationRefusal, DelegationRequest, Delegator, Excess,
};
pub use host::HostPattern;
pub use mint::{MintPlan, MintRefusal, MintRequest, RenewalPlan};
pub use narrow::{LINES_MAX, lists, read_line};
pub use parts::{Ceiling, OnMisplaced, ParentProxy, Parts, ProxyAuth, RISK_NORMAL, RiskLevel, Unlisted};
pub use people::{AgentLimits, AgentRule, MinterLimits, MinterRule, Permission};
pub use rule::{BadSyntax, QueryRule, RULE_BYTES_MAX, RULE_SEGMENTS_MAX, Rule};
pub use service::{Dialect, LeakScan, Scope, Service};
pub use signing::{Signing, is_meant_for, is_of_aws};
pub use slot::{Placeholder, Slot};
pub use target::{QueryParameter, QuerySlot, TARGET_BYTES_MAX, Target};

use directory::Directory;
use index::RuleIndex;

use crate::model::{
    AgentName, Destination, Host, Identity, IdentityRule, LeaseGrant, MinterName, Risk, RuleRate, ScopeName,
    ServiceName, Table,
};

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
    /// Some rule looks at a body.
    bodies: bool,
    /// Some agent can be proven by a token.
    tokens: bool,
    /// The shortest `reattest` of all.
    reattest_min: Option<Duration>,
}

impl Policy {
    /// Indexes the parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let services: Vec<Arc<Service>> = parts.services.into_iter().map(Arc::new).collect();
        let agents: Vec<AgentRule> =
            parts.agents.into_iter().map(|agent| AgentRule { grants: mint::fold(agent.grants), ..agent }).collect();
        let indexes: Vec<RuleIndex> = services.iter().map(|service| RuleIndex::new(service)).collect();
        Self {
            reattest_min: reattest_min(&services, &agents),
            tokens: agents.iter().any(AgentRule::is_proven_by_token),
            bodies: indexes.iter().any(RuleIndex::looks_at_bodies),
            digest: parts.digest,
            is_reloaded: false,
            unlisted: parts.unlisted,
            parent_proxy: parts.parent_proxy,
            proxy_auth: parts.proxy_auth,
            on_misplaced: parts.on_misplaced,
            default_ttl: parts.default_ttl,
            ceilings: parts.ceilings,
            risk_levels: parts.risk_levels,
            indexes,
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

    /// True for a scope that the agent may still have. A nonce was minted with no more than the policy gave then, so that only a reload can have taken it back.
    #[must_use]
    pub fn still_grants(&self, agent: &AgentName, service: &ServiceName, scope: &ScopeName) -> bool {
        !self.is_reloaded || self.grantable(agent, service).contains(scope)
    }

    /// Who may present an agent's nonces, where a reload may have changed it since they were minted; `None` for what they say themselves.
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

    /// Decides a request to a service over the scopes that a lease holds of it. `grantable` are the scopes that the agent may have. A service that this policy does not have allows nothing.
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
    ///
    /// Nothing is known here of what conditions look at: as always when they cannot be evaluated, they help no request.
    #[must_use]
    pub fn decide(
        &self,
        service: &ServiceName,
        scopes: &[ScopeName],
        grantable: &[ScopeName],
        facts: &RequestFacts<'_>,
    ) -> Verdict<'_> {
        self.decide_given(service, scopes, grantable, facts, None)
    }

    /// Decides with all that conditions look at; it is only asked for where a rule that matches has one.
    #[must_use]
    pub fn decide_given<'r>(
        &self,
        service: &ServiceName,
        scopes: &[ScopeName],
        grantable: &[ScopeName],
        facts: &'r RequestFacts<'r>,
        given: Option<Given<'r>>,
    ) -> Verdict<'_> {
        match self.by_name.get(service) {
            Some(at) => decide::decide(&self.services[*at], &self.indexes[*at], scopes, grantable, (facts, given)),
            None => Verdict::Deny { allowed: Vec::new(), required_scope: None },
        }
    }

    /// Decides a request of a nonce that was delegated: `own` is the verdict over the scopes that it holds, `above` are those
    /// over what each nonce above it holds. What one of those may not do, it may not do either. Scopes alone do not say so, since a scope can
    /// deny what others allow, and the nonce below may have been given only the others.
    #[must_use]
    pub fn decide_below<'p>(
        &'p self,
        service: &ServiceName,
        scopes: &[ScopeName],
        own: Verdict<'p>,
        above: impl Iterator<Item = Verdict<'p>>,
    ) -> Verdict<'p> {
        delegate::decide(self, service, scopes, own, above)
    }

    /// The deny, of the service or of one of these scopes, that stands against a request, as the policy spells it.
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

    /// The rates of all rules of a scope that allow a request which this scope allows: each of them holds.
    #[must_use]
    pub fn rates<'r>(
        &self,
        service: &ServiceName,
        scope: &ScopeName,
        facts: &'r RequestFacts<'r>,
        given: Given<'r>,
    ) -> Vec<RuleRate> {
        let index = self.by_name.get(service).filter(|at| self.indexes[**at].has_rates());
        index.map_or_else(Vec::new, |at| {
            decide::rates(&self.services[*at], &self.indexes[*at], scope, (facts, Some(given)))
        })
    }

    /// How much of the body of such a request has to be held so that it can be judged, in bytes; `None` where no rule
    /// that concerns it looks at its body.
    #[must_use]
    pub fn body_wanted(&self, service: &ServiceName, scopes: &[ScopeName], facts: &RequestFacts<'_>) -> Option<usize> {
        let at = *self.by_name.get(service)?;
        if !self.indexes[at].looks_at_bodies() {
            return None;
        }
        decide::body_wanted(&self.services[at], &self.indexes[at], scopes, facts)
    }

    /// True if any rule of the service looks at a body.
    #[must_use]
    pub fn looks_at_bodies(&self, service: &ServiceName) -> bool {
        self.bodies && self.by_name.get(service).is_some_and(|at| self.indexes[*at].looks_at_bodies())
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

    /// True when an agent may renew its nonces itself. One that this policy does not have may not.
    #[must_use]
    pub fn may_self_renew(&self, agent: &AgentName) -> bool {
        self.agent(agent).is_some_and(|agent| agent.limits.self_renew)
    }

    /// One minter.
    #[must_use]
    pub fn minter(&self, name: &MinterName) -> Option<&MinterRule> {
        self.minters.iter().find(|minter| minter.name == *name)
    }

    /// True when some agent can be proven by a token.
    #[must_use]
    pub fn proves_by_token(&self) -> bool {
        self.tokens
    }

    /// Within which time who presents an agent's nonces has to have been proven, whatever they are used for.
    #[must_use]
    pub fn reattest(&self, agent: &AgentName) -> Option<Duration> {
        self.reattest_min?;
        self.agent(agent)?.limits.reattest
    }

    /// The shortest time after which anybody has to be proven again.
    #[must_use]
    pub fn reattest_min(&self) -> Option<Duration> {
        self.reattest_min
    }

    /// The riskiest of what is granted. A scope that the policy does not have counts as the riskiest.
    #[must_use]
    pub fn risk_of(&self, grants: &[LeaseGrant]) -> Risk {
        mint::risk_of(self, grants)
    }

    /// The minters as which this identity may act; none for an agent's identity.
    #[must_use]
    pub fn minters_for(&self, identity: &Identity) -> Vec<&MinterRule> {
        if self.is_agent(identity) {
            return Vec::new();
        }
        self.minters.iter().filter(|minter| minter.identities.iter().any(|rule| rule.admits(Some(identity)))).collect()
    }

    /// Decides what a mint gets: the shortest of what was asked (or the default), the ceiling of the riskiest scope and
    /// the agent's own.
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

    /// Decides what the mint of a canary gets: a nonce that opens nothing and is to be found.
    ///
    /// # Errors
    /// [`MintRefusal::UnknownAgent`].
    pub fn plan_canary(&self, agent: &AgentName, ttl: Option<Duration>) -> Result<MintPlan, MintRefusal> {
        mint::plan_canary(self, agent, ttl)
    }

    /// Decides what a renewal of these grants gets: the shortest of what was asked (or the default) and the ceiling of
    /// the riskiest scope. The lease itself knows what is left of its life.
    #[must_use]
    pub fn plan_renewal(&self, agent: &AgentName, grants: &[LeaseGrant], asked: Option<Duration>) -> RenewalPlan {
        mint::plan_renewal(self, agent, grants, asked)
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

fn reattest_min(services: &[Arc<Service>], agents: &[AgentRule]) -> Option<Duration> {
    let of_scopes = services.iter().flat_map(|service| &service.scopes).filter_map(|scope| scope.reattest);
    of_scopes.chain(agents.iter().filter_map(|agent| agent.limits.reattest)).min()
}
