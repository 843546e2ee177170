//! Looks at answers that nobody reads just now: hyper does not poll them, so that neither a revoke nor a limit of time
//! would reach them.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::download::Slot;

/// How often it is looked: a revoke reaches every answer within 100 ms, on a busy machine too. One that is read learns of it at once and by itself.
/// A look at a thousand answers takes about 0.1 ms.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// All answers under way; there are at most as many as the audit has places.
#[derive(Default)]
pub struct Watch {
    places: Mutex<Places>,
    begun: Notify,
}

/// Every answer has a place of its own, and knows its number: nothing has to be searched for.
#[derive(Default)]
struct Places {
    slots: Vec<Option<Weak<Slot>>>,
    free: Vec<usize>,
}

impl Places {
    fn is_empty(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    fn take(&mut self, slot: Weak<Slot>) -> usize {
        match self.free.pop().and_then(|number| Some((number, self.slots.get_mut(number)?))) {
            Some((number, place)) => {
                *place = Some(slot);
                number
            }
            None => {
                self.slots.push(Some(slot));
                self.slots.len() - 1
            }
        }
    }

    fn give_back(&mut self, number: usize) -> Option<Weak<Slot>> {
        let slot = self.slots.get_mut(number)?.take()?;
        self.free.push(number);
        Some(slot)
    }
}

/// An answer's entry, for as long as it is under way.
pub struct Watched {
    watch: Arc<Watch>,
    number: usize,
}

impl Drop for Watched {
    fn drop(&mut self) {
        let given_back = self.watch.places.lock().give_back(self.number);
        drop(given_back); // its memory outside the lock
    }
}

impl Watch {
    /// Watches a slot until the entry is dropped.
    pub(in crate::proxy) fn add(self: &Arc<Self>, slot: &Arc<Slot>) -> Watched {
        let slot = Arc::downgrade(slot);
        let mut places = self.places.lock();
        let is_first = places.is_empty();
        let number = places.take(slot);
        drop(places);
        if is_first {
            self.begun.notify_one();
        }
        Watched { watch: self.clone(), number }
    }

    /// Looks for as long as there is something to look at; never ends by itself.
    pub(in crate::proxy) async fn run(&self) {
        loop {
            if self.places.lock().is_empty() {
                self.begun.notified().await;
            }
            sleep(LOOK_EVERY).await;
            self.look(Instant::now());
        }
    }

    fn look(&self, now: Instant) {
        // Slots are looked at outside the lock: what is dropped there may end an exchange and its entry.
        let slots: Vec<Arc<Slot>> = self.places.lock().slots.iter().flatten().filter_map(Weak::upgrade).collect();
        for slot in slots {
            slot.look(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_was_given_back_is_taken_again() {
        let mut places = Places::default();
        assert!(places.is_empty());
        assert_eq!([places.take(Weak::new()), places.take(Weak::new()), places.take(Weak::new())], [0, 1, 2]);
        assert!(places.give_back(1).is_some() && places.give_back(1).is_none() && places.give_back(7).is_none());
        assert!(!places.is_empty());
        assert_eq!([places.take(Weak::new()), places.take(Weak::new())], [1, 3], "none is given twice");
        assert!((0..4).all(|number| places.give_back(number).is_some()));
        assert!(places.is_empty());
    }
}
