//! Room that all agents share, of which none takes so much that nothing is left for another.
//!
//! An agent may have as much as stays free beside it (dynamic thresholds: Choudhury and Hahne, 1998). One that takes all
//! that it can gets half, two of them a third each, and whoever has nothing yet finds as much free as any of them has.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::model::AgentName;

/// Whose room it is; nobody's is that of requests without a nonce.
pub(super) type Whose = Option<AgentName>;

/// The room.
#[derive(Debug)]
pub(super) struct Fair<K: Eq + Hash = Whose> {
    max: usize,
    /// Of one alone, however much is free.
    each_max: usize,
    taken: Mutex<Taken<K>>,
}

#[derive(Debug)]
struct Taken<K> {
    all: usize,
    /// Only those that have some: never more of them than there are requests under way.
    by_agent: HashMap<K, usize>,
}

impl<K> Default for Taken<K> {
    fn default() -> Self {
        Self { all: 0, by_agent: HashMap::new() }
    }
}

/// Some of it, given back on drop.
#[derive(Debug)]
pub(super) struct Place<K: Eq + Hash = Whose> {
    room: Arc<Fair<K>>,
    whose: K,
    amount: usize,
}

impl<K: Eq + Hash + Clone> Fair<K> {
    /// So much for all together.
    pub(super) fn new(max: usize) -> Arc<Self> {
        Self::capped(max, max)
    }

    /// So much for all together, and for one alone.
    pub(super) fn capped(max: usize, each_max: usize) -> Arc<Self> {
        Arc::new(Self { max, each_max, taken: Mutex::default() })
    }

    /// Takes so much for an agent, if its share allows that.
    pub(super) fn take(self: &Arc<Self>, whose: K, amount: usize) -> Option<Place<K>> {
        let mut taken = self.taken.lock();
        let share = self.max.saturating_sub(taken.all).min(self.each_max);
        let enough = |own: usize| own.checked_add(amount).filter(|own| *own <= share);
        match taken.by_agent.entry(whose.clone()) {
            Entry::Occupied(mut own) => *own.get_mut() = enough(*own.get())?,
            Entry::Vacant(none) => _ = none.insert(enough(0)?),
        }
        taken.all += amount;
        Some(Place { room: self.clone(), whose, amount })
    }

    /// True where it has some already.
    pub(super) fn has_any(&self, whose: &K) -> bool {
        self.taken.lock().by_agent.contains_key(whose)
    }
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = self.room.taken.lock();
        taken.all -= self.amount;
        if let Some(own) = taken.by_agent.get_mut(&self.whose) {
            *own -= self.amount;
            if *own == 0 {
                taken.by_agent.remove(&self.whose);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(name: &str) -> Whose {
        Some(AgentName::parse(name).unwrap())
    }

    /// All that one gets, a hundredth at a time.
    fn all_of(room: &Arc<Fair>, whose: &Whose) -> Vec<Place> {
        std::iter::from_fn(|| room.take(whose.clone(), 1)).take(1_000).collect()
    }

    #[test]
    fn one_that_takes_all_it_can_leaves_as_much_as_it_has() {
        let room = Fair::new(100);
        let greedy = all_of(&room, &agent("greedy"));
        assert_eq!(greedy.len(), 50);
        assert!(room.take(agent("other"), 50).is_some(), "at once");
        let second = all_of(&room, &agent("second"));
        assert_eq!((second.len(), all_of(&room, &None).len()), (25, 13), "half of what is free each time");
        assert!(room.take(agent("greedy"), 1).is_none());
        drop(second);
        assert!(room.take(agent("modest"), 50).is_some(), "what is given back is free for others");
    }

    #[test]
    fn one_alone_has_no_more_than_each_may_have() {
        let room = Fair::capped(100, 10);
        let most = all_of(&room, &agent("a"));
        assert_eq!((most.len(), all_of(&room, &agent("b")).len()), (10, 10));
        assert!(room.has_any(&agent("a")) && !room.has_any(&agent("b")));
    }

    #[test]
    fn nothing_is_kept_of_who_has_nothing() {
        let room = Fair::new(10);
        assert!(room.take(agent("a"), 11).is_none() && room.take(agent("a"), usize::MAX).is_none());
        let place = room.take(agent("a"), 10).unwrap();
        assert!(room.take(agent("b"), 1).is_none());
        drop(place);
        let taken = room.taken.lock();
        assert_eq!((taken.all, taken.by_agent.len()), (0, 0));
    }
}
