//! The calls that read and end leases, and those that describe what there is.

use http::StatusCode;

use super::Addresses;
use super::answer;
use super::ask;
use super::caller::Caller;
use super::front::Control;
use super::openapi;
use super::query::ListAsked;
use super::refusal::{Forbidden, Refusal};
use super::serve::Answer;
use super::types::{
    Introspection, IntrospectionAsked, LeasePage, LeaseView, Problem, Ready, RevocationGiven, ServiceList, WhoAmI,
};
use super::view;
use crate::json::Json;
use crate::lease::{EndCause, Found, Lease, Revoked};
use crate::model::NonceId;
use crate::policy::Permission;

/// Lists live leases of one's own agents, in the order of their ids; never the nonces.
#[utoipa::path(
    get, path = "/v1/nonces", tag = "nonces", operation_id = "list",
    params(
        ("agent" = Option<String>, Query, description = "Of this agent only"),
        ("task" = Option<String>, Query, description = "For this task only"),
        ("service" = Option<String>, Query, description = "With a grant of this service only"),
        ("after" = Option<String>, Query, description = "After this id: `next_after` of the page before"),
        ("limit" = Option<u16>, Query, minimum = 1, maximum = 500, description = "On one page; 100 if absent"),
    ),
    responses(
        (status = 200, body = LeasePage, description = "One page"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "invalid_request"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "unauthenticated"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "rate_limited"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "forbidden"),
    )
)]
pub(super) fn list(control: &Control, caller: &Caller, asked: &ListAsked) -> Result<Answer, Refusal> {
    match &asked.agent {
        Some(agent) => caller.acting(Permission::Read, agent).map(|_| ())?,
        None => caller.require(Permission::Read)?,
    }
    let now = control.parts.clock.now();
    let keep = |lease: &Lease| {
        let terms = lease.terms();
        caller.has(Permission::Read, terms.agent) && asked.wants(&terms) && !control.is_over(lease)
    };
    // One more than asked for tells whether there is another page.
    let mut leases = control.parts.leases.list(asked.after, asked.limit + 1, &keep);
    let has_more = leases.len() > asked.limit;
    leases.truncate(asked.limit);
    let next_after = leases.last().filter(|_| has_more).map(|lease| lease.id().to_string());
    let policy = control.policy();
    let nonces = leases.iter().map(|lease| view::lease_view(&policy, lease, &now)).collect();
    Ok(answer::json(StatusCode::OK, &LeasePage { nonces, next_after }))
}

/// Reads one live lease of one's own agents.
#[utoipa::path(
    get, path = "/v1/nonces/{id}", tag = "nonces", operation_id = "read",
    params(("id" = String, Path, description = "The accessor, `nc_…`")),
    responses(
        (status = 200, body = LeaseView, description = "The lease"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "unauthenticated"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "rate_limited"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "forbidden"),
        (status = 404, body = Problem, content_type = "application/problem+json",
         description = "not_found: unknown, over, or not of one's own agents"),
    )
)]
pub(super) fn read(control: &Control, caller: &Caller, id: &str) -> Result<Answer, Refusal> {
    caller.require(Permission::Read)?;
    let lease = NonceId::parse(id)
        .and_then(|id| control.live(id))
        .filter(|lease| caller.has(Permission::Read, lease.terms().agent))
        .ok_or(Refusal::NotFound)?;
    let now = control.parts.clock.now();
    Ok(answer::json(StatusCode::OK, &view::lease_view(&control.policy(), &lease, &now)))
}

/// Revokes a nonce: when this has answered, no request is accepted with it, and streams under it are cut.
///
/// What was delegated from it ends with it. A nonce that is over or was never there is no error, so that a retry is safe.
#[utoipa::path(
    delete, path = "/v1/nonces/{id}", tag = "nonces", operation_id = "revoke",
    params(("id" = String, Path, description = "The accessor, `nc_…`")),
    responses(
        (status = 200, body = RevocationGiven, description = "It is over now, and so is what was delegated from it"),
        (status = 204, description = "It is over now, whatever it was"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "unauthenticated"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "rate_limited"),
        (status = 403, body = Problem, content_type = "application/problem+json",
         description = "forbidden: alive, or spent with something still under way, and not of one's own agents; it goes on"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "not_found: not an id"),
    )
)]
pub(super) fn revoke(control: &Control, caller: &Caller, id: &str) -> Result<Answer, Refusal> {
    caller.require(Permission::Revoke)?;
    let id = NonceId::parse(id).ok_or(Refusal::NotFound)?;
    let leases = &control.parts.leases;
    if let Some(lease) = leases.get(id).or_else(|| leases.lingering(id)) {
        let minter = caller.acting(Permission::Revoke, lease.terms().agent)?;
        let by = format!("{} ({})", minter.name, caller.identity);
        // Where it was over before, what was under way is cut, which is what was wanted.
        let Revoked { descendants, .. } = leases.revoke_counted(id, EndCause::Revoked, &by);
        if descendants > 0 {
            return Ok(answer::json(StatusCode::OK, &RevocationGiven { descendants }));
        }
    }
    Ok(answer::empty())
}

/// Tells whether a plain nonce is alive (RFC 7662); everything else, also of other minters' agents, is `active: false`.
#[utoipa::path(
    post, path = "/v1/introspect", tag = "nonces", operation_id = "introspect",
    request_body(content = IntrospectionAsked, content_type = "application/json"),
    responses(
        (status = 200, body = Introspection, description = "What it is"),
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
pub(super) fn introspect(control: &Control, caller: &Caller, body: &Json) -> Result<Answer, Refusal> {
    caller.require(Permission::Read)?;
    let found = control.parts.leases.find(&ask::introspection(body)?);
    let introspection = match found {
        Found::Live(lease) | Found::Canary(lease)
            if caller.has(Permission::Read, lease.terms().agent) && !control.is_over(&lease) =>
        {
            introspection(&lease)
        }
        Found::Live(_) | Found::Canary(_) | Found::Dead(_) | Found::Unknown => Introspection::default(),
    };
    Ok(answer::json(StatusCode::OK, &introspection))
}

fn introspection(lease: &Lease) -> Introspection {
    let terms = lease.terms();
    let scopes: Vec<_> = terms
        .grants
        .iter()
        .flat_map(|grant| grant.scopes.iter().map(|(scope, _)| format!("{}:{scope}", grant.service)))
        .collect();
    Introspection {
        active: true,
        scope: Some(scopes.join(" ")),
        sub: Some(terms.agent.to_string()),
        client_id: Some(terms.minter.to_string()),
        exp: Some(lease.deadline().wall.as_second()),
        iat: Some(lease.issued_at().as_second()),
        jti: Some(lease.id().to_string()),
        task: Some(terms.task.to_string()),
    }
}

/// What may be minted for one's own agents.
#[utoipa::path(
    get, path = "/v1/services", tag = "operations", operation_id = "services",
    responses(
        (status = 200, body = ServiceList, description = "Services and scopes"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "unauthenticated"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "rate_limited"),
    )
)]
pub(super) fn services(control: &Control, caller: &Caller) -> Answer {
    let health = (control.parts.credentials)();
    let policy = &control.policy();
    let services =
        policy.services().iter().filter_map(|service| view::service_view(policy, caller, service, &health)).collect();
    answer::json(StatusCode::OK, &ServiceList { services })
}

/// Who one is, and what one may.
#[utoipa::path(
    get, path = "/v1/whoami", tag = "operations", operation_id = "whoami",
    responses(
        (status = 200, body = WhoAmI, description = "The caller"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "unauthenticated"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "rate_limited"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "forbidden: an agent"),
    )
)]
pub(super) fn whoami(control: &Control, caller: &Caller) -> Answer {
    let whoami = WhoAmI {
        identity: caller.identity.to_string(),
        minters: caller.minters.iter().map(view::minter_view).collect(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        policy_digest: control.policy().digest().to_string(),
        proxy: control.parts.proxy_url.clone(),
        warning: caller.warning.map(str::to_owned),
    };
    answer::json(StatusCode::OK, &whoami)
}

/// Where the sidecar serves; it answers once everything does.
#[utoipa::path(
    get, path = "/v1/ready", tag = "operations", operation_id = "ready",
    responses(
        (status = 200, body = Ready, description = "The addresses"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "unauthenticated"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "rate_limited"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "forbidden: an agent"),
    )
)]
pub(super) fn ready(control: &Control) -> Answer {
    let Addresses { proxy, admin } = control.parts.addresses;
    answer::json(StatusCode::OK, &Ready { proxy, admin })
}

/// The certificate of the local CA, which clients of the proxy must trust.
#[utoipa::path(
    get, path = "/ca.pem", tag = "operations", operation_id = "ca",
    responses((status = 200, body = String, content_type = "application/x-pem-file", description = "PEM"))
)]
pub(super) fn ca_pem(control: &Control) -> Answer {
    answer::typed(StatusCode::OK, "application/x-pem-file", control.parts.ca_pem.clone())
}

/// This document.
#[utoipa::path(
    get, path = "/openapi.json", tag = "operations", operation_id = "openapi",
    responses((status = 200, body = Object, content_type = "application/json", description = "OpenAPI 3.1"))
)]
pub(super) fn openapi_json() -> Answer {
    answer::typed(StatusCode::OK, "application/json", openapi::DOCUMENT)
}

/// Why a caller who is known is refused, for the audit.
pub(super) fn is_about_the_caller(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::Unauthenticated
            | Refusal::Unproven(_)
            | Refusal::Forbidden(Forbidden::Agent | Forbidden::Browser | Forbidden::Host)
    )
}
