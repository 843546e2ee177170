//! Looks at answers that nobody reads just now: hyper does not poll them, so that neither a revoke nor a limit of time
//! would reach them.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::download::Slot;

/// How often it is looked; an answer that is read learns of a revoke at once and by itself.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// All answers under way; there are at most as many as the audit has places.
#[derive(Default)]
pub struct Watch {
    slots: DashMap<u64, Weak<Slot>>,
    count: AtomicUsize,
    number: AtomicU64,
    begun: Notify,
}

/// An answer's entry, for as long as it is under way.
pub struct Watched {
    watch: Arc<Watch>,
    number: u64,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.watch.slots.remove(&self.number);
        self.watch.count.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Watch {
    /// Watches a slot until the entry is dropped.
    pub(in crate::proxy) fn add(self: &Arc<Self>, slot: &Arc<Slot>) -> Watched {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        self.slots.insert(number, Arc::downgrade(slot));
        if self.count.fetch_add(1, Ordering::AcqRel) == 0 {
            self.begun.notify_one();
        }
        Watched { watch: self.clone(), number }
    }

    /// Looks for as long as there is something to look at; never ends by itself.
    pub(in crate::proxy) async fn run(&self) {
        loop {
            if self.count.load(Ordering::Acquire) == 0 {
                self.begun.notified().await;
            }
            sleep(LOOK_EVERY).await;
            self.look(Instant::now());
        }
    }

    fn look(&self, now: Instant) {
        // Slots are looked at outside the map: what is dropped there may end an exchange and its entry.
        let slots: Vec<Arc<Slot>> = self.slots.iter().filter_map(|entry| entry.value().upgrade()).collect();
        for slot in slots {
            slot.look(now);
        }
    }
}
