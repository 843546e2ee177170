//! `valetkey scan`: finds nonces, and with `--secrets` long-lived keys, in files and logs.
//!
//! - `walk`: which files, and what is read of them
//! - `kinds`: what a nonce and the keys of well-known services look like
//!
//! What is found is never printed: of each only its fixed beginning.

mod kinds;
mod walk;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueHint};
use serde_json::{Value, json};

use super::nonce::failed;
use super::{Failure, print, runtime};
use crate::control::client::Client;
use crate::control::types::PlainNonce;
use kinds::{Find, What};
use walk::Walk;

/// Finds that are told of; further ones are counted.
const FINDS_MAX: usize = 10_000;

const EXAMPLES: &str = "Examples:
  valetkey scan ~/work /var/log/agents
  valetkey scan --control /run/valetkey/control.sock transcripts
  valetkey scan --secrets . --json

Each find is a line FILE:LINE:KIND, never the secret. Links are not followed; binary files, and files over --max-mib, are
passed over and counted.

Exit codes:
  0  nothing was found
  1  something was found
  2  the command line is wrong, or something could not be read (and nothing was found in the rest)
  7  no sidecar answers at --control, or it refused; what was found is shown as unknown";

/// Flags of `valetkey scan`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Files and directories.
    #[arg(required = true, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    paths: Vec<PathBuf>,
    /// Look for long-lived keys of well-known services, too.
    #[arg(long)]
    secrets: bool,
    /// Ask the sidecar at this control socket which nonces are alive.
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    control: Option<PathBuf>,
    /// Files of more mebibytes are passed over.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    max_mib: u16,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A find, and where.
struct Found {
    path: PathBuf,
    find: Find,
}

/// Everything that was found.
#[derive(Default)]
struct Finds {
    listed: Vec<Found>,
    /// Not listed any more.
    further: u64,
}

/// Runs it.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut finds = Finds::default();
    let mut walk = Walk::new(u64::from(arguments.max_mib) << 20);
    for path in &arguments.paths {
        walk.file_by_file(path, &mut |path, content| {
            kinds::find(content, arguments.secrets, &mut |find| finds.add(path, find));
        });
    }
    let seen = walk.finish();
    let mut states = BTreeMap::new();
    let asked = match &arguments.control {
        Some(control) => runtime()?.block_on(ask(&Client::new(control), &finds, &mut states)),
        None => Ok(()),
    };
    if arguments.json {
        let listed: Vec<_> = finds.listed.iter().map(|found| document(found, &states)).collect();
        print::json(&json!({
            "finds": listed, "further": finds.further, "files": seen.files, "binary": seen.binary,
            "too_large": seen.too_large, "links": seen.links, "unreadable": seen.unreadable,
        }))?;
    } else {
        let lines: String = finds.listed.iter().map(|found| line(found, &states)).collect();
        print::text(&lines)?;
        print::note(summary(&finds, &seen));
    }
    // What was found is shown first: whoever plants more nonces than a minter may ask about hides none of the others.
    asked?;
    Ok(ExitCode::from(match (finds.listed.is_empty(), seen.unreadable) {
        (false, _) => 1,
        (true, 0) => 0,
        (true, _) => 2,
    }))
}

impl Finds {
    fn add(&mut self, path: &std::path::Path, find: Find) {
        if self.listed.len() < FINDS_MAX {
            self.listed.push(Found { path: path.to_owned(), find });
        } else {
            self.further += 1;
        }
    }
}

/// What the sidecar knows of a nonce: its id if it is alive.
type States = BTreeMap<String, Option<String>>;

/// Asks once for each nonce, up to the first that cannot be asked about.
async fn ask(client: &Client, finds: &Finds, states: &mut States) -> Result<(), Failure> {
    for found in &finds.listed {
        let What::Nonce(nonce) = &found.find.what else { continue };
        if !states.contains_key(nonce.as_str()) {
            let known = client.introspect(&PlainNonce::new(nonce.to_string())).await.map_err(failed::say)?;
            states.insert(nonce.to_string(), known.jti.filter(|_| known.active));
        }
    }
    Ok(())
}

/// The kind, what is shown of it, the state of a nonce, and its id.
fn told<'a>(
    found: &'a Found,
    states: &'a States,
) -> (&'static str, &'static str, Option<&'static str>, Option<&'a str>) {
    match &found.find.what {
        What::Secret(kind) => (kind.name, kind.shown, None, None),
        What::Nonce(nonce) => match states.get(nonce.as_str()) {
            None => ("nonce", "an_", Some("unknown"), None),
            Some(None) => ("nonce", "an_", Some("not alive"), None),
            Some(Some(id)) => ("nonce", "an_", Some("alive"), Some(id)),
        },
    }
}

fn line(found: &Found, states: &States) -> String {
    let (kind, shown, state, id) = told(found, states);
    let path = print::visible(&found.path.to_string_lossy());
    let mut line = format!("{path}:{}:{kind} {shown}…", found.find.line);
    for more in [state, id].into_iter().flatten() {
        line.push(' ');
        line.push_str(&print::visible(more));
    }
    line.push('\n');
    line
}

fn document(found: &Found, states: &States) -> Value {
    let (kind, shown, state, id) = told(found, states);
    let path = found.path.to_string_lossy();
    json!({ "file": path, "line": found.find.line, "kind": kind, "shown": shown, "state": state, "id": id })
}

fn summary(finds: &Finds, seen: &walk::Seen) -> String {
    let count = finds.listed.len().saturating_add(usize::try_from(finds.further).unwrap_or(usize::MAX));
    let files = usize::try_from(seen.files).unwrap_or(usize::MAX);
    let mut text = format!("{} in {}", print::count(count, "find", "finds"), print::count(files, "file", "files"));
    for (number, what) in [
        (finds.further, "finds more than are listed"),
        (seen.binary, "binary, passed over"),
        (seen.too_large, "too large, passed over"),
        (seen.links, "links or no files, passed over"),
        (seen.unreadable, "could not be read"),
    ] {
        if number > 0 {
            text.push_str(&format!("; {number} {what}"));
        }
    }
    text
}
