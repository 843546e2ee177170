//! Levels of risk: a monitor lowers what is allowed, from the next request on, without ending anything.

use http::StatusCode;

use super::answer;
use super::ask::{self, RiskAsked as Asked};
use super::caller::Caller;
use super::front::Control;
use super::refusal::Refusal;
use super::serve::Answer;
use super::types::{Mistake, Problem, RiskAsked, RiskView};
use super::view;
use crate::audit::Event;
use crate::json::Json;
use crate::lease::{Restriction, RiskSubject};
use crate::model::LevelName;
use crate::policy::{Permission, Policy, RISK_NORMAL};

/// Puts an agent, or a task of one's own agents, at a level of risk for a while, in place of the one that it had.
///
/// When this has answered, every request whose scope is riskier than the level allows is refused (`risk_restricted`), on
/// every connection; what is under way goes on. The level `normal` takes back what is in force.
#[utoipa::path(
    post, path = "/v1/risk", tag = "nonces", operation_id = "risk",
    request_body(content = RiskAsked, content_type = "application/json"),
    responses(
        (status = 200, body = RiskView, description = "What is in force now"),
        (status = 400, body = Problem, content_type = "application/problem+json",
         description = "invalid_request; also a level that the policy does not have"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "unauthenticated"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "rate_limited"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "forbidden"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "unknown_agent"),
        (status = 408, body = Problem, content_type = "application/problem+json", description = "request_timeout"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "request_too_large"),
        (status = 415, body = Problem, content_type = "application/problem+json",
            description = "unsupported_media_type"),
        (status = 503, body = Problem, content_type = "application/problem+json",
         description = "audit_unavailable; overloaded: too many levels in force"),
    )
)]
pub(super) async fn risk(control: &Control, caller: &Caller, body: &Json) -> Result<Answer, Refusal> {
    caller.require(Permission::Risk)?;
    let asked = ask::risk(body, is_normal)?;
    let parts = &control.parts;
    let subject = subject(&control.policy(), caller, &asked)?;
    let to = restriction(control, &asked)?;
    // Requests wait for the same audit: none passes that a record which cannot be written would have stopped.
    parts.audit.record(event(caller, &asked, to.as_ref())).await.map_err(|_| Refusal::AuditUnavailable)?;
    let view = to.as_ref().map_or_else(normal, view::risk_view);
    parts.leases.restrict(&subject, to).map_err(|_| Refusal::TooManyLevels)?;
    Ok(answer::json(StatusCode::OK, &view))
}

fn is_normal(level: &LevelName) -> bool {
    level.as_str() == RISK_NORMAL
}

fn normal() -> RiskView {
    RiskView { level: RISK_NORMAL.to_owned(), max_risk: None, until: None }
}

/// Of whom it is said; a task is one of the caller's own agents.
fn subject(policy: &Policy, caller: &Caller, asked: &Asked) -> Result<RiskSubject, Refusal> {
    match (&asked.agent, &asked.task) {
        (Some(agent), None) => {
            caller.acting(Permission::Risk, agent)?;
            policy.agent(agent).ok_or(Refusal::UnknownAgent)?;
            Ok(RiskSubject::Agent(agent.clone()))
        }
        (None, Some(task)) => Ok(RiskSubject::Task { task: task.clone(), agents: caller.agents(Permission::Risk) }),
        // The body's parser refuses both before.
        (Some(_), Some(_)) | (None, None) => Err(Refusal::Internal),
    }
}

/// The level in force from now on; none where one is taken back.
fn restriction(control: &Control, asked: &Asked) -> Result<Option<Restriction>, Refusal> {
    let Some(ttl) = asked.ttl else { return Ok(None) };
    let policy = control.policy();
    let levels = policy.risk_levels();
    let Some(level) = levels.iter().find(|level| level.name == asked.level) else {
        let names: Vec<_> = levels.iter().map(|level| level.name.as_str()).chain([RISK_NORMAL]).collect();
        let problem = format!("is not a level of the policy, whose levels are {}", names.join(", "));
        return Err(Refusal::InvalidRequest(vec![Mistake::at("/level", problem)]));
    };
    let until = control.parts.clock.now().plus(ttl);
    Ok(Some(Restriction { level: level.name.clone(), cap: level.cap, until }))
}

fn event(caller: &Caller, asked: &Asked, to: Option<&Restriction>) -> Event {
    Event::Risk {
        agent: asked.agent.clone(),
        task: asked.task.clone(),
        level: asked.level.to_string(),
        max_risk: to.map(|restriction| restriction.cap.as_str()),
        until: to.map(|restriction| restriction.until.wall),
        reason: asked.reason.clone(),
        caller: caller.identity.clone(),
    }
}
