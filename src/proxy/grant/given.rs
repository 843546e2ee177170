//! What conditions look at, beside the request's head; and what is said where one does not hold.

use std::sync::Arc;

use http_body::Body as _;
use smallvec::SmallVec;

use super::{SCOPES_INLINE, holds, present, signature};
use crate::audit::DecisionFacts;
use crate::lease::{Lease, Lookup};
use crate::model::denial::TooLarge;
use crate::model::{AgentName, Denial, RuleRate, ScopeName, ServiceName};
use crate::policy::{
    BodyFault, Circumstances, NonceFacts, Policy, RISK_NORMAL, RequestFacts, Scope, Service, Unmet, lists,
};
use crate::proxy::connect::Session;
use crate::proxy::extract::{Presented, body};
use crate::proxy::refused::Refused;

/// Lines of a nonce's own list that a refusal says.
const LISTED_MAX: usize = 16;

/// The scopes that a lease holds of a service.
pub(super) type Scopes = SmallVec<[ScopeName; SCOPES_INLINE]>;

/// A body that has to be read before its request can be judged.
pub struct Wanted {
    /// So much of it, in bytes.
    bytes_max: usize,
    agent: AgentName,
    facts: DecisionFacts,
    service: Arc<Service>,
}

impl Wanted {
    /// So much of it, for this agent.
    #[must_use]
    pub fn share(&self) -> (usize, &AgentName) {
        (self.bytes_max, &self.agent)
    }

    /// A refusal for want of the body.
    pub fn refused(self, denial: Denial) -> Refused {
        Refused::new(denial, self.facts).of(&self.service)
    }
}

/// The request as it is, or, where its body has to be read first, that. Only that of a live nonce in the right hands;
/// everything else is refused without it. Takes the request, so that no future has to keep room for it.
///
/// # Errors
/// The request, and how much of its body is wanted.
pub fn body_wanted(
    leases: &Lookup,
    policy: &Policy,
    session: &Session,
    presented: Presented,
) -> Result<Presented, Box<(Presented, Wanted)>> {
    match wanted(leases, policy, session, &presented) {
        None => Ok(presented),
        Some(wanted) => Err(Box::new((presented, wanted))),
    }
}

fn wanted(leases: &Lookup, policy: &Policy, session: &Session, presented: &Presented) -> Option<Wanted> {
    let looks = |service: &Arc<Service>| policy.looks_at_bodies(&service.name);
    let signed = signature::body_wanted(presented);
    if (signed.is_none() && !presented.services.iter().any(looks))
        || presented.websocket.is_some()
        || !presented.strays.is_empty()
    {
        return None;
    }
    let hash = presented.lifted.as_ref().map(|lifted| lifted.hash).or(session.voucher)?;
    let mut facts = DecisionFacts { policy_digest: Some(policy.digest().clone()), ..DecisionFacts::default() };
    let lease = present(leases, policy, session.presenter(), &hash, &mut facts).ok()?;
    let request = request(session, presented);
    let held = presented.services.iter().filter(|service| holds(&lease, service));
    // What the nonces above may not do depends on the body, too.
    let line = || std::iter::once(&*lease).chain(lease.ancestors().map(|above| &**above));
    let of = |lease: &Lease, service: &Arc<Service>| {
        policy.body_wanted(&service.name, &scopes(policy, lease, &service.name), &request)
    };
    let asked =
        held.filter_map(|service| Some((line().filter_map(|lease| of(lease, service)).chain(signed).max()?, service)));
    let (bytes_max, service) = asked.max_by_key(|(bytes_max, _)| *bytes_max)?;
    facts.service = Some(service.name.clone());
    Some(Wanted { bytes_max, agent: lease.terms().agent.clone(), facts, service: service.clone() })
}

pub(super) fn request<'a>(session: &'a Session, presented: &'a Presented) -> RequestFacts<'a> {
    RequestFacts {
        method: presented.head.method.as_str(),
        websocket: presented.websocket.is_some(),
        host: &session.destination.host,
        target: &presented.target,
    }
}

/// The scopes that a lease holds of a service, as far as its agent may still have them.
pub(super) fn scopes(policy: &Policy, lease: &Lease, service: &ServiceName) -> Scopes {
    let terms = lease.terms();
    let held = terms.grants.iter().filter(|grant| grant.service == *service);
    let scopes = held.flat_map(|grant| grant.scopes.iter().map(|(scope, _)| scope));
    scopes.filter(|scope| policy.still_grants(terms.agent, service, scope)).cloned().collect()
}

/// The rates of the rules under which a nonce and all above it have this scope: a condition that holds below alone is no
/// way around the rate of a rule that holds above.
pub(super) fn rates(
    leases: &Lookup,
    policy: &Policy,
    lease: &Lease,
    presented: &Presented,
    (service, scope, request): (&Service, &Scope, &RequestFacts<'_>),
) -> Vec<RuleRate> {
    let mut rates: Vec<RuleRate> = Vec::new();
    for lease in std::iter::once(lease).chain(lease.ancestors().map(|above| &**above)) {
        let given = || circumstances(leases, policy, lease, presented);
        for rate in policy.rates(&service.name, &scope.name, request, &given) {
            if !rates.contains(&rate) {
                rates.push(rate);
            }
        }
    }
    rates
}

/// The list of its own that a nonce was delegated with, and those of all above it, hold whatever scopes allow, and also
/// where the rules of the service are only observed. What those above may do is not told.
pub(super) fn check_lists(lease: &Lease, request: &RequestFacts<'_>) -> Result<(), Denial> {
    let mut line = std::iter::once(lease).chain(lease.ancestors().map(|above| &**above));
    if line.all(|lease| lists(lease.terms().lines.iter(), request)) {
        return Ok(());
    }
    let allowed = lease.terms().lines.iter().take(LISTED_MAX).map(str::to_owned).collect();
    Err(Denial::OutOfScope { allowed, required_scope: None })
}

/// All that a condition can look at.
pub(super) fn circumstances<'a>(
    leases: &Lookup,
    policy: &'a Policy,
    lease: &'a Lease,
    presented: &'a Presented,
) -> Circumstances<'a> {
    let (terms, now) = (lease.terms(), leases.now());
    let scopes = terms.grants.iter().flat_map(|grant| {
        let service = policy.service(&grant.service);
        grant.scopes.iter().filter_map(move |(name, _)| service?.scope(name)?.data.as_deref())
    });
    let restriction = leases.restriction(lease);
    let level =
        restriction.as_ref().and_then(|known| policy.risk_levels().iter().find(|level| level.name == known.level));
    // One that a reload has taken out of the policy is none of its words any more, and not `normal`.
    let risk = level.map_or(if restriction.is_some() { "" } else { RISK_NORMAL }, |level| level.name.as_str());
    let uses = terms.max_uses.and_then(|max| Some(max.saturating_sub(lease.uses_left()?)));
    Circumstances {
        now: now.wall.as_second(),
        size: presented.body.size_hint().exact(),
        body: body::held(presented),
        risk,
        nonce: NonceFacts {
            agent: terms.agent.as_str(),
            task: terms.task.as_str(),
            instance: terms.instance,
            on_behalf_of: terms.on_behalf_of,
            labels: terms.labels.iter().collect(),
            data: scopes.collect(),
            age_seconds: lease.age(&now).as_secs(),
            uses,
        },
    }
}

/// What the agent is told; never the expression.
pub(super) fn refusal(unmet: &Unmet<'_>) -> Denial {
    match unmet.fault {
        Some(BodyFault::TooLarge) => Denial::RequestTooLarge(TooLarge::Body),
        Some(fault) => Denial::ConditionFailed { because: Some(fault.sentence().to_owned()) },
        None => Denial::ConditionFailed { because: unmet.because.map(|because| because.to_string()) },
    }
}
