//! Leases in the order of their expiry.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::Lease;
use super::sorted::{Place, Sorted};
use crate::model::Now;

/// Where a lease stands: the moment when it is due, in nanoseconds since boot. Every lease has its own place: those that
/// are due together go by their addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Due {
    at: u64,
    address: usize,
}

impl Place for Due {
    fn of(lease: &Arc<Lease>) -> Self {
        Self { at: lease.due.load(Relaxed), address: Arc::as_ptr(lease).addr() }
    }
}

/// When this lease is over if both clocks go on as they do now, on the boot-time clock.
fn due_at(lease: &Lease, now: &Now) -> u64 {
    nanoseconds(now.boot.saturating_add(lease.deadline().remaining(now)))
}

fn nanoseconds(boot: Duration) -> u64 {
    u64::try_from(boot.as_nanos()).unwrap_or(u64::MAX)
}

/// The order of expiry, as of the last look at how far the two clocks are apart (see [`Schedule::place_all_anew`]).
#[derive(Default)]
pub(super) struct Schedule(Sorted<Due>);

impl Schedule {
    /// Adds a lease; true when it is now the next one.
    pub(super) fn insert(&mut self, lease: &Arc<Lease>, now: &Now) -> bool {
        lease.due.store(due_at(lease, now), Relaxed);
        self.0.insert(lease.clone());
        self.0.first().is_some_and(|first| Arc::ptr_eq(first, lease))
    }

    /// Takes a lease out, if it is there.
    pub(super) fn remove(&mut self, lease: &Arc<Lease>) -> Option<Arc<Lease>> {
        self.0.remove(Due::of(lease))
    }

    /// Puts a lease where it belongs: after it was renewed, or the wall clock was set.
    pub(super) fn place_anew(&mut self, lease: &Arc<Lease>, now: &Now) {
        if due_at(lease, now) != Due::of(lease).at {
            self.remove(lease);
            self.insert(lease, now);
        }
    }

    /// Of the next `batch` leases those whose time is over. They stay until their end removes them.
    pub(super) fn over(&mut self, now: &Now, batch: usize) -> Vec<Arc<Lease>> {
        let until = nanoseconds(now.boot);
        let due = self.0.after(None).take(batch).take_while(|lease| Due::of(lease).at <= until);
        let (over, early): (Vec<_>, Vec<_>) = due.cloned().partition(|lease| lease.deadline().is_over(now));
        // The wall clock was set back since the last look: these have more time than they had then.
        for lease in &early {
            self.place_anew(lease, now);
        }
        over
    }

    /// How long until the next one is due.
    pub(super) fn wait(&self, now: &Now) -> Option<Duration> {
        let first = Due::of(self.0.first()?);
        Some(Duration::from_nanos(first.at.saturating_sub(nanoseconds(now.boot))))
    }

    /// Computes anew when leases are due: at most `batch`, those after `after`; the place to go on from, if any.
    /// Wanted after the wall clock was set.
    pub(super) fn place_all_anew(&mut self, after: Option<Due>, now: &Now, batch: usize) -> Option<Due> {
        let some: Vec<_> = self.0.after(after).take(batch).cloned().collect();
        let last = some.last().map(Due::of);
        for lease in &some {
            self.place_anew(lease, now);
        }
        // What moved forward will be met again and then stands right: the walk ends.
        if some.len() == batch { last } else { None }
    }
}
