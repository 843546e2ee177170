//! The task that ends leases in time.

use std::sync::Arc;
use std::time::Duration;

use super::Store;
use super::store::HELD_MAX;
use crate::model::Now;

/// The longest sleep. Timers stand still while the machine is suspended and do not follow the wall clock; this is how
/// late either is noticed here. No request depends on it: every look-up asks the clocks itself.
pub(super) const SLEEP_MAX: Duration = Duration::from_secs(30);

/// The shortest sleep, the resolution of the timers.
pub(super) const SLEEP_MIN: Duration = Duration::from_millis(1);

/// Leases and tombstones that are dealt with before other tasks get their turn: some 0.2 ms of work, at some 4 µs for each
/// of a million leases, and less than a millisecond where that takes four times as long. The control API is on the same
/// thread and waits for so long. No lock is held for so many ([`HELD_MAX`]).
pub(super) const BATCH: usize = 3 * HELD_MAX;

/// How far the wall clock may stray from the boot-time clock before the schedule is computed anew.
const STRAY_MAX_MILLISECONDS: u64 = 500;

impl Store {
    /// Sweeps expired leases: sleeps until the next expiry, never scans everything. Runs until dropped.
    pub async fn sweep(self: Arc<Self>) {
        self.sweep_with(SLEEP_MAX).await;
    }

    /// Sweeps, sleeping at most so long.
    pub(super) async fn sweep_with(&self, sleep_max: Duration) {
        let mut known = distance(&self.now());
        loop {
            let now = self.now();
            let present = distance(&now);
            if known.abs_diff(present) > STRAY_MAX_MILLISECONDS {
                known = present;
                self.renew_schedule(&now).await;
            }
            match self.sweep_batch(&now) {
                Some(wait) => self.until_earlier(wait.clamp(SLEEP_MIN, sleep_max)).await,
                None => tokio::task::yield_now().await,
            }
        }
    }

    /// Ends a batch of expired leases and prunes a batch of tombstones and of allowances; how long to sleep, or `None` to go on.
    pub(super) fn sweep_batch(&self, now: &Now) -> Option<Duration> {
        self.risks.prune(now);
        let stale = self.prune_tombs(now, BATCH) | self.prune_allowances(now, BATCH);
        let over = self.expire_batch(now, BATCH);
        if stale || over == BATCH {
            return None;
        }
        Some(self.until_next_expiry(now).unwrap_or(Duration::MAX))
    }

    async fn renew_schedule(&self, now: &Now) {
        let mut place = self.renew_batch(None, now, HELD_MAX);
        while let Some(from) = place {
            tokio::task::yield_now().await;
            place = self.renew_batch(Some(from), now, HELD_MAX);
        }
    }
}

/// How far the clocks are apart, in milliseconds.
fn distance(now: &Now) -> i64 {
    let boot = i64::try_from(now.boot.as_millis()).unwrap_or(i64::MAX);
    now.wall.as_millisecond().saturating_sub(boot)
}
