//! What a minter gets for what it asks.

use std::sync::Arc;
use std::time::Duration;

use super::service::Scope;
use super::{AgentRule, Ceiling, Policy};
use crate::model::{
    AgentName, Budget, Grant, IdentityRule, LeaseGrant, Rate, Risk, ScopeLimits, ScopeName, ServiceName,
};

/// What a minter asks for.
#[derive(Debug, Clone)]
pub struct MintRequest {
    /// For which agent.
    pub agent: AgentName,
    /// For what.
    pub grants: Vec<Grant>,
    /// How long.
    pub ttl: Option<Duration>,
    /// How fast the whole nonce may be used; `None` is as its scopes may.
    pub rate: Option<Rate>,
}

/// What it gets.
#[derive(Debug, Clone)]
pub struct MintPlan {
    /// Who may present the nonce.
    pub identities: Arc<[IdentityRule]>,
    /// With the limits of each scope.
    pub grants: Vec<LeaseGrant>,
    /// How long this period lasts.
    pub ttl: Duration,
    /// How long it may live with renewals.
    pub lifetime: Duration,
    /// What capped it: `ceilings.high` or `agents.NAME.ttl`; `None` when it was given as asked.
    pub ttl_capped_by: Option<String>,
    /// How fast the whole nonce may be used.
    pub rate: Option<Rate>,
    /// What made that slower: `parent`, or `services.NAME.scopes.SCOPE.rate`; `None` when it was given as asked.
    pub rate_capped_by: Option<String>,
    /// The riskiest scope.
    pub risk: Risk,
    /// What it shares with the other nonces of its task.
    pub budget: Option<Budget>,
}

/// What a renewal gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewalPlan {
    /// How long the next period lasts, from now.
    pub ttl: Duration,
    /// What capped it: `ceilings.high` or `agents.NAME.ttl`; `None` when it was given as asked.
    pub ttl_capped_by: Option<String>,
}

/// Why a mint is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MintRefusal {
    /// No such agent.
    UnknownAgent,
    /// No such service; these there are for this agent.
    UnknownService {
        /// As asked.
        service: ServiceName,
        /// What there is for this agent.
        services: Vec<ServiceName>,
    },
    /// The agent may not have this scope.
    ScopeNotGrantable {
        /// As asked.
        service: ServiceName,
        /// As asked.
        scope: ScopeName,
        /// What it may have of this service.
        grantable: Vec<ScopeName>,
    },
    /// No grants, or a grant without scopes: nothing that is missing ever means everything.
    Empty,
}

/// Grants with what is named twice named once; services and scopes stay in their order.
pub(super) fn fold(grants: Vec<Grant>) -> Vec<Grant> {
    let mut folded: Vec<Grant> = Vec::new();
    for Grant { service, scopes } in grants {
        let at = folded.iter().position(|known| known.service == service).unwrap_or_else(|| {
            folded.push(Grant { service, scopes: Vec::new() });
            folded.len() - 1
        });
        for scope in scopes {
            if !folded[at].scopes.contains(&scope) {
                folded[at].scopes.push(scope);
            }
        }
    }
    folded
}

/// Decides what a mint gets.
pub(super) fn plan(policy: &Policy, request: &MintRequest) -> Result<MintPlan, MintRefusal> {
    let agent = policy.agent(&request.agent).ok_or(MintRefusal::UnknownAgent)?;
    let mut grants: Vec<LeaseGrant> = Vec::new();
    let mut risk = None;
    for Grant { service, scopes } in &request.grants {
        if scopes.is_empty() {
            return Err(MintRefusal::Empty);
        }
        for name in scopes {
            let scope = grantable_scope(policy, agent, service, name)?;
            risk = risk.max(Some(scope.risk));
            add(&mut grants, service, scope);
        }
    }
    let risk = risk.ok_or(MintRefusal::Empty)?;
    let RenewalPlan { ttl, ttl_capped_by } = period(policy, Some(agent), risk, request.ttl);
    let lifetime = policy.ceiling(risk).lifetime;
    let (identities, budget) = (Arc::clone(&agent.identities), agent.limits.budget);
    let Pace { rate, rate_capped_by } = pace(&grants, request.rate);
    Ok(MintPlan { identities, grants, ttl, lifetime, ttl_capped_by, rate, rate_capped_by, risk, budget })
}

/// How fast a whole nonce may be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pace {
    pub(super) rate: Option<Rate>,
    pub(super) rate_capped_by: Option<String>,
}

/// What is given of the rate that was asked for. Each scope keeps its own beside it; where there is only one, and it is
/// slower, the nonce is not said to be faster.
pub(super) fn pace(grants: &[LeaseGrant], asked: Option<Rate>) -> Pace {
    let is_one = grants.iter().map(|grant| grant.scopes.len()).sum::<usize>() == 1;
    let only = grants.iter().find_map(|grant| Some((&grant.service, grant.scopes.first()?))).filter(|_| is_one);
    if let (Some(asked), Some((service, (scope, ScopeLimits { rate: Some(rate), .. })))) = (asked, only)
        && *rate != asked
        && rate.is_within(asked)
    {
        let rate_capped_by = Some(format!("services.{service}.scopes.{scope}.rate"));
        return Pace { rate: Some(*rate), rate_capped_by };
    }
    Pace { rate: asked, rate_capped_by: None }
}

/// How long a canary lives where nobody says. It opens nothing, so that no ceiling is about it; it has to lie about.
const CANARY_TTL_DEFAULT: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long a canary lives at most.
const CANARY_TTL_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// Decides what the mint of a canary gets.
pub(super) fn plan_canary(policy: &Policy, agent: &AgentName, ttl: Option<Duration>) -> Result<MintPlan, MintRefusal> {
    let agent = policy.agent(agent).ok_or(MintRefusal::UnknownAgent)?;
    let wanted = ttl.unwrap_or(CANARY_TTL_DEFAULT);
    let ttl = wanted.min(CANARY_TTL_MAX);
    let ttl_capped_by = (wanted > ttl).then(|| "canary".to_owned());
    let identities = Arc::clone(&agent.identities);
    Ok(MintPlan {
        identities,
        grants: Vec::new(),
        ttl,
        lifetime: ttl,
        ttl_capped_by,
        rate: None,
        rate_capped_by: None,
        risk: Risk::Low,
        budget: None,
    })
}

/// Decides what a renewal gets.
pub(super) fn plan_renewal(
    policy: &Policy,
    agent: &AgentName,
    grants: &[LeaseGrant],
    asked: Option<Duration>,
) -> RenewalPlan {
    period(policy, policy.agent(agent), risk_of(policy, grants), asked)
}

/// The riskiest of what is granted. A scope that the policy does not have counts as the riskiest.
pub(super) fn risk_of(policy: &Policy, grants: &[LeaseGrant]) -> Risk {
    let risk_of = |service: &ServiceName, scope: &ScopeName| {
        policy.service(service).and_then(|service| service.scope(scope)).map_or(Risk::High, |scope| scope.risk)
    };
    let risks = grants.iter().flat_map(|grant| grant.scopes.iter().map(|(scope, _)| risk_of(&grant.service, scope)));
    risks.max().unwrap_or(Risk::High)
}

/// The shortest of all wins; of two that are alike, the ceiling is named.
pub(super) fn period(policy: &Policy, agent: Option<&AgentRule>, risk: Risk, asked: Option<Duration>) -> RenewalPlan {
    let Ceiling { ttl: ceiling, lifetime } = *policy.ceiling(risk);
    let ceiling = ceiling.min(lifetime);
    let wanted = asked.unwrap_or(policy.default_ttl);
    let own = agent.and_then(|agent| Some((agent.limits.ttl?, &agent.name))).filter(|(own, _)| *own < ceiling);
    let (most, by) = match own {
        Some((own, name)) => (own, format!("agents.{name}.ttl")),
        None => (ceiling, format!("ceilings.{risk}")),
    };
    RenewalPlan { ttl: wanted.min(most), ttl_capped_by: (wanted > most).then_some(by) }
}

pub(super) fn grantable_scope<'a>(
    policy: &'a Policy,
    agent: &AgentRule,
    service: &ServiceName,
    name: &ScopeName,
) -> Result<&'a Scope, MintRefusal> {
    let Some(grant) = agent.grants.iter().find(|grant| grant.service == *service) else {
        let services = agent.grants.iter().map(|grant| grant.service.clone()).collect();
        return Err(MintRefusal::UnknownService { service: service.clone(), services });
    };
    let scope = if grant.scopes.contains(name) { policy.service(service).and_then(|s| s.scope(name)) } else { None };
    scope.ok_or_else(|| MintRefusal::ScopeNotGrantable {
        service: service.clone(),
        scope: name.clone(),
        grantable: grant.scopes.clone(),
    })
}

/// Adds a scope once; there are never more than the agent may have.
fn add(grants: &mut Vec<LeaseGrant>, service: &ServiceName, scope: &Scope) {
    let at = grants.iter().position(|known| known.service == *service).unwrap_or_else(|| {
        grants.push(LeaseGrant { service: service.clone(), scopes: Vec::new() });
        grants.len() - 1
    });
    if !grants[at].scopes.iter().any(|(known, _)| *known == scope.name) {
        let limits = ScopeLimits { uses: scope.max_uses, rate: scope.rate };
        grants[at].scopes.push((scope.name.clone(), limits));
    }
}

#[cfg(test)]
mod tests;
