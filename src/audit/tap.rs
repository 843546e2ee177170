//! Whoever follows the records while they are written: each gets what was written since, and nobody is waited for.

use std::sync::Arc;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};

use super::record::Entry;
use crate::model::{AgentName, TaskName};

/// Records that a follower may be behind; who is slower loses the oldest.
const BEHIND_MAX: usize = 1024;
/// Followers at once.
const FOLLOWERS_MAX: usize = 16;

/// A record that is in the sink.
#[derive(Debug)]
pub struct Written {
    /// Its number in this boot.
    pub seq: u64,
    /// Its `type`.
    pub kind: &'static str,
    /// Whose it is, where it belongs to an agent.
    pub agent: Option<AgentName>,
    /// Its task, where it belongs to one.
    pub task: Option<TaskName>,
    /// The JSON as it is in the file, without its newline.
    pub line: String,
}

/// What a follower gets.
#[derive(Debug, Clone)]
pub enum Followed {
    /// The next record.
    Record(Arc<Written>),
    /// The follower was too slow: so many records are lost to it.
    Gap(u64),
}

/// Follows the records from its making on.
pub struct Follower {
    records: broadcast::Receiver<Arc<Written>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Follower {
    /// The next record, or how many were lost before it; `None` when the audit is over.
    pub async fn next(&mut self) -> Option<Followed> {
        match self.records.recv().await {
            Ok(record) => Some(Followed::Record(record)),
            Err(RecvError::Lagged(lost)) => Some(Followed::Gap(lost)),
            Err(RecvError::Closed) => None,
        }
    }
}

/// Where followers listen.
pub(super) struct Tap {
    records: broadcast::WeakSender<Arc<Written>>,
    places: Arc<Semaphore>,
}

/// The writer's end; followers are told of the end when it is dropped.
pub(super) struct Source(broadcast::Sender<Arc<Written>>);

/// Both ends.
pub(super) fn tap() -> (Source, Tap) {
    let (records, _) = broadcast::channel(BEHIND_MAX);
    let tap = Tap { records: records.downgrade(), places: Arc::new(Semaphore::new(FOLLOWERS_MAX)) };
    (Source(records), tap)
}

impl Tap {
    /// One more follower; `None` when there are as many as there may be, or when the audit is over.
    pub(super) fn follow(&self) -> Option<Follower> {
        let place = self.places.clone().try_acquire_owned().ok()?;
        let records = self.records.upgrade()?.subscribe();
        Some(Follower { records, _place: Some(place) })
    }

    /// One of our own, who takes no place and is kept out by nobody; `None` when the audit is over.
    pub(super) fn follow_ourselves(&self) -> Option<Follower> {
        Some(Follower { records: self.records.upgrade()?.subscribe(), _place: None })
    }
}

impl Source {
    /// True when a record would reach somebody.
    pub(super) fn is_followed(&self) -> bool {
        self.0.receiver_count() > 0
    }

    /// Hands a written record to the followers; never waits.
    pub(super) fn tell(&self, seq: u64, entry: &Entry, line: &[u8]) {
        let (agent, task) = entry.body.whose();
        let line = String::from_utf8_lossy(line.trim_ascii()).into_owned();
        let (agent, task) = (agent.cloned(), task.cloned());
        // The last follower may have left in this moment.
        let _ = self.0.send(Arc::new(Written { seq, kind: entry.body.kind(), agent, task, line }));
    }
}
