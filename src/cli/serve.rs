//! `valetkey serve`: from flags to a running sidecar and back.

mod arguments;
mod assembly;
mod confine;
mod listeners;
mod outer;
#[cfg(test)]
mod panics;
mod ready;
mod record;
mod reload;
mod remote;
mod reports;
mod webhooks;

use std::time::Duration;

pub use arguments::Arguments;
pub use assembly::Sidecar;

use super::Failure;
use crate::process::{self, Asked, Signals};
use crate::{config, telemetry};

/// Runs the sidecar until a signal ends it.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    telemetry::guard_panics();
    let problems = process::harden();
    arguments.check()?;
    // The policy first: a bad one ends the process before a port is bound.
    let known = reload::Stamp::settled(&arguments.policy);
    let loaded = config::load_policy(&arguments.policy, arguments.allow_exec)
        .map_err(|mistakes| Failure::policy(mistakes.report(config::Look::of_stderr())))?;
    // May replace this process by one with a clean environment: so far no thread exists and nothing was said.
    let secrets = process::take_environment(&config::read_environment(&loaded)).map_err(Failure::other)?;
    let channel = if arguments.supervised { Some(process::take_channel().map_err(Failure::usage)?) } else { None };
    telemetry::init(arguments.log_format, &arguments.log_level).map_err(Failure::usage)?;
    for problem in problems {
        tracing::warn!("{problem}");
    }
    let locked = arguments.protection.lock_memory()?;
    // For everything but the agents, who have threads of their own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::other(format!("cannot start the runtime: {error}")))?;
    runtime.block_on(async {
        let mut signals = process::Signals::listen().map_err(Failure::other)?;
        let sidecar = tokio::select! {
            started = Sidecar::start(arguments, loaded, secrets, (channel, locked, known)) => started?,
            // A credential's command can take its time.
            () = asked_to_end(&mut signals) => return Err(Failure::other("ended by a signal before it was ready")),
        };
        if let Err(failure) = sidecar.announce(arguments.ready_file.as_deref()) {
            sidecar.stop("not announced").await;
            return Err(failure);
        }
        let reason = asked_or_left(&mut signals, &sidecar).await;
        tokio::select! {
            () = sidecar.stop(reason) => Ok(()),
            () = second(&mut signals) => Err(Failure::other("ended at once by a second signal")),
        }
    })
}

/// Waits for the first signal that asks for an end.
async fn asked_to_end(signals: &mut Signals) {
    while signals.next().await == Asked::Reopen {}
}

/// Serves until a signal asks for an end, or the supervisor is gone; which of them.
async fn asked_or_left(signals: &mut Signals, sidecar: &Sidecar) -> &'static str {
    loop {
        tokio::select! {
            () = sidecar.left_alone() => return "supervisor gone",
            asked = signals.next() => match asked {
                Asked::Reopen => {
                    sidecar.reopen_audit();
                    sidecar.reload_policy();
                }
                Asked::Drain | Asked::End => return "signal",
            },
        }
    }
}

/// Waits for the signal that ends at once.
async fn second(signals: &mut Signals) {
    while signals.next().await != Asked::End {}
}

/// How long the last records may take when everything else is over.
pub const AUDIT_CLOSE: Duration = Duration::from_secs(2);
