//! `valetkey policy learn`: the least scopes that cover what an audit has seen.
//!
//! `record` reads what a record says, `segment` knows what looks like an id, `shape` folds paths of one shape together,
//! `scope` makes rules of them, `fragment` spells them as TOML.

mod fragment;
mod record;
mod scope;
mod segment;
mod shape;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum, ValueHint};
use serde::Serialize;

use self::record::LeftOut;
use self::scope::Learned;
use self::shape::Seen;
use crate::audit::{self, Scanned};
use crate::cli::{Failure, print};

pub(super) const EXAMPLES: &str = "Examples:
  valetkey policy learn audit.jsonl
  valetkey policy learn audit.jsonl --agent billing --service stripe --of allowed
  zcat audit.jsonl.1.gz | valetkey policy learn - --json

Read what it prints before you paste it: an agent can ask for anything, and what was refused or only observed is learned
too unless you say --of allowed. Queries and bodies are not in an audit, so the rules say nothing of them. Whether the audit was
tampered with says `valetkey audit verify`.";

/// Literal words in one place from which on they are taken for ids.
const MANY_DEFAULT: u16 = 50;

/// Flags of `valetkey policy learn`.
#[derive(Debug, Args)]
pub(super) struct Learn {
    /// The audit, or - for standard input.
    #[arg(value_name = "AUDIT", value_hint = ValueHint::FilePath)]
    audit: PathBuf,
    /// What this agent asked for.
    #[arg(long)]
    agent: Option<String>,
    /// What was asked of this service.
    #[arg(long)]
    service: Option<String>,
    /// Which requests.
    #[arg(long, value_enum, value_name = "WHICH", default_value = "all")]
    of: Which,
    /// Fold so many different words in one place into a placeholder, even where they do not look like ids.
    #[arg(long, value_name = "N", default_value_t = MANY_DEFAULT, value_parser = clap::value_parser!(u16).range(2..=1000))]
    many: u16,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Which requests are learned from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    /// Those that were allowed, only observed, or refused as out of scope.
    All,
    /// Those that a scope allowed.
    Allowed,
    /// Those that no scope allowed and that went on, since their service was only observed.
    Observed,
    /// Those that were refused as out of scope.
    Refused,
}

/// The JSON form.
#[derive(Debug, Serialize)]
struct Report<'a> {
    audit: &'a Path,
    records: u64,
    /// Requests that the scopes cover.
    requests: u64,
    left_out: LeftOut,
    scopes: &'a [Learned],
    /// What is printed without `--json`.
    fragment: &'a str,
}

/// Reads an audit and prints what it teaches.
pub(super) fn run(arguments: &Learn) -> Result<(), Failure> {
    let reader: Box<dyn BufRead> = if arguments.audit.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(&arguments.audit).map_err(|error| unreadable(&arguments.audit, &error))?))
    };
    let (scanned, seen, mut left_out) = read(reader, arguments)?;
    let scopes = scope::learn(seen, &mut left_out);
    let text = fragment::spell(&arguments.audit, &scopes, &left_out);
    let requests: u64 = scopes.iter().map(Learned::requests).sum();
    if arguments.json {
        let (audit, records) = (&*arguments.audit, scanned.records);
        return print::json(&Report { audit, records, requests, left_out, scopes: &scopes, fragment: &text });
    }
    print::text(&text)?;
    if scopes.is_empty() {
        print::note(
            "no request in it was decided for an agent and a service as you asked; see --of, --agent, --service",
        );
    }
    Ok(())
}

fn read(reader: impl BufRead, arguments: &Learn) -> Result<(Scanned, Seen, LeftOut), Failure> {
    let wanted = record::Wanted {
        agent: arguments.agent.as_deref(),
        service: arguments.service.as_deref(),
        allowed: matches!(arguments.of, Which::All | Which::Allowed),
        observed: matches!(arguments.of, Which::All | Which::Observed),
        refused: matches!(arguments.of, Which::All | Which::Refused),
    };
    let (mut seen, mut left_out, mut is_full) = (Seen::new(arguments.many.into()), LeftOut::default(), false);
    let scanned = audit::scan(reader, |record| {
        match record::read(record, &wanted) {
            Ok(Some(request)) => is_full = seen.add(request).is_err(),
            Ok(None) => {}
            Err(why) => left_out.count(why),
        }
        if is_full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let scanned = scanned.map_err(|error| unreadable(&arguments.audit, &error))?;
    let name = arguments.audit.display();
    if is_full {
        let max = shape::SHAPES_MAX;
        return Err(Failure::other(format!(
            "{name}: over {max} paths of different shapes\n  narrow it with --agent and --service, or lower --many"
        )));
    }
    if scanned.records == 0 {
        return Err(Failure::audit(format!("{name}: there is no record in it\n  is it an audit of valetkey?")));
    }
    Ok((scanned, seen, left_out))
}

fn unreadable(file: &Path, error: &io::Error) -> Failure {
    let name = file.display();
    Failure::other(format!("{name}: {error}\n  name the file that was given to `valetkey serve --audit`, or -"))
}
