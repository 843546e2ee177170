//! A line of delegations whose leases have rates, and share what their task has.

use std::num::NonZeroU32;

use super::*;
use crate::lease::kin::Origin;
use crate::model::Rate;

fn of(agent: &str, uses: u32, budget: u32) -> NewLease {
    let budget = Some(Budget { uses: NonZeroU32::new(budget), rate: None });
    NewLease { agent: AgentName::parse(agent).unwrap(), max_uses: Some(uses), budget, ..terms() }
}

impl Bench {
    fn below(&self, parent: &Arc<Lease>, number: u64, terms: NewLease) -> Arc<Lease> {
        self.minter.delegate(parent, by_minter(1000), self.minter.next_id(), &nonce(number), terms).unwrap()
    }
}

fn spend(lease: &Arc<Lease>) -> Result<(), NoUse> {
    reserve(lease).map(|mut reserved| reserved.spend())
}

#[test]
fn a_use_counts_once_in_the_allowance_and_once_in_each_lease() {
    let bench = bench();
    let root = bench.mint(1, of("billing", 9, 5));
    let child = bench.below(&root, 2, of("billing", 9, 5));
    drop(reserve(&child).unwrap());
    assert_eq!((root.uses_left(), child.uses_left()), (Some(9), Some(9)), "given back everywhere");
    for lease in [&child, &child, &child, &root, &root] {
        assert_eq!(spend(lease), Ok(()));
    }
    assert_eq!((root.uses_left(), child.uses().and_then(|uses| uses.left())), (Some(4), Some(6)));
    assert_eq!([&root, &child].map(spend), [Err(NoUse::TaskSpent); 2]);
    assert_eq!((root.uses_left(), child.uses().and_then(|uses| uses.left())), (Some(4), Some(6)), "nothing is taken");
}

#[test]
fn of_two_budgets_for_one_allowance_both_hold() {
    for (above, below) in [(3, 10), (10, 3)] {
        let bench = bench();
        let root = bench.mint(1, of("billing", 90, above));
        let child = bench.below(&root, 2, of("billing", 90, below));
        assert_eq!((0..5).filter(|_| spend(&child).is_ok()).count(), 3);
    }
}

#[test]
fn the_rates_above_hold_below_and_who_is_too_fast_takes_nothing() {
    let bench = bench();
    let rate = |text: &str| Rate::parse(text);
    let paced = |rate| {
        let mut grants = grant(&[("read", None)]);
        grants[0].scopes[0].1.rate = rate;
        NewLease { grants, ..of("billing", 9, 9) }
    };
    let root = bench.mint(1, paced(rate("2/min")));
    let children = [2, 3].map(|number| bench.below(&root, number, paced(None)));
    let wait = Duration::from_secs(30);
    assert_eq!(children.each_ref().map(spend), [Ok(()), Ok(())]);
    assert_eq!(children.each_ref().map(spend), [Err(NoUse::TooFast { wait }); 2]);
    bench.clock.advance(wait);
    assert_eq!(children.each_ref().map(spend), [Ok(()), Err(NoUse::TooFast { wait })]);
    assert_eq!((root.uses_left(), children[1].uses().and_then(|uses| uses.left())), (Some(6), Some(8)));
}

/// Two lines of one task, in which the agents follow each other the other way round: whoever locked the allowances in the
/// order of the leases would wait for ever.
#[test]
fn uses_of_crossed_lines_are_exact_and_nobody_waits_for_ever() {
    const USES: u32 = 500;
    for round in 0..10 {
        let bench = bench();
        let line = |first: u64, agents: [&str; 3]| {
            let root = bench.mint(first, of(agents[0], 10_000, USES));
            let child = bench.below(&root, first + 1, of(agents[1], 10_000, USES));
            let grandchild = bench.below(&child, first + 2, of(agents[2], 10_000, USES));
            [root, child, grandchild]
        };
        let lines = [line(1, ["billing", "research", "billing"]), line(11, ["research", "billing", "research"])];
        let spent: Vec<[u32; 4]> = race(4, |thread| {
            let mut spent = [0; 4];
            for turn in 0..4 * USES as usize {
                // A child or a grandchild of one of the lines: each use is one of both agents.
                let at = (turn * (thread + 1) + round) % 4;
                if let Ok(mut reservation) = reserve(&lines[at / 2][1 + at % 2])
                    && turn % 3 != 0
                {
                    reservation.spend();
                    spent[at] += 1;
                }
            }
            spent
        });
        let own = |at: usize| spent.iter().map(|spent| spent[at]).sum::<u32>();
        assert_eq!((0..4).map(own).sum::<u32>(), USES, "all of them, and not one more");
        for (line, first) in lines.iter().zip([0, 2]) {
            let left = line.each_ref().map(|lease| 10_000 - lease.uses().and_then(|uses| uses.left()).unwrap());
            let (child, grandchild) = (own(first), own(first + 1));
            assert_eq!(left, [child + grandchild, child + grandchild, grandchild], "one of each above");
            assert!(line.iter().all(|lease| spend(lease) == Err(NoUse::TaskSpent)));
        }
    }
}

#[test]
fn one_that_ended_before_it_was_made_is_not_missed_in_its_task() {
    let bench = bench();
    let (store, terms) = (&bench.store, of("billing", 9, 9));
    let root = bench.mint(1, terms.clone());
    bench.mint(2, terms.clone());
    let (id, hash, now) = (bench.minter.next_id(), nonce(3).hash(), store.now());
    let child = store.make(id, hash, terms.clone(), &now, Some(Origin::new(&root, &terms, false)));
    root.adopt(&child, 10).unwrap();
    assert!(bench.minter.revoke(root.id(), EndCause::Revoked, "ana"));
    let refused = store.link(&child, &now, usize::MAX).unwrap_err();
    assert_eq!((child.cause(), refused), (Some(EndCause::Revoked), MintError::Taken));
    assert_eq!(store.allowances.counts(), (1, 0), "the other one still lives");
    assert_eq!(bench.minter.revoke_all("ana"), 1);
    assert_eq!(store.allowances.counts(), (0, 0));
    assert_eq!(bench.minter.live_of(&terms.minter), 0);
}

#[test]
fn a_spent_task_is_not_delegated_and_one_not_made_holds_nothing() {
    let bench = bench();
    let root = bench.mint(1, of("billing", 9, 9));
    let child = bench.below(&root, 2, of("research", 9, 1));
    assert_eq!(spend(&child), Ok(()));
    let delegate = |number| {
        bench
            .minter
            .delegate(&root, by_minter(10), bench.minter.next_id(), &nonce(number), of("research", 9, 1))
            .map(drop)
    };
    assert_eq!(delegate(3), Err(DelegateError::Mint(MintError::TaskSpent)));
    assert_eq!((root.children_count(), bench.store.live_count()), (1, 2));
    assert_eq!((spend(&child), spend(&root)), (Err(NoUse::TaskSpent), Ok(())));
    bench.clock.advance(5 * MINUTE);
    bench.sweep_all();
    assert_eq!(bench.store.allowances.counts(), (2, 2), "both are remembered, and nobody is in them");
}

#[test]
fn a_minter_has_so_many_live_leases_and_each_end_makes_room() {
    let bench = bench();
    let few = || NewLease { minter_live_max: 2, ..of("billing", 9, 1) };
    let (first, second) = (bench.mint(1, few()), bench.mint(2, few()));
    let mint = |number, terms| bench.minter.mint(bench.minter.next_id(), &nonce(number), terms);
    assert_eq!(mint(3, few()).unwrap_err(), MintError::MinterFull);
    let made = bench.minter.delegate(&first, by_minter(10), bench.minter.next_id(), &nonce(4), few());
    assert_eq!(made.unwrap_err(), DelegateError::Mint(MintError::MinterFull));
    let minter = MinterName::parse("another").unwrap();
    assert!(mint(5, NewLease { minter, ..few() }).is_ok(), "another one has its own");
    assert!(bench.minter.revoke(second.id(), EndCause::Revoked, "ana"));
    // Its task has one use: where that is gone nothing is made, and no place is lost by it.
    reserve(&first).unwrap().spend();
    assert_eq!(mint(6, few()).unwrap_err(), MintError::TaskSpent);
    let task = TaskName::parse("another").unwrap();
    assert_eq!(bench.minter.live_of(&few().minter), 1);
    assert!(mint(7, NewLease { task, ..few() }).is_ok());
}

#[test]
fn what_its_holder_makes_of_a_lease_leaves_the_last_place_to_the_minter_and_counts_no_longer_than_it_lives() {
    let (bench, few) = (bench(), terms());
    let (minter, root) = (&few.minter, bench.mint(9, few.clone()));
    let by_holder = |max: usize, number| {
        let terms = NewLease { minter_live_max: max, ..few.clone() };
        let delegating = Delegating { children_max: 9, by_holder: true };
        bench.minter.delegate(&root, delegating, bench.minter.next_id(), &nonce(number), terms)
    };
    assert!(!bench.minter.has_room(minter, Some(&root), 2) && bench.minter.has_room(minter, None, 2));
    assert_eq!(by_holder(2, 10).unwrap_err(), DelegateError::Mint(MintError::MinterFull));
    let child = by_holder(3, 10).unwrap();
    assert_eq!(by_holder(3, 11).unwrap_err(), DelegateError::Mint(MintError::MinterFull), "one has half at most");
    assert!(bench.minter.revoke(child.id(), EndCause::Revoked, "test"));
    assert!(by_holder(3, 12).is_ok());
}
