//! How many live leases each minter has, so that one of them leaves room for the others; and how many of those an agent has
//! made of its own, so that it leaves room for its minter.

use std::collections::HashMap;

use super::sync::{Mutex, in_turn};
use crate::model::{AgentName, MinterName};

/// Minters that have live leases, and how many: never more entries than there are leases.
#[derive(Default)]
pub(super) struct Shares(Mutex<HashMap<MinterName, Live>>);

#[derive(Default)]
struct Live {
    all: usize,
    /// Those that were made by holders of nonces, by the agent that the first nonce was minted for: whoever delegates to
    /// others, or to itself, makes no new share.
    of_holders: HashMap<AgentName, usize>,
}

impl Live {
    /// True where there is room for one more. Holders leave at least as much as each of them takes, as in the proxy's fair
    /// rooms: one has half at most, and one place is always the minter's.
    fn has_room(&self, holder: Option<&AgentName>, max: usize) -> bool {
        let left = max.saturating_sub(self.all);
        match holder {
            None => left > 0,
            Some(agent) => self.of_holders.get(agent).copied().unwrap_or(0) + 1 < left,
        }
    }

    /// One less, which this holder made. Nothing is kept of holders who have none.
    fn leave(&mut self, holder: Option<&AgentName>) {
        self.all -= 1;
        if let Some(agent) = holder
            && let Some(count) = self.of_holders.get_mut(agent)
        {
            *count -= 1;
            if *count == 0 {
                self.of_holders.remove(agent);
            }
        }
    }
}

impl Shares {
    /// Counts one more, unless there are as many as this, or as many as a holder may make of them.
    pub(super) fn enter(&self, minter: &MinterName, holder: Option<&AgentName>, max: usize) -> bool {
        let mut live = self.0.lock();
        if !live.get(minter).map_or_else(|| Live::default().has_room(holder, max), |live| live.has_room(holder, max)) {
            return false;
        }
        let live = live.entry(minter.clone()).or_default();
        live.all += 1;
        if let Some(agent) = holder {
            *live.of_holders.entry(agent.clone()).or_default() += 1;
        }
        true
    }

    /// Counts one less; nothing is kept of who has none.
    pub(super) fn leave(&self, minter: &MinterName, holder: Option<&AgentName>) {
        in_turn(&self.0, |all| {
            let Some(live) = all.get_mut(minter) else { return };
            live.leave(holder);
            if live.all == 0 {
                all.remove(minter);
            }
        });
    }

    /// True where one more could enter.
    pub(super) fn has_room(&self, minter: &MinterName, holder: Option<&AgentName>, max: usize) -> bool {
        self.0.lock().get(minter).unwrap_or(&Live::default()).has_room(holder, max)
    }

    /// How many it has.
    #[cfg(test)]
    pub(super) fn of(&self, minter: &MinterName) -> usize {
        self.0.lock().get(minter).map_or(0, |live| live.all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_minter_has_its_own_and_nothing_is_kept_of_who_has_none() {
        let shares = Shares::default();
        let [greedy, other] = ["greedy", "other"].map(|name| MinterName::parse(name).unwrap());
        let enter = |minter: &MinterName, max| shares.enter(minter, None, max);
        assert!(enter(&greedy, 2) && enter(&greedy, 2) && !enter(&greedy, 2));
        assert!(!enter(&other, 0) && enter(&other, 2));
        shares.leave(&greedy, None);
        assert!(enter(&greedy, 2) && !enter(&greedy, 1), "a bound that was lowered takes nothing back");
        assert_eq!((shares.of(&greedy), shares.of(&other)), (2, 1));
        for minter in [&greedy, &greedy, &other, &other] {
            shares.leave(minter, None);
        }
        assert_eq!(shares.0.lock().len(), 0);
    }

    #[test]
    fn holders_that_make_all_they_can_leave_room_for_their_minter_and_each_other() {
        let shares = Shares::default();
        let minter = MinterName::parse("m").unwrap();
        let agents = ["a", "b", "c", "d", "e", "f", "g", "h"].map(|name| AgentName::parse(name).unwrap());
        let all_of = |agent: &AgentName| (0..200).filter(|_| shares.enter(&minter, Some(agent), 100)).count();
        assert_eq!(agents.each_ref().map(all_of), [50, 25, 12, 6, 3, 2, 1, 0]);
        assert_eq!((0..200).filter(|_| shares.enter(&minter, None, 100)).count(), 1, "the minter's place");
        assert!(!shares.has_room(&minter, None, 100));
        for (agent, count) in agents.iter().zip([50, 25, 12, 6, 3, 2, 1]) {
            (0..count).for_each(|_| shares.leave(&minter, Some(agent)));
        }
        assert!(shares.0.lock()[&minter].of_holders.is_empty());
        shares.leave(&minter, None);
        assert_eq!(shares.0.lock().len(), 0);
        assert!(!shares.enter(&minter, Some(&agents[0]), 1) && !shares.has_room(&minter, Some(&agents[0]), 0));
    }
}
