//! What all clones of an [`Audit`](super::Audit) and all exchanges share: the way into the queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{Instant, timeout_at};
use ulid::{ULID_LEN, Ulid};

use super::facts::Event;
use super::flood::{Kind, Told, Whose, may_be_counted_by, may_be_counted_of_a_call};
use super::pen::Pen;
use super::queue::Queue;
use super::record::{Body, Entry, Failure};
use super::tap::Tap;
use crate::clock::SharedClock;

/// Dropped with the last clone and the last exchange; then the writer ends.
pub(super) struct Handle {
    pub(super) queue: Arc<Queue>,
    pub(super) pen: Arc<Pen>,
    pub(super) clock: SharedClock,
    pub(super) wait_max: Duration,
    pub(super) ids: ExchangeIds,
    /// What ends without a word was cut by us.
    pub(super) is_cutting: AtomicBool,
    pub(super) tap: Tap,
    pub(super) name: Name,
}

/// Who writes, as others are told.
#[derive(Clone)]
pub(super) struct Name {
    pub(super) boot_id: Arc<str>,
    /// The public key, in hexadecimal.
    pub(super) key: Arc<str>,
}

impl Handle {
    /// Reserves places in the queue.
    pub(super) async fn reserve(&self, places: u32, deadline: Instant) -> Option<OwnedSemaphorePermit> {
        if let Ok(places) = self.queue.places.clone().try_acquire_many_owned(places) {
            return Some(places); // the common case needs no timer
        }
        timeout_at(deadline, self.queue.places.clone().acquire_many_owned(places)).await.ok()?.ok()
    }

    /// Queues a record and waits until it is written.
    pub(super) async fn submit(
        &self,
        place: OwnedSemaphorePermit,
        body: Body,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let (acknowledge, mut written) = oneshot::channel();
        let time = self.clock.now().wall;
        if !self.queue.push(Entry { time, body, acknowledge: Some(acknowledge), _place: Some(place) }) {
            return Err(Failure::Unwritten);
        }
        if self.queue.is_crowded() {
            // Whoever is ready beside us lays its record down too; the first to go on writes them all.
            tokio::task::yield_now().await;
            if let Ok(result) = written.try_recv() {
                return result;
            }
        }
        self.pen.write_or_call();
        if let Ok(result) = written.try_recv() {
            return result;
        }
        match timeout_at(deadline, written).await {
            Ok(Ok(result)) => result,
            // Too late, or the writer is gone in the middle of it.
            Ok(Err(_)) | Err(_) => Err(Failure::Unsure),
        }
    }

    /// Counts a refusal; true where a summary tells of it, and nothing else shall.
    pub(super) fn is_counted(&self, kind: Kind) -> bool {
        let told = self.queue.floods.take(kind, std::time::Instant::now(), self.clock.now().wall);
        if told == Told::NewSummary {
            self.queue.call();
        }
        told != Told::Full
    }

    /// The same for a connection that ended without an exchange, and for a refused call of the control API.
    pub(super) fn is_in_summary(&self, event: &Event) -> bool {
        match event {
            Event::Connection { peer, code, .. } if may_be_counted_by(code) => {
                let whose = Whose::Peer(peer.ip().to_canonical());
                self.is_counted(Kind { whose, service: None, of: "connection", code })
            }
            Event::ControlRefused { call, caller, code } if may_be_counted_of_a_call(code) => {
                let whose = Whose::caller(call, caller.as_ref());
                self.is_counted(Kind { whose, service: None, of: "control_refused", code })
            }
            _ => false,
        }
    }

    /// Queues a record that nobody waits for, in the place reserved for it or a free one; else it is lost.
    pub(super) fn leave(&self, place: Option<OwnedSemaphorePermit>, time: Timestamp, body: Body) {
        let Some(place) = place.or_else(|| self.queue.places.clone().try_acquire_owned().ok()) else {
            return self.queue.count_lost(1);
        };
        self.queue.push(Entry { time, body, acknowledge: None, _place: Some(place) });
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.queue.close(None, std::time::Instant::now());
    }
}

/// How every exchange's id begins.
const EXCHANGE_ID_PREFIX: &str = "ex_";

/// Makes ULIDs without asking the kernel for randomness each time: a random start, counted up.
pub(super) struct ExchangeIds {
    start: u128,
    count: AtomicU64,
}

impl ExchangeIds {
    pub(super) fn new(random: [u8; 16]) -> Self {
        Self { start: u128::from_le_bytes(random), count: AtomicU64::new(0) }
    }

    /// `ex_` and a ULID.
    pub(super) fn next(&self, now: Timestamp) -> String {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let milliseconds = u64::try_from(now.as_millisecond()).unwrap_or(0);
        // Only the lower 80 bits are used.
        let id = Ulid::from_parts(milliseconds, self.start.wrapping_add(count.into()));
        let mut digits = [0; ULID_LEN];
        let mut name = String::with_capacity(EXCHANGE_ID_PREFIX.len() + ULID_LEN);
        name.push_str(EXCHANGE_ID_PREFIX);
        name.push_str(id.array_to_str(&mut digits));
        name
    }
}
