//! How often something may happen, and how often altogether.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::{ScopeName, ServiceName};

/// The greatest number in a rate: a microsecond for each in a second.
pub const RATE_COUNT_MAX: u32 = 1_000_000;

/// So many in so much time: `10/min`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    count: NonZeroU32,
    window: Window,
}

/// The times that a rate can be for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Window {
    Second,
    Minute,
    Hour,
    Day,
}

impl Window {
    const ALL: [Self; 4] = [Self::Second, Self::Minute, Self::Hour, Self::Day];

    fn word(self) -> &'static str {
        match self {
            Self::Second => "s",
            Self::Minute => "min",
            Self::Hour => "h",
            Self::Day => "d",
        }
    }

    fn time(self) -> Duration {
        Duration::from_secs(match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 60 * 60,
            Self::Day => 24 * 60 * 60,
        })
    }
}

impl Rate {
    /// Parses `10/min`: a whole number from 1 to [`RATE_COUNT_MAX`] without leading zeros, and `s`, `min`, `h` or `d`.
    ///
    /// ```
    /// use valetkey::model::Rate;
    /// let rate = Rate::parse("10/min").unwrap();
    /// assert_eq!((rate.count(), rate.window().as_secs()), (10, 60));
    /// assert_eq!(Rate::parse("10 / minute"), None);
    /// ```
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (digits, word) = text.split_once('/')?;
        let window = Window::ALL.into_iter().find(|window| window.word() == word)?;
        let count: NonZeroU32 = digits.parse().ok()?;
        let is_plain = count.to_string() == digits && count.get() <= RATE_COUNT_MAX;
        is_plain.then_some(Self { count, window })
    }

    /// So many a second; as many as there can be of what is more.
    #[must_use]
    pub const fn per_second(count: NonZeroU32) -> Self {
        let max = NonZeroU32::MIN.saturating_add(RATE_COUNT_MAX - 1);
        Self { count: if count.get() > max.get() { max } else { count }, window: Window::Second }
    }

    /// How many.
    #[must_use]
    pub fn count(self) -> u32 {
        self.count.get()
    }

    /// True where nothing that keeps to this one breaks the other: no more of them come at once, and none sooner after
    /// the one before.
    ///
    /// ```
    /// use valetkey::model::Rate;
    /// let rate = |text| Rate::parse(text).unwrap();
    /// assert!(rate("9/min").is_within(rate("10/min")) && rate("1/h").is_within(rate("1/s")));
    /// assert!(!rate("1/s").is_within(rate("10/min")), "sixty a minute");
    /// assert!(!rate("60/h").is_within(rate("1/min")), "sixty at once");
    /// ```
    #[must_use]
    pub fn is_within(self, other: Self) -> bool {
        // Seconds and counts are small: their products fit.
        let sustained = |rate: Self, other: Self| u64::from(rate.count()) * other.window().as_secs();
        self.count <= other.count && sustained(self, other) <= sustained(other, self)
    }

    /// In how much time.
    #[must_use]
    pub fn window(self) -> Duration {
        self.window.time()
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, self.window.word())
    }
}

/// How fast a nonce may do what one rule of a scope allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleRate {
    /// The scope's service.
    pub service: ServiceName,
    /// The scope.
    pub scope: ScopeName,
    /// The rule, as the policy spells it.
    pub rule: Arc<str>,
    /// How fast.
    pub rate: Rate,
}

/// What all nonces of one task may do together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Uses altogether (`None`: no limit).
    pub uses: Option<NonZeroU32>,
    /// How fast (`None`: no limit).
    pub rate: Option<Rate>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_and_spelled() {
        for (text, count, seconds) in
            [("1/s", 1, 1), ("10/min", 10, 60), ("500/h", 500, 3600), ("1/d", 1, 86_400), ("1000000/s", 1_000_000, 1)]
        {
            let rate = Rate::parse(text).unwrap();
            assert_eq!((rate.count(), rate.window()), (count, Duration::from_secs(seconds)));
            assert_eq!(rate.to_string(), text);
        }
    }

    #[test]
    fn within_is_an_order() {
        let all = ["1/s", "3/s", "1/min", "10/min", "60/min", "60/h", "600/h", "1/d", "1000000/s", "1000000/d"];
        let all = all.map(|text| Rate::parse(text).unwrap());
        for a in all {
            assert!(a.is_within(a));
            for b in all {
                assert!(a == b || !(a.is_within(b) && b.is_within(a)), "{a} {b}");
                for c in all {
                    assert!(!(a.is_within(b) && b.is_within(c)) || a.is_within(c), "{a} {b} {c}");
                }
            }
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            "/",
            "10",
            "10/",
            "/min",
            "0/min",
            "-1/min",
            "+1/min",
            "01/min",
            "1.5/s",
            "10 /min",
            "10/ min",
            "10/m",
            "10/minute",
            "10/MIN",
            "10/min/s",
            "10/2min",
            "1000001/s",
            "4294967296/d",
            "\u{661}/s",
        ] {
            assert_eq!(Rate::parse(bad), None, "{bad:?}");
        }
    }
}
