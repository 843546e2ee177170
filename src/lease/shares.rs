//! How many live leases each minter has, so that one of them leaves room for the others.

use std::collections::HashMap;

use super::sync::Mutex;
use crate::model::MinterName;

/// Minters that have live leases, and how many: never more entries than there are leases.
#[derive(Default)]
pub(super) struct Shares(Mutex<HashMap<MinterName, usize>>);

impl Shares {
    /// Counts one more, unless there are as many as this.
    pub(super) fn enter(&self, minter: &MinterName, max: usize) -> bool {
        let mut live = self.0.lock();
        match live.get_mut(minter) {
            Some(count) if *count >= max => false,
            Some(count) => {
                *count += 1;
                true
            }
            None if max == 0 => false,
            None => {
                live.insert(minter.clone(), 1);
                true
            }
        }
    }

    /// Counts one less; nothing is kept of who has none.
    pub(super) fn leave(&self, minter: &MinterName) {
        let mut live = self.0.lock();
        if let Some(count) = live.get_mut(minter) {
            *count -= 1;
            if *count == 0 {
                live.remove(minter);
            }
        }
    }

    /// How many it has.
    pub(super) fn of(&self, minter: &MinterName) -> usize {
        self.0.lock().get(minter).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_minter_has_its_own_and_nothing_is_kept_of_who_has_none() {
        let shares = Shares::default();
        let [greedy, other] = ["greedy", "other"].map(|name| MinterName::parse(name).unwrap());
        assert!(shares.enter(&greedy, 2) && shares.enter(&greedy, 2) && !shares.enter(&greedy, 2));
        assert!(!shares.enter(&other, 0) && shares.enter(&other, 2));
        shares.leave(&greedy);
        assert!(shares.enter(&greedy, 2) && !shares.enter(&greedy, 1), "a bound that was lowered takes nothing back");
        assert_eq!((shares.of(&greedy), shares.of(&other)), (2, 1));
        for minter in [&greedy, &greedy, &other, &other] {
            shares.leave(minter);
        }
        assert_eq!(shares.0.lock().len(), 0);
    }
}
