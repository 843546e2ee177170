//! How often one minter may call, so that it leaves time for the others.
//!
//! Ending things has an allowance of its own: whoever has minted too fast still revokes, and stops an agent.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use super::route::Call;
use crate::lease::pace;
use crate::model::{MinterName, Now};
use crate::policy::MinterRule;

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
}

/// The minters that called lately, each with the moment when its calls are paid for, as in [`pace`].
#[derive(Default)]
pub(super) struct Calls(Mutex<HashMap<(MinterName, Kind), u64>>);

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
            let key = (name.clone(), kind);
            let paid = kept.get(&key).copied().unwrap_or(0);
            let Some(wait) = pace::wait(paid, limits.rate, now) else {
                // Whoever is paid for is forgotten, which changes nothing: there are no more than names of minters.
                if paid == 0 {
                    kept.retain(|_, paid| *paid > now);
                }
                kept.insert(key, pace::paid(paid, limits.rate, now));
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
    fn who_may_act_as_several_has_what_each_of_them_has() {
        let (calls, both) = (Calls::default(), [minter("a", "1/min"), minter("b", "1/h")]);
        let admit = || calls.admit(&both, Kind::Asking, &at(60));
        assert_eq!((admit(), admit(), admit()), (Ok(()), Ok(()), Err(Duration::from_secs(60))));
    }
}
