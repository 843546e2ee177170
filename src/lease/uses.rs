//! Counted uses, and how fast they come. A use is reserved, and then either spent or given back.

use std::sync::Arc;
use std::{iter, mem};

use parking_lot::MutexGuard;
use smallvec::{SmallVec, smallvec};

use super::allowance::{Allowance, Taken};
use super::sync::Mutex;
use super::terms::Common;
use super::{Lease, NoUse, pace, rule_pace};
use crate::model::{Budget, RuleRate, ScopeName, ServiceName};

/// The counters of a lease that has any limit.
///
/// A use of a lease that was delegated is one of all above it as well; it is taken under all their locks.
///
/// One short lock takes both the nonce's and the scope's use or neither. Two atomics with a roll-back would never
/// give out too many, but for a moment hide a use that somebody else is about to give back, and refuse wrongly.
#[derive(Debug)]
pub(super) struct Uses(Mutex<Counts>);

#[derive(Debug)]
struct Counts {
    /// Of the whole nonce; `None` where at least one scope is free and the nonce has no limit of its own.
    total: Option<Total>,
    /// The pace of the whole nonce, as in [`pace`]; unused where it has no rate of its own.
    paid: u64,
    scopes: Scopes,
}

#[derive(Debug)]
struct Total {
    /// Neither spent nor reserved.
    left: u32,
    /// Not spent; at zero the lease is over.
    unspent: u32,
}

/// What is left of each scope, in the order of the grants, and behind that the pace of each. Without the latter where no
/// scope has a rate, and empty where no scope has a limit: there may be a million.
#[derive(Debug)]
struct Scopes(Box<[u64]>);

/// Stands for a scope without a limit of its own.
const UNLIMITED: u64 = u64::MAX;

impl Scopes {
    fn of(terms: &Common) -> Self {
        let limits = || terms.grants.iter().flat_map(|grant| &grant.scopes).map(|(_, limits)| limits);
        let left = limits().map(|limits| limits.uses.map_or(UNLIMITED, u64::from));
        let is_paced = limits().any(|limits| limits.rate.is_some());
        if !is_paced && limits().all(|limits| limits.uses.is_none()) {
            return Self(Box::default());
        }
        let never_used = limits().filter(|_| is_paced).map(|_| 0);
        Self(left.chain(never_used).collect())
    }

    /// What is left of the scope at this place, where that is limited.
    fn left(&mut self, scope: usize) -> Option<&mut u64> {
        self.0.get_mut(scope).filter(|left| **left != UNLIMITED)
    }

    /// The pace of the scope at this place, in a lease where one has a rate.
    fn paid(&mut self, scope: usize) -> Option<&mut u64> {
        let count = self.0.len() / 2;
        self.0.get_mut(count + scope)
    }
}

impl Uses {
    /// The counters for these terms; `None` when nothing in them has a limit.
    pub(super) fn of(terms: &Common) -> Option<Self> {
        // Where every scope is limited, so is the nonce: it is spent when all of them are.
        let mut uses = terms.grants.iter().flat_map(|grant| &grant.scopes).map(|(_, limits)| limits.uses);
        let sum = uses.try_fold(0_u32, |sum, uses| uses.map(|uses| sum.saturating_add(uses)));
        let total = [terms.max_uses, sum].into_iter().flatten().min();
        let scopes = Scopes::of(terms);
        if total.is_none() && terms.rate.is_none() && scopes.0.is_empty() {
            return None;
        }
        let total = total.map(|uses| Total { left: uses, unspent: uses });
        Some(Self(Mutex::new(Counts { total, paid: 0, scopes })))
    }

    /// Uses of the whole nonce that nobody has spent or reserved.
    pub(super) fn left(&self) -> Option<u32> {
        self.0.lock().total.as_ref().map(|total| total.left)
    }

    /// Uses of the scope at this place that nobody has spent or reserved.
    pub(super) fn left_of(&self, scope: usize) -> Option<u32> {
        let left = self.0.lock().scopes.left(scope).copied()?;
        Some(u32::try_from(left).unwrap_or(u32::MAX))
    }
}

impl Counts {
    /// Why nothing more may be taken of the nonce and of the scope of this claim.
    fn refusal(&mut self, claim: &Claim, now: u64) -> Option<NoUse> {
        let is_gone = self.scopes.left(claim.scope).is_some_and(|left| *left == 0);
        if is_gone || self.total.as_ref().is_some_and(|total| total.left == 0) {
            return Some(NoUse::Spent);
        }
        let of_nonce = claim.lease.own_rate().and_then(|rate| pace::wait(self.paid, rate, now));
        let of_scope = claim.lease.rate(claim.scope).and_then(|rate| {
            let paid = self.scopes.paid(claim.scope)?;
            pace::wait(*paid, rate, now)
        });
        of_nonce.max(of_scope).map(|wait| NoUse::TooFast { wait })
    }

    /// Takes a use of the nonce and of the scope; there is one of each.
    fn take(&mut self, claim: &Claim, now: u64) {
        if let Some(total) = &mut self.total {
            total.left -= 1;
        }
        if let Some(left) = self.scopes.left(claim.scope) {
            *left -= 1;
        }
        if let Some(rate) = claim.lease.own_rate() {
            self.paid = pace::paid(self.paid, rate, now);
        }
        if let Some(rate) = claim.lease.rate(claim.scope)
            && let Some(kept) = self.scopes.paid(claim.scope)
        {
            *kept = pace::paid(*kept, rate, now);
        }
    }

    /// What the pace has let through stays counted there: it is about requests that were let through.
    fn give_back(&mut self, scope: usize) {
        if let Some(total) = &mut self.total {
            total.left += 1;
        }
        if let Some(left) = self.scopes.left(scope) {
            *left += 1;
        }
    }

    /// Spends a taken use; true when it was the last of the nonce.
    fn spend(&mut self) -> bool {
        self.total.as_mut().is_some_and(|total| {
            total.unspent -= 1;
            total.unspent == 0
        })
    }
}

/// A use of one scope of one lease in which something is counted.
#[derive(Debug)]
struct Claim {
    lease: Arc<Lease>,
    /// The place of the scope.
    scope: usize,
}

/// A use of a task's allowance: one, however many leases of a line share it.
#[derive(Debug)]
struct Share {
    allowance: Arc<Allowance>,
    /// What each of them says of it: alike, unless the policy was changed between them.
    budgets: SmallVec<[Budget; 1]>,
}

/// Uses that are taken and given together: all or none.
#[derive(Debug, Default)]
struct Held {
    claims: SmallVec<[Claim; 1]>,
    shares: SmallVec<[Share; 1]>,
}

/// All that is held, locked: leases from below, and then allowances by their addresses. Whoever takes several locks takes
/// them in this order, so that nobody waits in a circle.
struct Locked<'a> {
    counts: SmallVec<[(MutexGuard<'a, Counts>, &'a Claim); 1]>,
    taken: SmallVec<[(MutexGuard<'a, Taken>, &'a [Budget]); 1]>,
}

impl Held {
    /// Wants a use of the scope at this place in the lease's grants; asked of a lease before the one above it.
    fn want(&mut self, lease: &Arc<Lease>, scope: usize) -> Result<(), NoUse> {
        if lease.uses().is_some() {
            self.claims.push(Claim { lease: lease.clone(), scope });
        }
        if let Some(budget) = lease.budget() {
            let store = lease.store().ok_or(NoUse::Spent)?;
            // Forgotten only long after the last lease of the task is over.
            let allowance = store.allowances.find(lease).ok_or(NoUse::Spent)?;
            self.share(allowance, budget);
        }
        Ok(())
    }

    /// Wants a use of an allowance, once: a lease and one above it may have the same.
    fn share(&mut self, allowance: Arc<Allowance>, budget: Budget) {
        let address = |allowance: &Arc<Allowance>| Arc::as_ptr(allowance).addr();
        match self.shares.binary_search_by_key(&address(&allowance), |share| address(&share.allowance)) {
            Ok(at) => self.shares[at].budgets.push(budget),
            Err(at) => self.shares.insert(at, Share { allowance, budgets: smallvec![budget] }),
        }
    }

    fn is_empty(&self) -> bool {
        self.claims.is_empty() && self.shares.is_empty()
    }

    fn lock(&self) -> Locked<'_> {
        let counts = self.claims.iter().filter_map(|claim| Some((claim.lease.uses()?.0.lock(), claim))).collect();
        let taken = self.shares.iter().map(|share| (share.allowance.lock(), &share.budgets[..])).collect();
        Locked { counts, taken }
    }

    /// Takes everything that is wanted, or nothing: then why, and of several reasons the one that lasts.
    fn take(&self, lease: &Arc<Lease>, rules: &[RuleRate], now: u64) -> Result<(), NoUse> {
        let Locked { mut counts, mut taken } = self.lock();
        let mut paces = rule_pace::Locked::of(lease, rules);
        let of_leases = counts.iter_mut().filter_map(|(counts, claim)| counts.refusal(claim, now));
        let of_tasks = taken.iter().filter_map(|(taken, budgets)| taken.refusal(budgets, now));
        if let Some(refusal) = of_leases.chain(of_tasks).chain(paces.refusal(now)).max() {
            return Err(refusal);
        }
        counts.iter_mut().for_each(|(counts, claim)| counts.take(claim, now));
        taken.iter_mut().for_each(|(taken, budgets)| taken.take(budgets, now));
        paces.take(now);
        Ok(())
    }

    fn give_back(&self) {
        let Locked { mut counts, mut taken } = self.lock();
        counts.iter_mut().for_each(|(counts, claim)| counts.give_back(claim.scope));
        taken.iter_mut().for_each(|(taken, _)| taken.give_back());
    }

    /// The leases of which this was the last use.
    fn spend(&self) -> SmallVec<[&Arc<Lease>; 1]> {
        let Locked { mut counts, mut taken } = self.lock();
        taken.iter_mut().for_each(|(taken, _)| taken.spend());
        counts.iter_mut().filter_map(|(counts, claim)| counts.spend().then_some(&claim.lease)).collect()
    }
}

/// Uses reserved for one request; given back on drop unless [`Reservation::spend`] was called.
#[must_use = "a reservation that is dropped is given back"]
#[derive(Debug)]
pub struct Reservation {
    /// Nothing once settled, and where nothing is counted.
    held: Held,
}

impl Reservation {
    /// Takes a use of the scope in this lease and in all above it, or in none.
    pub(super) fn take(
        lease: &Arc<Lease>,
        service: &ServiceName,
        scope: &ScopeName,
        rules: &[RuleRate],
    ) -> Result<Self, NoUse> {
        let mut held = Held::default();
        for lease in iter::once(lease).chain(lease.ancestors()) {
            // What one above it does not have, it cannot have.
            let place = lease.place(service, scope).ok_or(NoUse::Spent)?;
            held.want(lease, place)?;
        }
        if !held.is_empty() || !rules.is_empty() {
            let store = lease.store().ok_or(NoUse::Spent)?;
            let now = pace::nanoseconds(store.now().boot);
            held.take(lease, rules, now)?;
        }
        Ok(Self { held })
    }

    /// The request's bytes are going out: the use is spent for good. Every lease of which it was the last one ends here.
    pub fn spend(&mut self) {
        for lease in mem::take(&mut self.held).spend() {
            lease.end_as_spent();
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.held.give_back();
    }
}
