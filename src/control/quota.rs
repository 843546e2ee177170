//! How often one minter may call, so that it leaves time for the others.
//!
//! Ending things has an allowance of its own: whoever has minted too fast still revokes, and stops an agent.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use super::route::Call;
use crate::lease::pace;
use crate::model::{MinterName, Now, Rate};
use crate::policy::{MinterLimits, MinterRule};

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// Mints, renewals and delegations.
    Making,
    /// Whatever ends or lowers something.
    Ending,
    /// Everything else.
    Asking,
}

impl Kind {
    /// Of a call.
    pub(super) fn of(call: Call<'_>) -> Self {
        match call {
            Call::Mint | Call::Renew(_) | Call::Delegate(_) => Self::Making,
            Call::Revoke(_) | Call::Revocations | Call::Complete(_) | Call::Leaks | Call::Risk => Self::Ending,
            Call::List
            | Call::Read(_)
            | Call::Introspect
            | Call::Services
            | Call::WhoAmI
            | Call::Ready
            | Call::Events
            | Call::CaPem
            | Call::OpenApi
            | Call::Explain => Self::Asking,
        }
    }

    /// How fast a minter may do this. What ends things is never slower than by default: who may make few nonces, or ask
    /// seldom, has to stop a runaway agent all the same, and whoever has made many at once ends them at once.
    fn rate(self, limits: &MinterLimits) -> Rate {
        let floor = MinterLimits::default().rate;
        match self {
            Self::Ending if !floor.is_within(limits.rate) => floor,
            Self::Making | Self::Ending | Self::Asking => limits.rate,
        }
    }
}

/// The minters that called lately, with what they owe.
#[derive(Default)]
pub(super) struct Calls(Mutex<HashMap<(MinterName, Kind), Owed>>);

/// When the calls of a minter are paid for, as in [`pace`]; and the rate by which that was reckoned.
#[derive(Clone, Copy)]
struct Owed {
    paid: u64,
    rate: Rate,
}

impl Owed {
    /// The same at another rate: where the policy has changed, as many calls are owed as before, each at what it costs now.
    fn at(self, rate: Rate, now: u64) -> u64 {
        if self.rate == rate { self.paid } else { pace::exchanged(self.paid, self.rate, rate, now) }
    }
}

impl Calls {
    /// Takes one call of whoever may act as these: from the first of them that has one left.
    ///
    /// # Errors
    /// How long until one of them has.
    pub(super) fn admit(&self, minters: &[MinterRule], kind: Kind, now: &Now) -> Result<(), Duration> {
        let now = pace::nanoseconds(now.boot);
        let mut kept = self.0.lock();
        let mut shortest = Duration::MAX;
        for MinterRule { name, limits, .. } in minters {
            let (key, rate) = ((name.clone(), kind), kind.rate(limits));
            let paid = kept.get(&key).map_or(0, |owed| owed.at(rate, now));
            let Some(wait) = pace::wait(paid, rate, now) else {
                // Whoever is paid for is forgotten, which changes nothing: there are no more than names of minters.
                if !kept.contains_key(&key) {
                    kept.retain(|_, owed| owed.paid > now);
                }
                kept.insert(key, Owed { paid: pace::paid(paid, rate, now), rate });
                return Ok(());
            };
            shortest = shortest.min(wait);
        }
        Err(shortest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{IdentityRule, Rate};
    use crate::policy::MinterLimits;

    fn minter(name: &str, rate: &str) -> MinterRule {
        MinterRule {
            name: MinterName::parse(name).unwrap(),
            identities: vec![IdentityRule::Uid(1)],
            agents: None,
            may: Vec::new(),
            max_risk: None,
            limits: MinterLimits { rate: Rate::parse(rate).unwrap(), ..MinterLimits::default() },
        }
    }

    fn at(seconds: u64) -> Now {
        Now { boot: Duration::from_secs(seconds), wall: jiff::Timestamp::UNIX_EPOCH }
    }

    #[test]
    fn each_minter_and_each_kind_has_its_own() {
        let (calls, [slow, fast]) = (Calls::default(), [minter("slow", "2/min"), minter("fast", "9/min")]);
        let admit = |who: &MinterRule, kind, second| calls.admit(std::slice::from_ref(who), kind, &at(second));
        assert_eq!([admit(&slow, Kind::Making, 60), admit(&slow, Kind::Making, 60)], [Ok(()); 2]);
        assert_eq!(admit(&slow, Kind::Making, 60), Err(Duration::from_secs(30)));
        for (who, kind) in [(&slow, Kind::Ending), (&slow, Kind::Asking), (&fast, Kind::Making)] {
            assert_eq!(admit(who, kind, 60), Ok(()), "{kind:?}");
        }
        assert_eq!([admit(&slow, Kind::Making, 90), admit(&fast, Kind::Making, 90)], [Ok(()); 2]);
        assert!(admit(&slow, Kind::Making, 90).is_err());
        assert_eq!(admit(&minter("later", "1/s"), Kind::Making, 9_999), Ok(()));
        assert_eq!(calls.0.lock().len(), 1, "what is paid for is forgotten");
    }

    #[test]
    fn another_rate_holds_at_once_for_what_is_owed_too() {
        let calls = Calls::default();
        let admit = |rate, second| calls.admit(&[minter("one", rate)], Kind::Making, &at(second));
        assert_eq!([admit("2/h", 60), admit("2/h", 60)], [Ok(()); 2]);
        assert_eq!(admit("2/h", 60), Err(Duration::from_secs(1_800)));
        assert_eq!(admit("2/min", 60), Err(Duration::from_secs(30)), "two are owed, and cost half a minute each");
        assert_eq!([admit("3/min", 60), admit("2/min", 120)], [Ok(()), Ok(())]);
        assert_eq!(admit("1/h", 120), Err(Duration::from_secs(3_600)), "slower at once, too");
    }

    #[test]
    fn whoever_makes_little_ends_as_fast_as_anybody() {
        for (rate, ends) in [("1/d", 1_000), ("5000/h", 1_000), ("2000/s", 2_000), ("1000/s", 1_000)] {
            let (calls, one) = (Calls::default(), [minter("one", rate)]);
            let through = (0..9_999).filter(|_| calls.admit(&one, Kind::Ending, &at(60)).is_ok()).count();
            assert_eq!(through, ends, "{rate}");
        }
    }

    #[test]
    fn who_may_act_as_several_has_what_each_of_them_has() {
        let (calls, both) = (Calls::default(), [minter("a", "1/min"), minter("b", "1/h")]);
        let admit = || calls.admit(&both, Kind::Asking, &at(60));
        assert_eq!((admit(), admit(), admit()), (Ok(()), Ok(()), Err(Duration::from_secs(60))));
    }
}
