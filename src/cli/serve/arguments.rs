//! The flags of `serve`; each has a `VALETKEY_…` variable, except `--connect-to`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::confine::ProtectionArguments;
use super::outer::OuterArguments;
use super::remote::RemoteArguments;
use super::reports::ReportArguments;
use crate::cli::{Failure, default_control};
use crate::net::ConnectTo;
use crate::net::intercept::Interception;
use crate::proxy::Limits;
use crate::telemetry::Format;

/// Transparent listeners at most.
const TRANSPARENT_MAX: usize = 16;

/// Flags of `valetkey serve`.
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    /// The policy file.
    #[arg(long, env = "VALETKEY_POLICY", value_name = "FILE", default_value = "policy.toml")]
    pub policy: PathBuf,

    /// Where agents connect; port 0 takes a free one.
    #[arg(long, env = "VALETKEY_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,

    #[command(flatten)]
    pub outer: OuterArguments,

    /// Where connections redirected by nftables or iptables arrive. Repeatable; for IPv4 and IPv6.
    #[arg(long, env = "VALETKEY_TRANSPARENT", value_name = "ADDR", value_delimiter = ',')]
    pub transparent: Vec<SocketAddr>,

    /// Let --transparent take TPROXY connections too; needs CAP_NET_ADMIN.
    #[arg(long, env = "VALETKEY_TPROXY")]
    pub tproxy: bool,

    /// Allow --listen, --listen-tls and --transparent beyond loopback.
    #[arg(long, env = "VALETKEY_ALLOW_REMOTE")]
    pub allow_remote: bool,

    /// The control API's Unix socket.
    #[arg(long, env = "VALETKEY_CONTROL", value_name = "PATH", default_value_os_t = PathBuf::from(default_control()))]
    pub control: PathBuf,

    /// Open the control socket to this group (a number): 0660 instead of 0600.
    #[arg(long, env = "VALETKEY_CONTROL_GROUP", value_name = "GID")]
    pub control_group: Option<u32>,

    #[command(flatten)]
    pub remote: RemoteArguments,

    #[command(flatten)]
    pub reports: ReportArguments,

    /// Serve the control API over standard output, one end of a socket pair, and nowhere else; end when it is closed.
    #[arg(long, hide = true)]
    pub supervised: bool,

    /// The read-only listener for probes and metrics; port 0 takes a free one.
    #[arg(long, env = "VALETKEY_ADMIN", value_name = "ADDR", default_value = "127.0.0.1:9090")]
    pub admin: SocketAddr,

    /// Where the audit goes: a file, or - for standard output.
    #[arg(long, env = "VALETKEY_AUDIT", value_name = "FILE", default_value = "-")]
    pub audit: PathBuf,

    /// fsync every record before the credential moves (records that are ready together share one).
    #[arg(long, env = "VALETKEY_AUDIT_SYNC")]
    pub audit_sync: bool,

    /// Where the CA's key and certificate are kept, and made when missing.
    #[arg(long, env = "VALETKEY_CA_DIR", value_name = "DIR", default_value = "certs")]
    pub ca_dir: PathBuf,

    /// Keep the CA in memory only; it ends with the process, and --ca-dir is not touched.
    #[arg(long, env = "VALETKEY_CA_IN_MEMORY")]
    pub ca_in_memory: bool,

    /// Write ca.pem and ca-bundle.pem, and nothing secret, into this directory.
    #[arg(long, env = "VALETKEY_CA_PUBLISH", value_name = "DIR")]
    pub ca_publish: Option<PathBuf>,

    /// Send one destination elsewhere, as in curl (an empty HOST is any host); its name and TLS verification stay.
    /// Repeatable; for tests.
    #[arg(long, value_name = "HOST:PORT:ADDR:PORT", value_parser = ConnectTo::parse)]
    pub connect_to: Vec<ConnectTo>,

    /// Allow credentials with source = "exec".
    #[arg(long, env = "VALETKEY_ALLOW_EXEC")]
    pub allow_exec: bool,

    /// Write the bound addresses into this file, as JSON, once everything is ready.
    #[arg(long, env = "VALETKEY_READY_FILE", value_name = "FILE")]
    pub ready_file: Option<PathBuf>,

    /// How logs are written; auto is readable on a terminal and JSON elsewhere.
    #[arg(long, env = "VALETKEY_LOG_FORMAT", value_enum, default_value_t = Format::Auto)]
    pub log_format: Format,

    /// What is logged: error, warn, info, debug, or a filter such as valetkey=debug.
    #[arg(long, env = "VALETKEY_LOG", value_name = "LEVEL", default_value = "info")]
    pub log_level: String,

    #[command(flatten)]
    pub protection: ProtectionArguments,

    #[command(flatten)]
    pub limits: LimitArguments,
}

/// Limits and timeouts of the data path.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitArguments {
    /// A whole request head must arrive within this.
    #[arg(long, env = "VALETKEY_HEAD_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub head_timeout: Duration,
    /// The client's TLS handshake must end within this.
    #[arg(long, env = "VALETKEY_HANDSHAKE_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub handshake_timeout: Duration,
    /// Connecting upstream, TLS included, must end within this.
    #[arg(long, env = "VALETKEY_CONNECT_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub connect_timeout: Duration,
    /// The head of an upstream's answer must arrive within this; models think long.
    #[arg(long, env = "VALETKEY_UPSTREAM_HEAD_TIMEOUT", value_name = "TIME", default_value = "600s", value_parser = duration)]
    pub upstream_head_timeout: Duration,
    /// Connections and bodies on which nothing moves are closed after this.
    #[arg(long, env = "VALETKEY_IDLE_TIMEOUT", value_name = "TIME", default_value = "300s", value_parser = duration)]
    pub idle_timeout: Duration,
    /// At the end, exchanges under way get this long.
    #[arg(long, env = "VALETKEY_DRAIN_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub drain_timeout: Duration,
    /// Header fields of a request or answer at most.
    #[arg(long, env = "VALETKEY_HEADERS_MAX", value_name = "N", default_value_t = 100, value_parser = count::<1, 10_000>)]
    pub headers_max: usize,
    /// Bytes of a request or answer head at most (at least 8192).
    #[arg(long, env = "VALETKEY_HEAD_BYTES_MAX", value_name = "N", default_value_t = 65536, value_parser = count::<8192, 16_777_216>)]
    pub head_bytes_max: usize,
    /// Bytes of a request target at most.
    #[arg(long, env = "VALETKEY_TARGET_BYTES_MAX", value_name = "N", default_value_t = 16384, value_parser = count::<1, 65_534>)]
    pub target_bytes_max: usize,
    /// Client connections at most.
    #[arg(long, env = "VALETKEY_CONNECTIONS_MAX", value_name = "N", default_value_t = 4096, value_parser = count::<1, 1_000_000>)]
    pub connections_max: usize,
    /// Client connections of one agent at most: those on which a nonce of it was the first.
    #[arg(long, env = "VALETKEY_AGENT_CONNECTIONS_MAX", value_name = "N", default_value_t = 2048, value_parser = count::<1, 1_000_000>)]
    pub agent_connections_max: usize,
    /// Requests under way at most.
    #[arg(long, env = "VALETKEY_REQUESTS_MAX", value_name = "N", default_value_t = 8192, value_parser = count::<1, 1_000_000>)]
    pub requests_max: usize,
    /// Requests of one agent under way at most; it also leaves as many free as it has.
    #[arg(long, env = "VALETKEY_AGENT_REQUESTS_MAX", value_name = "N", default_value_t = 4096, value_parser = count::<1, 1_000_000>)]
    pub agent_requests_max: usize,
    /// HTTP/2 streams on one client connection at most.
    #[arg(long, env = "VALETKEY_STREAMS_MAX", value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub streams_max: u32,
    /// Idle upstream connections kept per destination and credential at most.
    #[arg(long, env = "VALETKEY_POOL_IDLE_MAX", value_name = "N", default_value_t = 256, value_parser = count::<0, 100_000>)]
    pub pool_idle_max: usize,
    /// Threads that serve agents; if absent, one for each core that may be used.
    #[arg(long, env = "VALETKEY_THREADS", value_name = "N", value_parser = count::<1, 256>)]
    pub threads: Option<usize>,
}

/// A number from `MIN` to `MAX`: beyond it nothing would be served, or the libraries below would give up.
fn count<const MIN: usize, const MAX: usize>(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (MIN..=MAX).contains(number));
    number.ok_or_else(|| format!("expected a number from {MIN} to {MAX}"))
}

/// `10s`, `5m`, `1h30m`; a plain number is seconds. More than zero, at most a day.
fn duration(text: &str) -> Result<Duration, String> {
    let parsed = match text.parse::<u64>() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => text
            .parse::<jiff::SignedDuration>()
            .map_err(|_| ())
            .and_then(|signed| Duration::try_from(signed).map_err(|_| ())),
    };
    match parsed {
        Ok(time) if time > Duration::ZERO && time <= Duration::from_secs(86_400) => Ok(time),
        _ => Err("expected a time such as 10s, 5m or 1h, more than zero and at most a day".to_owned()),
    }
}

impl Arguments {
    /// Flags that do not fit together.
    pub fn check(&self) -> Result<(), Failure> {
        if let Some(what) = self.beyond_loopback().filter(|_| !self.allow_remote) {
            return Err(Failure::address(format!(
                "{what} is beyond loopback: anybody who reaches it can present nonces; add --allow-remote if that is meant",
            )));
        }
        if self.tproxy && self.transparent.is_empty() {
            return Err(Failure::usage("--tproxy is about --transparent, which is not there"));
        }
        if self.transparent.len() > TRANSPARENT_MAX {
            return Err(Failure::usage(format!("--transparent is there more than {TRANSPARENT_MAX} times")));
        }
        self.outer.check()?;
        self.remote.check(self.supervised)?;
        self.reports.check()?;
        if self.supervised && self.audit.as_os_str() == "-" {
            return Err(Failure::usage(
                "--supervised takes standard output for the control API: name a file with --audit FILE",
            ));
        }
        Ok(())
    }

    /// What others than this machine can reach, if anything. TPROXY assigns connections from anywhere, also to loopback.
    pub fn beyond_loopback(&self) -> Option<String> {
        let is_remote = |address: &&SocketAddr| !address.ip().to_canonical().is_loopback();
        let listen = Some(&self.listen).filter(is_remote).map(|address| format!("--listen {address}"));
        let transparent = || self.transparent.iter().find(is_remote).map(|address| format!("--transparent {address}"));
        let tls = || self.outer.listen_tls.as_ref().filter(is_remote).map(|address| format!("--listen-tls {address}"));
        listen.or_else(tls).or_else(transparent).or_else(|| self.tproxy.then(|| "what --tproxy takes".to_owned()))
    }

    /// What the transparent listeners take.
    pub fn interception(&self) -> Interception {
        if self.tproxy { Interception::Tproxy } else { Interception::Redirect }
    }

    /// The limits of the data path.
    pub fn limits(&self) -> Limits {
        let given = &self.limits;
        Limits {
            head_timeout: given.head_timeout,
            handshake_timeout: given.handshake_timeout,
            connect_timeout: given.connect_timeout,
            upstream_head_timeout: given.upstream_head_timeout,
            idle_timeout: given.idle_timeout,
            drain_timeout: given.drain_timeout,
            headers_max: given.headers_max,
            head_bytes_max: given.head_bytes_max,
            target_bytes_max: given.target_bytes_max,
            connections_max: given.connections_max,
            agent_connections_max: given.agent_connections_max,
            requests_max: given.requests_max,
            agent_requests_max: given.agent_requests_max,
            streams_max: given.streams_max,
            pool_idle_max: given.pool_idle_max,
            threads: given.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
        }
    }
}
