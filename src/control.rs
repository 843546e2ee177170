//! The control API (mint, list, read, revoke, …) on a Unix socket, and the read-only admin listener.

use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::audit::Audit;
use crate::clock::SharedClock;
use crate::lease::Minter;
use crate::metrics::Metrics;
use crate::policy::Policy;

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

/// What the control plane is put together from.
pub struct Parts {
    /// The policy.
    pub policy: Arc<Policy>,
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
    /// Credential health, asked each time.
    pub credentials: Arc<dyn Fn() -> Vec<CredentialHealth> + Send + Sync>,
}

/// Why the control socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process serves it.
    #[error("{0} is served by a running sidecar")]
    Live(PathBuf),
    /// The system refused.
    #[error("{path}: {source}")]
    System {
        /// The path.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
}

/// Binds the control socket: 0600 (or 0660 for `group`) in a 0700 directory; takes over a stale one, not a live one.
///
/// # Errors
/// [`SocketError`].
pub fn bind(_path: &std::path::Path, _group: Option<u32>) -> Result<tokio::net::UnixListener, SocketError> {
    todo!()
}

/// Serves the control API until `shutdown`.
pub async fn serve(_listener: tokio::net::UnixListener, _parts: Parts, _shutdown: CancellationToken) {
    todo!()
}

/// What `/readyz` asks; each check is a name and what is wrong with it, if anything.
pub type Readiness = Arc<dyn Fn() -> Vec<(&'static str, Option<String>)> + Send + Sync>;

/// Serves `/livez`, `/readyz` and `/metrics` until `shutdown`.
pub async fn serve_admin(
    _listener: tokio::net::TcpListener,
    _readiness: Readiness,
    _metrics: Arc<Metrics>,
    _shutdown: CancellationToken,
) {
    todo!()
}
