//! `valetkey run`: a command with nonces in place of keys, and a sidecar for as long as it runs.
//!
//! - `grants`: what `--grant` asks for · `names`: which variables · `environment`: what the command gets
//! - `place`, `sidecar`: a private sidecar and its directory · `session`: that one, or one that runs already; its nonces
//! - `child`: the command and its signals · `renewal`: its nonces stay alive · `told`, `voice`: what is said meanwhile
//!
//! In this order: read, start the sidecar, mint, start the command, renew and tell until it ends, revoke, stop.

mod child;
mod environment;
mod grants;
mod names;
mod place;
mod renewal;
mod session;
mod sidecar;
mod told;
mod voice;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueHint};

use super::block::Block;
use super::{Failure, print, runtime};
use crate::{process, telemetry};
use child::Signals;
use environment::Environment;
use grants::Wish;
use session::Session;
use voice::Voice;

const EXAMPLES: &str = "Examples:
  valetkey run --grant stripe:read:customers -- python agent.py
  valetkey run --grant github:read:app=GITHUB_TOKEN --grant openai:chat -- claude -p 'triage the issues'
  valetkey run --attach /run/valetkey/control.sock --agent billing --grant stripe:read:charges=KEY -- ./job

The command gets nonces under the names that its SDKs read, and the proxy and CA variables; it does not get the real
keys, nor the identity of this machine or user to a cloud. Its exit code is ours: 127 if it is not found, 126 if it
cannot be run, 128 and the signal's number if one ended it. The codes below are ours when it was never started.";

/// Flags of `valetkey run`.
#[derive(Debug, Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{}", super::failure::EXIT_CODES))]
pub struct Arguments {
    /// A service with scopes, and the variables that get the nonce; without them, those that its SDKs read. Grants with
    /// a variable in common share one nonce. Repeatable.
    #[arg(long = "grant", value_name = "SERVICE:SCOPE[=NAME]", value_parser = Wish::parse, required = true)]
    grants: Vec<Wish>,

    /// The policy file of the private sidecar; with --attach, the one whose credentials are kept from the command.
    #[arg(long, env = "VALETKEY_POLICY", value_name = "FILE", value_hint = ValueHint::FilePath)]
    policy: Option<PathBuf>,

    /// Whose nonces these are; needed where the policy has several agents.
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,

    /// For what, in the audit; a name of this run if absent.
    #[arg(long, value_name = "NAME")]
    task: Option<String>,

    /// How long a nonce lives when it is not renewed, such as 90s or 5m; the policy's own time if absent.
    #[arg(long, value_name = "TIME")]
    ttl: Option<String>,

    /// Use the sidecar that runs at this control socket instead of a private one.
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath, conflicts_with_all = ["audit", "allow_exec", "connect_to", "log_level"])]
    attach: Option<PathBuf>,

    /// Where the private sidecar's audit goes; if absent, a file of its own below $XDG_STATE_HOME/valetkey/run.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    audit: Option<PathBuf>,

    /// More hosts that are reached directly, besides this machine; with commas between them. Repeatable.
    #[arg(long, value_name = "HOST", value_delimiter = ',', value_parser = super::env::direct)]
    no_proxy: Vec<String>,

    /// Leave out the shims for clients that find neither proxy nor CA by variables.
    #[arg(long)]
    no_shims: bool,

    /// Let the command have this variable, which would be taken out. Repeatable.
    #[arg(long, value_name = "NAME", value_parser = names::variable)]
    keep_env: Vec<String>,

    /// Allow credentials with source = "exec".
    #[arg(long)]
    allow_exec: bool,

    /// Send one destination elsewhere, as in curl; its name and TLS verification stay. Repeatable; for tests.
    #[arg(long, value_name = "HOST:PORT:ADDR:PORT")]
    connect_to: Vec<String>,

    /// What of the private sidecar's log is shown: error, warn, info, debug; if absent, warnings that the run causes.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,

    /// Say nothing beside the command, unless it cannot be started.
    #[arg(long, short)]
    quiet: bool,

    /// The command and its arguments, behind --.
    #[arg(last = true, required = true, value_name = "COMMAND", value_hint = ValueHint::CommandWithArguments)]
    command: Vec<OsString>,
}

impl Arguments {
    fn voice(&self) -> Voice {
        if self.quiet { Voice::Quiet } else { Voice::Speaks }
    }
}

/// Runs the command; its exit code.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    telemetry::guard_panics();
    // The real keys are in our environment. What a command inherits besides stays as the user has it.
    if let Some(problem) = process::conceal() {
        arguments.voice().warn(problem);
    }
    let known = session::read(arguments)?;
    runtime()?.block_on(async {
        // From here on a signal ends nothing that would not be cleared away.
        let mut signals = Signals::listen()?;
        let mut session = tokio::select! {
            opened = Session::open(arguments, known) => opened?,
            code = signals.end() => return Ok(ExitCode::from(code)),
        };
        let outcome = serve(arguments, &mut session, &mut signals).await;
        session.close().await;
        outcome.map(ExitCode::from)
    })
}

/// Mints, starts the command, and attends to it until it ends.
async fn serve(arguments: &Arguments, session: &mut Session, signals: &mut Signals) -> Result<u8, Failure> {
    let mut environment = Environment::strip(std::env::vars_os(), session.secrets())?;
    session.mint(arguments, &mut environment).await?;
    lead_through(arguments, session, &mut environment)?;
    session.attend().await;
    introduce(arguments.voice(), session, &environment);
    let mut child = child::start(&arguments.command, &environment)?;
    // The command has its copy.
    drop(environment);
    tokio::select! {
        code = child::attend(&mut child, signals) => return code,
        () = session.sidecar_ended() => {}
    }
    arguments.voice().warn("the sidecar has ended: the command's requests fail from here on");
    child::attend(&mut child, signals).await
}

/// The variables that send the command's clients through the sidecar and make them trust it.
fn lead_through(arguments: &Arguments, session: &Session, environment: &mut Environment) -> Result<(), Failure> {
    let block = Block {
        proxy: session.proxy()?,
        directory: session.public(),
        no_proxy: arguments.no_proxy.clone(),
        shims: (!arguments.no_shims).then(|| session.shims()),
    };
    block.write_shims()?;
    let variables = block.merged(&|name| environment.get(name))?;
    let exported = session.exported();
    if let Some((name, _)) = variables.iter().find(|(name, _)| exported.contains(name)) {
        return Err(Failure::usage(format!("--grant …={name}: this variable leads clients through the sidecar")));
    }
    for name in names::AROUND {
        environment.remove(name);
    }
    for (name, value) in variables {
        environment.set(name, &value);
    }
    Ok(())
}

/// What the command gets, and what it does not.
fn introduce(voice: Voice, session: &Session, environment: &Environment) {
    for held in session.held() {
        let grants: Vec<String> =
            held.grants.iter().map(|grant| format!("{}:{}", grant.service, grant.scopes.join(","))).collect();
        voice.note(format_args!("{} opens {}", held.names, print::visible(&grants.join(" "))));
    }
    let taken: Vec<String> = environment.taken().map(print::visible).collect();
    if !taken.is_empty() {
        voice.note(format_args!("not given to the command: {}", taken.join(", ")));
    }
}
