//! Moments and deadlines on two clocks at once.
//!
//! A laptop that sleeps stops the monotonic clock, and an operator can set the
//! wall clock: a [`Deadline`] is over when either of the two says so.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// One moment, read from both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Time since boot, suspended time included (`CLOCK_BOOTTIME`).
    pub boot: Duration,
    /// Civil time (`CLOCK_REALTIME`).
    pub wall: Timestamp,
}

/// A moment in the future on both clocks; over as soon as either has passed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// On the boot-time clock.
    pub boot: Duration,
    /// On the wall clock.
    pub wall: Timestamp,
}

impl Now {
    /// The deadline that lies `after` this moment; saturates at the end of time.
    #[must_use]
    pub fn plus(&self, after: Duration) -> Deadline {
        let signed = SignedDuration::try_from(after).unwrap_or(SignedDuration::MAX);
        Deadline {
            boot: self.boot.saturating_add(after),
            wall: self.wall.saturating_add(signed).unwrap_or(Timestamp::MAX),
        }
    }
}

impl Deadline {
    /// True from the deadline on, by whichever clock gets there first.
    #[must_use]
    pub fn is_over(&self, now: &Now) -> bool {
        now.boot >= self.boot || now.wall >= self.wall
    }

    /// How long until the deadline, by the clock that gets there first; zero when it is over.
    #[must_use]
    pub fn remaining(&self, now: &Now) -> Duration {
        let boot = self.boot.saturating_sub(now.boot);
        let wall = Duration::try_from(self.wall.duration_since(now.wall)).unwrap_or(Duration::ZERO);
        boot.min(wall)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(boot: u64, wall: i64) -> Now {
        Now { boot: Duration::from_secs(boot), wall: Timestamp::from_second(wall).unwrap() }
    }

    #[test]
    fn the_earlier_clock_decides() {
        let deadline = now(100, 1_000).plus(Duration::from_secs(10));
        assert!(!deadline.is_over(&now(109, 1_009)));
        assert!(deadline.is_over(&now(110, 1_000)), "suspend: boot time went on");
        assert!(deadline.is_over(&now(100, 1_010)), "wall clock was set forward");
        assert_eq!(deadline.remaining(&now(105, 1_000)), Duration::from_secs(5));
        assert_eq!(deadline.remaining(&now(100, 2_000)), Duration::ZERO);
    }

    #[test]
    fn a_wall_clock_set_back_extends_nothing() {
        let deadline = now(100, 1_000).plus(Duration::from_secs(10));
        assert!(deadline.is_over(&now(110, 0)));
    }

    #[test]
    fn the_end_of_time_does_not_overflow() {
        let deadline = now(100, 1_000).plus(Duration::MAX);
        assert!(!deadline.is_over(&now(200, 2_000)));
    }
}
