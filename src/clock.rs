//! Reading the two clocks; everything that decides by time takes a [`Clock`].

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

use crate::model::Now;

/// A source of the present moment.
pub trait Clock: Send + Sync + 'static {
    /// This moment on both clocks.
    fn now(&self) -> Now;
}

/// A clock that many parts share.
pub type SharedClock = Arc<dyn Clock>;

/// The clocks of this machine: `CLOCK_BOOTTIME` where there is one, and `CLOCK_REALTIME`.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Now {
        #[cfg(target_os = "linux")]
        let id = ClockId::Boottime;
        #[cfg(not(target_os = "linux"))]
        let id = ClockId::Monotonic;
        let time = clock_gettime(id);
        let boot = Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0));
        Now { boot, wall: wall() }
    }
}

/// By the standard library, which asks the C library: what stands in for that library's clock is believed here too.
fn wall() -> Timestamp {
    let Ok(since) = SystemTime::now().duration_since(UNIX_EPOCH) else { return Timestamp::now() };
    let (seconds, nanoseconds) = (i64::try_from(since.as_secs()), i32::try_from(since.subsec_nanos()));
    // A clock that is set beyond what can be said is past every deadline.
    Timestamp::new(seconds.unwrap_or(i64::MAX), nanoseconds.unwrap_or(0)).unwrap_or(Timestamp::MAX)
}

/// A clock that tests move by hand.
#[derive(Debug)]
pub struct ManualClock(parking_lot::Mutex<Now>);

impl ManualClock {
    /// Starts an hour after boot, at this machine's wall time.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let now = Now { boot: Duration::from_secs(3600), wall: Timestamp::now() };
        Arc::new(Self(parking_lot::Mutex::new(now)))
    }

    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        let mut now = self.0.lock();
        let later = now.plus(by);
        *now = Now { boot: later.boot, wall: later.wall };
    }

    /// Sets the clocks apart.
    pub fn set(&self, moment: Now) {
        *self.0.lock() = moment;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Now {
        *self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_clock_is_the_one_that_everybody_reads() {
        let (before, now, after) = (Timestamp::now(), SystemClock.now(), Timestamp::now());
        assert!(before <= now.wall && now.wall <= after);
    }
}
