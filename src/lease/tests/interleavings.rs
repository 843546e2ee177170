//! Every order in which a few actors can go about one lease: nothing is left to how threads happen to run.
//!
//! An actor is a short list of steps, and each step is one move that another actor can come before or after: one
//! compare-and-swap, or what happens under one lock. All orders of all steps are run, each with a lease of its own. What
//! the processor may reorder is not in here: that is what the fences and the tests with threads are for.

use std::cell::{Cell, RefCell};

use super::*;

/// What the actors of one run have in common.
struct World<'a> {
    bench: &'a Bench,
    number: u64,
    lease: Arc<Lease>,
    /// Set once a revocation has returned.
    is_revoked: Cell<bool>,
    spent: Cell<u32>,
    /// Exchanges that joined and have not left.
    members: RefCell<Vec<Membership>>,
}

/// One actor's own state.
#[derive(Default)]
struct Hand {
    reservation: Option<Reservation>,
    is_member: bool,
}

type Step = fn(&World<'_>, &mut Hand);

/// Takes a use; nothing that begins after a revocation has returned gets one.
fn take(world: &World<'_>, hand: &mut Hand) {
    hand.reservation = reserve(&world.lease).ok();
    assert!(hand.reservation.is_none() || !world.is_revoked.get(), "a use after the revocation");
}

/// The first half of joining: the clock is asked.
fn ask(world: &World<'_>, hand: &mut Hand) {
    if world.lease.ended().is_some() {
        hand.reservation = None;
    }
}

/// The second half, in which the lease may have ended.
fn enter(world: &World<'_>, hand: &mut Hand) {
    if hand.reservation.is_none() {
        return;
    }
    match world.lease.enter() {
        Some(member) => {
            assert!(!world.is_revoked.get(), "joined after the revocation");
            world.members.borrow_mut().push(member);
            hand.is_member = true;
        }
        None => hand.reservation = None,
    }
}

/// The request goes out.
fn send(world: &World<'_>, hand: &mut Hand) {
    if let Some(mut reservation) = hand.reservation.take() {
        reservation.spend();
        world.spent.set(world.spent.get() + 1);
    }
}

/// Upstream could not be reached.
fn give_back(_: &World<'_>, hand: &mut Hand) {
    hand.reservation = None;
}

fn revoke(world: &World<'_>, _: &mut Hand) {
    let _ = world.bench.minter.revoke(world.lease.id(), EndCause::Revoked, "ana");
    world.is_revoked.set(true);
    let members = world.members.borrow();
    assert!(members.iter().all(|member| member.is_cut() && is_woken(member)), "an exchange goes on");
}

/// Ends it as a revocation begins to, and stops there: its first move, before anything is buried.
fn swap(world: &World<'_>, hand: &mut Hand) {
    hand.is_member = world.lease.end(EndCause::Misplaced);
}

/// The rest of it.
fn bury(world: &World<'_>, hand: &mut Hand) {
    if hand.is_member {
        world.bench.store.bury(&world.lease, EndCause::Misplaced);
        world.bench.store.announce([&*world.lease], EndCause::Misplaced, None);
    }
}

/// The period ends.
fn wait(world: &World<'_>, _: &mut Hand) {
    world.bench.clock.advance(5 * MINUTE);
}

fn sweep(world: &World<'_>, _: &mut Hand) {
    world.bench.sweep_all();
}

/// Another period, as long as it is not over.
fn renew(world: &World<'_>, _: &mut Hand) {
    let renewal = world.lease.renewal(8 * MINUTE, &world.bench.clock.now());
    let was_over = world.lease.cause().is_some();
    let is_renewed = world.bench.minter.renew(&world.lease, renewal.until);
    assert!(!(is_renewed && was_over), "the dead came back");
}

/// Runs every order of the actors' steps; how many there were.
fn in_every_order(terms: &dyn Fn() -> NewLease, actors: &[&[Step]], check: &dyn Fn(&World<'_>)) -> usize {
    let mut orders = Vec::new();
    let mut done: Vec<usize> = vec![0; actors.len()];
    collect(actors, &mut done, &mut Vec::new(), &mut orders);
    let bench = bench_of(Config { live_max: 4, tombstone_life: HOUR, tombstones_max: 4 });
    for (number, order) in (0..).zip(&orders) {
        let lease = bench.mint(number, terms());
        let (is_revoked, spent, members) = (Cell::default(), Cell::default(), RefCell::default());
        let world = World { bench: &bench, number, lease, is_revoked, spent, members };
        run(&world, actors, order);
        settle(&world);
        check(&world);
        clear(&world);
    }
    orders.len()
}

fn collect(actors: &[&[Step]], done: &mut [usize], order: &mut Vec<usize>, orders: &mut Vec<Vec<usize>>) {
    let mut is_whole = true;
    for actor in 0..actors.len() {
        if done[actor] < actors[actor].len() {
            is_whole = false;
            done[actor] += 1;
            order.push(actor);
            collect(actors, done, order, orders);
            order.pop();
            done[actor] -= 1;
        }
    }
    if is_whole {
        orders.push(order.clone());
    }
}

fn run(world: &World<'_>, actors: &[&[Step]], order: &[usize]) {
    let mut hands: Vec<Hand> = actors.iter().map(|_| Hand::default()).collect();
    let mut done = vec![0; actors.len()];
    for actor in order {
        actors[*actor][done[*actor]](world, &mut hands[*actor]);
        done[*actor] += 1;
    }
}

/// What holds after every run: whatever ended it did so once and everywhere.
fn settle(world: &World<'_>) {
    let World { bench, lease, number, .. } = world;
    let causes = bench.causes();
    match lease.cause() {
        None => {
            assert!(causes.is_empty() && bench.store.live_count() == 1, "{causes:?}");
            assert!(bench.is_live(*number) || lease.cause() == Some(EndCause::Expired));
        }
        Some(cause) => {
            assert_eq!(causes, [cause], "told once, and the truth");
            assert_eq!((bench.store.live_count(), bench.cause(*number)), (0, Some(cause)));
            assert_eq!(bench.store.until_next_expiry(&bench.clock.now()), None, "out of the schedule as well");
            assert!(reserve(lease).is_err() && lease.join().is_none());
        }
    }
    let is_shared = lease.budget().is_some();
    let (tasks, ended) = bench.store.allowances.counts();
    let is_over = lease.cause().is_some();
    assert!(tasks <= usize::from(is_shared) && ended == tasks * usize::from(is_over), "{tasks} {ended}");
}

/// Nothing of it is left for the next run.
fn clear(world: &World<'_>) {
    world.bench.minter.revoke_all("ana");
    world.bench.clock.advance(HOUR);
    world.bench.sweep_all();
    world.bench.ended.lock().clear();
    assert_eq!(world.bench.store.allowances.counts(), (0, 0));
}

/// A request that goes out, the same without the look at the clock, and one that does not go out.
const REQUEST: &[Step] = &[take, ask, enter, send];
const QUICK: &[Step] = &[take, enter, send];
const FAILING: &[Step] = &[take, enter, give_back];

fn once() -> NewLease {
    NewLease { max_uses: Some(1), ..terms() }
}

fn once_per_task() -> NewLease {
    NewLease { budget: Some(Budget { uses: std::num::NonZeroU32::new(1), rate: None }), ..terms() }
}

#[test]
fn one_use_is_spent_at_most_once_and_lost_never() {
    for terms in [once, once_per_task] {
        let orders = in_every_order(&terms, &[REQUEST, FAILING, QUICK], &|world| {
            assert!(world.spent.get() <= 1);
            let left = reserve(&world.lease).is_ok();
            assert_eq!(left, world.spent.get() == 0, "spent, or there again");
        });
        assert_eq!(orders, 4200);
    }
}

#[test]
fn spending_revoking_and_sweeping_end_it_once() {
    let orders = in_every_order(&once, &[REQUEST, QUICK, &[revoke], &[wait, sweep]], &|world| {
        assert!(world.spent.get() <= 1 && world.lease.cause().is_some());
    });
    assert_eq!(orders, 12_600);
}

#[test]
fn an_end_that_is_halfway_lets_nothing_in() {
    let orders = in_every_order(&once_per_task, &[REQUEST, &[swap, bury], &[revoke], &[wait, sweep]], &|world| {
        assert!(world.spent.get() <= 1 && world.lease.cause().is_some());
    });
    assert_eq!(orders, 3780);
}

#[test]
fn a_renewal_and_an_end_never_both_happen() {
    let orders = in_every_order(&once, &[QUICK, &[renew, renew], &[swap, bury], &[wait, sweep]], &|world| {
        assert!(world.lease.cause().is_some());
    });
    assert_eq!(orders, 7560);
}
