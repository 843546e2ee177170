//! What is remembered of the dead: for a while, and not of too many.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{Config, Tombstone};
use crate::model::{NonceHash, NonceId};

/// Entries of a queue that lie together.
const PIECE: usize = 256;

/// The tombstones, the oldest first.
pub(super) struct Tombs {
    /// A tree, since a table of a hundred thousand would stop everybody for milliseconds whenever it is rehashed.
    by_hash: BTreeMap<NonceHash, (Tombstone, Duration)>,
    /// The same, by accessor.
    by_id: BTreeMap<NonceId, NonceHash>,
    /// When each was laid, since boot.
    order: Queue,
    life: Duration,
    max: usize,
}

/// First in, first out, in pieces: a single one would have to be copied as a whole when it grows, and everybody waits.
#[derive(Default)]
struct Queue {
    pieces: VecDeque<VecDeque<(Duration, NonceHash)>>,
    len: usize,
}

impl Queue {
    fn first(&self) -> Option<&(Duration, NonceHash)> {
        self.pieces.front().and_then(VecDeque::front)
    }

    fn push(&mut self, entry: (Duration, NonceHash)) {
        match self.pieces.back_mut() {
            Some(last) if last.len() < PIECE => last.push_back(entry),
            Some(_) | None => self.pieces.push_back(VecDeque::from([entry])),
        }
        self.len += 1;
    }

    fn pop(&mut self) -> Option<(Duration, NonceHash)> {
        let first = self.pieces.front_mut()?;
        let entry = first.pop_front();
        if first.is_empty() {
            self.pieces.pop_front();
        }
        self.len -= usize::from(entry.is_some());
        entry
    }
}

impl Tombs {
    pub(super) fn new(config: &Config) -> Self {
        let (life, max) = (config.tombstone_life, config.tombstones_max);
        Self { by_hash: BTreeMap::new(), by_id: BTreeMap::new(), order: Queue::default(), life, max }
    }

    /// Lays a tombstone; drops the oldest where there would be too many.
    pub(super) fn lay(&mut self, hash: NonceHash, tombstone: Tombstone, boot: Duration) {
        self.by_id.insert(tombstone.id, hash);
        self.by_hash.insert(hash, (tombstone, boot));
        self.order.push((boot, hash));
        while self.order.len > self.max {
            self.drop_oldest();
        }
    }

    /// What is remembered of it at this moment.
    pub(super) fn find(&self, hash: &NonceHash, boot: Duration) -> Option<&Tombstone> {
        let (tombstone, laid) = self.by_hash.get(hash)?;
        (!self.is_forgotten(*laid, boot)).then_some(tombstone)
    }

    /// The same by its accessor.
    pub(super) fn find_id(&self, id: NonceId, boot: Duration) -> Option<&Tombstone> {
        self.by_id.get(&id).and_then(|hash| self.find(hash, boot))
    }

    /// True when it is still here, remembered or about to be pruned.
    pub(super) fn holds(&self, hash: &NonceHash) -> bool {
        self.by_hash.contains_key(hash)
    }

    /// Drops at most `batch` that are too old; true when there are more.
    pub(super) fn prune(&mut self, boot: Duration, batch: usize) -> bool {
        for _ in 0..batch {
            if !self.oldest_is_forgotten(boot) {
                return false;
            }
            self.drop_oldest();
        }
        self.oldest_is_forgotten(boot)
    }

    fn oldest_is_forgotten(&self, boot: Duration) -> bool {
        self.order.first().is_some_and(|(laid, _)| self.is_forgotten(*laid, boot))
    }

    fn is_forgotten(&self, laid: Duration, boot: Duration) -> bool {
        boot.saturating_sub(laid) >= self.life
    }

    fn drop_oldest(&mut self) {
        if let Some((_, hash)) = self.order.pop()
            && let Some((tombstone, _)) = self.by_hash.remove(&hash)
        {
            self.by_id.remove(&tombstone.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::lease::EndCause;
    use crate::model::{AgentName, MinterName};

    const HOUR: Duration = Duration::from_secs(3600);

    fn tombs(max: usize) -> Tombs {
        Tombs::new(&Config { live_max: 1, tombstone_life: HOUR, tombstones_max: max })
    }

    fn lay(tombs: &mut Tombs, number: u64, boot: Duration) -> NonceHash {
        let hash = NonceHash::of(&number.to_be_bytes());
        let id = NonceId::from_parts(number, 0);
        let (agent, minter) = (AgentName::parse("a").unwrap(), MinterName::parse("m").unwrap());
        tombs.lay(hash, Tombstone { id, cause: EndCause::Spent, at: Timestamp::UNIX_EPOCH, agent, minter }, boot);
        hash
    }

    #[test]
    fn the_oldest_go_first_when_there_are_too_many() {
        let mut tombs = tombs(100);
        let hashes: Vec<_> = (0..250).map(|number| lay(&mut tombs, number, Duration::ZERO)).collect();
        assert_eq!((tombs.by_hash.len(), tombs.by_id.len(), tombs.order.len), (100, 100, 100));
        assert!(hashes[..150].iter().all(|hash| tombs.find(hash, Duration::ZERO).is_none()));
        assert!(hashes[150..].iter().all(|hash| tombs.find(hash, Duration::ZERO).is_some()));
    }

    #[test]
    fn they_are_forgotten_after_their_life_even_before_they_are_pruned() {
        let mut tombs = tombs(100);
        let hash = lay(&mut tombs, 7, HOUR);
        assert!(tombs.find(&hash, HOUR * 2 - Duration::from_nanos(1)).is_some());
        assert!(tombs.find(&hash, HOUR * 2).is_none());
        assert!(tombs.holds(&hash));
    }

    #[test]
    fn a_queue_of_many_pieces_keeps_their_order() {
        let mut queue = Queue::default();
        let entry = |number: u64| (Duration::from_secs(number), NonceHash::of(&number.to_be_bytes()));
        let (mut next, mut oldest) = (0, 0);
        for (more, fewer) in
            [(1000, 300), (0, 700), (3, 3), (PIECE as u64, 1), (PIECE as u64 * 2, PIECE as u64 * 3 - 1)]
        {
            for _ in 0..more {
                queue.push(entry(next));
                next += 1;
            }
            for _ in 0..fewer {
                assert_eq!(queue.first(), Some(&entry(oldest)));
                assert_eq!(queue.pop(), Some(entry(oldest)));
                oldest += 1;
            }
            assert_eq!(queue.len as u64, next - oldest);
        }
        assert!(queue.pop().is_none() && queue.pieces.is_empty());
    }

    #[test]
    fn pruning_goes_in_batches_and_leaves_the_young() {
        let mut tombs = tombs(100);
        for number in 0..10 {
            lay(&mut tombs, number, Duration::ZERO);
        }
        let young = lay(&mut tombs, 10, HOUR);
        assert!(tombs.prune(HOUR, 4));
        assert_eq!(tombs.order.len, 7);
        assert!(!tombs.prune(HOUR, 6));
        assert_eq!((tombs.by_hash.len(), tombs.order.len), (1, 1));
        assert!(tombs.holds(&young));
    }
}
