//! Who owns the sink and the chain: whoever holds the pen.
//!
//! Records that are ready together are sealed into one buffer and share one `write(2)` (and one `fdatasync`). The
//! chain moves on only over records that the kernel took whole. While the sink fails, records that somebody waits
//! for are given back at once, and those that nobody waits for are kept, up to a bound.
//!
//! A decision is written by whoever waits for it, when that takes microseconds: into a healthy regular file, without
//! fsync, while nobody else writes. Handing it to another thread and waiting for its answer costs several times as much
//! as the write. Everything else is the thread's: pipes and terminals, fsync, a sink that fails or is slow, and records
//! that nobody waits for.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::StartError;
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

/// The writer, for one at a time; nobody's any more once the thread is over.
pub(super) struct Pen {
    writer: Mutex<Option<Writer>>,
    queue: Arc<Queue>,
}

impl Pen {
    pub(super) fn new(writer: Writer, queue: Arc<Queue>) -> Arc<Self> {
        Arc::new(Self { writer: Mutex::new(Some(writer)), queue })
    }

    /// Writes what is in the queue, or calls the thread to do it.
    pub(super) fn write_or_call(&self) {
        let is_written = match self.writer.try_lock().as_deref_mut() {
            Some(Some(writer)) => writer.write_now(),
            Some(None) | None => false,
        };
        if !is_written {
            self.queue.call();
        }
    }

    /// The thread: writes until the queue is closed.
    pub(super) fn run(&self) {
        let mut retry_after = None;
        loop {
            self.queue.wait(retry_after);
            let mut writer = self.writer.lock();
            let Some(open) = writer.as_mut() else { return };
            if open.write_all() {
                *writer = None;
                return;
            }
            retry_after = open.retry_after();
        }
    }
}

/// The sink, the chain, and what could not be written yet.
pub(super) struct Writer {
    queue: Arc<Queue>,
    source: Source,
    sink: Output,
    clock: SharedClock,
    boot_id: String,
    position: Position,
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
}

/// The settings of a [`Writer`].
pub(super) struct Parts {
    pub(super) queue: Arc<Queue>,
    pub(super) source: Source,
    pub(super) sink: Output,
    pub(super) clock: SharedClock,
    pub(super) boot_id: String,
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
            boot_id: parts.boot_id,
            position: Position { seq: 0, head: parts.head.unwrap_or(NO_HASH) },
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
    fn write_all(&mut self) -> bool {
        let mut fresh = std::mem::take(&mut self.fresh);
        let signals = self.queue.take(&mut fresh);
        if signals.wants_reopen {
            self.reopen_at = Some(Instant::now());
        }
        self.turn(&mut fresh);
        self.fresh = fresh;
        if let Some(deadline) = signals.closed {
            self.finish(deadline);
        }
        signals.closed.is_some()
    }

    /// The records in the queue, if that is quick; false where it is the thread's to write them, or to go on.
    fn write_now(&mut self) -> bool {
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
        let is_done = is_usable && self.drain(&mut backlog) && self.drain(fresh);
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

    fn entry(&self, body: Body) -> Entry {
        Entry { time: self.clock.now().wall, body, acknowledge: None, _place: None }
    }

    fn drain(&mut self, entries: &mut VecDeque<Entry>) -> bool {
        while !entries.is_empty() {
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
            self.position = last.position;
            whole_bytes = last.end;
            self.sink.note_written();
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
        let mut position = self.position;
        // A sink that failed is probed with one record.
        let records_max = if self.is_failing { 1 } else { GROUP_RECORDS_MAX };
        for entry in entries.iter().take(records_max) {
            let recovered = torn.take().filter(|bytes| *bytes > 0);
            position = seal(&mut self.buffer, &self.boot_id, position, entry, recovered);
            self.marks.push(Mark { end: self.buffer.len(), position });
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
