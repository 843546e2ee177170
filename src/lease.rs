//! The lease store: nonce hash → lease, in memory only. A restart ends all nonces.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::clock::SharedClock;
use crate::model::{
    AgentName, Deadline, IdentityRule, MinterName, Nonce, NonceHash, NonceId, ScopeName, ServiceName, TaskName,
};

/// Limits of the store.
#[derive(Debug, Clone)]
pub struct Config {
    /// Live leases at most; more are refused with `overloaded`.
    pub live_max: usize,
    /// How long a tombstone is kept.
    pub tombstone_life: Duration,
    /// Tombstones at most.
    pub tombstones_max: usize,
}

/// Everything that a new lease is made of; the policy has already approved it.
#[derive(Debug, Clone)]
pub struct NewLease {
    /// Whose.
    pub agent: AgentName,
    /// Who may present it.
    pub identities: Arc<[IdentityRule]>,
    /// For what.
    pub task: TaskName,
    /// Who asked.
    pub minter: MinterName,
    /// What it opens; per scope the uses that the policy allows.
    pub grants: Vec<LeaseGrant>,
    /// How long this period lasts, from now.
    pub ttl: Duration,
    /// How long it may live with renewals, from now.
    pub lifetime: Duration,
    /// Uses of the whole nonce.
    pub max_uses: Option<u32>,
    /// Which run of the agent, as the minter said.
    pub instance: Option<String>,
    /// On whose behalf, as the minter said.
    pub on_behalf_of: Option<String>,
    /// Why, as the minter said.
    pub reason: Option<String>,
    /// Labels, as the minter said.
    pub labels: BTreeMap<String, String>,
}

/// One service of a lease.
#[derive(Debug, Clone)]
pub struct LeaseGrant {
    /// The service.
    pub service: ServiceName,
    /// Its scopes and the uses each has (`None`: no limit of its own).
    pub scopes: Vec<(ScopeName, Option<u32>)>,
}

/// Why a lease is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndCause {
    /// Its time was over.
    Expired,
    /// Somebody revoked it.
    Revoked,
    /// Its last use is gone.
    Spent,
    /// It was seen where it must not be.
    Misplaced,
}

/// A live (or just ended) lease.
pub struct Lease {}

/// What is left of an ended lease.
#[derive(Debug, Clone)]
pub struct Tombstone {
    /// The accessor.
    pub id: NonceId,
    /// Why.
    pub cause: EndCause,
    /// When.
    pub at: Timestamp,
}

/// What the store knows of a presented nonce.
pub enum Found {
    /// Alive at this moment.
    Live(Arc<Lease>),
    /// Ended, and still remembered.
    Dead(Tombstone),
    /// Never ours, or forgotten.
    Unknown,
}

/// Uses reserved for one request; given back on drop unless [`Reservation::spend`] was called.
pub struct Reservation {}

impl Reservation {
    /// The request's bytes are going out: the use is spent for good.
    pub fn spend(&mut self) {
        todo!()
    }
}

/// An exchange's membership in its lease: tells when the lease is cut.
pub struct Membership {}

impl Membership {
    /// True once the lease is revoked (or misplaced): nothing more may pass.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        todo!()
    }

    /// Completes when the lease is revoked (not when it merely expires or is spent).
    pub async fn cut(&self) {
        todo!()
    }
}

/// No use is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent;

impl Lease {
    /// The accessor.
    #[must_use]
    pub fn id(&self) -> NonceId {
        todo!()
    }
    /// All that it was made of.
    #[must_use]
    pub fn terms(&self) -> &NewLease {
        todo!()
    }
    /// When it was minted.
    #[must_use]
    pub fn issued_at(&self) -> Timestamp {
        todo!()
    }
    /// When this period ends.
    #[must_use]
    pub fn deadline(&self) -> Deadline {
        todo!()
    }
    /// When its life ends for good.
    #[must_use]
    pub fn ends_at(&self) -> Timestamp {
        todo!()
    }
    /// Uses left, where there is a limit.
    #[must_use]
    pub fn uses_left(&self) -> Option<u32> {
        todo!()
    }
    /// Why it ended, if it has (expiry by the clock included).
    #[must_use]
    pub fn ended(&self) -> Option<EndCause> {
        todo!()
    }
    /// Reserves one use of the nonce and of the scope, atomically, exactly under concurrency.
    ///
    /// # Errors
    /// [`Spent`] when either has none left; nothing is taken then.
    pub fn reserve(self: &Arc<Self>, _service: &ServiceName, _scope: &ScopeName) -> Result<Reservation, Spent> {
        todo!()
    }
    /// Joins the lease for the time of an exchange; `None` if it is already cut or over.
    #[must_use]
    pub fn join(self: &Arc<Self>) -> Option<Membership> {
        todo!()
    }
}

/// The store; the three handles below are all that anybody else gets.
pub struct Store {}

impl Store {
    /// An empty store.
    #[must_use]
    pub fn new(_config: Config, _clock: SharedClock) -> Arc<Self> {
        todo!()
    }

    /// Called for every end of a lease (sweeper, revocation, last use), never under a lock of the map.
    pub fn on_end(&self, _listener: Box<dyn Fn(&Lease, EndCause, Option<&str>) + Send + Sync>) {
        todo!()
    }

    /// For the control API.
    #[must_use]
    pub fn minter(self: &Arc<Self>) -> Minter {
        todo!()
    }

    /// For the proxy.
    #[must_use]
    pub fn lookup(self: &Arc<Self>) -> Lookup {
        todo!()
    }

    /// Sweeps expired leases: sleeps until the next expiry, never scans everything. Runs until dropped.
    pub async fn sweep(self: Arc<Self>) {
        todo!()
    }

    /// Live leases.
    #[must_use]
    pub fn live_count(&self) -> usize {
        todo!()
    }
}

/// May make, list and end leases; cannot read a secret.
#[derive(Clone)]
pub struct Minter {}

/// The store is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl Minter {
    /// The id that a next lease could have (fresh randomness), so that an idempotent nonce can be computed from it.
    #[must_use]
    pub fn next_id(&self) -> NonceId {
        todo!()
    }
    /// Makes a lease for this nonce.
    ///
    /// # Errors
    /// [`Full`].
    pub fn mint(&self, _id: NonceId, _nonce: &Nonce, _terms: NewLease) -> Result<Arc<Lease>, Full> {
        todo!()
    }
    /// By accessor; live ones only.
    #[must_use]
    pub fn get(&self, _id: NonceId) -> Option<Arc<Lease>> {
        todo!()
    }
    /// By hash: live, dead or unknown.
    #[must_use]
    pub fn find(&self, _hash: &NonceHash) -> Found {
        todo!()
    }
    /// All live leases, in the order of their ids, after `after`, at most `limit`, where `keep` says so.
    #[must_use]
    pub fn list(&self, _after: Option<NonceId>, _limit: usize, _keep: &dyn Fn(&Lease) -> bool) -> Vec<Arc<Lease>> {
        todo!()
    }
    /// Ends a lease: no request is accepted after this has returned. False if there was none.
    #[must_use]
    pub fn revoke(&self, _id: NonceId, _cause: EndCause, _by: &str) -> bool {
        todo!()
    }
    /// Ends all leases.
    pub fn revoke_all(&self, _by: &str) -> usize {
        todo!()
    }
}

/// May look leases up and end a misplaced one; cannot mint.
#[derive(Clone)]
pub struct Lookup {}

impl Lookup {
    /// By the hash of what was presented.
    #[must_use]
    pub fn find(&self, _hash: &NonceHash) -> Found {
        todo!()
    }
    /// Ends a lease whose nonce was seen where it must not be.
    pub fn misplaced(&self, _lease: &Lease) {
        todo!()
    }
}
