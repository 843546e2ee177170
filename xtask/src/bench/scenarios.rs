//! The loads.

use serde_json::{Value, json};

/// One load.
pub struct Scenario {
    pub name: &'static str,
    /// What it is, for tables.
    pub title: &'static str,
    /// What counts, and which way is better.
    pub figure: Figure,
    /// Part of the short form.
    pub is_short: bool,
    mode: &'static str,
    connections: usize,
    h2: Option<usize>,
    rate: f64,
    body_bytes: u64,
    /// More than the usual time, where one exchange takes long.
    pub stretch: f64,
    /// Origin and load generator share the proxy's core, so that nothing waits for another core to wake.
    pub shares_core: bool,
    /// Needs a proxy that has done nothing yet.
    pub is_fresh: bool,
}

/// The host whose origin speaks HTTP/1.1 alone.
pub const HOST: &str = "bench.test";
/// The host whose origin offers HTTP/2.
pub const H2_HOST: &str = "h2.bench.test";

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// Requests a second; more is better.
    Rate,
    /// Bytes a second; more is better.
    Throughput,
    /// What the proxy adds to the median latency of a direct request; less is better.
    AddedMedian,
    /// The 99th percentile of latency; less is better.
    Tail,
    /// Memory a held connection; less is better.
    Memory,
    /// Median time from the start to the first answer; less is better.
    Start,
}

impl Scenario {
    const fn new(
        name: &'static str,
        title: &'static str,
        mode: &'static str,
        connections: usize,
        figure: Figure,
    ) -> Self {
        Self {
            name,
            title,
            figure,
            is_short: false,
            mode,
            connections,
            h2: None,
            rate: 0.0,
            body_bytes: 0,
            stretch: 1.0,
            shares_core: false,
            is_fresh: false,
        }
    }

    /// Why a runner has no part in this load, if so.
    pub fn excludes(&self, runner: &str) -> Option<&'static str> {
        match (runner, self.mode) {
            ("direct", "held" | "mint" | "first") => Some("there is no proxy"),
            ("envoy", "hosts") => Some("Envoy has one fixed leaf"),
            ("squid", _) if self.h2.is_some() => Some("squid refuses HTTP/2 inside its tunnels"),
            (_, "mint") if !matches!(runner, "valetkey" | "before") => Some("it mints nothing"),
            _ => None,
        }
    }

    pub fn is_h2(&self) -> bool {
        self.h2.is_some()
    }

    /// The proxy is started by the load.
    pub fn is_start(&self) -> bool {
        self.mode == "first"
    }

    /// The plan as the load generator reads it, without what the runner adds.
    pub fn plan(&self, seconds: f64) -> Value {
        json!({
            "host": if self.h2.is_some() { H2_HOST } else { HOST },
            "mode": self.mode,
            "h2": self.h2.is_some(),
            "connections": self.connections,
            "streams": self.h2.unwrap_or(1),
            "seconds": seconds * self.stretch,
            "warmup_seconds": if matches!(self.mode, "held" | "first") { 0.0 } else { 0.5 },
            "rate": self.rate,
            "body_bytes": self.body_bytes,
        })
    }
}

/// Every load, in the order of the tables.
pub fn all() -> Vec<Scenario> {
    const MIB: u64 = 1024 * 1024;
    vec![
        Scenario {
            is_short: true,
            ..Scenario::new("keep-32", "keep-alive × 32, h1, 1 KiB", "keep-alive", 32, Figure::Rate)
        },
        Scenario {
            is_short: true,
            ..Scenario::new("keep-256", "keep-alive × 256, h1, 1 KiB", "keep-alive", 256, Figure::Rate)
        },
        Scenario {
            is_short: true,
            h2: Some(8),
            ..Scenario::new("h2-4x8", "h2 to h2, 4 connections × 8 streams", "keep-alive", 4, Figure::Rate)
        },
        Scenario {
            is_short: true,
            shares_core: true,
            ..Scenario::new("single", "one connection, h1, all on one core", "keep-alive", 1, Figure::AddedMedian)
        },
        Scenario {
            rate: 1000.0,
            ..Scenario::new("open-1000", "1,000 requests/s on 16 connections", "open", 16, Figure::Tail)
        },
        Scenario {
            is_short: true,
            ..Scenario::new("connect", "new connections, full handshake", "connect", 8, Figure::Rate)
        },
        Scenario::new("resume", "new connections, resumed", "resume", 8, Figure::Rate),
        Scenario::new("hosts", "new hosts", "hosts", 8, Figure::Rate),
        Scenario {
            body_bytes: 10 * MIB,
            ..Scenario::new("down-10m", "10 MiB bodies down", "download", 2, Figure::Throughput)
        },
        Scenario {
            body_bytes: 10 * MIB,
            ..Scenario::new("up-10m", "10 MiB bodies up", "upload", 2, Figure::Throughput)
        },
        Scenario {
            body_bytes: 1024 * MIB,
            stretch: 2.5,
            ..Scenario::new("down-1g", "1 GiB bodies down", "download", 1, Figure::Throughput)
        },
        Scenario {
            body_bytes: 1024 * MIB,
            stretch: 2.5,
            ..Scenario::new("up-1g", "1 GiB bodies up", "upload", 1, Figure::Throughput)
        },
        Scenario::new("events", "server-sent events, 16 streams, 500/s each", "events", 16, Figure::Tail),
        Scenario {
            is_fresh: true,
            stretch: 3.0,
            ..Scenario::new("held", "held connections, 1,000", "held", 1000, Figure::Memory)
        },
        Scenario {
            rate: 1000.0,
            ..Scenario::new("mint", "1,000 mints/s over the control socket", "mint", 4, Figure::Tail)
        },
        Scenario { stretch: 2.0, ..Scenario::new("first", "start to the first answer", "first", 1, Figure::Start) },
    ]
}
