//! Leases in the order of their expiry.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::Lease;
use crate::model::Now;

/// A lease and the moment when it is due, in nanoseconds since boot.
#[derive(Clone)]
pub(super) struct Due {
    at: u64,
    lease: Arc<Lease>,
}

impl Due {
    /// Every lease has its own place: those that are due together go by their addresses.
    fn key(&self) -> (u64, *const Lease) {
        (self.at, Arc::as_ptr(&self.lease))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Due {}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
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
pub(super) struct Schedule(BTreeSet<Due>);

impl Schedule {
    /// Adds a lease; true when it is now the next one.
    pub(super) fn insert(&mut self, lease: &Arc<Lease>, now: &Now) -> bool {
        let at = due_at(lease, now);
        lease.due.store(at, Relaxed);
        self.0.insert(Due { at, lease: lease.clone() });
        self.0.first().is_some_and(|first| Arc::ptr_eq(&first.lease, lease))
    }

    /// Takes a lease out, if it is there.
    pub(super) fn remove(&mut self, lease: Arc<Lease>) {
        let at = lease.due.load(Relaxed);
        self.0.remove(&Due { at, lease });
    }

    /// Puts a lease where it belongs after it was renewed.
    pub(super) fn postpone(&mut self, lease: &Arc<Lease>, now: &Now) {
        self.remove(lease.clone());
        self.insert(lease, now);
    }

    /// At most `batch` leases whose time is over. They stay until their end removes them.
    pub(super) fn over(&mut self, now: &Now, batch: usize) -> Vec<Arc<Lease>> {
        let until = nanoseconds(now.boot);
        let due: Vec<Due> = self.0.iter().take_while(|due| due.at <= until).take(batch).cloned().collect();
        let (over, early): (Vec<_>, Vec<_>) = due.into_iter().partition(|due| due.lease.deadline().is_over(now));
        // The wall clock was set back since the last look: these have more time than they had then.
        for due in &early {
            self.place_anew(due, now);
        }
        over.into_iter().map(|due| due.lease).collect()
    }

    /// How long until the next one is due.
    pub(super) fn wait(&self, now: &Now) -> Option<Duration> {
        let first = self.0.first()?;
        Some(Duration::from_nanos(first.at.saturating_sub(nanoseconds(now.boot))))
    }

    /// Computes anew when leases are due: at most `batch`, those after `after`; the place to go on from, if any.
    /// Wanted after the wall clock was set.
    pub(super) fn place_all_anew(&mut self, after: Option<&Due>, now: &Now, batch: usize) -> Option<Due> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let some: Vec<Due> = self.0.range((from, Bound::Unbounded)).take(batch).cloned().collect();
        for due in &some {
            self.place_anew(due, now);
        }
        // What moved forward will be met again and then stands right: the walk ends.
        if some.len() == batch { some.into_iter().last() } else { None }
    }

    fn place_anew(&mut self, due: &Due, now: &Now) {
        if due_at(&due.lease, now) != due.at {
            self.0.remove(due);
            self.insert(&due.lease, now);
        }
    }
}
