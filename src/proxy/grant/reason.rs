//! Of several reasons for a refusal, the one that is said.

use crate::lease::{EndCause, Lease, NoUse};
use crate::model::Denial;

/// Of two services' refusals the one that tells the agent more: being out of scope is the common, fixable one.
pub(super) fn worse(known: Option<Denial>, fresh: Denial) -> Denial {
    match known {
        Some(known @ Denial::OutOfScope { .. }) => known,
        _ => fresh,
    }
}

/// Of the reasons of several scopes the one that can be mended soonest.
pub(super) fn useless(lease: &Lease, reason: NoUse, restricted: Option<Denial>) -> Denial {
    match (reason, restricted) {
        (NoUse::TooFast { wait }, _) => Denial::RateLimited { retry_after: wait },
        (NoUse::TaskSpent | NoUse::Spent, Some(restricted)) => restricted,
        (NoUse::TaskSpent, None) => Denial::BudgetSpent,
        // Also what has ended since it was looked up has no use left.
        (NoUse::Spent, None) => {
            let at = lease.deadline().wall;
            lease.ended().map_or(Denial::NonceSpent { at }, |cause| ended(cause, at))
        }
    }
}

/// Why a lease that was alive a moment ago is not any more.
pub(in crate::proxy) fn dead(lease: &Lease) -> Denial {
    let at = lease.deadline().wall;
    lease.ended().map_or(Denial::NonceRevoked { at }, |cause| ended(cause, at))
}

pub(super) fn ended(cause: EndCause, at: jiff::Timestamp) -> Denial {
    match cause {
        EndCause::Expired => Denial::NonceExpired { at },
        EndCause::Spent => Denial::NonceSpent { at },
        EndCause::Revoked | EndCause::Misplaced => Denial::NonceRevoked { at },
    }
}
