//! A rate: when the next use may come.
//!
//! The generic cell rate algorithm (GCRA; ITU-T I.371): of `10/min` ten may come at once, and then one every six seconds,
//! so that a full burst is there again after a minute of rest. All that is kept is one number, when everything let
//! through so far is paid for, in nanoseconds since boot; zero for what was never used.

use std::time::Duration;

use crate::model::Rate;

/// How long the next one has to wait; `None` if it may come now.
pub(crate) fn wait(paid: u64, rate: Rate, now: u64) -> Option<Duration> {
    let ahead = paid.saturating_sub(now);
    let burst = interval(rate).saturating_mul(u64::from(rate.count()) - 1);
    (ahead > burst).then(|| Duration::from_nanos(ahead - burst))
}

/// When everything is paid for once another one is let through now.
pub(crate) fn paid(paid: u64, rate: Rate, now: u64) -> u64 {
    paid.max(now).saturating_add(interval(rate))
}

/// When everything is paid for once as many as were not by now, at one rate, are owed at another.
pub(crate) fn exchanged(paid: u64, from: Rate, to: Rate, now: u64) -> u64 {
    let owed = u128::from(paid.saturating_sub(now)) * u128::from(interval(to)) / u128::from(interval(from));
    now.saturating_add(u64::try_from(owed).unwrap_or(u64::MAX))
}

/// From one to the next; rounded up, so that there are never more than the rate says.
fn interval(rate: Rate) -> u64 {
    nanoseconds(rate.window()).div_ceil(u64::from(rate.count()))
}

/// A time since boot, as it is kept here.
pub(crate) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Asks at these moments; those that were let through.
    fn through(rate: &str, moments: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let rate = Rate::parse(rate).unwrap();
        let mut kept = 0;
        let mut through = Vec::new();
        for now in moments {
            if wait(kept, rate, now).is_none() {
                kept = paid(kept, rate, now);
                through.push(now);
            }
        }
        through
    }

    #[test]
    fn a_burst_and_then_one_by_one() {
        let start = 3600 * SECOND;
        let moments = (0..60).flat_map(|second| std::iter::repeat_n(start + second * SECOND, 3));
        let through: Vec<u64> = through("10/min", moments).iter().map(|at| (at - start) / SECOND).collect();
        assert_eq!(through, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 6, 12, 18, 24, 30, 36, 42, 48, 54]);
    }

    #[test]
    fn after_the_wait_that_was_said_it_may_come_and_not_before() {
        for text in ["1/s", "3/s", "7/min", "10/min", "1/h", "999/d", "1000000/s"] {
            let rate = Rate::parse(text).unwrap();
            let (mut kept, mut now) = (0, 5 * SECOND);
            for _ in 0..2 * rate.count().min(100) {
                if let Some(time) = wait(kept, rate, now) {
                    assert!(wait(kept, rate, now + nanoseconds(time) - 1).is_some(), "{text}");
                    now += nanoseconds(time);
                }
                assert_eq!(wait(kept, rate, now), None, "{text}");
                kept = paid(kept, rate, now);
            }
        }
    }

    #[test]
    fn over_a_long_time_there_are_never_more_than_the_rate_and_one_burst() {
        for (text, count, window) in [("3/s", 3, 1), ("7/min", 7, 60), ("11/s", 11, 1)] {
            // Every 10 ms for 100 windows.
            let moments = (0..window * 100 * 100).map(|tick| tick * SECOND / 100);
            let through = through(text, moments).len() as u64;
            assert!((100 * count..=101 * count).contains(&through), "{text}: {through}");
        }
    }

    #[test]
    fn a_clock_at_its_end_lets_nothing_wrap() {
        let rate = Rate::parse("1/d").unwrap();
        assert_eq!(paid(u64::MAX, rate, u64::MAX), u64::MAX);
        assert!(wait(u64::MAX, rate, 0).is_some());
    }
}
