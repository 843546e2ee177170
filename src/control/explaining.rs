//! Would a request be allowed, and why: the sidecar's own decision on a request that nobody makes.

mod known;

use http::StatusCode;

use super::answer;
use super::ask::{self, OfWhom};
use super::caller::Caller;
use super::front::Control;
use super::refusal::Refusal;
use super::serve::Answer;
use super::types::{Explanation, ExplanationAsked, Mistake, Problem, WayView};
use crate::json::Json;
use crate::lease::Lease;
use crate::model::{AgentName, Grant, LeaseGrant, RiskCap, ScopeLimits, ScopeName, ServiceName};
use crate::policy::explain::{self, Holding, Question, Way};
use crate::policy::{Permission, Policy};
use known::{Known, Sent, line};

/// The part of a question that says which nonce it is about.
struct Holder {
    agent: AgentName,
    service: Option<ServiceName>,
    holding: Holding,
    is_spent: bool,
    cap: Option<RiskCap>,
}

/// Says whether a request would be allowed, and by what; else why not, and which scope would allow it.
///
/// Decided are host, method, path, query, and for a nonce that there is also conditions, its uses and the levels of risk in
/// force, each of all nonces above it as well. Rates, budgets, who presents the nonce, headers, the address and whether
/// the credential can be had are not. Nobody is contacted, and no use is spent.
#[utoipa::path(
    post, path = "/v1/explain", tag = "operations", operation_id = "explain",
    request_body(content = ExplanationAsked, content_type = "application/json"),
    responses(
        (status = 200, body = Explanation, description = "The verdict"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "invalid_request"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "unauthenticated"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "rate_limited"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "forbidden"),
        (status = 404, body = Problem, content_type = "application/problem+json",
         description = "unknown_agent, unknown_service; not_found: no live nonce of one's own agents"),
        (status = 408, body = Problem, content_type = "application/problem+json", description = "request_timeout"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "request_too_large"),
        (status = 415, body = Problem, content_type = "application/problem+json",
            description = "unsupported_media_type"),
    )
)]
pub(super) fn explain(control: &Control, caller: &Caller, body: &Json) -> Result<Answer, Refusal> {
    caller.require(Permission::Read)?;
    let asked = ask::explanation(body)?;
    let mut lease = None;
    let Holder { agent, service, holding, is_spent, cap } = match asked.whom {
        OfWhom::Agent { agent, service, scopes } => of_agent(control, caller, agent, service, scopes)?,
        OfWhom::Nonce(id) => {
            let found = control.live(id).filter(|lease| caller.has(Permission::Read, lease.terms().agent));
            of_lease(lease.insert(found.ok_or(Refusal::NotFound)?))
        }
    };
    let unreadable = |problem: String| Refusal::InvalidRequest(vec![Mistake::at("/url", problem)]);
    let (policy, now) = (&control.policy(), control.parts.clock.now());
    let answer = match Question::of(policy, &asked.method, &asked.url, now.wall).map_err(unreadable)? {
        Ok(question) => {
            let question = Question { agent: Some(agent), service, holding, is_spent, cap, ..question };
            let sent = Sent { body: asked.body.as_deref(), content_type: asked.content_type.as_deref() };
            let line: Vec<Known> = lease.iter().flat_map(|lease| line(policy, lease)).collect();
            let members: Vec<_> = line.iter().map(|known| known.member(policy, sent, &now)).collect();
            explain::explain_line(policy, &question, &members)
        }
        Err(ambiguous) => ambiguous,
    };
    Ok(answer::json(StatusCode::OK, &view(caller, answer)))
}

/// Any nonce that could be minted for an agent.
fn of_agent(
    control: &Control,
    caller: &Caller,
    agent: AgentName,
    service: Option<ServiceName>,
    scopes: Vec<ScopeName>,
) -> Result<Holder, Refusal> {
    caller.acting(Permission::Read, &agent)?;
    let policy = &control.policy();
    let rule = policy.agent(&agent).ok_or(Refusal::UnknownAgent)?;
    let services = || rule.grants.iter().map(|grant| &grant.service);
    if let Some(service) = service.as_ref().filter(|asked| !services().any(|known| known == *asked)) {
        return Err(Refusal::UnknownService { service: service.clone(), services: services().cloned().collect() });
    }
    if let (Some(service), Some(scope)) = (&service, first_unknown(policy, service.as_ref(), &scopes)) {
        let grantable = policy.grantable(&agent, service).to_vec();
        return Err(Refusal::ScopeNotGrantable { service: service.clone(), scope, grantable });
    }
    let cap = control.parts.leases.restriction_of(&agent).map(|restriction| restriction.cap);
    let holding = if scopes.is_empty() { Holding::Everything } else { Holding::Scopes(scopes) };
    Ok(Holder { agent, service, holding, is_spent: false, cap })
}

/// A scope that the service does not have.
fn first_unknown(policy: &Policy, service: Option<&ServiceName>, scopes: &[ScopeName]) -> Option<ScopeName> {
    let service = policy.service(service?)?;
    scopes.iter().find(|scope| service.scope(scope).is_none()).cloned()
}

/// One that there is.
fn of_lease(lease: &Lease) -> Holder {
    let terms = lease.terms();
    let names = |scopes: &[(ScopeName, ScopeLimits)]| scopes.iter().map(|(scope, _)| scope.clone()).collect();
    let grant = |grant: &LeaseGrant| Grant { service: grant.service.clone(), scopes: names(&grant.scopes) };
    let holding = Holding::Minted(terms.grants.iter().map(grant).collect());
    let is_spent = lease.uses_left() == Some(0);
    Holder { agent: terms.agent.clone(), service: None, holding, is_spent, cap: None }
}

/// Of the scopes that would do, those that some agent of the caller's may have.
fn view(caller: &Caller, answer: explain::Answer) -> Explanation {
    let explain::Answer { allowed, code, why, by, also, denied_by, observed, would, instead, .. } = answer;
    let way = |way: Way| WayView {
        service: way.service,
        scope: way.scope,
        risk: way.risk.to_string(),
        rule: way.rule,
        credential: way.credential,
        max_uses: way.max_uses,
        agents: way.agents.into_iter().filter(|name| is_own(caller, name)).collect(),
    };
    let would = would.into_iter().map(way).filter(|way| !way.agents.is_empty()).collect();
    let (code, observed) = (code.map(str::to_owned), observed.map(str::to_owned));
    Explanation { allowed, code, why, by: by.map(way), also, denied_by, observed, would, instead }
}

fn is_own(caller: &Caller, name: &str) -> bool {
    AgentName::parse(name).is_ok_and(|agent| caller.knows(&agent))
}
