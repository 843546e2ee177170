//! The command line: what was typed, and which file runs it.

mod audit;
mod block;
mod ca;
mod demo;
mod doctor;
mod env;
mod failure;
mod health;
mod nonce;
mod policy;
mod print;
mod run;
mod scan;
mod serve;
mod shims;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

pub use failure::Failure;

/// Runs beside an AI agent and swaps its short-lived nonces for real API credentials.
#[derive(Debug, Parser)]
#[command(name = "valetkey", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = failure::EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Play it all through: a sidecar, an agent and three imitated APIs, on this machine alone.
    Demo(demo::Arguments),
    /// Run a command with nonces in place of keys, and a sidecar for as long as it runs.
    Run(Box<run::Arguments>),
    /// Run the sidecar: proxy, control API and admin listener.
    Serve(Box<serve::Arguments>),
    /// Mint, list, show, renew, revoke and explain nonces over the control socket.
    Nonce(nonce::Arguments),
    /// Print the proxy and CA variables that clients need.
    Env(env::Arguments),
    /// Probe the clients installed here: do they find the proxy, and trust the CA?
    Doctor(doctor::Arguments),
    /// Make, show and bundle the local CA.
    Ca(ca::Arguments),
    /// Check, show and explain a policy file, without a sidecar.
    Policy(policy::Arguments),
    /// Verify and follow the audit.
    Audit(audit::Arguments),
    /// Find nonces, and long-lived keys, in files and logs.
    Scan(scan::Arguments),
    /// Ask a running sidecar how it is.
    Health(health::Arguments),
    /// Print completions for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Write the man pages into a directory.
    Man {
        /// Where to.
        directory: std::path::PathBuf,
    },
}

/// Parses the command line, runs it, and says what went wrong.
#[must_use]
pub fn main() -> ExitCode {
    dispatch(std::env::args_os())
}

fn dispatch(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    // redis and other libraries look for a process-wide provider; ours are given explicitly everywhere.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let outcome = match cli.command {
        Command::Run(arguments) => return run::run(&arguments).unwrap_or_else(Failure::report),
        Command::Scan(arguments) => return scan::run(&arguments).unwrap_or_else(Failure::report),
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Nonce(arguments) => nonce::run(arguments),
        Command::Env(arguments) => env::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Ca(arguments) => ca::run(&arguments),
        Command::Policy(arguments) => policy::run(&arguments),
        Command::Audit(arguments) => audit::run(&arguments),
        Command::Health(arguments) => health::run(&arguments),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "valetkey", &mut script);
            print::text(&String::from_utf8_lossy(&script))
        }
        Command::Man { directory } => man(&directory),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn man(directory: &std::path::Path) -> Result<(), Failure> {
    std::fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), directory))
        .map_err(|error| Failure::other(format!("cannot write man pages into {}: {error}", directory.display())))
}

/// A runtime for a command that asks one thing.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::other(format!("cannot start the runtime: {error}")))
}

/// Where the control socket is when nobody says: `$XDG_RUNTIME_DIR/valetkey/control.sock`, else below `/tmp`.
fn default_control() -> OsString {
    let base = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()).map(std::path::PathBuf::from);
    let directory = base.map_or_else(
        || std::path::PathBuf::from(format!("/tmp/valetkey-{}", rustix::process::getuid().as_raw())),
        |base| base.join("valetkey"),
    );
    directory.join("control.sock").into_os_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
