//! The locks, the word and the fences of which the promises of a lease are made.
//!
//! In the tests of this module each of them is wrapped, and is a point where a model may let somebody else go first.

#[cfg(not(test))]
pub(super) use parking_lot::{Mutex, RwLock};
#[cfg(not(test))]
pub(super) use std::sync::atomic::{AtomicU64, fence};

#[cfg(test)]
pub(super) use super::tests::points::{AtomicU64, Mutex, RwLock, fence};
