//! Leases by the hash of their nonce: a `DashMap` of many small tables, each under a lock of its own.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher, RandomState};
use std::sync::Arc;

use dashmap::DashMap;

use super::Lease;
use crate::model::NonceHash;

/// Leases in one table, about, when there are as many as there may be. When a table grows, its leases have to be fetched
/// from memory under its lock: for so few some 100 µs. With the number of tables that is usual, it would be milliseconds.
const TABLE_LEASES: usize = 300;

/// Tables at most, whatever the limit of leases.
const TABLES_MAX: usize = 1 << 16;

/// A lease as its own key: the hash lies in the lease, and not a second time beside it.
struct Key(Arc<Lease>);

impl Borrow<NonceHash> for Key {
    fn borrow(&self) -> &NonceHash {
        &self.0.hash
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash.hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.0.hash == other.0.hash
    }
}

impl Eq for Key {}

/// All leases, found by the hash of their nonce. Hashed at random: nobody can choose nonces that collide.
pub(super) struct ByHash(DashMap<Key, (), RandomState>);

impl ByHash {
    /// For so many leases.
    pub(super) fn new(live_max: usize) -> Self {
        let tables = live_max.div_ceil(TABLE_LEASES).clamp(2, TABLES_MAX).next_power_of_two();
        Self(DashMap::with_hasher_and_shard_amount(RandomState::new(), tables))
    }

    pub(super) fn get(&self, hash: &NonceHash) -> Option<Arc<Lease>> {
        self.0.get(hash).map(|entry| entry.key().0.clone())
    }

    /// Adds a lease; the caller has seen that there is none with its hash.
    pub(super) fn insert(&self, lease: Arc<Lease>) {
        self.0.insert(Key(lease), ());
    }

    /// Takes a lease out; the caller drops it, when no lock is held any more.
    pub(super) fn remove(&self, hash: &NonceHash) -> Option<Arc<Lease>> {
        self.0.remove(hash).map(|(key, ())| key.0)
    }
}
