//! How leases end, and what an end does.

use super::*;

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

#[tokio::test]
async fn of_many_those_end_that_are_meant() {
    let bench = bench();
    let leases = [1, 2, 3].map(|n| bench.mint(n, terms()));
    let meant = [leases[0].id(), leases[2].id()];
    let which = |lease: &Lease| meant.contains(&lease.id());
    assert_eq!(bench.minter.revoke_many(&which, "op").await, 2);
    assert_eq!(leases.each_ref().map(|lease| lease.ended().is_some()), [true, false, true]);
    assert_eq!(bench.minter.revoke_many(&which, "op").await, 0, "they were over");
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
