//! `valetkey policy test`: a file of requests, each with the decision that is expected of the policy.

mod judge;

use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use jiff::Timestamp;
use owo_colors::{OwoColorize, Style};
use serde::Serialize;

use super::{Exec, load, unusable_file};
use crate::cli::Failure;
use crate::cli::print::{self, Table};
use crate::config::{self, Cases, Holds, TestCase};
use crate::policy::Policy;
use crate::policy::explain::{self, Answer, Asked};

pub(super) const EXAMPLES: &str = "Examples:
  valetkey policy test cases.toml
  valetkey policy test cases.toml --policy candidate.toml --failed
  valetkey policy test cases.toml --json | jq '.cases[] | select(.ok | not)'

A case in the file:
  [[case]]
  name = \"a refund needs a scope of its own\"
  agent = \"billing\"
  scopes = [\"read:customers\"]      # or grants = { stripe = [\"read:customers\"] }, or nonce = false; else all it may have
  method = \"POST\"
  url = \"https://api.stripe.com/v1/refunds\"
  expect = \"out_of_scope\"          # or \"allow\", or \"deny\" for any refusal
  scope = \"write:refunds\"          # the scope that allows, or that the refusal names
  # rule = \"…\"                     # the rule that allows, or the deny that forbids
  # body = \"amount=5\"               # with content_type, and task, labels, age … of the nonce, for conditions

Ends with 1 if a case fails, with 3 if the policy or the file of cases has mistakes. docs/POLICY.md has every key.";

/// The policy where nothing names another.
const POLICY_DEFAULT: &str = "policy.toml";

/// Flags of `valetkey policy test`.
#[derive(Debug, Args)]
pub(super) struct Test {
    /// The cases.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// The policy; else the one that the file names with `policy = "…"`, else policy.toml.
    #[arg(long, env = "VALETKEY_POLICY", value_name = "FILE", value_hint = ValueHint::FilePath)]
    policy: Option<PathBuf>,
    #[command(flatten)]
    exec: Exec,
    /// Show only the cases that fail.
    #[arg(long)]
    failed: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What became of a file of cases; also the JSON form.
#[derive(Debug, Serialize)]
struct Report<'a> {
    file: &'a Path,
    policy: PathBuf,
    ok: bool,
    passed: usize,
    failed: usize,
    cases: Vec<Tested<'a>>,
}

/// What became of a case.
#[derive(Debug, Serialize)]
struct Tested<'a> {
    name: &'a str,
    line: usize,
    ok: bool,
    expected: &'a str,
    /// What the policy says, or why it is another than expected.
    why: String,
    /// `None` where the case asks what nobody can answer: an agent that the policy does not have.
    answer: Option<Answer>,
}

/// Runs every case.
pub(super) fn run(arguments: &Test) -> Result<(), Failure> {
    let cases = config::load_cases(&arguments.file, &explain::CODES)
        .map_err(|mistakes| unusable_file(&arguments.file, &mistakes))?;
    let policy = arguments.policy.clone().or_else(|| cases.policy.clone()).unwrap_or_else(|| POLICY_DEFAULT.into());
    let loaded = load(&policy, &arguments.exec)?;
    let mut report = test(&loaded.policy, &cases, &arguments.file, policy);
    if arguments.failed {
        report.cases.retain(|case| !case.ok);
    }
    if arguments.json {
        print::json(&report)?;
    } else {
        print::text(&render(&report))?;
    }
    if report.ok {
        return Ok(());
    }
    let failed = print::count(report.failed, "case fails", "cases fail");
    let file = arguments.file.display();
    Err(Failure::other(format!("{file}: {failed}; `valetkey policy explain METHOD URL` tells more of a request")))
}

fn test<'a>(policy: &Policy, cases: &'a Cases, file: &'a Path, named: PathBuf) -> Report<'a> {
    let now = Timestamp::now();
    let cases: Vec<Tested<'a>> = cases.cases.iter().map(|case| judge(policy, case, now)).collect();
    let passed = cases.iter().filter(|case| case.ok).count();
    let failed = cases.len() - passed;
    Report { file, policy: named, ok: failed == 0, passed, failed, cases }
}

fn judge<'a>(policy: &Policy, case: &'a TestCase, now: Timestamp) -> Tested<'a> {
    let asked = Asked {
        method: &case.method,
        url: &case.url,
        agent: case.agent.as_deref(),
        service: case.service.as_deref(),
        holds: match &case.holds {
            Holds::Nothing => explain::Holds::Nothing,
            Holds::Unsaid => explain::Holds::Unsaid,
            Holds::Scopes(scopes) => explain::Holds::Scopes(scopes),
            Holds::Grants(grants) => explain::Holds::Grants(grants),
        },
        now: case.now.unwrap_or(now),
        supposed: Some(&case.supposed),
    };
    let (ok, why, answer) = match explain::read(policy, &asked) {
        Err(sentence) => (false, sentence, None),
        Ok(read) => {
            let answer = read.map_or_else(|answered| answered, |question| explain::explain(policy, &question));
            match judge::fault(case, &answer) {
                Some(fault) => (false, fault, Some(answer)),
                None => (true, judge::verdict(&answer), Some(answer)),
            }
        }
    };
    Tested { name: &case.name, line: case.line, ok, expected: &case.expect, why, answer }
}

fn render(report: &Report<'_>) -> String {
    let mut table = Table::new(&["RESULT", "LINE", "CASE", "EXPECTED", "WHY"]);
    for case in &report.cases {
        let result = if case.ok { "pass" } else { "FAIL" };
        let (name, expected) = (case.name.to_owned(), case.expected.to_owned());
        table.row(&[result.to_owned(), case.line.to_string(), name, expected, case.why.clone()]);
    }
    let table = if report.cases.is_empty() { String::new() } else { table.render() };
    let style = if report.ok { Style::new().green() } else { Style::new().red() };
    let sum = format!("{} passed, {} failed", report.passed, report.failed);
    format!("{table}{}\n", sum.style(style.bold()))
}
