//! Nonces live as long as the command: each is renewed at about half of its period, until its life ends for good.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use super::voice::Voice;
use crate::cli::print;
use crate::control::client::{Client, ClientError};
use crate::control::types::{GrantGiven, LeaseView, Minted};

/// Between two renewals, or two tries, at least.
const WAIT_MIN: Duration = Duration::from_millis(250);
/// Between two tries at most.
const WAIT_MAX: Duration = Duration::from_secs(15);

/// A nonce of the run, without the nonce.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) id: String,
    /// The variables that hold it.
    pub(super) names: String,
    pub(super) grants: Vec<GrantGiven>,
    /// What a renewal asks for: as much as the mint gave, in seconds.
    seconds: u64,
    period: Period,
}

/// One period of its life.
#[derive(Debug, Clone, Copy)]
struct Period {
    expires_at: Timestamp,
    expires_in: Duration,
    ends_at: Timestamp,
}

impl Held {
    pub(super) fn new(minted: &Minted, names: String) -> Self {
        let Minted { issued_at, expires_at, expires_in, ends_at, .. } = *minted;
        let given = (expires_at.duration_since(issued_at).as_millis() + 500) / 1000;
        let seconds = u64::try_from(given).unwrap_or(0).max(1);
        let period = Period { expires_at, expires_in: Duration::from_secs(expires_in), ends_at };
        Self { id: minted.id.clone(), names, grants: minted.grants.clone(), seconds, period }
    }
}

impl Period {
    fn of(lease: &LeaseView) -> Self {
        let LeaseView { expires_at, expires_in, ends_at, .. } = *lease;
        Self { expires_at, expires_in: Duration::from_secs(expires_in), ends_at }
    }

    /// True if no renewal can make its end later.
    fn is_last(&self) -> bool {
        self.expires_at >= self.ends_at
    }

    /// About half of what is left; not the same for all, so that they do not come in step.
    fn half(&self) -> Duration {
        let mut random = [128];
        // Without randomness it is exactly half.
        let _ = getrandom::fill(&mut random);
        let share = 0.45 + 0.1 * f64::from(random[0]) / 255.0;
        self.expires_in.mul_f64(share).max(WAIT_MIN)
    }
}

/// Renews one nonce until that is over, and says why it is.
pub(super) async fn keep(client: Client, held: Held, voice: Voice) {
    let mut period = held.period;
    loop {
        if period.is_last() {
            let left = print::span(period.expires_in.as_secs());
            voice.warn(format_args!(
                "the nonce in {} ends for good at {} (in {left})",
                held.names,
                whole(period.ends_at)
            ));
            return;
        }
        sleep(period.half()).await;
        match renewed(&client, &held, &period, voice).await {
            Some(next) if next.expires_at > period.expires_at => period = next,
            // Not a moment was won: nothing more will be.
            Some(next) => period = Period { ends_at: next.expires_at, ..next },
            None => return,
        }
    }
}

/// The next period; `None` once there will be none, which was then said.
async fn renewed(client: &Client, held: &Held, period: &Period, voice: Voice) -> Option<Period> {
    let deadline = Instant::now() + period.expires_in;
    let mut wait = WAIT_MIN;
    let mut is_told = false;
    loop {
        let error = match client.renew(&held.id, Some(held.seconds)).await {
            Ok(lease) => return Some(Period::of(&lease)),
            Err(error) => error,
        };
        let said = print::visible(&error.to_string());
        if is_final(&error) || Instant::now() + wait >= deadline {
            voice.warn(format_args!(
                "the nonce in {} is not renewed any more: {said}; it ends at {}",
                held.names,
                whole(period.expires_at)
            ));
            return None;
        }
        if !std::mem::replace(&mut is_told, true) {
            voice.warn(format_args!("the nonce in {} could not be renewed yet: {said}; trying again", held.names));
        }
        sleep(wait).await;
        wait = (wait * 2).min(WAIT_MAX);
    }
}

/// Without fractions of a second, which nobody reads.
fn whole(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// True if trying again is of no use.
fn is_final(error: &ClientError) -> bool {
    match error {
        ClientError::Refused(problem) => (400..500).contains(&problem.status) && ![408, 429].contains(&problem.status),
        ClientError::Unsendable(_) => true,
        ClientError::Connect { .. }
        | ClientError::Broken(_)
        | ClientError::Timeout
        | ClientError::Unintelligible(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::types::Problem;

    fn period(expires_in: u64, more: i64) -> Period {
        let expires_at = Timestamp::from_second(1_800_000_000).unwrap();
        let ends_at = Timestamp::from_second(1_800_000_000 + more).unwrap();
        Period { expires_at, expires_in: Duration::from_secs(expires_in), ends_at }
    }

    #[test]
    fn it_is_renewed_at_about_half_and_not_beyond_its_life() {
        for _ in 0..100 {
            let half = period(100, 1).half();
            assert!((Duration::from_secs(45)..=Duration::from_secs(55)).contains(&half), "{half:?}");
        }
        assert_eq!(period(0, 1).half(), WAIT_MIN);
        assert!(!period(100, 1).is_last());
        assert!(period(100, 0).is_last());
    }

    #[test]
    fn a_refusal_is_final_and_a_failure_is_not() {
        let refused = |status| is_final(&ClientError::Refused(Box::new(Problem { status, ..Problem::default() })));
        assert!(refused(404) && refused(403));
        assert!(!refused(429) && !refused(503));
        assert!(!is_final(&ClientError::Timeout));
    }
}
