//! The locks, the word and the fences of which the promises of a lease are made.
//!
//! In the tests of this module each of them is wrapped, and is a point where a model may let somebody else go first.

#[cfg(not(test))]
pub(super) use parking_lot::{Mutex, RwLock};
#[cfg(not(test))]
pub(super) use std::sync::atomic::{AtomicU64, fence};

#[cfg(test)]
pub(super) use super::tests::points::{AtomicU64, Mutex, RwLock, fence};

/// What `change` does under the lock, which then goes to whoever waits for it: for who takes a lock over and over, as the
/// sweeper does. An unfair lock is taken again before the other is awake, for up to a millisecond on end.
pub(super) fn in_turn<T, R>(lock: &Mutex<T>, change: impl FnOnce(&mut T) -> R) -> R {
    let mut value = lock.lock();
    let result = change(&mut value);
    parking_lot::MutexGuard::unlock_fair(value);
    result
}

/// The same for a lock of readers and writers.
pub(super) fn write_in_turn<T, R>(lock: &RwLock<T>, change: impl FnOnce(&mut T) -> R) -> R {
    let mut value = lock.write();
    let result = change(&mut value);
    parking_lot::RwLockWriteGuard::unlock_fair(value);
    result
}
