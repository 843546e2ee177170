//! What a lease was made of. Most of it comes from the policy and is the same for many leases: it is kept once.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::said::{Labels, Lines, Said};
use super::{NewLease, Store};
use crate::model::{AgentName, Budget, IdentityRule, LeaseGrant, MinterName, Rate, TaskName};

/// Distinct terms that are remembered for sharing; beyond that they are forgotten together and collected anew.
const SHARED_MAX: usize = 1024;

/// All that a lease was made of, as [`NewLease`] had it, borrowed from the lease.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// Whose.
    pub agent: &'a AgentName,
    /// Who may present it.
    pub identities: &'a [IdentityRule],
    /// For what.
    pub task: &'a TaskName,
    /// Who asked.
    pub minter: &'a MinterName,
    /// What it opens; per scope the uses that the policy allows.
    pub grants: &'a [LeaseGrant],
    /// How long its first period lasts, from the minting on.
    pub ttl: Duration,
    /// How long it may live with renewals, from the minting on.
    pub lifetime: Duration,
    /// Uses of the whole nonce.
    pub max_uses: Option<u32>,
    /// How fast the whole nonce may be used.
    pub rate: Option<Rate>,
    /// What it shares with the other nonces of its task.
    pub budget: Option<Budget>,
    /// Which run of the agent, as the minter said.
    pub instance: Option<&'a str>,
    /// On whose behalf, as the minter said.
    pub on_behalf_of: Option<&'a str>,
    /// Why, as the minter said.
    pub reason: Option<&'a str>,
    /// Labels, as the minter said.
    pub labels: Labels<'a>,
    /// The list of its own; empty where it has none.
    pub lines: Lines<'a>,
}

/// The part that leases have in common.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Common {
    agent: AgentName,
    identities: Arc<[IdentityRule]>,
    minter: MinterName,
    pub(super) grants: Box<[LeaseGrant]>,
    pub(super) ttl: Duration,
    pub(super) lifetime: Duration,
    pub(super) max_uses: Option<u32>,
    pub(super) rate: Option<Rate>,
    pub(super) budget: Option<Budget>,
}

impl Common {
    /// Splits off what is a lease's own.
    pub(super) fn of(terms: NewLease) -> (Self, TaskName) {
        let NewLease { agent, identities, task, minter, grants, ttl, lifetime, max_uses, rate, budget, .. } = terms;
        (Self { agent, identities, minter, grants: grants.into(), ttl, lifetime, max_uses, rate, budget }, task)
    }
}

/// What a lease shares with others: their terms, and the store.
pub(super) struct Group {
    pub(super) common: Common,
    pub(super) store: Weak<Store>,
    /// Leases of them that are in the indexes.
    live: AtomicUsize,
}

impl Group {
    /// No lease has entered yet.
    pub(super) fn new(common: Common, store: Weak<Store>) -> Self {
        Self { common, store, live: AtomicUsize::new(0) }
    }

    /// Counts one more live lease; true for the first.
    pub(super) fn is_entered(&self) -> bool {
        self.live.fetch_add(1, Ordering::AcqRel) == 0
    }

    /// Counts one less; true for the last.
    pub(super) fn is_left(&self) -> bool {
        self.live.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// The terms of one of them, of which this is its own.
    pub(super) fn view<'a>(&'a self, task: &'a TaskName, said: Option<&'a Said>) -> Terms<'a> {
        let Common { agent, identities, minter, grants, ttl, lifetime, max_uses, rate, budget } = &self.common;
        Terms {
            agent,
            identities,
            task,
            minter,
            grants,
            ttl: *ttl,
            lifetime: *lifetime,
            max_uses: *max_uses,
            rate: *rate,
            budget: *budget,
            instance: said.and_then(Said::instance),
            on_behalf_of: said.and_then(Said::on_behalf_of),
            reason: said.and_then(Said::reason),
            labels: said.map(Said::labels).unwrap_or_default(),
            lines: said.map(Said::lines).unwrap_or_default(),
        }
    }
}

/// A group, found by its terms.
struct Known(Arc<Group>);

impl Borrow<Common> for Known {
    fn borrow(&self) -> &Common {
        &self.0.common
    }
}

impl PartialEq for Known {
    fn eq(&self, other: &Self) -> bool {
        self.0.common == other.0.common
    }
}

impl Eq for Known {}

impl Hash for Known {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.common.hash(state);
    }
}

/// The groups of recent leases.
#[derive(Default)]
pub(super) struct Shared(parking_lot::Mutex<HashSet<Known>>);

impl Shared {
    /// The group of all leases in this store that have these terms.
    #[expect(clippy::mutable_key_type, reason = "what is counted is neither hashed nor compared")]
    pub(super) fn group(&self, common: Common, store: Weak<Store>) -> Arc<Group> {
        let mut known = self.0.lock();
        if let Some(same) = known.get(&common) {
            return same.0.clone();
        }
        let forgotten = if known.len() >= SHARED_MAX { mem::take(&mut *known) } else { HashSet::new() };
        let group = Arc::new(Group::new(common, store));
        known.insert(Known(group.clone()));
        // A thousand of them take their time to be dropped.
        drop(known);
        drop(forgotten);
        group
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::tests::terms;

    fn group(shared: &Shared, terms: NewLease) -> Arc<Group> {
        shared.group(Common::of(terms).0, Weak::new())
    }

    #[test]
    fn equal_terms_are_kept_once_and_others_apart() {
        let shared = Shared::default();
        let task = TaskName::parse("another").unwrap();
        let (first, second) = (group(&shared, terms()), group(&shared, NewLease { task, ..terms() }));
        let other = group(&shared, NewLease { max_uses: Some(1), ..terms() });
        assert!(Arc::ptr_eq(&first, &second));
        assert!(!Arc::ptr_eq(&first, &other));
    }

    #[test]
    fn the_memory_of_shared_terms_is_bounded() {
        let shared = Shared::default();
        for uses in 0..3000 {
            group(&shared, NewLease { max_uses: Some(uses), ..terms() });
            assert!(shared.0.lock().len() <= SHARED_MAX);
        }
    }
}
