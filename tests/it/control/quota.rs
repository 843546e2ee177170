//! What one minter may have of what all share: calls and live nonces. A greedy one hinders no other, and can always end
//! what it has made.

use http::StatusCode;
use serde_json::{Value, json};

use super::callers::{GROUP, open_to_group};
use crate::support::orchestrator::post;
use crate::support::stranger::{acting, can_be_others};
use crate::support::{Orchestrator, Stage, policies};

const OTHER: u32 = 54_329;

/// `greedy` is this process, with these limits; `modest` is another user.
fn policy(limits: &str) -> String {
    let minter = |name: &str, uid: u32, limits: &str| {
        format!(
            "\n[minters.{name}]\nidentity = [\"uid:{uid}\"]\nagents = [\"worker\"]\nmay = [\"mint\", \"read\", \"revoke\"]\n{limits}\n"
        )
    };
    let delegate = "[\"any\"]\ndelegate = { to = [\"worker\"] }";
    let one = policies::ONE_API.replace("[\"any\"]", delegate);
    one + &minter("greedy", rustix::process::geteuid().as_raw(), limits) + &minter("modest", OTHER, "")
}

fn asked() -> Value {
    json!({"agent": "worker", "task": "t", "service": "api", "scope": "read", "ttl": "1m"})
}

async fn mint(stage: &Stage) -> (u16, Value) {
    let (status, answer) = stage.sidecar.orchestrator().call("POST", "/v1/nonces", Some(asked())).await;
    (status.as_u16(), answer)
}

/// As the other user; `None` where nobody can be that here.
async fn as_other(stage: &Stage) -> Option<u16> {
    if !can_be_others() {
        return None;
    }
    let control = stage.sidecar.control();
    let call = move || async move { Orchestrator::new(control).call("POST", "/v1/nonces", Some(asked())).await };
    Some(acting(OTHER, GROUP, call).await.0.as_u16())
}

#[tokio::test]
async fn a_minter_that_calls_too_often_waits_and_hinders_no_other() {
    let stage = open_to_group(&policy("rate = \"3/h\"")).await;
    let orchestrator = stage.sidecar.orchestrator();
    let (_, first) = mint(&stage).await;
    assert_eq!((mint(&stage).await.0, mint(&stage).await.0), (201, 201));
    let (status, headers, body) =
        orchestrator.exchange(post("/v1/nonces", "application/json", &asked().to_string())).await;
    let problem: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!((status, &problem["code"]), (StatusCode::TOO_MANY_REQUESTS, &"mint_rate_limited".into()));
    let wait: u64 = headers["retry-after"].to_str().expect("text").parse().expect("seconds");
    assert!((1_000..=1_200).contains(&wait), "{wait}");
    // What was refused cost nothing and made nothing; what ends things has an allowance of its own.
    let path = format!("/v1/nonces/{}", first["id"].as_str().expect("an id"));
    for _ in 0..20 {
        let (status, problem) = orchestrator.call("DELETE", &path, None).await;
        assert_eq!(status.as_u16(), 204, "{problem:#}");
    }
    for asked in [200, 200, 200, 429] {
        let (status, list) = orchestrator.call("GET", "/v1/nonces", None).await;
        assert_eq!(status.as_u16(), asked, "{list:#}");
        assert!(list["nonces"].as_array().is_none_or(|nonces| nonces.len() == 2));
    }
    assert!(as_other(&stage).await.is_none_or(|status| status == 201));
    let is_it = |record: &Value| record["type"] == "control_refused" && record["code"] == "mint_rate_limited";
    assert_eq!(stage.sidecar.audited(is_it).await["call"], "mint");
    let is_it = |record: &Value| record["type"] == "control_refused" && record["code"] == "rate_limited";
    assert_eq!(stage.sidecar.audited(is_it).await["call"], "list");
    let metrics = stage.sidecar.admin_get("/metrics").await.text().to_owned();
    assert!(metrics.contains("valetkey_control_refused_total{code=\"mint_rate_limited\"} 1"), "{metrics}");
}

#[tokio::test]
async fn a_rate_that_is_raised_holds_at_once() {
    let stage = Stage::of_policy(&policy("rate = \"1/d\"")).await;
    assert_eq!((mint(&stage).await.0, mint(&stage).await.0), (201, 429));
    let path = stage.sidecar.path("policy.toml");
    let text = std::fs::read_to_string(&path).expect("the policy").replace("\"1/d\"", "\"5/s\"");
    std::fs::write(path, text).expect("our directory");
    let adopted = |record: &Value| record["type"] == "policy" && record["outcome"] == "adopted";
    stage.sidecar.audited(adopted).await;
    assert_eq!(mint(&stage).await.0, 201, "nobody waits for a day");
}

#[tokio::test]
async fn a_minter_has_so_many_live_nonces_and_leaves_room_for_others() {
    let stage = open_to_group(&policy("nonces_max = 2")).await;
    let orchestrator = stage.sidecar.orchestrator();
    let (_, first) = mint(&stage).await;
    let path = format!("/v1/nonces/{}", first["id"].as_str().expect("an id"));
    let delegate = async || {
        let (status, answer) =
            orchestrator.call("POST", &format!("{path}/delegate"), Some(json!({"agent": "worker"}))).await;
        (status.as_u16(), answer)
    };
    assert_eq!(delegate().await.0, 201, "what is delegated counts, too");
    for (status, problem) in [mint(&stage).await, delegate().await] {
        assert_eq!((status, &problem["code"]), (429, &"mint_rate_limited".into()), "{problem:#}");
        assert!(problem["detail"].as_str().expect("text").contains("`nonces_max`"), "{problem:#}");
    }
    assert!(as_other(&stage).await.is_none_or(|status| status == 201));
    let mints = stage.sidecar.audit().iter().filter(|record| record["type"] == "mint").count();
    assert_eq!(mints, 2 + usize::from(can_be_others()), "nothing is on record of a mint that nobody got");
    let (status, ended) = orchestrator.call("DELETE", &path, None).await;
    assert_eq!((status.as_u16(), &ended["descendants"]), (200, &1.into()));
    assert_eq!((mint(&stage).await.0, mint(&stage).await.0, mint(&stage).await.0), (201, 201, 429));
}
