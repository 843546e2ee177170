//! `max_risk` of a minter: nothing riskier is minted, renewed or delegated by it.

use serde_json::json;

use crate::support::agent::with;
use crate::support::orchestrator::Minted;
use crate::support::sidecar::eventually;
use crate::support::{Stage, policies};

/// `low` and `wide` are this process; `{wide}` is how far the second reaches.
fn policy(wide: &str) -> String {
    let uid = rustix::process::geteuid().as_raw();
    let minter = |name: &str, max: &str| {
        format!(
            "\n[minters.{name}]\nidentity = [\"uid:{uid}\"]\nagents = [\"worker\"]\nmay = [\"mint\", \"read\"]\nmax_risk = \"{max}\"\n"
        )
    };
    let delegate = "[\"any\"]\ndelegate = { to = [\"worker\"] }";
    policies::ONE_API.replace("[\"any\"]", delegate) + &minter("low", "low") + &minter("wide", wide)
}

async fn mint(stage: &Stage, scope: &str) -> (u16, serde_json::Value) {
    let body = json!({"agent": "worker", "task": "t", "service": "api", "scope": scope, "ttl": "1m"});
    let (status, answer) = stage.sidecar.orchestrator().call("POST", "/v1/nonces", Some(body)).await;
    (status.as_u16(), answer)
}

#[tokio::test]
async fn each_minter_mints_up_to_its_own() {
    let stage = Stage::of_policy(&policy("medium")).await;
    for (scope, minter) in [("read", "low"), ("write", "wide")] {
        let (status, answer) = mint(&stage, scope).await;
        assert_eq!(status, 201, "{answer:#}");
        let is_it = |record: &serde_json::Value| record["type"] == "mint" && record["nonce.id"] == answer["id"];
        assert_eq!(stage.sidecar.audited(is_it).await["minted_by"], minter);
    }
    let (status, answer) = mint(&stage, "once").await;
    assert_eq!((status, &answer["code"]), (403, &"forbidden".into()));
    assert!(answer["detail"].as_str().expect("text").contains("`max_risk`"), "{answer:#}");
}

#[tokio::test]
async fn what_is_too_risky_by_now_is_neither_renewed_nor_delegated() {
    let stage = Stage::of_policy(&policy("medium")).await;
    let orchestrator = stage.sidecar.orchestrator();
    let (reader, writer): (Minted, Minted) =
        (orchestrator.mint("worker", "api", "read").await, orchestrator.mint("worker", "api", "write").await);
    let ask = async |minted: &Minted, what: &str, body| {
        let (status, _) = orchestrator.call("POST", &format!("/v1/nonces/{}/{what}", minted.id), Some(body)).await;
        status.as_u16()
    };
    let child = || json!({"agent": "worker"});
    assert_eq!(ask(&writer, "renew", json!({})).await, 200);
    assert_eq!(ask(&writer, "delegate", child()).await, 201);
    let path = stage.sidecar.path("policy.toml");
    let text = std::fs::read_to_string(&path).expect("a policy");
    std::fs::write(&path, text.replace("max_risk = \"medium\"", "max_risk = \"low\"")).expect("a policy");
    stage.sidecar.signal("HUP");
    let is_adopted = || stage.sidecar.log().contains("has changed and is in force").then_some(());
    eventually("the new policy", is_adopted).await;
    assert_eq!(ask(&writer, "renew", json!({})).await, 403);
    let request = with("POST", "api.test", "/x", &[("authorization", &format!("Bearer {}", writer.nonce))], "");
    assert_eq!(stage.sidecar.agent().send(request).await.status, 200, "what was given stays until it is over");
    assert_eq!(ask(&writer, "delegate", child()).await, 403);
    assert_eq!(ask(&reader, "renew", json!({})).await, 200);
    assert_eq!(ask(&reader, "delegate", child()).await, 201);
}
