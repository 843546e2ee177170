//! How often one lease may call: each call moves the moment when all before it are paid for (GCRA).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::model::{AgentName, NonceId};

/// One call is paid for in this time.
const CALL_EVERY: Duration = Duration::from_secs(1);
/// Calls of one lease at once.
const CALLS_AT_ONCE: u32 = 10;
/// Leases that are remembered; more are told to wait, since what is forgotten would be free.
const LEASES_MAX: usize = 4096;

/// The leases that called lately.
#[derive(Default)]
pub(super) struct Paced(Mutex<Callers>);

/// Each with the moment when its calls are paid for, by whose they are. Of an agent there are at most as many as there is
/// room for others: one agent, however many leases it calls with, leaves half of the room to all others.
#[derive(Default)]
struct Callers {
    by_agent: HashMap<AgentName, HashMap<NonceId, Instant>>,
    count: usize,
}

impl Paced {
    /// Takes one call of a lease of this agent.
    ///
    /// # Errors
    /// How long to wait.
    pub(super) fn admit(&self, agent: &AgentName, id: NonceId, now: Instant) -> Result<(), Duration> {
        const AHEAD_MAX: Duration = CALL_EVERY.saturating_mul(CALLS_AT_ONCE - 1);
        let mut callers = self.0.lock();
        let until = callers.known(agent, id).unwrap_or(now);
        let ahead = until.saturating_duration_since(now);
        if ahead > AHEAD_MAX {
            return Err(ahead.saturating_sub(AHEAD_MAX));
        }
        if callers.remember(agent, id, now + ahead + CALL_EVERY, now) { Ok(()) } else { Err(CALL_EVERY) }
    }
}

impl Callers {
    fn known(&self, agent: &AgentName, id: NonceId) -> Option<Instant> {
        self.by_agent.get(agent)?.get(&id).copied()
    }

    /// False where there is no room for one more lease of this agent.
    fn remember(&mut self, agent: &AgentName, id: NonceId, until: Instant, now: Instant) -> bool {
        let is_new = self.known(agent, id).is_none();
        if is_new && !self.has_room(agent) {
            self.forget_paid(now);
            if !self.has_room(agent) {
                return false;
            }
        }
        self.count += usize::from(is_new);
        self.by_agent.entry(agent.clone()).or_default().insert(id, until);
        true
    }

    fn has_room(&self, agent: &AgentName) -> bool {
        self.by_agent.get(agent).map_or(0, HashMap::len) < LEASES_MAX - self.count
    }

    fn forget_paid(&mut self, now: Instant) {
        for leases in self.by_agent.values_mut() {
            leases.retain(|_, until| *until > now);
        }
        self.by_agent.retain(|_, leases| !leases.is_empty());
        self.count = self.by_agent.values().map(HashMap::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> NonceId {
        NonceId::from_parts(1, number)
    }

    fn agent(name: &str) -> AgentName {
        AgentName::parse(name).unwrap()
    }

    #[test]
    fn ten_at_once_and_then_one_a_second() {
        let (paced, one, now) = (Paced::default(), agent("one"), Instant::now());
        for call in 0..CALLS_AT_ONCE {
            assert_eq!(paced.admit(&one, id(1), now), Ok(()), "{call}");
        }
        assert_eq!(paced.admit(&one, id(1), now), Err(CALL_EVERY));
        assert_eq!(paced.admit(&one, id(2), now), Ok(()), "another lease has its own");
        let later = now + CALL_EVERY;
        assert_eq!(paced.admit(&one, id(1), later), Ok(()), "what was refused cost nothing");
        assert_eq!(paced.admit(&one, id(1), later), Err(CALL_EVERY));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_never_forgotten_early() {
        let (paced, one, now) = (Paced::default(), agent("one"), Instant::now());
        let another = id(u128::from(u64::MAX));
        for number in 0..LEASES_MAX as u128 / 2 {
            assert_eq!(paced.admit(&one, id(number), now), Ok(()));
        }
        assert_eq!(paced.admit(&one, another, now), Err(CALL_EVERY), "no room");
        assert_eq!(paced.admit(&one, id(3), now), Ok(()), "known ones go on");
        assert_eq!(paced.admit(&one, another, now + CALL_EVERY), Ok(()), "those that are paid for make room");
        assert!(paced.0.lock().count <= 2, "only what is not paid for is kept");
    }

    #[test]
    fn an_agent_that_calls_with_all_it_can_get_leaves_room_for_others() {
        let (paced, now) = (Paced::default(), Instant::now());
        let through = |agent: &AgentName| {
            (0..2 * LEASES_MAX as u128).filter(|number| paced.admit(agent, id(*number), now).is_ok()).count()
        };
        assert_eq!(through(&agent("greedy")), LEASES_MAX / 2);
        assert_eq!(through(&agent("as-greedy")), LEASES_MAX / 4);
        assert_eq!(paced.admit(&agent("modest"), id(1), now), Ok(()));
        assert!(paced.0.lock().count < LEASES_MAX);
    }
}
