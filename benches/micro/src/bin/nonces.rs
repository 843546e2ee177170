//! A million live nonces in a process of their own: what they weigh, how fast they are made and found, and what a sweep
//! of half of them does to whoever looks one up meanwhile. Prints one JSON object.

use std::fs;
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use micro::clock::Ahead;
use micro::minting::{self, People, SHORT};
use micro::pauses::{Cores, Failure, Pauses, Queue, Random, Restless, Texts, nanoseconds, stay_on};
use micro::policies::{Question, policy};
use micro::steps::Steps;
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;
use valetkey::lease::{Config, Found, Lease, Lookup, Store};
use valetkey::model::NonceHash;
use valetkey::model::nonce::NONCE_BYTES;

const LIVE: usize = 1_000_000;
/// Room beside that for a few nonces.
const SPARE: usize = 10_000;
const LOOKUPS: usize = 1_000_000;
const DECISIONS: u32 = 400_000;
const RULES: usize = 20;
const MANY_SERVICES: usize = 1000;
/// A sweep that takes longer than this has stopped.
const SWEEP_MAX: Duration = Duration::from_secs(120);

const HELP: &str = "\
usage: nonces [--live N] [--plain]

Mints N nonces (1,000,000) in this process as the control API does it, and prints one JSON object. --plain: without
labels, limits of uses and what else a minter may say and mostly does not.

  live                         how many
  rss_mib, bytes_each          what they added to the resident memory, in all and each
  size_of_lease                of that, the lease itself without its counters of references
  mints_per_second             on one thread: accessor, randomness, nonce, hash, terms, store
  lookup_p50_ns, _p99_, _p999_ of random live nonces by their text, hash and both clocks included
  sweep_seconds, sweep_ended   the product's sweep of every second nonce, all due at one moment
  sweep_pause_max_us           the longest lookup of a live nonce on another thread meanwhile
  sweep_mint_pause_max_us      the longest mint there
  sweep_awake_pause_max_us     the longest of both, as far as it is ours: in CPU time where this thread never left its core,
                               or else without the time in which it or the sweeper's was ready and had no core
  sweep_awake_over_1_ms        how many of both took more than a millisecond even so
  sweep_step_max_us            the longest that the sweep kept its thread at a time, in CPU time of its own: in the product
                               the control API waits so long, which has one thread with the sweep, and agents have others
  sweep_steps_over_1_ms        how many such steps took more than a millisecond; sweep_steps: of how many
  sweep_over_1_ms              how many of both took more than a millisecond; sweep_operations: of how many
  no_sweep_…                   the same for as long without a sweep: what the machine does by itself
  neighbour_…                  the same beside a thread that counts and touches nothing of the store: what the machine
                               does by itself when both cores are busy, as they are during a sweep
  decide_one_ns                a decision with 1 service x 20 rules, mean
  decide_thousand_ns           with 1,000 services x 20 rules, each asked in turn

The sweep needs two cores, and each of its two threads stays on one. On a busy machine the pauses are those of its
scheduler, on a virtual one those of its hypervisor: compare with a neighbour.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["--help" | "-h"] => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        [] => measure(LIVE, People::new()),
        ["--plain"] => measure(LIVE, People::plain()),
        ["--live", number] => number.parse().map_err(Failure::from).and_then(|live| measure(live, People::new())),
        ["--live", number, "--plain"] => {
            number.parse().map_err(Failure::from).and_then(|live| measure(live, People::plain()))
        }
        _ => Err("usage: nonces [--live N] [--plain]".into()),
    };
    match outcome {
        Ok(figures) => {
            println!("{}", Value::Object(figures));
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn measure(live: usize, people: People) -> Result<Map<String, Value>, Failure> {
    if live < 2 {
        return Err("fewer than two nonces cannot be swept by halves".into());
    }
    let clock = Arc::new(Ahead::default());
    // Little room for more, as in the product: fewer are minted during the sweep than it ends.
    let config = Config { live_max: live.saturating_add(live / 8 + SPARE), ..Config::default() };
    let store = Store::new(config, clock.clone());
    let mut figures = Map::new();
    // The thread that mints is the one that sweeps, as in the product; this one is as those of the agents' connections.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build()?;
    let cores = Cores::of_this_process()?;
    runtime.block_on(runtime.spawn(async move { stay_on(cores.minter) }))??;
    stay_on(cores.reader)?;
    let people = Arc::new(people);
    let minting = mint_all(store.clone(), people.clone(), live);
    let (texts, minted) = runtime.block_on(runtime.spawn(minting))??;
    figures.extend(minted);
    look_up(&store.lookup(), &texts, &mut figures)?;
    sweep(&runtime, cores, &store, &clock, &people, &texts, &mut figures)?;
    drop(store);
    decide(&mut figures)?;
    Ok(figures)
}

/// Fills the store; what that took, and what it weighs.
async fn mint_all(store: Arc<Store>, people: Arc<People>, live: usize) -> Result<(Texts, Map<String, Value>), Failure> {
    let (minter, mut figures) = (store.minter(), Map::new());
    // Written to before the memory is looked at, so that the texts are no part of what leases weigh.
    let mut texts: Texts = vec![[b'-'; NONCE_BYTES]; live];
    let before = rss_kib()?;
    let start = Instant::now();
    for (number, text) in (0..).zip(&mut texts) {
        let (nonce, _) = minting::mint(&minter, &people, number)?;
        text.copy_from_slice(nonce.as_str().as_bytes());
    }
    let seconds = start.elapsed().as_secs_f64();
    let added = rss_kib()?.saturating_sub(before);
    figures.insert("live".into(), json!(store.live_count()));
    figures.insert("rss_mib".into(), rounded(added as f64 / 1024.0));
    figures.insert("bytes_each".into(), rounded(added as f64 * 1024.0 / live as f64));
    figures.insert("size_of_lease".into(), json!(size_of::<Lease>()));
    figures.insert("mints_per_second".into(), json!((live as f64 / seconds).round()));
    Ok((texts, figures))
}

/// Random live nonces by their text, as it comes out of a request.
fn look_up(lookup: &Lookup, texts: &Texts, figures: &mut Map<String, Value>) -> Result<(), Failure> {
    let mut times = Histogram::<u64>::new(3)?;
    let mut random = Random::default();
    for _ in 0..LOOKUPS {
        // A copy: the proxy has just read it off the wire.
        let text = black_box(texts[random.below(texts.len())]);
        let start = Instant::now();
        let found = lookup.find(&NonceHash::of(&text));
        times.record(nanoseconds(start.elapsed()))?;
        if !matches!(found, Found::Live(_)) {
            return Err("a live nonce was not found".into());
        }
    }
    for (name, quantile) in [("lookup_p50_ns", 0.5), ("lookup_p99_ns", 0.99), ("lookup_p999_ns", 0.999)] {
        figures.insert(name.into(), json!(times.value_at_quantile(quantile)));
    }
    Ok(())
}

/// Lets the time of every second nonce be over, and the product's own sweep end them on a thread of its own.
fn sweep(
    runtime: &Runtime,
    cores: Cores,
    store: &Arc<Store>,
    clock: &Ahead,
    people: &People,
    texts: &Texts,
    figures: &mut Map<String, Value>,
) -> Result<(), Failure> {
    let due = texts.len() as u64 / 2;
    let ended = Arc::new(AtomicU64::new(0));
    let count = ended.clone();
    store.on_end(Box::new(move |_, _, _| {
        count.fetch_add(1, Ordering::Relaxed);
    }));
    // Of the runtime's one thread, which sweeps.
    let both = async { [Queue::of_this_thread(), Queue::of_this_thread()] };
    let [first, second] = runtime.block_on(runtime.spawn(both))?;
    let mut restless = Restless::new(store, people, texts);
    clock.advance(SHORT + Duration::from_secs(1));
    let start = Instant::now();
    let steps = Steps::default();
    let sweeper = runtime.spawn(steps.of(store.clone().sweep()));
    let during = restless.run(first, || ended.load(Ordering::Relaxed) >= due || start.elapsed() > SWEEP_MAX)?;
    let took = start.elapsed();
    // It sleeps from here on.
    let quiet = Instant::now();
    let after = restless.run(second, || quiet.elapsed() >= took)?;
    sweeper.abort();
    if ended.load(Ordering::Relaxed) != due {
        return Err("the sweep did not end all that were due".into());
    }
    figures.insert("sweep_seconds".into(), rounded(took.as_secs_f64()));
    figures.insert("sweep_ended".into(), json!(due));
    figures.insert("sweep_step_max_us".into(), rounded(steps.longest()));
    figures.insert("sweep_steps".into(), json!(steps.count()));
    figures.insert("sweep_steps_over_1_ms".into(), json!(steps.long()));
    tell("sweep", &during, figures);
    tell("no_sweep", &after, figures);
    tell("neighbour", &beside_a_neighbour(&mut restless, took, cores)?, figures);
    Ok(())
}

/// For so long beside a thread that is busy with itself.
fn beside_a_neighbour(restless: &mut Restless<'_>, long: Duration, cores: Cores) -> Result<Pauses, Failure> {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (tell, told) = std::sync::mpsc::channel();
        let is_over = &is_over;
        scope.spawn(move || {
            // Where the sweeper was; that it cannot be kept there would have shown already.
            let _ = stay_on(cores.minter);
            let _ = tell.send(Queue::of_this_thread());
            let mut count = 0_u64;
            while !is_over.load(Ordering::Relaxed) {
                count = black_box(count.wrapping_add(1));
            }
        });
        let start = Instant::now();
        let pauses =
            told.recv().map_err(Failure::from).and_then(|queue| restless.run(queue, || start.elapsed() >= long));
        is_over.store(true, Ordering::Relaxed);
        pauses
    })
}

fn tell(prefix: &str, pauses: &Pauses, figures: &mut Map<String, Value>) {
    let microseconds = |histogram: &Histogram<u64>| rounded(histogram.max() as f64 / 1000.0);
    figures.insert(format!("{prefix}_pause_max_us"), microseconds(&pauses.lookups));
    figures.insert(format!("{prefix}_mint_pause_max_us"), microseconds(&pauses.mints));
    figures.insert(format!("{prefix}_awake_pause_max_us"), rounded(pauses.awake_max.as_secs_f64() * 1e6));
    figures.insert(format!("{prefix}_awake_over_1_ms"), json!(pauses.awake_long));
    figures.insert(format!("{prefix}_over_1_ms"), json!(pauses.long));
    figures.insert(format!("{prefix}_operations"), json!(pauses.lookups.len() + pauses.mints.len()));
}

fn decide(figures: &mut Map<String, Value>) -> Result<(), Failure> {
    for (name, services) in [("decide_one_ns", 1), ("decide_thousand_ns", MANY_SERVICES)] {
        let (policy, questions) = (policy(services, RULES), Question::all(services, RULES));
        if !questions.iter().all(|question| question.put(&policy)) {
            return Err("the policy refuses what it allows".into());
        }
        let start = Instant::now();
        for question in questions.iter().cycle().take(DECISIONS as usize) {
            black_box(black_box(question).put(black_box(&policy)));
        }
        figures.insert(name.into(), rounded(nanoseconds(start.elapsed()) as f64 / f64::from(DECISIONS)));
    }
    Ok(())
}

/// Resident memory of this process, in KiB.
fn rss_kib() -> Result<u64, Failure> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS in /proc/self/status")?;
    Ok(line.split_whitespace().next().ok_or("no figure of VmRSS")?.parse()?)
}

/// To a tenth; of small figures to a thousandth.
fn rounded(figure: f64) -> Value {
    let places = if figure < 10.0 { 1000.0 } else { 10.0 };
    json!((figure * places).round() / places)
}
