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
}

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
        }
    }

    /// Envoy has one fixed leaf, so that it cannot serve new hosts; squid refuses HTTP/2 inside its tunnels.
    pub fn suits(&self, runner: &str) -> bool {
        match runner {
            "envoy" => self.mode != "hosts",
            "squid" => self.h2.is_none(),
            "direct" => self.mode != "held",
            _ => true,
        }
    }

    /// The plan as the load generator reads it, without what the runner adds.
    pub fn plan(&self, seconds: f64) -> Value {
        json!({
            "host": "bench.test",
            "mode": self.mode,
            "h2": self.h2.is_some(),
            "connections": self.connections,
            "streams": self.h2.unwrap_or(1),
            "seconds": seconds * self.stretch,
            "warmup_seconds": if self.mode == "held" { 0.0 } else { 0.5 },
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
            ..Scenario::new("single", "one connection, h1", "keep-alive", 1, Figure::AddedMedian)
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
        Scenario::new("held", "held connections, 1,000", "held", 1000, Figure::Memory),
    ]
}
