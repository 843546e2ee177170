//! Ending many nonces by one call.

use http::StatusCode;

use super::answer;
use super::ask::{self, ManyAsked, Selector};
use super::caller::Caller;
use super::front::Control;
use super::refusal::Refusal;
use super::serve::Answer;
use super::types::{CompletionAsked, Problem, RevocationAsked, Revoked};
use crate::audit::Event;
use crate::json::Json;
use crate::lease::Lease;
use crate::model::{AgentName, Identity, ServiceName, TaskName};
use crate::policy::Permission;

/// What the record says of a call, but for how many it ended.
struct Record {
    call: &'static str,
    agent: Option<AgentName>,
    task: Option<TaskName>,
    service: Option<ServiceName>,
    reason: Option<String>,
    caller: Identity,
}

impl Record {
    fn event(self, revoked: u64) -> Event {
        let Self { call, agent, task, service, reason, caller } = self;
        Event::Revocation { call, agent, task, service, reason, caller, revoked }
    }
}

/// Ends all live nonces of one's own agents that are of an agent, for a task, of a service, or all.
///
/// When this has answered, no request is accepted with any of them that was minted before, and streams under them are
/// cut; it goes on to the end also if the caller hangs up. It can be repeated.
#[utoipa::path(
    post, path = "/v1/revocations", tag = "nonces", operation_id = "revocations",
    request_body(content = RevocationAsked, content_type = "application/json"),
    responses(
        (status = 200, body = Revoked, description = "They are over; how many were alive"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "invalid_request"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "unauthenticated"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "rate_limited"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "forbidden"),
        (status = 408, body = Problem, content_type = "application/problem+json", description = "request_timeout"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "request_too_large"),
        (status = 415, body = Problem, content_type = "application/problem+json",
            description = "unsupported_media_type"),
    )
)]
pub(super) async fn revocations(control: &Control, caller: &Caller, body: &Json) -> Result<Answer, Refusal> {
    caller.require(Permission::Revoke)?;
    let ManyAsked { selector, reason } = ask::revocation(body)?;
    let (agent, task, service) = match selector.clone() {
        Selector::Agent(agent) => (Some(agent), None, None),
        Selector::Task(task) => (None, Some(task), None),
        Selector::Service(service) => (None, None, Some(service)),
        Selector::All => (None, None, None),
    };
    if let Some(agent) = &agent {
        caller.acting(Permission::Revoke, agent)?;
    }
    let record = Record { call: "revocations", agent, task, service, reason, caller: caller.identity.clone() };
    let own = caller.clone();
    let which = move |lease: &Lease| {
        let terms = lease.terms();
        selector.wants(&terms) && own.has(Permission::Revoke, terms.agent)
    };
    revoke(control, caller, which, record).await
}

/// Completes a task of one's own: its nonces end, and for an hour none is minted for it (`task_completed`), so that
/// nobody who comes late brings it back.
///
/// Tasks are a minter's own: another minter's task of the same name goes on. It can be repeated.
#[utoipa::path(
    post, path = "/v1/tasks/{task}/complete", tag = "nonces", operation_id = "complete",
    params(("task" = String, Path, description = "The task, with `%2F` for `/`")),
    request_body(content = Option<CompletionAsked>, content_type = "application/json"),
    responses(
        (status = 200, body = Revoked, description = "It is complete; how many nonces were alive"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "invalid_request"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "unauthenticated"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "rate_limited"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "forbidden"),
        (status = 404, body = Problem, content_type = "application/problem+json",
            description = "not_found: no name of a task"),
        (status = 408, body = Problem, content_type = "application/problem+json", description = "request_timeout"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "request_too_large"),
        (status = 415, body = Problem, content_type = "application/problem+json",
            description = "unsupported_media_type"),
    )
)]
pub(super) async fn complete(control: &Control, caller: &Caller, task: &str, body: &Json) -> Result<Answer, Refusal> {
    caller.require(Permission::Revoke)?;
    let (task, reason) = (ask::task_in_path(task)?, ask::completion(body)?);
    let minters = caller.names(Permission::Revoke);
    let (agent, service, identity) = (None, None, caller.identity.clone());
    let record = Record { call: "complete", agent, task: Some(task.clone()), service, reason, caller: identity };
    // First nothing new, then what there is: what is minted in between is found.
    control.parts.leases.complete(&minters, &task);
    let which = move |lease: &Lease| {
        let terms = lease.terms();
        *terms.task == task && minters.contains(terms.minter)
    };
    revoke(control, caller, which, record).await
}

/// In a task of its own: a revocation that has begun is carried out, whoever waits for it.
async fn revoke(
    control: &Control,
    caller: &Caller,
    which: impl Fn(&Lease) -> bool + Send + Sync + 'static,
    record: Record,
) -> Result<Answer, Refusal> {
    let by = caller.described(Permission::Revoke);
    let (leases, audit, walks) = (control.parts.leases.clone(), control.parts.audit.clone(), control.walks.clone());
    let walk = tokio::spawn(async move {
        // It is never closed; if it were, going on is right.
        let _place = walks.acquire_owned().await;
        let revoked = u64::try_from(leases.revoke_many(&which, &by).await).unwrap_or(u64::MAX);
        audit.note(record.event(revoked));
        revoked
    });
    let revoked = walk.await.map_err(|_| Refusal::Internal)?;
    Ok(answer::json(StatusCode::OK, &Revoked { revoked }))
}
