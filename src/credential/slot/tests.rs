use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::credential::source::{Loading, Pace};
use crate::model::Credential;

/// A source that gives what it is told to, when it is let.
struct Fake {
    answers: Mutex<Vec<Result<Loaded, Problem>>>,
    runs: AtomicUsize,
    gate: Semaphore,
}

struct FakeSource(Arc<Fake>, Pace);

impl Source for FakeSource {
    fn load(&self) -> Loading<'_> {
        Box::pin(async {
            self.0.runs.fetch_add(1, Ordering::SeqCst);
            self.0.gate.acquire().await.unwrap().forget();
            let answer = self.0.answers.lock().pop();
            answer.expect("a test that asks more often than it has answers")
        })
    }

    fn pace(&self) -> Pace {
        self.1
    }
}

struct Rig {
    fake: Arc<Fake>,
    clock: Arc<ManualClock>,
    slot: Arc<Slot>,
}

const SECOND: Duration = Duration::from_secs(1);
const EXEC_PACE: Pace = Pace { check_every: None, pause_max: Duration::from_secs(30), wait_max: SECOND };

impl Rig {
    fn new(pace: Pace, mut answers: Vec<Result<Loaded, Problem>>) -> Self {
        answers.reverse();
        let gate = Semaphore::new(answers.len());
        let fake = Arc::new(Fake { answers: Mutex::new(answers), runs: AtomicUsize::new(0), gate });
        let clock = ManualClock::new();
        let slot = Slot::sourced(label(), Box::new(FakeSource(Arc::clone(&fake), pace)), Arc::clone(&clock) as _);
        Self { fake, clock, slot }
    }

    fn closed(answers: Vec<Result<Loaded, Problem>>) -> Self {
        Self::closed_at(Pace { wait_max: Duration::from_secs(60), ..EXEC_PACE }, answers)
    }

    fn closed_at(pace: Pace, answers: Vec<Result<Loaded, Problem>>) -> Self {
        let rig = Self::new(pace, answers);
        rig.fake.gate.forget_permits(usize::MAX);
        rig
    }

    async fn version(&self) -> Result<u64, Unavailable> {
        self.slot.fetch().await.map(|versioned| versioned.version)
    }

    fn runs(&self) -> usize {
        self.fake.runs.load(Ordering::SeqCst)
    }
}

fn label() -> Label {
    let name = CredentialName::parse("stripe").unwrap();
    Label { name, source: "exec", subject: "command /bin/x".to_owned(), scrubbed: true, changes: Arc::default() }
}

fn loaded(text: &str, expires_at: Option<Deadline>) -> Result<Loaded, Problem> {
    let credential = Credential::parse(Zeroizing::new(text.as_bytes().to_vec())).unwrap();
    Ok(Loaded::text(credential, expires_at))
}

const FIRST: &str = "sk_live_first_0000";
const SECOND_ONE: &str = "sk_live_second_000";

#[tokio::test]
async fn ten_thousand_callers_make_one_load() {
    let rig = Rig::closed(vec![loaded(FIRST, None)]);
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..10_000 {
        let slot = Arc::clone(&rig.slot);
        callers.spawn(async move { slot.fetch().await.unwrap().version });
    }
    tokio::task::yield_now().await;
    rig.fake.gate.add_permits(1);
    let versions = callers.join_all().await;
    assert_eq!((versions.len(), versions.iter().max()), (10_000, Some(&1)));
    assert_eq!(rig.runs(), 1);
}

#[tokio::test]
async fn a_caller_that_goes_away_strands_nobody() {
    let rig = Rig::closed(vec![loaded(FIRST, None)]);
    let leader = tokio::spawn({
        let slot = Arc::clone(&rig.slot);
        async move { slot.fetch().await.is_ok() }
    });
    while rig.runs() == 0 {
        tokio::task::yield_now().await;
    }
    let follower = tokio::spawn({
        let slot = Arc::clone(&rig.slot);
        async move { slot.fetch().await.is_ok() }
    });
    tokio::task::yield_now().await;
    leader.abort();
    assert!(leader.await.unwrap_err().is_cancelled());
    rig.fake.gate.add_permits(1);
    assert!(follower.await.unwrap());
    assert_eq!(rig.runs(), 1);
}

#[tokio::test]
async fn a_load_that_panics_is_a_failure_and_strands_nobody() {
    let rig = Rig::new(EXEC_PACE, Vec::new());
    rig.fake.gate.add_permits(1);
    assert!(rig.version().await.is_err());
    assert_eq!(rig.slot.health().problem.as_deref(), Some("command /bin/x was not read to the end"));
}

#[test]
fn a_runtime_that_shuts_down_leaves_no_lock_behind() {
    let rig = Rig::closed(vec![loaded(FIRST, None)]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let slot = Arc::clone(&rig.slot);
    runtime.spawn(async move { slot.fetch().await.is_ok() });
    runtime.block_on(tokio::task::yield_now());
    drop(runtime);
    assert!(rig.slot.state.lock().flight.is_none());
}

#[tokio::test]
async fn nobody_waits_for_ever() {
    let rig = Rig::closed_at(Pace { wait_max: Duration::from_millis(10), ..EXEC_PACE }, vec![loaded(FIRST, None)]);
    assert_eq!(rig.version().await, Err(Unavailable { retry_after: Some(PAUSE_MIN) }));
    rig.fake.gate.add_permits(1);
    while rig.slot.state.lock().flight.is_some() {
        tokio::task::yield_now().await;
    }
    assert_eq!(rig.version().await, Ok(1));
    assert_eq!(rig.runs(), 1, "the load that took too long was not begun twice");
}

#[tokio::test]
async fn a_value_that_expires_is_loaded_again_and_only_a_change_has_a_new_version() {
    let soon = |rig: &ManualClock| Some(rig.now().plus(SECOND));
    let rig = Rig::new(EXEC_PACE, Vec::new());
    let answers = vec![loaded(SECOND_ONE, None), loaded(FIRST, Some(rig.clock.now().plus(SECOND * 2)))];
    *rig.fake.answers.lock() = answers;
    rig.fake.answers.lock().push(loaded(FIRST, soon(&rig.clock)));
    rig.fake.gate.add_permits(3);
    assert_eq!((rig.version().await, rig.version().await, rig.runs()), (Ok(1), Ok(1), 1));
    rig.clock.advance(SECOND);
    assert_eq!((rig.version().await, rig.runs()), (Ok(1), 2), "another load, the same value");
    rig.clock.advance(SECOND);
    assert_eq!((rig.version().await, rig.runs()), (Ok(2), 3));
    rig.clock.advance(SECOND * 1_000_000);
    assert_eq!((rig.version().await, rig.runs()), (Ok(2), 3), "no expiry");
}

#[tokio::test]
async fn a_checked_source_is_asked_again_and_again() {
    let every = Duration::from_millis(250);
    let pace = Pace { check_every: Some(every), pause_max: every, wait_max: SECOND };
    let rig = Rig::new(pace, vec![loaded(FIRST, None), loaded(SECOND_ONE, None)]);
    assert_eq!((rig.version().await, rig.version().await, rig.runs()), (Ok(1), Ok(1), 1));
    rig.clock.advance(every);
    assert_eq!((rig.version().await, rig.runs()), (Ok(2), 2));
}

#[tokio::test]
async fn a_failure_ends_the_old_value_and_is_remembered() {
    let rig = Rig::new(EXEC_PACE, vec![Err(Problem::ExitCode(3)), Err(Problem::ExitCode(3)), loaded(FIRST, None)]);
    let Err(Unavailable { retry_after: Some(first) }) = rig.version().await else { panic!() };
    assert!(first >= PAUSE_MIN / 2 && first <= PAUSE_MIN);
    assert_eq!(rig.version().await, Err(Unavailable { retry_after: Some(first) }));
    assert_eq!(rig.runs(), 1, "within the pause nothing is tried");
    let health = rig.slot.health();
    assert_eq!((health.problem.as_deref(), health.version), (Some("command /bin/x ended with exit code 3"), 0));

    rig.clock.advance(first);
    let Err(Unavailable { retry_after: Some(second) }) = rig.version().await else { panic!() };
    assert!(second >= PAUSE_MIN && second <= PAUSE_MIN * 2, "{second:?}");
    rig.clock.advance(second);
    assert_eq!(rig.version().await, Ok(1));
    assert_eq!(rig.slot.health().problem, None);
}

#[tokio::test]
async fn the_old_value_is_not_used_when_the_new_one_is_bad() {
    let every = Duration::from_millis(250);
    let pace = Pace { check_every: Some(every), pause_max: every, wait_max: SECOND };
    let rig = Rig::new(pace, vec![loaded(FIRST, None), Err(Problem::NotRegular), loaded(FIRST, None)]);
    assert_eq!(rig.version().await, Ok(1));
    rig.clock.advance(every);
    assert!(rig.version().await.is_err());
    assert!(rig.slot.held.load().is_none(), "and it is wiped");
    rig.clock.advance(every);
    assert_eq!(rig.version().await, Ok(2), "nothing of it was kept to compare with");
}

#[tokio::test]
async fn too_short_or_over_is_refused() {
    let past = ManualClock::new().now().plus(Duration::ZERO);
    let rig = Rig::new(EXEC_PACE, vec![loaded("short", None), loaded(FIRST, Some(past))]);
    assert!(rig.version().await.is_err());
    assert!(rig.slot.health().problem.unwrap().contains("shorter than 16 bytes"));
    rig.clock.advance(SECOND);
    assert!(rig.version().await.is_err());
    assert!(rig.slot.health().problem.unwrap().contains("expired"));
    let unscrubbed = Label { scrubbed: false, ..label() };
    assert!(Slot::settled(unscrubbed, loaded("short", None), ManualClock::new()).fetch().await.is_ok());
}

#[test]
fn pauses_double_to_their_limit() {
    let seconds_30 = Duration::from_secs(30);
    let pauses: Vec<_> = [1, 2, 3, 7, 8, u32::MAX].iter().map(|&n| pause(n, seconds_30).as_millis()).collect();
    assert_eq!(pauses, [250, 500, 1000, 16_000, 30_000, 30_000]);
    assert_eq!(pause(9, PAUSE_MIN), PAUSE_MIN);
}

#[tokio::test]
async fn what_was_let_go_of_is_had_again_under_its_version_and_another_value_under_its_own() {
    let rig = Rig::new(EXEC_PACE, [FIRST, FIRST, SECOND_ONE].map(|text| loaded(text, None)).into());
    let (slot, changes) = (&rig.slot, || rig.slot.label.changes.count.load(Ordering::Acquire));
    assert!(!slot.release(), "there is nothing yet");
    assert_eq!((rig.version().await, rig.version().await, rig.runs()), (Ok(1), Ok(1), 1));
    for (runs, version) in [(2, 1), (3, 2)] {
        let before = changes();
        assert!(slot.release() && slot.is_released() && slot.loaded().is_none());
        assert!(!slot.release(), "once");
        assert_eq!((rig.version().await, rig.runs()), (Ok(version), runs));
        assert!(!slot.is_released() && changes() == before + 1, "whoever searches for it hears of it");
    }
}

#[tokio::test]
async fn what_cannot_be_had_again_is_kept() {
    let slot = Slot::settled(label(), loaded(FIRST, None), ManualClock::new());
    assert!(!slot.release() && slot.loaded().is_some());
}

#[tokio::test]
async fn what_fails_when_it_is_needed_again_is_refused() {
    let rig = Rig::new(EXEC_PACE, vec![loaded(FIRST, None), Err(Problem::Unset), loaded(FIRST, None)]);
    assert_eq!(rig.version().await, Ok(1));
    assert!(rig.slot.release());
    assert!(rig.version().await.is_err() && rig.slot.loaded().is_none());
    rig.clock.advance(SECOND);
    assert_eq!(rig.version().await, Ok(2), "it comes back after a failure");
}
