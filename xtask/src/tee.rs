//! Runs a test runner, shows what it prints as it comes, and counts.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use anyhow::Context;

use crate::counts::Counts;
use crate::verdicts::{self, Verdict, Verdicts};
use crate::workspace::{Workspace, announce};

/// What a runner came to.
#[derive(Debug)]
pub struct Outcome {
    /// The sum of all counts that it printed.
    pub counts: Counts,
    /// How each test of Rust ended.
    pub verdicts: Verdicts,
    /// Whether it ended with exit code zero.
    pub ended_well: bool,
}

impl Outcome {
    /// The counts, where an end that no counted test explains is one more failure.
    pub fn settled(self) -> Counts {
        let mut counts = self.counts;
        let silent = counts == Counts::default();
        // To libtest they have passed.
        let skipped = self.verdicts.values().filter(|verdict| verdict.skipped().is_some()).count() as u64;
        counts.skipped += skipped;
        counts.passed = counts.passed.saturating_sub(skipped);
        if counts.failed == 0 && (!self.ended_well || silent) {
            counts.failed = 1;
        }
        counts
    }
}

/// Runs it to the end; its output goes to standard error.
pub fn run(command: &mut Command) -> anyhow::Result<Outcome> {
    announce(command);
    follow(command, &mut std::io::stderr())
}

/// The same for tests of Rust, with which of them were skipped.
pub fn run_rust(workspace: &Workspace, command: &mut Command) -> anyhow::Result<Outcome> {
    let skips = workspace.target.join(format!("skipped-{}.txt", std::process::id()));
    std::fs::write(&skips, "").with_context(|| skips.display().to_string())?;
    let outcome = run(command.env("VALETKEY_TEST_SKIPS", &skips));
    let lines = std::fs::read_to_string(&skips).with_context(|| skips.display().to_string())?;
    std::fs::remove_file(skips)?;
    let mut outcome = outcome?;
    verdicts::skip(&mut outcome.verdicts, &lines)?;
    Ok(outcome)
}

fn follow(command: &mut Command, shown: &mut impl Write) -> anyhow::Result<Outcome> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run {program}"))?;
    let (mut counts, mut verdicts) = (Counts::default(), Verdicts::new());
    let mut lines = BufReader::new(child.stdout.take().context("the output is piped")?);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        shown.write_all(&line)?;
        let text = String::from_utf8_lossy(&line);
        if let Some(found) = Counts::parse(&text) {
            counts += found;
        }
        if let Some((name, verdict)) = Verdict::parse(&text) {
            verdicts::add(&mut verdicts, name, verdict);
        }
        line.clear();
    }
    Ok(Outcome { counts, verdicts, ended_well: child.wait()?.success() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(script: &str) -> Counts {
        follow(Command::new("sh").args(["-c", script]), &mut std::io::sink()).expect("it runs").settled()
    }

    #[test]
    fn counts_are_summed() {
        let counts = of("echo '1 passed, 0 failed, 1 skipped'; echo text; echo '2 passed, 0 failed, 0 skipped'");
        assert_eq!(counts, Counts { passed: 3, failed: 0, skipped: 1 });
    }

    #[test]
    fn what_was_skipped_is_not_counted_as_passed() {
        let counts = Counts { passed: 2, failed: 0, skipped: 1 };
        let verdicts = [("a".to_owned(), Verdict::Skipped("why".to_owned())), ("b".to_owned(), Verdict::Passed)].into();
        let settled = Outcome { counts, verdicts, ended_well: true }.settled();
        assert_eq!(settled, Counts { passed: 1, failed: 0, skipped: 2 });
    }

    #[test]
    fn an_end_that_nothing_explains_is_a_failure() {
        assert_eq!(of("echo '1 passed, 0 failed, 0 skipped'; exit 1").failed, 1);
        assert_eq!(of("exit 1").failed, 1);
        assert_eq!(of("true").failed, 1, "a runner that says nothing has tested nothing");
        assert_eq!(of("echo '1 passed, 2 failed, 0 skipped'; exit 1").failed, 2, "not counted twice");
    }
}
