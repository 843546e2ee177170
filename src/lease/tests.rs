//! The promises of the store: what may happen at most once, what never happens after something else, and when.

mod delegation;

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

fn nonce(number: u64) -> Nonce {
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

// ── uses ──

#[test]
fn exactly_as_many_uses_as_there_are() {
    for uses in [1, 7, 63, 64, 1000] {
        let bench = bench();
        let lease = bench.mint(1, NewLease { max_uses: Some(uses), ..terms() });
        let spent: Vec<usize> = race(64, |_| {
            let spend = || reserve(&lease).map(|mut reserved| reserved.spend());
            (0..32).filter(|_| spend().is_ok()).count()
        });
        assert_eq!(spent.iter().sum::<usize>(), uses as usize);
        assert_eq!(bench.causes(), [EndCause::Spent], "once, by the last");
        assert_eq!(bench.cause(1), Some(EndCause::Spent));
    }
}

#[test]
fn uses_given_back_under_contention_are_all_there_again() {
    let bench = bench();
    let lease = bench.mint(1, NewLease { max_uses: Some(5), grants: grant(&[("read", Some(3))]), ..terms() });
    let most = AtomicUsize::new(0);
    let held = AtomicUsize::new(0);
    race(16, |_| {
        for _ in 0..2000 {
            if let Ok(reservation) = reserve(&lease) {
                most.fetch_max(held.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                held.fetch_sub(1, Ordering::SeqCst);
                drop(reservation);
            }
        }
    });
    assert!((1..=3).contains(&most.into_inner()));
    let all: Vec<_> = (0..3).map(|_| reserve(&lease).unwrap()).collect();
    assert_eq!(reserve(&lease).map(drop), Err(NoUse::Spent));
    drop(all);
    assert_eq!(lease.ended(), None);
}

#[test]
fn a_scope_that_is_spent_takes_nothing_from_the_nonce() {
    let bench = bench();
    let grants = grant(&[("read", Some(1)), ("write", None)]);
    let lease = bench.mint(1, NewLease { max_uses: Some(3), grants, ..terms() });
    reserve(&lease).unwrap().spend();
    for _ in 0..10 {
        assert_eq!(reserve(&lease).map(drop), Err(NoUse::Spent));
    }
    assert_eq!(lease.uses_left(), Some(2));
    for _ in 0..2 {
        lease.reserve(&service(), &scope("write")).unwrap().spend();
    }
    assert_eq!(lease.ended(), Some(EndCause::Spent));
}

#[test]
fn a_nonce_that_is_spent_takes_nothing_from_the_scope() {
    let bench = bench();
    let lease = bench.mint(1, NewLease { max_uses: Some(1), grants: grant(&[("read", Some(2))]), ..terms() });
    let first = reserve(&lease).unwrap();
    assert_eq!(reserve(&lease).map(drop), Err(NoUse::Spent));
    drop(first);
    assert!(reserve(&lease).is_ok());
}

#[test]
fn scopes_that_are_all_limited_limit_the_nonce() {
    let bench = bench();
    let grants = grant(&[("read", Some(1)), ("write", Some(2))]);
    let lease = bench.mint(1, NewLease { grants, ..terms() });
    assert_eq!(lease.uses_left(), Some(3));
    for name in ["write", "read", "write"] {
        assert_eq!(lease.ended(), None);
        lease.reserve(&service(), &scope(name)).unwrap().spend();
    }
    assert_eq!(lease.ended(), Some(EndCause::Spent));
}

#[test]
fn a_free_scope_keeps_the_nonce_alive() {
    let bench = bench();
    let lease = bench.mint(1, NewLease { grants: grant(&[("read", Some(1)), ("write", None)]), ..terms() });
    reserve(&lease).unwrap().spend();
    assert_eq!((lease.uses_left(), lease.ended()), (None, None));
    assert_eq!(reserve(&lease).map(drop), Err(NoUse::Spent));
    assert!(lease.reserve(&service(), &scope("write")).is_ok());
}

#[test]
fn a_scope_that_the_lease_does_not_have_is_refused() {
    let lease = bench().mint(1, terms());
    assert_eq!(lease.reserve(&service(), &scope("write")).map(drop), Err(NoUse::Spent));
    assert_eq!(lease.reserve(&ServiceName::parse("github").unwrap(), &scope("read")).map(drop), Err(NoUse::Spent));
}

#[test]
fn the_last_use_ends_the_lease_when_it_is_spent_and_not_before() {
    let bench = bench();
    let lease = bench.mint(1, NewLease { max_uses: Some(1), ..terms() });
    let reserved = reserve(&lease).unwrap();
    assert_eq!(reserve(&lease).map(drop), Err(NoUse::Spent));
    assert!(bench.is_live(1), "the use may come back");
    drop(reserved);
    let mut reserved = reserve(&lease).unwrap();
    let membership = lease.join().unwrap();
    reserved.spend();
    reserved.spend();
    drop(reserved);
    assert_eq!(bench.cause(1), Some(EndCause::Spent));
    assert_eq!(bench.causes(), [EndCause::Spent]);
    assert_eq!((lease.uses_left(), membership.is_cut()), (Some(0), false), "spent twice counts once, nothing is cut");
}

#[test]
fn a_use_that_comes_back_after_others_were_spent_is_good() {
    let bench = bench();
    let lease = bench.mint(1, NewLease { max_uses: Some(2), ..terms() });
    let (mut first, second) = (reserve(&lease).unwrap(), reserve(&lease).unwrap());
    first.spend();
    assert!(bench.is_live(1), "the second is not spent");
    drop(second);
    reserve(&lease).unwrap().spend();
    assert_eq!(bench.cause(1), Some(EndCause::Spent));
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

// ── ends ──

#[tokio::test]
async fn revoking_cuts_what_runs_and_tells_who_did_it() {
    let bench = bench();
    let lease = bench.mint(1, terms());
    let membership = lease.join().unwrap();
    assert!(!membership.is_cut());
    let cut = tokio::spawn(async move {
        membership.cut().await;
        membership.is_cut()
    });
    assert!(bench.minter.revoke(lease.id(), EndCause::Revoked, "ana"));
    assert!(!bench.minter.revoke(lease.id(), EndCause::Revoked, "bob"));
    assert!(tokio::time::timeout(PATIENCE, cut).await.unwrap().unwrap());
    assert_eq!(*bench.ended.lock(), [(lease.id(), EndCause::Revoked, Some("ana".to_owned()))]);
}

#[test]
fn a_misplaced_nonce_is_dead_and_cut() {
    let bench = bench();
    let lease = bench.mint(1, terms());
    let membership = lease.join().unwrap();
    bench.store.lookup().misplaced(&lease);
    bench.store.lookup().misplaced(&lease);
    assert!(membership.is_cut());
    assert_eq!(bench.cause(1), Some(EndCause::Misplaced));
    assert_eq!(bench.causes(), [EndCause::Misplaced]);
}

#[test]
fn revocation_by_a_property_ends_those_and_no_others() {
    let bench = bench();
    for number in 0..3000 {
        bench.mint(number, NewLease { max_uses: (number % 3 == 0).then_some(1), ..terms() });
    }
    let limited = |lease: &Lease| lease.terms().max_uses.is_some();
    assert_eq!(bench.minter.revoke_where(&limited, EndCause::Misplaced, "scanner"), 1000);
    assert_eq!(bench.minter.revoke_where(&limited, EndCause::Misplaced, "scanner"), 0);
    assert!((0..3000).all(|number| bench.is_live(number) == (number % 3 != 0)));
    assert_eq!(bench.minter.revoke_all("ana"), 2000);
    assert_eq!((bench.store.live_count(), bench.ended.lock().len()), (0, 3000));
}

#[test]
fn a_listener_may_use_the_store() {
    let bench = bench();
    let (minter, lookup) = (bench.minter.clone(), bench.store.lookup());
    bench.store.on_end(Box::new(move |lease, _, _| {
        assert!(minter.get(lease.id()).is_none());
        assert!(matches!(lookup.find(&nonce(1).hash()), Found::Dead(_)));
        assert!(minter.list(None, 10, &|_| true).is_empty());
    }));
    bench.mint(1, terms());
    assert_eq!(bench.minter.revoke_all("ana"), 1);
}

#[test]
fn after_revoke_has_returned_nothing_is_accepted() {
    let bench = bench();
    for round in 0..500 {
        let lease = bench.mint(round, NewLease { max_uses: Some(1_000_000), ..terms() });
        let revoked = AtomicBool::new(false);
        let members = race(4, |thread| {
            if thread == 0 {
                assert!(bench.minter.revoke(lease.id(), EndCause::Revoked, "ana"));
                revoked.store(true, Ordering::SeqCst);
                return Vec::new();
            }
            accept_until_refused(&bench, round, &lease, &revoked)
        });
        assert!(members.iter().flatten().all(Membership::is_cut), "who came before is cut");
        assert!(members.iter().flatten().all(is_woken), "and told so");
    }
}

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

#[test]
fn who_is_overtaken_by_the_end_while_joining_does_not_join() {
    for cause in [EndCause::Revoked, EndCause::Misplaced, EndCause::Expired, EndCause::Spent] {
        let bench = bench();
        let lease = bench.mint(1, terms());
        assert!(lease.enter().is_some());
        assert!(bench.minter.revoke(lease.id(), cause, "ana"));
        assert!(lease.enter().is_none(), "{cause:?}");
    }
}

/// True when the wait for the cut is over at once.
fn is_woken(member: &Membership) -> bool {
    let mut cut = std::pin::pin!(member.cut());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    cut.as_mut().poll(&mut context).is_ready()
}

#[test]
fn a_lease_ends_once_whoever_is_first() {
    let bench = bench();
    let mut seen = HashSet::new();
    for round in 0..3000 {
        let lease = bench.mint(round, NewLease { max_uses: Some(1), ..terms() });
        let mut last = reserve(&lease).unwrap();
        let last = Mutex::new(Some(&mut last));
        bench.ended.lock().clear();
        // The clock moves while the others are at it, so that expiry is in the race.
        race(5, |thread| match thread {
            0 => bench.clock.advance(5 * MINUTE),
            1 => drop(bench.minter.revoke(lease.id(), EndCause::Revoked, "ana")),
            2 => bench.store.lookup().misplaced(&lease),
            3 => last.lock().take().unwrap().spend(),
            _ => drop(bench.store.sweep_batch(&bench.clock.now())),
        });
        let causes = bench.causes();
        assert_eq!(causes.len(), 1, "{causes:?}");
        assert_eq!((lease.ended(), bench.cause(round)), (Some(causes[0]), Some(causes[0])));
        assert_eq!(bench.store.live_count(), 0);
        assert_eq!(bench.store.until_next_expiry(&bench.clock.now()), None, "out of the schedule as well");
        seen.insert(causes[0]);
    }
    assert!(seen.len() > 1, "the race always ended the same way: {seen:?}");
}

#[test]
fn a_lease_that_has_outlived_its_store_is_over() {
    let Bench { store, minter, clock: _clock, ended: _ended } = bench();
    let lease = minter.mint(minter.next_id(), &nonce(1), terms()).unwrap();
    drop((store, minter));
    assert_eq!(lease.ended(), Some(EndCause::Revoked));
    assert!(lease.join().is_none());
}

// ── the sweeper ──

#[test]
fn expired_leases_are_swept_in_batches() {
    let bench = bench();
    for number in 0..100_000 {
        bench.mint(number, terms());
    }
    let late = bench.mint(100_000, NewLease { ttl: 20 * MINUTE, ..terms() });
    bench.clock.advance(5 * MINUTE);
    let now = bench.clock.now();
    assert_eq!(bench.store.sweep_batch(&now), None, "there is more to do");
    assert_eq!(bench.store.live_count(), 100_001 - sweep::BATCH);
    assert!(bench.sweep_all() >= 100_000 / sweep::BATCH - 1);
    assert_eq!(bench.store.live_count(), 1);
    assert_eq!(bench.store.sweep_batch(&now), Some(15 * MINUTE), "sleeps until the next expiry");
    let ended: HashSet<_> = bench.ended.lock().iter().map(|(id, ..)| *id).collect();
    assert_eq!((ended.len(), bench.ended.lock().len()), (100_000, 100_000));
    assert!(!ended.contains(&late.id()));
}

#[test]
fn a_lease_that_ended_leaves_the_schedule() {
    let bench = bench();
    let lease = bench.mint(1, terms());
    bench.mint(2, NewLease { ttl: 20 * MINUTE, ..terms() });
    let wait = || bench.store.until_next_expiry(&bench.clock.now());
    assert_eq!(wait(), Some(5 * MINUTE));
    assert!(bench.minter.revoke(lease.id(), EndCause::Revoked, "ana"));
    assert_eq!(wait(), Some(20 * MINUTE));
    assert_eq!(Arc::strong_count(&lease), 1, "no index holds it");
}

#[test]
fn the_sweeper_forgets_the_dead() {
    let bench = bench();
    for number in 0..1000 {
        bench.mint(number, terms());
    }
    bench.clock.advance(5 * MINUTE);
    bench.sweep_all();
    bench.clock.advance(HOUR);
    assert!(bench.sweep_all() > 2, "in batches");
    // A nonce that is forgotten could be minted anew: the tombstone is really gone.
    bench.mint(1, terms());
}

/// Waits until so many ends were told.
async fn told(bench: &Bench, ends: usize) {
    let all = async {
        while bench.ended.lock().len() < ends {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("nobody swept");
}

#[tokio::test]
async fn the_sweeper_wakes_for_an_earlier_expiry() {
    // Real clocks, and no periodic wake within the test's patience.
    let store = Store::new(
        Config { live_max: 10, tombstone_life: HOUR, tombstones_max: 10 },
        Arc::new(crate::clock::SystemClock),
    );
    let (send, mut ends) = tokio::sync::mpsc::unbounded_channel();
    store.on_end(Box::new(move |lease, cause, _| send.send((lease.id(), cause)).unwrap()));
    let minter = store.minter();
    let _late = minter.mint(minter.next_id(), &nonce(1), terms()).unwrap();
    let sweeper = tokio::spawn({
        let store = store.clone();
        async move { store.sweep_with(HOUR).await }
    });
    tokio::task::yield_now().await;
    let ttl = Duration::from_millis(20);
    let soon = minter.mint(minter.next_id(), &nonce(2), NewLease { ttl, ..terms() }).unwrap();
    let end = tokio::time::timeout(PATIENCE, ends.recv()).await.unwrap();
    assert_eq!(end, Some((soon.id(), EndCause::Expired)));
    sweeper.abort();
}

#[tokio::test]
async fn the_sweeper_notices_clocks_that_jump() {
    let bench = Arc::new(bench());
    for number in 0..1000 {
        bench.mint(number, terms());
    }
    bench.set_wall(-1800);
    // Due before all others by the wall clock once that is right again, and after them by the other clock.
    let strange = bench.mint(1000, NewLease { ttl: 10 * MINUTE, ..terms() });
    let sweeper = tokio::spawn({
        let store = bench.store.clone();
        async move { store.sweep_with(Duration::from_millis(2)).await }
    });
    tokio::task::yield_now().await;
    bench.set_wall(1800);
    told(&bench, 1).await;
    assert_eq!(bench.ended.lock()[0].0, strange.id(), "found behind a thousand that are alive");
    assert_eq!(bench.store.live_count(), 1000);
    let now = bench.clock.now();
    bench.clock.set(Now { boot: now.boot + HOUR, ..now });
    told(&bench, 1001).await;
    assert_eq!(bench.store.live_count(), 0);
    sweeper.abort();
}

#[tokio::test]
async fn the_sweeper_spares_what_a_corrected_clock_gives_more_time() {
    let bench = bench();
    let lease = bench.mint(1, terms());
    bench.set_wall(240);
    let now = bench.clock.now();
    assert!(bench.store.renew_batch(None, &now, 10).is_none());
    assert_eq!(bench.store.until_next_expiry(&now), Some(MINUTE));
    bench.set_wall(-240);
    bench.clock.advance(2 * MINUTE);
    assert_eq!(bench.store.sweep_batch(&bench.clock.now()), Some(3 * MINUTE));
    assert_eq!(lease.ended(), None);
    bench.clock.advance(3 * MINUTE);
    bench.sweep_all();
    assert_eq!(bench.causes(), [EndCause::Expired]);
}

// ── renewal ──

impl Bench {
    /// Renews as the control plane does; true where it was granted.
    fn renew(&self, lease: &Arc<Lease>, period: Duration) -> bool {
        self.minter.renew(lease, lease.renewal(period, &self.clock.now()).until)
    }

    fn remaining(&self, lease: &Lease) -> Duration {
        lease.deadline().remaining(&self.clock.now())
    }
}

#[test]
fn a_renewal_starts_a_new_period_and_ends_with_the_life() {
    let bench = bench();
    let lease = bench.mint(1, terms());
    bench.clock.advance(4 * MINUTE);
    assert!(!lease.renewal(5 * MINUTE, &bench.clock.now()).is_capped);
    assert!(bench.renew(&lease, 5 * MINUTE));
    assert_eq!(bench.remaining(&lease), 5 * MINUTE);
    bench.clock.advance(4 * MINUTE);
    bench.sweep_all();
    assert!(bench.is_live(1), "beyond its first period");
    let renewal = lease.renewal(2 * HOUR, &bench.clock.now());
    assert!(renewal.is_capped);
    assert!(bench.minter.renew(&lease, renewal.until));
    assert_eq!(lease.deadline().wall, lease.ends_at());
    // Even where somebody asks the store for more than `renewal` gives.
    assert!(bench.minter.renew(&lease, bench.clock.now().plus(10 * HOUR)));
    assert_eq!(lease.deadline().wall, lease.ends_at());
    bench.clock.advance(52 * MINUTE);
    bench.sweep_all();
    assert_eq!(bench.cause(1), Some(EndCause::Expired));
}

#[test]
fn a_renewal_never_shortens() {
    let bench = bench();
    let lease = bench.mint(1, terms());
    assert!(bench.renew(&lease, MINUTE));
    assert_eq!(bench.remaining(&lease), 5 * MINUTE);
    bench.clock.advance(4 * MINUTE);
    assert!(bench.renew(&lease, 2 * MINUTE));
    assert_eq!(bench.remaining(&lease), 2 * MINUTE);
}

#[test]
fn a_renewal_holds_on_both_clocks() {
    for strayed in [-1800, 120] {
        let bench = bench();
        let lease = bench.mint(1, terms());
        bench.set_wall(strayed);
        bench.clock.advance(MINUTE);
        assert!(bench.renew(&lease, 5 * MINUTE));
        // A clock that was set back leaves no more than the period, one that was set forward no less.
        assert_eq!(bench.remaining(&lease), 5 * MINUTE, "{strayed}");
        let now = bench.clock.now();
        bench.clock.set(Now { boot: now.boot + 5 * MINUTE, ..now });
        assert_eq!(lease.ended(), Some(EndCause::Expired), "{strayed}");
    }
}

#[test]
fn the_dead_are_not_renewed() {
    let bench = bench();
    for (number, cause) in [(1, EndCause::Revoked), (2, EndCause::Misplaced), (3, EndCause::Expired)] {
        let lease = bench.mint(number, terms());
        let until = lease.renewal(5 * MINUTE, &bench.clock.now()).until;
        match cause {
            EndCause::Misplaced => bench.store.lookup().misplaced(&lease),
            // Nobody has noticed it yet.
            EndCause::Expired => bench.clock.advance(5 * MINUTE),
            EndCause::Revoked | EndCause::Spent => assert!(bench.minter.revoke(lease.id(), cause, "x")),
        }
        assert!(!bench.minter.renew(&lease, until), "{cause:?}");
        assert_eq!(lease.ended(), Some(cause));
        let dead = bench.minter.dead(lease.id()).unwrap();
        assert_eq!((dead.cause, dead.agent.as_str(), dead.minter.as_str()), (cause, "billing", "orchestrator"));
    }
    assert!(bench.minter.dead(bench.minter.next_id()).is_none());
    assert_eq!(bench.store.until_next_expiry(&bench.clock.now()), None, "nothing is left in the schedule");
}

#[test]
fn a_renewed_lease_is_swept_at_its_new_expiry() {
    let bench = bench();
    let (renewed, other) = (bench.mint(1, terms()), bench.mint(2, terms()));
    bench.clock.advance(4 * MINUTE);
    assert!(bench.renew(&renewed, 5 * MINUTE));
    assert_eq!(bench.store.until_next_expiry(&bench.clock.now()), Some(MINUTE));
    bench.clock.advance(MINUTE);
    assert_eq!(bench.store.sweep_batch(&bench.clock.now()), Some(4 * MINUTE));
    assert_eq!((other.ended(), renewed.ended()), (Some(EndCause::Expired), None));
    bench.clock.advance(4 * MINUTE);
    bench.sweep_all();
    assert_eq!(renewed.ended(), Some(EndCause::Expired));
}

/// A thousand leases, each renewed, expired and (every second one) revoked at the same time.
#[test]
fn of_renewal_and_end_at_once_exactly_one_is_told() {
    let bench = bench();
    let leases: Vec<_> = (0..1000).map(|number| bench.mint(number, terms())).collect();
    bench.clock.advance(5 * MINUTE - Duration::from_millis(1));
    let granted = race(4, |role| {
        let renew = |lease: &Arc<Lease>| bench.renew(lease, 5 * MINUTE);
        match role {
            0 => return leases.iter().map(renew).collect(),
            1 => {
                bench.clock.advance(Duration::from_millis(1));
                bench.sweep_all();
            }
            2 => leases.iter().step_by(2).for_each(|lease| {
                let _ = bench.minter.revoke(lease.id(), EndCause::Revoked, "x");
            }),
            _ => leases.iter().for_each(|lease| {
                let _ = lease.ended();
            }),
        }
        Vec::new()
    });
    bench.sweep_all();
    for (number, (lease, granted)) in leases.iter().zip(&granted[0]).enumerate() {
        match lease.ended() {
            None => assert!(granted, "{number} lives and was not renewed"),
            Some(EndCause::Revoked) => assert_eq!(number % 2, 0),
            Some(cause) => assert_eq!((cause, granted), (EndCause::Expired, &false), "{number} was renewed"),
        }
    }
    let live = leases.iter().filter(|lease| lease.ended().is_none()).count();
    assert_eq!((bench.store.live_count(), bench.causes().len()), (live, 1000 - live), "each end was told once");
    bench.clock.advance(5 * MINUTE);
    bench.sweep_all();
    assert_eq!(bench.store.live_count(), 0, "the schedule had all that were renewed");
    assert_eq!(bench.store.until_next_expiry(&bench.clock.now()), None);
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

mod interleavings;
mod limits;
mod models;
pub(super) mod points;
mod revoking;
mod shared;
