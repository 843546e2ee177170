//! Looking up and minting without rest, each one timed.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use valetkey::lease::{Found, Lookup, Minter, Store};
use valetkey::model::NonceHash;
use valetkey::model::nonce::NONCE_BYTES;

use crate::minting::{self, People};

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
    /// The longest of both without the time in which this thread, or the sweeper's, was ready and had no core.
    pub awake_max: Duration,
    /// How many of both took longer than a millisecond without that time.
    pub awake_long: u64,
}

impl Pauses {
    fn new() -> Result<Self, Failure> {
        let (lookups, mints) = (Histogram::new(3)?, Histogram::new(3)?);
        Ok(Self { lookups, mints, long: 0, awake_max: Duration::ZERO, awake_long: 0 })
    }

    fn note(&mut self, time: Duration, queues: &mut [Queue]) {
        self.long += u64::from(time > LONG);
        if time > NOTABLE {
            let waits = queues.iter_mut().map(Queue::waited);
            let asleep = waits.map(|wait| within(wait, time)).max().unwrap_or_default();
            let awake = time.saturating_sub(asleep);
            self.awake_max = self.awake_max.max(awake);
            self.awake_long += u64::from(awake > LONG);
        }
    }
}

/// What of an operation's time went into this wait. Of a wait that began long before it, which the kernel does not tell,
/// nothing: it is counted too little rather than too much.
fn within(wait: Duration, time: Duration) -> Duration {
    if wait < time + NOTABLE { wait.min(time) } else { Duration::ZERO }
}

/// How long a thread has waited for a core, as the kernel counts it.
pub struct Queue {
    file: Option<File>,
    seen: u64,
}

impl Queue {
    /// Of the thread that calls this, whoever asks it afterwards.
    #[must_use]
    pub fn of_this_thread() -> Self {
        Self { file: File::open("/proc/thread-self/schedstat").ok(), seen: 0 }
    }

    /// Since the last call; nothing where the kernel does not count it.
    fn waited(&mut self) -> Duration {
        let mut text = [0; 96];
        let length = self.file.as_ref().and_then(|file| file.read_at(&mut text, 0).ok()).unwrap_or_default();
        let mut words = text[..length].split(u8::is_ascii_whitespace);
        let total = words.nth(1).and_then(|word| std::str::from_utf8(word).ok()?.parse().ok()).unwrap_or(self.seen);
        let waited = Duration::from_nanos(total.saturating_sub(self.seen));
        self.seen = total;
        waited
    }
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
        let (mut pauses, mut queues) = (Pauses::new()?, [Queue::of_this_thread(), sweeper]);
        for queue in &mut queues {
            queue.waited();
        }
        while !is_over() {
            for _ in 0..LOOKUPS_PER_MINT {
                let time = self.look_up()?;
                pauses.lookups.record(nanoseconds(time))?;
                pauses.note(time, &mut queues);
            }
            let time = self.mint()?;
            pauses.mints.record(nanoseconds(time))?;
            pauses.note(time, &mut queues);
            // What was waited so far, between the operations too, is nothing that the next one can be spared.
            for queue in &mut queues {
                queue.waited();
            }
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
