//! What each agent may do, compared rule by rule.

use std::collections::{BTreeSet, HashSet};

use serde::Serialize;

use crate::model::{AgentName, ServiceName};
use crate::policy::{HostPattern, Policy, Rule, Scope};

/// Something that an agent may do under one policy and not under the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Reached {
    pub(super) agent: String,
    pub(super) service: String,
    /// The scope that allows it; none where a deny or a host makes the difference.
    pub(super) scope: Option<String>,
    /// The rule, or for a host the host.
    pub(super) rule: String,
    pub(super) since: Since,
}

/// What makes the difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Since {
    /// A rule of a scope that the agent may have.
    Rule,
    /// A deny that only the other policy has, against something that both allow.
    Deny,
    /// A host of the service, for everything that the agent may do there.
    Host,
}

impl Since {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Rule => "the rule",
            Self::Deny => "a deny",
            Self::Host => "a host, for all that is allowed there",
        }
    }
}

/// What becomes allowed.
pub(super) fn gained(old: &Policy, new: &Policy) -> Vec<Reached> {
    let mut gained = Vec::new();
    for (agent, service) in held(new) {
        let (before, after) = (Reach::of(old, agent, service), Reach::of(new, agent, service));
        let mut say = |scope: Option<&Scope>, rule: String, since| {
            let scope = scope.map(|scope| scope.name.to_string());
            gained.push(Reached { agent: agent.to_string(), service: service.to_string(), scope, rule, since });
        };
        let (fresh, kept): (Vec<_>, Vec<_>) = after.allows.iter().partition(|(_, rule)| !before.allows(rule));
        for (scope, rule) in fresh {
            say(Some(scope), rule.described(), Since::Rule);
        }
        for (_, deny) in before.denies.iter().filter(|(scope, deny)| !after.denies(*scope, deny)) {
            if kept.iter().any(|(_, rule)| deny.can_forbid(rule)) {
                say(None, deny.described(), Since::Deny);
            }
        }
        for host in after.hosts.iter().filter(|host| !kept.is_empty() && !before.lists(host)) {
            say(None, host.to_string(), Since::Host);
        }
    }
    gained
}

/// What becomes denied: what would become allowed the other way round.
pub(super) fn lost(old: &Policy, new: &Policy) -> Vec<Reached> {
    gained(new, old)
}

/// Every agent with every service of which it may have something, in order.
fn held(policy: &Policy) -> BTreeSet<(&AgentName, &ServiceName)> {
    let agents = policy.agent_rules().iter();
    agents.flat_map(|agent| agent.grants.iter().map(move |grant| (&agent.name, &grant.service))).collect()
}

/// What an agent may do at most with one service.
struct Reach<'a> {
    allows: Vec<(&'a Scope, &'a Rule)>,
    /// With the scope that a nonce has to hold for it; none where the service itself denies.
    denies: Vec<(Option<&'a Scope>, &'a Rule)>,
    hosts: &'a [HostPattern],
    /// The allows and the denies as texts, these with the names of their scopes: most are on both sides, word for word.
    allowed: HashSet<String>,
    denied: HashSet<(Option<&'a str>, String)>,
}

impl<'a> Reach<'a> {
    fn of(policy: &'a Policy, agent: &AgentName, service: &ServiceName) -> Self {
        let granted = policy.grantable(agent, service);
        let known = policy.service(service);
        let scopes: Vec<&Scope> =
            known.iter().flat_map(|service| &service.scopes).filter(|scope| granted.contains(&scope.name)).collect();
        let allows: Vec<_> =
            scopes.iter().flat_map(|scope| scope.allow.iter().map(move |rule| (*scope, rule))).collect();
        let of_service = known.iter().flat_map(|service| &service.deny).map(|rule| (None, rule));
        let of_scopes = scopes.iter().flat_map(|scope| scope.deny.iter().map(move |rule| (Some(*scope), rule)));
        let denies: Vec<_> = of_service.chain(of_scopes).collect();
        let hosts = known.map_or(&[][..], |service| &service.hosts);
        let allowed = allows.iter().map(|(_, rule)| rule.described()).collect();
        let denied =
            denies.iter().map(|(scope, rule)| (scope.map(|scope| scope.name.as_str()), rule.described())).collect();
        Self { allows, denies, hosts, allowed, denied }
    }

    /// True when a rule here includes it.
    fn allows(&self, rule: &Rule) -> bool {
        self.allowed.contains(&rule.described()) || self.allows.iter().any(|(_, own)| own.covers(rule))
    }

    /// True when a deny here includes it, and holds wherever that one of this scope does: for one of the service, that is
    /// the service's alone.
    fn denies(&self, scope: Option<&Scope>, rule: &Rule) -> bool {
        let name = scope.map(|scope| scope.name.as_str());
        let holds = |own: Option<&Scope>| own.is_none_or(|own| Some(own.name.as_str()) == name);
        [None, name].into_iter().any(|name| self.denied.contains(&(name, rule.described())))
            || self.denies.iter().any(|(of, own)| holds(*of) && own.covers(rule))
    }

    fn lists(&self, host: &HostPattern) -> bool {
        let covers =
            |own: &HostPattern| own == host || !host.wildcard && own.port == host.port && own.covers_host(&host.host);
        self.hosts.iter().any(covers)
    }
}
