//! Alarms that a refusal raises.

use crate::audit::{Alarm, AlarmKind, AlarmOutcome};
use crate::lease::{Found, Lease, Lookup};
use crate::model::denial::Misplaced;
use crate::proxy::extract::Stray;

/// A nonce that was minted to be found. Only the alarm says so: the refusal is that of a text that nobody knows.
pub fn canary(lease: &Lease, place: &'static str) -> Box<Alarm> {
    of(lease, Alarm::new(AlarmKind::CanaryUsed, AlarmOutcome::Refused, place))
}

/// A canary anywhere among them; to whoever sent it, it is a text like any other.
pub fn canary_among(leases: &Lookup, strays: &[Stray]) -> Option<Box<Alarm>> {
    strays.iter().find_map(|stray| match leases.find(&stray.hash) {
        Found::Canary(lease) => Some(canary(&lease, stray.place.as_str())),
        Found::Live(_) | Found::Dead(_) | Found::Unknown => None,
    })
}

/// A live nonce outside its slot, or on a host that is not its service's.
pub fn misplaced(lease: &Lease, outcome: AlarmOutcome, place: Misplaced) -> Box<Alarm> {
    of(lease, Alarm::new(AlarmKind::NonceMisplaced, outcome, place.as_str()))
}

/// A real credential, in the request of this lease's agent where that is known.
pub fn exposed(lease: Option<&Lease>, place: &'static str) -> Box<Alarm> {
    let alarm = Alarm::new(AlarmKind::CredentialExposed, AlarmOutcome::Refused, place);
    match lease {
        Some(lease) => of(lease, alarm),
        None => Box::new(alarm),
    }
}

fn of(lease: &Lease, alarm: Alarm) -> Box<Alarm> {
    let terms = lease.terms();
    let (agent, task) = (Some(terms.agent.clone()), Some(terms.task.clone()));
    Box::new(Alarm { nonce_id: Some(lease.id()), agent, task, ..alarm })
}
