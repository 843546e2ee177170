//! What nobody needs is not there: a credential that can be fetched again goes with the last lease that needs it.

use std::time::Duration;

use http_body_util::BodyExt;

use super::{OWN_MAX, becomes, is_closed, look, requests};
use crate::support::agent::{get, with};
use crate::support::{FakeUpstream, Stage, policies};

/// After the end of the last lease that needs it, a credential is there no longer than this.
const GONE_WITHIN: Duration = Duration::from_secs(1);
/// What a busy machine may add.
const SLACK: Duration = Duration::from_secs(1);

const FILE: &str = "source = \"file\"\npath = \"{dir}/key\"";

/// A sidecar whose credential comes from a file, before an upstream that speaks these protocols.
async fn stage(alpn: &[&[u8]], policy: &str) -> Stage {
    let secret = crate::support::canary();
    let upstream = FakeUpstream::start_with(&["api.test"], alpn).await;
    let stage = Stage::of(policy, upstream, |builder| builder.file("key", &secret)).await;
    Stage { secret, ..stage }
}

#[tokio::test]
async fn no_copy_is_left_once_the_last_lease_that_needs_it_is_over() {
    for alpn in [&b"h2"[..], b"http/1.1"] {
        let stage = stage(&[alpn], &policies::one_api_from(FILE)).await;
        if is_closed(&stage.sidecar) {
            return;
        }
        becomes(&stage, 0).await;
        let orchestrator = stage.sidecar.orchestrator();
        for round in 0..2 {
            let [first, last] = [(); 2].map(|()| orchestrator.mint("worker", "api", "read"));
            let (first, last) = (first.await, last.await);
            requests(&stage, "/header", &first.nonce).await;
            let arrived = stage.upstream.seen().pop().expect("a request");
            assert_eq!(arrived.header("authorization"), Some(&*format!("Bearer {}", stage.secret)));
            orchestrator.revoke(&first.id).await;
            assert_eq!(stage.sidecar.agent().get("api.test", "/x", &last.nonce).await.status, 200);
            assert!(look(&stage) > 0, "one needs it still");
            let (connections, alive) = (stage.upstream.connections(), round + 1);
            assert!(connections >= alive, "none of those before was used again: {connections}");
            orchestrator.revoke(&last.id).await;
            tokio::time::sleep(GONE_WITHIN + SLACK).await;
            assert_eq!(look(&stage), 0, "copies a second after the end");
        }
        let once = orchestrator.mint("worker", "api", "once").await;
        let request = || with("DELETE", "api.test", "/x", &[("authorization", &format!("Bearer {}", once.nonce))], "");
        assert_eq!(stage.sidecar.agent().send(request()).await.status, 200);
        assert_ne!(stage.sidecar.agent().send(request()).await.status, 200, "its one use is gone");
        becomes(&stage, 0).await;
        let versions = stage.sidecar.audit().into_iter().filter_map(|record| record["credential.version"].as_u64());
        assert_eq!(versions.max(), Some(1), "it is the same value");
    }
}

#[tokio::test]
async fn what_is_under_way_is_searched_to_its_end() {
    let stage = stage(&[b"h2"], &policies::one_api_from(FILE)).await;
    if is_closed(&stage.sidecar) {
        return;
    }
    let once = stage.sidecar.orchestrator().mint("worker", "api", "once").await;
    let mut tunnel = stage.sidecar.agent().tunnel("api.test").await;
    let request = with("DELETE", "api.test", "/late-echo", &[("authorization", &format!("Bearer {}", once.nonce))], "");
    let mut response = tunnel.start(request).await;
    assert_eq!(response.status(), 200);
    let first = response.body_mut().frame().await.expect("a frame").expect("a body");
    assert_eq!(first.into_data().expect("data"), "begun ");
    // The lease is over since its use was spent; the search alone is left, and what the upstream's connection has.
    stage.sidecar.audited(|record| record["type"] == "lease_end" && record["cause"] == "spent").await;
    becomes(&stage, OWN_MAX).await;
    let rest = response.into_body().collect().await.expect("a body").to_bytes();
    assert_eq!(rest, format!("{} ended", "*".repeat(stage.secret.len())));
    drop(tunnel);
    becomes(&stage, 0).await;
}

#[tokio::test]
async fn what_cannot_be_fetched_when_it_is_needed_again_is_refused() {
    let stage = stage(&[b"h2"], &policies::one_api_from(FILE)).await;
    if is_closed(&stage.sidecar) {
        return;
    }
    becomes(&stage, 0).await;
    let key = stage.sidecar.path("key");
    std::fs::remove_file(&key).expect("a file");
    let nonce = stage.reader().await;
    let refused = stage.sidecar.agent().get("api.test", "/x", &nonce).await;
    assert_eq!(refused.refusal(), Some("credential_unavailable"));
    std::fs::write(&key, &stage.secret).expect("a file");
    for _ in 0..100 {
        if stage.sidecar.agent().send_h2(get("api.test", "/x", &nonce)).await.status == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it did not come back");
}
