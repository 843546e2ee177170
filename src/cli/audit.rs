//! `valetkey audit`: whether an audit is whole, and what is in it.

use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anstream::ColorChoice;
use clap::{Args, Subcommand, ValueHint};
use serde::{Deserialize, Serialize};

use super::{Failure, health, print};
use crate::audit::{self, Colour, Filter, Follow, Tail};

mod verify;

const VERIFY_EXAMPLES: &str = "Examples:
  valetkey audit verify audit.jsonl
  valetkey audit verify audit.jsonl --head $(cat yesterday.head)
  valetkey audit verify audit.jsonl --key noted.keys --json
  zcat audit.jsonl.gz | valetkey audit verify -

The chain shows every edit to whoever cannot write the whole file anew. Against those, keep somewhere else what
`valetkey audit head` prints: with --head, an end that was cut off or rewritten shows; with --key, the key of each
start, everything that another wrote.";

const HEAD_EXAMPLES: &str = "Examples:
  valetkey audit head >> heads                    the last record, as `audit verify --head` takes it
  valetkey audit head --key >> noted.keys         the key of this start, as `audit verify --key` takes it";

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
    /// Print where the chain of a running sidecar stands, to be kept elsewhere.
    #[command(after_help = HEAD_EXAMPLES)]
    Head(Head),
    /// Show records, one line each; --follow waits for more.
    #[command(after_help = TAIL_EXAMPLES)]
    Tail(Shown),
}

#[derive(Debug, Args)]
struct Verify {
    /// The audit, or - for standard input.
    #[arg(value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// A record that must be in it, as `audit head` or an earlier verify printed it.
    #[arg(long, value_name = "[NUMBER:]HASH")]
    head: Option<String>,
    /// The key of a start, or a file with one on each line; can be given again. From the first of them on, no start
    /// may have another.
    #[arg(long, value_name = "KEY|FILE")]
    key: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Head {
    /// The sidecar's admin listener.
    #[arg(long, env = "VALETKEY_ADMIN", value_name = "ADDR", default_value = "127.0.0.1:9090")]
    admin: SocketAddr,
    /// Print the key that its checkpoints are signed with instead.
    #[arg(long)]
    key: bool,
    /// Print both, and the boot, as JSON.
    #[arg(long, conflicts_with = "key")]
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
        Command::Verify(arguments) => verify::run(arguments),
        Command::Head(arguments) => head(arguments),
        Command::Tail(arguments) => tail(arguments),
    }
}

/// What `/audit` answers.
#[derive(Debug, Serialize, Deserialize)]
struct Standing {
    boot_id: String,
    key: String,
    head: Option<String>,
}

fn head(arguments: &Head) -> Result<(), Failure> {
    let (_, body) = health::look(arguments.admin, "/audit")?;
    let Ok(standing) = serde_json::from_slice::<Standing>(&body) else {
        return Err(Failure::remote(format!(
            "what answers at {} does not say where its audit stands; --admin names another address",
            arguments.admin
        )));
    };
    match (arguments.json, arguments.key, &standing.head) {
        (true, _, _) => print::json(&standing),
        (false, true, _) => print::text(&format!("{}\n", print::visible(&standing.key))),
        (false, false, Some(head)) => print::text(&format!("{}\n", print::visible(head))),
        (false, false, None) => Err(Failure::remote("it has not written a record yet: its audit cannot be written")),
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
