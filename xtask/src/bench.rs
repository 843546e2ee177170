//! `cargo xtask bench`: the sidecar beside a floor and its peers, in one run, by turns.
//!
//! - `stage`: the origin, directories, cores, processes
//! - `peers`: how each proxy is started
//! - `scenarios`: the loads
//! - `goals`: what we mean to reach
//! - `report`: medians, tables
//! - `plot`: bars

mod goals;
mod peers;
mod plot;
mod report;
mod scenarios;
mod stage;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::workspace::Workspace;
use report::Report;
use scenarios::Scenario;
use stage::{Options, Stage};

/// What to measure.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A few short rounds of the main loads against the floor alone: for use before and after a change.
    #[arg(long)]
    short: bool,
    /// These loads alone; repeatable.
    #[arg(long, value_name = "LOAD")]
    load: Vec<String>,
    /// These proxies alone, besides the sidecar and the floor; repeatable, `none` for no others.
    #[arg(long, value_name = "PEER")]
    peer: Vec<String>,
    /// Rounds; the median of each figure counts.
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Seconds of each load in each round.
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,
    /// Another binary of the sidecar than the one that is built here.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// A second binary of the sidecar, measured beside it as `before`.
    #[arg(long, value_name = "FILE")]
    before: Option<PathBuf>,
    /// Nothing is pinned: proxies may use every core.
    #[arg(long)]
    unpinned: bool,
    /// Print the medians as JSON too.
    #[arg(long)]
    json: bool,
    /// Write docs/PERFORMANCE.md and its plots.
    #[arg(long)]
    write_docs: bool,
}

/// What the load generator says of one run; see `benches/load/src/plan.rs`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    requests: u64,
    errors: u64,
    seconds: f64,
    rate: f64,
    bytes_per_second: f64,
    latency: Latency,
    cpu_seconds: f64,
    other_cpu_seconds: f64,
    rss_kib: (u64, u64),
}

/// Microseconds, by quantile.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

/// All outcomes, by load and then by who was measured.
pub type Results = BTreeMap<String, BTreeMap<String, Vec<Outcome>>>;

/// Builds, measures, and reports; false if a load had no right answer at all, or more than one wrong in a thousand.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<bool> {
    let loads = wanted(arguments)?;
    let options = Options {
        binary: arguments.binary.clone(),
        before: arguments.before.clone(),
        is_pinned: !arguments.unpinned,
        peers: if arguments.short && arguments.peer.is_empty() {
            vec!["none".to_owned()]
        } else {
            arguments.peer.clone()
        },
    };
    let mut stage = Stage::build(workspace, options)?;
    stage.start()?;
    let results = measure(&mut stage, &loads, arguments);
    let nonces = if arguments.short || !arguments.load.is_empty() { None } else { Some(stage.nonces(workspace)?) };
    let report = Report::new(&results, &loads, &stage, nonces);
    println!("{}", report.text());
    if arguments.json {
        println!("{}", serde_json::to_string(&results)?);
    }
    if arguments.write_docs {
        report.write(workspace)?;
    }
    Ok(loads.iter().all(|load| is_right(&results, load.name)))
}

fn wanted(arguments: &Arguments) -> anyhow::Result<Vec<Scenario>> {
    let all = scenarios::all();
    let names: Vec<_> = all.iter().map(|load| load.name).collect();
    for name in &arguments.load {
        anyhow::ensure!(names.contains(&name.as_str()), "there is no load {name}; there are {}", names.join(", "));
    }
    Ok(all
        .into_iter()
        .filter(|load| match arguments.load.as_slice() {
            [] => !arguments.short || load.is_short,
            names => names.iter().any(|name| name == load.name),
        })
        .collect())
}

/// Every load through every runner, by turns, so that a slow minute of the machine is everybody's.
fn measure(stage: &mut Stage, loads: &[Scenario], arguments: &Arguments) -> Results {
    let rounds = arguments.rounds.unwrap_or(if arguments.short { 3 } else { 5 });
    let seconds = arguments.seconds.unwrap_or(2.0);
    let mut results = Results::new();
    for round in 1..=rounds {
        for load in loads {
            for at in 0..stage.runners().len() {
                let name = stage.runners()[at].name.clone();
                if load.excludes(&name).is_some() {
                    continue;
                }
                match stage.measure(load, at, seconds) {
                    Ok(outcome) => {
                        eprintln!("{}", report::line(round, rounds, load.name, &name, &outcome));
                        results.entry(load.name.to_owned()).or_default().entry(name).or_default().push(outcome);
                    }
                    Err(error) => eprintln!("{round}/{rounds} {:<14}{name:<12}FAILED: {error:#}", load.name),
                }
            }
        }
    }
    results
}

fn is_right(results: &Results, load: &str) -> bool {
    let Some(runs) = results.get(load).and_then(|by| by.get("valetkey")) else { return false };
    runs.iter().all(|run| (run.requests > 0 || run.bytes_per_second > 0.0) && run.errors * 1000 <= run.requests)
}
