//! Leases by the hash of their nonce: many small tables, each under a lock of its own.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;
use parking_lot::RwLock;

use super::Lease;
use crate::model::NonceHash;

/// Leases in one table when there are as many as there may be. The tables are full then: their next size is due at 448,
/// which few of them reach. The last growing moves 224 leases, each of which may have to be fetched from memory: some
/// 100 µs. More tables, and their heads would no more stay in the processor's cache.
const TABLE_LEASES: usize = 410;

/// Tables at most, whatever the limit of leases.
const TABLES_MAX: usize = 1 << 16;

/// All leases, found by the hash of their nonce.
pub(super) struct ByHash {
    /// Random: nobody can choose nonces that collide.
    keys: RandomState,
    tables: Box<[RwLock<HashTable<Arc<Lease>>>]>,
}

impl ByHash {
    /// For so many leases.
    pub(super) fn new(live_max: usize) -> Self {
        let tables = live_max.div_ceil(TABLE_LEASES).clamp(1, TABLES_MAX);
        Self { keys: RandomState::new(), tables: (0..tables).map(|_| RwLock::default()).collect() }
    }

    pub(super) fn get(&self, hash: &NonceHash) -> Option<Arc<Lease>> {
        let (key, table) = self.find(hash);
        table.read().find(key, |lease| lease.hash == *hash).cloned()
    }

    /// Adds a lease; the caller has seen that there is none with its hash.
    pub(super) fn insert(&self, lease: Arc<Lease>) {
        let (key, table) = self.find(&lease.hash);
        table.write().insert_unique(key, lease, |lease| self.keys.hash_one(lease.hash));
    }

    /// Takes a lease out; the caller drops it, when no lock is held any more.
    pub(super) fn remove(&self, hash: &NonceHash) -> Option<Arc<Lease>> {
        let (key, table) = self.find(hash);
        let mut table = table.write();
        table.find_entry(key, |lease| lease.hash == *hash).ok().map(|entry| entry.remove().0)
    }

    /// The key of a hash and the table for it, by bits that the table itself does not look at: it begins with the lowest
    /// ones and tells neighbours apart by the highest seven.
    fn find(&self, hash: &NonceHash) -> (u64, &RwLock<HashTable<Arc<Lease>>>) {
        let key = self.keys.hash_one(hash);
        let tables = self.tables.len();
        let at = (u128::from(key << 7) * tables as u128) >> u64::BITS;
        // Below their number, since the factor is below one.
        (key, &self.tables[usize::try_from(at).unwrap_or_default()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_evenly_filled_and_there_are_so_many_as_leases_want() {
        assert_eq!(ByHash::new(0).tables.len(), 1);
        assert_eq!(ByHash::new(usize::MAX).tables.len(), TABLES_MAX);
        let index = ByHash::new(10 * TABLE_LEASES);
        assert_eq!(index.tables.len(), 10);
        let mut counts = [0_usize; 10];
        for number in 0..10 * TABLE_LEASES {
            let (_, table) = index.find(&NonceHash::of(&number.to_be_bytes()));
            let at = index.tables.iter().position(|other| std::ptr::eq(other, table)).unwrap();
            counts[at] += 1;
        }
        // Seven standard deviations.
        assert!(counts.iter().all(|count| count.abs_diff(TABLE_LEASES) < 140), "{counts:?}");
    }
}
