//! `valetkey nonce`: minting, reading, renewing and ending nonces over the control socket.
//!
//! A plain nonce leaves through standard output alone, and never comes in by the command line, where every process of
//! the machine could read it: all but `create` work with ids.

mod ask;
pub(super) mod failed;
mod many;
mod render;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};
use serde_json::json;

use super::{Failure, default_control, print, runtime};
use crate::control::client::{Client, ClientError};
use crate::control::types::{LeaseView, ListQuery, Minted, PlainNonce};
use crate::model::{NonceId, nonce};

const CREATE_EXAMPLES: &str = "Examples:
  valetkey nonce create --agent billing --task refund-4711 --service stripe --scope read:customers --ttl 5m
  N=$(valetkey nonce create --quiet --agent billing --task t --grant stripe:read:customers --grant slack:write:messages)
  STRIPE_API_KEY=$(valetkey nonce create -q --agent billing --task t --grant stripe:read:charges --placeholder stripe)

The nonce is printed on standard output, once; everything else goes to standard error.";

const LIST_EXAMPLES: &str = "Examples:
  valetkey nonce list --agent billing
  valetkey nonce revoke $(valetkey nonce list --task refund-4711 --ids)";

const RENEW_EXAMPLES: &str = "Example:
  valetkey nonce renew nc_01J8Z4T6V0Q2W4E6R8T0Y2V4X6 --ttl 5m

The expiry never moves backwards, and never beyond the end of the nonce's life. Only its own minter may renew a nonce.";

/// Flags of `valetkey nonce`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Mint a nonce and print it.
    #[command(visible_alias = "mint", after_help = CREATE_EXAMPLES)]
    Create(Box<Create>),
    /// List the live nonces, never the nonces themselves.
    #[command(after_help = LIST_EXAMPLES)]
    List(List),
    /// Show one live nonce and what it opens.
    Show(Show),
    /// Give a live nonce another period from now on; it stays the same nonce.
    #[command(after_help = RENEW_EXAMPLES)]
    Renew(Renew),
    /// End nonces at once, on connections that are already open too.
    #[command(after_help = many::REVOKE_EXAMPLES)]
    Revoke(Revoke),
    /// End all nonces of a task of one's own, and let none be minted for it for an hour.
    Complete(many::Complete),
    /// Ask the sidecar whether a request would be allowed, and by what; nothing is sent.
    #[command(after_help = many::EXPLAIN_EXAMPLES)]
    Explain(many::Explain),
}

/// Where to ask.
#[derive(Debug, Args)]
struct Socket {
    /// The sidecar's control socket.
    #[arg(long, env = "VALETKEY_CONTROL", value_name = "PATH", default_value_os_t = PathBuf::from(default_control()), value_hint = ValueHint::FilePath)]
    control: PathBuf,
}

#[derive(Debug, Args)]
struct Create {
    #[command(flatten)]
    wanted: ask::Wanted,
    /// A retry with the same key gets the same nonce, for ten minutes.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Print the nonce in the shape that this service's SDKs insist on.
    #[arg(long, value_name = "SERVICE")]
    placeholder: Option<String>,
    /// Print the nonce and nothing else.
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
    /// Print the whole answer as JSON.
    #[arg(long, conflicts_with = "placeholder")]
    json: bool,
    #[command(flatten)]
    socket: Socket,
}

#[derive(Debug, Args)]
struct List {
    /// Of this agent only.
    #[arg(long)]
    agent: Option<String>,
    /// For this task only.
    #[arg(long)]
    task: Option<String>,
    /// With a grant of this service only.
    #[arg(long)]
    service: Option<String>,
    /// Print the ids alone, one a line.
    #[arg(long, conflicts_with = "json")]
    ids: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    socket: Socket,
}

#[derive(Debug, Args)]
struct Show {
    /// Its id: nc_…
    id: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    socket: Socket,
}

#[derive(Debug, Args)]
struct Renew {
    /// Its id: nc_…
    id: String,
    /// How long from now on at most, such as 90s, 5m or 1h; the policy's default if absent.
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    ttl: Option<u64>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    socket: Socket,
}

#[derive(Debug, Args)]
struct Revoke {
    /// Their ids: nc_…
    #[arg(required_unless_present_any = many::SELECTORS, conflicts_with_all = many::SELECTORS, value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    many: many::Which,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    socket: Socket,
}

/// Runs one of them.
pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let runtime = runtime()?;
    match arguments.command {
        Command::Create(arguments) => runtime.block_on(create(&arguments)),
        Command::List(arguments) => runtime.block_on(list(arguments)),
        Command::Show(arguments) => runtime.block_on(show(&arguments)),
        Command::Renew(arguments) => runtime.block_on(renew(&arguments)),
        Command::Revoke(arguments) if arguments.ids.is_empty() => {
            runtime.block_on(many::revoke(arguments.many, &arguments.socket, arguments.json))
        }
        Command::Revoke(arguments) => runtime.block_on(revoke(&arguments)),
        Command::Complete(arguments) => runtime.block_on(many::complete(arguments)),
        Command::Explain(arguments) => runtime.block_on(many::explain(arguments)),
    }
}

async fn create(arguments: &Create) -> Result<(), Failure> {
    let asked = arguments.wanted.read()?;
    let client = Client::new(&arguments.socket.control);
    let minted = client.mint(&asked, arguments.idempotency_key.as_deref()).await.map_err(failed::say)?;
    let nonce = match &arguments.placeholder {
        None => &minted.nonce,
        Some(service) => shaped(&minted, service)?,
    };
    let answer = if arguments.json {
        let document = serde_json::to_string_pretty(&minted).map_err(Failure::other)?;
        zeroize::Zeroizing::new(format!("{}\n", print::ascii(&document)))
    } else {
        zeroize::Zeroizing::new(format!("{}\n", nonce.as_str()))
    };
    // A nonce that nobody got lives on; whoever asked should know.
    print::write(&answer).map_err(|error| {
        Failure::other(format!(
            "the nonce was minted and could not be printed ({error})\n  end it: valetkey nonce revoke {}",
            minted.id
        ))
    })?;
    if !arguments.json && !arguments.quiet {
        print::note(render::minted(&minted).trim_end());
        if let Some(warning) = &minted.warning {
            print::warn(print::visible(warning));
        }
    }
    Ok(())
}

fn shaped<'a>(minted: &'a Minted, service: &str) -> Result<&'a PlainNonce, Failure> {
    minted.placeholders.get(service).ok_or_else(|| {
        let services: Vec<&str> = minted.grants.iter().map(|grant| grant.service.as_str()).collect();
        Failure::usage(format!(
            "--placeholder {}: this nonce is for {}; it was minted and not printed: valetkey nonce revoke {}",
            print::visible(service),
            services.join(", "),
            minted.id
        ))
    })
}

async fn list(arguments: List) -> Result<(), Failure> {
    let client = Client::new(&arguments.socket.control);
    let mut query =
        ListQuery { agent: arguments.agent, task: arguments.task, service: arguments.service, ..ListQuery::default() };
    let leases = pages(&client, &mut query).await.map_err(failed::say)?;
    if arguments.json {
        return print::json(&json!({ "nonces": leases }));
    }
    if arguments.ids {
        return print::text(&leases.iter().map(|lease| format!("{}\n", lease.id)).collect::<String>());
    }
    if leases.is_empty() {
        print::note("there are no live nonces that you may see");
        return Ok(());
    }
    print::text(&render::table(&leases))
}

/// All pages; each begins after the last id of the one before, so they come to an end.
async fn pages(client: &Client, query: &mut ListQuery) -> Result<Vec<LeaseView>, ClientError> {
    let mut leases = Vec::new();
    loop {
        let page = client.list(query).await?;
        leases.extend(page.nonces);
        match page.next_after {
            Some(after) if query.after.as_ref() != Some(&after) => query.after = Some(after),
            _ => return Ok(leases),
        }
    }
}

async fn show(arguments: &Show) -> Result<(), Failure> {
    let id = read_id(&arguments.id)?;
    let lease = Client::new(&arguments.socket.control).show(&id.to_string()).await.map_err(failed::say)?;
    if arguments.json { print::json(&lease) } else { print::text(&render::lease(&lease)) }
}

async fn renew(arguments: &Renew) -> Result<(), Failure> {
    let id = read_id(&arguments.id)?;
    let client = Client::new(&arguments.socket.control);
    let lease = client.renew(&id.to_string(), arguments.ttl).await.map_err(failed::say)?;
    if arguments.json { print::json(&lease) } else { print::text(&render::lease(&lease)) }
}

/// A number of seconds, or one with a unit.
fn seconds(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(['s', 'm', 'h', 'd']);
    let unit = match &text[digits.len()..] {
        "" | "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        "d" => Some(86_400),
        _ => None,
    };
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse::<u64>().ok().filter(|_| is_plain);
    let seconds = number.zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
    seconds.filter(|seconds| *seconds > 0).ok_or_else(|| "expected a time such as 90s, 5m or 1h".to_owned())
}

async fn revoke(arguments: &Revoke) -> Result<(), Failure> {
    // All of them first: a slip in the last must not leave the question of what became of the others.
    let ids = arguments.ids.iter().map(|id| read_id(id)).collect::<Result<Vec<_>, _>>()?;
    let client = Client::new(&arguments.socket.control);
    let mut outcomes = Vec::new();
    let mut failure = None;
    for id in ids {
        let outcome = client.revoke(&id.to_string()).await;
        outcomes
            .push(json!({ "id": id, "revoked": outcome.is_ok(), "error": outcome.as_ref().err().map(failed::code) }));
        if let Err(error) = outcome {
            let is_over = matches!(error, ClientError::Connect { .. });
            print::note(format_args!("{id}: not revoked ({})", print::visible(&failed::code(&error))));
            failure = Some(failed::say(error));
            if is_over {
                break;
            }
        } else if !arguments.json {
            print::text(&format!("revoked {id}\n"))?;
        }
    }
    if arguments.json {
        print::json(&outcomes)?;
    }
    failure.map_or(Ok(()), Err)
}

/// An id as it was typed. What looks like a nonce is neither sent nor repeated.
fn read_id(text: &str) -> Result<NonceId, Failure> {
    if nonce::find_all(text.as_bytes()).next().is_some() {
        return Err(Failure::usage(
            "that is a nonce, not an id: other processes could read it from this command line\n  \
             take its id (nc_…), which `valetkey nonce list` shows, and revoke it if it should be nobody's",
        ));
    }
    NonceId::parse(text)
        .ok_or_else(|| Failure::usage("an id is nc_ and 26 characters, as `valetkey nonce list` shows it"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Nonce;

    #[test]
    fn a_time_is_a_number_with_a_unit() {
        for (text, wanted) in [("90", 90), ("90s", 90), ("5m", 300), ("1h", 3600), ("2d", 172_800)] {
            assert_eq!(seconds(text), Ok(wanted));
        }
        for bad in ["", "s", "0", "-1", "+5m", "5mm", "1h30m", "5 m", "99999999999999999999", "999999999999999999d"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_nonce_in_place_of_an_id_is_refused_and_not_repeated() {
        let nonce = Nonce::from_entropy(&[7; 32]);
        for text in [nonce.as_str().to_owned(), format!("sk_test_{}", nonce.as_str())] {
            let said = format!("{:?}", read_id(&text).unwrap_err());
            assert!(said.contains("not an id") && !said.contains(nonce.as_str()), "{said}");
        }
        assert!(read_id("nc_01J8Z4T6V0Q2W4E6R8T0Y2V4X6").is_ok());
        assert!(read_id("01J8Z4T6V0Q2W4E6R8T0Y2V4X6").is_err());
    }
}
