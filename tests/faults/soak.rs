//! Minutes of mixed traffic with some faults and constant minting: what went wrong, and what grew.
//!
//! - `workers`: who asks for what

mod workers;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::options::Options;
use crate::scene::verify;
use crate::support::sockets::descriptors;
use crate::support::websocket::{Socket, yes};
use crate::support::{FakeUpstream, TestSidecar, canary, leak, policies};

/// Connections to upstream that may stay open, and a little.
const DESCRIPTORS_MORE_MAX: usize = 24;

/// How much of a file is searched at a time.
const SEARCHED_AT_ONCE: usize = 1 << 20;

/// What all workers share.
pub struct Soak {
    pub secret: String,
    pub sidecar: TestSidecar,
    pub stop: AtomicBool,
    pub requests: AtomicU64,
    /// Faults that were meant, and came out as they should.
    pub faults: AtomicU64,
    pub minted: AtomicU64,
    /// What should not have been, by kind.
    pub errors: Mutex<BTreeMap<String, u64>>,
}

impl Soak {
    pub fn error(&self, kind: &str) {
        *self.errors.lock().expect("not poisoned").entry(kind.to_owned()).or_default() += 1;
    }

    pub fn is_over(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

/// So many minutes; true if nothing was wrong.
pub async fn run(minutes: f64, options: &Options) -> bool {
    let api = FakeUpstream::start(&["api.test"]).await;
    let sockets = FakeUpstream::speaking_freely(&["ws.test"], |head, mut wire| async move {
        use tokio::io::AsyncWriteExt;
        let _ = wire.write_all(yes(&head, "").as_bytes()).await;
        let _ = wire.flush().await;
        let mut socket = Socket::server(wire);
        while let Some((opcode, payload)) = socket.hear().await {
            if socket.send(true, opcode, &payload).await.is_err() {
                break;
            }
        }
    })
    .await;
    let soak = Arc::new(start(&api, &sockets).await);
    workers::warm_up(&soak).await;
    let pid = soak.sidecar.pid();
    let descriptors_before = descriptors(pid).unwrap_or_default();
    let workers = workers::start(&soak);
    let samples = watch(&soak, &[&api, &sockets], Duration::from_secs_f64(minutes * 60.0)).await;
    soak.stop.store(true, Ordering::SeqCst);
    for worker in workers {
        if worker.await.is_err() {
            soak.error("a worker panicked");
        }
    }
    let descriptors_after = settled(pid, descriptors_before).await;
    judge(&soak);
    report(&soak, &samples, (descriptors_before, descriptors_after), options)
}

async fn start(api: &FakeUpstream, sockets: &FakeUpstream) -> Soak {
    let secret = canary();
    let service = r#"
[services.ws]
hosts = ["ws.test"]
credential = "api"
slots = ["bearer"]
upstream_ca = "{dir}/ws.pem"
[[services.ws.scopes]]
name = "read"
risk = "low"
allow = ["WEBSOCKET /{*path}"]

[agents.worker]"#;
    let policy = policies::ONE_API
        .replacen("hosts = [\"api.test\"]", "hosts = [\"api.test\", \"ws.test\"]", 1)
        .replace("\n[agents.worker]", service)
        .replace("grants = { api", "grants = { ws = [\"read\"], api");
    let sidecar = TestSidecar::with_policy(&policy)
        .upstream(&["api.test"], "api", api)
        .upstream(&["ws.test"], "ws", sockets)
        .environment("API_KEY", &secret)
        .start()
        .await;
    Soak {
        secret,
        sidecar,
        stop: AtomicBool::new(false),
        requests: AtomicU64::new(0),
        faults: AtomicU64::new(0),
        minted: AtomicU64::new(0),
        errors: Mutex::default(),
    }
}

/// Resident memory over time: seconds and KiB.
async fn watch(soak: &Soak, upstreams: &[&FakeUpstream], time: Duration) -> Vec<(f64, f64)> {
    let begun = Instant::now();
    let mut samples = Vec::new();
    while begun.elapsed() < time {
        tokio::time::sleep(Duration::from_secs(1).min(time)).await;
        samples.push((begun.elapsed().as_secs_f64(), soak.sidecar.status("VmRSS") as f64));
        upstreams.iter().for_each(|upstream| upstream.forget());
    }
    samples
}

/// Descriptors once connections are gone.
async fn settled(pid: u32, before: usize) -> usize {
    for _ in 0..100 {
        if descriptors(pid).is_none_or(|now| now <= before) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    descriptors(pid).unwrap_or_default()
}

/// What the sidecar wrote holds no credential, and its audit holds together.
fn judge(soak: &Soak) {
    for name in ["audit.jsonl", "stderr.log", "stdout.log"] {
        search(&soak.secret, &soak.sidecar.path(name), name);
    }
    verify(&soak.sidecar.path("audit.jsonl"));
}

/// Looks for the credential in a file of any length.
fn search(secret: &str, path: &Path, name: &str) {
    const OVERLAP: usize = 1024;
    let mut file = std::fs::File::open(path).expect("a file");
    let (mut kept, mut chunk) = (Vec::new(), vec![0; SEARCHED_AT_ONCE]);
    while let Ok(count @ 1..) = file.read(&mut chunk) {
        kept.extend_from_slice(&chunk[..count]);
        leak::assert_clean(secret, &kept, name);
        kept.drain(..kept.len().saturating_sub(OVERLAP));
    }
}

/// KiB in a minute, by least squares, without the first fifth.
fn slope(samples: &[(f64, f64)]) -> f64 {
    let steady = &samples[samples.len() / 5..];
    let count = steady.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| steady.iter().map(of).sum::<f64>() / count;
    let (time, size) = (mean(|sample| sample.0), mean(|sample| sample.1));
    let above: f64 = steady.iter().map(|(at, rss)| (at - time) * (rss - size)).sum();
    let below: f64 = steady.iter().map(|(at, _)| (at - time).powi(2)).sum();
    if below > 0.0 { above / below * 60.0 } else { 0.0 }
}

/// Whether there was traffic, nothing went wrong, and no descriptors were left behind.
fn is_well(errors: &BTreeMap<String, u64>, requests: u64, (before, after): (usize, usize)) -> bool {
    errors.is_empty() && requests > 0 && after <= before + DESCRIPTORS_MORE_MAX
}

/// Whether what can go wrong is seen.
pub fn sees_breaches() {
    let wrong = BTreeMap::from([("planted".to_owned(), 1)]);
    assert!(is_well(&BTreeMap::new(), 1, (10, 12)));
    assert!(!is_well(&wrong, 1, (10, 12)) && !is_well(&BTreeMap::new(), 0, (10, 12)));
    assert!(!is_well(&BTreeMap::new(), 1, (10, 1000)));
    let (secret, directory) = (canary(), tempfile::tempdir().expect("a directory"));
    let path = directory.path().join("long");
    // Across two reads.
    let (mut text, half) = (vec![b'x'; SEARCHED_AT_ONCE], secret.len() / 2);
    text.truncate(SEARCHED_AT_ONCE - half);
    std::fs::write(&path, &text).expect("a file");
    search(&secret, &path, "planted");
    text.extend_from_slice(secret.as_bytes());
    std::fs::write(&path, &text).expect("a file");
    assert!(std::panic::catch_unwind(|| search(&secret, &path, "planted")).is_err(), "a leak was not seen");
}

fn report(soak: &Soak, samples: &[(f64, f64)], descriptors: (usize, usize), options: &Options) -> bool {
    let errors = soak.errors.lock().expect("not poisoned").clone();
    let count = |number: &AtomicU64| number.load(Ordering::SeqCst);
    let all_well = is_well(&errors, count(&soak.requests), descriptors);
    let rss = |at: Option<&(f64, f64)>| at.map_or(0.0, |(_, rss)| *rss);
    let said = json!({
        "ok": all_well,
        "minutes": samples.last().map_or(0.0, |(at, _)| at / 60.0),
        "requests": count(&soak.requests),
        "faults": count(&soak.faults),
        "minted": count(&soak.minted),
        "errors": errors,
        "rss_kib": {"first": rss(samples.first()), "last": rss(samples.last()), "slope_per_minute": slope(samples)},
        "descriptors": {"before": descriptors.0, "after": descriptors.1},
    });
    if options.json {
        println!("{said}");
    } else {
        println!("{said:#}");
    }
    all_well
}
