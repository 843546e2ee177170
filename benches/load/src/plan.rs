//! What load to make, and what came of it.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A run.
#[derive(Debug, Clone, Deserialize)]
pub struct Plan {
    /// The proxy; without one the origin is spoken to directly.
    pub proxy: Option<SocketAddr>,
    /// Where the origin listens, for direct runs.
    pub origin: SocketAddr,
    /// The CA to trust: the proxy's, or the origin's own.
    pub ca: PathBuf,
    /// The host that is asked for.
    pub host: String,
    /// What stands after `Bearer`.
    pub bearer: String,
    /// What is done.
    pub mode: Mode,
    /// HTTP/2 instead of HTTP/1.1.
    #[serde(default)]
    pub h2: bool,
    /// Connections at once.
    pub connections: usize,
    /// Requests at once on each HTTP/2 connection.
    #[serde(default = "one")]
    pub streams: usize,
    /// How long it is measured.
    pub seconds: f64,
    /// How long it runs before that.
    #[serde(default)]
    pub warmup_seconds: f64,
    /// Requests a second, where the load is open.
    #[serde(default)]
    pub rate: f64,
    /// Bytes of a body, where bodies are measured.
    #[serde(default)]
    pub body_bytes: u64,
    /// The proxy's process, for its CPU time and memory.
    pub pid: Option<u32>,
    /// The origins' processes, which are not others.
    #[serde(default)]
    pub origin_pids: Vec<u32>,
    /// Where nonces are minted, if they are.
    pub mint: Option<Mint>,
    /// How the proxy is started, where that is measured.
    pub start: Option<Start>,
}

/// The control socket, and what is sent there.
#[derive(Debug, Clone, Deserialize)]
pub struct Mint {
    /// A Unix socket that speaks HTTP/1.1.
    pub socket: PathBuf,
    /// The body of `POST /v1/nonces`.
    pub body: String,
}

/// A command.
#[derive(Debug, Clone, Deserialize)]
pub struct Start {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Where it runs.
    pub directory: PathBuf,
    /// What it writes; appended to.
    pub log: PathBuf,
}

fn one() -> usize {
    1
}

/// Kinds of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Closed loop on kept connections.
    KeepAlive,
    /// Requests at a fixed rate on kept connections; latency counts from when a request was due.
    Open,
    /// A new connection and a full handshake for each request.
    Connect,
    /// The same, resuming the TLS session.
    Resume,
    /// A new connection to a host never asked for before.
    Hosts,
    /// Bodies from the origin.
    Download,
    /// Bodies to the origin.
    Upload,
    /// Server-sent events; latency is that of each event.
    Events,
    /// Connections are opened, used once, and held.
    Held,
    /// Nonces are minted at a fixed rate over the control socket.
    Mint,
    /// The proxy is started, again and again; latency is from its start to the first answer through it.
    First,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Answers that were what they should be.
    pub requests: u64,
    /// Everything else.
    pub errors: u64,
    /// How long it was measured.
    pub seconds: f64,
    /// Requests a second.
    pub rate: f64,
    /// Bytes of bodies a second.
    pub bytes_per_second: f64,
    /// Latency in microseconds, by quantile.
    pub latency: Latency,
    /// The proxy's CPU time, user and system, in seconds.
    pub cpu_seconds: f64,
    /// CPU time used by everybody on this machine but the proxy and this process, in seconds.
    pub other_cpu_seconds: f64,
    /// The proxy's resident memory at the beginning and its greatest since, in KiB.
    pub rss_kib: (u64, u64),
}

/// Quantiles in microseconds.
#[derive(Debug, Serialize)]
pub struct Latency {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}
