//! Looking up and minting without rest, each one timed.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use valetkey::lease::{Found, Lookup, Minter, Store};
use valetkey::model::NonceHash;
use valetkey::model::nonce::NONCE_BYTES;

use crate::minting::{self, People};
use crate::steps::own_time;

/// Everything that can go wrong ends the run.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The plain nonces, by number.
pub type Texts = Vec<[u8; NONCE_BYTES]>;

/// So many lookups for each mint.
const LOOKUPS_PER_MINT: usize = 8;

/// What counts as a long pause.
const LONG: Duration = Duration::from_millis(1);

/// Of shorter times nobody asks where they went.
const NOTABLE: Duration = Duration::from_micros(100);

/// How long each took, in nanoseconds.
pub struct Pauses {
    /// Of lookups, hash included.
    pub lookups: Histogram<u64>,
    /// Of mints, with all that the control API does for one in memory.
    pub mints: Histogram<u64>,
    /// How many of both took longer than a millisecond.
    pub long: u64,
    /// The longest of both, as far as it is ours: see [`Watch::awake`].
    pub awake_max: Duration,
    /// How many of both took longer than a millisecond without that time.
    pub awake_long: u64,
}

impl Pauses {
    fn new() -> Result<Self, Failure> {
        let (lookups, mints) = (Histogram::new(3)?, Histogram::new(3)?);
        Ok(Self { lookups, mints, long: 0, awake_max: Duration::ZERO, awake_long: 0 })
    }

    fn note(&mut self, time: Duration, watch: &mut Watch) {
        self.long += u64::from(time > LONG);
        if time > NOTABLE {
            let awake = watch.awake(time);
            self.awake_max = self.awake_max.max(awake);
            self.awake_long += u64::from(awake > LONG);
        }
    }
}

/// What the kernel says of the two threads.
struct Watch {
    own: Queue,
    sweeper: Queue,
    /// This thread's CPU time when it was last looked at.
    used: Duration,
}

impl Watch {
    fn new(sweeper: Queue) -> Self {
        let mut watch = Self { own: Queue::of_this_thread(), sweeper, used: Duration::ZERO };
        watch.begin();
        watch
    }

    /// What was before is nothing that the next operation can be spared.
    fn begin(&mut self) {
        self.own.since();
        self.sweeper.since();
        self.used = own_time();
    }

    /// What remains of an operation's time without that in which the machine gave this thread no core: where the thread
    /// never left its core, its CPU time, in which what a hypervisor took is not (the kernel's steal time); where it
    /// did, the time without that in which either thread was ready and waited for a core.
    fn awake(&mut self, time: Duration) -> Duration {
        let (own, sweeper) = (self.own.since(), self.sweeper.since());
        let now = own_time();
        let used = now.saturating_sub(self.used);
        self.used = now;
        if own.is_known && own.turns == 0 {
            return time.min(used);
        }
        let without_a_core = within(own.waited, time).max(within(sweeper.waited, time));
        time.saturating_sub(without_a_core)
    }
}

/// What of an operation's time went into this wait. Of a wait that began long before it, which the kernel does not tell,
/// nothing: it is counted too little rather than too much.
fn within(wait: Duration, time: Duration) -> Duration {
    if wait < time + NOTABLE { wait.min(time) } else { Duration::ZERO }
}

/// How often a thread got a core, and how long it has waited for one, as the kernel counts it.
pub struct Queue {
    file: Option<File>,
    waited: u64,
    turns: u64,
}

/// Of a queue, since it was last looked at.
struct Since {
    waited: Duration,
    turns: u64,
    /// Whether the kernel counts it.
    is_known: bool,
}

impl Queue {
    /// Of the thread that calls this, whoever asks it afterwards.
    #[must_use]
    pub fn of_this_thread() -> Self {
        Self { file: File::open("/proc/thread-self/schedstat").ok(), waited: 0, turns: 0 }
    }

    fn since(&mut self) -> Since {
        let mut text = [0; 96];
        let length = self.file.as_ref().and_then(|file| file.read_at(&mut text, 0).ok()).unwrap_or_default();
        let mut numbers = text[..length].split(u8::is_ascii_whitespace);
        let mut next = || std::str::from_utf8(numbers.next()?).ok()?.parse::<u64>().ok();
        // Its CPU time goes before.
        let (_, waited, turns) = (next(), next(), next());
        let (waited, turns, is_known) = match (waited, turns) {
            (Some(waited), Some(turns)) => (waited, turns, true),
            _ => (self.waited, self.turns, false),
        };
        let since = Since {
            waited: Duration::from_nanos(waited.saturating_sub(self.waited)),
            turns: turns.saturating_sub(self.turns),
            is_known,
        };
        (self.waited, self.turns) = (waited, turns);
        since
    }
}

/// Two cores of those that this process may use.
#[derive(Clone, Copy)]
pub struct Cores {
    /// For who mints and sweeps.
    pub minter: usize,
    /// For who looks up: another one, if there is another.
    pub reader: usize,
}

impl Cores {
    /// To be asked before any thread stays on one.
    ///
    /// # Errors
    /// When the kernel does not say which cores there are.
    pub fn of_this_process() -> Result<Self, Failure> {
        let allowed = sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let minter = cores.next().ok_or("this process may use no core")?;
        Ok(Self { minter, reader: cores.next_back().unwrap_or(minter) })
    }
}

/// Keeps the thread that calls this on a core, so that the two which are measured never share one.
///
/// # Errors
/// When the kernel refuses.
pub fn stay_on(core: usize) -> Result<(), Failure> {
    let mut only = CpuSet::new();
    only.set(core);
    Ok(sched_setaffinity(None, &only)?)
}

/// Looks up live nonces at random (those of even numbers, which outlive the sweep) and mints more of them.
pub struct Restless<'a> {
    lookup: Lookup,
    minter: Minter,
    people: &'a People,
    texts: &'a Texts,
    random: Random,
    next: u64,
}

impl<'a> Restless<'a> {
    /// Numbers go on after those of the texts.
    #[must_use]
    pub fn new(store: &Arc<Store>, people: &'a People, texts: &'a Texts) -> Self {
        let next = (texts.len() as u64).next_multiple_of(2);
        let (lookup, minter) = (store.lookup(), store.minter());
        Self { lookup, minter, people, texts, random: Random::default(), next }
    }

    /// Goes on until `is_over` says so. `sweeper`: who may have had a lock when it lost its core.
    ///
    /// # Errors
    /// When a live nonce is not found, or none can be minted.
    pub fn run(&mut self, sweeper: Queue, is_over: impl Fn() -> bool) -> Result<Pauses, Failure> {
        let (mut pauses, mut watch) = (Pauses::new()?, Watch::new(sweeper));
        while !is_over() {
            for _ in 0..LOOKUPS_PER_MINT {
                let time = self.look_up()?;
                pauses.lookups.record(nanoseconds(time))?;
                pauses.note(time, &mut watch);
            }
            let time = self.mint()?;
            pauses.mints.record(nanoseconds(time))?;
            pauses.note(time, &mut watch);
            watch.begin();
        }
        Ok(pauses)
    }

    fn look_up(&mut self) -> Result<Duration, Failure> {
        let even = 2 * self.random.below(self.texts.len().div_ceil(2));
        let text = black_box(self.texts[even]);
        let start = Instant::now();
        let found = self.lookup.find(&NonceHash::of(&text));
        let time = start.elapsed();
        if matches!(found, Found::Live(_)) {
            Ok(time)
        } else {
            Err("a live nonce was not found during the sweep".into())
        }
    }

    fn mint(&mut self) -> Result<Duration, Failure> {
        let start = Instant::now();
        let minted = minting::mint(&self.minter, self.people, self.next)?;
        let time = start.elapsed();
        black_box(minted);
        self.next += 2;
        Ok(time)
    }
}

/// A time as histograms keep it.
#[must_use]
pub fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Numbers without an order that a cache could foresee, the same in every run (xorshift64).
pub struct Random(u64);

impl Default for Random {
    fn default() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }
}

impl Random {
    /// At least 0 and below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 1).unwrap_or_default() % end
    }
}
