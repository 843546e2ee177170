//! What we mean to reach, each computed from the run; a figure that is not there is no success.

use super::report::Medians;
use super::scenarios::Figure;

/// Which way is better.
#[derive(Debug, Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// A goal and what came of it.
pub struct Goal {
    pub what: String,
    pub wanted: String,
    /// None where something that it compares was not measured.
    pub found: Option<f64>,
    pub is_met: bool,
}

impl Goal {
    fn new(what: &str, bound: Bound, unit: &str, found: Option<f64>) -> Self {
        let (sign, limit) = match bound {
            Bound::AtLeast(limit) => ("≥", limit),
            Bound::AtMost(limit) => ("≤", limit),
        };
        let is_met = found.is_some_and(|found| match bound {
            Bound::AtLeast(limit) => found >= limit,
            Bound::AtMost(limit) => found <= limit,
        });
        Self { what: what.to_owned(), wanted: format!("{sign} {limit} {unit}").trim_end().to_owned(), found, is_met }
    }
}

/// What is not a load: the sidecar's own figures.
#[derive(Debug, Default)]
pub struct Own {
    pub idle_mib: Option<f64>,
    pub binary_mb: Option<f64>,
    /// What `nonces` of the micro-benchmarks printed.
    pub nonces: Option<serde_json::Value>,
}

/// All goals, in the order in which they matter.
pub fn all(medians: &Medians, own: &Own) -> Vec<Goal> {
    use Bound::{AtLeast, AtMost};
    let of = |load: &str, name: &str, figure: Figure| medians.get(load)?.figure(name, figure);
    let ratio = |load: &str, to: &str, figure: Figure| Some(of(load, "valetkey", figure)? / of(load, to, figure)?);
    let rate = |load: &str, to: &str| ratio(load, to, Figure::Rate);
    let bytes = |load: &str| ratio(load, "floor", Figure::Throughput);
    let cpu = |load: &str| {
        let by = medians.get(load)?;
        Some(by.of("valetkey")?.cpu_each / by.of("floor")?.cpu_each)
    };
    let flat = |load: &str| Some(medians.get(load)?.of("valetkey")?.rss_growth_kib / 1024.0);
    let nonces = |name: &str| own.nonces.as_ref()?[name].as_f64();
    let resumed = || Some(of("resume", "valetkey", Figure::Rate)? / of("connect", "valetkey", Figure::Rate)?);
    let more = || Some(nonces("decide_thousand_ns")? - nonces("decide_one_ns")?);
    vec![
        Goal::new("keep-alive × 32", AtLeast(0.85), "of the floor", rate("keep-32", "floor")),
        Goal::new("keep-alive × 32", AtLeast(3.0), "of Envoy", rate("keep-32", "envoy")),
        Goal::new("keep-alive × 32", AtLeast(3.0), "of squid", rate("keep-32", "squid")),
        Goal::new("keep-alive × 32", AtLeast(50.0), "of mitmproxy", rate("keep-32", "mitmproxy")),
        Goal::new("keep-alive × 32, CPU a request", AtMost(1.25), "of the floor's", cpu("keep-32")),
        Goal::new("keep-alive × 256", AtLeast(0.85), "of the floor", rate("keep-256", "floor")),
        Goal::new("h2 to h2, 4 × 8 streams", AtLeast(0.85), "of the floor", rate("h2-4x8", "floor")),
        Goal::new(
            "added median, one connection",
            AtMost(1.5),
            "of the floor's",
            ratio("single", "floor", Figure::AddedMedian),
        ),
        Goal::new(
            "added median, one connection",
            AtMost(0.5),
            "of Envoy's",
            ratio("single", "envoy", Figure::AddedMedian),
        ),
        Goal::new("1,000 requests/s, p99", AtMost(1.5), "of the floor's", ratio("open-1000", "floor", Figure::Tail)),
        Goal::new("new connections", AtLeast(0.9), "of the floor", rate("connect", "floor")),
        Goal::new("new connections", AtLeast(1.2), "of Envoy", rate("connect", "envoy")),
        Goal::new("resumed connections", AtLeast(1.6), "of unresumed ones", resumed()),
        Goal::new("new hosts", AtLeast(0.9), "of the floor", rate("hosts", "floor")),
        Goal::new("10 MiB down", AtLeast(0.85), "of the floor", bytes("down-10m")),
        Goal::new("10 MiB up", AtLeast(0.85), "of the floor", bytes("up-10m")),
        Goal::new("1 GiB down", AtLeast(0.85), "of the floor", bytes("down-1g")),
        Goal::new("1 GiB up", AtLeast(0.85), "of the floor", bytes("up-1g")),
        Goal::new("memory that 1 GiB down adds", AtMost(4.0), "MiB", flat("down-1g")),
        Goal::new("memory that 1 GiB up adds", AtMost(4.0), "MiB", flat("up-1g")),
        Goal::new("1,000,000 live nonces", AtMost(250.0), "MB", nonces("rss_mib").map(|mib| mib * 1.048_576)),
        Goal::new("lookup among them, p99", AtMost(2.0), "µs", nonces("lookup_p99_ns").map(|ns| ns / 1000.0)),
        Goal::new("longest look-up during a sweep", AtMost(1000.0), "µs", nonces("sweep_pause_max_us")),
        Goal::new("longest mint during a sweep", AtMost(1000.0), "µs", nonces("sweep_mint_pause_max_us")),
        Goal::new("longest of both, as far as it is ours", AtMost(1000.0), "µs", nonces("sweep_awake_pause_max_us")),
        Goal::new("longest step of the sweep", AtMost(1000.0), "µs of CPU", nonces("sweep_step_max_us")),
        Goal::new("mints in process", AtLeast(100_000.0), "/s", nonces("mints_per_second")),
        Goal::new("idle memory", AtMost(12.0), "MiB", own.idle_mib),
        Goal::new(
            "memory of a held connection",
            AtMost(1.25),
            "of the floor's",
            ratio("held", "floor", Figure::Memory),
        ),
        Goal::new("mint over the socket at 1,000/s, p99", AtMost(1000.0), "µs", of("mint", "valetkey", Figure::Tail)),
        Goal::new("start to the first answer", AtMost(2.0), "of the floor's", ratio("first", "floor", Figure::Start)),
        Goal::new("decision with 1,000 × 20 rules", AtMost(1000.0), "ns more than with 1 × 20", more()),
        Goal::new("release binary", AtMost(12.0), "MB", own.binary_mb),
    ]
}
