//! Renewing through the API: the same nonce, a later expiry, never from the dead.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Stage, policies};

const CEILINGS: &str = "\n[nonces]\nttl = \"1m\"\n[nonces.ceilings]\nlow = { ttl = \"10m\", lifetime = \"15m\" }\n\
                        medium = { ttl = \"5m\", lifetime = \"1h\" }\nhigh = { ttl = \"2m\", lifetime = \"3m\" }\n";

fn reading(ttl: &str) -> Value {
    json!({"agent": "worker", "task": "t", "service": "api", "scope": "read", "ttl": ttl})
}

async fn renew(stage: &Stage, id: &str, body: Option<Value>) -> (u16, Value) {
    let path = format!("/v1/nonces/{id}/renew");
    let (status, answer) = stage.sidecar.orchestrator().call("POST", &path, body).await;
    (status.as_u16(), answer)
}

#[tokio::test]
async fn a_renewed_nonce_works_on_when_its_first_period_is_over() {
    let stage = Stage::new().await;
    let orchestrator = stage.sidecar.orchestrator();
    let (renewed, other) = (orchestrator.mint_with(reading("2s")).await, orchestrator.mint_with(reading("2s")).await);
    let get = async |nonce: &str| stage.sidecar.agent().get("api.test", "/v1/x", nonce).await;
    assert_eq!(get(&renewed.nonce).await.status, 200);
    let (status, view) = renew(&stage, &renewed.id, Some(json!({"ttl": "5m"}))).await;
    assert_eq!((status, &view["id"]), (200, &renewed.id.as_str().into()), "{view:#}");
    assert!(view["expires_in"].as_u64().expect("seconds") >= 299, "{view:#}");
    assert!(view.get("nonce").is_none() && view.get("ttl_capped_by").is_none(), "{view:#}");
    let ended = stage.sidecar.audited(|record| record["type"] == "lease_end").await;
    assert_eq!((&ended["nonce.id"], &ended["cause"]), (&other.id.as_str().into(), &"expired".into()));
    assert_eq!(get(&renewed.nonce).await.status, 200, "the first period is over, as the other's is");
    assert_eq!(get(&other.nonce).await.refusal(), Some("nonce_expired"));
    let record = stage.sidecar.audited(|record| record["type"] == "renew").await;
    assert_eq!((&record["nonce.id"], &record["expires_at"]), (&renewed.id.as_str().into(), &view["expires_at"]));
    assert_eq!((&record["agent"], &record["renewed_by"]), (&"worker".into(), &"self".into()));
    assert!(stage.sidecar.admin_get("/metrics").await.text().contains("valetkey_nonces_renewed_total 1"));
}

#[tokio::test]
async fn a_renewal_is_capped_like_a_mint_and_by_the_life() {
    let stage = Stage::of_policy(&format!("{}{CEILINGS}", policies::ONE_API)).await;
    let minted = stage.sidecar.orchestrator().mint_with(reading("90s")).await;
    let (_, view) = renew(&stage, &minted.id, None).await;
    assert_eq!((&view["expires_at"], &view["ends_at"]), (&minted.answer["expires_at"], &minted.answer["ends_at"]));
    let (_, view) = renew(&stage, &minted.id, Some(json!({}))).await;
    assert_eq!(view["expires_at"], minted.answer["expires_at"], "the default is shorter than what is left");
    let (_, view) = renew(&stage, &minted.id, Some(json!({"ttl": "1h"}))).await;
    assert_eq!((&view["expires_in"], &view["ttl_capped_by"]), (&600.into(), &"ceilings.low".into()));

    let risky = json!({"agent": "worker", "task": "t", "service": "api", "scope": "once", "ttl": "2m"});
    let minted = stage.sidecar.orchestrator().mint_with(risky).await;
    // Its life has three minutes, of which each renewal takes two from now on.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let (_, view) = renew(&stage, &minted.id, Some(json!({"ttl": 120}))).await;
    assert_eq!(view.get("ttl_capped_by"), None);
    assert!(view["expires_at"].as_str() > minted.answer["expires_at"].as_str(), "{view:#}");
    assert!(view["expires_at"].as_str() < view["ends_at"].as_str(), "{view:#}");
}

#[tokio::test]
async fn what_is_over_or_unknown_is_not_renewed() {
    let stage = Stage::new().await;
    let orchestrator = stage.sidecar.orchestrator();
    let minted = orchestrator.mint_with(reading("5m")).await;
    orchestrator.revoke(&minted.id).await;
    let (status, problem) = renew(&stage, &minted.id, None).await;
    assert_eq!((status, &problem["code"]), (409, &"not_renewable".into()), "{problem:#}");
    assert!(problem["detail"].as_str().expect("a text").contains("revoked"), "{problem:#}");
    let unknown = "nc_01J8Z4T6V0Q2W4E6R8T0Y2V4X6";
    for (id, status) in [(unknown, 404), ("nc_x", 404)] {
        assert_eq!(renew(&stage, id, None).await.0, status, "{id}");
    }
    stage.sidecar.audited(|record| record["type"] == "control_refused" && record["call"] == "renew").await;
    assert_eq!(stage.sidecar.audit().iter().filter(|record| record["type"] == "renew").count(), 0);
}

#[tokio::test]
async fn a_renewal_is_read_strictly() {
    let stage = Stage::new().await;
    let minted = stage.sidecar.orchestrator().mint_with(reading("5m")).await;
    for body in [
        json!({"ttl": 0}),
        json!({"ttl": "soon"}),
        json!({"ttl": null}),
        json!({"surprise": 1}),
        json!({"nonce": minted.nonce}),
        json!([]),
    ] {
        let (status, problem) = renew(&stage, &minted.id, Some(body.clone())).await;
        assert_eq!((status, &problem["code"]), (400, &"invalid_request".into()), "{body}");
    }
    let (_, view) = stage.sidecar.orchestrator().call("GET", &format!("/v1/nonces/{}", minted.id), None).await;
    assert_eq!(view["expires_at"], minted.answer["expires_at"]);
}
