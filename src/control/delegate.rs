//! Delegating: the nonce above, policy, then the audit, then the lease, then the answer.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::ask::{self, DelegationAsked, MintAsked};
use super::caller::{self, Caller};
use super::front::Control;
use super::idempotency::{BodyHash, Key};
use super::mint::{self, Approved, Order, Parent};
use super::refusal::Refusal;
use super::serve::Answer;
use super::types::{self, LABELS_MAX, Minted, Mistake, Problem};
use crate::json::Json;
use crate::lease::Lease;
use crate::model::{MinterName, NonceId, Now};
use crate::policy::{DelegationPlan, DelegationRefusal, DelegationRequest, Delegator, Excess, Permission, Policy};

/// Delegates a nonce: makes another one, for another agent, that can do at most what this one can.
///
/// It has at most this one's grants, time, uses and whatever was said of it, and at most what the policy grants to its own
/// agent. Each use of it is one of this nonce, too, and of all above; it ends when one of those ends. Only the minter that
/// minted this nonce may delegate it, to agents of its own.
#[utoipa::path(
    post, path = "/v1/nonces/{id}/delegate", tag = "nonces", operation_id = "delegate",
    params(
        ("id" = String, Path, description = "The accessor, `nc_…`"),
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255,
         description = "Printable ASCII; scoped to the minter"),
    ),
    request_body(content = types::DelegationAsked, content_type = "application/json"),
    responses(
        (status = 201, body = Minted, description = "Made", headers(("Location" = String, description = "The lease"))),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "invalid_request"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "unauthenticated"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "mint_rate_limited"),
        (status = 403, body = Problem, content_type = "application/problem+json",
         description = "forbidden, delegation_exceeds_parent, scope_not_grantable, budget_spent"),
        (status = 404, body = Problem, content_type = "application/problem+json",
         description = "not_found, unknown_agent, unknown_service"),
        (status = 409, body = Problem, content_type = "application/problem+json",
         description = "not_delegable: it is over; idempotency_conflict"),
        (status = 503, body = Problem, content_type = "application/problem+json",
         description = "audit_unavailable, overloaded"),
        (status = 408, body = Problem, content_type = "application/problem+json", description = "request_timeout"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "request_too_large"),
        (status = 415, body = Problem, content_type = "application/problem+json",
            description = "unsupported_media_type"),
    )
)]
pub(super) async fn delegate(
    control: &Control,
    caller: &Caller,
    id: &str,
    key: Option<Key>,
    body: &Json,
) -> Result<Answer, Refusal> {
    caller.require(Permission::Mint)?;
    let asked = ask::delegation(body)?;
    let id = NonceId::parse(id).ok_or(Refusal::NotFound)?;
    let parent = control.live(id).ok_or_else(|| over(control, caller, id))?;
    let terms = parent.terms();
    let minter = caller.acting_as(terms.minter, Permission::Mint, terms.agent)?;
    caller.acting_as(terms.minter, Permission::Mint, &asked.agent)?;
    // By now: another call with its key may have been waited for.
    let approve = || {
        let policy = control.policy();
        for agent in [terms.agent, &asked.agent] {
            caller::still_may(&policy, &minter.name, Permission::Mint, agent)?;
        }
        let approved = approve(&policy, &control.parts.clock.now(), &minter.name, &parent, &asked)?;
        caller::still_reaches(&policy, &minter.name, approved.plan.risk)?;
        Ok(Cow::Owned(approved))
    };
    let minter = &minter.name;
    let body = || BodyHash::of(&format!("delegate {id} {}", body.canonical()));
    mint::answer(control, caller, &Order { minter, approve: &approve }, key, body).await
}

/// The dead are told of to those who could have delegated them; to others they never were.
fn over(control: &Control, caller: &Caller, id: NonceId) -> Refusal {
    let dead = control.parts.leases.dead(id);
    let own = dead.filter(|dead| caller.acting_as(&dead.minter, Permission::Mint, &dead.agent).is_ok());
    own.map_or(Refusal::NotFound, |dead| Refusal::NotDelegable(dead.cause))
}

/// What the policy makes of a delegation that its minter may have.
pub(super) fn approve(
    policy: &Policy,
    now: &Now,
    minter: &MinterName,
    parent: &Arc<Lease>,
    asked: &DelegationAsked,
) -> Result<Approved, Refusal> {
    let plan = plan(policy, now, parent, asked)?;
    let asked = MintAsked {
        agent: asked.agent.clone(),
        task: parent.terms().task.clone(),
        grants: asked.grants.clone().unwrap_or_default(),
        ttl: asked.ttl,
        max_uses: plan.max_uses,
        rate: plan.mint.rate,
        instance: asked.instance.clone(),
        on_behalf_of: plan.on_behalf_of,
        reason: asked.reason.clone(),
        labels: plan.labels,
        is_canary: false,
    };
    let parent = Parent { lease: parent.clone(), children_max: plan.children_max, lines: plan.lines };
    Ok(Approved { asked, minter: minter.clone(), plan: plan.mint, parent: Some(parent) })
}

fn plan(policy: &Policy, now: &Now, parent: &Lease, asked: &DelegationAsked) -> Result<DelegationPlan, Refusal> {
    let terms = parent.terms();
    let labels: BTreeMap<_, _> = terms.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let delegator = Delegator {
        chain: &parent.chain(),
        grants: &parent.grants_left(),
        ttl: parent.deadline().remaining(now),
        lifetime: parent.life_left(now),
        uses_left: parent.uses_left(),
        rate: terms.rate,
        on_behalf_of: terms.on_behalf_of,
        labels: &labels,
        lines: &terms.lines.iter().map(str::to_owned).collect::<Vec<_>>(),
    };
    let request = DelegationRequest {
        agent: asked.agent.clone(),
        grants: asked.grants.clone(),
        ttl: asked.ttl,
        max_uses: asked.max_uses,
        rate: asked.rate,
        on_behalf_of: asked.on_behalf_of.clone(),
        labels: asked.labels.clone(),
        lines: asked.lines.clone(),
    };
    let plan = policy.plan_delegation(&delegator, &request).map_err(|refusal| refused(refusal, asked))?;
    if plan.labels.len() > LABELS_MAX {
        let detail = format!("there may be {LABELS_MAX}, together with those of the nonce above");
        return Err(Refusal::ExceedsParent(vec![Mistake::at("/labels", detail)]));
    }
    Ok(plan)
}

fn refused(refusal: DelegationRefusal, asked: &DelegationAsked) -> Refusal {
    match refusal {
        DelegationRefusal::Mint(refusal) => refusal.into(),
        DelegationRefusal::Exceeds(excesses) => {
            Refusal::ExceedsParent(excesses.iter().map(|excess| mistake(excess, asked)).collect())
        }
    }
}

/// Where in the body something exceeds, and what: names of the policy and sentences of ours.
fn mistake(excess: &Excess, asked: &DelegationAsked) -> Mistake {
    let at = asked.spelling;
    match excess {
        Excess::Never(agent) => Mistake::at("", format!("the policy does not let nonces of {agent} be delegated")),
        Excess::To(agent) => {
            Mistake::at("/agent", format!("the policy does not let nonces of {agent} be delegated to this agent"))
        }
        Excess::Depth(agent) => {
            Mistake::at("", format!("the policy lets no more delegations lie below a nonce of {agent}"))
        }
        Excess::Nothing => Mistake::at("", "the policy grants this agent nothing of what the nonce has"),
        Excess::Service(grant) => Mistake::at(at.service(*grant), "the nonce does not have this service"),
        Excess::Scope(grant, scope) => Mistake::at(at.scope(*grant, *scope), "the nonce does not have this scope"),
        Excess::ScopeSpent(grant, scope) => {
            Mistake::at(at.scope(*grant, *scope), "the nonce has no use of this scope left")
        }
        Excess::MaxUses(left) => Mistake::at("/max_uses", format!("the nonce has {left} uses left")),
        Excess::Rate(above) => {
            Mistake::at("/rate", format!("the nonce may be used {above} at most, at once and after one another"))
        }
        Excess::OnBehalfOf => Mistake::at("/on_behalf_of", "the nonce is on somebody else's behalf"),
        Excess::Line(line) => Mistake::at(
            format!("/rules/{line}"),
            "the nonce above, or the scopes that it is given, do not allow all of this",
        ),
        Excess::Label(name) => Mistake::at(ask::label_pointer(name), "the nonce has this label with another value"),
    }
}
