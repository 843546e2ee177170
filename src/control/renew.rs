//! Renewing: policy, then the audit, then the lease, then the answer.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;

use super::answer;
use super::ask;
use super::caller::Caller;
use super::front::Control;
use super::refusal::Refusal;
use super::serve::Answer;
use super::types::{LeaseView, Problem, RenewalAsked};
use super::view;
use crate::audit::{Audit, Event};
use crate::clock::SharedClock;
use crate::json::Json;
use crate::lease::{EndCause, Lease, Minter};
use crate::metrics::Metrics;
use crate::model::{MinterName, NonceId};
use crate::policy::{Permission, Policy};

/// What caps a renewal that would go beyond the life of the nonce.
const CAPPED_BY_LIFE: &str = "lifetime";
/// What caps one that would go beyond the present period of the nonce above.
const CAPPED_BY_PARENT: &str = "parent";

/// Renews a nonce: the same nonce gets a new period from now on, within its ceiling and its life.
///
/// The expiry never moves backwards: who asks for less than what is left changes nothing. Only the minter that minted
/// it may renew it. What is over does not come back.
#[utoipa::path(
    post, path = "/v1/nonces/{id}/renew", tag = "nonces", operation_id = "renew",
    params(("id" = String, Path, description = "The accessor, `nc_…`")),
    request_body(content = Option<RenewalAsked>, content_type = "application/json"),
    responses(
        (status = 200, body = LeaseView, description = "The lease as it is now; `ttl_capped_by` where it got less than asked"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "invalid_request"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "unauthenticated"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "mint_rate_limited"),
        (status = 403, body = Problem, content_type = "application/problem+json",
         description = "forbidden: alive, and not one's own mint"),
        (status = 404, body = Problem, content_type = "application/problem+json",
         description = "not_found: unknown, forgotten, or over and not of one's own agents"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "not_renewable: it is over"),
        (status = 408, body = Problem, content_type = "application/problem+json", description = "request_timeout"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "request_too_large"),
        (status = 415, body = Problem, content_type = "application/problem+json",
            description = "unsupported_media_type"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "audit_unavailable"),
    )
)]
pub(super) async fn renew(control: &Control, caller: &Caller, id: &str, body: &Json) -> Result<Answer, Refusal> {
    caller.require(Permission::Mint)?;
    let asked = ask::renewal(body)?;
    let id = NonceId::parse(id).ok_or(Refusal::NotFound)?;
    let lease = control.live(id).ok_or_else(|| over(control, caller, id))?;
    let terms = lease.terms();
    let (policy, parts) = (control.policy(), &control.parts);
    let minter = caller.minting_as(terms.minter, terms.agent, policy.risk_of(terms.grants))?.name.clone();
    let (leases, audit, metrics, clock) = (&parts.leases, &parts.audit, &*parts.metrics, &parts.clock);
    let event = |expires_at| event(caller, &lease, minter, expires_at);
    Renewing { policy: &policy, leases, audit, metrics, clock }.renew(&lease, asked, event).await
}

/// What a renewal takes, whoever may ask for it.
pub(super) struct Renewing<'a> {
    pub(super) policy: &'a Policy,
    pub(super) leases: &'a Minter,
    pub(super) audit: &'a Audit,
    pub(super) metrics: &'a Metrics,
    pub(super) clock: &'a SharedClock,
}

impl Renewing<'_> {
    /// Renews a lease for whom that was allowed: first the record, of the expiry that it will have, then the lease.
    pub(super) async fn renew(
        &self,
        lease: &Arc<Lease>,
        asked: Option<Duration>,
        event: impl FnOnce(Timestamp) -> Event,
    ) -> Result<Answer, Refusal> {
        let plan = self.policy.plan_renewal(lease.terms().agent, lease.terms().grants, asked);
        let renewal = lease.renewal(plan.ttl, &self.clock.now());
        self.audit.record(event(renewal.until.wall)).await.map_err(|_| Refusal::AuditUnavailable)?;
        if !self.leases.renew(lease, renewal.until) {
            return Err(Refusal::NotRenewable(lease.ended().unwrap_or(EndCause::Expired)));
        }
        self.metrics.renewed();
        let mut view = view::lease_view(self.policy, lease, &self.clock.now());
        view.ttl_capped_by = match renewal.is_capped {
            true if renewal.until.wall < lease.ends_at() => Some(CAPPED_BY_PARENT.to_owned()),
            true => Some(CAPPED_BY_LIFE.to_owned()),
            false => plan.ttl_capped_by,
        };
        Ok(answer::json(StatusCode::OK, &view))
    }
}

/// The dead are told of to those who may renew for their agents; to others they never were.
fn over(control: &Control, caller: &Caller, id: NonceId) -> Refusal {
    let dead = control.parts.leases.dead(id);
    let own = dead.filter(|dead| caller.acting_as(&dead.minter, Permission::Mint, &dead.agent).is_ok());
    own.map_or(Refusal::NotFound, |dead| Refusal::NotRenewable(dead.cause))
}

fn event(caller: &Caller, lease: &Lease, minter: MinterName, expires_at: Timestamp) -> Event {
    let terms = lease.terms();
    Event::Renewed {
        nonce_id: lease.id(),
        agent: terms.agent.clone(),
        task: terms.task.clone(),
        minter: Some(minter),
        renewed_by: Some(caller.identity.clone()),
        expires_at,
    }
}
