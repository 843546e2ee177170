//! Tasks that were completed: for a while nothing is minted for them, so that a straggler cannot bring one back.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::sync::Mutex;
use crate::model::{MinterName, TaskName};

/// How long a completed task is remembered.
pub(super) const LIFE: Duration = Duration::from_secs(3600);

/// Completed tasks at most; beyond them the oldest are forgotten.
const TASKS_MAX: usize = 100_000;

/// Tasks are a minter's own: two minters may use the same name.
type Key = (MinterName, TaskName);

/// The tasks that were completed of late.
#[derive(Default)]
pub(super) struct Completed(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// A tree, for the reason that the tombstones have one.
    since: BTreeMap<Key, Duration>,
    order: VecDeque<(Duration, Key)>,
}

impl Completed {
    /// Remembers a task from now on; one that is remembered already stays as it is.
    pub(super) fn add(&self, minter: &MinterName, task: &TaskName, boot: Duration) {
        let mut inner = self.0.lock();
        inner.prune(boot);
        let key = (minter.clone(), task.clone());
        if inner.since.contains_key(&key) {
            return;
        }
        if inner.order.len() >= TASKS_MAX {
            inner.drop_oldest();
        }
        inner.since.insert(key.clone(), boot);
        inner.order.push_back((boot, key));
    }

    /// True for a task that was completed less than [`LIFE`] ago.
    pub(super) fn holds(&self, minter: &MinterName, task: &TaskName, boot: Duration) -> bool {
        let inner = self.0.lock();
        if inner.since.is_empty() {
            return false;
        }
        inner.since.get(&(minter.clone(), task.clone())).is_some_and(|since| !is_over(*since, boot))
    }
}

impl Inner {
    fn prune(&mut self, boot: Duration) {
        while self.order.front().is_some_and(|(since, _)| is_over(*since, boot)) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, key)) = self.order.pop_front() {
            self.since.remove(&key);
        }
    }
}

fn is_over(since: Duration, boot: Duration) -> bool {
    boot.saturating_sub(since) >= LIFE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(minter: &str, task: &str) -> (MinterName, TaskName) {
        (MinterName::parse(minter).unwrap(), TaskName::parse(task).unwrap())
    }

    #[test]
    fn a_task_is_its_minters_and_is_remembered_for_an_hour() {
        let completed = Completed::default();
        let (minter, task) = names("m", "t");
        completed.add(&minter, &task, LIFE);
        completed.add(&minter, &task, LIFE + Duration::from_secs(9));
        assert!(completed.holds(&minter, &task, LIFE * 2 - Duration::from_nanos(1)));
        assert!(!completed.holds(&minter, &task, LIFE * 2));
        let (other, another) = names("other", "another");
        assert!(!completed.holds(&other, &task, LIFE) && !completed.holds(&minter, &another, LIFE));
    }

    #[test]
    fn the_memory_is_bounded_and_the_oldest_go_first() {
        let completed = Completed::default();
        let (minter, first) = names("m", "t-0");
        for number in 0..=TASKS_MAX {
            completed.add(&minter, &names("m", &format!("t-{number}")).1, LIFE);
        }
        let held = |task: &TaskName| completed.holds(&minter, task, LIFE);
        assert!(!held(&first) && held(&names("m", "t-1").1));
        assert_eq!(completed.0.lock().since.len(), TASKS_MAX);
        completed.add(&minter, &first, LIFE * 2);
        let inner = completed.0.lock();
        assert_eq!((inner.since.len(), inner.order.len()), (1, 1));
    }
}
