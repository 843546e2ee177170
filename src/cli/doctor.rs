//! `valetkey doctor`: do the clients installed here find a proxy, and trust its CA?
//!
//! Each is run once, for a name that exists nowhere, with the block of variables that [`super::block`] makes, against
//! a proxy of ours on the loopback with a CA in memory. Nothing leaves the machine unless a client ignores the proxy;
//! then all it does is to look for that name.
//!
//! - `clients`: the clients, how each is asked, what helps it
//! - `probe`: the proxy, which remembers who came how far
//! - `run`: one client run once, and what its words tell
//! - `table`: what is printed

mod clients;
mod probe;
mod run;
mod table;

use std::fs::DirBuilder;
use std::io::IsTerminal as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::clients::{CLIENTS, Client, NOT_INSTALLED};
use self::probe::Book;
use self::run::Ran;
use self::table::Finding;
use super::block::Block;
use super::{Failure, print, runtime};
use crate::authority::{Authority, Home};
use crate::clock::{SharedClock, SystemClock};
use crate::model::Destination;
use crate::process::{can_confine, can_lock_memory};

/// Clients at once: some take a second of a processor to start.
const AT_ONCE: usize = 3;
/// What every name that is asked for ends with; `invalid` is reserved and has no addresses (RFC 6761, 6.4).
const DOMAIN: &str = "doctor.valetkey.invalid";

const EXAMPLES: &str = "Examples:
  valetkey doctor                      every client installed here, with the variables of `valetkey env --shims`
  valetkey doctor --no-shims           with those of `valetkey env` alone
  valetkey doctor --only node,python   some of them
  valetkey doctor --as-is              with the variables set here, through the sidecar that they name

Ends with 0 if every client found works, with 1 if one does not.";

/// Flags of `valetkey doctor`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Only these: a name of the table, or what stands before its dash. Commas between them; repeatable.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = known)]
    only: Vec<String>,

    /// Judge the present environment by what clients say, instead of our own variables by what a proxy sees.
    #[arg(long)]
    as_is: bool,

    /// Without the shims of `valetkey env --shims`.
    #[arg(long, conflicts_with = "as_is")]
    no_shims: bool,

    /// How long one client may take, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=300))]
    timeout: u64,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn is_named(client: &Client, name: &str) -> bool {
    client.name == name || client.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'))
}

fn known(text: &str) -> Result<String, String> {
    if CLIENTS.iter().any(|client| is_named(client, text)) {
        return Ok(text.to_owned());
    }
    let names: Vec<&str> = CLIENTS.iter().map(|client| client.name).collect();
    Err(format!("the clients are {}", names.join(", ")))
}

/// Probes the clients and prints the table.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let is_wanted =
        |client: &&Client| arguments.only.is_empty() || arguments.only.iter().any(|name| is_named(client, name));
    let found: Vec<_> = CLIENTS
        .iter()
        .filter(is_wanted)
        .filter_map(|client| run::find(client.program).map(|program| (client, program)))
        .collect();
    if std::io::stderr().is_terminal() {
        let count = print::count(found.len(), "client", "clients");
        print::note(format_args!("probing {count}, at most {} s each", arguments.timeout));
    }
    let findings = runtime()?.block_on(findings(arguments, found))?;
    let failing = findings.iter().filter(|finding| !finding.works()).count();
    if arguments.json {
        let system = serde_json::json!({ "landlock": can_confine(), "lock_memory": can_lock_memory().is_ok() });
        print::json(&serde_json::json!({ "works": failing == 0, "clients": findings, "system": system }))?;
    } else if findings.is_empty() {
        print::note("none of these clients is installed here");
    } else {
        print::text(&table::render(&findings))?;
    }
    if !arguments.json {
        tell_of_system();
    }
    match failing {
        0 => Ok(()),
        _ => Err(Failure::other(format!(
            "{failing} of {} did not come through: see FIX",
            print::count(findings.len(), "client", "clients"),
        ))),
    }
}

/// What a sidecar started from here, by this user, can have of the system for its own protection.
fn tell_of_system() {
    if can_confine() {
        print::note("Landlock: there; a sidecar opens the files that it needs and no others");
    } else {
        print::note("Landlock: not on this kernel; a sidecar is not confined to the files that it needs");
    }
    match can_lock_memory() {
        Ok(()) => print::note("locked memory: allowed; nothing of a sidecar goes to swap"),
        Err(error) => print::note(format_args!("locked memory: no, {error}")),
    }
}

/// What every probe needs.
struct Surgery {
    scratch: Scratch,
    variables: Vec<(&'static str, String)>,
    /// Where our proxy writes; none with `--as-is`.
    book: Option<Arc<Book>>,
    limit: Duration,
}

async fn findings(arguments: &Arguments, found: Vec<(&'static Client, PathBuf)>) -> Result<Vec<Finding>, Failure> {
    let scratch = Scratch::new()?;
    let (variables, book) = if arguments.as_is { (Vec::new(), None) } else { open(&scratch, arguments).await? };
    let surgery = Arc::new(Surgery { scratch, variables, book, limit: Duration::from_secs(arguments.timeout) });
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut probes = JoinSet::new();
    for (at, (client, program)) in found.into_iter().enumerate() {
        let (surgery, places) = (Arc::clone(&surgery), Arc::clone(&places));
        probes.spawn(async move {
            // The semaphore is never closed.
            let _place = places.acquire().await;
            (at, examine(client, &program, &surgery).await)
        });
    }
    let mut done = probes.join_all().await;
    done.sort_by_key(|(at, _)| *at);
    Ok(done.into_iter().filter_map(|(_, finding)| finding).collect())
}

/// Starts our proxy, publishes its CA, and makes the block for both.
async fn open(
    scratch: &Scratch,
    arguments: &Arguments,
) -> Result<(Vec<(&'static str, String)>, Option<Arc<Book>>), Failure> {
    let clock: SharedClock = Arc::new(SystemClock);
    let authority = Authority::open(&Home::Memory, clock).map_err(|error| super::ca::unusable(&error))?;
    let public = scratch.0.join("public");
    authority.publish(&public).map_err(|error| super::ca::unusable(&error))?;
    let (listener, address) =
        probe::bind().await.map_err(|error| Failure::address(format!("no port on the loopback: {error}")))?;
    let proxy = Destination::parse(&address.to_string(), None).map_err(Failure::other)?;
    let shims = (!arguments.no_shims).then(|| scratch.0.join("shims"));
    let block = Block { proxy, directory: public, no_proxy: Vec::new(), shims };
    block.write_shims()?;
    let book = Arc::new(Book::default());
    tokio::spawn(probe::serve(listener, Arc::new(authority), Arc::clone(&book)));
    Ok((block.merged(&|name| std::env::var(name).ok())?, Some(book)))
}

/// Runs one client; `None` if it turns out not to be installed.
async fn examine(client: &Client, program: &Path, surgery: &Surgery) -> Option<Finding> {
    let host = format!("{}.{DOMAIN}", client.name);
    let directory = surgery.scratch.for_client(client.name).ok()?;
    let scratch = directory.to_str()?;
    let mut variables = surgery.variables.clone();
    variables.extend(client.variables(&host, scratch));
    let arguments = client.arguments(&host, scratch);
    let ran = run::run(program, &arguments, &variables, &directory, surgery.limit).await;
    if ran.code == Some(NOT_INSTALLED) || ran.said.contains("No module named pip") {
        return None;
    }
    let version = version(client, program, &ran, &directory, surgery.limit).await;
    let (proxy, ca) = match &surgery.book {
        None => run::judged(&ran),
        Some(book) => {
            let seen = book.of(&host);
            // One that ran out of time, or fell over before it asked anybody, has not said no.
            let no = run::judged(&ran).0.and(Some(false));
            let ended = ran.code.is_some().then_some(false);
            (
                if seen.proxy { Some(true) } else { no },
                if seen.request { Some(true) } else { ended.filter(|_| seen.proxy) },
            )
        }
    };
    Some(Finding::new(client, version, proxy, ca))
}

async fn version(client: &Client, program: &Path, ran: &Ran, directory: &Path, limit: Duration) -> String {
    let said = if client.version.is_empty() {
        run::version(&ran.said)
    } else {
        let arguments: Vec<String> = client.version.iter().map(|text| (*text).to_owned()).collect();
        run::version(&run::run(program, &arguments, &[], directory, limit).await.said)
    };
    said.unwrap_or_else(|| "?".to_owned())
}

/// A directory of ours alone, gone with this value.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, Failure> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(Failure::other)?;
        let path = std::env::temp_dir().join(format!("valetkey-doctor-{}", hex::encode(random)));
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|error| {
            let path = path.display();
            Failure::other(format!("cannot make {path}: {error}\n  TMPDIR names a directory that can be written to"))
        })?;
        Ok(Self(path))
    }

    /// A directory of one client's own, with what it needs in it.
    fn for_client(&self, name: &str) -> std::io::Result<PathBuf> {
        let path = self.0.join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        if name == "java" {
            std::fs::write(path.join(clients::JAVA_FILE), clients::JAVA)?;
        }
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // In a directory for temporary files; a rest of it does no harm.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_name_stands_for_a_family() {
        let of = |name: &str| CLIENTS.iter().filter(|client| is_named(client, name)).count();
        assert_eq!((of("node"), of("node-fetch"), of("curl"), of("no")), (3, 1, 1, 0));
        assert!(known("pyhton").is_err_and(|error| error.contains("python-urllib")));
    }

    #[test]
    fn the_scratch_directory_goes_with_its_value() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.for_client("java").unwrap();
        assert!(path.join(clients::JAVA_FILE).is_file());
        drop(scratch);
        assert!(!path.exists());
    }
}
