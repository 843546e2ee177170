//! Uses: counted, given back, spent.

use super::*;

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
