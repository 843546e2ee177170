//! Nonces that were found where they must not be: whoever may use this API can have them ended by handing them in.

mod find;

use std::collections::BTreeSet;

use http::StatusCode;

use super::answer;
use super::ask;
use super::caller::Caller;
use super::front::Control;
use super::refusal::Refusal;
use super::serve::Answer;
use super::types::{LeakReport, Problem};
use crate::audit::{Audit, Event};
use crate::json::Json;
use crate::lease::{EndCause, Found, Minter};
use crate::model::{Identity, NonceHash};

pub(super) use find::nonces;

/// The alarm for one that was alive.
const ALARM_LIVE: &str = "high";
/// The alarm for one that was over already.
const ALARM_OVER: &str = "low";

/// Ends and announces the live nonces in what was found: a log, a diff, a page.
///
/// Every caller may, whosever nonces they are: who has a nonce has shown that it is known. The answer is the same
/// whatever was in it; what was found is in the audit (`leak`, `leak_report`) and among the events.
#[utoipa::path(
    post, path = "/v1/leaks", tag = "nonces", operation_id = "leaks",
    request_body(content = LeakReport, content_type = "application/json"),
    responses(
        (status = 202, description = "Looked through; what was alive is over"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "invalid_request"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "unauthenticated"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "rate_limited"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "forbidden: an agent"),
        (status = 408, body = Problem, content_type = "application/problem+json", description = "request_timeout"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "request_too_large"),
        (status = 415, body = Problem, content_type = "application/problem+json",
            description = "unsupported_media_type"),
    )
)]
pub(super) fn leaks(control: &Control, caller: &Caller, body: &Json) -> Result<Answer, Refusal> {
    let asked = ask::leaks(body)?;
    let found: BTreeSet<NonceHash> = asked.texts.iter().flat_map(|text| nonces(text)).collect();
    let (leases, audit) = (&control.parts.leases, &control.parts.audit);
    let finding = Finding { leases, audit, caller: &caller.identity, source: asked.source.as_deref() };
    let live = found.iter().filter(|hash| end(&finding, hash) == Ended::Live).count();
    if live > 0 {
        tracing::warn!(caller = %caller.identity, live, "live nonces were reported as leaked, and are revoked");
    }
    control.parts.audit.note(Event::LeakReport {
        caller: caller.identity.clone(),
        source: asked.source,
        found: u64::try_from(found.len()).unwrap_or(u64::MAX),
        live: u64::try_from(live).unwrap_or(u64::MAX),
    });
    Ok(answer::silent(StatusCode::ACCEPTED))
}

/// Who found something, and where.
pub(super) struct Finding<'a> {
    pub(super) leases: &'a Minter,
    pub(super) audit: &'a Audit,
    pub(super) caller: &'a Identity,
    pub(super) source: Option<&'a str>,
}

/// What a text was that has the shape of a nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Alive until now.
    Live,
    /// One of ours, and over already.
    Over,
    /// Nobody's, or forgotten.
    Unknown,
}

/// Ends one, if it lives, and announces it.
pub(super) fn end(finding: &Finding<'_>, hash: &NonceHash) -> Ended {
    let Finding { leases, audit, caller, source } = finding;
    let leaked = |nonce_id, agent, task, alarm| {
        let (caller, source) = ((*caller).clone(), source.map(str::to_owned));
        audit.note(Event::Leaked { nonce_id, agent, task, alarm, caller, source });
    };
    match leases.find(hash) {
        // A canary was minted to be found.
        Found::Live(lease) | Found::Canary(lease) => {
            let by = format!("a report of leaks ({caller})");
            let was_live = leases.revoke(lease.id(), EndCause::Revoked, &by);
            let terms = lease.terms();
            leaked(lease.id(), terms.agent.clone(), Some(terms.task.clone()), ALARM_LIVE);
            if was_live { Ended::Live } else { Ended::Over }
        }
        Found::Dead(dead) => {
            leaked(dead.id, dead.agent, None, ALARM_OVER);
            Ended::Over
        }
        Found::Unknown => Ended::Unknown,
    }
}
