//! This machine's clocks, set ahead by hand.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use valetkey::clock::{Clock, SystemClock};
use valetkey::model::Now;

use crate::pauses::nanoseconds;

/// The system's clocks, both ahead by so many nanoseconds. No lock: threads that read it do not meet there.
#[derive(Default)]
pub struct Ahead(AtomicU64);

impl Ahead {
    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(nanoseconds(by), Ordering::Relaxed);
    }
}

impl Clock for Ahead {
    fn now(&self) -> Now {
        let later = SystemClock.now().plus(Duration::from_nanos(self.0.load(Ordering::Relaxed)));
        Now { boot: later.boot, wall: later.wall }
    }
}
