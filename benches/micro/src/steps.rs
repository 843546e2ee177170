//! How long a task keeps its thread at a time.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The longest and the number of the steps of a task: what it does between two turns of others on its thread.
#[derive(Clone, Default)]
pub struct Steps(Arc<Noted>);

#[derive(Default)]
struct Noted {
    longest: AtomicU64,
    count: AtomicU64,
    long: AtomicU64,
}

/// A step that counts as long, in nanoseconds.
const LONG: u64 = 1_000_000;

impl Steps {
    /// The task, with each of its steps timed.
    pub fn of<F: Future>(&self, task: F) -> impl Future<Output = F::Output> + use<F> {
        Timed { task: Box::pin(task), noted: self.0.clone() }
    }

    /// The longest so far, in microseconds of the thread's own CPU time: what others take from it is not in it.
    #[must_use]
    pub fn longest(&self) -> f64 {
        self.0.longest.load(Ordering::Relaxed) as f64 / 1000.0
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.count.load(Ordering::Relaxed)
    }

    /// How many took longer than a millisecond.
    #[must_use]
    pub fn long(&self) -> u64 {
        self.0.long.load(Ordering::Relaxed)
    }
}

struct Timed<F> {
    task: Pin<Box<F>>,
    noted: Arc<Noted>,
}

impl<F: Future> Future for Timed<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let before = own_time();
        let outcome = self.task.as_mut().poll(cx);
        let took = own_time().saturating_sub(before).as_nanos();
        let took = u64::try_from(took).unwrap_or(u64::MAX);
        self.noted.longest.fetch_max(took, Ordering::Relaxed);
        self.noted.count.fetch_add(1, Ordering::Relaxed);
        self.noted.long.fetch_add(u64::from(took > LONG), Ordering::Relaxed);
        outcome
    }
}

/// CPU time of this thread.
pub(crate) fn own_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
