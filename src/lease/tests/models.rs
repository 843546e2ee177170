//! Spending, revoking, sweeping, renewing and delegating, as shuttle lets them meet: the store's own code, with a point
//! before each lock, each move of a lease's word and each fence, in many orders of those.
//!
//! | in the models | not in them |
//! | --- | --- |
//! | the word of a lease, its counters, the family, the task's allowance, the indexes by id, schedule, tombs, listeners | the tables of hashes, which are locked for one move each |
//! | one order of all moves that everybody sees | what a processor may reorder: that is what the fences are for, and the tests with threads |
//! | orders at random, and those of a few changes of the actor at chosen points (PCT) | all orders: `interleavings` has all of the coarser steps |
//!
//! `VALETKEY_TEST_ROUNDS` sets how many orders each model is run in, by each of the two ways; a failure prints the order.

use std::sync::atomic::AtomicU32;

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};

use super::points::Modelled;
use super::*;

/// Orders of each model by each scheduler, if nobody asks for more.
const ROUNDS: usize = 300;
/// The same at each run, unless `SHUTTLE_RANDOM_SEED` is set.
const SEED: u64 = 4711;
/// Changes of the actor against its priority; most races need two or three.
const DEPTH: usize = 4;

fn explore(model: fn()) {
    let rounds = std::env::var("VALETKEY_TEST_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().expect("a number"));
    run(RandomScheduler::new_from_seed(SEED, rounds), model);
    run(PctScheduler::new_from_seed(SEED, DEPTH, rounds), model);
}

fn run(scheduler: impl Scheduler + 'static, model: fn()) {
    let mut config = shuttle::Config::new();
    config.stack_size = 1 << 20;
    let _modelled = Modelled::begin();
    shuttle::Runner::new(scheduler, config).run(model);
}

/// What the actors have in common.
struct World {
    bench: Bench,
    lease: Arc<Lease>,
    /// Set once a revocation has returned.
    is_revoked: AtomicBool,
    spent: AtomicU32,
    /// Exchanges that joined. Nothing in here is a point, so that nobody waits for this lock.
    members: Mutex<Vec<Membership>>,
}

impl World {
    fn new(terms: NewLease) -> Arc<Self> {
        let bench = bench_of(Config { live_max: 4, tombstone_life: HOUR, tombstones_max: 4 });
        let lease = bench.mint(1, terms);
        Arc::new(Self {
            bench,
            lease,
            is_revoked: AtomicBool::default(),
            spent: AtomicU32::default(),
            members: Mutex::default(),
        })
    }

    /// A request through a lease: a use, the exchange, and the bytes go out.
    fn request(&self, lease: &Arc<Lease>) {
        let was_revoked = self.is_revoked.load(Ordering::SeqCst);
        let Ok(mut reservation) = reserve(lease) else { return };
        assert!(!was_revoked, "a use after the revocation");
        let Some(member) = lease.join() else { return };
        assert!(!self.is_revoked.load(Ordering::SeqCst), "joined after the revocation");
        self.members.lock().push(member);
        reservation.spend();
        self.spent.fetch_add(1, Ordering::SeqCst);
    }

    fn revoke(&self) {
        let _ = self.bench.minter.revoke(self.lease.id(), EndCause::Revoked, "ana");
        self.is_revoked.store(true, Ordering::SeqCst);
        // Taken out to be looked at: looking is a point.
        let members = std::mem::take(&mut *self.members.lock());
        assert!(members.iter().all(|member| member.is_cut() && is_woken(member)), "an exchange goes on");
        self.members.lock().extend(members);
    }

    fn expire(&self) {
        self.bench.clock.advance(5 * MINUTE);
        self.bench.sweep_all();
    }

    /// Whatever ended it did so once and everywhere.
    fn settle(&self) {
        let causes = self.bench.causes();
        match self.lease.ended() {
            None => assert!(causes.is_empty() && self.bench.is_live(1), "{causes:?}"),
            Some(cause) => {
                assert_eq!(causes.iter().filter(|told| **told == cause).count(), causes.len(), "{causes:?}");
                assert_eq!((self.bench.store.live_count(), self.bench.cause(1)), (0, Some(cause)));
                assert_eq!(self.bench.store.until_next_expiry(&self.bench.clock.now()), None);
                assert!(reserve(&self.lease).is_err() && self.lease.join().is_none());
            }
        }
    }
}

type Actor = fn(&World);

/// Lets all of them loose, and waits for them.
fn together(world: &Arc<World>, actors: &[Actor]) {
    let start = |actor: Actor| {
        let world = world.clone();
        shuttle::thread::spawn(move || actor(&world))
    };
    let running: Vec<_> = actors.iter().copied().map(start).collect();
    for actor in running {
        actor.join().unwrap();
    }
}

fn request(world: &World) {
    world.request(&world.lease);
}

/// Upstream could not be reached.
fn give_back(world: &World) {
    let _ = reserve(&world.lease).map(drop);
}

fn once() -> NewLease {
    NewLease { max_uses: Some(1), ..terms() }
}

#[test]
fn one_use_is_spent_once_or_is_there_again() {
    explore(|| {
        let world = World::new(once());
        together(&world, &[request, request, give_back]);
        let spent = world.spent.load(Ordering::SeqCst);
        assert!(spent <= 1);
        assert_eq!(world.bench.causes().len() as u32, spent, "told of its end if it is spent");
        assert_eq!(reserve(&world.lease).is_ok(), spent == 0);
        world.settle();
    });
}

#[test]
fn spending_revoking_and_sweeping_end_it_once() {
    explore(|| {
        let world = World::new(NewLease { max_uses: Some(2), ..terms() });
        together(&world, &[request, request, World::revoke, World::expire]);
        assert!(world.spent.load(Ordering::SeqCst) <= 2 && world.bench.causes().len() == 1);
        world.settle();
    });
}

#[test]
fn two_revocations_and_a_sweep_let_nothing_go_on() {
    explore(|| {
        let world = World::new(terms());
        together(&world, &[request, World::revoke, World::revoke, World::expire]);
        assert_eq!(world.bench.causes().len(), 1);
        world.settle();
    });
}

#[test]
fn a_renewal_and_an_end_never_both_happen() {
    explore(|| {
        let world = World::new(terms());
        let renew: Actor = |world| {
            let now = world.bench.clock.now();
            let was_over = world.lease.cause().is_some();
            let is_renewed = world.bench.minter.renew(&world.lease, world.lease.renewal(8 * MINUTE, &now).until);
            assert!(!(is_renewed && was_over), "the dead came back");
        };
        together(&world, &[renew, renew, request, World::expire]);
        world.settle();
    });
}

#[test]
fn a_child_ends_with_its_parent_and_spends_its_parents_uses() {
    explore(|| {
        let world = World::new(once());
        let bear: Actor = |world| {
            let id = world.bench.minter.next_id();
            if let Ok(child) = world.bench.minter.delegate(&world.lease, by_minter(4), id, &nonce(2), once()) {
                world.request(&child);
            }
        };
        together(&world, &[bear, request, World::revoke]);
        assert!(world.spent.load(Ordering::SeqCst) <= 1);
        assert_eq!(world.bench.store.live_count(), 0, "none outlives the revocation");
        let members = std::mem::take(&mut *world.members.lock());
        assert!(members.iter().all(|member| member.is_cut() && is_woken(member)));
    });
}
