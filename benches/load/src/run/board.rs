//! What a run has counted.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

use crate::Failure;
use crate::origin::now_micros;
use crate::plan::Plan;

/// What all workers write to; there is one thread.
pub struct Board {
    pub plan: Arc<Plan>,
    pub from: Instant,
    pub until: Instant,
    pub count: RefCell<Count>,
}

pub struct Count {
    pub requests: u64,
    pub errors: u64,
    pub bytes: u64,
    hosts: u64,
    pub first_error: Option<String>,
    /// In nanoseconds.
    pub latency: Histogram<u64>,
}

impl Board {
    /// Counts what happens between the plan's warm-up and its end.
    pub fn new(plan: Arc<Plan>) -> Result<Self, Failure> {
        let from = Instant::now() + Duration::from_secs_f64(plan.warmup_seconds);
        let until = from + Duration::from_secs_f64(plan.seconds);
        let latency = Histogram::new_with_bounds(1, 120_000_000_000, 3)?;
        let count = Count { requests: 0, errors: 0, bytes: 0, hosts: 0, first_error: None, latency };
        Ok(Self { plan, from, until, count: RefCell::new(count) })
    }

    pub fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    pub fn done(&self, began: Instant) {
        let now = Instant::now();
        if now < self.from || now > self.until {
            return;
        }
        let mut count = self.count.borrow_mut();
        count.requests += 1;
        let nanoseconds = u64::try_from((now - began).as_nanos()).unwrap_or(u64::MAX);
        count.latency.saturating_record(nanoseconds);
    }

    /// Bytes of a body that have just passed; large bodies do not end within the time.
    pub fn passed(&self, bytes: usize) {
        let now = Instant::now();
        if now >= self.from && now <= self.until {
            self.count.borrow_mut().bytes += bytes as u64;
        }
    }

    /// An event that was sent at this time by the origin's clock, which is ours.
    pub fn event(&self, sent_micros: u128) {
        let micros = now_micros().saturating_sub(sent_micros);
        let nanoseconds = u64::try_from(micros.saturating_mul(1000)).unwrap_or(u64::MAX);
        let mut count = self.count.borrow_mut();
        count.requests += 1;
        count.latency.saturating_record(nanoseconds);
    }

    pub fn failed(&self, failure: &Failure) {
        let mut count = self.count.borrow_mut();
        count.errors += 1;
        count.first_error.get_or_insert_with(|| failure.to_string());
    }

    pub fn next_host(&self) -> String {
        let mut count = self.count.borrow_mut();
        count.hosts += 1;
        // The process id keeps the rounds' names apart.
        format!("h{}-{}.{}", std::process::id(), count.hosts, self.plan.host)
    }
}
