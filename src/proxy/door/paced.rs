//! How often one lease may call: each call moves the moment when all before it are paid for (GCRA).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::model::NonceId;

/// One call is paid for in this time.
const CALL_EVERY: Duration = Duration::from_secs(1);
/// Calls of one lease at once.
const CALLS_AT_ONCE: u32 = 10;
/// Leases that are remembered; more are told to wait, since what is forgotten would be free.
const LEASES_MAX: usize = 4096;

/// The leases that called lately, each with the moment when its calls are paid for.
#[derive(Default)]
pub(super) struct Paced(Mutex<HashMap<NonceId, Instant>>);

impl Paced {
    /// Takes one call of a lease.
    ///
    /// # Errors
    /// How long to wait.
    pub(super) fn admit(&self, id: NonceId, now: Instant) -> Result<(), Duration> {
        const AHEAD_MAX: Duration = CALL_EVERY.saturating_mul(CALLS_AT_ONCE - 1);
        let mut paid = self.0.lock();
        if paid.len() >= LEASES_MAX && !paid.contains_key(&id) {
            paid.retain(|_, until| *until > now);
            if paid.len() >= LEASES_MAX {
                return Err(CALL_EVERY);
            }
        }
        let until = paid.entry(id).or_insert(now);
        let ahead = until.saturating_duration_since(now);
        if ahead > AHEAD_MAX {
            return Err(ahead.saturating_sub(AHEAD_MAX));
        }
        *until = now + ahead + CALL_EVERY;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> NonceId {
        NonceId::from_parts(1, number)
    }

    #[test]
    fn ten_at_once_and_then_one_a_second() {
        let (paced, now) = (Paced::default(), Instant::now());
        for call in 0..CALLS_AT_ONCE {
            assert_eq!(paced.admit(id(1), now), Ok(()), "{call}");
        }
        assert_eq!(paced.admit(id(1), now), Err(CALL_EVERY));
        assert_eq!(paced.admit(id(2), now), Ok(()), "another lease has its own");
        let later = now + CALL_EVERY;
        assert_eq!(paced.admit(id(1), later), Ok(()), "what was refused cost nothing");
        assert_eq!(paced.admit(id(1), later), Err(CALL_EVERY));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_never_forgotten_early() {
        let (paced, now) = (Paced::default(), Instant::now());
        for number in 0..LEASES_MAX as u128 {
            assert_eq!(paced.admit(id(number), now), Ok(()));
        }
        assert_eq!(paced.admit(id(u128::from(u64::MAX)), now), Err(CALL_EVERY), "no room");
        assert_eq!(paced.admit(id(3), now), Ok(()), "known ones go on");
        assert_eq!(
            paced.admit(id(u128::from(u64::MAX)), now + CALL_EVERY),
            Ok(()),
            "those that are paid for make room"
        );
        assert!(paced.0.lock().len() <= 2, "only what is not paid for is kept");
    }
}
