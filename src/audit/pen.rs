//! The pen: who writes at the moment.
//!
//! A decision is written by whoever waits for it, when that takes microseconds: into a healthy regular file, without
//! fsync, while nobody else writes. Handing it to another thread and waiting for its answer costs several times as much
//! as the write. Everything else is the thread's: pipes and terminals, fsync, a sink that fails or is slow, and records
//! that nobody waits for.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::queue::Queue;
use super::writer::Writer;

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
        let mut look_after = Some(Duration::ZERO);
        loop {
            self.queue.wait(look_after);
            let mut writer = self.writer.lock();
            let Some(open) = writer.as_mut() else { return };
            if open.write_all() {
                *writer = None;
                return;
            }
            look_after = Some(open.look_after());
        }
    }
}
