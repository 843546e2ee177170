//! Leases by the hash of their nonce: many small tables, each under a lock of its own.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;
use parking_lot::RwLock;

use super::Lease;
use crate::model::NonceHash;

/// Leases in one table, in the mean, when there are as many as there may be.
///
/// Few, since a table that grows fetches its leases from memory under its lock: for so many some 50 µs. And just so many,
/// since a table doubles: one of 256 places takes 224, which with this mean one in a hundred exceeds, and the others are
/// nearly full. What a table costs without leases is 40 bytes.
const TABLE_LEASES: usize = 192;

/// Tables at most, whatever the limit of leases.
const TABLES_MAX: usize = 1 << 16;

/// All leases, found by the hash of their nonce. Hashed at random: nobody can choose nonces that collide.
pub(super) struct ByHash {
    random: RandomState,
    tables: Box<[RwLock<HashTable<Arc<Lease>>>]>,
}

impl ByHash {
    /// For so many leases.
    pub(super) fn new(live_max: usize) -> Self {
        let count = live_max.div_ceil(TABLE_LEASES).clamp(2, TABLES_MAX);
        Self { random: RandomState::new(), tables: (0..count).map(|_| RwLock::default()).collect() }
    }

    pub(super) fn get(&self, hash: &NonceHash) -> Option<Arc<Lease>> {
        let code = self.code(hash);
        self.table(code).read().find(code, |lease| lease.hash == *hash).cloned()
    }

    /// Adds a lease; the caller has seen that there is none with its hash.
    pub(super) fn insert(&self, lease: Arc<Lease>) {
        let code = self.code(&lease.hash);
        self.table(code).write().insert_unique(code, lease, |lease| self.code(&lease.hash));
    }

    /// Takes a lease out; the caller drops it, when no lock is held any more.
    pub(super) fn remove(&self, hash: &NonceHash) -> Option<Arc<Lease>> {
        let code = self.code(hash);
        let mut table = self.table(code).write();
        table.find_entry(code, |lease| lease.hash == *hash).ok().map(|entry| entry.remove().0)
    }

    fn code(&self, hash: &NonceHash) -> u64 {
        self.random.hash_one(hash)
    }

    /// By bits in the middle of the code: inside a table the lowest say where to look, and the highest what for.
    fn table(&self, code: u64) -> &RwLock<HashTable<Arc<Lease>>> {
        let middle = (code >> 16) & u64::from(u32::MAX);
        let at = (middle * self.tables.len() as u64) >> 32;
        &self.tables[usize::try_from(at).unwrap_or_default()]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::lease::terms::{Common, Group};
    use crate::lease::tests::terms;
    use crate::model::NonceId;

    fn leases(count: u64) -> Vec<Arc<Lease>> {
        let (now, (common, task)) = (ManualClock::new().now(), Common::of(terms()));
        let group = Arc::new(Group::new(common, Weak::new()));
        let lease = |number: u64| {
            let (id, hash) = (NonceId::from_parts(number, 0), NonceHash::of(&number.to_be_bytes()));
            Arc::new(Lease::new(id, hash, &now, group.clone(), task.clone(), None, None))
        };
        (0..count).map(lease).collect()
    }

    fn has(index: &ByHash, lease: &Arc<Lease>) -> bool {
        index.get(&lease.hash).is_some_and(|found| Arc::ptr_eq(&found, lease))
    }

    #[test]
    fn each_lease_is_found_until_it_is_taken_out_also_beyond_what_was_foreseen() {
        let leases = leases(6000);
        for live_max in [0, 1, 6000] {
            let index = ByHash::new(live_max);
            leases.iter().for_each(|lease| index.insert(lease.clone()));
            assert!(leases.iter().all(|lease| has(&index, lease)));
            let (gone, left): (Vec<_>, Vec<_>) = leases.iter().partition(|lease| lease.hash.as_bytes()[0] % 2 == 0);
            assert!(gone.iter().all(|lease| index.remove(&lease.hash).is_some_and(|taken| Arc::ptr_eq(&taken, lease))));
            assert!(gone.iter().all(|lease| index.get(&lease.hash).is_none() && index.remove(&lease.hash).is_none()));
            assert!(left.iter().all(|lease| has(&index, lease)));
            gone.iter().for_each(|lease| index.insert((*lease).clone()));
            assert!(leases.iter().all(|lease| has(&index, lease)));
        }
    }

    #[test]
    fn all_tables_take_part_and_of_a_full_store_nearly_none_has_doubled() {
        let leases = leases(60_000);
        let index = ByHash::new(leases.len());
        leases.iter().for_each(|lease| index.insert(lease.clone()));
        let rooms: Vec<usize> = index.tables.iter().map(|table| table.read().capacity()).collect();
        let doubled = rooms.iter().filter(|room| **room > 224).count();
        assert!(rooms.iter().all(|room| *room >= 112) && doubled * 10 < rooms.len(), "{doubled} of {}", rooms.len());
    }
}
