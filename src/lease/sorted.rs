//! Leases in an order: sorted runs of bounded length, in a tree by where they begin.
//!
//! A pointer for each lease and little more; a search looks at a handful of leases, and nothing that is done here moves
//! more than a run.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::Lease;

/// Leases of one run at most.
const RUN_MAX: usize = 128;

/// Room for so many is made where a run has none left.
const ROOM: usize = 16;

/// A run that shrinks is looked at so often: whether its neighbour and it fit into one.
const JOIN_EVERY: usize = 8;

/// Two neighbours with at most so many leases together become one: with room for more.
const JOINED_MAX: usize = RUN_MAX * 3 / 4;

/// Where a lease stands in an order; its own, and the same for as long as it is there.
pub(super) trait Place: Ord + Copy {
    fn of(lease: &Arc<Lease>) -> Self;
}

/// Leases in the order of their places.
pub(super) struct Sorted<P> {
    /// None is empty; all places in a run are between its key, inclusive, and the next one.
    runs: BTreeMap<P, Vec<Arc<Lease>>>,
    len: usize,
}

impl<P> Default for Sorted<P> {
    fn default() -> Self {
        Self { runs: BTreeMap::new(), len: 0 }
    }
}

impl<P: Place> Sorted<P> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, place: P) -> Option<&Arc<Lease>> {
        let (_, run) = self.runs.range(..=place).next_back()?;
        run.get(run.binary_search_by_key(&place, P::of).ok()?)
    }

    pub(super) fn first(&self) -> Option<&Arc<Lease>> {
        self.runs.first_key_value().and_then(|(_, run)| run.first())
    }

    /// Those behind this place, or all, in their order.
    pub(super) fn after(&self, place: Option<P>) -> impl Iterator<Item = &Arc<Lease>> {
        let start = place.and_then(|place| Some((place, *self.runs.range(..=place).next_back()?.0)));
        let from = start.map_or(Bound::Unbounded, |(_, start)| Bound::Included(start));
        self.runs.range((from, Bound::Unbounded)).flat_map(move |(begin, run)| {
            let before = match start {
                Some((place, start)) if start == *begin => run.partition_point(|lease| P::of(lease) <= place),
                Some(_) | None => 0,
            };
            run.iter().skip(before)
        })
    }

    /// Adds a lease, unless its place is taken.
    pub(super) fn insert(&mut self, lease: Arc<Lease>) {
        let place = P::of(&lease);
        let start = self.run_for(place);
        let run = self.runs.entry(start).or_default();
        let Err(at) = run.binary_search_by_key(&place, P::of) else { return };
        self.len += 1;
        if run.len() < RUN_MAX {
            if run.len() == run.capacity() {
                run.reserve_exact(ROOM.min(RUN_MAX - run.len()));
            }
            run.insert(at, lease);
        } else if at == run.len() {
            // What comes in order fills its runs.
            self.runs.insert(place, vec![lease]);
        } else {
            // What comes nearly in order fills them too, but for some room where it may come late.
            let mut upper = run.split_off(at.clamp(RUN_MAX / 2, RUN_MAX * 7 / 8));
            let part = if at <= run.len() { (&mut *run, at) } else { (&mut upper, at - run.len()) };
            part.0.reserve_exact(ROOM);
            part.0.insert(part.1, lease);
            run.shrink_to(run.len() + ROOM);
            if let Some(begin) = upper.first().map(P::of) {
                self.runs.insert(begin, upper);
            }
        }
    }

    /// Takes the lease out that stands there; the caller drops it when no lock is held any more.
    pub(super) fn remove(&mut self, place: P) -> Option<Arc<Lease>> {
        let (start, run) = self.runs.range_mut(..=place).next_back()?;
        let at = run.binary_search_by_key(&place, P::of).ok()?;
        let (start, lease, left) = (*start, run.remove(at), run.len());
        self.len -= 1;
        if left == 0 {
            self.runs.remove(&start);
        } else if left < RUN_MAX / 2 && left.is_multiple_of(JOIN_EVERY) {
            self.join(start);
        }
        Some(lease)
    }

    /// The key of the run that this place belongs to; what comes before all others moves the first key.
    fn run_for(&mut self, place: P) -> P {
        if let Some((start, _)) = self.runs.range(..=place).next_back() {
            return *start;
        }
        if let Some((_, run)) = self.runs.pop_first() {
            self.runs.insert(place, run);
        }
        place
    }

    /// Joins a small run with a neighbour where both fit into one, and gives back the room it has too much otherwise.
    fn join(&mut self, start: P) {
        let next = self.runs.range((Bound::Excluded(start), Bound::Unbounded)).next().map(|(next, _)| *next);
        let previous = self.runs.range(..start).next_back().map(|(previous, _)| *previous);
        let pairs = [next.map(|next| (start, next)), previous.map(|previous| (previous, start))];
        let fit = |pair: &(P, P)| self.length(pair.0) + self.length(pair.1) <= JOINED_MAX;
        let pair = pairs.into_iter().flatten().find(fit);
        let more = pair.and_then(|(_, upper)| self.runs.remove(&upper));
        if let Some(run) = self.runs.get_mut(&pair.map_or(start, |(lower, _)| lower)) {
            run.extend(more.into_iter().flatten());
            run.shrink_to(run.len() + JOIN_EVERY);
        }
    }

    fn length(&self, start: P) -> usize {
        self.runs.get(&start).map_or(0, Vec::len)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap as Model;
    use std::sync::Weak;

    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::lease::terms::{Common, Group};
    use crate::lease::tests::terms;
    use crate::model::{NonceHash, NonceId};

    fn leases(places: impl Iterator<Item = u64>) -> Vec<Arc<Lease>> {
        let (now, (common, task)) = (ManualClock::new().now(), Common::of(terms()));
        let group = Arc::new(Group::new(common, Weak::new()));
        let lease = |place: u64| {
            let (id, hash) = (NonceId::from_parts(place, 0), NonceHash::of(&place.to_be_bytes()));
            Arc::new(Lease::new(id, hash, &now, group.clone(), task.clone(), None, None))
        };
        places.map(lease).collect()
    }

    fn id(place: u64) -> NonceId {
        NonceId::from_parts(place, 0)
    }

    fn sorted(leases: &[Arc<Lease>]) -> Sorted<NonceId> {
        let mut sorted = Sorted::default();
        leases.iter().for_each(|lease| sorted.insert(lease.clone()));
        sorted
    }

    fn room(sorted: &Sorted<NonceId>) -> usize {
        sorted.runs.values().map(Vec::capacity).sum()
    }

    fn check(sorted: &Sorted<NonceId>, model: &Model<NonceId, Arc<Lease>>) {
        assert_eq!(sorted.len(), model.len());
        assert!(sorted.after(None).map(|lease| lease.id).eq(model.keys().copied()));
        assert!(sorted.runs.values().all(|run| !run.is_empty() && run.len() <= RUN_MAX));
        assert!(sorted.runs.iter().all(|(start, run)| run.iter().all(|lease| lease.id >= *start)));
        assert_eq!(sorted.first().map(|lease| lease.id), model.keys().next().copied());
    }

    /// A number that looks like any other (Knuth's multiplication, turned once).
    fn shuffled(number: u64) -> u64 {
        number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) >> 24
    }

    #[test]
    fn it_is_a_tree_of_leases_whatever_comes_and_goes() {
        let leases = leases((0..6000).map(shuffled));
        let (mut sorted, mut model) = (Sorted::<NonceId>::default(), Model::new());
        for step in 0..40_000 {
            // Grows, shrinks to little, and grows again.
            let lease = &leases[usize::try_from(shuffled(step)).unwrap() % leases.len()];
            if step / 10_000 % 2 == 0 || step % 16 == 0 {
                sorted.insert(lease.clone());
                model.insert(lease.id, lease.clone());
            } else {
                let (taken, expected) = (sorted.remove(lease.id), model.remove(&lease.id));
                assert_eq!(taken.map(|lease| lease.id), expected.map(|lease| lease.id));
            }
            assert_eq!(sorted.get(lease.id).is_some(), model.contains_key(&lease.id));
            if step % 500 == 0 {
                check(&sorted, &model);
                let after = sorted.after(Some(lease.id)).take(200).map(|lease| lease.id);
                assert!(after.eq(model.range((Bound::Excluded(lease.id), Bound::Unbounded)).take(200).map(|e| *e.0)));
            }
        }
        check(&sorted, &model);
        model.keys().for_each(|id| drop(sorted.remove(*id)));
        assert!(sorted.runs.is_empty() && sorted.first().is_none() && sorted.after(Some(id(1))).next().is_none());
    }

    #[test]
    fn what_comes_in_order_or_nearly_so_takes_little_more_than_its_pointers() {
        assert_eq!(room(&sorted(&leases(0..12_800))), 12_800);
        // Ten at a time in any order, as ids of one millisecond are.
        let nearly = leases((0..12_800).map(|number| number / 10 * 10 + (number % 10) * 7 % 10));
        assert!(room(&sorted(&nearly)) < 12_800 * 9 / 8);
        let backwards = leases((0..12_800).rev());
        assert!(room(&sorted(&backwards)) <= 12_800 * 5 / 4);
        // Hundreds of a millisecond in any order.
        let hundreds = leases((0..12_800).map(|number| number / 200 * 200 + (number % 200) * 77 % 200));
        assert!(room(&sorted(&hundreds)) <= 12_800 * 5 / 4);
        // Two that are in order each, as leases of two lengths are.
        let both = leases((0..12_800).map(|number| number / 2 + number % 2 * 1_000_000));
        assert!(room(&sorted(&both)) <= 12_800 + 2 * RUN_MAX);
    }

    #[test]
    fn the_few_that_stay_give_the_room_of_the_others_back() {
        let leases = leases(0..12_800);
        for keep in [2, 3, 10, 100] {
            let mut sorted = sorted(&leases);
            for (_, lease) in leases.iter().enumerate().filter(|(number, _)| number % keep != 0) {
                assert!(sorted.remove(lease.id).is_some());
            }
            assert!(room(&sorted) <= sorted.len() * 3 + 2 * RUN_MAX, "{keep}: {} for {}", room(&sorted), sorted.len());
        }
    }

    #[test]
    fn a_place_is_taken_once() {
        let leases = leases([7, 7, 8].into_iter());
        let sorted = sorted(&leases);
        assert_eq!(sorted.len(), 2);
        assert!(Arc::ptr_eq(sorted.get(id(7)).unwrap(), &leases[0]));
    }
}
