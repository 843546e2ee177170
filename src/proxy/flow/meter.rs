//! How much of an exchange's bodies has passed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::proxy::fair::Place;

/// Counts an exchange's bodies; shared between the upload, the answer and the record.
#[derive(Debug, Clone, Default)]
pub struct Meter(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    /// Pieces of either body.
    moves: AtomicU64,
    /// The exchange's place among all, where no lease's tie holds it.
    place: OnceLock<Place>,
}

impl Meter {
    pub(in crate::proxy) fn sent(&self, bytes: usize) {
        self.0.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        self.moved();
    }

    /// Keeps a place for as long as anybody counts.
    pub(in crate::proxy) fn holds(&self, place: Place) {
        // An exchange has one.
        let _ = self.0.place.set(place);
    }

    /// A piece of either body has passed.
    pub(in crate::proxy) fn moved(&self) {
        self.0.moves.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes of the upload.
    pub(in crate::proxy) fn total(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }

    /// Changes with each piece of either body: while one moves, the other may rest.
    pub(in crate::proxy) fn moves(&self) -> u64 {
        self.0.moves.load(Ordering::Relaxed)
    }
}
