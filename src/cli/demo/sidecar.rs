//! The sidecar itself: this very program, started as `valetkey serve` in a process of its own.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::process::{Child, Command};

use super::canary::Canaries;
use super::trouble::{Context, Trouble};
use super::upstream::Upstream;
use super::workplace::Workplace;

/// How long it may take to be ready.
const READY_MAX: Duration = Duration::from_secs(10);
/// How long it may take to stop.
const STOP_MAX: Duration = Duration::from_secs(8);
/// How long it waits for exchanges under way when it stops; there are none.
const DRAIN: &str = "2s";
/// How long a killed process is waited for.
const KILL_MAX: Duration = Duration::from_millis(200);
/// Between two looks at the ready file, or at the process.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Lines of its log that are shown when it does not start.
const LOG_LINES_SHOWN: usize = 10;

/// The audit in the demo's directory.
pub(super) const AUDIT: &str = "audit.jsonl";
/// The log.
pub(super) const LOG: &str = "sidecar.log";
/// Its standard output.
pub(super) const OUTPUT: &str = "sidecar.out";
/// The CA's certificate.
pub(super) const CA: &str = "public/ca.pem";

/// The running process; killed when dropped, and waited for, so that it writes nothing into a directory that goes.
pub(super) struct Sidecar {
    pub(super) proxy: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) pid: u32,
    child: Child,
}

#[derive(Deserialize)]
struct Ready {
    proxy: SocketAddr,
    admin: SocketAddr,
}

impl Sidecar {
    /// Starts it and waits until it is ready.
    pub(super) async fn start(place: &Workplace, upstream: &Upstream, canaries: &Canaries) -> Result<Self, Trouble> {
        let mut child = command(place, upstream, canaries)?.spawn().context("the sidecar cannot be started")?;
        let pid = child.id().context("the sidecar ended at once")?;
        let begun = Instant::now();
        loop {
            if let Ok(Ready { proxy, admin }) = serde_json::from_slice(&place.read("ready.json")) {
                return Ok(Self { proxy, admin, pid, child });
            }
            if let Some(status) = child.try_wait()? {
                return Err(format!("the sidecar ended with {status}:\n{}", log_end(place)).into());
            }
            if begun.elapsed() > READY_MAX {
                return Err(format!("the sidecar was not ready within {READY_MAX:?}:\n{}", log_end(place)).into());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Stops it as an orchestrator does, by SIGTERM; its exit code, none if it had to be killed.
    pub(super) async fn stop(&mut self) -> Result<Option<i32>, Trouble> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).context("a process id")?;
        // Until it is waited for, the process id is not given to another process.
        if self.child.try_wait()?.is_none() {
            kill_process(pid, Signal::TERM)?;
        }
        match tokio::time::timeout(STOP_MAX, self.child.wait()).await {
            Ok(status) => Ok(status?.code()),
            Err(_) => {
                self.child.kill().await?;
                Ok(None)
            }
        }
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let begun = Instant::now();
        if self.child.start_kill().is_ok() {
            while matches!(self.child.try_wait(), Ok(None)) && begun.elapsed() < KILL_MAX {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

fn command(place: &Workplace, upstream: &Upstream, canaries: &Canaries) -> Result<Command, Trouble> {
    place.write("policy.toml", &include_str!("policy.toml").replace("{dir}", &place.quoted()))?;
    place.write("upstream.pem", &upstream.ca_pem)?;
    place.write("internal.key", &canaries.internal)?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("serve")
        .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--ca-in-memory"])
        .args(["--log-format", "text", "--drain-timeout", DRAIN])
        .arg("--policy")
        .arg(place.file("policy.toml"))
        .arg("--control")
        .arg(place.socket())
        .arg("--audit")
        .arg(place.file(AUDIT))
        .arg("--ca-publish")
        .arg(place.file("public"))
        .arg("--ready-file")
        .arg(place.file("ready.json"));
    for flag in upstream.connect_to() {
        command.args(["--connect-to", &flag]);
    }
    // Nothing of the user's own set-up: neither VALETKEY_… nor any real credential gets there.
    command
        .env_clear()
        .env("DEMO_STRIPE_KEY", &canaries.stripe)
        .env("DEMO_GITHUB_TOKEN", &canaries.github)
        .current_dir(place.path())
        .stdin(Stdio::null())
        .stdout(place.create(OUTPUT)?)
        .stderr(place.create(LOG)?)
        // Ctrl-C on the terminal is for the demo, which then stops the sidecar properly.
        .process_group(0)
        .kill_on_drop(true);
    Ok(command)
}

fn log_end(place: &Workplace) -> String {
    let log = String::from_utf8_lossy(&place.read(LOG)).into_owned();
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
}

#[cfg(test)]
mod tests {
    use crate::config;

    use super::*;

    #[test]
    fn the_embedded_policy_has_no_mistakes() {
        let place = Workplace::new().unwrap();
        place.write("policy.toml", &include_str!("policy.toml").replace("{dir}", &place.quoted())).unwrap();
        let loaded = config::load_policy(&place.file("policy.toml"), false).unwrap();
        assert_eq!(config::read_environment(&loaded), ["DEMO_GITHUB_TOKEN", "DEMO_STRIPE_KEY"]);
        let [warning] = &loaded.warnings[..] else { panic!("one warning, of \"any\": {:?}", loaded.warnings) };
        assert!(warning.starts_with("agents.demo-agent.identity"), "{warning}");
    }
}
