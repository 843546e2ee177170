//! Rates, and what the nonces of a task share.

use std::num::NonZeroU32;

use super::*;
use crate::model::Rate;

const SECOND: Duration = Duration::from_secs(1);

fn rate(text: &str) -> Option<Rate> {
    Some(Rate::parse(text).unwrap())
}

fn paced(scopes: &[(&str, Option<u32>, Option<Rate>)]) -> Vec<LeaseGrant> {
    let limits = |uses: &Option<u32>, rate: &Option<Rate>| ScopeLimits { uses: *uses, rate: *rate };
    let scopes = scopes.iter().map(|(name, uses, rate)| (scope(name), limits(uses, rate))).collect();
    vec![LeaseGrant { service: service(), scopes }]
}

fn budget(uses: Option<u32>, rate: Option<Rate>) -> Option<Budget> {
    Some(Budget { uses: uses.and_then(NonZeroU32::new), rate })
}

fn sharing(uses: u32) -> NewLease {
    NewLease { budget: budget(Some(uses), None), ..terms() }
}

/// What a spent use, or none, was.
fn spend(lease: &Arc<Lease>) -> Result<(), NoUse> {
    reserve(lease).map(|mut reserved| reserved.spend())
}

fn too_fast(wait: Duration) -> Result<(), NoUse> {
    Err(NoUse::TooFast { wait })
}

// ── rates ──

#[test]
fn a_scope_has_a_rate_of_its_own() {
    let bench = bench();
    let grants = paced(&[("write", None, None), ("read", None, rate("3/min"))]);
    let lease = bench.mint(1, NewLease { grants, ..terms() });
    for _ in 0..3 {
        assert_eq!(spend(&lease), Ok(()));
    }
    assert_eq!(spend(&lease), too_fast(20 * SECOND));
    assert!(lease.reserve(&service(), &scope("write")).is_ok(), "the other scope is free");
    bench.clock.advance(20 * SECOND - Duration::from_nanos(1));
    assert_eq!(spend(&lease), too_fast(Duration::from_nanos(1)));
    bench.clock.advance(Duration::from_nanos(1));
    assert_eq!((spend(&lease), spend(&lease)), (Ok(()), too_fast(20 * SECOND)));
    assert_eq!((lease.uses_left(), lease.ended()), (None, None));
}

#[test]
fn each_nonce_has_a_rate_of_its_own() {
    let bench = bench();
    let leases = [1, 2].map(|n| bench.mint(n, NewLease { grants: paced(&[("read", None, rate("1/h"))]), ..terms() }));
    assert_eq!(leases.each_ref().map(spend), [Ok(()), Ok(())]);
    assert_eq!(leases.each_ref().map(spend), [too_fast(HOUR), too_fast(HOUR)]);
}

#[test]
fn too_fast_is_not_a_use() {
    let bench = bench();
    let grants = paced(&[("read", Some(2), rate("1/min")), ("write", Some(1), rate("1/min"))]);
    let lease = bench.mint(1, NewLease { grants, max_uses: Some(9), ..terms() });
    assert_eq!(spend(&lease), Ok(()));
    for _ in 0..10 {
        assert_eq!(spend(&lease), too_fast(MINUTE));
    }
    assert_eq!(lease.uses_left(), Some(2));
    bench.clock.advance(MINUTE);
    assert_eq!((spend(&lease), spend(&lease)), (Ok(()), Err(NoUse::Spent)), "what does not clear is said first");
    lease.reserve(&service(), &scope("write")).unwrap().spend();
    assert_eq!(bench.causes(), [EndCause::Spent]);
}

#[test]
fn a_rate_follows_the_clock_that_cannot_be_set() {
    let bench = bench();
    let lease = bench.mint(1, NewLease { grants: paced(&[("read", None, rate("1/min"))]), ..terms() });
    assert_eq!(spend(&lease), Ok(()));
    for by in [-7200, 7200 + 100] {
        bench.set_wall(by);
        assert_eq!(spend(&lease), too_fast(MINUTE), "{by}");
    }
}

#[test]
fn what_was_let_through_counts_even_if_it_is_given_back() {
    let bench = bench();
    let lease = bench.mint(1, NewLease { grants: paced(&[("read", Some(5), rate("2/min"))]), ..terms() });
    drop((reserve(&lease).unwrap(), reserve(&lease).unwrap()));
    assert_eq!((lease.uses_left(), spend(&lease)), (Some(5), too_fast(30 * SECOND)));
}

#[test]
fn exactly_as_many_at_once_as_the_rate_says() {
    for count in [1, 7, 100] {
        let bench = bench();
        let grants = paced(&[("read", None, rate(&format!("{count}/h")))]);
        let lease = bench.mint(1, NewLease { grants, ..terms() });
        let spent: Vec<usize> = race(16, |_| (0..32).filter(|_| spend(&lease).is_ok()).count());
        assert_eq!(spent.iter().sum::<usize>(), count);
    }
}

// ── what a task shares ──

#[test]
fn the_nonces_of_a_task_share_one_allowance() {
    let bench = bench();
    let leases: Vec<_> = (0..16).map(|number| bench.mint(number, sharing(100))).collect();
    let spent: Vec<usize> = race(16, |thread| (0..32).filter(|_| spend(&leases[thread]).is_ok()).count());
    assert_eq!(spent.iter().sum::<usize>(), 100);
    assert!(leases.iter().all(|lease| spend(lease) == Err(NoUse::TaskSpent) && lease.ended().is_none()));
}

#[test]
fn other_tasks_agents_and_minters_have_their_own() {
    let bench = bench();
    let first = bench.mint(1, sharing(1));
    assert_eq!((spend(&first), spend(&first)), (Ok(()), Err(NoUse::TaskSpent)));
    let (task, agent) = (TaskName::parse("another").unwrap(), AgentName::parse("another").unwrap());
    let minter = MinterName::parse("another").unwrap();
    let others =
        [NewLease { task, ..sharing(1) }, NewLease { agent, ..sharing(1) }, NewLease { minter, ..sharing(1) }, terms()];
    for (number, terms) in (2..).zip(others) {
        assert_eq!(spend(&bench.mint(number, terms)), Ok(()), "{number}");
    }
}

#[test]
fn a_use_that_is_given_back_is_given_back_to_the_task() {
    let bench = bench();
    let (one, two) = (bench.mint(1, sharing(1)), bench.mint(2, sharing(1)));
    let held = reserve(&one).unwrap();
    assert_eq!(spend(&two), Err(NoUse::TaskSpent));
    drop(held);
    assert_eq!((spend(&two), spend(&one)), (Ok(()), Err(NoUse::TaskSpent)));
}

#[test]
fn the_task_takes_nothing_from_a_nonce_and_a_nonce_nothing_from_the_task() {
    let bench = bench();
    let one = bench.mint(1, NewLease { max_uses: Some(2), ..sharing(3) });
    let two = bench.mint(2, NewLease { max_uses: Some(9), ..sharing(3) });
    assert_eq!((spend(&one), spend(&one), spend(&one)), (Ok(()), Ok(()), Err(NoUse::Spent)));
    assert_eq!((spend(&two), spend(&two)), (Ok(()), Err(NoUse::TaskSpent)));
    assert_eq!(two.uses_left(), Some(8));
}

#[test]
fn a_task_has_a_rate() {
    let bench = bench();
    let shared = || NewLease { budget: budget(None, rate("2/min")), ..terms() };
    let (one, two) = (bench.mint(1, shared()), bench.mint(2, shared()));
    assert_eq!((spend(&one), spend(&two)), (Ok(()), Ok(())));
    assert_eq!((spend(&one), spend(&two)), (too_fast(30 * SECOND), too_fast(30 * SECOND)));
    bench.clock.advance(30 * SECOND);
    assert_eq!((spend(&two), spend(&one)), (Ok(()), too_fast(30 * SECOND)));
}

#[test]
fn a_spent_task_gets_no_nonce_and_an_ended_one_goes_on_where_it_stopped() {
    let bench = bench();
    let mint = |number, uses| bench.minter.mint(bench.minter.next_id(), &nonce(number), sharing(uses));
    let first = mint(1, 2).unwrap();
    assert_eq!(spend(&first), Ok(()));
    assert!(bench.minter.revoke(first.id(), EndCause::Revoked, "ana"));
    let second = mint(2, 2).unwrap();
    let held = reserve(&second).unwrap();
    assert!(mint(3, 2).is_ok(), "the held one may come back");
    { held }.spend();
    assert_eq!((mint(4, 2).unwrap_err(), bench.store.live_count()), (MintError::TaskSpent, 2));
    assert!(mint(5, 3).is_ok(), "the policy gives more now");
}

#[test]
fn a_task_is_forgotten_some_time_after_its_last_nonce() {
    let bench = bench();
    let counts = || bench.store.allowances.counts();
    let (one, two) = (bench.mint(1, sharing(1)), bench.mint(2, sharing(1)));
    bench.mint(3, terms());
    assert_eq!((spend(&one), counts()), (Ok(()), (1, 0)));
    assert!(bench.minter.revoke(one.id(), EndCause::Revoked, "ana"));
    assert_eq!(counts(), (1, 0));
    bench.clock.advance(5 * MINUTE);
    bench.sweep_all();
    assert_eq!((two.ended(), counts()), (Some(EndCause::Expired), (1, 1)));
    bench.clock.advance(HOUR - SECOND);
    bench.sweep_all();
    let refused = bench.minter.mint(bench.minter.next_id(), &nonce(4), sharing(1));
    assert_eq!((refused.unwrap_err(), counts()), (MintError::TaskSpent, (1, 1)));
    bench.clock.advance(SECOND);
    bench.sweep_all();
    assert_eq!(counts(), (0, 0));
    assert_eq!(spend(&bench.mint(5, sharing(1))), Ok(()));
}

#[test]
fn a_task_that_goes_on_in_time_is_not_forgotten() {
    let bench = bench();
    for number in 0..20 {
        let lease = bench.mint(number, sharing(20));
        assert_eq!(spend(&lease), Ok(()));
        bench.clock.advance(30 * MINUTE);
        bench.sweep_all();
    }
    assert_eq!(bench.store.allowances.counts(), (1, 1));
    assert!(bench.minter.mint(bench.minter.next_id(), &nonce(99), sharing(20)).is_err());
}

#[test]
fn the_memory_of_ended_tasks_is_bounded_and_unused_ones_leave_none() {
    let bench = bench_of(Config { live_max: 100, tombstone_life: HOUR, tombstones_max: 10 });
    let task = |number| TaskName::parse(&format!("task-{number}")).unwrap();
    for number in 0..50 {
        let lease = bench.mint(number, NewLease { task: task(number), ..sharing(1) });
        if number % 2 == 0 {
            spend(&lease).unwrap();
        }
        assert!(bench.minter.revoke(lease.id(), EndCause::Revoked, "ana"));
        assert!(bench.store.allowances.counts().0 <= 10);
    }
    assert_eq!(bench.store.allowances.counts(), (10, 10));
    let again = |number, to| {
        bench.minter.mint(bench.minter.next_id(), &nonce(to), NewLease { task: task(number), ..sharing(1) })
    };
    assert!(again(48, 1000).is_err() && again(0, 1001).is_ok(), "the one that ended first is forgotten first");
}

#[test]
fn a_nonce_that_was_not_made_holds_nothing() {
    let bench = bench_of(Config { live_max: 1, tombstone_life: HOUR, tombstones_max: 10 });
    let lease = bench.mint(1, sharing(1));
    let same = bench.mint(1, sharing(1));
    assert!(Arc::ptr_eq(&lease, &same));
    let full = bench.minter.mint(bench.minter.next_id(), &nonce(2), sharing(1));
    assert_eq!(full.unwrap_err(), MintError::Full);
    assert_eq!(bench.minter.revoke_all("ana"), 1);
    assert_eq!(bench.store.allowances.counts(), (0, 0), "nobody is left in it");
}
