//! Lease and policy decide: a permit, or a denial.

pub(super) mod alarms;
mod attach;
mod certificate;
mod exposed;
mod given;
mod reason;
mod signature;
mod who;

use std::sync::Arc;
use std::time::Instant;

pub use exposed::exposed;
pub use given::{Wanted, body_wanted};
use smallvec::SmallVec;

use super::connect::Session;
use super::extract::{Presented, Stray};
use super::fair::Place;
use super::inject::Tie;
use super::refused::{Refused, Story};
use crate::audit::{AlarmOutcome, Decided, DecisionFacts};
use crate::lease::{Found, Lease, Lookup, NoUse, Reservation, Restriction};
use crate::model::denial::{Misplaced, Missing};
use crate::model::{CredentialName, Denial, NonceHash, Scheme, ScopeName};
use crate::policy::{Allowing, OnMisplaced, Policy, RequestFacts, Scope, Service, Verdict};

pub(super) use attach::is_same_task;
pub(super) use reason::dead;
pub use who::{Presenter, is_fresh_for_all};

use reason::{ended, useless, worse};

/// Scopes of a lease in one service that are looked at without an allocation.
const SCOPES_INLINE: usize = 4;

/// Proof that a request was allowed. Made only here; the way on leads through the audit.
pub struct Permit {
    pub(super) presented: Presented,
    pub(super) service: Arc<Service>,
    pub(super) licence: Licence,
    /// Its place among the requests that are under way, where it carries nothing; else its tie has it.
    place: Option<Place>,
    facts: Arc<DecisionFacts>,
}

/// The services among which a request is decided; seldom more than one.
type Services = SmallVec<[Arc<Service>; 2]>;

/// What a request may carry.
pub(super) enum Licence {
    /// Nothing: the service lets requests without a nonce pass.
    Anonymous,
    /// A real credential, for as long as the lease lives.
    Credential {
        /// Which.
        name: CredentialName,
        /// The lease it is done under, and the exchange's place in it.
        tie: Arc<Tie>,
        /// The use that it takes; `None` in a spare, since a request takes one however often it is sent.
        reservation: Option<Reservation>,
    },
}

impl Permit {
    /// The credential that it names.
    pub(super) fn credential(&self) -> Option<&CredentialName> {
        match &self.licence {
            Licence::Anonymous => None,
            Licence::Credential { name, .. } => Some(name),
        }
    }

    /// The lease under which it is carried out, if any.
    pub(super) fn lease(&self) -> Option<&Arc<Lease>> {
        match &self.licence {
            Licence::Anonymous => None,
            Licence::Credential { tie, .. } => Some(&tie.lease),
        }
    }

    /// The same permit for sending the same request once more; `None` where the request has a body, which is gone once
    /// it was sent.
    pub(super) fn spare(&self) -> Option<Self> {
        let licence = match &self.licence {
            Licence::Anonymous => Licence::Anonymous,
            Licence::Credential { name, tie, .. } => {
                Licence::Credential { name: name.clone(), tie: tie.clone(), reservation: None }
            }
        };
        let presented = self.presented.without_body()?;
        Some(Self { presented, service: self.service.clone(), licence, place: None, facts: self.facts.clone() })
    }

    /// The place that nothing else of it holds.
    pub(super) fn take_place(&mut self) -> Option<Place> {
        self.place.take()
    }

    /// What a refusal further on may say.
    pub(super) fn story(&self) -> Story {
        Story { facts: self.facts.clone(), service: self.service.clone() }
    }
}

impl Decided for Permit {
    fn facts(&self) -> Arc<DecisionFacts> {
        self.facts.clone()
    }
}

/// Decides on a presented request.
///
/// # Errors
/// [`Refused`]: the denial, with what was known when it fell.
pub fn grant(leases: &Lookup, policy: &Policy, session: &Session, presented: Presented) -> Result<Permit, Refused> {
    let scene = Scene { leases, policy, session };
    let mut facts = DecisionFacts { policy_digest: Some(policy.digest().clone()), ..DecisionFacts::default() };
    facts.presented_by = session.presenter().known(leases).cloned();
    if presented.services.is_empty() && scene.is_clear_text_only() {
        return Err(Refused::new(Denial::CleartextForbidden, facts));
    }
    if let Some(stray) = presented.strays.first() {
        return Err(scene.stray(stray, &presented, facts));
    }
    let voucher = session.voucher.map(|hash| attach::Voucher::of(leases, policy, session, &hash, &facts));
    if presented.services.is_empty() {
        let facts = voucher.map_or(facts, |voucher| voucher.facts);
        return Err(Refused::new(Denial::HostNotListed, facts));
    }
    // Who vouches has to be alive and in the right hands, whatever else the request carries.
    let voucher = match voucher.map(attach::Voucher::admitted).transpose() {
        Ok(voucher) => voucher,
        Err(refused) => return Err(refused.at(&presented.services)),
    };
    match (&presented.lifted, voucher) {
        (None, None) => scene.anonymous(presented, facts, Missing::Nowhere),
        (None, Some((vouching, facts))) => scene.attach(&vouching, presented, facts),
        (Some(lifted), vouching) => {
            let lease = present(leases, policy, session.presenter(), &lifted.hash, &mut facts);
            let same = |lease: Arc<Lease>| match &vouching {
                Some((vouching, _)) if !attach::is_same_task(vouching, &lease) => Err(Denial::AgentMismatch),
                Some(_) | None => Ok(lease),
            };
            match lease.and_then(same) {
                Ok(lease) => scene.decide(&lease, presented, facts),
                Err(denial) => Err(Refused::new(denial, facts).at(&presented.services)),
            }
        }
    }
}

/// The live lease of a nonce that is presented by whom it is bound to; what is known of it goes into the facts.
pub(super) fn present(
    leases: &Lookup,
    policy: &Policy,
    presenter: Presenter<'_>,
    hash: &NonceHash,
    facts: &mut DecisionFacts,
) -> Result<Arc<Lease>, Denial> {
    let lease = match leases.find(hash) {
        Found::Live(lease) => lease,
        Found::Canary(lease) => {
            let place = if facts.presented_in.is_some() { Misplaced::Proxy.as_str() } else { "slot" };
            facts.alarm = Some(alarms::canary(&lease, place));
            return Err(Denial::NonceUnknown);
        }
        Found::Dead(tombstone) => {
            facts.nonce_id = Some(tombstone.id);
            return Err(ended(tombstone.cause, tombstone.at));
        }
        Found::Unknown => return Err(Denial::NonceUnknown),
    };
    describe(&lease, facts);
    who::identify(policy, presenter, &lease, leases, facts)?;
    Ok(lease)
}

/// Everything that a decision looks at and nothing that it changes.
struct Scene<'a> {
    leases: &'a Lookup,
    policy: &'a Policy,
    session: &'a Session,
}

impl Scene<'_> {
    /// A nonce outside every slot: refused whatever it is; a live one is revoked where the policy says so.
    fn stray(&self, stray: &Stray, presented: &Presented, mut facts: DecisionFacts) -> Refused {
        let mut place = stray.place;
        facts.alarm = alarms::canary_among(self.leases, &presented.strays);
        match self.leases.find(&stray.hash) {
            Found::Live(lease) => {
                describe(&lease, &mut facts);
                let is_home = presented.services.iter().any(|service| holds(&lease, service));
                if !is_home {
                    place = Misplaced::Host;
                }
                let outcome = if is_home { AlarmOutcome::Refused } else { self.on_misplaced(&lease) };
                facts.alarm.get_or_insert_with(|| alarms::misplaced(&lease, outcome, place));
            }
            Found::Dead(tombstone) => facts.nonce_id = Some(tombstone.id),
            Found::Canary(_) | Found::Unknown => {}
        }
        Refused::new(Denial::NonceMisplaced(place), facts).at(&presented.services)
    }

    fn on_misplaced(&self, lease: &Lease) -> AlarmOutcome {
        let here = &self.session.destination;
        let outcome = match self.policy.on_misplaced() {
            // An upstream's own redirect brought it here: refused as any other, and no reason to end it.
            OnMisplaced::Revoke if lease.was_redirected_to(here, Instant::now()) => AlarmOutcome::Refused,
            OnMisplaced::Revoke => {
                self.leases.misplaced(lease);
                AlarmOutcome::Revoked
            }
            OnMisplaced::Refuse => AlarmOutcome::Refused,
        };
        tracing::warn!(
            nonce.id = %lease.id(),
            agent.id = %lease.terms().agent,
            destination = %here,
            "a nonce was sent to a host that is not its service's"
        );
        outcome
    }

    /// `http://` to a host that a service lists only for TLS is about clear text, not about listing.
    fn is_clear_text_only(&self) -> bool {
        self.session.scheme == Scheme::Http && self.policy.lists_host(&self.session.destination.host)
    }

    /// Without a credential, where the service lets that pass; else `why` there is no nonce is said.
    fn anonymous(&self, presented: Presented, mut facts: DecisionFacts, why: Missing) -> Result<Permit, Refused> {
        // A WebSocket needs a rule, and rules are read for nonces.
        let open = |service: &&Arc<Service>| service.anonymous && presented.websocket.is_none();
        let Some(service) = presented.services.iter().find(open).cloned() else {
            return Err(Refused::new(Denial::NonceMissing(why), facts).at(&presented.services));
        };
        facts.service = Some(service.name.clone());
        if let Err(denial) = self.clear_text(&service) {
            return Err(Refused::new(denial, facts).of(&service));
        }
        match self.session.connection.admit(None) {
            Ok(place) => {
                let (licence, place, facts) = (Licence::Anonymous, Some(place), Arc::new(facts));
                Ok(Permit { presented, service, licence, place, facts })
            }
            Err(denial) => Err(Refused::new(denial, facts).of(&service)),
        }
    }

    fn clear_text(&self, service: &Service) -> Result<(), Denial> {
        match self.session.scheme {
            Scheme::Https => Ok(()),
            Scheme::Http if service.cleartext => Ok(()),
            Scheme::Http => Err(Denial::CleartextForbidden),
        }
    }

    /// A nonce that fills a slot.
    fn decide(
        &self,
        lease: &Arc<Lease>,
        mut presented: Presented,
        mut facts: DecisionFacts,
    ) -> Result<Permit, Refused> {
        let services: Services = presented.services.iter().filter(|service| holds(lease, service)).cloned().collect();
        if services.is_empty() {
            let outcome = self.on_misplaced(lease);
            facts.alarm = Some(alarms::misplaced(lease, outcome, Misplaced::Host));
            return Err(Refused::new(Denial::NonceMisplaced(Misplaced::Host), facts).at(&presented.services));
        }
        // Only now: at a host that is not its service's, a nonce is misplaced whatever it came under.
        if let Err(denial) = signature::verify(self.leases, self.session, &mut presented) {
            return Err(Refused::new(denial, facts).at(&services));
        }
        self.decide_among(&services, lease, presented, facts)
    }

    /// A nonce that came as the proxy's credentials, and a request with none of its own.
    fn attach(&self, lease: &Arc<Lease>, presented: Presented, facts: DecisionFacts) -> Result<Permit, Refused> {
        match attach::services(lease, self.session.scheme, &presented) {
            Ok(services) => self.decide_among(&services, lease, presented, facts),
            Err(why) => self.anonymous(presented, facts, why),
        }
    }

    fn decide_among(
        &self,
        services: &[Arc<Service>],
        lease: &Arc<Lease>,
        mut presented: Presented,
        mut facts: DecisionFacts,
    ) -> Result<Permit, Refused> {
        let is_own = presented.lifted.is_some();
        facts.service = services.first().map(|service| service.name.clone());
        let mut refusal = None;
        for service in services {
            if !is_own {
                presented.lifted = attach::lifted(self.session, service, &presented.target);
            }
            match self.try_service(service, lease, &presented, &mut facts) {
                Ok(licence) => {
                    let (service, facts) = (service.clone(), Arc::new(facts));
                    return Ok(Permit { presented, service, licence, place: None, facts });
                }
                Err(denial) => refusal = Some(worse(refusal, denial)),
            }
        }
        let denial = refusal.unwrap_or(Denial::Internal);
        Err(Refused::new(denial, facts).at(services))
    }

    /// The scope under which a request that no rule allows goes on, where its service is only observed, and no deny of
    /// the nonces above stands against it.
    fn observed(
        &self,
        service: &Service,
        lease: &Lease,
        scopes: &[ScopeName],
        request: &RequestFacts<'_>,
    ) -> Option<&Scope> {
        let of = |lease: &Lease| given::scopes(self.policy, lease, &service.name);
        // What was taken from the agent of a nonce above is not to be had below it.
        let is_held = |scope: &&ScopeName| lease.ancestors().all(|lease| of(lease).contains(*scope));
        let common: given::Scopes = scopes.iter().filter(is_held).cloned().collect();
        let is_denied = |lease: &Lease| self.policy.denying(&service.name, &of(lease), request).is_some();
        let observed = self.policy.observed(&service.name, &common, request, self.leases.now().wall)?;
        (!lease.ancestors().any(|lease| is_denied(lease))).then_some(observed)
    }

    /// What stands against a scope just now, whatever its rules say.
    fn hindrance(&self, lease: &Lease, scope: &Scope, restrictions: &[Restriction]) -> Option<Denial> {
        if let Some(restriction) = restrictions.iter().find(|restriction| !restriction.cap.allows(scope.risk)) {
            return Some(Denial::RiskRestricted { until: restriction.until.wall });
        }
        let is_fresh = who::is_fresh(self.policy, self.session.presenter(), lease, scope, self.leases);
        (!is_fresh).then_some(Denial::IdentityStale)
    }

    /// The nonce is where this service has it, on a leg that may carry it.
    fn check_slot(&self, service: &Service, presented: &Presented) -> Result<(), Denial> {
        self.clear_text(service)?;
        let slot = presented.lifted.as_ref().map(|lifted| &lifted.slot);
        if !slot.is_some_and(|slot| service.slots.contains(slot)) {
            return Err(Denial::NonceMisplaced(Misplaced::Header));
        }
        signature::check_scope(self.session, service, presented)
    }

    fn try_service(
        &self,
        service: &Arc<Service>,
        lease: &Arc<Lease>,
        presented: &Presented,
        facts: &mut DecisionFacts,
    ) -> Result<Licence, Denial> {
        self.check_slot(service, presented)?;
        let terms = lease.terms();
        let scopes = given::scopes(self.policy, lease, &service.name);
        let request = given::request(self.session, presented);
        given::check_lists(lease, &request)?;
        let given = || given::circumstances(self.leases, self.policy, lease, presented);
        let own = self.policy.decide_given(&service.name, &scopes, &[], &request, Some(&given));
        let above = lease.ancestors().map(|lease| {
            let scopes = given::scopes(self.policy, lease, &service.name);
            let given = || given::circumstances(self.leases, self.policy, lease, presented);
            self.policy.decide_given(&service.name, &scopes, &[], &request, Some(&given))
        });
        let has_above = lease.ancestors().next().is_some();
        let verdict = match self.policy.decide_below(&service.name, &scopes, own, above) {
            settled @ (Verdict::Allow { .. } | Verdict::Unmet(_)) => settled,
            // What the agent may have else is no way around the nonces above.
            deny @ (Verdict::Deny { .. } | Verdict::Ambiguous(_)) if has_above => deny,
            // What else the agent may have matters to a refusal alone: to its hint, and to its kind.
            Verdict::Deny { .. } | Verdict::Ambiguous(_) => {
                let grantable = self.policy.grantable(terms.agent, &service.name);
                self.policy.decide_given(&service.name, &scopes, grantable, &request, Some(&given))
            }
        };
        let allowing = match verdict {
            Verdict::Allow { scope, rule, recording, next } => {
                std::iter::once(Allowing { scope, rule, recording }).chain(next)
            }
            Verdict::Unmet(unmet) => {
                facts.rule = Some(unmet.rule.to_owned());
                facts.inputs = unmet.recording.map(|recording| recording.inputs(&request, &given)).unwrap_or_default();
                return Err(given::refusal(&unmet));
            }
            Verdict::Deny { allowed, required_scope } => {
                let denial = Denial::OutOfScope { allowed, required_scope };
                let Some(scope) = self.observed(service, lease, &scopes, &request) else { return Err(denial) };
                facts.observed = Some(denial.code());
                std::iter::once(Allowing { scope, rule: "", recording: None }).chain(SmallVec::new())
            }
            Verdict::Ambiguous(ambiguity) => return Err(Denial::RequestAmbiguous(ambiguity)),
        };
        // What a monitor says holds from the next request on, on every connection, and of the nonces above as well.
        let above = lease.ancestors().filter_map(|lease| self.leases.restriction(lease));
        let restrictions: SmallVec<[Restriction; 1]> =
            self.leases.restriction(lease).into_iter().chain(above).collect();
        let place = self.session.connection.admit(Some(terms.agent))?;
        let (mut restricted, mut no_use) = (None, NoUse::Spent);
        for Allowing { scope, rule, recording } in allowing {
            facts.service = Some(service.name.clone());
            facts.scope = Some(scope.name.clone());
            facts.risk = Some(scope.risk);
            facts.data.clone_from(&scope.data);
            facts.rule = (!rule.is_empty()).then(|| rule.to_owned());
            facts.credential = Some(scope.credential.clone());
            facts.client_certificate.clone_from(&service.client_certificate);
            if let Some(denial) = self.hindrance(lease, scope, &restrictions) {
                restricted = Some(denial);
                continue;
            }
            facts.inputs = recording.map(|recording| recording.inputs(&request, &given)).unwrap_or_default();
            let rates = given::rates(self.leases, self.policy, lease, presented, (service, scope, &request));
            match lease.reserve_paced(&service.name, &scope.name, &rates) {
                Ok(reservation) => {
                    let membership = lease.join().ok_or_else(|| dead(lease))?;
                    let name = scope.credential.clone();
                    let tie = Arc::new(Tie { lease: lease.clone(), membership, _place: place });
                    return Ok(Licence::Credential { name, tie, reservation: Some(reservation) });
                }
                // A scope whose own uses are gone, or come too fast, leaves the request to the next one that allows it.
                Err(reason) => no_use = no_use.min(reason),
            }
        }
        Err(useless(lease, no_use, restricted))
    }
}

fn holds(lease: &Lease, service: &Service) -> bool {
    lease.terms().grants.iter().any(|grant| grant.service == service.name)
}

pub(super) fn describe(lease: &Lease, facts: &mut DecisionFacts) {
    let terms = lease.terms();
    facts.nonce_id = Some(lease.id());
    facts.agent = Some(terms.agent.clone());
    facts.task = Some(terms.task.clone());
    facts.lineage = lease.lineage().cloned();
    facts.minter = Some(terms.minter.clone());
    facts.on_behalf_of = terms.on_behalf_of.map(str::to_owned);
}
