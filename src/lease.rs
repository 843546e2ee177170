//! The lease store: nonce hash → lease, in memory only. A restart ends all nonces.
//!
//! | file | holds |
//! | --- | --- |
//! | `live` | one [`Lease`]: its single way from alive to over, and the exchanges that joined it |
//! | `state` | the one word that says whether a lease lives and until when |
//! | `terms` | what a lease was made of, with the parts that many leases have in common kept once |
//! | `kin` | where a delegated lease comes from, and what was delegated from a lease |
//! | `said` | what a minter may say of a lease and mostly does not, packed |
//! | `uses` | counted uses: reserved, given back, spent; and how fast they come |
//! | `pace` | a rate: when the next use may come |
//! | `rule_pace` | the same of single rules |
//! | `allowance` | what all nonces of a task share |
//! | `store` | the [`Store`]: the indexes, minting, and what happens when a lease ends |
//! | `by_hash` | the index of the look-ups: many small tables |
//! | `sorted` | leases in an order, for the index by ids and the schedule |
//! | `family` | delegating a lease, and what ends with one that has ended |
//! | `handles` | [`Minter`] for the control plane, [`Lookup`] for the proxy |
//! | `schedule`, `sweep` | leases in the order of their expiry, and the task that ends them in time |
//! | `sync` | the locks and atomics of all that; in tests a model may switch actors at each |
//! | `tombs` | what is remembered of the dead |
//! | `many` | ending many leases by one word |
//! | `completed` | tasks for which nothing is minted any more |
//! | `shares` | how many each minter has |
//! | `needs` | which scopes live leases have |
//! | `risk` | what monitors have said of agents and tasks, which lowers what is allowed |
//!
//! # When a lease is over
//!
//! A lease ends once. The moment is one compare-and-swap of its state from "alive"; whoever wins it cuts the
//! exchanges (where the cause says so), lays the tombstone, takes the lease out of the indexes and tells the
//! listeners, in this order. Everybody who accepts anything for a lease reads that cause: `find`, `reserve`, `join`
//! and `ended`. So an acceptance either read the cause before the swap, and is ordered before the end, or it is
//! refused; and since `revoke` returns after the swap, nothing that begins after `revoke` has returned can succeed.
//!
//! What began before is cut: `join` first makes the lease's token and then reads the cause, the end first sets the
//! cause and then looks for a token, and both put a sequentially consistent fence in between. At least one of the two
//! sees the other: either `join` refuses, or the token is there to be cancelled.
//!
//! # Renewal
//!
//! The same word holds the end of the present period. A renewal swaps it from a living state whose period is not over,
//! and an expiry from one whose period is: of two at the same time one happens. An expired lease never comes back, and
//! a renewal that was granted is not undone by somebody who looked before it.
//!
//! # Delegation
//!
//! A child holds its parent; the parent knows its children. Whoever accepts anything for a lease reads its cause and those
//! of all above it, so nothing is accepted for a child once the end of one above it has been swapped in. That end then
//! walks down and ends what lives below, and cuts what is under way. A child is put among its parent's children under
//! their lock, after a look at the causes above; the walk takes the same lock after the swap: either the child is
//! refused, or the walk meets it. A use is taken of a child and of all above it under all their locks at once, or of none.
//!
//! # Locks
//!
//! All are short, none is held over an await or while a listener, a predicate or a clock is called. The order is
//! ids → (a table of hashes | tombs | schedule | completed tasks | the tasks' allowances | the minters' shares | the needs), the latter never inside one
//! another; the counters of a lease are locked alone or together with those of all above it, its own first, and then come
//! the allowances of their tasks, by their addresses, and then the paces of rules, its own first: all after all other locks. The children of a lease are locked alone.

mod allowance;
mod by_hash;
mod completed;
mod family;
mod handles;
mod kin;
mod lingering;
mod live;
mod many;
mod needs;
pub(crate) mod pace;
mod redirects;
mod risk;
mod rule_pace;
mod said;
mod schedule;
mod shares;
mod sorted;
mod stand_in;
mod state;
mod store;
mod sweep;
mod sync;
mod terms;
#[cfg(test)]
mod tests;
mod tombs;
mod uses;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::model::{AgentName, Budget, Deadline, IdentityRule, LeaseGrant, MinterName, NonceId, Rate, TaskName};

pub use handles::{Lookup, Minter};
pub use kin::Delegating;
pub use live::{Lease, Membership};
pub use risk::{Restriction, RiskSubject, TooMany};
pub use said::{Labels, Lines};
pub use stand_in::StandIn;
pub use store::{Listener, Store};
pub use terms::Terms;
pub use uses::Reservation;

/// Limits of the store.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Live leases at most; more are refused with `overloaded`.
    pub live_max: usize,
    /// How long a tombstone is kept.
    pub tombstone_life: Duration,
    /// Tombstones at most.
    pub tombstones_max: usize,
}

impl Default for Config {
    /// A million live leases; tombstones for an hour, at most 100,000.
    fn default() -> Self {
        Self { live_max: 1_000_000, tombstone_life: Duration::from_secs(3600), tombstones_max: 100_000 }
    }
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
    /// What it opens; per scope the limits that the policy sets.
    pub grants: Vec<LeaseGrant>,
    /// How long its first period lasts, from now.
    pub ttl: Duration,
    /// How long it may live with renewals, from now; a `ttl` beyond it ends with it.
    pub lifetime: Duration,
    /// Uses of the whole nonce (`None`: no limit but those of the scopes).
    pub max_uses: Option<u32>,
    /// How fast the whole nonce may be used (`None`: no limit but those of the scopes).
    pub rate: Option<Rate>,
    /// Live leases that its minter may have, this one among them.
    pub minter_live_max: usize,
    /// What it shares with the other nonces that its minter has made for its agent and its task.
    pub budget: Option<Budget>,
    /// Which run of the agent, as the minter said.
    pub instance: Option<String>,
    /// On whose behalf, as the minter said.
    pub on_behalf_of: Option<String>,
    /// Why, as the minter said.
    pub reason: Option<String>,
    /// Labels, as the minter said.
    pub labels: BTreeMap<String, String>,
    /// What it may do at most, whatever its scopes allow: a line of the policy's each. Without any it has no such list.
    pub lines: Vec<String>,
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

impl EndCause {
    /// The word of the audit and the metrics: `expired`, `revoked`, `spent` or `misplaced`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Spent => "spent",
            Self::Misplaced => "misplaced",
        }
    }

    /// Why what was delegated from a lease with this cause is over.
    #[must_use]
    pub fn inherited(self) -> Self {
        match self {
            Self::Expired => Self::Expired,
            Self::Spent => Self::Spent,
            // Nobody saw the child's own nonce in a wrong place.
            Self::Revoked | Self::Misplaced => Self::Revoked,
        }
    }

    /// True when exchanges in flight are cut as well: somebody does not want them, not merely no more of them.
    #[must_use]
    pub fn cuts(self) -> bool {
        match self {
            Self::Revoked | Self::Misplaced => true,
            Self::Expired | Self::Spent => false,
        }
    }
}

/// What is left of an ended lease.
#[derive(Debug, Clone)]
pub struct Tombstone {
    /// The accessor.
    pub id: NonceId,
    /// Why.
    pub cause: EndCause,
    /// When.
    pub at: Timestamp,
    /// Whose it was.
    pub agent: AgentName,
    /// Who asked for it.
    pub minter: MinterName,
}

/// What a renewal gives ([`Lease::renewal`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewal {
    /// When the period ends then.
    pub until: Deadline,
    /// True when the end of the lease's life, or of its parent's period, made it shorter than asked.
    pub is_capped: bool,
}

/// What the store knows of a presented nonce.
#[derive(Debug)]
pub enum Found {
    /// Alive at this moment.
    Live(Arc<Lease>),
    /// Alive, and minted to be found ([`Lease::is_canary`]): to whoever presents it, it is unknown. Told by [`Lookup`]
    /// alone.
    Canary(Arc<Lease>),
    /// Ended, and still remembered.
    Dead(Tombstone),
    /// Never ours, or forgotten.
    Unknown,
}

/// Why no use was given; what can be mended sooner comes before what cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum NoUse {
    /// Uses come faster than they may.
    #[error("uses come faster than they may")]
    TooFast {
        /// When the next one may come, from now.
        wait: Duration,
    },
    /// The task's allowance is used up.
    #[error("the task's allowance is used up")]
    TaskSpent,
    /// None is left, or nothing may be used any more ([`Lease::ended`] says why).
    #[error("no use is left")]
    Spent,
}

/// How a revocation went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revoked {
    /// It was alive.
    pub was_live: bool,
    /// Leases that were delegated from it, and from those, that ended with it.
    pub descendants: usize,
}

/// Why no lease was delegated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DelegateError {
    /// The parent, or one above it, is over.
    #[error("the parent is over")]
    ParentOver(EndCause),
    /// It was made, and ended with its parent at once; the listeners were told.
    #[error("the parent ended meanwhile")]
    Ended(EndCause),
    /// The parent has as many live children as it may.
    #[error("the parent has too many live children")]
    TooManyChildren,
    /// As for every lease.
    #[error(transparent)]
    Mint(#[from] MintError),
}

/// Why no lease was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// There are as many live leases as there may be ([`Config::live_max`]).
    #[error("there are too many live nonces")]
    Full,
    /// The nonce belonged to a lease that is over, or the id belongs to another lease. The dead do not come back.
    #[error("the nonce or its id was taken before")]
    Taken,
    /// Its minter has as many live leases as it may have.
    #[error("the minter has too many live nonces")]
    MinterFull,
    /// Its minter has completed the task.
    #[error("the task was completed")]
    Completed,
    /// The allowance of its task is used up.
    #[error("the task's allowance is used up")]
    TaskSpent,
}
