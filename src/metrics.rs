//! The registry that everybody may touch. No label that an agent can choose.

use std::sync::Arc;
use std::time::Duration;

use crate::model::ServiceName;

/// All counters, gauges and histograms.
pub struct Metrics {}

impl Metrics {
    /// A fresh registry.
    #[must_use]
    pub fn new() -> Arc<Self> {
        todo!()
    }
    /// Counts one exchange. `code` is a denial's code, or `ok`.
    pub fn exchange(&self, _service: Option<&ServiceName>, _code: &'static str) {
        todo!()
    }
    /// What we added to one exchange, upstream's time taken out.
    pub fn overhead(&self, _took: Duration) {
        todo!()
    }
    /// Counts one upstream attempt. `outcome` is `ok`, `unreachable`, `tls`, `timeout`.
    pub fn upstream(&self, _service: &ServiceName, _outcome: &'static str) {
        todo!()
    }
    /// Counts a minted nonce.
    pub fn minted(&self) {
        todo!()
    }
    /// Counts the end of a lease: `expired`, `revoked`, `spent`, `misplaced`.
    pub fn ended(&self, _cause: &'static str) {
        todo!()
    }
    /// Client connections open now.
    pub fn connections(&self, _change: i64) {
        todo!()
    }
}
