//! `Idempotency-Key`: a retried mint gets the same lease, and the same nonce without its being stored.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ring::{digest, hmac};
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use super::refusal::{Conflict, Refusal};
use crate::model::nonce::NONCE_ENTROPY_BYTES;
use crate::model::{Deadline, MinterName, Nonce, NonceId, Now};

/// How long a key is remembered.
pub(super) const KEY_LIFE: Duration = Duration::from_secs(600);
/// Keys that are remembered at most; the oldest of the minter with the most goes first.
pub(super) const KEYS_MAX: usize = 10_000;
/// Longest key, in characters.
pub(super) const KEY_CHARACTERS_MAX: usize = 255;

/// A key as it came: 1 to 255 printable ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key(String);

impl Key {
    /// `None` for what is no key.
    pub(super) fn parse(value: &[u8]) -> Option<Self> {
        let is_key = (1..=KEY_CHARACTERS_MAX).contains(&value.len()) && value.iter().all(|b| (0x20..=0x7e).contains(b));
        std::str::from_utf8(value).ok().filter(|_| is_key).map(|text| Self(text.to_owned()))
    }
}

/// SHA-256 of a canonical body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BodyHash([u8; 32]);

impl BodyHash {
    pub(super) fn of(canonical: &str) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
        Self(hash)
    }
}

/// What a mint with a key left behind: enough to answer again.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    pub(super) id: NonceId,
    pub(super) ttl_capped_by: Option<String>,
    pub(super) rate_capped_by: Option<String>,
}

/// The one place where the outcome of a key will be: whoever comes while the first is at it waits for that one.
pub(super) type Slot = Arc<OnceCell<Outcome>>;

struct Entry {
    body: BodyHash,
    slot: Slot,
    until: Deadline,
    serial: u64,
}

/// Keys of all minters.
#[derive(Default)]
struct Entries {
    by_minter: HashMap<MinterName, Own>,
    /// In all queues together.
    queued: usize,
    serial: u64,
}

/// Keys of one minter.
#[derive(Default)]
struct Own {
    by_key: HashMap<Key, Entry>,
    /// In the order of their making; an entry that was replaced since is passed over by its serial.
    oldest: VecDeque<(u64, Key)>,
}

/// All keys of this process, and the secret that their nonces are computed from.
pub(super) struct Keys {
    entries: Mutex<Entries>,
    secret: hmac::Key,
}

impl Keys {
    /// With a fresh secret, which never leaves this process and ends with it.
    pub(super) fn new() -> Result<Self, getrandom::Error> {
        let mut secret = Zeroizing::new([0; 32]);
        getrandom::fill(secret.as_mut_slice())?;
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret.as_slice());
        Ok(Self { entries: Mutex::default(), secret })
    }

    /// The slot of this key, new or as it was; a conflict where it belongs to another body.
    pub(super) fn claim(&self, minter: &MinterName, key: &Key, body: BodyHash, now: &Now) -> Result<Slot, Refusal> {
        let mut entries = self.entries.lock();
        let gone = entries.own(minter).forget_old(now);
        entries.queued -= gone;
        if let Some(entry) = entries.own(minter).by_key.get(key) {
            if entry.body == body {
                return Ok(Arc::clone(&entry.slot));
            }
            // A mint that failed, and that nobody is waiting for, does not hold its key.
            let is_abandoned = !entry.slot.initialized() && Arc::strong_count(&entry.slot) == 1;
            if !is_abandoned {
                return Err(Refusal::Conflict(Conflict::OtherBody));
            }
        }
        Ok(entries.insert(minter, key, body, now))
    }

    /// The nonce of a lease that was made with a key: HMAC-SHA256 over minter, key and lease id.
    pub(super) fn nonce(&self, minter: &MinterName, key: &Key, id: NonceId) -> Nonce {
        let mut context = hmac::Context::with_key(&self.secret);
        for part in [minter.as_str(), &key.0, &id.to_string()] {
            // Lengths keep the parts apart.
            context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut entropy = Zeroizing::new([0; NONCE_ENTROPY_BYTES]);
        entropy.copy_from_slice(context.sign().as_ref());
        Nonce::from_entropy(&entropy)
    }
}

impl Own {
    /// Takes the oldest out of the queue, and out of memory if it was not replaced.
    fn forget_oldest(&mut self) -> bool {
        let Some((serial, key)) = self.oldest.pop_front() else { return false };
        if self.by_key.get(&key).is_some_and(|entry| entry.serial == serial) {
            self.by_key.remove(&key);
        }
        true
    }

    /// Forgets what is over or was replaced; how many of the queue that were.
    fn forget_old(&mut self, now: &Now) -> usize {
        let is_current = |own: &Self| {
            let (serial, key) = own.oldest.front()?;
            own.by_key.get(key).map(|entry| entry.serial == *serial && !entry.until.is_over(now))
        };
        let before = self.oldest.len();
        while !self.oldest.is_empty() && !is_current(self).unwrap_or(false) {
            self.forget_oldest();
        }
        before - self.oldest.len()
    }
}

impl Entries {
    fn own(&mut self, minter: &MinterName) -> &mut Own {
        self.by_minter.entry(minter.clone()).or_default()
    }

    fn forget_old_of_all(&mut self, now: &Now) {
        self.queued -= self.by_minter.values_mut().map(|own| own.forget_old(now)).sum::<usize>();
        self.by_minter.retain(|_, own| !own.oldest.is_empty());
    }

    /// Makes room for one more: whoever has the most keys loses its oldest, so that nobody takes away another's.
    fn make_room(&mut self, now: &Now) {
        if self.queued >= KEYS_MAX {
            self.forget_old_of_all(now);
        }
        while self.queued >= KEYS_MAX {
            let greatest = self.by_minter.values_mut().max_by_key(|own| own.oldest.len());
            if !greatest.is_some_and(Own::forget_oldest) {
                return;
            }
            self.queued -= 1;
        }
    }

    fn insert(&mut self, minter: &MinterName, key: &Key, body: BodyHash, now: &Now) -> Slot {
        self.make_room(now);
        self.serial += 1;
        self.queued += 1;
        let (serial, slot) = (self.serial, Slot::default());
        let entry = Entry { body, slot: Arc::clone(&slot), until: now.plus(KEY_LIFE), serial };
        let own = self.own(minter);
        own.oldest.push_back((serial, key.clone()));
        own.by_key.insert(key.clone(), entry);
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock};

    fn minter(name: &str) -> MinterName {
        MinterName::parse(name).unwrap()
    }

    fn key(text: &str) -> Key {
        Key::parse(text.as_bytes()).unwrap()
    }

    fn outcome() -> Outcome {
        Outcome { id: NonceId::from_parts(1, 1), ttl_capped_by: None, rate_capped_by: None }
    }

    #[test]
    fn keys_are_short_and_printable() {
        assert!(Key::parse(&[b'k'; 255]).is_some());
        for bad in [&b""[..], &[b'k'; 256], b"a\tb", b"a\x7f", "ü".as_bytes()] {
            assert_eq!(Key::parse(bad), None);
        }
    }

    #[test]
    fn a_key_belongs_to_its_minter_and_body() {
        let (keys, now) = (Keys::new().unwrap(), ManualClock::new().now());
        let (one, other) = (BodyHash::of("{}"), BodyHash::of("[]"));
        let slot = keys.claim(&minter("a"), &key("k"), one, &now).unwrap();
        assert!(Arc::ptr_eq(&slot, &keys.claim(&minter("a"), &key("k"), one, &now).unwrap()));
        assert!(!Arc::ptr_eq(&slot, &keys.claim(&minter("b"), &key("k"), other, &now).unwrap()));
        let conflict = Err(Refusal::Conflict(Conflict::OtherBody));
        assert_eq!(keys.claim(&minter("a"), &key("k"), other, &now).map(|_| ()), conflict, "while the first is at it");
        slot.set(outcome()).unwrap();
        drop(slot);
        assert_eq!(keys.claim(&minter("a"), &key("k"), other, &now).map(|_| ()), conflict, "and afterwards");
    }

    #[test]
    fn a_mint_that_failed_does_not_hold_its_key() {
        let (keys, now) = (Keys::new().unwrap(), ManualClock::new().now());
        drop(keys.claim(&minter("a"), &key("k"), BodyHash::of("1"), &now).unwrap());
        let second = keys.claim(&minter("a"), &key("k"), BodyHash::of("2"), &now).unwrap();
        second.set(outcome()).unwrap();
        assert!(keys.claim(&minter("a"), &key("k"), BodyHash::of("1"), &now).is_err());
    }

    #[test]
    fn keys_are_forgotten_after_ten_minutes() {
        let (keys, clock) = (Keys::new().unwrap(), ManualClock::new());
        let slot = keys.claim(&minter("a"), &key("k"), BodyHash::of("1"), &clock.now()).unwrap();
        slot.set(outcome()).unwrap();
        clock.advance(KEY_LIFE - Duration::from_secs(1));
        assert!(keys.claim(&minter("a"), &key("k"), BodyHash::of("2"), &clock.now()).is_err());
        clock.advance(Duration::from_secs(1));
        assert!(keys.claim(&minter("a"), &key("k"), BodyHash::of("2"), &clock.now()).is_ok());
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_goes_first() {
        let (keys, now) = (Keys::new().unwrap(), ManualClock::new().now());
        let claim = |n: usize, body| keys.claim(&minter("a"), &key(&n.to_string()), BodyHash::of(body), &now);
        for n in 0..=KEYS_MAX {
            claim(n, "x").unwrap().set(outcome()).unwrap();
        }
        let mut entries = keys.entries.lock();
        assert_eq!((entries.queued, entries.own(&minter("a")).by_key.len()), (KEYS_MAX, KEYS_MAX));
        drop(entries);
        assert!(claim(KEYS_MAX, "y").is_err(), "the youngest is remembered");
        assert!(claim(0, "y").is_ok(), "the oldest is not");
    }

    #[test]
    fn replacing_does_not_grow_the_queue_without_bound() {
        let (keys, now) = (Keys::new().unwrap(), ManualClock::new().now());
        for n in 0..KEYS_MAX + 10 {
            drop(keys.claim(&minter("a"), &key("same"), BodyHash::of(&n.to_string()), &now).unwrap());
        }
        let mut entries = keys.entries.lock();
        assert!(entries.queued <= KEYS_MAX && entries.own(&minter("a")).oldest.len() == entries.queued);
        assert_eq!(entries.own(&minter("a")).by_key.len(), 1);
    }

    #[test]
    fn a_minter_with_many_keys_takes_none_away_from_another() {
        let (keys, clock) = (Keys::new().unwrap(), ManualClock::new());
        let claim = |who: &str, n: usize, body| {
            keys.claim(&minter(who), &key(&n.to_string()), BodyHash::of(body), &clock.now())
        };
        claim("modest", 0, "x").unwrap().set(outcome()).unwrap();
        for n in 0..2 * KEYS_MAX {
            claim("greedy", n, "x").unwrap().set(outcome()).unwrap();
        }
        assert!(claim("modest", 0, "y").is_err(), "it is remembered");
        assert!(claim("greedy", 2 * KEYS_MAX - 1, "y").is_err());
        claim("modest", 1, "x").unwrap().set(outcome()).unwrap();
        assert!(claim("greedy", KEYS_MAX + 1, "y").is_ok(), "the greedy one made room for it");
        clock.advance(KEY_LIFE);
        let mut entries = keys.entries.lock();
        entries.forget_old_of_all(&clock.now());
        assert_eq!((entries.queued, entries.by_minter.len()), (0, 0));
    }

    #[test]
    fn the_nonce_depends_on_everything_and_on_this_start() {
        let (keys, again) = (Keys::new().unwrap(), Keys::new().unwrap());
        let (id, other) = (NonceId::from_parts(1, 1), NonceId::from_parts(1, 2));
        let nonce = |keys: &Keys, m: &str, k: &str, id| keys.nonce(&minter(m), &key(k), id).as_str().to_owned();
        let first = nonce(&keys, "ab", "c", id);
        assert_eq!(first, nonce(&keys, "ab", "c", id));
        for changed in [
            nonce(&keys, "a", "bc", id),
            nonce(&keys, "ab", "d", id),
            nonce(&keys, "ab", "c", other),
            nonce(&again, "ab", "c", id),
        ] {
            assert_ne!(first, changed);
        }
    }
}
