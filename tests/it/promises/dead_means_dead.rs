//! After revoke or expiry the next request is refused, on connections already open too.

mod racing;

use std::time::Duration;

use http_body_util::BodyExt;
use serde_json::json;

use crate::support::Stage;
use crate::support::agent::{get, with};

#[tokio::test]
async fn revoked_on_an_open_connection() {
    let stage = Stage::new().await;
    let orchestrator = stage.sidecar.orchestrator();
    let minted = orchestrator.mint("worker", "api", "read").await;
    let agent = stage.sidecar.agent();
    let (mut h1, mut h2) = (agent.tunnel("api.test").await, agent.tunnel_h2("api.test").await);
    assert_eq!(h1.send(get("api.test", "/x", &minted.nonce)).await.status, 200);
    assert_eq!(h2.send(get("api.test", "/x", &minted.nonce)).await.status, 200);
    orchestrator.revoke(&minted.id).await;
    for tunnel in [&mut h1, &mut h2] {
        let reply = tunnel.send(get("api.test", "/x", &minted.nonce)).await;
        assert_eq!((reply.status.as_u16(), reply.refusal()), (401, Some("nonce_revoked")));
    }
    assert_eq!(stage.upstream.seen().len(), 2);
}

#[tokio::test]
async fn revoking_cuts_an_open_stream() {
    let stage = Stage::new().await;
    let orchestrator = stage.sidecar.orchestrator();
    let minted = orchestrator.mint("worker", "api", "read").await;
    let mut tunnel = stage.sidecar.agent().tunnel("api.test").await;
    let mut response = tunnel.start(get("api.test", "/endless", &minted.nonce)).await;
    response.body_mut().frame().await.expect("a frame").expect("data");
    orchestrator.revoke(&minted.id).await;
    let cut = tokio::time::timeout(Duration::from_secs(5), async {
        while let Some(frame) = response.body_mut().frame().await {
            if frame.is_err() {
                return true;
            }
        }
        false
    });
    assert!(cut.await.expect("it ends"), "cut, not ended cleanly");
    stage.sidecar.audited(|record| record["ending"] == "cut").await;
}

#[tokio::test]
async fn expired() {
    let stage = Stage::new().await;
    let minted = stage
        .sidecar
        .orchestrator()
        .mint_with(json!({"agent": "worker", "task": "t", "service": "api", "scope": "read", "ttl": "1s"}))
        .await;
    let mut tunnel = stage.sidecar.agent().tunnel("api.test").await;
    assert_eq!(tunnel.send(get("api.test", "/x", &minted.nonce)).await.status, 200);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let reply = tunnel.send(get("api.test", "/x", &minted.nonce)).await;
    assert_eq!((reply.status.as_u16(), reply.refusal()), (401, Some("nonce_expired")));
    assert_eq!(reply.json()["nonce_id"], minted.id.as_str());
    stage.sidecar.audited(|record| record["type"] == "lease_end" && record["cause"] == "expired").await;
}

#[tokio::test]
async fn spent_exactly() {
    let stage = Stage::new().await;
    let minted = stage
        .sidecar
        .orchestrator()
        .mint_with(json!({"agent": "worker", "task": "t", "service": "api", "scope": "read", "max_uses": 3}))
        .await;
    let agent = stage.sidecar.agent();
    let tries = (0..16).map(|_| {
        let (agent, nonce) = (agent.clone(), minted.nonce.clone());
        tokio::spawn(async move { agent.get("api.test", "/x", &nonce).await })
    });
    let mut allowed = 0;
    for reply in tries.collect::<Vec<_>>() {
        let reply = reply.await.expect("a reply");
        match reply.refusal() {
            None => allowed += 1,
            Some(code) => assert_eq!(code, "nonce_spent"),
        }
    }
    assert_eq!((allowed, stage.upstream.seen().len()), (3, 3));
}

#[tokio::test]
async fn a_scope_has_uses_of_its_own() {
    let stage = Stage::new().await;
    let minted = stage
        .sidecar
        .orchestrator()
        .mint_with(json!({"agent": "worker", "task": "t", "grants": [{"service": "api", "scopes": ["once", "read"]}]}))
        .await;
    let bearer = format!("Bearer {}", minted.nonce);
    let delete = || with("DELETE", "api.test", "/x", &[("authorization", &bearer)], "");
    let agent = stage.sidecar.agent();
    assert_eq!(agent.send(delete()).await.status, 200);
    assert_eq!(agent.send(delete()).await.refusal(), Some("nonce_spent"));
    assert_eq!(agent.get("api.test", "/x", &minted.nonce).await.status, 200, "other scopes go on");
}

#[tokio::test]
async fn a_use_comes_back_when_no_byte_was_sent() {
    let stage = Stage::new().await;
    let minted = stage
        .sidecar
        .orchestrator()
        .mint_with(json!({"agent": "worker", "task": "t", "service": "api", "scope": "read", "max_uses": 1}))
        .await;
    let Stage { upstream, sidecar, .. } = stage;
    drop(upstream);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let agent = sidecar.agent();
    for _ in 0..2 {
        assert_eq!(agent.get("api.test", "/x", &minted.nonce).await.refusal(), Some("upstream_unreachable"));
    }
}

#[tokio::test]
async fn a_restart_ends_all() {
    let upstream = crate::support::FakeUpstream::start(&["api.test"]).await;
    let stage = Stage::with(upstream, |builder| builder).await;
    let nonce = stage.reader().await;
    let second = Stage::new().await;
    let reply = second.sidecar.agent().get("api.test", "/x", &nonce).await;
    assert_eq!((reply.status.as_u16(), reply.refusal()), (401, Some("nonce_unknown")));
}
