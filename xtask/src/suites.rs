//! The test suites: what each runs, and what they came to together.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::ValueEnum;
use serde_json::json;

use crate::counts::Counts;
use crate::verdicts::Verdicts;
use crate::workspace::Workspace;
use crate::{attack, prepare, tee};

/// A part of the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// Unit tests, the tests from outside, and the examples in the documentation.
    Rust,
    /// Real clients and SDKs through the sidecar.
    Clients,
    /// The files in deploy/.
    Deploy,
    /// The programs in examples/.
    Examples,
}

const ALL: [Suite; 4] = [Suite::Rust, Suite::Clients, Suite::Deploy, Suite::Examples];
const SKIPPED: Counts = Counts { passed: 0, failed: 0, skipped: 1 };
const FAILED: Counts = Counts { passed: 0, failed: 1, skipped: 0 };

/// What one suite came to.
struct Report {
    suite: Suite,
    counts: Counts,
    took: Duration,
}

/// Installs what is needed, runs the suites (all where none is named) and prints the summary; true if nothing failed.
pub fn run(workspace: &Workspace, only: &[Suite], is_json: bool) -> anyhow::Result<bool> {
    let wanted: Vec<_> = ALL.into_iter().filter(|suite| only.is_empty() || only.contains(suite)).collect();
    prepare::tools(workspace)?;
    let mut reports = Vec::new();
    for (index, suite) in wanted.iter().enumerate() {
        eprintln!("\n=== {} ({} of {}) ===", suite.name(), index + 1, wanted.len());
        let begun = Instant::now();
        let counts = suite.run(workspace).unwrap_or_else(|error| {
            eprintln!("error: {}: {error:#}", suite.name());
            FAILED
        });
        reports.push(Report { suite: *suite, counts, took: begun.elapsed() });
    }
    Ok(summarise(&reports, is_json))
}

/// Prints the summary, the sum as its last line; true if nothing failed.
fn summarise(reports: &[Report], is_json: bool) -> bool {
    let mut total = Counts::default();
    for report in reports {
        total += report.counts;
    }
    if is_json {
        let suite = |report: &Report| json!({"suite": report.suite.name(), "counts": report.counts, "seconds": report.took.as_secs()});
        println!("{}", json!({"total": total, "suites": reports.iter().map(suite).collect::<Vec<_>>()}));
    } else {
        println!("\n=== summary ===");
        for report in reports {
            println!("{:<10}{} ({} s)", report.suite.name(), report.counts, report.took.as_secs());
        }
        println!("{total}");
    }
    total.failed == 0
}

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Clients => "clients",
            Self::Deploy => "deploy",
            Self::Examples => "examples",
        }
    }

    fn run(self, workspace: &Workspace) -> anyhow::Result<Counts> {
        match self {
            Self::Rust => rust(workspace),
            Self::Clients => clients(workspace),
            Self::Deploy => checks(workspace, &[workspace.root.join("tests/deploy/check.py")]),
            Self::Examples => checks(workspace, &example_checks(workspace)?),
        }
    }
}

fn rust(workspace: &Workspace) -> anyhow::Result<Counts> {
    let mut command = workspace.cargo("test");
    command.args(["--workspace", "--no-fail-fast"]);
    prepare::for_rust(workspace, &mut command)?;
    let outcome = tee::run_rust(workspace, &mut command)?;
    let rows = attack::tell(workspace, &outcome.verdicts)?;
    tell_skipped(&outcome.verdicts);
    let mut counts = outcome.settled();
    // A row whose test has not run is a failure that no test has counted.
    if rows > 0 && counts.failed == 0 {
        counts.failed = 1;
    }
    Ok(counts)
}

/// Which tests were skipped, and why.
fn tell_skipped(verdicts: &Verdicts) {
    let skipped = || verdicts.iter().filter_map(|(name, verdict)| Some((name, verdict.skipped()?)));
    eprintln!("\nskipped here: {}", skipped().count());
    skipped().for_each(|(name, why)| eprintln!("  {name}: {why}"));
}

fn clients(workspace: &Workspace) -> anyhow::Result<Counts> {
    let Some(mut command) = python(workspace)? else { return Ok(SKIPPED) };
    command.arg("tests/clients/run.py").arg("--binary").arg(binary(workspace)?);
    match prepare::node(workspace) {
        Ok(directory) => command.arg("--node").arg(directory),
        Err(reason) => command.arg("--without-node").arg(format!("{reason:#}")),
    };
    Ok(tee::run(&mut command)?.settled())
}

/// Runs check programs of other parts: Python files by the clients' Python, others as they are. Each prints
/// `N passed, N failed, N skipped` and ends with a code other than zero if something failed. They are given the binary
/// in `VALETKEY_BINARY`, the Python in `PYTHON`, and find the modules of tests/clients on `PYTHONPATH`.
fn checks(workspace: &Workspace, programs: &[PathBuf]) -> anyhow::Result<Counts> {
    let mut counts = Counts::default();
    for program in programs.iter().filter(|program| program.exists()) {
        let Some(python) = python(workspace)? else { return Ok(SKIPPED) };
        let is_python = program.extension().is_some_and(|extension| extension == "py");
        let mut command = if is_python { python } else { with_environment(workspace, workspace.command(program)) };
        command.args(is_python.then_some(program));
        command.env("VALETKEY_BINARY", binary(workspace)?);
        counts += tee::run(&mut command)?.settled();
    }
    if counts == Counts::default() {
        eprintln!("there is nothing to check");
    }
    Ok(counts)
}

/// `check.py` and `check.sh` in examples/ and its directories.
fn example_checks(workspace: &Workspace) -> anyhow::Result<Vec<PathBuf>> {
    let examples = workspace.root.join("examples");
    let mut directories = vec![examples.clone()];
    for entry in examples.read_dir().into_iter().flatten() {
        directories.push(entry?.path());
    }
    directories.sort();
    let programs = |directory: &PathBuf| ["check.py", "check.sh"].map(|name| directory.join(name));
    Ok(directories.iter().flat_map(programs).collect())
}

/// The clients' Python; none if it is not here and may not be installed.
fn python(workspace: &Workspace) -> anyhow::Result<Option<Command>> {
    match prepare::python(workspace) {
        Ok(python) => Ok(Some(with_environment(workspace, workspace.command(python)))),
        Err(reason) if workspace.offline => {
            eprintln!("skipped: {reason:#}");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn with_environment(workspace: &Workspace, mut command: Command) -> Command {
    command
        .env("PYTHON", workspace.target.join("clients/venv/bin/python"))
        .env("PYTHONPATH", workspace.root.join("tests/clients"))
        .env("PYTHONUNBUFFERED", "1")
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// The debug binary, built as the tests build it, so that no dependency is built a second time.
fn binary(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let mut build = workspace.cargo("test");
    build.args(["--workspace", "--no-run", "--quiet"]);
    if !crate::workspace::succeeds(&mut build)? {
        bail!("the binary does not build");
    }
    Ok(Path::new(&workspace.target).join("debug/valetkey"))
}
