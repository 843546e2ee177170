//! Renewal.

use super::*;

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
fn a_renewal_up_to_the_end_of_the_life_is_granted_whole() {
    let bench = bench();
    let lease = bench.mint(1, terms());
    let left = lease.ends_at().duration_since(bench.clock.now().wall).unsigned_abs();
    assert!(!lease.renewal(left, &bench.clock.now()).is_capped);
    assert!(lease.renewal(left + Duration::from_secs(1), &bench.clock.now()).is_capped);
    // Either clock ends the life.
    bench.set_wall(60);
    assert!(lease.renewal(left, &bench.clock.now()).is_capped);
    assert_eq!(lease.age(&bench.clock.now()), MINUTE, "by the clock that says longer");
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
