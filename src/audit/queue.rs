//! What lies between everybody and the writer's thread: a bounded queue, a few signals, the counters.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::{Semaphore, watch};

use super::chain::Position;
use super::flood::Floods;
use super::record::Entry;

/// Shared by all handles and the writer.
pub(super) struct Queue {
    state: Mutex<State>,
    ready: Condvar,
    /// One permit for each record that may wait; an exchange on record holds one for its closing record.
    pub(super) places: Arc<Semaphore>,
    places_max: usize,
    pub(super) is_healthy: AtomicBool,
    pub(super) records: AtomicU64,
    pub(super) lost: AtomicU64,
    head: Mutex<Option<Position>>,
    /// Refusals that are only counted.
    pub(super) floods: Floods,
    is_over: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    entries: VecDeque<Entry>,
    /// Somebody waits for the thread.
    is_called: bool,
    /// The thread knows that there is something, and will look after a while.
    is_dozing: bool,
    wants_reopen: bool,
    /// Nothing more is taken; what is there should be written until then.
    closed: Option<Instant>,
}

impl State {
    /// The thread, and nobody else, has to act at once.
    fn is_urgent(&self) -> bool {
        self.is_called || self.wants_reopen || self.closed.is_some()
    }
}

/// Places in use from which on records wait for each other; an exchange takes two until its decision is written.
const CROWD: usize = 12;

/// How long a record that nobody waits for may wait for others to share its write with.
const DOZE: Duration = Duration::from_millis(20);

/// What the writer is asked beside writing.
pub(super) struct Signals {
    pub(super) wants_reopen: bool,
    pub(super) closed: Option<Instant>,
}

impl Queue {
    pub(super) fn new(records_max: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            ready: Condvar::new(),
            places: Arc::new(Semaphore::new(records_max)),
            places_max: records_max,
            is_healthy: AtomicBool::new(true),
            records: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            head: Mutex::new(None),
            floods: Floods::default(),
            is_over: watch::Sender::new(false),
        })
    }

    /// So many exchanges are under way that it pays to wait for each other's records.
    pub(super) fn is_crowded(&self) -> bool {
        self.places_max.saturating_sub(self.places.available_permits()) >= CROWD
    }

    /// Queues a record; false, and the record is gone, after the end. A record that nobody waits for is then lost. One
    /// that somebody waits for is only laid down: write it, or call the thread.
    pub(super) fn push(&self, entry: Entry) -> bool {
        let mut state = self.state.lock();
        if state.closed.is_some() {
            drop(state);
            self.count_lost(usize::from(entry.acknowledge.is_none()));
            return false;
        }
        let wakes = entry.acknowledge.is_none() && !std::mem::replace(&mut state.is_dozing, true);
        state.entries.push_back(entry);
        drop(state);
        if wakes {
            self.ready.notify_one();
        }
        true
    }

    /// Lets the thread write what is there.
    pub(super) fn call(&self) {
        self.state.lock().is_called = true;
        self.ready.notify_one();
    }

    /// Counts records that are lost.
    pub(super) fn count_lost(&self, records: usize) {
        self.lost.fetch_add(records as u64, Ordering::Relaxed);
    }

    /// The last record that is in the sink.
    pub(super) fn head(&self) -> Option<Position> {
        *self.head.lock()
    }

    /// For the writer.
    pub(super) fn set_head(&self, position: Position) {
        *self.head.lock() = Some(position);
    }

    /// Asks for a reopened sink.
    pub(super) fn ask_reopen(&self) {
        self.state.lock().wants_reopen = true;
        self.ready.notify_one();
    }

    /// Takes nothing more after `last`; the writer ends when all is written, or at `deadline`.
    pub(super) fn close(&self, last: Option<Entry>, deadline: Instant) {
        let mut state = self.state.lock();
        if state.closed.is_none() {
            state.entries.extend(last);
            state.closed = Some(deadline);
        }
        drop(state);
        self.ready.notify_one();
    }

    /// For the thread: waits until there is something for it to do, at most `timeout`.
    pub(super) fn wait(&self, timeout: Option<Duration>) {
        let mut state = self.state.lock();
        if state.is_urgent() {
            return;
        }
        if !state.is_dozing {
            match timeout {
                Some(timeout) => drop(self.ready.wait_for(&mut state, timeout)),
                None => self.ready.wait(&mut state),
            }
        }
        if state.is_dozing && !state.is_urgent() {
            self.ready.wait_for(&mut state, DOZE);
        }
        state.is_dozing = false;
    }

    /// For the thread: takes all that there is.
    pub(super) fn take(&self, into: &mut VecDeque<Entry>) -> Signals {
        let mut state = self.state.lock();
        // `into` is empty but keeps its memory, which thus goes back and forth.
        std::mem::swap(&mut state.entries, into);
        state.is_called = false;
        Signals { wants_reopen: std::mem::take(&mut state.wants_reopen), closed: state.closed }
    }

    /// For everybody else who may write: takes all that there is; false if the thread has more to do than to write it.
    pub(super) fn take_records(&self, into: &mut VecDeque<Entry>) -> bool {
        let mut state = self.state.lock();
        let is_plain = !state.wants_reopen && state.closed.is_none();
        if is_plain {
            std::mem::swap(&mut state.entries, into);
        }
        is_plain
    }

    /// For the writer's thread when it is over, in whatever way: nobody may wait for it any longer.
    pub(super) fn end(&self) {
        self.close(None, Instant::now());
        let left = std::mem::take(&mut self.state.lock().entries);
        self.count_lost(left.iter().filter(|entry| entry.acknowledge.is_none()).count());
        drop(left);
        self.is_healthy.store(false, Ordering::Release);
        self.places.close();
        self.is_over.send_replace(true);
    }

    /// Completes when the writer's thread is over.
    pub(super) async fn over(&self) {
        // The sender lives in `self`, so the only outcome is the value.
        let _ = self.is_over.subscribe().wait_for(|over| *over).await;
    }
}
