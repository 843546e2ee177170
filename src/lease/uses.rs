//! Counted uses. A use is reserved, and then either spent or given back.

use std::sync::Arc;
use std::{iter, mem};

use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

use super::terms::Common;
use super::{Lease, Spent};
use crate::model::{ScopeName, ServiceName};

/// The counters of a lease that has any limit.
///
/// A use of a lease that was delegated is one of all above it as well; it is taken under all their locks.
///
/// One short lock takes both the nonce's and the scope's use or neither. Two atomics with a roll-back would never
/// give out too many, but for a moment hide a use that somebody else is about to give back, and refuse wrongly.
#[derive(Debug)]
pub(super) struct Uses(Mutex<Counts>);

#[derive(Debug)]
struct Counts {
    /// Of the whole nonce; `None` where at least one scope is free and the nonce has no limit of its own.
    total: Option<Total>,
    /// Left of each scope, in the order of the grants; empty when no scope has a limit.
    scopes: Box<[Option<u32>]>,
}

#[derive(Debug)]
struct Total {
    /// Neither spent nor reserved.
    left: u32,
    /// Not spent; at zero the lease is over.
    unspent: u32,
}

impl Uses {
    /// The counters for these terms; `None` when nothing in them has a limit.
    pub(super) fn of(terms: &Common) -> Option<Self> {
        let scopes: Box<[_]> = terms.grants.iter().flat_map(|grant| &grant.scopes).map(|(_, uses)| *uses).collect();
        // Where every scope is limited, so is the nonce: it is spent when all of them are.
        let sum = scopes.iter().try_fold(0_u32, |sum, uses| uses.map(|uses| sum.saturating_add(uses)));
        let total = [terms.max_uses, sum].into_iter().flatten().min();
        let scopes = if scopes.iter().any(Option::is_some) { scopes } else { Box::default() };
        if total.is_none() && scopes.is_empty() {
            return None;
        }
        let total = total.map(|uses| Total { left: uses, unspent: uses });
        Some(Self(Mutex::new(Counts { total, scopes })))
    }

    /// Uses of the whole nonce that nobody has spent or reserved.
    pub(super) fn left(&self) -> Option<u32> {
        self.0.lock().total.as_ref().map(|total| total.left)
    }

    /// Uses of the scope at this place that nobody has spent or reserved.
    pub(super) fn left_of(&self, scope: usize) -> Option<u32> {
        self.0.lock().scopes.get(scope).copied().flatten()
    }
}

impl Counts {
    fn has(&self, scope: usize) -> bool {
        let is_some_left = |left: u32| left > 0;
        let of_scope = self.scopes.get(scope).copied().flatten();
        self.total.as_ref().is_none_or(|total| is_some_left(total.left)) && of_scope.is_none_or(is_some_left)
    }

    /// Takes a use of the nonce and of the scope at this place; there is one of each.
    fn take(&mut self, scope: usize) {
        if let Some(total) = &mut self.total {
            total.left -= 1;
        }
        if let Some(Some(left)) = self.scopes.get_mut(scope) {
            *left -= 1;
        }
    }

    fn give_back(&mut self, scope: usize) {
        if let Some(total) = &mut self.total {
            total.left += 1;
        }
        if let Some(Some(left)) = self.scopes.get_mut(scope) {
            *left += 1;
        }
    }

    /// Spends a taken use; true when it was the last of the nonce.
    fn spend(&mut self) -> bool {
        self.total.as_mut().is_some_and(|total| {
            total.unspent -= 1;
            total.unspent == 0
        })
    }
}

/// Leases in which something is counted, the lowest first, each with its place of the scope.
type Held = SmallVec<[(Arc<Lease>, usize); 1]>;

/// The counters of all of them. Whoever takes several locks them from below, so that nobody waits in a circle.
fn lock_all(held: &[(Arc<Lease>, usize)]) -> SmallVec<[(MutexGuard<'_, Counts>, usize); 4]> {
    held.iter().filter_map(|(lease, place)| lease.uses().map(|uses| (uses.0.lock(), *place))).collect()
}

/// Uses reserved for one request; given back on drop unless [`Reservation::spend`] was called.
#[must_use = "a reservation that is dropped is given back"]
#[derive(Debug)]
pub struct Reservation {
    /// Of whom; nobody once settled, and where nothing is counted.
    held: Held,
}

impl Reservation {
    /// Takes a use of the scope in this lease and in all above it, or in none.
    pub(super) fn take(lease: &Arc<Lease>, service: &ServiceName, scope: &ScopeName) -> Result<Self, Spent> {
        let mut held = Held::new();
        for lease in iter::once(lease).chain(lease.ancestors()) {
            // What one above it does not have, it cannot have.
            let place = lease.place(service, scope).ok_or(Spent)?;
            if lease.uses().is_some() {
                held.push((lease.clone(), place));
            }
        }
        let mut counts = lock_all(&held);
        if !counts.iter().all(|(counts, place)| counts.has(*place)) {
            return Err(Spent);
        }
        for (counts, place) in &mut counts {
            counts.take(*place);
        }
        drop(counts);
        Ok(Self { held })
    }

    /// The request's bytes are going out: the use is spent for good. Every lease of which it was the last one ends here.
    pub fn spend(&mut self) {
        let held = mem::take(&mut self.held);
        let spent: SmallVec<[bool; 4]> = lock_all(&held).iter_mut().map(|(counts, _)| counts.spend()).collect();
        for ((lease, _), _) in held.iter().zip(spent).filter(|(_, is_spent)| *is_spent) {
            lease.end_as_spent();
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        for (counts, place) in &mut lock_all(&self.held) {
            counts.give_back(*place);
        }
    }
}
