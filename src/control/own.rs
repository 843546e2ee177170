//! The agent's own door: what the holder of a nonce may ask of it and do to it. Nothing else is there.
//!
//! Who holds which nonce the proxy has settled, and has put it on record, before a call comes here. There is no caller of
//! the control API in it and no permission of the holder's: a lease is read, renewed or revoked by itself, and what is
//! delegated from it stays within what its minter may have made.

use std::sync::Arc;

use http::{Method, StatusCode};
use hyper::body::Body;

use super::answer;
use super::ask;
use super::caller;
use super::delegate;
use super::events::AnswerBody;
use super::front::{IDEMPOTENCY_KEY, no_body, read_json};
use super::idempotency::Outcome;
use super::mint::{self, Asker, Making};
use super::refusal::{Forbidden, Refusal};
use super::renew::Renewing;
use super::serve::Answer;
use super::types::Mistake;
use super::view::{self, MintNotes};
use crate::audit::{Audit, Event, ITSELF};
use crate::clock::SharedClock;
use crate::door::{Answered, Answering, Call, Holder, OWN_PATH, SelfService};
use crate::json::Json;
use crate::lease::{EndCause, Lease, Minter};
use crate::metrics::Metrics;
use crate::model::{LeaseGrant, Risk, ScopeName, ServiceName};
use crate::policy::{Current, Permission, Policy};

/// What stands behind the door.
pub(super) struct OwnDoor {
    pub(super) policy: Current,
    pub(super) leases: Minter,
    pub(super) audit: Audit,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: SharedClock,
    /// What an agent sets as `HTTPS_PROXY`.
    pub(super) proxy_url: String,
}

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OwnCall {
    Read,
    Revoke,
    Renew,
    Delegate,
}

impl OwnCall {
    /// Finds the call; a path is exact.
    fn route(method: &Method, path: &str) -> Result<Self, Refusal> {
        let post = |call| if *method == Method::POST { Ok(call) } else { Err(Refusal::MethodNotAllowed("POST")) };
        match path.strip_prefix(OWN_PATH) {
            Some("") => match *method {
                Method::GET | Method::HEAD => Ok(Self::Read),
                Method::DELETE => Ok(Self::Revoke),
                _ => Err(Refusal::MethodNotAllowed("GET, HEAD, DELETE")),
            },
            Some("/renew") => post(Self::Renew),
            Some("/delegate") => post(Self::Delegate),
            Some(_) | None => Err(Refusal::NotFound),
        }
    }
}

impl SelfService for OwnDoor {
    fn answer(&self, holder: Holder, call: Call) -> Answering<'_> {
        Box::pin(async move {
            let (answer, refused) = match self.dispatch(&holder, call).await {
                Ok(answer) => (answer, None),
                Err(refusal) => (refusal.answer(), Some(refusal.code().0)),
            };
            Answered { response: answer.map(AnswerBody::whole), refused }
        })
    }
}

impl OwnDoor {
    async fn dispatch(&self, holder: &Holder, call: Call) -> Result<Answer, Refusal> {
        let (head, body) = call.into_parts();
        let call = OwnCall::route(&head.method, head.uri.path())?;
        if head.uri.query().is_some() {
            return Err(Refusal::InvalidRequest(vec![Mistake::in_parameter("", "this call takes no query")]));
        }
        match call {
            OwnCall::Read => no_body(&body).map(|_| self.read(&holder.lease)),
            OwnCall::Revoke => no_body(&body).map(|_| self.revoke(holder)),
            OwnCall::Renew if body.is_end_stream() => self.renew(holder, &Json::Null).await,
            OwnCall::Renew => self.renew(holder, &read_json(&head.headers, body).await?).await,
            OwnCall::Delegate if head.headers.contains_key(IDEMPOTENCY_KEY) => {
                let detail = "is not taken here: what was delegated is revoked with the nonce it was delegated with";
                Err(Refusal::InvalidRequest(vec![Mistake::in_header("Idempotency-Key", detail)]))
            }
            OwnCall::Delegate => self.delegate(holder, &read_json(&head.headers, body).await?).await,
        }
    }

    fn read(&self, lease: &Lease) -> Answer {
        answer::json(StatusCode::OK, &view::lease_view(&self.policy.get(), lease, &self.clock.now()))
    }

    fn revoke(&self, holder: &Holder) -> Answer {
        let by = match &holder.identity {
            Some(identity) => format!("{ITSELF} ({identity})"),
            None => ITSELF.to_owned(),
        };
        // False: it ended in this moment, and what was under way is cut, which is what was wanted.
        let _was_live = self.leases.revoke(holder.lease.id(), EndCause::Revoked, &by);
        answer::empty()
    }

    async fn renew(&self, holder: &Holder, body: &Json) -> Result<Answer, Refusal> {
        let policy = self.policy.get();
        if !may_renew(&policy, &holder.lease) {
            return Err(Refusal::Forbidden(Forbidden::SelfRenew));
        }
        let asked = ask::renewal(body)?;
        let terms = holder.lease.terms();
        caller::still_reaches(&policy, terms.minter, policy.risk_of(terms.grants))?;
        let event = |expires_at| Event::Renewed {
            nonce_id: holder.lease.id(),
            agent: terms.agent.clone(),
            task: terms.task.clone(),
            minter: None,
            renewed_by: holder.identity.clone(),
            expires_at,
        };
        let Self { leases, audit, metrics, clock, .. } = self;
        Renewing { policy: &policy, leases, audit, metrics, clock }.renew(&holder.lease, asked, event).await
    }

    /// Within the same bounds as a delegation by the minter of the nonce, whose the new one is, too; on record it is the
    /// agent's doing.
    async fn delegate(&self, holder: &Holder, body: &Json) -> Result<Answer, Refusal> {
        let asked = ask::delegation(body)?;
        let (policy, terms) = (self.policy.get(), holder.lease.terms());
        // The audit says it as the minter's word: an agent repeats that, and makes up none.
        if asked.on_behalf_of.is_some() && terms.on_behalf_of.is_none() {
            let detail = "the nonce is on nobody's behalf, and its holder cannot say on whose";
            return Err(Refusal::ExceedsParent(vec![Mistake::at("/on_behalf_of", detail)]));
        }
        for agent in [terms.agent, &asked.agent] {
            caller::still_may(&policy, terms.minter, Permission::Mint, agent)?;
        }
        let approved = delegate::approve(&policy, &self.clock.now(), terms.minter, &holder.lease, &asked)?;
        caller::still_reaches(&policy, terms.minter, approved.plan.risk)?;
        let (id, nonce) = (self.leases.next_id(), mint::random_nonce()?);
        let Self { leases, audit, metrics, clock, .. } = self;
        let making =
            Making { policy: &policy, leases, audit, metrics, clock, asker: Asker::Agent(holder.identity.as_ref()) };
        let outcome = mint::make(&making, &approved, id, &nonce).await?;
        let lease = leases.get(id).ok_or(Refusal::NotDelegable(EndCause::Revoked))?;
        let Outcome { ttl_capped_by, rate_capped_by, .. } = outcome;
        let (proxy, stand_in) = (self.proxy_url.clone(), leases.stand_in(&nonce));
        let notes = MintNotes { ttl_capped_by, rate_capped_by, proxy, warning: None, stand_in };
        mint::created(&view::minted(&policy, &lease, &nonce, notes, &clock.now()), false)
    }
}

/// Where the policy says so for the agent; and never where a scope that the nonce holds is of high risk by now, or gone.
fn may_renew(policy: &Policy, lease: &Lease) -> bool {
    let terms = lease.terms();
    let is_harmless = |service: &ServiceName, scope: &ScopeName| {
        let scope = policy.service(service).and_then(|service| service.scope(scope));
        scope.is_some_and(|scope| scope.risk < Risk::High)
    };
    let harmless = |grant: &LeaseGrant| grant.scopes.iter().all(|(scope, _)| is_harmless(&grant.service, scope));
    policy.may_self_renew(terms.agent) && terms.grants.iter().all(harmless)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(method: &str, path: &str) -> Result<OwnCall, Refusal> {
        OwnCall::route(&Method::from_bytes(method.as_bytes()).unwrap(), path)
    }

    #[test]
    fn four_calls_are_there_and_nothing_else() {
        assert_eq!(route("GET", "/v1/self"), Ok(OwnCall::Read));
        assert_eq!(route("HEAD", "/v1/self"), Ok(OwnCall::Read));
        assert_eq!(route("DELETE", "/v1/self"), Ok(OwnCall::Revoke));
        assert_eq!(route("POST", "/v1/self/renew"), Ok(OwnCall::Renew));
        assert_eq!(route("POST", "/v1/self/delegate"), Ok(OwnCall::Delegate));
        let elsewhere =
            ["/", "/v1", "/v1/self/", "/v1/selfrenew", "/v1/self/renew/", "/V1/self", "/v1/s%65lf", "/v1/nonces"];
        for path in elsewhere {
            assert_eq!(route("GET", path), Err(Refusal::NotFound), "{path}");
            assert_eq!(route("POST", path), Err(Refusal::NotFound), "{path}");
        }
        for method in ["POST", "PUT", "PATCH", "OPTIONS", "get"] {
            assert_eq!(route(method, "/v1/self"), Err(Refusal::MethodNotAllowed("GET, HEAD, DELETE")), "{method}");
        }
        for method in ["GET", "HEAD", "DELETE", "PUT"] {
            assert_eq!(route(method, "/v1/self/renew"), Err(Refusal::MethodNotAllowed("POST")), "{method}");
            assert_eq!(route(method, "/v1/self/delegate"), Err(Refusal::MethodNotAllowed("POST")), "{method}");
        }
    }
}
