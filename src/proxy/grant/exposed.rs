//! A real credential of ours in the head of a request.

use super::{alarms, describe};
use crate::audit::DecisionFacts;
use crate::lease::{Found, Lookup};
use crate::model::{Denial, NonceHash};
use crate::policy::Policy;
use crate::proxy::connect::Session;
use crate::proxy::refused::Refused;

/// The refusal, with the alarm. The nonce of the request, where one is known, tells whose agent knows a credential.
pub fn exposed(
    leases: &Lookup,
    policy: &Policy,
    session: &Session,
    hash: Option<NonceHash>,
    place: &'static str,
) -> Refused {
    let mut facts = DecisionFacts { policy_digest: Some(policy.digest().clone()), ..DecisionFacts::default() };
    facts.presented_by = session.connection.known_owner().cloned();
    let lease = hash.and_then(|hash| match leases.find(&hash) {
        Found::Live(lease) => Some(lease),
        Found::Canary(_) | Found::Dead(_) | Found::Unknown => None,
    });
    if let Some(lease) = &lease {
        describe(lease, &mut facts);
    }
    facts.alarm = Some(alarms::exposed(lease.as_deref(), place));
    let services = policy.services_at(&session.destination);
    facts.service = services.first().map(|service| service.name.clone());
    Refused::new(Denial::CredentialExposed, facts).at(services)
}
