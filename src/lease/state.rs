//! Whether a lease lives, and until when: one word, so that its end and its renewal cannot both happen.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::EndCause;
use super::sync::AtomicU64;

/// The low bits of the word: alive (zero), or why it ended.
const CAUSE_MASK: u64 = 0b111;
/// Above the cause: how often it was renewed, so that no two living states look the same.
const RENEWAL: u64 = 1 << 3;
const RENEWALS_MASK: u64 = 0xff << 3;
/// Above the renewals: when the period ends by the boot-time clock, in microseconds since the minting.
const BOOT_SHIFT: u32 = 11;
/// The longest period that the word can hold, some 285 years.
const MICROSECONDS_MAX: u64 = u64::MAX >> BOOT_SHIFT;

/// When a period ends, as time since the minting, by each clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Period {
    pub(super) boot: Duration,
    pub(super) wall: Duration,
}

impl Period {
    /// As the state keeps it, to the microsecond.
    pub(super) fn kept(self) -> Self {
        let kept = |time| Duration::from_micros(microseconds(time));
        Self { boot: kept(self.boot), wall: kept(self.wall) }
    }
}

/// Alive until the period ends, or over for good.
///
/// Whoever ends a lease or renews it swaps the word from a living state that was looked at: of a renewal and an expiry
/// at the same time exactly one happens, and the other one sees that.
pub(super) struct State {
    word: AtomicU64,
    /// The period's end by the wall clock, in microseconds since the minting. Written before the word that it belongs
    /// to, and read after it: it is never earlier than what the word has. A word that is swapped had this one.
    wall: AtomicU64,
}

impl State {
    /// Alive for so long on both clocks.
    pub(super) fn new(period: Duration) -> Self {
        let end = microseconds(period);
        Self { word: AtomicU64::new(end << BOOT_SHIFT), wall: AtomicU64::new(end) }
    }

    /// Why it is over, if anybody noticed.
    pub(super) fn cause(&self) -> Option<EndCause> {
        match self.word.load(Ordering::SeqCst) & CAUSE_MASK {
            0 => None,
            1 => Some(EndCause::Expired),
            3 => Some(EndCause::Spent),
            4 => Some(EndCause::Misplaced),
            // 2, and never anything else: `code` gives all there are.
            _ => Some(EndCause::Revoked),
        }
    }

    /// The present period, or the last one.
    pub(super) fn period(&self) -> Period {
        self.period_of(self.word.load(Ordering::SeqCst))
    }

    /// Ends it whatever its period. True for the one caller that ended it.
    pub(super) fn end(&self, cause: EndCause) -> bool {
        self.swap(|word| is_alive(word).then_some(word | code(cause)))
    }

    /// Ends it if its period is over: what was renewed meanwhile lives on. True for the one caller that ended it.
    pub(super) fn expire(&self, is_over: impl Fn(Period) -> bool) -> bool {
        self.swap(|word| (is_alive(word) && is_over(self.period_of(word))).then_some(word | code(EndCause::Expired)))
    }

    /// Lets it live until then, never shorter than it would anyhow; false if it is over. One caller at a time.
    pub(super) fn extend(&self, later: Period, is_over: impl Fn(Period) -> bool) -> bool {
        let word = self.word.load(Ordering::SeqCst);
        let present = self.period_of(word);
        if !is_alive(word) || is_over(present) {
            return false;
        }
        self.wall.store(microseconds(later.wall.max(present.wall)), Ordering::SeqCst);
        let renewals = word.wrapping_add(RENEWAL) & RENEWALS_MASK;
        let next = microseconds(later.boot.max(present.boot)) << BOOT_SHIFT | renewals;
        self.word.compare_exchange(word, next, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn swap(&self, next: impl FnMut(u64) -> Option<u64>) -> bool {
        self.word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next).is_ok()
    }

    fn period_of(&self, word: u64) -> Period {
        let wall = Duration::from_micros(self.wall.load(Ordering::SeqCst));
        Period { boot: Duration::from_micros(word >> BOOT_SHIFT), wall }
    }
}

fn is_alive(word: u64) -> bool {
    word & CAUSE_MASK == 0
}

fn code(cause: EndCause) -> u64 {
    match cause {
        EndCause::Expired => 1,
        EndCause::Revoked => 2,
        EndCause::Spent => 3,
        EndCause::Misplaced => 4,
    }
}

/// Rounded down: a lease never lives longer than it was given.
fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).min(MICROSECONDS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn both(period: Duration) -> Period {
        Period { boot: period, wall: period }
    }

    #[test]
    fn it_ends_once_and_is_not_extended_afterwards() {
        for cause in [EndCause::Expired, EndCause::Revoked, EndCause::Spent, EndCause::Misplaced] {
            let state = State::new(MINUTE);
            assert!(state.cause().is_none());
            assert!(state.end(cause) && !state.end(EndCause::Revoked));
            assert!(!state.extend(both(2 * MINUTE), |_| false) && !state.expire(|_| true));
            assert_eq!((state.cause(), state.period()), (Some(cause), both(MINUTE)));
        }
    }

    #[test]
    fn each_clock_goes_forward_alone() {
        let state = State::new(MINUTE);
        assert!(state.extend(Period { boot: 3 * MINUTE, wall: Duration::ZERO }, |_| false));
        assert_eq!(state.period(), Period { boot: 3 * MINUTE, wall: MINUTE });
        assert!(state.extend(Period { boot: MINUTE, wall: 2 * MINUTE }, |_| false));
        assert_eq!(state.period(), Period { boot: 3 * MINUTE, wall: 2 * MINUTE });
    }

    #[test]
    fn an_expiry_that_looked_before_a_renewal_does_not_end_it() {
        let state = State::new(MINUTE);
        let looks = std::cell::Cell::new(0);
        let expired = state.expire(|period| {
            looks.set(looks.get() + 1);
            if looks.get() == 1 {
                assert!(state.extend(Period { boot: MINUTE, wall: 2 * MINUTE }, |_| false), "by the wall clock alone");
            }
            period.wall == MINUTE
        });
        assert!(!expired && looks.get() == 2);
        assert_eq!(state.cause(), None);
    }

    #[test]
    fn renewals_do_not_run_into_the_period_and_the_longest_period_fits() {
        let state = State::new(Duration::MAX);
        for _ in 0..1000 {
            assert!(state.extend(both(MINUTE), |_| false));
        }
        assert_eq!(state.period(), both(Duration::from_micros(MICROSECONDS_MAX)));
        assert_eq!(state.cause(), None);
    }
}
