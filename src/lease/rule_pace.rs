//! The pace of rules: how fast a nonce may do what one rule of a scope allows.
//!
//! Rates of rules are those of the policy of the moment, unlike other limits: a nonce does not know the rules of its
//! scopes. What is kept is kept by rule and rate, and forgotten once it is paid for, which changes nothing.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

use super::{Lease, NoUse, pace};
use crate::model::RuleRate;

/// What is not paid for yet, of one lease.
#[derive(Debug, Default)]
pub(super) struct RulePaces(Mutex<Vec<Kept>>);

/// One rule that was used lately.
#[derive(Debug)]
struct Kept {
    rule: RuleRate,
    /// As in [`pace`].
    paid: u64,
}

/// The paces of a lease and of all above it for these rules, locked from below as counters are.
pub(super) struct Locked<'a> {
    rules: &'a [RuleRate],
    leases: SmallVec<[MutexGuard<'a, Vec<Kept>>; 1]>,
}

impl<'a> Locked<'a> {
    /// Nothing is locked without rules.
    pub(super) fn of(lease: &'a Arc<Lease>, rules: &'a [RuleRate]) -> Self {
        let line = lease.and_ancestors().filter(|_| !rules.is_empty());
        Self { rules, leases: line.map(|lease| lease.rule_paces().0.lock()).collect() }
    }

    /// Why nothing may be taken at this moment: the longest wait.
    pub(super) fn refusal(&self, now: u64) -> Option<NoUse> {
        let of_lease = |kept: &Vec<Kept>| {
            let wait = |rule: &RuleRate| pace::wait(paid(kept, rule), rule.rate, now);
            self.rules.iter().filter_map(wait).max()
        };
        let longest = self.leases.iter().filter_map(|kept| of_lease(kept)).max();
        longest.map(|wait| NoUse::TooFast { wait })
    }

    /// Takes one of each.
    pub(super) fn take(&mut self, now: u64) {
        for kept in &mut self.leases {
            kept.retain(|kept| kept.paid > now);
            for rule in self.rules {
                let paid = pace::paid(paid(kept, rule), rule.rate, now);
                match kept.iter_mut().find(|kept| kept.rule == *rule) {
                    Some(known) => known.paid = paid,
                    None => kept.push(Kept { rule: rule.clone(), paid }),
                }
            }
        }
    }
}

fn paid(kept: &[Kept], rule: &RuleRate) -> u64 {
    kept.iter().find(|kept| kept.rule == *rule).map_or(0, |kept| kept.paid)
}
