//! What `sync` has, with a point before each move where a model may switch to another actor. Outside of a model they are
//! what they wrap.
//!
//! A switch is shuttle's. The actors of a model are coroutines of one thread, so that a lock that somebody else holds is
//! tried and not waited for, and everything happens in one order that all see: what a processor may reorder is not in it.

use std::cell::Cell;
use std::sync::atomic::{self, Ordering};

use parking_lot::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};

thread_local! {
    static IS_MODEL: Cell<bool> = const { Cell::new(false) };
}

/// As long as it lives, this thread's moves are points.
pub(super) struct Modelled(());

impl Modelled {
    pub(super) fn begin() -> Self {
        IS_MODEL.set(true);
        Self(())
    }
}

impl Drop for Modelled {
    fn drop(&mut self) {
        IS_MODEL.set(false);
    }
}

fn is_model() -> bool {
    IS_MODEL.get() && !std::thread::panicking()
}

fn point() {
    if is_model() {
        // Any move of shuttle's own lets its scheduler choose; this one says nothing of who should be chosen.
        shuttle::sync::atomic::AtomicBool::new(false).load(Ordering::SeqCst);
    }
}

/// The guard that `attempt` gives in a model, where nobody may wait for a lock.
fn attempt<G>(attempt: impl Fn() -> Option<G>, wait: impl FnOnce() -> G) -> G {
    point();
    while is_model() {
        if let Some(guard) = attempt() {
            return guard;
        }
        shuttle::thread::yield_now();
    }
    wait()
}

#[derive(Debug, Default)]
pub(in crate::lease) struct Mutex<T>(parking_lot::Mutex<T>);

impl<T> Mutex<T> {
    pub(in crate::lease) fn new(value: T) -> Self {
        Self(parking_lot::Mutex::new(value))
    }

    pub(in crate::lease) fn lock(&self) -> MutexGuard<'_, T> {
        attempt(|| self.0.try_lock(), || self.0.lock())
    }
}

#[derive(Debug, Default)]
pub(in crate::lease) struct RwLock<T>(parking_lot::RwLock<T>);

impl<T> RwLock<T> {
    pub(in crate::lease) fn new(value: T) -> Self {
        Self(parking_lot::RwLock::new(value))
    }

    pub(in crate::lease) fn read(&self) -> RwLockReadGuard<'_, T> {
        attempt(|| self.0.try_read(), || self.0.read())
    }

    pub(in crate::lease) fn write(&self) -> RwLockWriteGuard<'_, T> {
        attempt(|| self.0.try_write(), || self.0.write())
    }
}

#[derive(Debug, Default)]
pub(in crate::lease) struct AtomicU64(atomic::AtomicU64);

impl AtomicU64 {
    pub(in crate::lease) fn new(value: u64) -> Self {
        Self(atomic::AtomicU64::new(value))
    }

    pub(in crate::lease) fn load(&self, order: Ordering) -> u64 {
        point();
        self.0.load(order)
    }

    pub(in crate::lease) fn store(&self, value: u64, order: Ordering) {
        point();
        self.0.store(value, order);
    }

    pub(in crate::lease) fn compare_exchange(
        &self,
        present: u64,
        next: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        point();
        self.0.compare_exchange(present, next, success, failure)
    }

    /// As the standard library does it: a load, and a compare-and-swap of what was loaded.
    pub(in crate::lease) fn fetch_update(
        &self,
        success: Ordering,
        failure: Ordering,
        mut next: impl FnMut(u64) -> Option<u64>,
    ) -> Result<u64, u64> {
        let mut present = self.load(failure);
        while let Some(wanted) = next(present) {
            match self.compare_exchange(present, wanted, success, failure) {
                Ok(before) => return Ok(before),
                Err(other) => present = other,
            }
        }
        Err(present)
    }
}

pub(in crate::lease) fn fence(order: Ordering) {
    point();
    atomic::fence(order);
}
