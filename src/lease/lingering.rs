//! Leases that are over while exchanges of theirs may go on (spent ones, and those that have expired): a revoke still has
//! to reach those.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Weak};

use super::Lease;
use crate::model::NonceId;

/// Below so many nobody looks for what can be forgotten.
const SWEEP_MIN: usize = 64;

/// At most about twice as many as have exchanges under way.
#[derive(Default)]
pub(super) struct Lingering {
    leases: BTreeMap<NonceId, Weak<Lease>>,
    sweep_at: usize,
}

impl Lingering {
    /// Remembers one for as long as somebody holds it; its exchanges do.
    pub(super) fn add(&mut self, lease: &Arc<Lease>) {
        if self.leases.len() >= self.sweep_at {
            self.leases.retain(|_, lease| lease.strong_count() > 0);
            self.sweep_at = (2 * self.leases.len()).max(SWEEP_MIN);
        }
        self.leases.insert(lease.id(), Arc::downgrade(lease));
    }

    /// At most so many behind this id; those that nobody holds any more without their lease.
    pub(super) fn after(&self, after: Option<NonceId>, limit: usize) -> Vec<(NonceId, Option<Arc<Lease>>)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = self.leases.range((from, Bound::Unbounded)).take(limit);
        range.map(|(id, lease)| (*id, lease.upgrade())).collect()
    }

    pub(super) fn find(&self, id: NonceId) -> Option<Arc<Lease>> {
        self.leases.get(&id).and_then(Weak::upgrade)
    }
}
