//! What other parts know and nobody copies: asked for at each scrape.

use std::sync::Arc;

use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// The present values of what is not counted here.
#[derive(Debug, Clone)]
pub struct Readings {
    /// Leases that are alive.
    pub nonces_live: u64,
    /// How the audit is doing.
    pub audit: AuditReading,
    /// Each credential of the policy by name, and whether it can be had.
    pub credentials: Vec<(String, bool)>,
    /// SHA-256 of the policy file, in hex.
    pub policy_digest: Arc<str>,
    /// Tasks that ended by a panic since the start.
    pub panics: u64,
}

/// How the audit is doing.
#[derive(Debug, Clone, Copy)]
pub struct AuditReading {
    /// The last write succeeded.
    pub is_healthy: bool,
    /// Records written since the start.
    pub records: u64,
    /// Records lost since the start.
    pub lost: u64,
}

/// Reads the present values; called once a scrape, must not block.
pub type Scrape = Arc<dyn Fn() -> Readings + Send + Sync>;

impl Readings {
    /// A registry that holds these values and is thrown away after one scrape.
    pub(super) fn registry(&self) -> Registry {
        let mut to = Registry::with_prefix("valetkey");
        to.register("nonces_live", "Nonces alive", ConstGauge::new(self.nonces_live));
        to.register("audit_records", "Audit records written", ConstCounter::new(self.audit.records));
        to.register("panics", "Tasks that panicked", ConstCounter::new(self.panics));
        to.register("audit_lost", "Audit records lost", ConstCounter::new(self.audit.lost));
        let healthy = ConstGauge::new(i64::from(self.audit.is_healthy));
        to.register("audit_healthy", "1 when the last audit record could be written", healthy);
        to.register("credential_healthy", "1 when the credential can be had", self.credentials_family());
        let digest = vec![("digest", self.policy_digest.to_string())];
        to.register("policy", "SHA-256 of the policy file", Info::new(digest));
        to
    }

    fn credentials_family(&self) -> Family<[(&'static str, String); 1], Gauge> {
        let family = Family::default();
        for (name, is_healthy) in &self.credentials {
            let gauge: Gauge = family.get_or_create_owned(&[("credential", name.clone())]);
            gauge.set(i64::from(*is_healthy));
        }
        family
    }
}
