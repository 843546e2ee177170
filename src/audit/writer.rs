//! Who owns the sink and the chain: whoever holds the pen.
//!
//! Records that are ready together are sealed into one buffer and share one `write(2)` (and one `fdatasync`). The
//! chain moves on only over records that the kernel took whole. While the sink fails, records that somebody waits
//! for are given back at once, and those that nobody waits for are kept, up to a bound.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::StartError;
use super::author::{Author, Role, UNSIGNED_RECORDS_MAX};
use super::chain::{NO_HASH, Position, seal};
use super::queue::Queue;
use super::record::{Body, Entry, Failure};
use super::sink::{Condition, Output, Reopened};
use super::tap::Source;
use crate::clock::SharedClock;

/// Most records of one write.
const GROUP_RECORDS_MAX: usize = 512;
/// A group takes no further record once it has this many bytes.
const GROUP_BYTES_MAX: usize = 1024 * 1024;
/// How often a failed sink is tried again without a new record.
const RETRY_EVERY: Duration = Duration::from_millis(500);
/// A write that takes longer is not worth anybody's waiting for it on a thread that has other work.
const SLOW_WRITE: Duration = Duration::from_millis(25);
/// After one, everything is the thread's for so long; twice as long after each further one in a row.
const SLOW_FOR: Duration = Duration::from_secs(5);
/// At most.
const SLOW_FOR_MAX: Duration = Duration::from_secs(600);
/// How often at the very end.
const LAST_RETRY_EVERY: Duration = Duration::from_millis(20);

/// The sink, the chain, and what could not be written yet.
pub(super) struct Writer {
    queue: Arc<Queue>,
    source: Source,
    sink: Output,
    clock: SharedClock,
    author: Author,
    position: Position,
    /// Records since the last one that is signed.
    unsigned: u64,
    /// When the first of them was written.
    unsigned_since: Option<Instant>,
    checkpoint_every: Duration,
    /// fdatasync after each group.
    is_synced: bool,
    /// Records that nobody waits for and that could not be written yet.
    backlog: VecDeque<Entry>,
    backlog_records_max: usize,
    lost_told: u64,
    /// The sink shall be opened anew, not before this moment.
    reopen_at: Option<Instant>,
    is_reopen_failing: bool,
    is_failing: bool,
    /// Until then everything is the thread's, because a write was slow.
    slow_until: Option<Instant>,
    slow_for: Duration,
    fresh: VecDeque<Entry>,
    buffer: Vec<u8>,
    marks: Vec<Mark>,
}

/// The end of a record in the buffer.
struct Mark {
    end: usize,
    position: Position,
    unsigned: u64,
}

/// The settings of a [`Writer`].
pub(super) struct Parts {
    pub(super) queue: Arc<Queue>,
    pub(super) source: Source,
    pub(super) sink: Output,
    pub(super) clock: SharedClock,
    pub(super) author: Author,
    /// How long a record may wait for a signature that covers it.
    pub(super) checkpoint_every: Duration,
    /// Hash of the record before.
    pub(super) head: Option<super::chain::Hash>,
    pub(super) is_synced: bool,
    pub(super) backlog_records_max: usize,
}

impl Writer {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            queue: parts.queue,
            source: parts.source,
            sink: parts.sink,
            clock: parts.clock,
            author: parts.author,
            position: Position { seq: 0, head: parts.head.unwrap_or(NO_HASH) },
            unsigned: 0,
            unsigned_since: None,
            checkpoint_every: parts.checkpoint_every,
            is_synced: parts.is_synced,
            backlog: VecDeque::new(),
            backlog_records_max: parts.backlog_records_max,
            lost_told: 0,
            reopen_at: None,
            is_reopen_failing: false,
            is_failing: false,
            slow_until: None,
            slow_for: SLOW_FOR,
            fresh: VecDeque::new(),
            buffer: Vec::new(),
            marks: Vec::new(),
        }
    }

    /// Writes the first record, or keeps it as the first of the backlog.
    pub(super) fn begin(&mut self, facts: serde_json::Value) {
        let start = self.entry(Body::Start { facts });
        self.turn(&mut VecDeque::from([start]));
    }

    /// Everything that there is; true at the end, when there will be nothing more.
    pub(super) fn write_all(&mut self) -> bool {
        let mut fresh = std::mem::take(&mut self.fresh);
        let signals = self.queue.take(&mut fresh);
        if signals.wants_reopen {
            self.reopen_at = Some(Instant::now());
        }
        self.tell_floods(signals.closed.is_some());
        self.turn(&mut fresh);
        self.fresh = fresh;
        if let Some(deadline) = signals.closed {
            self.finish(deadline);
        }
        signals.closed.is_some()
    }

    /// The records in the queue, if that is quick; false where it is the thread's to write them, or to go on.
    pub(super) fn write_now(&mut self) -> bool {
        let is_rested = self.slow_until.is_none_or(|until| Instant::now() > until);
        if !is_rested || self.is_synced || !self.sink.is_regular() || self.retry_after().is_some() {
            return false;
        }
        let mut fresh = std::mem::take(&mut self.fresh);
        let is_taken = self.queue.take_records(&mut fresh);
        let begun = Instant::now();
        self.turn(&mut fresh);
        self.fresh = fresh;
        self.judge_speed(begun.elapsed());
        is_taken && self.retry_after().is_none()
    }

    /// Whether whoever waits shall go on writing by itself.
    fn judge_speed(&mut self, took: Duration) {
        if took <= SLOW_WRITE {
            (self.slow_until, self.slow_for) = (None, SLOW_FOR);
            return;
        }
        self.slow_until = Some(Instant::now() + self.slow_for);
        self.slow_for = (self.slow_for * 2).min(SLOW_FOR_MAX);
    }

    fn retry_after(&self) -> Option<Duration> {
        let has_more = !self.backlog.is_empty() || self.reopen_at.is_some() || self.has_untold_loss();
        has_more.then_some(RETRY_EVERY)
    }

    /// When the thread shall look again, whether it is called or not.
    pub(super) fn look_after(&self) -> Duration {
        let waited = self.unsigned_since.map_or(Duration::ZERO, |since| since.elapsed());
        let unsigned = self.checkpoint_every.saturating_sub(waited);
        let summary = self.queue.floods.due().map(|due| due.saturating_duration_since(Instant::now()));
        self.retry_after().unwrap_or(summary.map_or(unsigned, |summary| summary.min(unsigned)))
    }

    /// Keeps count of what is not signed yet.
    fn count_unsigned(&mut self, unsigned: u64) {
        self.unsigned = unsigned;
        match unsigned {
            0 => self.unsigned_since = None,
            _ => _ = self.unsigned_since.get_or_insert_with(Instant::now),
        }
    }

    /// Signs what has waited for it long enough; false when that cannot be written.
    fn sign_in_time(&mut self) -> bool {
        if self.unsigned_since.is_none_or(|since| since.elapsed() < self.checkpoint_every) {
            return true;
        }
        let checkpoint = self.entry(Body::Checkpoint);
        self.drain(&mut VecDeque::from([checkpoint]))
    }

    /// The next record must wait for a checkpoint.
    fn needs_checkpoint(unsigned: u64, next: &Entry) -> bool {
        unsigned >= UNSIGNED_RECORDS_MAX && Role::in_body(&next.body) == Role::None
    }

    fn finish(&mut self, deadline: Instant) {
        while (!self.backlog.is_empty() || self.has_untold_loss()) && Instant::now() < deadline {
            thread::sleep(LAST_RETRY_EVERY);
            self.turn(&mut VecDeque::new());
        }
        self.queue.count_lost(self.backlog.len());
    }

    /// Writes the backlog and then `fresh`; what cannot be written is given back or kept.
    fn turn(&mut self, fresh: &mut VecDeque<Entry>) {
        let was_failing = self.is_failing;
        let is_usable = self.attend_to_sink();
        self.tell_loss();
        let mut backlog = std::mem::take(&mut self.backlog);
        let is_done = is_usable && self.drain(&mut backlog) && self.drain(fresh) && self.sign_in_time();
        self.backlog = backlog;
        self.is_failing |= !is_usable;
        self.tell_health();
        if !is_done {
            fresh.drain(..).for_each(|entry| self.set_aside(entry));
        }
        if self.is_failing && !was_failing {
            // It tells of the outage afterwards; until then there is always something to try the sink with.
            let outage = self.entry(Body::Outage);
            self.backlog.push_back(outage);
        }
    }

    /// Before anybody is told of its record, so that nobody sees an older state than that.
    fn tell_health(&self) {
        self.queue.is_healthy.store(!self.is_failing && !self.is_reopen_failing, Ordering::Release);
    }

    fn set_aside(&mut self, entry: Entry) {
        if matches!(entry.body, Body::Checkpoint) {
            return; // another is made as soon as one can be written
        }
        match entry.acknowledge {
            // Nobody listening any more is as good as told.
            Some(waiter) => {
                let _ = waiter.send(Err(Failure::Unwritten));
            }
            None if self.backlog.len() < self.backlog_records_max => {
                self.backlog.push_back(Entry { _place: None, ..entry });
            }
            None => self.queue.count_lost(1),
        }
    }

    fn has_untold_loss(&self) -> bool {
        self.queue.lost.load(Ordering::Relaxed) > self.lost_told
    }

    fn tell_loss(&mut self) {
        let lost = self.queue.lost.load(Ordering::Relaxed);
        // While the sink fails there is more to come: one record tells it all.
        if lost > self.lost_told && !self.is_failing {
            let told = self.entry(Body::Lost { records: lost - self.lost_told });
            self.lost_told = lost;
            self.backlog.push_back(told);
        }
    }

    fn tell_floods(&mut self, is_last: bool) {
        let summaries = match is_last {
            true => self.queue.floods.finish(),
            // While the sink fails there is more to come, and counting takes no room.
            false if self.is_failing => return,
            false => self.queue.floods.summaries(Instant::now()),
        };
        for summary in summaries {
            let told = self.entry(Body::Refused(Box::new(summary)));
            self.backlog.push_back(told);
        }
    }

    fn entry(&self, body: Body) -> Entry {
        Entry { time: self.clock.now().wall, body, acknowledge: None, _place: None }
    }

    fn drain(&mut self, entries: &mut VecDeque<Entry>) -> bool {
        while !entries.is_empty() {
            if entries.front().is_some_and(|next| Self::needs_checkpoint(self.unsigned, next)) {
                entries.push_front(self.entry(Body::Checkpoint));
            }
            if self.write_group(entries).is_err() {
                return false;
            }
        }
        true
    }

    /// Seals and writes the first records of `entries`, and removes those that are written.
    fn write_group(&mut self, entries: &mut VecDeque<Entry>) -> io::Result<()> {
        self.fill_buffer(entries);
        let (written, error) = self.sink.append(&self.buffer);
        let whole = self.marks.partition_point(|mark| mark.end <= written);
        let mut whole_bytes = 0;
        if let Some(last) = whole.checked_sub(1).and_then(|last| self.marks.get(last)) {
            let Mark { end, position, unsigned } = *last;
            (self.position, whole_bytes) = (position, end);
            self.count_unsigned(unsigned);
            self.sink.note_written();
            self.queue.set_head(position);
        }
        if error.is_some() {
            self.sink.heal(written - whole_bytes);
        }
        let synced = if self.is_synced && whole > 0 { self.sink.sync() } else { Ok(()) };
        let is_durable = synced.is_ok();
        let result = error.map_or(synced, Err);
        self.note(&result);
        self.queue.records.fetch_add(whole as u64, Ordering::Relaxed);
        self.tell_followers(entries, whole);
        entries.drain(..whole).for_each(|entry| acknowledge(entry, is_durable));
        result
    }

    /// The first `whole` entries are in the sink.
    fn tell_followers(&self, entries: &VecDeque<Entry>, whole: usize) {
        if !self.source.is_followed() {
            return;
        }
        let mut begin = 0;
        for (entry, mark) in entries.iter().zip(&self.marks).take(whole) {
            let line = self.buffer.get(begin..mark.end).unwrap_or_default();
            begin = mark.end;
            self.source.tell(mark.position.seq, entry, line);
        }
    }

    fn fill_buffer(&mut self, entries: &VecDeque<Entry>) {
        self.buffer.clear();
        self.marks.clear();
        let mut torn = self.sink.torn();
        if torn.is_some() {
            self.buffer.push(b'\n');
        }
        let (mut position, mut unsigned) = (self.position, self.unsigned);
        // A sink that failed is probed with one record.
        let records_max = if self.is_failing { 1 } else { GROUP_RECORDS_MAX };
        for entry in entries.iter().take(records_max) {
            if Self::needs_checkpoint(unsigned, entry) {
                break;
            }
            let recovered = torn.take().filter(|bytes| *bytes > 0);
            position = seal(&mut self.buffer, &self.author, position, entry, recovered);
            unsigned = if Role::in_body(&entry.body) == Role::None { unsigned + 1 } else { 0 };
            self.marks.push(Mark { end: self.buffer.len(), position, unsigned });
            if self.buffer.len() >= GROUP_BYTES_MAX {
                break;
            }
        }
    }

    /// Logs when the state changes, not at each record.
    fn note(&mut self, result: &io::Result<()>) {
        match result {
            Err(error) if !self.is_failing => {
                tracing::error!(%error, "the audit cannot be written; requests are refused until it can");
            }
            Ok(()) if self.is_failing => tracing::info!("the audit can be written again"),
            Ok(()) | Err(_) => {}
        }
        self.is_failing = result.is_err();
        self.tell_health();
    }

    /// Looks after the file itself; false when there is none to write to.
    fn attend_to_sink(&mut self) -> bool {
        let is_gone = match self.sink.condition() {
            Condition::Sound => false,
            Condition::Gone => {
                self.reopen_at.get_or_insert_with(Instant::now);
                true
            }
            Condition::Emptied => {
                self.sink.forget_records();
                self.announce_rotation();
                false
            }
        };
        if self.reopen_at.is_none_or(|at| Instant::now() < at) {
            return !is_gone;
        }
        match self.reopen() {
            Ok(()) => {
                self.reopen_at = None;
                self.is_reopen_failing = false;
                true
            }
            Err(error) => {
                if !self.is_reopen_failing {
                    tracing::error!(%error, "the audit cannot be reopened; trying again");
                }
                self.reopen_at = Some(Instant::now() + RETRY_EVERY);
                self.is_reopen_failing = true;
                !is_gone
            }
        }
    }

    fn reopen(&mut self) -> Result<(), StartError> {
        match self.sink.reopen()? {
            Reopened::Same => {}
            Reopened::Other(sink, None) => {
                self.sink = sink;
                self.announce_rotation();
            }
            Reopened::Other(sink, Some(head)) if self.position.seq == 0 || head == self.position.head => {
                self.position.head = head;
                self.sink = sink;
            }
            Reopened::Other(_, Some(_)) => return Err(StartError::OtherChain),
        }
        tracing::info!("the audit was reopened");
        Ok(())
    }

    /// A file that begins in the middle of a chain says so; one that begins with the start record need not.
    fn announce_rotation(&mut self) {
        if self.position.seq == 0 {
            self.position.head = NO_HASH;
            return;
        }
        let is_told = self.backlog.front().is_some_and(|entry| matches!(entry.body, Body::Rotated));
        if !is_told {
            let rotated = self.entry(Body::Rotated);
            self.backlog.push_front(rotated);
        }
    }
}

fn acknowledge(written: Entry, is_durable: bool) {
    if let Some(waiter) = written.acknowledge {
        // Nobody listening any more is not our concern: the closing record tells.
        let _ = waiter.send(if is_durable { Ok(()) } else { Err(Failure::Unsure) });
    }
}
