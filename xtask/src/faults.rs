//! `cargo xtask faults` and `cargo xtask soak`: the runner in tests/faults, with more to do than one short round.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use clap::Args;

use crate::workspace::{Workspace, announce, succeeds};

/// What the tests look for the sidecar's binary in.
const BINARY: &str = "VALETKEY_TEST_BINARY";

/// Which faults, and how often.
#[derive(Debug, Args)]
pub struct Faults {
    /// How often each kind is run with each protocol of the agent.
    #[arg(long, value_name = "N", default_value_t = 1)]
    rounds: u64,
    /// What chance begins with, to run the same again.
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// How often the sidecar is killed amid traffic.
    #[arg(long, value_name = "N", default_value_t = 6)]
    kills: u64,
    /// Cases at a time.
    #[arg(long, value_name = "N", default_value_t = 8)]
    jobs: u64,
    /// Kinds whose name holds this alone; repeatable.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Name the kinds and run none.
    #[arg(long)]
    list: bool,
    /// Print the counts as one JSON object on standard output.
    #[arg(long)]
    json: bool,
    /// Another binary of the sidecar than the debug one that is built here.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

/// How long, and against what.
#[derive(Debug, Args)]
pub struct Soak {
    /// Minutes of traffic.
    #[arg(long, value_name = "N", default_value_t = 1.0)]
    minutes: f64,
    /// Print the report as one JSON object on standard output.
    #[arg(long)]
    json: bool,
    /// Another binary of the sidecar than the release one that is built here.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

/// Runs the kinds of fault; true if none failed.
pub fn run(workspace: &Workspace, arguments: &Faults) -> anyhow::Result<bool> {
    let mut command = runner(workspace);
    command.arg("--thorough");
    for (flag, number) in
        [("--rounds", Some(arguments.rounds)), ("--kills", Some(arguments.kills)), ("--jobs", Some(arguments.jobs))]
            .into_iter()
            .chain([("--seed", arguments.seed)])
    {
        command.args(number.map(|number| [flag.to_owned(), number.to_string()]).into_iter().flatten());
    }
    for name in &arguments.only {
        command.arg("--only").arg(name);
    }
    command.args(arguments.list.then_some("--list")).args(arguments.json.then_some("--json"));
    if let Some(binary) = &arguments.binary {
        command.env(BINARY, absolute(binary)?);
    }
    ends_well(&mut command)
}

/// Runs mixed traffic; true if nothing was wrong.
pub fn soak(workspace: &Workspace, arguments: &Soak) -> anyhow::Result<bool> {
    let binary = match &arguments.binary {
        Some(binary) => absolute(binary)?,
        None => {
            if !succeeds(workspace.cargo("build").args(["--release", "--package", "valetkey"]))? {
                bail!("the binary does not build");
            }
            workspace.target.join("release/valetkey")
        }
    };
    let mut command = runner(workspace);
    command.arg("--soak").arg(arguments.minutes.to_string()).args(arguments.json.then_some("--json"));
    ends_well(command.env(BINARY, binary))
}

fn runner(workspace: &Workspace) -> Command {
    let mut command = workspace.cargo("test");
    command.args(["--package", "valetkey", "--test", "faults", "--"]);
    command
}

fn absolute(binary: &Path) -> anyhow::Result<PathBuf> {
    binary.canonicalize().with_context(|| format!("{} is not there", binary.display()))
}

fn ends_well(command: &mut Command) -> anyhow::Result<bool> {
    announce(command);
    Ok(command.status().context("cannot run cargo")?.success())
}
