//! What narrows a child beside its scopes: its own list, and what is judged of each nonce above.

use serde_json::json;

use super::{delegate, exceeds, mint, policy, read, stage};
use crate::support::Stage;
use crate::support::agent::with;

#[tokio::test]
async fn conditions_are_judged_for_each_nonce_above_with_what_is_true_of_that_one() {
    let when =
        "risk = \"low\"\nwhen = \"nonce.labels.team == 'x' && (nonce.agent != 'worker' || nonce.task == 't-1')\"\n";
    let stage = Stage::of_policy(&policy().replace("risk = \"low\"\n", when)).await;
    let agent = stage.sidecar.agent();
    for (labels, own, below) in
        [(json!({"team": "x"}), None, None), (json!({}), Some("condition_failed"), Some("condition_failed"))]
    {
        let root = mint(&stage, json!({"labels": labels})).await;
        // With a label of its own the child alone would be let through.
        let child = delegate(&stage, &root.id, json!({"agent": "researcher", "labels": {"team": "x"}})).await;
        let last = delegate(&stage, &child.id, json!({"agent": "summarizer"})).await;
        assert_eq!(agent.get("api.test", "/x", &root.nonce).await.refusal(), own, "{labels}");
        for nonce in [&child.nonce, &last.nonce] {
            assert_eq!(agent.get("api.test", "/x", nonce).await.refusal(), below, "{labels}");
        }
    }
    // What is true of the minted one alone is not true below.
    let other = mint(&stage, json!({"task": "t-2", "labels": {"team": "x"}})).await;
    let child = delegate(&stage, &other.id, json!({"agent": "researcher"})).await;
    assert_eq!(agent.get("api.test", "/x", &child.nonce).await.refusal(), Some("condition_failed"), "worker, t-2");
}

#[tokio::test]
async fn a_list_of_rules_narrows_what_the_scopes_allow_and_all_below() {
    let stage = stage().await;
    let root = mint(&stage, json!({})).await;
    let listed = json!({"agent": "researcher", "rules": ["GET /a/{id}", "POST api.test/b"]});
    let child = delegate(&stage, &root.id, listed.clone()).await;
    assert_eq!((&child.answer["rules"], &root.answer.get("rules")), (&listed["rules"], &None));
    let last = delegate(&stage, &child.id, json!({"agent": "summarizer"})).await;
    assert_eq!(read(&stage, &last.id).await["rules"], listed["rules"], "a list above is a list below");
    let agent = stage.sidecar.agent();
    let send = async |method: &str, path: &str, nonce: &str| {
        agent.send(with(method, "api.test", path, &[("authorization", &format!("Bearer {nonce}"))], "")).await
    };
    for (method, path, allowed) in [
        ("GET", "/a/1?x=1", true),
        ("HEAD", "/a/1", true),
        ("POST", "/b", true),
        ("GET", "/a", false),
        ("GET", "/a/1/", false),
        ("GET", "/a/1/2", false),
        ("GET", "/b", false),
        ("POST", "/a/1", false),
        ("PUT", "/b", false),
    ] {
        assert_eq!(send(method, path, &root.nonce).await.status, 200, "{method} {path}: its parent may");
        let reply = send(method, path, &child.nonce).await;
        assert_eq!(reply.status.as_u16(), if allowed { 200 } else { 403 }, "{method} {path}");
        let below = send(method, path, &last.nonce).await;
        assert_eq!(below.status == 200, allowed && method != "POST", "{method} {path}: it has `read` alone");
    }
    let refused = agent.get("api.test", "/b", &child.nonce).await;
    assert_eq!((refused.refusal(), &refused.json()["allowed"]), (Some("out_of_scope"), &listed["rules"]));
    let more = json!({"agent": "summarizer", "rules": ["GET /a/1", "GET /a/{*rest}", "GET /c", "POST /b"]});
    assert_eq!(exceeds(&stage, &child.id, more).await, ["/rules/1", "/rules/2", "/rules/3"]);
    let made =
        stage.sidecar.audited(|record| record["type"] == "mint" && record["nonce.id"] == child.id.as_str()).await;
    assert_eq!(made["rules"], listed["rules"], "{made:#}");
}

#[tokio::test]
async fn a_list_holds_where_the_rules_of_the_service_are_only_observed() {
    let observed = policy().replace(
        "[[services.api.scopes]]\nname = \"read\"",
        "enforce = \"observe\"\nuntil = 2999-01-01\n[[services.api.scopes]]\nname = \"read\"",
    );
    let stage = Stage::of_policy(&observed).await;
    let root = mint(&stage, json!({"scope": "read"})).await;
    let child = delegate(&stage, &root.id, json!({"agent": "researcher", "rules": ["GET /a"]})).await;
    let agent = stage.sidecar.agent();
    let bearer = format!("Bearer {}", root.nonce);
    assert_eq!(agent.send(with("POST", "api.test", "/a", &[("authorization", &bearer)], "")).await.status, 200);
    let bearer = format!("Bearer {}", child.nonce);
    for (method, path) in [("POST", "/a"), ("GET", "/b")] {
        let reply = agent.send(with(method, "api.test", path, &[("authorization", &bearer)], "")).await;
        assert_eq!(reply.refusal(), Some("out_of_scope"), "{method} {path}");
    }
    assert_eq!(agent.get("api.test", "/a", &child.nonce).await.status, 200);
}
