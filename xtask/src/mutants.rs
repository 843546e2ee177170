//! Mutants of one subject, each built and tried on the subject's tests with cargo-mutants. Nothing is installed from here:
//! what is missing is said. docs/TESTING.md has the figures.

use std::process::Command;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};

use crate::workspace::{Workspace, announce};

/// The version whose list of mutants the figures of docs/TESTING.md are of.
const VERSION: &str = "27.1.0";

/// What is asked.
#[derive(Debug, Args)]
#[command(
    after_help = "Each mutant is a build of the library's tests and a run of the subject's: one or two minutes on two cores, \
    so that a whole subject is hours (`--list` counts its mutants) and policy about a day. Take a share with `--shard 0/20`, \
    and go on with 1/20. Progress is printed after each mutant. The tree here is not touched: mutants are made in a copy under \
    the build directory, where outcomes are, too (mutants/SUBJECT/mutants.out/missed.txt)."
)]
pub struct Arguments {
    /// What is mutated.
    #[arg(value_enum)]
    subject: Subject,
    /// Try this share of the mutants alone: the one numbered K, from 0, of N.
    #[arg(long, value_name = "K/N")]
    shard: Option<String>,
    /// Print the mutants and try none.
    #[arg(long)]
    list: bool,
}

/// Code whose defects cost most.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Subject {
    Policy,
    Path,
    Authority,
    Lease,
    Scrub,
}

/// Where a subject is, and which tests know it.
struct Place {
    files: &'static [&'static str],
    but: &'static [&'static str],
    tests: &'static [&'static str],
}

impl Subject {
    fn name(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Path => "path",
            Self::Authority => "authority",
            Self::Lease => "lease",
            Self::Scrub => "scrub",
        }
    }

    fn place(self) -> Place {
        let (files, but, tests): (&[_], &[_], &[_]) = match self {
            Self::Policy => (
                &["src/policy.rs", "src/policy/**"],
                &["src/policy/target.rs", "src/policy/target/**"],
                &["policy::", "config::"],
            ),
            Self::Path => (&["src/policy/target.rs", "src/policy/target/**"], &[], &["policy::"]),
            Self::Authority => (&["src/model/destination.rs"], &[], &["model::", "policy::"]),
            Self::Lease => (&["src/lease.rs", "src/lease/**"], &[], &["lease::"]),
            Self::Scrub => (&["src/proxy/scrub.rs", "src/proxy/scrub/**"], &[], &["proxy::scrub::"]),
        };
        Place { files, but, tests }
    }
}

/// Tries the mutants; true if none lived.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<bool> {
    check_tool(workspace)?;
    let mut command = mutants(workspace, arguments)?;
    announce(&command);
    Ok(command.status().context("cannot run cargo mutants")?.success())
}

fn mutants(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<Command> {
    let directory = workspace.target.join("mutants");
    let copies = directory.join("copies");
    std::fs::create_dir_all(&copies).with_context(|| format!("cannot make {}", copies.display()))?;
    let Place { files, but, tests } = arguments.subject.place();
    let mut command = workspace.command("cargo");
    // The copies share one build directory, so that dependencies are built once.
    command.env("TMPDIR", &copies).env("CARGO_TARGET_DIR", directory.join("build"));
    command.args(["mutants", "--package", "valetkey", "--no-shuffle"]);
    command.args(files.iter().flat_map(|file| ["--file", file]));
    command.args(but.iter().flat_map(|file| ["--exclude", file]));
    // Every Nth: a share is a sample of all files.
    command.args(arguments.shard.iter().flat_map(|shard| ["--sharding", "round-robin", "--shard", shard]));
    if arguments.list {
        command.arg("--list");
        return Ok(command);
    }
    command.arg("--output").arg(directory.join(arguments.subject.name()));
    // A mutant that never ends is caught, too; without a bound one would hold up all others.
    command.args(["--timeout", "300", "--cargo-arg=--locked", "--", "--lib", "--"]).args(tests);
    Ok(command)
}

fn check_tool(workspace: &Workspace) -> anyhow::Result<()> {
    let output = workspace.command("cargo").args(["mutants", "--version"]).output().context("cannot run cargo")?;
    let said = String::from_utf8_lossy(&output.stdout);
    if said.trim() != format!("cargo-mutants {VERSION}") {
        bail!("cargo-mutants {VERSION} is needed: cargo install cargo-mutants --version {VERSION} --locked");
    }
    Ok(())
}
