//! The audit: what happened, in order, chained by hash, handed to the kernel before a credential moves.
//!
//! [`Audit::start`] opens the sink and starts a thread for it. Everybody holds an [`Audit`] or an [`Exchange`] and lays
//! facts into a bounded queue. Whoever holds the pen makes what is there into JSON, seals each record with a hash over
//! itself and the one before, and writes all of it with one `write(2)`: who waits for a decision, where that is quick,
//! or the thread. [`Recorded`] is the proof that a decision got there.
//!
//! | file | what |
//! | --- | --- |
//! | `facts`, `alarm` | what the parts tell |
//! | `text` | agent-chosen text: masked and bounded on its way in |
//! | `exchange` | one request from open to close |
//! | `flood` | refusals that are only counted, because there are so many of them |
//! | `handle`, `queue` | the way to the writer |
//! | `pen`, `writer` | who writes at the moment; groups, failures, recovery |
//! | `record`, `proof`, `fields`, `chain` | what a record says, and of whom; its text; its seal |
//! | `author` | the boot and its key: what is signed, and when |
//! | `tap` | following the records while they are written |
//! | `sink` | files, pipes and standard output |
//! | `verify`, `attest`, `gaps` | checking an audit: its chain, its signatures, what it says is missing |
//! | `scan`, `tail`, `render` | reading an audit |
//!
//! The format is described in `docs/AUDIT.md`.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::clock::SharedClock;
use crate::model::Denial;

mod alarm;
mod attest;
mod author;
mod chain;
mod exchange;
mod facts;
mod fields;
mod flood;
mod gaps;
#[cfg(test)]
mod golden;
mod handle;
mod pen;
mod proof;
mod queue;
mod record;
mod render;
mod scan;
mod sink;
mod tail;
mod tap;
#[cfg(test)]
mod tests;
mod text;
mod verify;
mod writer;

pub use alarm::{Alarm, AlarmKind, AlarmOutcome};
pub use exchange::{Ending, Exchange, Recorded};
pub use facts::{Decided, DecisionFacts, Event, ExchangeFacts, ITSELF};
pub use gaps::{Gap, Gaps};
pub use render::{Colour, render};
pub use scan::{Scanned, scan};
pub use tail::{Filter, Follow, Tail, tail};
pub use tap::{Followed, Follower, Written};
pub use verify::{Broken, Flaw, Known, Signed, Verified, verify, verify_against};

use author::Author;
use handle::{ExchangeIds, Handle};
use pen::Pen;
use queue::Queue;
use record::{Body, Entry, Request};
use sink::Output;
use writer::Writer;

/// Longest wait that is meant seriously; what is set beyond it counts as this.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// More often would be nothing but signing.
const CHECKPOINT_EVERY_MIN: Duration = Duration::from_millis(10);

/// Where records go and how they are kept.
#[derive(Debug, Clone)]
pub struct Config {
    /// The sink.
    pub sink: Sink,
    /// fsync (group commit) before a record counts as written.
    pub sync: bool,
    /// Records that may wait for the writer; more means refusal. An exchange that was allowed holds one of these
    /// places until it ends, so this also bounds the exchanges under way. At least 2.
    pub queue_records_max: usize,
    /// How long a full queue or a stuck sink may hold a decision back before it is refused.
    pub wait_max: Duration,
    /// How long a record may wait for a signature that covers it. One comes after 1,000 records in any case.
    pub checkpoint_every: Duration,
}

impl Config {
    /// The defaults: no fsync, 16,384 records may wait, a decision is held back for at most 2 s, a checkpoint each minute.
    #[must_use]
    pub fn new(sink: Sink) -> Self {
        Self {
            sink,
            sync: false,
            queue_records_max: 16_384,
            wait_max: Duration::from_secs(2),
            checkpoint_every: Duration::from_secs(60),
        }
    }
}

/// The place of the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sink {
    /// JSON lines appended to a file, mode 0600, no link followed. A FIFO or a character device will do as well.
    File(PathBuf),
    /// JSON lines on standard output.
    Stdout,
}

/// Why the audit could not be started (bad path, link, permissions).
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The file cannot be opened for appending, or its end cannot be read.
    #[error("cannot open {path}: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The path is a FIFO that nobody reads from.
    #[error("nobody reads from {path}; start its reader first")]
    NoReader {
        /// The FIFO.
        path: PathBuf,
    },
    /// The path is a symbolic link.
    #[error("{path} is a symbolic link; name the file itself, or - for standard output")]
    Link {
        /// The link.
        path: PathBuf,
    },
    /// The path is a directory, a socket or a block device.
    #[error("{path} is neither a file nor a FIFO nor a character device")]
    NotAFile {
        /// What it is called.
        path: PathBuf,
    },
    /// The file belongs to another user, who could change it.
    #[error("{path} belongs to another user; move it away or name another file")]
    Owner {
        /// The file.
        path: PathBuf,
    },
    /// The file's group or everybody may write it.
    #[error("others may write {path}; run: chmod 600 {path}")]
    WritableByOthers {
        /// The file.
        path: PathBuf,
    },
    /// The file has an execute bit: records would become a program.
    #[error("{path} is executable; run: chmod 600 {path}")]
    Executable {
        /// The file.
        path: PathBuf,
    },
    /// Another process writes its audit to this file.
    #[error("another process writes its audit to {path}; give each its own file")]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The file's last line is no intact record.
    #[error("{path} does not end in an intact audit record; move it away or name another file")]
    NotAnAudit {
        /// The file.
        path: PathBuf,
    },
    /// After a rotation: the new file has records that are not ours.
    #[error("the new audit file holds another chain; move it away")]
    OtherChain,
    /// The system gave no randomness.
    #[error("the system has no randomness to give")]
    Randomness,
    /// The writer's thread cannot be started.
    #[error("cannot start the audit's thread: {source}")]
    Thread {
        /// What the system said.
        source: std::io::Error,
    },
}

/// A record could not be written in time: whatever waits for it must be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the audit cannot be written")]
pub struct Unavailable;

/// Where the chain stands: for whoever keeps it elsewhere, so that an end that was cut off or rewritten shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// This boot.
    pub boot_id: Arc<str>,
    /// The public key of its checkpoints, in hexadecimal.
    pub key: Arc<str>,
    /// Number and hash of the last record that was written; `None` before the first.
    pub last: Option<(u64, String)>,
}

impl Head {
    /// As `valetkey audit verify --head` takes it: `1234:9f…`.
    #[must_use]
    pub fn to_text(&self) -> Option<String> {
        self.last.as_ref().map(|(seq, hash)| format!("{seq}:{hash}"))
    }
}

/// What the readiness probe and the metrics want to know.
#[derive(Debug, Clone)]
pub struct State {
    /// The last write succeeded, and the last reopening too.
    pub is_healthy: bool,
    /// Records written since the start.
    pub records: u64,
    /// Records that were lost (closing records while the sink failed).
    pub lost: u64,
}

impl From<Unavailable> for Denial {
    fn from(_: Unavailable) -> Self {
        Self::AuditUnavailable
    }
}

/// The audit of one process; clones share it. The writer ends with the last clone and the last exchange.
#[derive(Clone)]
pub struct Audit {
    handle: Arc<Handle>,
}

impl Audit {
    /// Opens the sink, starts the writer thread and writes the start record with `facts` (version, policy digest,
    /// listeners, connect-to overrides; at most 256 KiB of JSON). Blocks for one write.
    ///
    /// A sink that opens but cannot be written just now (a full disk) is no error: the state is unhealthy, every
    /// decision is refused, and the start record is written first when it recovers.
    ///
    /// # Errors
    /// [`StartError`] when the sink cannot be opened safely.
    pub fn start(config: &Config, clock: SharedClock, facts: serde_json::Value) -> Result<Self, StartError> {
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|_| StartError::Randomness)?;
        let (boot, ids) = random.split_at(16);
        let mut start = [0; 16];
        start.copy_from_slice(ids);
        let wait_max = config.wait_max.min(WAIT_MAX);
        let (sink, head) = Output::open(&config.sink, wait_max)?;
        // A decision and its closing record need two places.
        let records_max = config.queue_records_max.clamp(2, tokio::sync::Semaphore::MAX_PERMITS);
        let queue = Queue::new(records_max);
        let (source, tap) = tap::tap();
        let author = Author::new(hex::encode(boot))?;
        let name = handle::Name { boot_id: author.boot_id.as_str().into(), key: hex::encode(author.public()).into() };
        tracing::info!(audit.key = %name.key, "the audit's checkpoints are signed with a new key");
        let mut writer = Writer::new(writer::Parts {
            queue: queue.clone(),
            source,
            sink,
            clock: clock.clone(),
            author,
            checkpoint_every: config.checkpoint_every.clamp(CHECKPOINT_EVERY_MIN, WAIT_MAX),
            head,
            is_synced: config.sync,
            backlog_records_max: records_max,
        });
        writer.begin(facts);
        let pen = Pen::new(writer, queue.clone());
        spawn(pen.clone(), queue.clone())?;
        let ids = ExchangeIds::new(start);
        let is_cutting = AtomicBool::new(false);
        Ok(Self { handle: Arc::new(Handle { queue, pen, clock, wait_max, ids, is_cutting, tap, name }) })
    }

    /// Opens an exchange.
    #[must_use]
    pub fn open(&self, facts: ExchangeFacts) -> Exchange {
        let opened = self.handle.clock.now();
        let id = self.handle.ids.next(opened.wall);
        Exchange::new(self.handle.clone(), Request { id, opened, facts: facts.bounded() })
    }

    /// Writes an event and waits until the kernel has it.
    ///
    /// # Errors
    /// [`Unavailable`] after at most [`Config::wait_max`]: what the event tells of must not happen.
    pub async fn record(&self, event: Event) -> Result<(), Unavailable> {
        let deadline = Instant::now() + self.handle.wait_max;
        let place = self.handle.reserve(1, deadline).await.ok_or(Unavailable)?;
        let body = Body::Event(Box::new(event.bounded()));
        self.handle.submit(place, body, deadline).await.map_err(|_| Unavailable)
    }

    /// Hands an event to the writer without waiting; never blocks. A record that cannot be taken is counted as lost.
    ///
    /// Of many connections that end alike, some are only counted: see `docs/AUDIT.md`.
    pub fn note(&self, event: Event) {
        if self.handle.is_in_summary(&event) {
            return;
        }
        let time = self.handle.clock.now().wall;
        self.handle.leave(None, time, Body::Event(Box::new(event.bounded())));
        // Who revokes looks for the end of the lease; only closing records of exchanges may wait for company.
        self.handle.queue.call();
    }

    /// Follows the records that are written from now on; `None` when 16 do already, or when the audit is over. A follower
    /// that is more than 1,024 records behind loses the oldest and is told how many; the writer never waits for it.
    #[must_use]
    pub fn follow(&self) -> Option<Follower> {
        self.handle.tap.follow()
    }

    /// The same for a part of the sidecar itself, whom no number of other followers keeps out; `None` when the audit is over.
    #[must_use]
    pub fn follow_ourselves(&self) -> Option<Follower> {
        self.handle.tap.follow_ourselves()
    }

    /// Opens the sink anew (after a rotation); bad news shows in [`Audit::state`], the old file is used until it works.
    pub fn reopen(&self) {
        self.handle.queue.ask_reopen();
    }

    /// Health and counts.
    #[must_use]
    pub fn state(&self) -> State {
        let queue = &self.handle.queue;
        State {
            is_healthy: queue.is_healthy.load(Ordering::Acquire),
            records: queue.records.load(Ordering::Relaxed),
            lost: queue.lost.load(Ordering::Relaxed),
        }
    }

    /// Where the chain stands, and who writes it.
    #[must_use]
    pub fn head(&self) -> Head {
        let last = self.handle.queue.head().map(|last| (last.seq, hex::encode(last.head)));
        let handle::Name { boot_id, key } = self.handle.name.clone();
        Head { boot_id, key, last }
    }

    /// Says that connections are being cut: an exchange that ends without a word from here on was not left by its client.
    pub fn cut(&self) {
        self.handle.is_cutting.store(true, Ordering::Release);
    }

    /// Writes the stop record, flushes, and ends the writer. Waits at most `within`. Whatever comes later is refused
    /// or lost, so let exchanges end first.
    pub async fn stop(&self, reason: &'static str, within: Duration) {
        let within = within.min(WAIT_MAX);
        let time = self.handle.clock.now().wall;
        let last = Entry { time, body: Body::Stop { reason }, acknowledge: None, _place: None };
        self.handle.queue.close(Some(last), std::time::Instant::now() + within);
        if timeout(within, self.handle.queue.over()).await.is_err() {
            tracing::error!("the audit could not be finished in time; its last records may be missing");
        }
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit").field("state", &self.state()).finish_non_exhaustive()
    }
}

/// Ends the queue when the writer's thread is over, a panic included: nobody shall wait for it.
struct Over(Arc<Queue>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.end();
    }
}

fn spawn(pen: Arc<Pen>, queue: Arc<Queue>) -> Result<(), StartError> {
    let body = move || {
        // Dropped after the writer, and so after its file and the lock on it.
        let _over = Over(queue);
        pen.run();
    };
    thread::Builder::new().name("audit".into()).spawn(body).map(drop).map_err(|source| StartError::Thread { source })
}
