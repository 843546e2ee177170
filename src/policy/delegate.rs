//! What a delegation gets: never more than the nonce above it, and never more than its agent may have.

use std::collections::BTreeMap;
use std::time::Duration;

use smallvec::SmallVec;

use super::decide as single;
use super::mint::{MintPlan, MintRefusal, Pace, RenewalPlan, grantable_scope, pace, period};
use super::narrow::read_line;
use super::rule::Rule;
use super::service::Scope;
use super::{AgentRule, Allowing, Policy, Unmet, Verdict};
use crate::model::{AgentName, Grant, LeaseGrant, Rate, Risk, ScopeLimits, ScopeName, ServiceName};

/// Delegations that may lie one below the other, whatever a policy says.
pub const DEPTH_MAX: u32 = 8;
/// Live children of one nonce, whatever a policy says.
pub const CHILDREN_MAX: u32 = 1024;

/// What caps a period that would outlive the nonce above it, and a rate that would be faster.
const CAPPED_BY_PARENT: &str = "parent";

/// `delegate` of an agent: what may be delegated from its nonces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelegateRule {
    /// How many delegations may lie below one of its nonces.
    pub depth: u32,
    /// The agents to whom, at any depth below it.
    pub to: Vec<AgentName>,
    /// Live children of one of its nonces.
    pub children_max: u32,
}

/// A nonce that is to be delegated: what it has left at this moment.
#[derive(Debug, Clone)]
pub struct Delegator<'a> {
    /// The agents from the one whose nonce was minted down to the one whose nonce this is.
    pub chain: &'a [AgentName],
    /// What it opens, with the uses that are left.
    pub grants: &'a [LeaseGrant],
    /// What is left of its period.
    pub ttl: Duration,
    /// What is left of its life.
    pub lifetime: Duration,
    /// Uses that are left of the whole nonce.
    pub uses_left: Option<u32>,
    /// How fast the whole nonce may be used.
    pub rate: Option<Rate>,
    /// On whose behalf, as the minter said.
    pub on_behalf_of: Option<&'a str>,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
    /// The lines of its own list; none where it has no list.
    pub lines: &'a [String],
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct DelegationRequest {
    /// For which agent.
    pub agent: AgentName,
    /// For what; `None` is all that the nonce above has and the agent may have.
    pub grants: Option<Vec<Grant>>,
    /// How long.
    pub ttl: Option<Duration>,
    /// Uses of the whole nonce; `None` is what is left above.
    pub max_uses: Option<u32>,
    /// How fast the whole nonce may be used; `None` is as above.
    pub rate: Option<Rate>,
    /// On whose behalf; `None` is as above.
    pub on_behalf_of: Option<String>,
    /// Labels beside those of the nonce above.
    pub labels: BTreeMap<String, String>,
    /// All that it may do, as [`read_line`] reads it; empty is what its scopes allow, and as above.
    pub lines: Vec<String>,
}

/// What it gets.
#[derive(Debug, Clone)]
pub struct DelegationPlan {
    /// As of a mint; the period and the life end with those of the nonce above.
    pub mint: MintPlan,
    /// Uses of the whole nonce.
    pub max_uses: Option<u32>,
    /// On whose behalf.
    pub on_behalf_of: Option<String>,
    /// The labels of the nonce above, and its own.
    pub labels: BTreeMap<String, String>,
    /// The lines of its own list, or else those of the nonce above.
    pub lines: Vec<String>,
    /// Live children that the nonce above may have.
    pub children_max: usize,
}

/// Why a delegation is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DelegationRefusal {
    /// As a mint would be.
    Mint(MintRefusal),
    /// It asks for more than the nonce above has, or may give away; all that it exceeds.
    Exceeds(Vec<Excess>),
}

/// One thing that exceeds the nonce above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Excess {
    /// Nonces of this agent are not delegated.
    Never(AgentName),
    /// Nonces of this agent are not delegated to the one that was asked for.
    To(AgentName),
    /// As many delegations lie below the nonce of this agent as may.
    Depth(AgentName),
    /// There is nothing that the nonce above has and the agent may have.
    Nothing,
    /// The nonce above has no such service; which of the grants asked for.
    Service(usize),
    /// The nonce above does not have this scope; which grant, and which of its scopes.
    Scope(usize, usize),
    /// The nonce above has no use of this scope left.
    ScopeSpent(usize, usize),
    /// The nonce above has only so many uses left.
    MaxUses(u32),
    /// The nonce above may only be used so fast.
    Rate(Rate),
    /// The nonce above is on somebody else's behalf.
    OnBehalfOf,
    /// The nonce above has this label with another value.
    Label(String),
    /// The nonce above, or the scopes that are given, do not allow all of this line.
    Line(usize),
}

/// Decides what a delegation gets.
pub(super) fn plan(
    policy: &Policy,
    parent: &Delegator<'_>,
    request: &DelegationRequest,
) -> Result<DelegationPlan, DelegationRefusal> {
    let agent = policy.agent(&request.agent).ok_or(DelegationRefusal::Mint(MintRefusal::UnknownAgent))?;
    let mut excesses = exceeded_rules(policy, parent, &request.agent);
    excesses.extend(request.grants.iter().flat_map(|grants| exceeded_grants(parent, grants)));
    excesses.extend(exceeded_words(parent, request));
    let max_uses = [request.max_uses, parent.uses_left].into_iter().flatten().min();
    excesses.extend(parent.uses_left.filter(|left| *left == 0 || request.max_uses > Some(*left)).map(Excess::MaxUses));
    excesses.extend(exceeded_rate(parent, request).map(Excess::Rate));
    if !excesses.is_empty() {
        return Err(DelegationRefusal::Exceeds(excesses));
    }
    let given = match &request.grants {
        Some(grants) => asked(policy, agent, parent, grants).map_err(DelegationRefusal::Mint)?,
        None => common(policy, agent, parent),
    };
    let risk = given.risk.ok_or_else(|| DelegationRefusal::Exceeds(vec![Excess::Nothing]))?;
    let excesses = exceeded_lines(policy, parent, &given.grants, &request.lines);
    if !excesses.is_empty() {
        return Err(DelegationRefusal::Exceeds(excesses));
    }
    let children_max = last_rule(policy, parent).map_or(0, |rule| rule.children_max);
    let mut labels = parent.labels.clone();
    labels.extend(request.labels.clone());
    Ok(DelegationPlan {
        mint: capped(policy, agent, parent, (given.grants, risk), request),
        max_uses,
        on_behalf_of: request.on_behalf_of.clone().or_else(|| parent.on_behalf_of.map(str::to_owned)),
        labels,
        lines: if request.lines.is_empty() { parent.lines.to_vec() } else { request.lines.clone() },
        children_max: usize::try_from(children_max).unwrap_or(0),
    })
}

fn last_rule<'a>(policy: &'a Policy, parent: &Delegator<'_>) -> Option<&'a DelegateRule> {
    policy.agent(parent.chain.last()?)?.delegate.as_ref()
}

/// What the rules of the agents above say against it: each has a say in who gets its power, and how far below.
fn exceeded_rules(policy: &Policy, parent: &Delegator<'_>, to: &AgentName) -> Vec<Excess> {
    let mut excesses = Vec::new();
    for (above, agent) in parent.chain.iter().rev().enumerate() {
        match policy.agent(agent).and_then(|agent| agent.delegate.as_ref()) {
            None => excesses.push(Excess::Never(agent.clone())),
            Some(rule) => {
                if !rule.to.contains(to) {
                    excesses.push(Excess::To(agent.clone()));
                }
                // The new one lies one below the parent.
                if u32::try_from(above + 1).unwrap_or(u32::MAX) > rule.depth.min(DEPTH_MAX) {
                    excesses.push(Excess::Depth(agent.clone()));
                }
            }
        }
    }
    excesses
}

fn exceeded_grants(parent: &Delegator<'_>, grants: &[Grant]) -> Vec<Excess> {
    let mut excesses = Vec::new();
    for (at, grant) in grants.iter().enumerate() {
        let Some(held) = parent.grants.iter().find(|held| held.service == grant.service) else {
            excesses.push(Excess::Service(at));
            continue;
        };
        for (place, scope) in grant.scopes.iter().enumerate() {
            match held.scopes.iter().find(|(name, _)| name == scope) {
                None => excesses.push(Excess::Scope(at, place)),
                Some((_, ScopeLimits { uses: Some(0), .. })) => excesses.push(Excess::ScopeSpent(at, place)),
                Some((_, _)) => {}
            }
        }
    }
    excesses
}

/// The rate of the nonce above, where it is slower than what is asked for.
fn exceeded_rate(parent: &Delegator<'_>, request: &DelegationRequest) -> Option<Rate> {
    parent.rate.filter(|above| request.rate.is_some_and(|asked| !asked.is_within(*above)))
}

/// What was said of the nonce above is true of the one below.
fn exceeded_words(parent: &Delegator<'_>, request: &DelegationRequest) -> Vec<Excess> {
    let differs = |(name, value): &(&String, &String)| parent.labels.get(*name).is_some_and(|known| known != *value);
    let labels = request.labels.iter().filter(differs).map(|(name, _)| Excess::Label(name.clone()));
    let asked = request.on_behalf_of.as_deref();
    let is_another = asked.is_some() && parent.on_behalf_of.is_some() && asked != parent.on_behalf_of;
    labels.chain(is_another.then_some(Excess::OnBehalfOf)).collect()
}

/// The lines that are not each within a rule of the scopes that are given, and within a line of the nonce above where that
/// has a list. This is a courtesy: whatever stands in a list, a request has to be allowed above as well.
fn exceeded_lines(policy: &Policy, parent: &Delegator<'_>, grants: &[LeaseGrant], lines: &[String]) -> Vec<Excess> {
    let above: Vec<Rule> = parent.lines.iter().filter_map(|line| read_line(line).ok()).collect();
    let is_within = |line: &Rule| {
        let is_listed = parent.lines.is_empty() || above.iter().any(|above| above.covers_line(line));
        is_listed && grants.iter().any(|grant| allows_line(policy, grant, line))
    };
    let exceeds = |(at, text): (usize, &String)| {
        let is_within = read_line(text).is_ok_and(|line| is_within(&line));
        (!is_within).then_some(Excess::Line(at))
    };
    lines.iter().enumerate().filter_map(exceeds).collect()
}

/// True when one rule of these scopes has all of a line.
fn allows_line(policy: &Policy, grant: &LeaseGrant, line: &Rule) -> bool {
    let Some(service) = policy.service(&grant.service) else { return false };
    let is_here = line.host().is_none_or(|host| service.hosts.iter().any(|pattern| pattern.covers_host(host)));
    let scopes = grant.scopes.iter().filter_map(|(name, _)| service.scope(name));
    is_here && scopes.flat_map(|scope| &scope.allow).any(|rule| rule.covers_line(line))
}

/// No use at all.
const NOTHING: ScopeLimits = ScopeLimits { uses: Some(0), rate: None };

/// Grants under construction.
#[derive(Default)]
struct Given {
    grants: Vec<LeaseGrant>,
    risk: Option<Risk>,
}

impl Given {
    /// Adds a scope once, with the fewer of the uses that the policy allows and that are left above.
    ///
    /// Its rate is the policy's of this moment: that of each nonce above is kept there, by every use of this one, too.
    /// Where the policy has none any more, it is the one above.
    fn add(&mut self, service: &ServiceName, scope: &Scope, left: ScopeLimits) {
        let at = self.grants.iter().position(|known| known.service == *service).unwrap_or_else(|| {
            self.grants.push(LeaseGrant { service: service.clone(), scopes: Vec::new() });
            self.grants.len() - 1
        });
        let scopes = &mut self.grants[at].scopes;
        if !scopes.iter().any(|(known, _)| *known == scope.name) {
            let uses = [scope.max_uses, left.uses].into_iter().flatten().min();
            scopes.push((scope.name.clone(), ScopeLimits { uses, rate: scope.rate.or(left.rate) }));
            self.risk = self.risk.max(Some(scope.risk));
        }
    }
}

/// The scopes that were asked for, which are the parent's.
fn asked(policy: &Policy, agent: &AgentRule, parent: &Delegator<'_>, grants: &[Grant]) -> Result<Given, MintRefusal> {
    let mut given = Given::default();
    for Grant { service, scopes } in grants {
        if scopes.is_empty() {
            return Err(MintRefusal::Empty);
        }
        for name in scopes {
            let scope = grantable_scope(policy, agent, service, name)?;
            let held = parent.grants.iter().filter(|held| held.service == *service).flat_map(|held| &held.scopes);
            // Not the parent's: no use at all.
            let left = held.filter(|(known, _)| known == name).map(|(_, left)| *left).next().unwrap_or(NOTHING);
            given.add(service, scope, left);
        }
    }
    Ok(given)
}

/// The scopes that the parent has and the agent may have.
fn common(policy: &Policy, agent: &AgentRule, parent: &Delegator<'_>) -> Given {
    let mut given = Given::default();
    for LeaseGrant { service, scopes } in parent.grants {
        for (name, left) in scopes.iter().filter(|(_, left)| left.uses != Some(0)) {
            if let Ok(scope) = grantable_scope(policy, agent, service, name) {
                given.add(service, scope, *left);
            }
        }
    }
    given
}

fn capped(
    policy: &Policy,
    agent: &AgentRule,
    parent: &Delegator<'_>,
    (grants, risk): (Vec<LeaseGrant>, Risk),
    request: &DelegationRequest,
) -> MintPlan {
    let RenewalPlan { ttl, ttl_capped_by } = period(policy, Some(agent), risk, request.ttl);
    let ttl_capped_by = if ttl > parent.ttl { Some(CAPPED_BY_PARENT.to_owned()) } else { ttl_capped_by };
    let lifetime = policy.ceiling(risk).lifetime.min(parent.lifetime);
    let (identities, budget) = (agent.identities.clone(), agent.limits.budget);
    let Pace { rate, rate_capped_by } = pace(&grants, request.rate.or(parent.rate));
    let is_inherited = request.rate.is_none() && rate.is_some();
    let rate_capped_by = rate_capped_by.or_else(|| is_inherited.then(|| CAPPED_BY_PARENT.to_owned()));
    let ttl = ttl.min(parent.ttl);
    MintPlan { identities, grants, ttl, lifetime, ttl_capped_by, rate, rate_capped_by, risk, budget }
}

/// The verdict over a nonce's scopes, as far as those over the scopes of all above it agree.
///
/// A scope has to allow the request below and above alike: it says with which credential the request is made, and a label
/// that was only added below must not open one that is closed above.
pub(super) fn decide<'a>(
    policy: &'a Policy,
    service: &ServiceName,
    scopes: &[ScopeName],
    own: Verdict<'a>,
    above: impl Iterator<Item = Verdict<'a>>,
) -> Verdict<'a> {
    let Verdict::Allow { scope, rule, recording, next } = own else { return own };
    let own = Allowing { scope, rule, recording };
    let mut common: SmallVec<[Allowing<'a>; 2]> = std::iter::once(own).chain(next).collect();
    for verdict in above {
        match verdict {
            Verdict::Allow { scope, next, .. } => {
                let is_above =
                    |name: &ScopeName| scope.name == *name || next.iter().any(|other| other.scope.name == *name);
                common.retain(|below| is_above(&below.scope.name));
            }
            other @ (Verdict::Ambiguous(_) | Verdict::Unmet(_)) => return other,
            // What those above may do is not told below.
            Verdict::Deny { .. } => {
                let allowed = policy.service(service).map(|service| single::allowed(service, scopes));
                return Verdict::Deny { allowed: allowed.unwrap_or_default(), required_scope: None };
            }
        }
    }
    match common.split_first() {
        Some((first, next)) => {
            let Allowing { scope, rule, recording } = *first;
            Verdict::Allow { scope, rule, recording, next: next.into() }
        }
        // Whoever is above may do it under another scope only. No deny, which would go on where rules are observed.
        None => Verdict::Unmet(Unmet { rule: own.rule, because: None, fault: None, recording: own.recording }),
    }
}

#[cfg(test)]
mod tests;
