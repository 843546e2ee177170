//! The life of a request, stage by stage.

pub mod refuse;
pub mod scrub;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::audit::Audit;
use crate::authority::Authority;
use crate::clock::SharedClock;
use crate::credential::Credentials;
use crate::lease::Lookup;
use crate::metrics::Metrics;
use crate::net::Dialer;
use crate::policy::Policy;

/// Every limit and timeout of the data path, each a named setting with a default.
#[derive(Debug, Clone)]
pub struct Limits {
    /// A whole request head must arrive within this.
    pub head_timeout: Duration,
    /// The TLS handshake with the client must end within this.
    pub handshake_timeout: Duration,
    /// Connecting upstream (TCP and TLS) must end within this.
    pub connect_timeout: Duration,
    /// The upstream's response head must arrive within this: models think long.
    pub upstream_head_timeout: Duration,
    /// A connection or stream on which nothing moves is closed after this.
    pub idle_timeout: Duration,
    /// At shutdown, exchanges under way get this long.
    pub drain_timeout: Duration,
    /// Header fields in a request or answer at most.
    pub headers_max: usize,
    /// Bytes in a request or answer head at most.
    pub head_bytes_max: usize,
    /// Bytes in a request target at most.
    pub target_bytes_max: usize,
    /// Client connections at most.
    pub connections_max: usize,
    /// Concurrent HTTP/2 streams on one client connection at most.
    pub streams_max: u32,
    /// Idle upstream connections kept per pool at most.
    pub pool_idle_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            upstream_head_timeout: Duration::from_secs(600),
            idle_timeout: Duration::from_secs(300),
            drain_timeout: Duration::from_secs(5),
            headers_max: 100,
            head_bytes_max: 64 * 1024,
            target_bytes_max: 16 * 1024,
            connections_max: 4096,
            streams_max: 128,
            pool_idle_max: 64,
        }
    }
}

/// What the proxy is put together from.
pub struct Parts {
    /// The audit.
    pub audit: Audit,
    /// The lease store, for looking up.
    pub leases: Lookup,
    /// The policy.
    pub policy: Arc<Policy>,
    /// The real credentials.
    pub credentials: Arc<Credentials>,
    /// The local CA.
    pub authority: Arc<Authority>,
    /// The way out.
    pub dialer: Arc<Dialer>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The clock.
    pub clock: SharedClock,
    /// Limits.
    pub limits: Limits,
}

/// The data plane of one process.
pub struct Proxy {}

impl Proxy {
    /// Puts the proxy together; reads the roots and the services' own CAs.
    ///
    /// # Errors
    /// A sentence about the root or CA file that cannot be used.
    pub fn new(_parts: Parts) -> Result<Arc<Self>, String> {
        todo!()
    }

    /// Accepts connections until `shutdown`, then drains within the limit: tunnels included.
    pub async fn serve(self: Arc<Self>, _listener: TcpListener, _shutdown: CancellationToken) {
        todo!()
    }
}
