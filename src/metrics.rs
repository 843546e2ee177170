//! The registry that everybody may touch: counters, gauges and the overhead histogram, as Prometheus wants them.
//!
//! A label is a name of the policy or a word of ours, never something that an agent can choose: neither the count of
//! series nor their names can be driven from outside. What other parts know already (live leases, the audit's state)
//! is not copied here; it is asked for when somebody scrapes, as [`Readings`].
//!
//! On the hot path a count costs a hash look-up under a shared lock and an atomic addition; nothing is allocated.

mod histogram;
mod labels;
mod process;
mod readings;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

pub use readings::{AuditReading, Readings, Scrape};

use crate::model::{ServiceName, Table};
use histogram::DurationHistogram;
use labels::{Cause, Code, Delivery, Exchange, Kind, Outcome, Upstream};

/// What `/metrics` is: the `Content-Type` of [`Metrics::encode`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The code of an exchange that was let through.
const CODE_ALLOWED: &str = "ok";

/// The outcome of an attempt to reach a service that has answered.
const OUTCOME_ANSWERED: &str = "ok";

/// All counters, gauges and histograms.
pub struct Metrics {
    registry: Registry,
    process: process::Process,
    exchanges: Family<Exchange, Counter>,
    overhead: DurationHistogram,
    upstream: Family<Upstream, Counter>,
    /// Those of both that most exchanges count in, found by a short name alone.
    passed: ArcSwap<Table<ServiceName, Passed>>,
    minted: Counter,
    renewed: Counter,
    calls_refused: Family<Code, Counter>,
    ended: Family<Cause, Counter>,
    alarms: Family<Kind, Counter>,
    policy_reads: Family<Outcome, Counter>,
    webhooks: Family<Delivery, Counter>,
    connections: Gauge,
}

/// The counters of a service's exchanges that were let through.
#[derive(Clone)]
struct Passed {
    exchanges: Counter,
    upstream: Counter,
}

impl Passed {
    fn count(&self) {
        self.exchanges.inc();
        self.upstream.inc();
    }
}

impl Metrics {
    /// A fresh registry.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let mut metrics = Self {
            registry: Registry::with_prefix("valetkey"),
            process: process::Process::started_now(),
            exchanges: Family::default(),
            overhead: DurationHistogram::default(),
            upstream: Family::default(),
            passed: ArcSwap::default(),
            minted: Counter::default(),
            renewed: Counter::default(),
            calls_refused: Family::default(),
            ended: Family::default(),
            alarms: Family::default(),
            policy_reads: Family::default(),
            webhooks: Family::default(),
            connections: Gauge::default(),
        };
        metrics.register();
        Arc::new(metrics)
    }

    fn register(&mut self) {
        let to = &mut self.registry;
        to.register("exchanges", "Requests by service, decision and code", self.exchanges.clone());
        let overhead = self.overhead.clone();
        to.register_with_unit("overhead", "What we added to an exchange", Unit::Seconds, overhead);
        to.register("upstream_attempts", "Attempts to reach a service's API", self.upstream.clone());
        to.register("nonces_minted", "Nonces minted", self.minted.clone());
        to.register("nonces_renewed", "Renewals of nonces", self.renewed.clone());
        to.register("control_refused", "Refused calls of the control API, by code", self.calls_refused.clone());
        to.register("nonces_ended", "Nonces ended by cause", self.ended.clone());
        to.register("alarms", "Secrets seen where none belong, by kind", self.alarms.clone());
        to.register("policy_reads", "Times that a changed policy file was read", self.policy_reads.clone());
        to.register("webhook_attempts", "Attempts to tell a webhook of an event", self.webhooks.clone());
        to.register("connections_open", "Client connections open", self.connections.clone());
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        to.register("build", "The version of this binary", Info::new(version));
    }

    /// Counts one exchange. `code` is a denial's code, or `ok`.
    pub fn exchange(&self, service: Option<&ServiceName>, code: &'static str) {
        let decision = if code == CODE_ALLOWED { "allowed" } else { "refused" };
        self.exchanges.get_or_create(&Exchange { service: service.cloned().into(), decision, code }).inc();
    }

    /// Counts one exchange that was let through, and the attempt to reach its service, which has answered.
    pub fn passed(&self, service: &ServiceName) {
        if let Some(passed) = self.passed.load().get(service) {
            passed.count();
            return;
        }
        let exchange = Exchange { service: Some(service.clone()).into(), decision: "allowed", code: CODE_ALLOWED };
        let upstream = Upstream { service: Some(service.clone()).into(), outcome: OUTCOME_ANSWERED };
        let passed = Passed {
            exchanges: self.exchanges.get_or_create_owned(&exchange),
            upstream: self.upstream.get_or_create_owned(&upstream),
        };
        passed.count();
        self.passed.rcu(|known| {
            let mut known = Table::clone(known);
            known.insert(service.clone(), passed.clone());
            known
        });
    }

    /// What we added to one exchange, upstream's time taken out.
    pub fn overhead(&self, took: Duration) {
        self.overhead.observe(took);
    }

    /// Counts one upstream attempt that gave no answer. `outcome` is `unreachable`, `tls`, `timeout`.
    pub fn upstream(&self, service: &ServiceName, outcome: &'static str) {
        self.upstream.get_or_create(&Upstream { service: Some(service.clone()).into(), outcome }).inc();
    }

    /// Counts a minted nonce.
    pub fn minted(&self) {
        self.minted.inc();
    }

    /// Counts a renewal.
    pub fn renewed(&self) {
        self.renewed.inc();
    }

    /// Counts a refused call of the control API by the refusal's code.
    pub fn call_refused(&self, code: &'static str) {
        self.calls_refused.get_or_create(&Code { code }).inc();
    }

    /// Counts the end of a lease: `expired`, `revoked`, `spent`, `misplaced`.
    pub fn ended(&self, cause: &'static str) {
        self.ended.get_or_create(&Cause { cause }).inc();
    }

    /// A webhook was tried: `delivered`, `failed` (and tried again), `lost`; `gap` where records were missed.
    pub fn webhook(&self, webhook: &str, outcome: &'static str) {
        self.webhooks.get_or_create(&Delivery { webhook: webhook.to_owned(), outcome }).inc();
    }

    /// Counts an alarm by its kind, as the audit has it.
    pub fn alarm(&self, kind: &'static str) {
        self.alarms.get_or_create(&Kind { kind }).inc();
    }

    /// A changed policy file was read: `adopted` or `refused`.
    pub fn policy_read(&self, outcome: &'static str) {
        self.policy_reads.get_or_create(&Outcome { outcome }).inc();
    }

    /// Client connections open now.
    pub fn connections(&self, change: i64) {
        self.connections.inc_by(change);
    }

    /// Everything as OpenMetrics text ([`CONTENT_TYPE`]), with what the other parts read just now.
    ///
    /// # Errors
    /// [`fmt::Error`] if a value cannot be written, which a `String` as the sink does not cause.
    pub fn encode(&self, readings: &Readings) -> Result<String, fmt::Error> {
        let mut text = String::with_capacity(8 * 1024);
        encode_registry(&mut text, &self.registry)?;
        encode_registry(&mut text, &readings.registry())?;
        encode_registry(&mut text, &self.process.registry())?;
        encode_eof(&mut text)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readings() -> Readings {
        Readings {
            panics: 1,
            nonces_live: 3,
            audit: AuditReading { is_healthy: true, records: 12, lost: 1 },
            credentials: vec![("stripe".to_owned(), true), ("github".to_owned(), false)],
            policy_digest: "abc123".into(),
        }
    }

    fn service(name: &str) -> ServiceName {
        ServiceName::parse(name).unwrap()
    }

    fn has(text: &str, line: &str) {
        assert!(text.lines().any(|l| l == line), "no line {line:?} in:\n{text}");
    }

    #[test]
    fn every_documented_series_is_there() {
        let metrics = Metrics::new();
        metrics.passed(&service("stripe"));
        metrics.passed(&service("stripe"));
        metrics.exchange(None, "host_not_listed");
        metrics.upstream(&service("stripe"), "timeout");
        metrics.minted();
        metrics.ended("revoked");
        metrics.call_refused("rate_limited");
        metrics.alarm("canary_used");
        metrics.connections(2);
        metrics.connections(-1);
        let text = metrics.encode(&readings()).unwrap();
        for line in [
            r#"valetkey_exchanges_total{service="stripe",decision="allowed",code="ok"} 2"#,
            r#"valetkey_exchanges_total{service="",decision="refused",code="host_not_listed"} 1"#,
            r#"valetkey_upstream_attempts_total{service="stripe",outcome="ok"} 2"#,
            r#"valetkey_upstream_attempts_total{service="stripe",outcome="timeout"} 1"#,
            "valetkey_nonces_minted_total 1",
            r#"valetkey_control_refused_total{code="rate_limited"} 1"#,
            r#"valetkey_nonces_ended_total{cause="revoked"} 1"#,
            r#"valetkey_alarms_total{kind="canary_used"} 1"#,
            "valetkey_connections_open 1",
            "valetkey_panics_total 1",
            "valetkey_nonces_live 3",
            "valetkey_audit_records_total 12",
            "valetkey_audit_lost_total 1",
            "valetkey_audit_healthy 1",
            r#"valetkey_credential_healthy{credential="stripe"} 1"#,
            r#"valetkey_credential_healthy{credential="github"} 0"#,
            r#"valetkey_policy_info{digest="abc123"} 1"#,
            concat!(r#"valetkey_build_info{version=""#, env!("CARGO_PKG_VERSION"), r#""} 1"#),
        ] {
            has(&text, line);
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn overhead_falls_into_buckets_from_50_microseconds() {
        let metrics = Metrics::new();
        for micros in [40, 50, 51, 2_000_000] {
            metrics.overhead(Duration::from_micros(micros));
        }
        let text = metrics.encode(&readings()).unwrap();
        has(&text, r#"valetkey_overhead_seconds_bucket{le="0.00005"} 2"#);
        has(&text, r#"valetkey_overhead_seconds_bucket{le="0.0001"} 3"#);
        has(&text, r#"valetkey_overhead_seconds_bucket{le="1.0"} 3"#);
        has(&text, r#"valetkey_overhead_seconds_bucket{le="+Inf"} 4"#);
        has(&text, "valetkey_overhead_seconds_count 4");
        has(&text, "valetkey_overhead_seconds_sum 2.000141");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_process_describes_itself() {
        let text = Metrics::new().encode(&readings()).unwrap();
        for name in ["process_start_time_seconds ", "process_resident_memory_bytes ", "process_open_fds "] {
            let line = text.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("no {name} in:\n{text}"));
            let value: f64 = line[name.len()..].parse().unwrap();
            assert!(value > 0.0, "{line}");
        }
    }
}
