//! What the two planes get of the store: one mints and cannot read a secret, the other reads and cannot mint.

use std::sync::Arc;

use super::{
    DelegateError, Delegating, EndCause, Found, Lease, MintError, NewLease, Restriction, Revoked, RiskSubject, StandIn,
    Store, Tombstone, TooMany,
};
use crate::model::{AgentName, Deadline, MinterName, Nonce, NonceHash, NonceId, Now, ScopeName, ServiceName, TaskName};

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

    /// Makes a lease below another one, on terms that the policy approved for it. It lives no longer than its parent and
    /// ends with it, and each use of it is one of its parent and of all above that.
    ///
    /// # Errors
    /// [`DelegateError`].
    pub fn delegate(
        &self,
        parent: &Arc<Lease>,
        delegating: Delegating,
        id: NonceId,
        nonce: &Nonce,
        terms: NewLease,
    ) -> Result<Arc<Lease>, DelegateError> {
        self.0.delegate(parent, delegating, (id, nonce.hash()), terms)
    }

    /// The key pair with which a nonce signs; `None` if there was no randomness at start.
    #[must_use]
    pub fn stand_in(&self, nonce: &Nonce) -> Option<StandIn> {
        self.0.stand_ins.of(&nonce.hash())
    }

    /// Live leases that this minter has.
    #[cfg(test)]
    pub(super) fn live_of(&self, minter: &MinterName) -> usize {
        self.0.live_of(minter)
    }

    /// True where this minter, which may have so many live leases, could have one more; one that is made by the holder of
    /// `parent`, if that is named.
    #[must_use]
    pub fn has_room(&self, minter: &MinterName, parent: Option<&Lease>, max: usize) -> bool {
        self.0.has_room(minter, parent.map(Lease::first_agent), max)
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

    /// Ends a lease, with all that was delegated from it: no request is accepted after this has returned, and what is
    /// under way is cut, also where the lease was over before. False if it was not alive.
    #[must_use]
    pub fn revoke(&self, id: NonceId, cause: EndCause, by: &str) -> bool {
        self.revoke_counted(id, cause, by).was_live
    }

    /// The same, and says how many others ended with it.
    #[must_use]
    pub fn revoke_counted(&self, id: NonceId, cause: EndCause, by: &str) -> Revoked {
        let ended = self.get(id).and_then(|lease| self.0.finish(&lease, cause, Some(by)));
        if ended.is_none()
            && let Some(lease) = self.lingering(id)
        {
            lease.cut_all();
        }
        Revoked { was_live: ended.is_some(), descendants: ended.unwrap_or(0) }
    }

    /// Ends all leases where `which` says so, as [`Minter::revoke`] does, and lets others have their turn in between; how
    /// many were alive. Every lease that was minted before this call is asked about, also when the caller is dropped
    /// half-way and calls again; `which` runs under no lock.
    pub async fn revoke_many(&self, which: &(dyn Fn(&Lease) -> bool + Sync), by: &str) -> usize {
        self.0.revoke_many(which, by).await
    }

    /// Lets nothing be minted for these minters' task from now on, for an hour. What is alive goes on: end it next.
    pub fn complete(&self, minters: &[MinterName], task: &TaskName) {
        let boot = self.0.now().boot;
        minters.iter().for_each(|minter| self.0.completed.add(minter, task, boot));
    }

    /// True for a minter's task that was completed less than an hour ago.
    #[must_use]
    pub fn is_completed(&self, minter: &MinterName, task: &TaskName) -> bool {
        self.0.completed.holds(minter, task, self.0.now().boot)
    }

    /// Puts a level of risk in force, in place of the one that was; without one there is none from now on. Holds from
    /// the next request on, when this has returned.
    ///
    /// # Errors
    /// [`TooMany`]; a subject that has a level can always get another one.
    pub fn restrict(&self, subject: &RiskSubject, to: Option<Restriction>) -> Result<(), TooMany> {
        self.0.risks.set(subject, to, &self.0.now())
    }

    /// The strictest level of risk in force for all nonces of an agent.
    #[must_use]
    pub fn restriction_of(&self, agent: &AgentName) -> Option<Restriction> {
        self.0.risks.find(agent, None, || self.0.now())
    }

    /// Ends all leases where `which` says so, as [`Minter::revoke`] does; how many ended. Every lease that was minted
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

    /// The key pair with which a nonce signs; `None` if there was no randomness at start.
    #[must_use]
    pub fn stand_in(&self, hash: &NonceHash) -> Option<StandIn> {
        self.0.stand_ins.of(hash)
    }

    /// The store's time.
    #[must_use]
    pub fn now(&self) -> Now {
        self.0.now()
    }

    /// The strictest level of risk in force for a lease. Costs nothing worth measuring while there is none at all.
    #[must_use]
    pub fn restriction(&self, lease: &Lease) -> Option<Restriction> {
        self.0.restriction(lease)
    }

    /// Whether a live lease has this scope.
    #[must_use]
    pub fn needs(&self, service: &ServiceName, scope: &ScopeName) -> bool {
        self.0.needs.holds(service, scope)
    }

    /// Whether a live lease has any scope.
    #[must_use]
    pub fn needs_any(&self) -> bool {
        self.0.needs.hold_any()
    }

    /// Completes when there is another scope that live leases have, or one less, since this was last asked.
    pub async fn needs_changed(&self) {
        self.0.needs.changed().await;
    }

    /// Ends a lease whose nonce was seen where it must not be.
    pub fn misplaced(&self, lease: &Lease) {
        let _below = self.0.finish(lease, EndCause::Misplaced, None);
    }
}
