//! `valetkey audit`: whether an audit is whole, and what is in it.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anstream::ColorChoice;
use clap::{Args, Subcommand, ValueHint};
use serde_json::json;

use super::{Failure, print};
use crate::audit::{self, Broken, Colour, Filter, Flaw, Follow, Tail, Verified};

const VERIFY_EXAMPLES: &str = "Examples:
  valetkey audit verify audit.jsonl
  valetkey audit verify audit.jsonl --head $(cat yesterday.head)
  zcat audit.jsonl.gz | valetkey audit verify -

The chain shows every edit to whoever cannot write the whole file anew. Against those, keep the head that this prints
somewhere else and give it with --head the next time.";

const TAIL_EXAMPLES: &str = "Examples:
  valetkey audit tail audit.jsonl --follow
  valetkey audit tail audit.jsonl --decision deny --agent billing --last 20
  valetkey audit tail audit.jsonl --exchange ex_01J8Z… --json";

/// Flags of `valetkey audit`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check that nothing in an audit was edited, removed, moved or inserted.
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify(Verify),
    /// Show records, one line each; --follow waits for more.
    #[command(after_help = TAIL_EXAMPLES)]
    Tail(Shown),
}

#[derive(Debug, Args)]
struct Verify {
    /// The audit, or - for standard input.
    #[arg(value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// The hash of a record that must be in it: 64 hexadecimal digits, as an earlier verify printed them.
    #[arg(long, value_name = "HASH")]
    head: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Shown {
    /// The audit.
    #[arg(value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// Wait for more at the end, across rotations.
    #[arg(long, short)]
    follow: bool,
    /// Only the last so many that pass the filters, at most 10000.
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    last: Option<u16>,
    /// Print each record as a line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filter: FilterArguments,
}

/// Which records.
#[derive(Debug, Args)]
#[command(next_help_heading = "Filters; all that are given must hold")]
struct FilterArguments {
    /// start, stop, mint, lease_end, decision, end, …
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// What was decided.
    #[arg(long, value_parser = ["allow", "deny"])]
    decision: Option<String>,
    /// Why it was refused: out_of_scope, nonce_expired, …
    #[arg(long)]
    code: Option<String>,
    /// The agent.
    #[arg(long)]
    agent: Option<String>,
    /// The task.
    #[arg(long)]
    task: Option<String>,
    /// The service.
    #[arg(long)]
    service: Option<String>,
    /// The nonce, by its id: nc_…
    #[arg(long, value_name = "ID")]
    nonce_id: Option<String>,
    /// The exchange: ex_…
    #[arg(long, value_name = "ID")]
    exchange: Option<String>,
}

/// Runs one of them.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Command::Verify(arguments) => verify(arguments),
        Command::Tail(arguments) => tail(arguments),
    }
}

fn verify(arguments: &Verify) -> Result<(), Failure> {
    let name = arguments.file.display();
    let reader: Box<dyn BufRead> = if arguments.file.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        // An audit that is gone does not verify either.
        let file = File::open(&arguments.file).map_err(|error| Failure::audit(format!("{name}: {error}")))?;
        Box::new(BufReader::new(file))
    };
    match audit::verify(reader, arguments.head.as_deref()) {
        Ok(verified) => whole(arguments, &verified),
        Err(Broken { what: Flaw::HeadMalformed, .. }) => {
            Err(Failure::usage(format!("--head: {}", Flaw::HeadMalformed)))
        }
        Err(broken) => {
            if arguments.json {
                print::json(&json!({
                    "ok": false, "line": broken.line, "code": code(broken.what), "what": broken.what.to_string(),
                }))?;
            }
            Err(Failure::audit(format!("{name}: {broken}\n  {}", hint(broken.what))))
        }
    }
}

fn whole(arguments: &Verify, verified: &Verified) -> Result<(), Failure> {
    let is_continued = verified.continues.bytes().any(|digit| digit != b'0');
    if arguments.json {
        return print::json(&json!({
            "ok": true,
            "records": verified.records,
            "boots": verified.boots,
            "head": verified.head,
            "continues": is_continued.then_some(&verified.continues),
            "torn_tail_bytes": verified.torn_tail_bytes,
        }));
    }
    let mut block = print::Block::default();
    block
        .fact("  records", verified.records)
        .fact("  starts", verified.boots)
        .fact("  head", &verified.head)
        .maybe("  continues", is_continued.then_some(&verified.continues));
    print::text(&format!("{} is whole\n{}", print::visible(&arguments.file.to_string_lossy()), block.render()))?;
    if verified.torn_tail_bytes > 0 {
        print::note(format_args!(
            "{} after the last record: one that is being written, or that a crash cut off; the next start says so",
            print::count(usize::try_from(verified.torn_tail_bytes).unwrap_or(usize::MAX), "byte", "bytes")
        ));
    }
    Ok(())
}

/// For programs.
fn code(flaw: Flaw) -> &'static str {
    match flaw {
        Flaw::Edited => "edited",
        Flaw::Unlinked => "unlinked",
        Flaw::Misnumbered => "misnumbered",
        Flaw::Headless => "headless",
        Flaw::Empty => "empty",
        Flaw::NotARecord => "not_a_record",
        Flaw::TornLine => "torn_line",
        Flaw::Version => "version",
        Flaw::TooLong => "too_long",
        Flaw::HeadMissing => "head_missing",
        Flaw::HeadMalformed => "head_malformed",
        Flaw::Unreadable(_) => "unreadable",
    }
}

fn hint(flaw: Flaw) -> &'static str {
    match flaw {
        Flaw::Edited | Flaw::Unlinked | Flaw::Misnumbered | Flaw::TornLine => {
            "keep this file as evidence, and compare it with a copy that was shipped elsewhere"
        }
        Flaw::Headless => "look for the file before it; if it was never rotated, its beginning was removed",
        Flaw::Empty | Flaw::NotARecord | Flaw::TooLong => "is it an audit of valetkey, and nothing else in it?",
        Flaw::Version => "verify it with the version of valetkey that wrote it",
        Flaw::HeadMissing | Flaw::HeadMalformed => {
            "give the head of this file, or of the file that follows it, as `audit verify` printed it"
        }
        Flaw::Unreadable(_) => "name a file that this user may read, or - for standard input",
    }
}

fn tail(arguments: &Shown) -> Result<(), Failure> {
    let what = Tail {
        follow: if arguments.follow { Follow::Yes } else { Follow::No },
        last: arguments.last.map(usize::from),
        filter: arguments.filter.read(),
    };
    let colour = match anstream::AutoStream::choice(&io::stdout()) {
        ColorChoice::Never => Colour::Plain,
        ColorChoice::Auto | ColorChoice::AlwaysAnsi | ColorChoice::Always => Colour::Ansi,
    };
    let mut written = Ok(());
    let read = audit::tail(&arguments.file, &what, |record| {
        let line = if arguments.json { print::ascii(&record.to_string()) } else { audit::render(record, colour) };
        written = print::write(&format!("{line}\n"));
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    read.map_err(|error| unreadable(&arguments.file, &error))?;
    print::finish(written)
}

fn unreadable(file: &Path, error: &io::Error) -> Failure {
    let name = file.display();
    if file.as_os_str() == "-" {
        return Failure::usage(
            "audit tail reads a file; name it (a sidecar with --audit - writes to its standard output)",
        );
    }
    Failure::other(format!("{name}: {error}\n  name the file that was given to `valetkey serve --audit`"))
}

impl FilterArguments {
    fn read(&self) -> Filter {
        Filter {
            kind: self.kind.clone(),
            decision: self.decision.clone(),
            code: self.code.clone(),
            agent: self.agent.clone(),
            task: self.task.clone(),
            service: self.service.clone(),
            nonce_id: self.nonce_id.clone(),
            exchange_id: self.exchange.clone(),
        }
    }
}
