//! The agent's own door: a call to our own host, answered here. Nothing of it is resolved, dialled or sent on.
//!
//! It is judged as every request is (one host, one nonce in its one place, nothing foreign beside it), the nonce has to be
//! alive and in the right hands, and that is on record before anything is done. What is done, the control plane does,
//! through [`SelfService`].

mod paced;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::uri::PathAndQuery;
use http::{Method, Request, Response};
use http_body::Body as _;
use http_body_util::BodyExt as _;

use super::Proxy;
use super::connect::{Form, Session};
use super::deliver::Scene;
use super::extract::{OwnCall, extract_own};
use super::flow::{Body, Inbound};
use super::grant::alarms;
use super::grant::{dead, describe, is_fresh_for_all, is_same_task, present};
use super::refused::Refused;
use super::rules::Rules;
use crate::audit::{Decided, DecisionFacts, Ending, Exchange};
use crate::door::{self, Answered, BrokeOff, Holder, SelfService};
use crate::lease::{Found, Lease};
use crate::model::{Denial, NonceHash};
use paced::Paced;

/// What stands behind the door.
pub(super) struct Door {
    service: Arc<dyn SelfService>,
    paced: Paced,
}

impl Door {
    pub(super) fn new(service: Arc<dyn SelfService>) -> Self {
        Self { service, paced: Paced::default() }
    }
}

/// A holder that was let in, for the record.
struct Admitted {
    holder: Holder,
    facts: Arc<DecisionFacts>,
}

impl Decided for Admitted {
    fn facts(&self) -> Arc<DecisionFacts> {
        self.facts.clone()
    }
}

impl Proxy {
    /// One call at the door and its answer.
    pub(super) async fn at_the_door(
        &self,
        session: &Session,
        scene: &Scene,
        request: Request<Inbound>,
        mut exchange: Exchange,
    ) -> Response<Body> {
        let is_head = request.method() == Method::HEAD;
        match self.call(session, request, &mut exchange).await {
            Ok(answered) => self.hand_out(is_head, exchange, answered),
            Err(refused) => self.refuse(scene, exchange, refused).await,
        }
    }

    async fn call(
        &self,
        session: &Session,
        request: Request<Inbound>,
        exchange: &mut Exchange,
    ) -> Result<Answered, Refused> {
        check_place(session)?;
        let rules = self.rules();
        let call = extract_own(session, &self.limits, request)?; // the nonce leaves the call here
        let (call, admitted) = self.admit(&rules, session, call)?;
        let unrecorded = admitted.facts.clone();
        let recorded = exchange.record(admitted).await;
        let recorded =
            recorded.map_err(|unavailable| Refused::new(unavailable.into(), DecisionFacts::clone(&unrecorded)))?;
        let Admitted { holder, facts } = recorded.into_inner();
        // It may have ended while its record was written.
        if holder.lease.ended().is_some() {
            return Err(Refused::new(dead(&holder.lease), DecisionFacts::clone(&facts)));
        }
        Ok(self.door.service.answer(holder, call).await)
    }

    /// The nonce is alive, presented by whom it is bound to, and not too often. No use is spent.
    fn admit(&self, rules: &Rules, session: &Session, call: OwnCall) -> Result<(door::Call, Admitted), Refused> {
        let policy = &rules.policy;
        let mut facts = DecisionFacts { policy_digest: Some(policy.digest().clone()), ..DecisionFacts::default() };
        facts.presented_by = session.presenter().known(&self.leases).cloned();
        let OwnCall { head, body, nonce, strays } = call;
        if let Some(stray) = strays.first() {
            match self.leases.find(&stray.hash) {
                Found::Live(lease) => describe(&lease, &mut facts),
                Found::Dead(tombstone) => facts.nonce_id = Some(tombstone.id),
                Found::Canary(lease) => facts.alarm = Some(alarms::canary(&lease, stray.place.as_str())),
                Found::Unknown => {}
            }
            return Err(Refused::new(Denial::NonceMisplaced(stray.place), facts));
        }
        let lease = match self.presented(rules, session, nonce, &mut facts) {
            Ok(lease) => lease,
            Err(denial) => return Err(Refused::new(denial, facts)),
        };
        // What makes more of it is for whom was proven lately, as its scopes ask.
        if head.method == Method::POST && !is_fresh_for_all(policy, session.presenter(), &lease, &self.leases) {
            return Err(Refused::new(Denial::IdentityStale, facts));
        }
        // Who wants to end it is never told to wait; the call is one that does end it, so that it comes once.
        let target = head.uri.path_and_query().map_or("", PathAndQuery::as_str);
        let is_revoke = head.method == Method::DELETE && target == door::OWN_PATH && body.is_end_stream();
        if !is_revoke && let Err(retry_after) = self.door.paced.admit(lease.terms().agent, lease.id(), Instant::now()) {
            return Err(Refused::new(Denial::RateLimited { retry_after }, facts));
        }
        let call = Request::from_parts(head, body.map_err(|_| BrokeOff).boxed_unsync());
        let holder = Holder { lease, identity: facts.presented_by.clone() };
        Ok((call, Admitted { holder, facts: Arc::new(facts) }))
    }

    /// The lease of the nonce; one that came as the proxy's credentials has to be alive and of the same task.
    fn presented(
        &self,
        rules: &Rules,
        session: &Session,
        nonce: Result<NonceHash, Denial>,
        facts: &mut DecisionFacts,
    ) -> Result<Arc<Lease>, Denial> {
        let find = |hash: &NonceHash, facts: &mut DecisionFacts| {
            present(&self.leases, &rules.policy, session.presenter(), hash, facts)
        };
        let known = facts.clone();
        facts.presented_in = session.voucher.map(|_| "proxy");
        let vouching = session.voucher.map(|hash| find(&hash, facts)).transpose()?;
        let nonce = nonce?;
        *facts = known;
        let lease = find(&nonce, facts)?;
        match vouching {
            Some(vouching) if !is_same_task(&vouching, &lease) => Err(Denial::AgentMismatch),
            Some(_) | None => Ok(lease),
        }
    }

    /// The answer, which is whole, goes out; the exchange is over with it.
    fn hand_out(&self, is_head: bool, mut exchange: Exchange, answered: Answered) -> Response<Body> {
        let Answered { response, refused } = answered;
        self.metrics.exchange(None, refused.unwrap_or("ok"));
        exchange.answered(response.status().as_u16());
        if let Some(code) = refused {
            exchange.declined(code);
        }
        exchange.end(Ending::Complete);
        // As in a refusal: only on HTTP/1.1 hyper leaves it out by itself.
        response.map(|body| if is_head { Body::empty() } else { Body::refusal(body) })
    }
}

/// The host itself, on the scheme's own port; and in clear text over loopback alone, since a nonce travels in it. What comes
/// in a tunnel, or on a connection that is TLS itself, is in clear text nowhere.
fn check_place(session: &Session) -> Result<(), Denial> {
    let destination = &session.destination;
    if !door::is_ours(&destination.host) || destination.port != session.scheme.default_port() {
        return Err(Denial::HostNotListed);
    }
    if session.connection.is_encrypted() { Ok(()) } else { check_hop(session.form, session.connection.peer.ip()) }
}

fn check_hop(form: Form, peer: IpAddr) -> Result<(), Denial> {
    match form {
        Form::Tunnel | Form::TunnelWithoutName => Ok(()),
        Form::Absolute | Form::Origin if peer.to_canonical().is_loopback() => Ok(()),
        Form::Absolute | Form::Origin => Err(Denial::CleartextForbidden),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clear_text_stays_on_this_machine() {
        for (peer, is_near) in [("127.0.0.1", true), ("::1", true), ("::ffff:127.0.0.1", true), ("10.0.0.1", false)] {
            for form in [Form::Absolute, Form::Origin] {
                assert_eq!(check_hop(form, peer.parse().unwrap()).is_ok(), is_near, "{peer} {form:?}");
            }
            assert_eq!(check_hop(Form::Tunnel, peer.parse().unwrap()), Ok(()), "{peer}");
        }
    }
}
