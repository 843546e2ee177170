//! `cargo xtask bench`: the sidecar beside a floor and its peers, in one run, by turns.
//!
//! - `stage`: the origin, directories, cores, processes
//! - `peers`: how each proxy is started
//! - `scenarios`: the loads
//! - `report`: medians, tables, plots

mod peers;
mod report;
mod scenarios;
mod stage;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::workspace::Workspace;
use scenarios::Scenario;
use stage::Stage;

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
    /// Print the medians as JSON too.
    #[arg(long)]
    json: bool,
    /// Write docs/PERFORMANCE.md and its plots.
    #[arg(long)]
    write_docs: bool,
}

/// What the load generator says of one run.
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

/// Builds, measures, and reports; false if a load had no right answer at all.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<bool> {
    let rounds = arguments.rounds.unwrap_or(if arguments.short { 3 } else { 5 });
    let seconds = arguments.seconds.unwrap_or(if arguments.short { 2.0 } else { 4.0 });
    let wanted: Vec<Scenario> = scenarios::all()
        .into_iter()
        .filter(|load| !arguments.short || load.is_short || !arguments.load.is_empty())
        .filter(|load| arguments.load.is_empty() || arguments.load.iter().any(|name| name == load.name))
        .collect();
    let mut peers = arguments.peer.clone();
    if arguments.short && peers.is_empty() {
        peers.push("none".to_owned());
    }
    let mut stage = Stage::build(workspace, arguments.binary.clone())?;
    stage.start(&peers)?;
    let mut results = Results::new();
    for round in 1..=rounds {
        for load in &wanted {
            for at in 0..stage.runners().len() {
                let name = stage.runners()[at].name.clone();
                if !load.suits(&name) {
                    continue;
                }
                let outcome = stage.measure(load, at, seconds);
                match outcome {
                    Ok(outcome) => {
                        eprintln!("{}", report::line(round, rounds, load.name, &name, &outcome));
                        results.entry(load.name.to_owned()).or_default().entry(name).or_default().push(outcome);
                    }
                    Err(error) => eprintln!("{round}/{rounds} {:<14}{name:<12}FAILED: {error:#}", load.name),
                }
            }
        }
    }
    let table = report::table(&results, &wanted, &stage);
    println!("{table}");
    if arguments.json {
        println!("{}", serde_json::to_string(&report::medians(&results))?);
    }
    if arguments.write_docs {
        report::write(workspace, &results, &wanted, &stage, &table)?;
    }
    Ok(!results.is_empty()
        && results.values().all(|by| by.get("valetkey").is_some_and(|runs| runs.iter().any(|run| run.requests > 0))))
}
