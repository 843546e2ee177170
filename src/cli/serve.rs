//! `valetkey serve`: from flags to a running sidecar and back.

mod arguments;
mod assembly;

use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub use arguments::Arguments;
pub use assembly::{Secrets, Sidecar};

use super::Failure;
use crate::{config, process, telemetry};

/// Runs the sidecar until a signal ends it.
pub fn run(arguments: Arguments) -> Result<(), Failure> {
    telemetry::init(arguments.log_format, &arguments.log_level);
    arguments.check()?;
    // The policy first: a bad one ends the process before a port is bound.
    let loaded = config::load_policy(&arguments.policy, arguments.allow_exec).map_err(Failure::policy)?;
    for problem in process::harden() {
        tracing::warn!(problem, "the process could not be hardened in full");
    }
    // May replace this process by one with a clean environment; no thread exists yet.
    let secrets = process::take_environment(&config::environment_names(&loaded)).map_err(Failure::other)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::other(format!("cannot start the runtime: {error}")))?;
    runtime.block_on(async {
        let mut signals = process::Signals::new().map_err(Failure::other)?;
        let sidecar = Sidecar::start(&arguments, loaded, secrets).await?;
        sidecar.announce(arguments.ready_file.as_deref())?;
        let stop = CancellationToken::new();
        signals.wait_for_stop(|| sidecar.reopen_audit()).await;
        stop.cancel();
        tokio::select! {
            () = sidecar.stop("signal") => Ok(()),
            () = signals.wait_for_stop(|| {}) => Err(Failure::other("ended at once by a second signal")),
        }
    })
}

/// How long the last records may take when everything else is over.
pub const AUDIT_CLOSE: Duration = Duration::from_secs(2);
