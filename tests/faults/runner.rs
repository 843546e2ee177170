//! Runs kinds of fault, some at a time, and counts.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::PanicHookInfo;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use crate::client::Protocol;
use crate::kinds::{self, Case, Kind};
use crate::options::Options;

/// Longest that one case may take; each of its steps has a bound of its own, far below.
const CASE_MAX: Duration = Duration::from_secs(180);
/// Failures that are told in full, per kind.
const TOLD_MAX: usize = 3;

/// How often it is said how far a run is.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// Before the name of a kind in the rows of the catalogue of attacks.
const ROWS_PREFIX: &str = "faults::";

/// What the last panic of each thread said, with its place.
static PANICS: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());

/// What one kind came to.
#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
    told: Vec<String>,
}

/// Keeps a panic's message for the report of its case.
pub fn note_panic(info: &PanicHookInfo<'_>) {
    let thread = format!("{:?}", std::thread::current().id());
    PANICS.lock().unwrap_or_else(PoisonError::into_inner).insert(thread, info.to_string());
}

/// All cases; true if none failed.
pub async fn run(options: &Options) -> bool {
    let kinds = wanted(options);
    if options.list {
        kinds.iter().for_each(|kind| println!("{}: test", kind.name));
        return true;
    }
    let strangers = strangers();
    if !strangers.is_empty() {
        eprintln!("tests/attacks/rows name kinds that there are not: {strangers:?}");
        return false;
    }
    eprintln!("{} kinds of fault, {} round(s), --seed {}", kinds.len(), options.rounds, options.seed);
    let begun = Instant::now();
    let tallies = all(options, &kinds).await;
    report(options, &tallies, begun.elapsed())
}

/// What rows of the catalogue name and is no kind.
fn strangers() -> Vec<String> {
    let known: BTreeSet<String> = kinds::all().into_iter().map(|kind| format!("{ROWS_PREFIX}{}", kind.name)).collect();
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/attacks/rows");
    let mut strangers = Vec::new();
    for entry in std::fs::read_dir(directory).expect("the rows") {
        let text = std::fs::read_to_string(entry.expect("a file").path()).expect("text");
        let quoted = text.split('"').filter(|quoted| quoted.starts_with(ROWS_PREFIX));
        strangers.extend(quoted.filter(|name| !known.contains(*name)).map(str::to_owned));
    }
    strangers
}

fn wanted(options: &Options) -> Vec<Arc<Kind>> {
    let is_wanted = |kind: &Kind| options.only.is_empty() || options.only.iter().any(|name| kind.name.contains(name));
    kinds::all().into_iter().filter(is_wanted).map(Arc::new).collect()
}

async fn all(options: &Options, kinds: &[Arc<Kind>]) -> BTreeMap<String, Tally> {
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    let mut under_way = JoinSet::new();
    let cases = cases(options, kinds);
    let mut progress = Progress::new(cases.len());
    for (kind, case) in cases {
        if under_way.len() >= options.jobs {
            settle(&mut tallies, under_way.join_next().await);
            progress.tell(&tallies);
        }
        under_way.spawn(one(kind, case, CASE_MAX));
    }
    while let Some(done) = under_way.join_next().await {
        settle(&mut tallies, Some(done));
        progress.tell(&tallies);
    }
    tallies
}

/// Says now and then how far a long run is.
struct Progress {
    cases: usize,
    begun: Instant,
    told: Instant,
}

impl Progress {
    fn new(cases: usize) -> Self {
        let begun = Instant::now();
        Self { cases, begun, told: begun }
    }

    fn tell(&mut self, tallies: &BTreeMap<String, Tally>) {
        if self.told.elapsed() < PROGRESS_EVERY {
            return;
        }
        self.told = Instant::now();
        let failed: u64 = tallies.values().map(|tally| tally.failed).sum();
        let done = failed + tallies.values().map(|tally| tally.passed).sum::<u64>();
        let took = self.begun.elapsed().as_secs();
        let left = (self.cases as u64).saturating_sub(done) * took / done.max(1);
        eprintln!("{done} of {} cases in {took} s, {failed} failed; {left} s to go at this pace", self.cases);
    }
}

/// Every kind with every protocol, round by round; in a short round, kinds to which that adds little take turns.
fn cases(options: &Options, kinds: &[Arc<Kind>]) -> Vec<(Arc<Kind>, Case)> {
    let mut cases = Vec::new();
    for (number, kind) in kinds.iter().enumerate() {
        let both = [Protocol::H1, Protocol::H2];
        let is_short = kind.is_alike && !options.thorough;
        let protocols = if is_short { &both[number % 2..=number % 2] } else { &both[..] };
        let rounds = if kind.is_kill { options.kills.div_ceil(2) } else { options.rounds };
        for round in 0..rounds {
            for &protocol in protocols {
                // The same whatever else is run, so that a failure can be run again by its seed and name.
                let bytes = format!("{} {} {protocol} {round}", options.seed, kind.name);
                let digest = ring::digest::digest(&ring::digest::SHA256, bytes.as_bytes());
                let seed = u64::from_le_bytes(digest.as_ref()[..8].try_into().expect("eight bytes"));
                cases.push((kind.clone(), Case { protocol, seed }));
            }
        }
    }
    cases
}

type Done = (String, Case, Result<(), String>);

/// One case in a task of its own, so that its panic is its own.
async fn one(kind: Arc<Kind>, case: Case, time_max: Duration) -> Done {
    let task = tokio::spawn(tokio::time::timeout(time_max, (kind.run)(case)));
    let outcome = match task.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(format!("it hung for {time_max:?}")),
        Err(error) => Err(message(error)),
    };
    (kind.name.clone(), case, outcome)
}

/// What a case's panic said, and where.
pub fn message(error: tokio::task::JoinError) -> String {
    let Ok(payload) = error.try_into_panic() else { return "cancelled".to_owned() };
    let text = payload.downcast_ref::<String>().cloned();
    let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
    // The place is in what the hook noted.
    let panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
    panics.values().find(|noted| noted.contains(&text)).cloned().unwrap_or(text)
}

fn settle(tallies: &mut BTreeMap<String, Tally>, done: Option<Result<Done, tokio::task::JoinError>>) {
    let Some(done) = done else { return };
    if let Some(told) = count(tallies, &done.expect("a case's keeper never panics")) {
        eprintln!("{told}");
    }
}

/// Counts a case; gives what is to be told of it.
fn count(tallies: &mut BTreeMap<String, Tally>, (name, case, outcome): &Done) -> Option<String> {
    let tally = tallies.entry(name.clone()).or_default();
    let Err(why) = outcome else {
        tally.passed += 1;
        return None;
    };
    tally.failed += 1;
    let told = format!("FAILED: {name} over {}: {why}", case.protocol);
    (tally.told.len() < TOLD_MAX).then(|| tally.told.push(told.clone()))?;
    Some(told)
}

/// Whether something was run, and nothing failed.
fn is_well(tallies: &BTreeMap<String, Tally>) -> bool {
    tallies.values().all(|tally| tally.failed == 0) && tallies.values().any(|tally| tally.passed > 0)
}

fn report(options: &Options, tallies: &BTreeMap<String, Tally>, took: Duration) -> bool {
    let sum = |of: fn(&Tally) -> u64| tallies.values().map(of).sum::<u64>();
    let (passed, failed) = (sum(|tally| tally.passed), sum(|tally| tally.failed));
    if options.json {
        let kind = |(name, tally): (&String, &Tally)| json!({"kind": name, "passed": tally.passed, "failed": tally.failed, "told": tally.told});
        let kinds: Vec<_> = tallies.iter().map(kind).collect();
        let total = json!({"passed": passed, "failed": failed});
        println!("{}", json!({"seed": options.seed, "seconds": took.as_secs(), "kinds": kinds, "total": total}));
    } else {
        for (name, tally) in tallies {
            // As cargo's own tests say it; the catalogue of attacks reads it.
            println!("test {ROWS_PREFIX}{name} ... {}", if tally.failed == 0 { "ok" } else { "FAILED" });
        }
        println!("{} kinds of fault in {} s", tallies.len(), took.as_secs());
        println!("{passed} passed, {failed} failed, 0 skipped");
    }
    is_well(tallies)
}

/// Whether a case that ends well, one that panics and one that hangs come out as they must.
pub async fn tells_cases_apart(case: Case) {
    let (well, panics, hangs) = ("ends well", "panics", "hangs");
    let kinds = [
        kinds::kind(well, |_| async {}),
        kinds::kind(panics, |_| async { panic!("planted") }),
        kinds::kind(hangs, |_| std::future::pending()),
    ];
    let mut tallies = BTreeMap::new();
    for kind in kinds.map(Arc::new) {
        // Long for the first two, and over at once for the last.
        let time_max = if kind.name == hangs { Duration::from_millis(1) } else { CASE_MAX };
        let done = one(kind, case, time_max).await;
        let said = done.2.clone().err().unwrap_or_default();
        let expected = BTreeMap::from([(well, ""), (panics, "planted"), (hangs, "it hung")])[done.0.as_str()];
        assert!(said.contains(expected) && said.is_empty() == expected.is_empty(), "{}: {said}", done.0);
        count(&mut tallies, &done);
    }
    let counts: Vec<_> = tallies.values().map(|tally: &Tally| (tally.passed, tally.failed)).collect();
    assert_eq!(counts, [(1, 0), (0, 1), (0, 1)]);
    assert!(!is_well(&tallies), "failures pass");
    tallies.retain(|name, _| name == well);
    assert!(is_well(&tallies), "a success fails");
    assert!(!is_well(&BTreeMap::new()), "nothing at all passes");
}
