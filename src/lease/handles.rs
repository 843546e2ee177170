//! What the two planes get of the store: one mints and cannot read a secret, the other reads and cannot mint.

use std::sync::Arc;

use super::{EndCause, Found, Lease, MintError, NewLease, Store, Tombstone};
use crate::model::{Deadline, Nonce, NonceHash, NonceId};

/// May make, list and end leases; cannot read a secret.
#[derive(Clone)]
pub struct Minter(Arc<Store>);

/// May look leases up and end a misplaced one; cannot mint.
#[derive(Clone)]
pub struct Lookup(Arc<Store>);

impl Minter {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self(store)
    }

    /// The id that a next lease could have (fresh randomness), so that an idempotent nonce can be computed from it.
    ///
    /// An id is no secret. If the kernel has no randomness, ids of one millisecond are all the same, and
    /// [`Minter::mint`] refuses the second one.
    #[must_use]
    pub fn next_id(&self) -> NonceId {
        let mut random = [0; 16];
        if getrandom::fill(&mut random[6..]).is_err() {
            random = [0; 16];
        }
        let unix_milliseconds = u64::try_from(self.0.now().wall.as_millisecond()).unwrap_or(0);
        NonceId::from_parts(unix_milliseconds, u128::from_be_bytes(random))
    }

    /// Makes a lease for this nonce. If the nonce has a live lease already (a repeated request), that one is
    /// returned and these terms and this id are dropped: compare [`Lease::id`] to know.
    ///
    /// # Errors
    /// [`MintError::Full`] when there are too many; [`MintError::Taken`] when the nonce's lease is over, or when
    /// another lease has the id.
    pub fn mint(&self, id: NonceId, nonce: &Nonce, terms: NewLease) -> Result<Arc<Lease>, MintError> {
        self.0.mint(id, nonce.hash(), terms)
    }

    /// By accessor; live ones only.
    #[must_use]
    pub fn get(&self, id: NonceId) -> Option<Arc<Lease>> {
        self.0.get(id)
    }

    /// By hash: live, dead or unknown.
    #[must_use]
    pub fn find(&self, hash: &NonceHash) -> Found {
        self.0.find(hash)
    }

    /// All live leases, in the order of their ids, after `after`, at most `limit`, where `keep` says so.
    ///
    /// `keep` runs under no lock. What is minted or ends meanwhile may be there or not.
    #[must_use]
    pub fn list(&self, after: Option<NonceId>, limit: usize, keep: &dyn Fn(&Lease) -> bool) -> Vec<Arc<Lease>> {
        let mut found = Vec::new();
        if limit > 0 {
            self.0.each_live(after, &mut |lease| {
                if keep(&lease) {
                    found.push(lease);
                }
                found.len() < limit
            });
        }
        found
    }

    /// What is remembered of a lease that is over, by its accessor.
    #[must_use]
    pub fn dead(&self, id: NonceId) -> Option<Tombstone> {
        self.0.dead(id)
    }

    /// Lets a lease live until then (see [`Lease::renewal`]), within its life and never shorter than it would anyhow.
    /// False if it is over: the dead do not come back.
    #[must_use]
    pub fn renew(&self, lease: &Arc<Lease>, until: Deadline) -> bool {
        self.0.extend(lease, until)
    }

    /// By accessor: one that is spent or has expired while exchanges of it may go on.
    #[must_use]
    pub fn lingering(&self, id: NonceId) -> Option<Arc<Lease>> {
        self.0.lingering(id)
    }

    /// Ends a lease: no request is accepted after this has returned, and what is under way is cut, also where the lease
    /// was over before. False if it was not alive.
    #[must_use]
    pub fn revoke(&self, id: NonceId, cause: EndCause, by: &str) -> bool {
        let ended = self.get(id).is_some_and(|lease| self.0.finish(&lease, cause, Some(by)));
        if !ended && let Some(lease) = self.lingering(id) {
            lease.cut();
        }
        ended
    }

    /// Ends all leases where `which` says so, as [`Minter::revoke`] does; how many. Every lease that was minted
    /// before this call is asked about; `which` runs under no lock.
    pub fn revoke_where(&self, which: &dyn Fn(&Lease) -> bool, cause: EndCause, by: &str) -> usize {
        self.0.finish_where(which, cause, by)
    }

    /// Ends all leases; how many there were.
    pub fn revoke_all(&self, by: &str) -> usize {
        self.revoke_where(&|_| true, EndCause::Revoked, by)
    }
}

impl Lookup {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self(store)
    }

    /// By the hash of what was presented.
    #[must_use]
    pub fn find(&self, hash: &NonceHash) -> Found {
        match self.0.find(hash) {
            Found::Live(lease) if lease.is_canary() => Found::Canary(lease),
            found @ (Found::Live(_) | Found::Canary(_) | Found::Dead(_) | Found::Unknown) => found,
        }
    }

    /// Ends a lease whose nonce was seen where it must not be.
    pub fn misplaced(&self, lease: &Lease) {
        self.0.finish(lease, EndCause::Misplaced, None);
    }
}
