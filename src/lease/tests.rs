//! The promises of the store: what may happen at most once, what never happens after something else, and when.

mod delegation;
mod ends;
mod interleavings;
mod limits;
mod models;
pub(super) mod points;
mod renewal;
mod revoking;
mod rules;
mod shared;
mod sweeping;
mod uses;

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use jiff::SignedDuration;
use parking_lot::Mutex;

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::model::{Nonce, Now, ScopeLimits, ScopeName, ServiceName};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// Long enough never to be the reason, short enough to end a test that hangs.
const PATIENCE: Duration = Duration::from_secs(20);

fn service() -> ServiceName {
    ServiceName::parse("stripe").unwrap()
}

fn scope(name: &str) -> ScopeName {
    ScopeName::parse(name).unwrap()
}

fn grant(scopes: &[(&str, Option<u32>)]) -> Vec<LeaseGrant> {
    let limits = |uses: &Option<u32>| ScopeLimits { uses: *uses, rate: None };
    let scopes = scopes.iter().map(|(name, uses)| (scope(name), limits(uses))).collect();
    vec![LeaseGrant { service: service(), scopes }]
}

/// A delegation by the minter.
fn by_minter(children_max: usize) -> Delegating {
    Delegating { children_max, by_holder: false }
}

/// A simple lease: five minutes, one scope, no limits.
pub(super) fn terms() -> NewLease {
    NewLease {
        agent: AgentName::parse("billing").unwrap(),
        identities: Arc::new([IdentityRule::Uid(1000)]),
        task: TaskName::parse("refund-4711").unwrap(),
        minter: MinterName::parse("orchestrator").unwrap(),
        grants: grant(&[("read", None)]),
        ttl: 5 * MINUTE,
        lifetime: HOUR,
        max_uses: None,
        minter_live_max: usize::MAX,
        rate: None,
        budget: None,
        instance: None,
        on_behalf_of: None,
        reason: None,
        labels: BTreeMap::new(),
        lines: Vec::new(),
    }
}

pub(super) fn nonce(number: u64) -> Nonce {
    let mut entropy = [7; 32];
    entropy[24..].copy_from_slice(&number.to_be_bytes());
    Nonce::from_entropy(&entropy)
}

type Ended = (NonceId, EndCause, Option<String>);

/// A store with a clock that stands still, and all ends that it told of.
struct Bench {
    clock: Arc<ManualClock>,
    store: Arc<Store>,
    minter: Minter,
    ended: Arc<Mutex<Vec<Ended>>>,
}

fn bench() -> Bench {
    bench_of(Config { live_max: 200_000, tombstone_life: HOUR, tombstones_max: 200_000 })
}

fn bench_of(config: Config) -> Bench {
    let clock = ManualClock::new();
    let store = Store::new(config, clock.clone());
    let ended = Arc::new(Mutex::new(Vec::new()));
    let record = ended.clone();
    store.on_end(Box::new(move |lease, cause, by| {
        assert_eq!(lease.ended(), Some(cause), "the listener sees the lease as it is");
        record.lock().push((lease.id(), cause, by.map(str::to_owned)));
    }));
    Bench { clock, minter: store.minter(), store, ended }
}

impl Bench {
    fn mint(&self, number: u64, terms: NewLease) -> Arc<Lease> {
        self.minter.mint(self.minter.next_id(), &nonce(number), terms).unwrap()
    }

    fn find(&self, number: u64) -> Found {
        self.store.lookup().find(&nonce(number).hash())
    }

    fn cause(&self, number: u64) -> Option<EndCause> {
        match self.find(number) {
            Found::Dead(tombstone) => Some(tombstone.cause),
            Found::Live(_) | Found::Canary(_) | Found::Unknown => None,
        }
    }

    fn is_live(&self, number: u64) -> bool {
        matches!(self.find(number), Found::Live(_))
    }

    fn causes(&self) -> Vec<EndCause> {
        self.ended.lock().iter().map(|(_, cause, _)| *cause).collect()
    }

    fn set_wall(&self, by: i64) {
        let now = self.clock.now();
        self.clock.set(Now { wall: now.wall + SignedDuration::from_secs(by), ..now });
    }

    fn sweep_all(&self) -> usize {
        let mut batches = 1;
        while self.store.sweep_batch(&self.clock.now()).is_none() {
            batches += 1;
        }
        batches
    }
}

fn reserve(lease: &Arc<Lease>) -> Result<Reservation, NoUse> {
    lease.reserve(&service(), &scope("read"))
}

/// Runs this on so many threads at once and gives what each returned.
fn race<T: Send>(threads: usize, run: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let start = Barrier::new(threads);
    let run = |number| {
        start.wait();
        run(number)
    };
    thread::scope(|scope| {
        let run = &run;
        let handles: Vec<_> = (0..threads).map(|number| scope.spawn(move || run(number))).collect();
        handles.into_iter().map(|handle| handle.join().unwrap()).collect()
    })
}

// ── minting ──

fn accept_until_refused(bench: &Bench, number: u64, lease: &Arc<Lease>, revoked: &AtomicBool) -> Vec<Membership> {
    let mut members = Vec::new();
    loop {
        let is_late = revoked.load(Ordering::SeqCst);
        let found = match bench.find(number) {
            Found::Live(found) => Some(found),
            Found::Dead(tombstone) => {
                assert_eq!(tombstone.cause, EndCause::Revoked);
                None
            }
            Found::Canary(_) => panic!("it opens something"),
            Found::Unknown => panic!("between the index and the tombstone"),
        };
        // As a request that found it long ago, and as one that looks now.
        let held = lease.reserve(&service(), &scope("read")).ok().and_then(|_use| lease.join());
        let fresh = found.and_then(|found| reserve(&found).ok().and_then(|_use| found.join()));
        assert!(!is_late || (held.is_none() && fresh.is_none()), "accepted after revoke had returned");
        let refused = held.is_none();
        members.extend(held.into_iter().chain(fresh).take(1));
        if refused {
            return members;
        }
    }
}

/// True when the wait for the cut is over at once.
fn is_woken(member: &Membership) -> bool {
    let mut cut = std::pin::pin!(member.cut());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    cut.as_mut().poll(&mut context).is_ready()
}

#[test]
fn a_minted_lease_is_found_by_hash_and_by_id() {
    let bench = bench();
    let lease = bench.mint(1, NewLease { reason: Some("why".to_owned()), ..terms() });
    assert!(matches!(bench.find(1), Found::Live(found) if Arc::ptr_eq(&found, &lease)));
    assert!(Arc::ptr_eq(&bench.minter.get(lease.id()).unwrap(), &lease));
    assert!(matches!(bench.find(2), Found::Unknown));
    assert_eq!(lease.terms().reason, Some("why"));
    assert_eq!(lease.issued_at(), bench.clock.now().wall);
    assert_eq!(lease.deadline(), bench.clock.now().plus(5 * MINUTE));
    assert_eq!(lease.ends_at(), bench.clock.now().plus(HOUR).wall);
    assert_eq!((lease.uses_left(), lease.ended()), (None, None));
}

#[test]
fn a_period_ends_with_the_life_at_the_latest() {
    let bench = bench();
    let lease = bench.mint(1, NewLease { ttl: HOUR, lifetime: MINUTE, ..terms() });
    assert_eq!(lease.deadline(), bench.clock.now().plus(MINUTE));
}

#[test]
fn the_store_refuses_more_than_it_may_hold_and_takes_more_when_some_end() {
    let bench = bench_of(Config { live_max: 2, tombstone_life: HOUR, tombstones_max: 10 });
    let first = bench.mint(1, terms());
    bench.mint(2, terms());
    let mint = || bench.minter.mint(bench.minter.next_id(), &nonce(3), terms()).map(|_| ());
    assert_eq!(mint(), Err(MintError::Full));
    assert_eq!(bench.store.live_count(), 2);
    assert!(bench.minter.revoke(first.id(), EndCause::Revoked, "ana"));
    assert_eq!(mint(), Ok(()));
}

#[test]
fn one_nonce_has_one_lease() {
    let bench = bench();
    let lease = bench.mint(1, terms());
    let again = bench.mint(1, NewLease { max_uses: Some(1), ..terms() });
    assert!(Arc::ptr_eq(&lease, &again));
    assert_eq!((bench.store.live_count(), again.uses_left()), (1, None));
    let other = bench.minter.mint(lease.id(), &nonce(2), terms());
    assert_eq!(other.map(|_| ()), Err(MintError::Taken), "the id is another nonce's");
    assert!(matches!(bench.find(2), Found::Unknown));
}

#[test]
fn the_dead_do_not_come_back() {
    let bench = bench();
    let mint = |id| bench.minter.mint(id, &nonce(1), terms()).map(|_| ());
    let lease = bench.mint(1, terms());
    bench.clock.advance(5 * MINUTE);
    assert_eq!(mint(lease.id()), Err(MintError::Taken), "over, and nobody had noticed");
    assert_eq!(mint(bench.minter.next_id()), Err(MintError::Taken), "buried");
    assert_eq!(bench.cause(1), Some(EndCause::Expired));
}

#[test]
fn threads_that_mint_one_nonce_get_one_lease() {
    for _ in 0..50 {
        let bench = bench();
        let leases = race(8, |_| bench.mint(1, terms()).id());
        assert_eq!(leases.iter().collect::<HashSet<_>>().len(), 1);
        assert_eq!(bench.store.live_count(), 1);
    }
}

#[test]
fn ids_are_of_this_millisecond_and_differ() {
    let bench = bench();
    let ids: HashSet<_> = (0..1000).map(|_| bench.minter.next_id()).collect();
    assert_eq!(ids.len(), 1000);
    let milliseconds = u64::try_from(bench.clock.now().wall.as_millisecond()).unwrap();
    let range = NonceId::from_parts(milliseconds, 0)..NonceId::from_parts(milliseconds + 1, 0);
    assert!(ids.iter().all(|id| range.contains(id)));
}

#[test]
fn lists_are_in_order_paged_and_of_the_living() {
    let bench = bench();
    let mut ids: Vec<_> = (0..2500).map(|number| bench.mint(number, terms()).id()).collect();
    ids.sort_unstable();
    assert!(bench.minter.revoke(ids.remove(1200), EndCause::Revoked, "ana"));
    let (mut pages, mut after) = (Vec::new(), None);
    loop {
        let page = bench.minter.list(after, 700, &|_| true);
        assert!(page.len() <= 700);
        let Some(last) = page.last() else { break };
        after = Some(last.id());
        pages.extend(page.iter().map(|lease| lease.id()));
    }
    assert_eq!(pages, ids);
    let wanted = ids[2000];
    assert_eq!(bench.minter.list(None, 10, &|lease| lease.id() == wanted).len(), 1);
    assert!(bench.minter.list(None, 0, &|_| true).is_empty());
    bench.clock.advance(HOUR);
    assert!(bench.minter.list(None, 10, &|_| true).is_empty());
}

// ── time ──

#[test]
fn a_lease_is_dead_from_its_deadline_on() {
    let bench = bench();
    let lease = bench.mint(1, terms());
    bench.clock.advance(5 * MINUTE - Duration::from_nanos(1));
    assert!(bench.is_live(1));
    let membership = lease.join().unwrap();
    bench.clock.advance(Duration::from_nanos(1));
    let Found::Dead(tombstone) = bench.find(1) else { panic!("still alive") };
    assert_eq!((tombstone.id, tombstone.cause), (lease.id(), EndCause::Expired));
    assert_eq!(tombstone.at, lease.deadline().wall);
    assert_eq!(lease.ended(), Some(EndCause::Expired));
    assert!(lease.join().is_none() && reserve(&lease).is_err() && bench.minter.get(lease.id()).is_none());
    assert!(!membership.is_cut(), "what runs may finish");
    assert_eq!(bench.store.live_count(), 0);
}

#[test]
fn a_wall_clock_set_forward_kills_and_set_back_revives_nothing() {
    let bench = bench();
    bench.mint(1, terms());
    bench.set_wall(-7200);
    assert!(bench.is_live(1));
    bench.set_wall(7200 + 300);
    assert_eq!(bench.cause(1), Some(EndCause::Expired));
    bench.set_wall(-300);
    assert_eq!(bench.cause(1), Some(EndCause::Expired));
}

#[test]
fn a_wall_clock_set_back_extends_nothing() {
    let bench = bench();
    bench.mint(1, terms());
    bench.set_wall(-3600);
    bench.clock.advance(5 * MINUTE);
    assert_eq!(bench.cause(1), Some(EndCause::Expired));
}

#[test]
fn time_asleep_counts() {
    let bench = bench();
    let lease = bench.mint(1, terms());
    let now = bench.clock.now();
    bench.clock.set(Now { boot: now.boot + 8 * HOUR, ..now });
    assert_eq!(lease.ended(), Some(EndCause::Expired));
    assert_eq!(bench.cause(1), Some(EndCause::Expired));
}

#[test]
fn the_dead_are_remembered_for_a_while_and_then_unknown() {
    let bench = bench();
    let lease = bench.mint(1, terms());
    assert!(bench.minter.revoke(lease.id(), EndCause::Revoked, "ana"));
    bench.clock.advance(HOUR - Duration::from_nanos(1));
    assert_eq!(bench.cause(1), Some(EndCause::Revoked));
    bench.clock.advance(Duration::from_nanos(1));
    assert!(matches!(bench.find(1), Found::Unknown));
}

#[test]
fn not_more_dead_are_remembered_than_may_be() {
    let bench = bench_of(Config { live_max: 1000, tombstone_life: HOUR, tombstones_max: 10 });
    for number in 0..30 {
        bench.mint(number, terms());
        assert_eq!(bench.minter.revoke_all("ana"), 1);
    }
    let known: Vec<_> = (0..30).filter(|number| bench.cause(*number).is_some()).collect();
    assert_eq!(known, (20..30).collect::<Vec<_>>());
}

// ── size ──

#[test]
fn a_simple_lease_is_small() {
    let bytes = size_of::<Lease>();
    println!("size_of::<Lease>() = {bytes}");
    assert!(bytes <= 136, "{bytes}");
}

#[test]
fn nothing_of_a_nonce_is_printed() {
    let bench = bench();
    let lease = bench.mint(1, terms());
    let text = format!("{lease:?} {:?}", bench.find(1));
    assert!(text.contains(&lease.id().to_string()) && !text.contains("an_"), "{text}");
}
