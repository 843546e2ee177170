//! The catalogue of attacks and faults, black box: runs the tests that its rows name, and says which rows hold.

mod rows;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;

use crate::verdicts::{Verdict, Verdicts};
use crate::workspace::{Workspace, succeeds};
use crate::{prepare, tee};
use rows::{Row, State};

/// Before the name of a kind of fault, which is not run by cargo's own runner.
const FAULTS: &str = "faults::";
/// What can become of a row.
const WORDS: [&str; 5] = ["passed", "FAILED", "skipped", "outside", "waiting"];

#[derive(Debug, Args)]
pub struct Arguments {
    /// This class (`B`) or row (`B07`) alone; repeatable.
    #[arg(long, value_name = "CLASS|ROW")]
    only: Vec<String>,
    /// Attack this binary; else the release build of this tree.
    #[arg(long, value_name = "PATH", conflicts_with = "debug")]
    binary: Option<PathBuf>,
    /// Attack the debug build, which the tests have anyway.
    #[arg(long)]
    debug: bool,
    /// Print the result as one JSON object on standard output, and everything else on standard error.
    #[arg(long)]
    json: bool,
    /// Install and download nothing; tests that miss something are skipped, and said.
    #[arg(long)]
    offline: bool,
    /// End well although this machine could not run some of the tests.
    #[arg(long)]
    allow_skips: bool,
}

impl Arguments {
    /// Whether it may download.
    pub fn is_offline(&self) -> bool {
        self.offline
    }
}

/// Runs the tests of the chosen rows, once each, and prints the table; true if nothing failed, and nothing was skipped
/// that may not be.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<bool> {
    let begun = Instant::now();
    let rows = rows::read(workspace, &arguments.only)?;
    let mut names: Vec<&str> = rows.iter().flat_map(Row::tests).map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    let verdicts = if names.is_empty() { Verdicts::new() } else { tests(workspace, arguments, &names)? };
    let table = Table::of(&rows, &verdicts);
    if arguments.json {
        println!("{}", table.json(begun.elapsed().as_secs()));
    } else {
        println!("{table}");
        println!("{} tests in {} s", names.len(), begun.elapsed().as_secs());
    }
    Ok(table.failed() == 0 && (arguments.allow_skips || table.skipped() == 0))
}

/// Shows the table for tests that were run already; the number of rows that failed.
pub fn tell(workspace: &Workspace, verdicts: &Verdicts) -> anyhow::Result<usize> {
    let rows = rows::read(workspace, &[])?;
    let table = Table::of(&rows, verdicts);
    eprintln!("{table}");
    Ok(table.failed())
}

fn tests(workspace: &Workspace, arguments: &Arguments, names: &[&str]) -> anyhow::Result<Verdicts> {
    let binary = binary(workspace, arguments)?;
    let (faults, tests): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| name.starts_with(FAULTS));
    let mut commands = Vec::new();
    if !tests.is_empty() {
        let mut command = workspace.command(program(workspace, "it")?);
        command.args(["--exact", "--color", "never"]).args(tests);
        prepare::for_rust(workspace, &mut command)?;
        commands.push(command);
    }
    if !faults.is_empty() {
        let mut command = workspace.command(program(workspace, "faults")?);
        // Kinds whose names begin alike may be run too; that does no harm.
        command.args(faults.iter().flat_map(|name| ["--only", name.trim_start_matches(FAULTS)]));
        commands.push(command);
    }
    let mut verdicts = Verdicts::new();
    for mut command in commands {
        command.envs(binary.iter().map(|binary| ("VALETKEY_TEST_BINARY", binary)));
        verdicts.extend(tee::run_rust(workspace, &mut command)?.verdicts);
    }
    if verdicts.is_empty() {
        bail!("no test has run");
    }
    Ok(verdicts)
}

/// What is attacked; none for the build that the tests have.
fn binary(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<Option<PathBuf>> {
    if arguments.debug {
        return Ok(None);
    }
    if let Some(path) = &arguments.binary {
        return path.canonicalize().map(Some).with_context(|| path.display().to_string());
    }
    if !succeeds(workspace.cargo("build").args(["--release", "--quiet"]))? {
        bail!("the release does not build");
    }
    Ok(Some(workspace.target.join("release/valetkey")))
}

/// Builds the tests from outside; where this program of them is.
fn program(workspace: &Workspace, name: &str) -> anyhow::Result<PathBuf> {
    let mut build = workspace.cargo("test");
    // As the test suites build them, so that nothing is built a second time.
    build.args(["--workspace", "--no-run", "--message-format", "json-render-diagnostics"]);
    crate::workspace::announce(&build);
    let output = build.stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!("the tests do not build");
    }
    let messages = String::from_utf8(output.stdout).context("cargo speaks UTF-8")?;
    let found =
        messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()).find_map(|message| {
            let is_ours = message["target"]["name"] == name && message["target"]["kind"][0] == "test";
            message["executable"].as_str().filter(|_| is_ours).map(PathBuf::from)
        });
    found.filter(|path| Path::new(path).exists()).context("cargo names the tests' program")
}

/// How each row came out.
struct Table<'a> {
    rows: Vec<(&'a Row, Outcome)>,
}

/// How a row came out.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Passed,
    /// With the tests that failed or did not run.
    Failed(Vec<String>),
    /// With the tests that this machine could not run, each with the reason.
    Skipped(Vec<(String, String)>),
    Outside,
    Waiting,
}

impl Outcome {
    fn of(row: &Row, verdicts: &Verdicts) -> Self {
        match row.state() {
            State::Tests => Self::of_tests(row.tests(), verdicts),
            State::Outside => Self::Outside,
            State::Waiting => Self::Waiting,
        }
    }

    fn of_tests(tests: &[String], verdicts: &Verdicts) -> Self {
        let (mut failed, mut skipped) = (Vec::new(), Vec::new());
        for name in tests {
            match verdicts.get(name) {
                Some(Verdict::Passed) => {}
                Some(Verdict::Skipped(why)) => skipped.push((name.clone(), why.clone())),
                Some(Verdict::Failed) | None => failed.push(name.clone()),
            }
        }
        if !failed.is_empty() {
            Self::Failed(failed)
        } else if !skipped.is_empty() {
            Self::Skipped(skipped)
        } else {
            Self::Passed
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed(_) => "FAILED",
            Self::Skipped(_) => "skipped",
            Self::Outside => "outside",
            Self::Waiting => "waiting",
        }
    }
}

impl<'a> Table<'a> {
    fn of(rows: &'a [Row], verdicts: &Verdicts) -> Self {
        Self { rows: rows.iter().map(|row| (row, Outcome::of(row, verdicts))).collect() }
    }

    fn failed(&self) -> usize {
        self.rows.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Failed(_))).count()
    }

    fn skipped(&self) -> usize {
        self.rows.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Skipped(_))).count()
    }

    /// How many of these rows came out in each way.
    fn counts<'b>(rows: impl Iterator<Item = &'b (&'b Row, Outcome)>) -> BTreeMap<&'static str, usize> {
        let mut counts: BTreeMap<&'static str, usize> = WORDS.map(|word| (word, 0)).into();
        for (_, outcome) in rows {
            *counts.entry(outcome.word()).or_default() += 1;
        }
        counts
    }

    fn classes(&self) -> Vec<&str> {
        let mut classes: Vec<&str> = self.rows.iter().map(|(row, _)| row.class()).collect();
        classes.dedup();
        classes
    }

    fn json(&self, seconds: u64) -> serde_json::Value {
        let row = |(row, outcome): &(&Row, Outcome)| {
            let failed = if let Outcome::Failed(names) = outcome { names.clone() } else { Vec::new() };
            let skipped: BTreeMap<_, _> =
                if let Outcome::Skipped(tests) = outcome { tests.iter().cloned().collect() } else { BTreeMap::new() };
            let result = outcome.word().to_lowercase();
            json!({"id": row.id, "result": result, "tests": row.tests(), "failed": failed, "skipped": skipped})
        };
        let total: BTreeMap<String, usize> =
            Self::counts(self.rows.iter()).into_iter().map(|(word, count)| (word.to_lowercase(), count)).collect();
        json!({"total": total, "seconds": seconds, "rows": self.rows.iter().map(row).collect::<Vec<_>>()})
    }
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "\n=== the catalogue of attacks and faults ===")?;
        for (row, outcome) in &self.rows {
            writeln!(formatter, "{}  {:<8}{}", row.id, outcome.word(), row.what)?;
            match outcome {
                Outcome::Failed(names) => {
                    names.iter().try_for_each(|name| writeln!(formatter, "             {name}"))?
                }
                Outcome::Skipped(tests) => {
                    tests.iter().try_for_each(|(name, why)| writeln!(formatter, "             {name}: {why}"))?;
                }
                Outcome::Passed | Outcome::Outside | Outcome::Waiting => {}
            }
        }
        writeln!(formatter)?;
        for class in self.classes() {
            let counts = Self::counts(self.rows.iter().filter(|(row, _)| row.class() == class));
            writeln!(formatter, "{class}: {}", line(&counts))?;
        }
        write!(formatter, "all {} rows: {}", self.rows.len(), line(&Self::counts(self.rows.iter())))
    }
}

/// `29 passed, 1 outside`: what there is none of is left out, but for failures.
fn line(counts: &BTreeMap<&'static str, usize>) -> String {
    let shown = |word: &&str| counts[*word] > 0 || matches!(*word, "passed" | "FAILED");
    let texts = WORDS.into_iter().filter(shown).map(|word| format!("{} {}", counts[word], word.to_lowercase()));
    texts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Row {
        rows::parse(&format!("[[row]]\nid = \"A01\"\nwhat = \"x\"\n{text}")).expect("rows").remove(0)
    }

    #[test]
    fn a_row_passes_only_if_each_of_its_tests_ran_and_passed() {
        let row = one("tests = [\"a\", \"b\"]");
        let outcome = |verdicts: &[(&str, &Verdict)]| {
            let verdicts = verdicts.iter().map(|(name, verdict)| ((*name).to_owned(), (*verdict).clone()));
            Outcome::of(&row, &verdicts.collect())
        };
        let (passed, failed) = (&Verdict::Passed, &Verdict::Failed);
        let skipped = &Verdict::Skipped("no x".to_owned());
        assert_eq!(outcome(&[("a", passed), ("b", passed)]), Outcome::Passed);
        assert_eq!(outcome(&[("a", passed), ("b", failed)]), Outcome::Failed(vec!["b".to_owned()]));
        assert_eq!(outcome(&[("b", passed)]), Outcome::Failed(vec!["a".to_owned()]));
        let why = vec![("b".to_owned(), "no x".to_owned())];
        assert_eq!(outcome(&[("a", passed), ("b", skipped)]), Outcome::Skipped(why));
        assert_eq!(outcome(&[("a", failed), ("b", skipped)]), Outcome::Failed(vec!["a".to_owned()]));
        assert_eq!(Outcome::of(&one("outside = \"y\""), &Verdicts::new()), Outcome::Outside);
        assert_eq!(Outcome::of(&one("waiting = \"y\""), &Verdicts::new()), Outcome::Waiting);
    }

    #[test]
    fn what_was_skipped_is_said_with_its_reason() {
        let rows = [one("tests = [\"a\"]")];
        let table = Table::of(&rows, &[("a".to_owned(), Verdict::Skipped("no x".to_owned()))].into());
        assert_eq!((table.failed(), table.skipped()), (0, 1));
        let json = table.json(3);
        assert_eq!((&json["total"]["skipped"], &json["total"]["passed"]), (&1.into(), &0.into()));
        assert_eq!(json["rows"][0]["result"], "skipped");
        assert_eq!(json["rows"][0]["skipped"]["a"], "no x");
        let text = table.to_string();
        assert!(
            text.contains("A01  skipped x\n             a: no x\n") && text.ends_with("0 passed, 0 failed, 1 skipped"),
            "{text}"
        );
    }

    #[test]
    fn failures_are_counted_and_always_said() {
        let rows = [one("tests = [\"a\"]"), one("waiting = \"y\"")];
        let table = Table::of(&rows, &Verdicts::new());
        assert_eq!(table.failed(), 1);
        assert_eq!(line(&Table::counts(table.rows.iter())), "0 passed, 1 failed, 1 waiting");
        assert_eq!(table.json(3)["total"]["failed"], 1);
    }
}
