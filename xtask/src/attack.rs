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

use crate::tee;
use crate::workspace::{Workspace, succeeds};
use rows::{Row, State};

/// Before the name of a kind of fault, which is not run by cargo's own runner.
const FAULTS: &str = "faults::";

/// How a test ended, by its name.
pub type Verdicts = BTreeMap<String, bool>;

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
    /// Download nothing.
    #[arg(long)]
    offline: bool,
}

impl Arguments {
    /// Whether it may download.
    pub fn is_offline(&self) -> bool {
        self.offline
    }
}

/// Runs the tests of the chosen rows, once each, and prints the table; true if nothing failed.
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
    Ok(table.failed() == 0)
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
        verdicts.extend(tee::run(&mut command)?.verdicts);
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
    rows: Vec<(&'a Row, Verdict)>,
}

/// How a row came out.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Passed,
    /// With the tests that failed or did not run.
    Failed(Vec<String>),
    Outside,
    Waiting,
}

impl Verdict {
    fn of(row: &Row, verdicts: &Verdicts) -> Self {
        match row.state() {
            State::Tests => {
                let bad = |name: &&String| verdicts.get(*name) != Some(&true);
                let failed: Vec<String> = row.tests().iter().filter(bad).cloned().collect();
                if failed.is_empty() { Self::Passed } else { Self::Failed(failed) }
            }
            State::Outside => Self::Outside,
            State::Waiting => Self::Waiting,
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed(_) => "FAILED",
            Self::Outside => "outside",
            Self::Waiting => "waiting",
        }
    }
}

impl<'a> Table<'a> {
    fn of(rows: &'a [Row], verdicts: &Verdicts) -> Self {
        Self { rows: rows.iter().map(|row| (row, Verdict::of(row, verdicts))).collect() }
    }

    fn failed(&self) -> usize {
        self.rows.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Failed(_))).count()
    }

    /// How many of these rows came out in each way.
    fn counts<'b>(rows: impl Iterator<Item = &'b (&'b Row, Verdict)>) -> BTreeMap<&'static str, usize> {
        let mut counts: BTreeMap<&'static str, usize> =
            ["passed", "FAILED", "outside", "waiting"].map(|word| (word, 0)).into();
        for (_, verdict) in rows {
            *counts.entry(verdict.word()).or_default() += 1;
        }
        counts
    }

    fn classes(&self) -> Vec<&str> {
        let mut classes: Vec<&str> = self.rows.iter().map(|(row, _)| row.class()).collect();
        classes.dedup();
        classes
    }

    fn json(&self, seconds: u64) -> serde_json::Value {
        let row = |(row, verdict): &(&Row, Verdict)| {
            let failed = if let Verdict::Failed(names) = verdict { names.clone() } else { Vec::new() };
            json!({"id": row.id, "result": verdict.word().to_lowercase(), "tests": row.tests(), "failed": failed})
        };
        let total: BTreeMap<String, usize> =
            Self::counts(self.rows.iter()).into_iter().map(|(word, count)| (word.to_lowercase(), count)).collect();
        json!({"total": total, "seconds": seconds, "rows": self.rows.iter().map(row).collect::<Vec<_>>()})
    }
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "\n=== the catalogue of attacks and faults ===")?;
        for (row, verdict) in &self.rows {
            writeln!(formatter, "{}  {:<8}{}", row.id, verdict.word(), row.what)?;
            if let Verdict::Failed(names) = verdict {
                names.iter().try_for_each(|name| writeln!(formatter, "             {name}"))?;
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
    let words = ["passed", "FAILED", "outside", "waiting"];
    let texts = words.into_iter().filter(shown).map(|word| format!("{} {}", counts[word], word.to_lowercase()));
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
        let verdict = |verdicts: &[(&str, bool)]| {
            Verdict::of(&row, &verdicts.iter().map(|(name, passed)| ((*name).to_owned(), *passed)).collect())
        };
        assert_eq!(verdict(&[("a", true), ("b", true)]), Verdict::Passed);
        assert_eq!(verdict(&[("a", true), ("b", false)]), Verdict::Failed(vec!["b".to_owned()]));
        assert_eq!(verdict(&[("b", true)]), Verdict::Failed(vec!["a".to_owned()]));
        assert_eq!(Verdict::of(&one("outside = \"y\""), &Verdicts::new()), Verdict::Outside);
        assert_eq!(Verdict::of(&one("waiting = \"y\""), &Verdicts::new()), Verdict::Waiting);
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
