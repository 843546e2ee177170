//! What all nonces that a minter has made for one agent and one task may do together.
//!
//! An allowance is made with the first lease of its task, and outlives the last one for as long as a tombstone is kept:
//! until then a new nonce for the same task goes on where the others stopped. Of tasks that are over, only so many are
//! remembered as there are tombstones; the one that ended first is forgotten first.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::MutexGuard;

use super::sync::Mutex;
use super::{Config, Lease, MintError, NoUse, pace};
use crate::model::{AgentName, Budget, MinterName, TaskName};

/// What was used of it so far; how much there may be is in the terms of each lease.
#[derive(Debug, Default)]
pub(super) struct Allowance(Mutex<Taken>);

#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Spent and reserved.
    taken: u64,
    spent: u64,
    /// As in [`pace`].
    paid: u64,
}

impl Allowance {
    pub(super) fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock()
    }
}

impl Taken {
    /// Why nothing more may be taken at this moment, where all of these hold.
    pub(super) fn refusal(&self, budgets: &[Budget], now: u64) -> Option<NoUse> {
        budgets.iter().filter_map(|budget| self.refusal_of(*budget, now)).max()
    }

    fn refusal_of(&self, budget: Budget, now: u64) -> Option<NoUse> {
        if budget.uses.is_some_and(|uses| self.taken >= u64::from(uses.get())) {
            return Some(NoUse::TaskSpent);
        }
        pace::wait(self.paid, budget.rate?, now).map(|wait| NoUse::TooFast { wait })
    }

    /// Takes one use, which is paid for as the slowest of these says.
    pub(super) fn take(&mut self, budgets: &[Budget], now: u64) {
        self.taken += 1;
        let paid = budgets.iter().filter_map(|budget| budget.rate).map(|rate| pace::paid(self.paid, rate, now));
        self.paid = paid.max().unwrap_or(self.paid);
    }

    pub(super) fn give_back(&mut self) {
        self.taken -= 1;
    }

    pub(super) fn spend(&mut self) {
        self.spent += 1;
    }

    /// True when nothing is left for another nonce, whatever is given back.
    fn is_spent(&self, budget: Budget) -> bool {
        budget.uses.is_some_and(|uses| self.spent >= u64::from(uses.get()))
    }

    /// True when forgetting it changes nothing.
    fn is_fresh(&self, now: u64) -> bool {
        self.taken == 0 && self.paid <= now
    }
}

type Task = (MinterName, AgentName, TaskName);

/// When a task ended, since boot; and a number, so that no two are the same.
type Ended = (Duration, u64);

/// The allowances of all tasks that have one.
pub(super) struct Allowances {
    tasks: Mutex<Tasks>,
    life: Duration,
    ended_max: usize,
}

/// Trees, since a large table would stop everybody for milliseconds whenever it is rehashed.
#[derive(Default)]
struct Tasks {
    entries: BTreeMap<Task, Entry>,
    /// Those without a lease, the one that ended first before the others.
    ended: BTreeMap<Ended, Task>,
    next: u64,
}

#[derive(Default)]
struct Entry {
    allowance: Arc<Allowance>,
    leases: usize,
    /// Where it is among those without a lease.
    ended: Option<Ended>,
}

impl Allowances {
    pub(super) fn new(config: &Config) -> Self {
        Self { tasks: Mutex::default(), life: config.tombstone_life, ended_max: config.tombstones_max }
    }

    /// A lease begins, and will leave again; not where its task has nothing left.
    pub(super) fn enter(&self, lease: &Lease) -> Result<(), MintError> {
        let Some(budget) = lease.budget() else { return Ok(()) };
        let mut tasks = self.tasks.lock();
        let Tasks { entries, ended, .. } = &mut *tasks;
        let entry = entries.entry(task(lease)).or_default();
        if entry.allowance.lock().is_spent(budget) {
            return Err(MintError::TaskSpent);
        }
        entry.leases += 1;
        if let Some(ending) = entry.ended.take() {
            ended.remove(&ending);
        }
        Ok(())
    }

    /// A lease that has entered is over.
    pub(super) fn leave(&self, lease: &Lease, boot: Duration) {
        if lease.budget().is_none() {
            return;
        }
        let task = task(lease);
        let mut tasks = self.tasks.lock();
        let number = tasks.next;
        let Tasks { entries, ended, next } = &mut *tasks;
        let Some(entry) = entries.get_mut(&task) else { return };
        entry.leases -= 1;
        if entry.leases > 0 {
            return;
        }
        if entry.allowance.lock().is_fresh(pace::nanoseconds(boot)) {
            entries.remove(&task);
            return;
        }
        *next += 1;
        entry.ended = Some((boot, number));
        ended.insert((boot, number), task);
        if ended.len() > self.ended_max {
            tasks.forget_first();
        }
    }

    /// The one of a live lease's task.
    pub(super) fn find(&self, lease: &Lease) -> Option<Arc<Allowance>> {
        self.tasks.lock().entries.get(&task(lease)).map(|entry| entry.allowance.clone())
    }

    /// Forgets at most `batch` that ended long ago; true when there are more.
    pub(super) fn prune(&self, boot: Duration, batch: usize) -> bool {
        let mut tasks = self.tasks.lock();
        let is_over = |tasks: &Tasks| {
            tasks.ended.first_key_value().is_some_and(|((ended, _), _)| boot.saturating_sub(*ended) >= self.life)
        };
        for _ in 0..batch {
            if !is_over(&tasks) {
                return false;
            }
            tasks.forget_first();
        }
        is_over(&tasks)
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize) {
        let tasks = self.tasks.lock();
        (tasks.entries.len(), tasks.ended.len())
    }
}

impl Tasks {
    fn forget_first(&mut self) {
        if let Some((_, task)) = self.ended.pop_first() {
            self.entries.remove(&task);
        }
    }
}

fn task(lease: &Lease) -> Task {
    let terms = lease.terms();
    (terms.minter.clone(), terms.agent.clone(), terms.task.clone())
}
