//! The sweeper.

use super::*;

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
