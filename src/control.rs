//! The control API (mint, list, read, revoke, …) on a Unix socket, over TLS (`remote`) or on a supervisor's channel, and
//! the read-only admin listener.
//!
//! A request goes through `serve` (limits), `front` (is this for us, who calls, which call), and then one function of
//! `mint` or `calls`; what goes wrong becomes an answer in `refusal`. It can mint and end leases and cannot read a
//! secret: credentials are known here by name and health alone.

mod admin;
mod answer;
mod ask;
mod caller;
mod calls;
pub mod client;
mod delegate;
mod events;
mod explaining;
#[cfg(test)]
mod fixture;
mod front;
#[doc(hidden)]
pub mod fuzzing;
mod idempotency;
mod inbound;
mod leaks;
mod mint;
mod openapi;
mod own;
mod query;
mod quota;
mod refusal;
mod remote;
mod renew;
mod reports;
mod revoking;
mod risk;
mod route;
mod serve;
mod socket;
mod supervised;
#[cfg(test)]
mod tests;
pub mod types;
mod view;
pub mod webhooks;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::audit::Audit;
use crate::clock::SharedClock;
use crate::door::SelfService;
use crate::lease::Minter;
use crate::metrics::{Metrics, Scrape};
use crate::policy::Current;
use front::Control;
pub use remote::{Remote, RemoteTls, RemoteTlsError, Trust};
pub use reports::Reports;

/// How one credential is doing, as a value.
#[derive(Debug, Clone)]
pub struct CredentialHealth {
    /// Its name.
    pub name: String,
    /// `env`, `file`, `exec`.
    pub source: &'static str,
    /// What is wrong; `None` when it can be had.
    pub problem: Option<String>,
    /// The version in use.
    pub version: u64,
}

/// Where a sidecar serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// Agents connect here.
    pub proxy: SocketAddr,
    /// Probes connect here.
    pub admin: SocketAddr,
}

/// What the control plane is put together from.
pub struct Parts {
    /// The policy in force.
    pub policy: Current,
    /// The lease store, for minting.
    pub leases: Minter,
    /// The audit.
    pub audit: Audit,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The clock.
    pub clock: SharedClock,
    /// The CA certificate.
    pub ca_pem: String,
    /// What an agent sets as `HTTPS_PROXY`.
    pub proxy_url: String,
    /// Where this sidecar serves.
    pub addresses: Addresses,
    /// Credential health, asked each time.
    pub credentials: Arc<dyn Fn() -> Vec<CredentialHealth> + Send + Sync>,
}

/// Why the control socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process serves it, or is about to.
    #[error("{0} is served by a running sidecar")]
    Live(PathBuf),
    /// Something that is not a socket (a link, a file) is at its place.
    #[error("{0} exists and is not a socket; remove it or choose another path")]
    Occupied(PathBuf),
    /// Somebody else could replace the socket.
    #[error("{0} is writable by others, or not ours; choose a directory of the sidecar's own, such as a new one in it")]
    UnsafeDirectory(PathBuf),
    /// The system refused.
    #[error("{path}: {source}")]
    System {
        /// The path.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
}

/// Binds the control socket: 0600 (or 0660 for `group`) in a directory that is made 0700 (0750 for `group`) if it is
/// missing; takes over a stale socket, not a live one, and follows no link. Needs a tokio runtime.
///
/// # Errors
/// [`SocketError`].
pub fn bind(path: &std::path::Path, group: Option<u32>) -> Result<tokio::net::UnixListener, SocketError> {
    socket::bind(path, group)
}

/// Serves the control API until `shutdown`, over its socket and to callers from elsewhere if there is a listener for
/// them; present calls are finished, and the socket's file is removed if it is still this listener's.
pub async fn serve(
    listener: tokio::net::UnixListener,
    remote: Option<Remote>,
    parts: Parts,
    shutdown: CancellationToken,
) {
    let _cleanup = socket::Cleanup::of(&listener);
    let control = Arc::new(Control::new(parts, crate::identity::socket_peer, shutdown.clone()));
    let local = serve::run(listener, Arc::clone(&control), front::LIMITS, shutdown.clone());
    let Some(Remote { listener, tls, trust }) = remote else { return local.await };
    let plane = remote::Plane { control, tls, trust };
    tokio::join!(local, serve::run(listener, Arc::new(plane), front::LIMITS, shutdown));
}

/// Serves the control API over one end of a socket pair, to whoever holds the other end, until `shutdown` or until that
/// is closed. HTTP/2 with prior knowledge, so that several calls can share it. The caller is
/// [`Identity::Supervisor`](crate::model::Identity::Supervisor).
///
/// # Errors
/// The socket cannot be used without blocking.
pub async fn serve_supervised(
    channel: std::os::unix::net::UnixStream,
    parts: Parts,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let control = Control::new(parts, crate::identity::socket_peer, shutdown.clone());
    supervised::serve(channel, Arc::new(control), shutdown).await
}

/// Takes reports of leaks from outside until `shutdown`; present ones are finished.
pub async fn serve_reports(reports: Reports, shutdown: CancellationToken) {
    let (listener, desk) = reports::Desk::new(reports);
    serve::run(listener, Arc::new(desk), reports::LIMITS, shutdown).await;
}

/// What agents may do to their own leases, for the proxy to hand their calls to.
#[must_use]
pub fn own_door(
    policy: Current,
    leases: Minter,
    (audit, metrics, clock): (&Audit, &Arc<Metrics>, &SharedClock),
    proxy: SocketAddr,
) -> Arc<dyn SelfService> {
    let (audit, metrics, clock) = (audit.clone(), metrics.clone(), clock.clone());
    Arc::new(own::OwnDoor { policy, leases, audit, metrics, clock, proxy_url: format!("http://{proxy}") })
}

/// What `/readyz` asks; each check is a name and what is wrong with it, if anything.
pub type Readiness = Arc<dyn Fn() -> Vec<(&'static str, Option<String>)> + Send + Sync>;

/// What `/audit` asks.
pub type HeadOf = Arc<dyn Fn() -> crate::audit::Head + Send + Sync>;

/// Of a real audit.
#[must_use]
pub fn head_of(audit: Audit) -> HeadOf {
    Arc::new(move || audit.head())
}

/// Serves `/livez`, `/readyz`, `/metrics` and `/audit` until `shutdown`; `scrape` reads what the metrics do not count
/// themselves.
pub async fn serve_admin(
    listener: tokio::net::TcpListener,
    readiness: Readiness,
    metrics: Arc<Metrics>,
    (scrape, head): (Scrape, HeadOf),
    shutdown: CancellationToken,
) {
    let admin = admin::Admin { readiness, metrics, scrape, head };
    serve::run(listener, Arc::new(admin), admin::LIMITS, shutdown).await;
}
