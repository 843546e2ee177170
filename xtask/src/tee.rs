//! Runs a test runner, shows what it prints as it comes, and counts.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use anyhow::Context;

use crate::attack::Verdicts;
use crate::counts::Counts;
use crate::workspace::announce;

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
        if let Some((name, passed)) = verdict(&text) {
            // A name that several programs have passes only if it does in each.
            verdicts.entry(name.to_owned()).and_modify(|so_far| *so_far &= passed).or_insert(passed);
        }
        line.clear();
    }
    Ok(Outcome { counts, verdicts, ended_well: child.wait()?.success() })
}

/// `test attacks::framing::each_of_many ... ok`; a test that was not run has no verdict.
fn verdict(line: &str) -> Option<(&str, bool)> {
    let (name, result) = line.trim().strip_prefix("test ")?.split_once(" ... ")?;
    match result {
        "ok" => Some((name, true)),
        "FAILED" => Some((name, false)),
        _ => None,
    }
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
    fn verdicts_are_read() {
        assert_eq!(verdict("test a::b ... ok\n"), Some(("a::b", true)));
        assert_eq!(verdict("test a::b ... FAILED"), Some(("a::b", false)));
        assert_eq!(verdict("test a::b ... ignored"), None);
        assert_eq!(verdict("test result: ok. 1 passed; 0 failed"), None);
    }

    #[test]
    fn an_end_that_nothing_explains_is_a_failure() {
        assert_eq!(of("echo '1 passed, 0 failed, 0 skipped'; exit 1").failed, 1);
        assert_eq!(of("exit 1").failed, 1);
        assert_eq!(of("true").failed, 1, "a runner that says nothing has tested nothing");
        assert_eq!(of("echo '1 passed, 2 failed, 0 skipped'; exit 1").failed, 2, "not counted twice");
    }
}
