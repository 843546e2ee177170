//! Unknown nonce, broken policy file, full audit disk, credential source down, malformed request: refused, with a reason.

use crate::support::agent::with;
use crate::support::{FakeUpstream, Stage, TestSidecar, canary, policies};

#[tokio::test]
async fn an_unknown_nonce() {
    let stage = Stage::new().await;
    let reply = stage.sidecar.agent().get("api.test", "/x", "an_0000000000000000000000000000000000").await;
    assert_eq!((reply.status.as_u16(), reply.refusal()), (401, Some("nonce_unknown")));
    assert_eq!(stage.upstream.connections(), 0, "nothing was even dialled");
}

#[test]
fn a_broken_policy_file() {
    let broken =
        policies::ONE_API.replace("risk = \"low\"", "risk = \"none\"").replace("hosts = [\"api.test\"]", "host = 1");
    let (code, said) = TestSidecar::with_policy(&broken).fails();
    assert_eq!(code, Some(3), "{said}");
    assert!(said.matches("policy.toml").count() >= 2, "every mistake with its place: {said}");
}

#[tokio::test]
async fn a_full_audit_disk() {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let stage = Stage::with(upstream, |builder| builder.audit("/dev/full")).await;
    let body = serde_json::json!({"agent": "worker", "task": "t", "service": "api", "scope": "read"});
    let (status, _) = stage.sidecar.orchestrator().call("POST", "/v1/nonces", Some(body)).await;
    assert_eq!(status, 503);
    assert_eq!(stage.upstream.connections(), 0);
}

#[tokio::test]
async fn a_credential_source_that_is_down() {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let sidecar = TestSidecar::with_policy(policies::ONE_API).upstream(&["api.test"], "api", &upstream).start().await;
    let nonce = sidecar.orchestrator().mint("worker", "api", "read").await.nonce;
    let reply = sidecar.agent().get("api.test", "/x", &nonce).await;
    assert_eq!((reply.status.as_u16(), reply.refusal()), (503, Some("credential_unavailable")));
    assert_eq!(upstream.connections(), 0, "the nonce itself never goes out instead");
}

#[tokio::test]
async fn a_credential_that_would_break_out_of_its_header() {
    for bad in ["sk_live_abcdefgh\r\nX-Injected: 1", "sk_live_abcdefgh\u{e9}ijklmnop"] {
        let upstream = FakeUpstream::start(&["api.test"]).await;
        let sidecar = TestSidecar::with_policy(policies::ONE_API)
            .upstream(&["api.test"], "api", &upstream)
            .environment("API_KEY", bad)
            .start()
            .await;
        let nonce = sidecar.orchestrator().mint("worker", "api", "read").await.nonce;
        let reply = sidecar.agent().get("api.test", "/x", &nonce).await;
        assert_eq!(reply.refusal(), Some("credential_unavailable"));
        assert_eq!(upstream.connections(), 0);
    }
}

#[tokio::test]
async fn a_malformed_request() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    for head in [
        format!("GET /x HTTP/1.1\r\nHost: api.test\r\nAuthorization : Bearer {nonce}\r\n\r\n"),
        format!("GET /x HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\nX: \0\r\n\r\n"),
        format!("GET  /x HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\n\r\n"),
    ] {
        let answer = stage.sidecar.agent().raw_inside("api.test", head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{head:?}: {answer}");
    }
    assert!(stage.upstream.seen().is_empty());
    stage.sidecar.audited(|record| record["code"] == "request_malformed").await;
}

#[tokio::test]
async fn one_service_that_is_down_takes_no_other_with_it() {
    let (api, other) = (FakeUpstream::start(&["api.test"]).await, FakeUpstream::start(&["other.test"]).await);
    let sidecar = TestSidecar::with_policy(policies::TWO_APIS)
        .upstream(&["api.test"], "api", &api)
        .upstream(&["other.test"], "other", &other)
        .environment("OTHER_KEY", &canary())
        .start()
        .await;
    let orchestrator = sidecar.orchestrator();
    let (down, up) =
        (orchestrator.mint("worker", "api", "read").await, orchestrator.mint("worker", "other", "read").await);
    let agent = sidecar.agent();
    assert_eq!(agent.get("api.test", "/x", &down.nonce).await.refusal(), Some("credential_unavailable"));
    assert_eq!(agent.get("other.test", "/x", &up.nonce).await.status, 200);
}

#[tokio::test]
async fn a_request_that_is_refused_is_not_seen_by_the_upstream_of_another() {
    let stage = Stage::new().await;
    let bearer = format!("Bearer {}", stage.reader().await);
    let request = with("GET", "api.test", "/x", &[("authorization", &bearer), ("cookie", "a=b")], "");
    assert_eq!(stage.sidecar.agent().send(request).await.refusal(), Some("foreign_credential"));
    assert_eq!(stage.upstream.connections(), 0);
}
