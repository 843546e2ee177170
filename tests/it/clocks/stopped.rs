//! A process that stood still, as a machine that is paused.

use std::time::Duration;

use serde_json::json;

use crate::support::Stage;
use crate::support::agent::get;

#[tokio::test]
async fn a_process_that_stood_still_past_the_expiry_goes_on_with_dead_nonces() {
    let stage = Stage::new().await;
    let wanted = json!({"agent": "worker", "task": "t", "service": "api", "scope": "read", "ttl": "1s"});
    let mut tunnel = stage.sidecar.agent().tunnel("api.test").await;
    let minted = stage.sidecar.orchestrator().mint_with(wanted).await;
    stage.sidecar.signal("STOP");
    tokio::time::sleep(Duration::from_millis(1200)).await;
    stage.sidecar.signal("CONT");
    let reply = tunnel.send(get("api.test", "/x", &minted.nonce)).await;
    assert_eq!((reply.status.as_u16(), reply.refusal()), (401, Some("nonce_expired")));
    assert_eq!(stage.upstream.seen().len(), 0);
    let fresh = stage.reader().await;
    assert_eq!(tunnel.send(get("api.test", "/x", &fresh)).await.status, 200);
}
