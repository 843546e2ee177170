//! What was delegated: it ends with all above it, and each use of it is one of all above it.

use super::*;

impl Bench {
    fn delegate(&self, parent: &Arc<Lease>, number: u64, terms: NewLease) -> Result<Arc<Lease>, DelegateError> {
        self.minter.delegate(parent, by_minter(1000), self.minter.next_id(), &nonce(number), terms)
    }

    /// A lease, one delegated from it, and one from that.
    fn line(&self, first: u64, terms: &NewLease) -> [Arc<Lease>; 3] {
        let root = self.mint(first, terms.clone());
        let child = self.delegate(&root, first + 1, of_agent("research", terms)).unwrap();
        let grandchild = self.delegate(&child, first + 2, of_agent("summary", terms)).unwrap();
        [root, child, grandchild]
    }
}

fn of_agent(name: &str, terms: &NewLease) -> NewLease {
    NewLease { agent: AgentName::parse(name).unwrap(), ..terms.clone() }
}

fn limited(uses: u32) -> NewLease {
    NewLease { max_uses: Some(uses), ..terms() }
}

#[test]
fn it_knows_where_it_comes_from() {
    let bench = bench();
    let [root, child, grandchild] = bench.line(1, &terms());
    assert_eq!((root.depth(), child.depth(), grandchild.depth()), (0, 1, 2));
    assert_eq!((root.children_count(), child.children_count(), grandchild.children_count()), (1, 1, 0));
    assert!(root.parent().is_none() && root.lineage().is_none());
    let lineage = grandchild.lineage().unwrap();
    let chain: Vec<_> = lineage.chain.iter().map(AgentName::as_str).collect();
    assert_eq!((lineage.parent, chain), (child.id(), vec!["billing", "research", "summary"]));
    assert!(bench.minter.revoke(grandchild.id(), EndCause::Revoked, "ana"));
    assert_eq!((root.children_count(), child.children_count()), (1, 0));
    assert!(bench.is_live(1) && bench.is_live(2), "nothing above ends with it");
}

#[test]
fn it_ends_with_all_above_it() {
    for cause in [EndCause::Revoked, EndCause::Misplaced, EndCause::Expired, EndCause::Spent] {
        let bench = bench();
        let [root, child, grandchild] = bench.line(1, &limited(1));
        let member = grandchild.join().unwrap();
        match cause {
            EndCause::Revoked => {
                let revoked = bench.minter.revoke_counted(root.id(), cause, "ana");
                assert_eq!(revoked, Revoked { was_live: true, descendants: 2 });
            }
            EndCause::Misplaced => bench.store.lookup().misplaced(&root),
            EndCause::Expired => bench.clock.advance(5 * MINUTE),
            EndCause::Spent => reserve(&root).unwrap().spend(),
        }
        assert_eq!(bench.cause(3), Some(cause.inherited()));
        assert_eq!(bench.cause(2), Some(cause.inherited()));
        assert_eq!(bench.cause(1), Some(cause));
        assert!(reserve(&child).is_err() && child.join().is_none() && grandchild.join().is_none());
        assert_eq!((member.is_cut(), is_woken(&member)), (cause.cuts(), cause.cuts()));
        assert_eq!((bench.causes().len(), bench.store.live_count()), (3, 0), "each is told of once");
        assert_eq!(bench.store.until_next_expiry(&bench.clock.now()), None);
        let refused = bench.delegate(&root, 9, terms()).unwrap_err();
        assert_eq!(refused, DelegateError::ParentOver(cause));
    }
}

#[test]
fn the_listeners_hear_that_it_ended_with_its_parent() {
    let bench = bench();
    let [root, child, grandchild] = bench.line(1, &terms());
    assert_eq!(bench.minter.revoke_where(&|lease| lease.id() == root.id(), EndCause::Revoked, "ana"), 3);
    let by = |lease: &Arc<Lease>| format!("parent {}", lease.id());
    let ended = bench.ended.lock().clone();
    assert_eq!(ended[0], (root.id(), EndCause::Revoked, Some("ana".into())));
    assert_eq!(ended[1], (child.id(), EndCause::Revoked, Some(by(&root))));
    assert_eq!(ended[2], (grandchild.id(), EndCause::Revoked, Some(by(&child))));
}

#[test]
fn it_is_swept_with_its_parent_and_what_expires_alone_ends_alone() {
    let bench = bench();
    let root = bench.mint(1, terms());
    let short = NewLease { ttl: MINUTE, ..terms() };
    bench.delegate(&root, 2, short).unwrap();
    bench.delegate(&root, 3, terms()).unwrap();
    bench.clock.advance(MINUTE);
    bench.sweep_all();
    assert_eq!((bench.causes(), root.children_count()), (vec![EndCause::Expired], 1));
    bench.clock.advance(4 * MINUTE);
    bench.sweep_all();
    assert_eq!((bench.causes().len(), bench.store.live_count()), (3, 0));
}

#[test]
fn it_never_outlives_its_parents_period_not_even_renewed() {
    let bench = bench();
    let root = bench.mint(1, terms());
    bench.clock.advance(MINUTE);
    let long = NewLease { ttl: HOUR, lifetime: 10 * HOUR, ..terms() };
    let child = bench.delegate(&root, 2, long).unwrap();
    assert_eq!(child.deadline(), root.deadline());
    assert_eq!(child.ends_at(), root.ends_at());
    let now = bench.clock.now();
    assert!(child.renewal(HOUR, &now).is_capped);
    assert_eq!(child.renewal(HOUR, &now).until, root.deadline());
    assert!(bench.minter.renew(&root, root.renewal(20 * MINUTE, &now).until));
    assert_eq!(child.deadline().remaining(&now), 4 * MINUTE, "its parent's renewal is not its own");
    assert!(bench.minter.renew(&child, now.plus(HOUR)));
    assert_eq!(child.deadline(), root.deadline());
}

#[test]
fn a_use_is_one_of_all_above_or_of_none() {
    let bench = bench();
    let root = bench.mint(1, NewLease { grants: grant(&[("read", Some(5)), ("write", Some(1))]), ..limited(4) });
    let child = bench.delegate(&root, 2, NewLease { grants: grant(&[("write", None), ("read", Some(3))]), ..terms() });
    let child = child.unwrap();
    let left = || (root.uses_left(), child.uses_left(), root.grants_left(), child.grants_left());
    let before = left();
    assert_eq!((before.0, before.1), (Some(4), Some(4)));
    assert_eq!(before.3, grant(&[("write", Some(1)), ("read", Some(3))]));
    drop(reserve(&child).unwrap());
    assert_eq!(left(), before, "given back in all");
    let mut write = child.reserve(&service(), &scope("write")).unwrap();
    assert!(child.reserve(&service(), &scope("write")).is_err(), "the parent's only one is taken");
    assert_eq!((root.uses_left(), child.uses_left()), (Some(3), Some(3)), "and nothing was taken for it");
    write.spend();
    for _ in 0..3 {
        reserve(&child).unwrap().spend();
    }
    assert_eq!((root.ended(), child.ended()), (Some(EndCause::Spent), Some(EndCause::Spent)));
}

#[test]
fn a_scope_that_one_above_does_not_have_is_never_used() {
    let bench = bench();
    let root = bench.mint(1, terms());
    let child = bench.delegate(&root, 2, NewLease { grants: grant(&[("read", None), ("write", None)]), ..terms() });
    let child = child.unwrap();
    assert!(child.reserve(&service(), &scope("read")).is_ok());
    assert!(child.reserve(&service(), &scope("write")).is_err());
}

#[test]
fn uses_are_exact_for_all_of_a_family_at_once() {
    const USES: u32 = 600;
    for round in 0..20 {
        let bench = bench();
        let root = bench.mint(1, limited(USES));
        let children: Vec<_> =
            (0..2).map(|at| bench.delegate(&root, 10 + at, limited(USES / 2 + 50)).unwrap()).collect();
        let grandchildren: Vec<_> =
            (0..4).map(|at| bench.delegate(&children[at % 2], 20 + at as u64, limited(USES / 5)).unwrap()).collect();
        let all: Vec<_> = [root.clone()].into_iter().chain(children.clone()).chain(grandchildren).collect();
        let spent: Vec<Vec<u32>> = race(4, |thread| {
            let mut spent = vec![0; all.len()];
            // Each takes its turns in another order, gives every third one back, and ends when nothing is left.
            for turn in 0..4 * USES as usize {
                let at = (turn * (thread + 1) + round) % all.len();
                if let Ok(mut reservation) = reserve(&all[at])
                    && turn % 3 != 0
                {
                    reservation.spend();
                    spent[at] += 1;
                }
            }
            spent
        });
        let own = |at: usize| spent.iter().map(|spent| spent[at]).sum::<u32>();
        let of_child = |child: usize| own(1 + child) + own(3 + child) + own(5 + child);
        let total: u32 = (0..all.len()).map(own).sum();
        assert_eq!((total, root.ended()), (USES, Some(EndCause::Spent)), "all of them, and not one more");
        assert!((0..2).all(|child| of_child(child) <= USES / 2 + 50), "{spent:?}");
        assert!((3..7).all(|at| own(at) <= USES / 5), "{spent:?}");
        assert_eq!(bench.causes().len(), all.len(), "each ended once");
    }
}

#[test]
fn after_its_parent_was_revoked_nothing_is_accepted_for_it() {
    let bench = bench();
    for round in 0..300 {
        let [root, _, grandchild] = bench.line(round * 10, &limited(1_000_000));
        let revoked = AtomicBool::new(false);
        let members = race(4, |thread| {
            if thread == 0 {
                assert!(bench.minter.revoke(root.id(), EndCause::Revoked, "ana"));
                revoked.store(true, Ordering::SeqCst);
                return Vec::new();
            }
            accept_until_refused(&bench, round * 10 + 2, &grandchild, &revoked)
        });
        assert!(members.iter().flatten().all(Membership::is_cut), "who came before is cut");
        assert!(members.iter().flatten().all(is_woken), "and told so");
    }
}

#[test]
fn what_is_delegated_while_its_parent_ends_is_refused_or_ends_too() {
    let bench = bench();
    let mut made = 0;
    for round in 0..1000 {
        let root = bench.mint(round * 10, terms());
        let children = race(4, |thread| {
            let number = round * 10 + 1 + thread as u64;
            match thread {
                0 => {
                    assert!(bench.minter.revoke(root.id(), EndCause::Revoked, "ana"));
                    None
                }
                _ => bench.delegate(&root, number, terms()).ok().map(|child| (child.join(), child)),
            }
        });
        for (member, child) in children.into_iter().flatten() {
            made += 1;
            assert!(child.ended() == Some(EndCause::Revoked) && member.is_none_or(|member| is_woken(&member)));
        }
        assert_eq!((bench.store.live_count(), root.children_count()), (0, 0));
    }
    assert!(made > 0, "nothing was ever made in time");
}

#[test]
fn a_nonce_has_no_more_live_children_than_it_may() {
    let bench = bench();
    let root = bench.mint(1, terms());
    let delegate = |number| bench.minter.delegate(&root, by_minter(3), bench.minter.next_id(), &nonce(number), terms());
    let made =
        race(4, |thread| (0..5).filter_map(|at| delegate(100 + 10 * thread as u64 + at).ok()).collect::<Vec<_>>());
    let made: Vec<_> = made.into_iter().flatten().collect();
    assert_eq!((made.len(), root.children_count()), (3, 3));
    assert_eq!(delegate(2).unwrap_err(), DelegateError::TooManyChildren);
    let member = made[0].join();
    assert!(bench.minter.revoke(made[0].id(), EndCause::Revoked, "ana"));
    assert!(delegate(3).is_ok(), "one that is over counts no more, whatever is still under way");
    assert!(member.is_some_and(|member| member.is_cut()));
}

#[test]
fn one_that_could_not_be_made_leaves_nothing_behind() {
    let bench = bench_of(Config { live_max: 2, tombstone_life: HOUR, tombstones_max: 10 });
    let root = bench.mint(1, terms());
    bench.mint(2, terms());
    assert_eq!(bench.delegate(&root, 3, terms()).unwrap_err(), DelegateError::Mint(MintError::Full));
    assert_eq!(bench.delegate(&root, 2, terms()).unwrap_err(), DelegateError::Mint(MintError::Taken));
    assert_eq!((root.children_count(), bench.store.live_count(), bench.causes().len()), (0, 2, 0));
    assert!(bench.is_live(2));
}

#[test]
fn what_goes_on_below_one_that_is_over_is_cut_when_that_is_revoked() {
    for is_spent in [true, false] {
        let bench = bench();
        let [root, child, grandchild] = bench.line(1, &limited(1));
        let member = grandchild.join().unwrap();
        if is_spent {
            reserve(&child).unwrap().spend();
        } else {
            bench.clock.advance(5 * MINUTE);
            bench.sweep_all();
        }
        let id = root.id();
        drop((root, child, grandchild));
        assert!(!member.is_cut());
        assert!(!bench.minter.revoke(id, EndCause::Revoked, "ana"));
        assert!(member.is_cut() && is_woken(&member));
    }
}
