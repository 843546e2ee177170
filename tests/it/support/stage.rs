//! The usual scene: one API, one sidecar.

use super::{Builder, FakeUpstream, TestSidecar, canary, policies};

/// A sidecar before one API at `api.test`.
pub struct Stage {
    pub secret: String,
    pub upstream: FakeUpstream,
    pub sidecar: TestSidecar,
}

impl Stage {
    /// Both protocols upstream.
    pub async fn new() -> Self {
        Self::with(FakeUpstream::start(&["api.test"]).await, |builder| builder).await
    }

    /// With an upstream of one's own, and more flags.
    pub async fn with(upstream: FakeUpstream, edit: impl FnOnce(Builder) -> Builder) -> Self {
        Self::of(policies::ONE_API, upstream, edit).await
    }

    /// With a policy of one's own, over the usual upstream.
    pub async fn of_policy(policy: &str) -> Self {
        Self::of(policy, FakeUpstream::start(&["api.test"]).await, |builder| builder).await
    }

    /// With a policy and an upstream of one's own, and more flags.
    pub async fn of(policy: &str, upstream: FakeUpstream, edit: impl FnOnce(Builder) -> Builder) -> Self {
        let secret = canary();
        let builder =
            TestSidecar::with_policy(policy).upstream(&["api.test"], "api", &upstream).environment("API_KEY", &secret);
        let sidecar = edit(builder).start().await;
        Self { secret, upstream, sidecar }
    }

    /// A nonce for reading.
    pub async fn reader(&self) -> String {
        self.sidecar.orchestrator().mint("worker", "api", "read").await.nonce
    }

    /// A nonce for reading, asked for by another user.
    pub async fn reader_as(&self, uid: u32) -> String {
        let orchestrator = self.sidecar.orchestrator();
        super::stranger::acting(uid, uid, move || async move { orchestrator.mint("worker", "api", "read").await.nonce })
            .await
    }

    /// A nonce for writing.
    pub async fn writer(&self) -> String {
        self.sidecar.orchestrator().mint("worker", "api", "write").await.nonce
    }

    /// Fails if the credential, in any of the forms that are promised, is in these bytes.
    pub fn assert_clean(&self, bytes: &[u8], what: &str) {
        super::leak::assert_clean(&self.secret, bytes, what);
    }

    /// Looks for the credential and for nonces in everything that the sidecar wrote.
    pub fn assert_silent(&self, nonces: &[&str]) {
        for (what, text) in [("the audit", self.sidecar.audit_text()), ("the log", self.sidecar.log())] {
            self.assert_clean(text.as_bytes(), what);
            for nonce in nonces {
                assert!(!text.contains(nonce), "a nonce is in {what}");
            }
        }
    }
}
