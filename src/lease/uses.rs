//! Counted uses. A use is reserved, and then either spent or given back.

use std::sync::Arc;

use parking_lot::Mutex;

use super::terms::Common;
use super::{Lease, Spent};

/// The counters of a lease that has any limit.
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

    /// Takes one use of the nonce and of the scope at this place, or none.
    fn take(&self, scope: usize) -> Result<(), Spent> {
        let mut counts = self.0.lock();
        let Counts { total, scopes } = &mut *counts;
        let mut of_scope = scopes.get_mut(scope).and_then(Option::as_mut);
        if total.as_ref().is_some_and(|total| total.left == 0) || of_scope.as_deref().is_some_and(|left| *left == 0) {
            return Err(Spent);
        }
        if let Some(total) = total {
            total.left -= 1;
        }
        if let Some(left) = of_scope.as_mut() {
            **left -= 1;
        }
        Ok(())
    }

    fn give_back(&self, scope: usize) {
        let mut counts = self.0.lock();
        if let Some(total) = &mut counts.total {
            total.left += 1;
        }
        if let Some(Some(left)) = counts.scopes.get_mut(scope) {
            *left += 1;
        }
    }

    /// Spends a taken use; true when it was the last of the nonce.
    fn spend(&self) -> bool {
        let mut counts = self.0.lock();
        counts.total.as_mut().is_some_and(|total| {
            total.unspent -= 1;
            total.unspent == 0
        })
    }
}

/// Uses reserved for one request; given back on drop unless [`Reservation::spend`] was called.
#[must_use = "a reservation that is dropped is given back"]
#[derive(Debug)]
pub struct Reservation {
    /// Whose, and at which scope's place; `None` once settled, and where nothing is counted.
    held: Option<(Arc<Lease>, usize)>,
}

impl Reservation {
    /// Takes a use of the scope at this place in the lease's grants.
    pub(super) fn take(lease: &Arc<Lease>, scope: usize) -> Result<Self, Spent> {
        let Some(uses) = lease.uses() else { return Ok(Self { held: None }) };
        uses.take(scope)?;
        Ok(Self { held: Some((lease.clone(), scope)) })
    }

    /// The request's bytes are going out: the use is spent for good. If it was the last one, the lease ends here.
    pub fn spend(&mut self) {
        if let Some((lease, _)) = self.held.take()
            && lease.uses().is_some_and(Uses::spend)
        {
            lease.end_as_spent();
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some((lease, scope)) = self.held.take()
            && let Some(uses) = lease.uses()
        {
            uses.give_back(scope);
        }
    }
}
