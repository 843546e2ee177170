//! Requests race revocations, on two threads: one revokes lease after lease, the other asks of whichever is revoked now.
//!
//! `VALETKEY_TEST_ROUNDS` sets how many rounds there are: a million takes a minute or two.

use std::collections::VecDeque;

use super::*;

/// Rounds, if nobody asks for more.
const ROUNDS: u64 = 20_000;
/// Of these, between two meetings of the threads.
const BATCH: u64 = 64;
/// Exchanges of a round that are looked at again after its end: the last ones, which came closest.
const KEPT: usize = 8;
/// Looks at the other one's place before the processor is left to somebody.
const SPINS: u32 = 200;

/// How far each of the two threads has come; each waits for the other.
#[derive(Default)]
struct Meeting([AtomicUsize; 2]);

impl Meeting {
    fn meet(&self, own: usize, step: usize) {
        self.0[own].store(step, Ordering::SeqCst);
        let mut looks = 0;
        while self.0[1 - own].load(Ordering::SeqCst) < step {
            looks += 1;
            if looks < SPINS { std::hint::spin_loop() } else { thread::yield_now() }
        }
    }
}

impl Meeting {
    fn has_left(&self, who: usize) -> bool {
        self.0[who].load(Ordering::SeqCst) == usize::MAX
    }
}

/// Whoever fails leaves nobody waiting.
struct Leaving<'a>(&'a Meeting, usize);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.0[self.1].store(usize::MAX, Ordering::SeqCst);
    }
}

/// A lease that is revoked while it is asked of.
struct Round {
    number: u64,
    lease: Arc<Lease>,
    /// Set once the revocation has returned.
    is_revoked: AtomicBool,
    /// Exchanges that went out.
    members: Mutex<VecDeque<Membership>>,
}

/// Rounds between two meetings, so that the threads wait seldom for each other.
struct Batch {
    rounds: Vec<Round>,
    /// Which of them is being revoked.
    at: AtomicUsize,
}

/// How far a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reached {
    Nothing,
    Lease,
    Use,
    Exchange,
    Upstream,
}

impl Round {
    /// The steps of a request, as the proxy takes them. None of them that begins after the revocation succeeds.
    fn request(&self, bench: &Bench) -> Reached {
        let late = || self.is_revoked.load(Ordering::SeqCst);
        let is_late = late();
        let lease = match bench.find(self.number) {
            Found::Live(lease) => lease,
            Found::Dead(tombstone) => {
                assert_eq!(tombstone.cause, EndCause::Revoked);
                return Reached::Nothing;
            }
            Found::Canary(_) | Found::Unknown => panic!("between the index and the tombstone"),
        };
        assert!(!is_late, "found after the revocation");
        let is_late = late();
        let Ok(mut reservation) = reserve(&lease) else { return Reached::Lease };
        assert!(!is_late, "a use after the revocation");
        let is_late = late();
        let Some(member) = lease.join() else { return Reached::Use };
        assert!(!is_late, "joined after the revocation");
        let is_late = late();
        if member.is_cut() {
            return Reached::Exchange;
        }
        assert!(!is_late, "sent after the revocation");
        reservation.spend();
        let mut members = self.members.lock();
        if members.len() == KEPT {
            members.pop_front();
        }
        members.push_back(member);
        Reached::Upstream
    }

    /// One of the ways to end it.
    fn revoke(&self, bench: &Bench) {
        let own = self.lease.id();
        // Where there is one, it is the nonce above that is revoked.
        let above = self.lease.parent().map_or(own, |parent| parent.id());
        if self.number % 8 < 4 {
            assert!(bench.minter.revoke(above, EndCause::Revoked, "ana"));
        } else {
            assert!(bench.minter.revoke_where(&|lease| lease.id() == above, EndCause::Revoked, "ana") >= 1);
        }
        self.is_revoked.store(true, Ordering::SeqCst);
    }

    /// Both are done.
    fn settle(&self, bench: &Bench) {
        assert_eq!((self.request(bench), self.lease.ended()), (Reached::Nothing, Some(EndCause::Revoked)));
        assert!(reserve(&self.lease).is_err() && self.lease.join().is_none());
        let members = self.members.lock();
        assert!(members.iter().all(|member| member.is_cut() && is_woken(member)), "an exchange goes on");
    }
}

impl Batch {
    /// One in four is a child.
    fn of(bench: &Bench, first: u64, count: u64) -> Self {
        let make = |number: u64| {
            let lease = if number % 4 < 3 {
                bench.mint(number, terms())
            } else {
                let above = bench.mint(u64::MAX - number, terms());
                bench.minter.delegate(&above, by_minter(1), bench.minter.next_id(), &nonce(number), terms()).unwrap()
            };
            Round { number, lease, is_revoked: AtomicBool::default(), members: Mutex::default() }
        };
        Self { rounds: (first..first + count).map(make).collect(), at: AtomicUsize::default() }
    }

    fn revoke(&self, bench: &Bench) {
        for (at, round) in self.rounds.iter().enumerate() {
            self.at.store(at, Ordering::SeqCst);
            round.revoke(bench);
        }
        self.at.store(self.rounds.len(), Ordering::SeqCst);
    }

    /// All at once.
    fn revoke_all(&self, bench: &Bench) {
        assert!(bench.minter.revoke_all("ana") >= self.rounds.len());
        self.rounds.iter().for_each(|round| round.is_revoked.store(true, Ordering::SeqCst));
        self.at.store(self.rounds.len(), Ordering::SeqCst);
    }

    /// Asks of the one that is being revoked and of its neighbours, until all are; how far requests came, by rounds whose
    /// first refusal was there.
    fn ask(&self, bench: &Bench, meeting: &Meeting) -> [u64; 5] {
        let mut refused = [0; 5];
        let mut is_over = vec![false; self.rounds.len()];
        loop {
            let at = self.at.load(Ordering::SeqCst);
            if at == self.rounds.len() || meeting.has_left(0) {
                return refused;
            }
            let near = at.saturating_sub(1)..(at + 2).min(self.rounds.len());
            for (round, is_over) in self.rounds[near.clone()].iter().zip(&mut is_over[near]) {
                let reached = round.request(bench);
                if reached != Reached::Upstream && !*is_over && !round.members.lock().is_empty() {
                    refused[reached as usize] += 1;
                    *is_over = true;
                }
            }
        }
    }
}

#[test]
fn no_request_of_a_race_is_accepted_after_the_revocation() {
    let rounds = std::env::var("VALETKEY_TEST_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().expect("a number"));
    let bench = bench_of(Config { live_max: 2 * BATCH as usize, tombstone_life: HOUR, tombstones_max: 4096 });
    let (meeting, present) = (Meeting::default(), Mutex::new(None::<Arc<Batch>>));
    let batches = || (0..rounds).step_by(BATCH as usize).enumerate();
    let mut refused = [0; 5];
    thread::scope(|scope| {
        scope.spawn(|| {
            let _leaving = Leaving(&meeting, 0);
            for (number, first) in batches() {
                let batch = Arc::new(Batch::of(&bench, first, BATCH.min(rounds - first)));
                *present.lock() = Some(batch.clone());
                meeting.meet(0, 2 * number + 1);
                if number % 8 == 7 {
                    batch.revoke_all(&bench)
                } else {
                    batch.revoke(&bench)
                }
                meeting.meet(0, 2 * number + 2);
                batch.rounds.iter().for_each(|round| round.settle(&bench));
                assert_eq!(bench.store.live_count(), 0);
                bench.ended.lock().clear();
            }
        });
        let _leaving = Leaving(&meeting, 1);
        for (number, _) in batches() {
            meeting.meet(1, 2 * number + 1);
            let Some(batch) = present.lock().clone() else { break };
            for (all, here) in refused.iter_mut().zip(batch.ask(&bench, &meeting)) {
                *all += here;
            }
            meeting.meet(1, 2 * number + 2);
        }
    });
    let met: u64 = refused.iter().sum();
    println!(
        "{rounds} revocations, {met} of them between two requests; refused at look-up, use, joining, last look: {:?}",
        &refused[..4]
    );
}
