//! Minting: policy, then the audit, then the lease, then the answer.

use std::borrow::Cow;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, StatusCode, header};
use zeroize::Zeroizing;

use super::answer;
use super::ask::{self, MintAsked};
use super::caller::{self, Caller};
use super::front::Control;
use super::idempotency::{BodyHash, Key, Outcome};
use super::refusal::{Conflict, Refusal};
use super::serve::Answer;
use super::types::{Minted, Mistake, NewNonce, Problem};
use super::view::{self, MintNotes};
use crate::audit::{Audit, DecisionFacts, Event};
use crate::clock::SharedClock;
use crate::json::Json;
use crate::lease::{DelegateError, Delegating, Lease, MintError, Minter, NewLease};
use crate::metrics::Metrics;
use crate::model::nonce::NONCE_ENTROPY_BYTES;
use crate::model::{AgentName, Identity, Lineage, MinterName, Nonce, NonceId, TaskName};
use crate::policy::{MintPlan, MintRequest, Permission, Policy};

/// Says that this answer was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// The cause that the audit gives where a mint is on record and its lease was never made.
const CAUSE_NOT_MADE: &str = "not_made";

/// A mint that the policy approved, or a delegation.
#[derive(Clone)]
pub(super) struct Approved {
    pub(super) asked: MintAsked,
    pub(super) minter: MinterName,
    pub(super) plan: MintPlan,
    /// What it is delegated from.
    pub(super) parent: Option<Parent>,
}

/// The nonce above one that is delegated.
#[derive(Clone)]
pub(super) struct Parent {
    pub(super) lease: Arc<Lease>,
    /// Live children that it may have.
    pub(super) children_max: usize,
    /// The list of its own that the new one gets.
    pub(super) lines: Vec<String>,
}

/// What is to be made: as whom, and what the policy says of it when it comes to that. A repeated call asks nobody.
pub(super) struct Order<'a> {
    pub(super) minter: &'a MinterName,
    pub(super) approve: &'a (dyn Fn() -> Result<Cow<'a, Approved>, Refusal> + Sync),
}

/// What making a lease takes, whoever asks for it.
pub(super) struct Making<'a> {
    pub(super) policy: &'a Policy,
    pub(super) leases: &'a Minter,
    pub(super) audit: &'a Audit,
    pub(super) metrics: &'a Metrics,
    pub(super) clock: &'a SharedClock,
    pub(super) asker: Asker<'a>,
}

/// Who asks, for the record.
#[derive(Clone, Copy)]
pub(super) enum Asker<'a> {
    /// A caller of the control API, as the minter.
    Caller(&'a Identity),
    /// The agent that holds the nonce above, as far as it was proven who that is.
    Agent(Option<&'a Identity>),
}

impl Approved {
    /// Where it will come from, if it is delegated.
    fn lineage(&self) -> Option<Lineage> {
        self.parent.as_ref().map(|parent| parent.lease.lineage_below(&self.asked.agent))
    }
}

/// Mints a nonce.
///
/// The nonce is in this answer and nowhere ever again. With an `Idempotency-Key` a retry within ten minutes gets the
/// same lease and nonce, as long as that lease lives.
#[utoipa::path(
    post, path = "/v1/nonces", tag = "nonces", operation_id = "mint",
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255,
            description = "Printable ASCII; scoped to the minter")),
    request_body(content = NewNonce, content_type = "application/json"),
    responses(
        (status = 201, body = Minted, description = "Minted", headers(("Location" = String, description = "The lease"))),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "invalid_request"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "unauthenticated"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "mint_rate_limited"),
        (status = 403, body = Problem, content_type = "application/problem+json",
         description = "forbidden, scope_not_grantable, budget_spent"),
        (status = 404, body = Problem, content_type = "application/problem+json",
         description = "unknown_agent, unknown_service"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "idempotency_conflict, task_completed"),
        (status = 503, body = Problem, content_type = "application/problem+json",
         description = "audit_unavailable, overloaded"),
        (status = 408, body = Problem, content_type = "application/problem+json", description = "request_timeout"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "request_too_large"),
        (status = 415, body = Problem, content_type = "application/problem+json",
            description = "unsupported_media_type"),
    )
)]
pub(super) async fn mint(control: &Control, caller: &Caller, key: Option<Key>, body: &Json) -> Result<Answer, Refusal> {
    let approved = approve(control, caller, ask::mint(body)?)?;
    let may_wait = key.is_some();
    let by_now = || if may_wait { again(control, &approved).map(Cow::Owned) } else { Ok(Cow::Borrowed(&approved)) };
    let order = Order { minter: &approved.minter, approve: &by_now };
    answer(control, caller, &order, key, || BodyHash::of(&body.canonical())).await
}

/// Makes what was ordered, once for each key, and answers with it.
pub(super) async fn answer(
    control: &Control,
    caller: &Caller,
    order: &Order<'_>,
    key: Option<Key>,
    body: impl FnOnce() -> BodyHash,
) -> Result<Answer, Refusal> {
    let (nonce, outcome, is_replayed) = match key {
        None => {
            let (id, nonce) = (control.parts.leases.next_id(), random_nonce()?);
            let approved = (order.approve)()?;
            let outcome = make(&making(control, &control.policy(), caller), &approved, id, &nonce).await?;
            (nonce, outcome, false)
        }
        Some(key) => {
            let body = body();
            make_once(control, caller, order, &key, body).await?
        }
    };
    let over = Refusal::Conflict(Conflict::Over);
    let lease = control.live(outcome.id).ok_or(over)?;
    let notes = MintNotes {
        ttl_capped_by: outcome.ttl_capped_by,
        rate_capped_by: outcome.rate_capped_by,
        proxy: control.parts.proxy_url.clone(),
        warning: caller.warning,
        stand_in: control.parts.leases.stand_in(&nonce),
    };
    let now = control.parts.clock.now();
    let minted = view::minted(&control.policy(), &lease, &nonce, notes, &now);
    created(&minted, is_replayed)
}

pub(super) fn created(minted: &Minted, is_replayed: bool) -> Result<Answer, Refusal> {
    let mut answer = answer::json(StatusCode::CREATED, minted);
    let location = HeaderValue::try_from(format!("/v1/nonces/{}", minted.id)).map_err(|_| Refusal::Internal)?;
    answer.headers_mut().insert(header::LOCATION, location);
    if is_replayed {
        answer.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(answer)
}

fn approve(control: &Control, caller: &Caller, asked: MintAsked) -> Result<Approved, Refusal> {
    caller.acting(Permission::Mint, &asked.agent)?;
    let plan = plan(&control.policy(), &asked)?;
    let minter = caller.minting(&asked.agent, plan.risk)?.name.clone();
    // Again when the lease is made; here so that there is no record of a mint that nobody gets.
    if control.parts.leases.is_completed(&minter, &asked.task) {
        return Err(Refusal::TaskCompleted);
    }
    Ok(Approved { asked, minter, plan, parent: None })
}

/// What the policy makes by now of a mint that it approved: another call with its key may have been waited for.
fn again(control: &Control, before: &Approved) -> Result<Approved, Refusal> {
    let policy = control.policy();
    caller::still_may(&policy, &before.minter, Permission::Mint, &before.asked.agent)?;
    let plan = plan(&policy, &before.asked)?;
    caller::still_reaches(&policy, &before.minter, plan.risk)?;
    Ok(Approved { plan, ..before.clone() })
}

fn plan(policy: &Policy, asked: &MintAsked) -> Result<MintPlan, Refusal> {
    if asked.is_canary {
        return Ok(policy.plan_canary(&asked.agent, asked.ttl)?);
    }
    let MintAsked { agent, grants, ttl, rate, .. } = asked.clone();
    Ok(policy.plan(&MintRequest { agent, grants, ttl, rate })?)
}

/// Makes the lease of this key, or finds it; of several at once one makes it and the others wait.
async fn make_once(
    control: &Control,
    caller: &Caller,
    order: &Order<'_>,
    key: &Key,
    body: BodyHash,
) -> Result<(Nonce, Outcome, bool), Refusal> {
    let keys = control.keys.as_ref().ok_or(Refusal::NoRandomness)?;
    let slot = keys.claim(order.minter, key, body, &control.parts.clock.now())?;
    let mut is_replayed = true;
    let outcome = slot
        .get_or_try_init(|| async {
            is_replayed = false;
            let (approved, id) = ((order.approve)()?, control.parts.leases.next_id());
            let nonce = keys.nonce(order.minter, key, id);
            make(&making(control, &control.policy(), caller), &approved, id, &nonce).await
        })
        .await?
        .clone();
    let nonce = keys.nonce(order.minter, key, outcome.id);
    Ok((nonce, outcome, is_replayed))
}

fn making<'a>(control: &'a Control, policy: &'a Policy, caller: &'a Caller) -> Making<'a> {
    let parts = &control.parts;
    let (leases, audit, metrics, clock) = (&parts.leases, &parts.audit, &*parts.metrics, &parts.clock);
    Making { policy, leases, audit, metrics, clock, asker: Asker::Caller(&caller.identity) }
}

/// Puts the mint on record, then makes the lease live.
pub(super) async fn make(
    making: &Making<'_>,
    approved: &Approved,
    id: NonceId,
    nonce: &Nonce,
) -> Result<Outcome, Refusal> {
    let Making { policy, leases, audit, metrics, .. } = making;
    let share = caller::nonces_max(policy, &approved.minter);
    // Again when the lease is made; here so that there is no record of a mint that nobody gets.
    let by_holder = matches!(making.asker, Asker::Agent(_));
    let holder = approved.parent.as_ref().filter(|_| by_holder).map(|parent| &*parent.lease);
    if !leases.has_room(&approved.minter, holder, share) {
        return Err(Refusal::TooManyNonces);
    }
    // From here on the record may be there: until the lease lives, dropping this tells that it does not.
    let mut unmade = Unmade::new(audit, id, approved);
    audit.record(event(making, approved, id)).await.map_err(|_| Refusal::AuditUnavailable)?;
    match &approved.parent {
        None => leases.mint(id, nonce, terms(approved, share)).map(drop).map_err(not_made)?,
        Some(parent) => {
            let delegating = Delegating { children_max: parent.children_max, by_holder };
            let made = leases.delegate(&parent.lease, delegating, id, nonce, terms(approved, share));
            // One that was made and is over has been told of.
            unmade.is_made = matches!(made, Err(DelegateError::Ended(_)));
            made.map(drop).map_err(not_delegated)?;
        }
    }
    unmade.is_made = true;
    metrics.minted();
    let MintPlan { ttl_capped_by, rate_capped_by, .. } = &approved.plan;
    Ok(Outcome { id, ttl_capped_by: ttl_capped_by.clone(), rate_capped_by: rate_capped_by.clone() })
}

fn not_made(error: MintError) -> Refusal {
    match error {
        MintError::Full => Refusal::Overloaded,
        MintError::MinterFull => Refusal::TooManyNonces,
        MintError::Completed => Refusal::TaskCompleted,
        // Only without randomness is an id drawn twice.
        MintError::Taken => Refusal::NoRandomness,
        MintError::TaskSpent => Refusal::BudgetSpent,
    }
}

fn not_delegated(error: DelegateError) -> Refusal {
    match error {
        DelegateError::ParentOver(cause) | DelegateError::Ended(cause) => Refusal::NotDelegable(cause),
        DelegateError::TooManyChildren => {
            let detail = "the nonce has as many live children as the policy lets it have";
            Refusal::ExceedsParent(vec![Mistake::at("", detail)])
        }
        DelegateError::Mint(error) => not_made(error),
    }
}

pub(super) fn random_nonce() -> Result<Nonce, Refusal> {
    let mut entropy = Zeroizing::new([0; NONCE_ENTROPY_BYTES]);
    getrandom::fill(entropy.as_mut_slice()).map_err(|_| Refusal::NoRandomness)?;
    Ok(Nonce::from_entropy(&entropy))
}

fn terms(approved: &Approved, minter_live_max: usize) -> NewLease {
    let Approved { asked, minter, plan, parent } = approved;
    NewLease {
        agent: asked.agent.clone(),
        identities: plan.identities.clone(),
        task: asked.task.clone(),
        minter: minter.clone(),
        grants: plan.grants.clone(),
        ttl: plan.ttl,
        lifetime: plan.lifetime,
        max_uses: asked.max_uses,
        rate: plan.rate,
        minter_live_max,
        budget: plan.budget,
        instance: asked.instance.clone(),
        on_behalf_of: asked.on_behalf_of.clone(),
        reason: asked.reason.clone(),
        labels: asked.labels.clone(),
        lines: parent.as_ref().map(|parent| parent.lines.clone()).unwrap_or_default(),
    }
}

fn event(making: &Making<'_>, approved: &Approved, id: NonceId) -> Event {
    let Approved { asked, minter, plan, parent } = approved;
    let (minter, minted_by) = match making.asker {
        Asker::Caller(identity) => (Some(minter.clone()), Some(identity.clone())),
        Asker::Agent(identity) => (None, identity.cloned()),
    };
    let facts = DecisionFacts {
        nonce_id: Some(id),
        agent: Some(asked.agent.clone()),
        task: Some(asked.task.clone()),
        lineage: approved.lineage().map(Arc::new),
        minter,
        on_behalf_of: asked.on_behalf_of.clone(),
        risk: Some(plan.risk),
        policy_digest: Some(making.policy.digest().clone()),
        ..DecisionFacts::default()
    };
    let scopes = |grant: &crate::model::LeaseGrant| {
        let service = grant.service.clone();
        grant.scopes.iter().map(move |(scope, _)| format!("{service}:{scope}")).collect::<Vec<_>>()
    };
    Event::Mint {
        facts: Box::new(facts),
        minted_by,
        grants: plan.grants.iter().flat_map(scopes).collect(),
        expires_at: making.clock.now().plus(plan.ttl).wall,
        max_uses: asked.max_uses,
        rate: plan.rate,
        instance: asked.instance.clone(),
        reason: asked.reason.clone(),
        labels: asked.labels.clone(),
        lines: parent.as_ref().map(|parent| parent.lines.clone()).unwrap_or_default(),
    }
}

/// Notes the end of a mint that is on record without a lease: no place was left, or the caller hung up.
struct Unmade<'a> {
    audit: &'a Audit,
    id: NonceId,
    agent: AgentName,
    task: TaskName,
    lineage: Option<Lineage>,
    is_made: bool,
}

impl<'a> Unmade<'a> {
    fn new(audit: &'a Audit, id: NonceId, approved: &Approved) -> Self {
        let (agent, task) = (approved.asked.agent.clone(), approved.asked.task.clone());
        Self { audit, id, agent, task, lineage: approved.lineage(), is_made: false }
    }
}

impl Drop for Unmade<'_> {
    fn drop(&mut self) {
        if !self.is_made {
            self.audit.note(Event::LeaseEnded {
                nonce_id: self.id,
                agent: self.agent.clone(),
                task: self.task.clone(),
                lineage: self.lineage.take().map(Arc::new),
                cause: CAUSE_NOT_MADE,
                by: None,
            });
        }
    }
}
