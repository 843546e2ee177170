//! Lease and policy decide: a permit, or a denial.

mod attach;

use std::sync::Arc;

use smallvec::SmallVec;

use super::accept::Connection;
use super::connect::Session;
use super::extract::{Presented, Stray};
use super::inject::Tie;
use super::refused::{Refused, Story};
use crate::audit::{Decided, DecisionFacts};
use crate::lease::{EndCause, Found, Lease, Lookup, NoUse, Reservation};
use crate::model::denial::{Misplaced, Missing};
use crate::model::{CredentialName, Denial, Identity, IdentityRule, NonceHash, Scheme, ScopeName};
use crate::policy::{Allowing, OnMisplaced, Policy, RequestFacts, Service, Verdict};

/// Scopes of a lease in one service that are looked at without an allocation.
const SCOPES_INLINE: usize = 4;

/// Proof that a request was allowed. Made only here; the way on leads through the audit.
pub struct Permit {
    pub(super) presented: Presented,
    pub(super) service: Arc<Service>,
    pub(super) licence: Licence,
    facts: Arc<DecisionFacts>,
}

/// The services among which a request is decided; seldom more than one.
type Services = SmallVec<[Arc<Service>; 2]>;

/// Scopes that a lease holds of a service.
type Scopes = SmallVec<[ScopeName; SCOPES_INLINE]>;

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
        Some(Self { presented, service: self.service.clone(), licence, facts: self.facts.clone() })
    }

    /// What a refusal further on may say.
    pub(super) fn story(&self) -> Story {
        Story { facts: self.facts.clone(), service: self.service.clone() }
    }
}

impl Decided for Permit {
    fn facts(&self) -> DecisionFacts {
        DecisionFacts::clone(&self.facts)
    }
}

/// Decides on a presented request.
///
/// # Errors
/// [`Refused`]: the denial, with what was known when it fell.
pub fn grant(leases: &Lookup, policy: &Policy, session: &Session, presented: Presented) -> Result<Permit, Refused> {
    let scene = Scene { leases, policy, session };
    let mut facts = DecisionFacts { policy_digest: Some(policy.digest().clone()), ..DecisionFacts::default() };
    facts.presented_by = session.connection.known_owner().cloned();
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
            let lease = present(leases, policy, &session.connection, &lifted.hash, &mut facts);
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
    connection: &Connection,
    hash: &NonceHash,
    facts: &mut DecisionFacts,
) -> Result<Arc<Lease>, Denial> {
    let lease = match leases.find(hash) {
        Found::Live(lease) => lease,
        Found::Dead(tombstone) => {
            facts.nonce_id = Some(tombstone.id);
            return Err(ended(tombstone.cause, tombstone.at));
        }
        Found::Unknown => return Err(Denial::NonceUnknown),
    };
    describe(&lease, facts);
    identify(policy, connection, &lease, facts)?;
    Ok(lease)
}

/// The nonce is bound to an agent; the caller must be that agent, as far as the policy asks for proof.
fn identify(policy: &Policy, connection: &Connection, lease: &Lease, facts: &mut DecisionFacts) -> Result<(), Denial> {
    let terms = lease.terms();
    let rules = policy.identities_since(terms.agent).unwrap_or(terms.identities);
    if rules.contains(&IdentityRule::Any) {
        return Ok(());
    }
    let proven: Option<&Identity> = connection.owner();
    facts.presented_by = proven.cloned();
    match proven {
        _ if rules.iter().any(|rule| rule.admits(proven)) => Ok(()),
        Some(_) => Err(Denial::AgentMismatch),
        None => Err(Denial::AgentUnidentified),
    }
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
        match self.leases.find(&stray.hash) {
            Found::Live(lease) => {
                describe(&lease, &mut facts);
                let is_home = presented.services.iter().any(|service| holds(&lease, service));
                if !is_home {
                    place = Misplaced::Host;
                    self.on_misplaced(&lease);
                }
            }
            Found::Dead(tombstone) => facts.nonce_id = Some(tombstone.id),
            Found::Unknown => {}
        }
        Refused::new(Denial::NonceMisplaced(place), facts).at(&presented.services)
    }

    fn on_misplaced(&self, lease: &Lease) {
        match self.policy.on_misplaced() {
            OnMisplaced::Revoke => self.leases.misplaced(lease),
            OnMisplaced::Refuse => {}
        }
        tracing::warn!(
            nonce.id = %lease.id(),
            agent.id = %lease.terms().agent,
            destination = %self.session.destination,
            "a nonce was sent to a host that is not its service's"
        );
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
        Ok(Permit { presented, service, licence: Licence::Anonymous, facts: Arc::new(facts) })
    }

    fn clear_text(&self, service: &Service) -> Result<(), Denial> {
        match self.session.scheme {
            Scheme::Https => Ok(()),
            Scheme::Http if service.cleartext => Ok(()),
            Scheme::Http => Err(Denial::CleartextForbidden),
        }
    }

    /// A nonce that fills a slot.
    fn decide(&self, lease: &Arc<Lease>, presented: Presented, facts: DecisionFacts) -> Result<Permit, Refused> {
        let services: Services = presented.services.iter().filter(|service| holds(lease, service)).cloned().collect();
        if services.is_empty() {
            self.on_misplaced(lease);
            return Err(Refused::new(Denial::NonceMisplaced(Misplaced::Host), facts).at(&presented.services));
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
                    return Ok(Permit { presented, service: service.clone(), licence, facts: Arc::new(facts) });
                }
                Err(denial) => refusal = Some(worse(refusal, denial)),
            }
        }
        let denial = refusal.unwrap_or(Denial::Internal);
        Err(Refused::new(denial, facts).at(services))
    }

    /// The scopes that a lease holds of a service, as far as its agent may still have them.
    fn held(&self, lease: &Lease, service: &Service) -> Scopes {
        let terms = lease.terms();
        let grants = terms.grants.iter().filter(|grant| grant.service == service.name);
        let scopes = grants.flat_map(|grant| grant.scopes.iter().map(|(scope, _)| scope));
        scopes.filter(|scope| self.policy.still_grants(terms.agent, &service.name, scope)).cloned().collect()
    }

    fn try_service(
        &self,
        service: &Arc<Service>,
        lease: &Arc<Lease>,
        presented: &Presented,
        facts: &mut DecisionFacts,
    ) -> Result<Licence, Denial> {
        self.clear_text(service)?;
        let slot = presented.lifted.as_ref().map(|lifted| &lifted.slot);
        if !slot.is_some_and(|slot| service.slots.contains(slot)) {
            return Err(Denial::NonceMisplaced(Misplaced::Header));
        }
        let terms = lease.terms();
        let scopes = self.held(lease, service);
        let above: SmallVec<[Scopes; 0]> = lease.ancestors().map(|lease| self.held(lease, service)).collect();
        let request = RequestFacts {
            method: presented.head.method.as_str(),
            websocket: presented.websocket.is_some(),
            host: &self.session.destination.host,
            target: &presented.target,
        };
        let verdict = match self.policy.decide_below(&service.name, &scopes, &above, &request) {
            allow @ Verdict::Allow { .. } => allow,
            // What the agent may have else is no way around the nonces above.
            deny @ (Verdict::Deny { .. } | Verdict::Ambiguous(_)) if !above.is_empty() => deny,
            // What else the agent may have matters to a refusal alone: to its hint, and to its kind.
            Verdict::Deny { .. } | Verdict::Ambiguous(_) => {
                let grantable = self.policy.grantable(terms.agent, &service.name);
                self.policy.decide(&service.name, &scopes, grantable, &request)
            }
        };
        let allowing = match verdict {
            Verdict::Allow { scope, rule, next } => std::iter::once(Allowing { scope, rule }).chain(next),
            Verdict::Deny { allowed, required_scope } => {
                let denial = Denial::OutOfScope { allowed, required_scope };
                let now = self.leases.now().wall;
                let is_denied = |scopes: &Scopes| self.policy.denying(&service.name, scopes, &request).is_some();
                let observed = self.policy.observed(&service.name, &scopes, &request, now);
                let Some(scope) = observed.filter(|_| !above.iter().any(is_denied)) else { return Err(denial) };
                facts.observed = Some(denial.code());
                std::iter::once(Allowing { scope, rule: "" }).chain(SmallVec::new())
            }
            Verdict::Ambiguous(ambiguity) => return Err(Denial::RequestAmbiguous(ambiguity)),
        };
        // What a monitor says holds from the next request on, on every connection.
        let restriction = self.leases.restriction(lease);
        let (mut restricted, mut no_use) = (None, NoUse::Spent);
        for Allowing { scope, rule } in allowing {
            facts.service = Some(service.name.clone());
            facts.scope = Some(scope.name.clone());
            facts.risk = Some(scope.risk);
            facts.rule = (!rule.is_empty()).then(|| rule.to_owned());
            facts.credential = Some(scope.credential.clone());
            if let Some(restriction) = restriction.as_ref().filter(|restriction| !restriction.cap.allows(scope.risk)) {
                restricted = Some(Denial::RiskRestricted { until: restriction.until.wall });
                continue;
            }
            match lease.reserve(&service.name, &scope.name) {
                Ok(reservation) => {
                    let membership = lease.join().ok_or_else(|| dead(lease))?;
                    let name = scope.credential.clone();
                    let tie = Arc::new(Tie { lease: lease.clone(), membership });
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

fn describe(lease: &Lease, facts: &mut DecisionFacts) {
    let terms = lease.terms();
    facts.nonce_id = Some(lease.id());
    facts.agent = Some(terms.agent.clone());
    facts.task = Some(terms.task.clone());
    facts.lineage = lease.lineage().cloned();
    facts.minter = Some(terms.minter.clone());
    facts.on_behalf_of = terms.on_behalf_of.map(str::to_owned);
}

/// Of two services' refusals the one that tells the agent more: being out of scope is the common, fixable one.
fn worse(known: Option<Denial>, fresh: Denial) -> Denial {
    match known {
        Some(known @ Denial::OutOfScope { .. }) => known,
        _ => fresh,
    }
}

/// Of the reasons of several scopes the one that can be mended soonest.
fn useless(lease: &Lease, reason: NoUse, restricted: Option<Denial>) -> Denial {
    match (reason, restricted) {
        (NoUse::TooFast { wait }, _) => Denial::RateLimited { retry_after: wait },
        (NoUse::TaskSpent | NoUse::Spent, Some(restricted)) => restricted,
        (NoUse::TaskSpent, None) => Denial::BudgetSpent,
        (NoUse::Spent, None) => Denial::NonceSpent { at: lease.deadline().wall },
    }
}

/// Why a lease that was alive a moment ago is not any more.
pub(super) fn dead(lease: &Lease) -> Denial {
    let at = lease.deadline().wall;
    lease.ended().map_or(Denial::NonceRevoked { at }, |cause| ended(cause, at))
}

fn ended(cause: EndCause, at: jiff::Timestamp) -> Denial {
    match cause {
        EndCause::Expired => Denial::NonceExpired { at },
        EndCause::Spent => Denial::NonceSpent { at },
        EndCause::Revoked | EndCause::Misplaced => Denial::NonceRevoked { at },
    }
}
