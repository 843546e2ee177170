//! Delegating through the API: a child never has more than its parent, and never outlives it.

use std::time::Duration;

use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::support::agent::{get, with};
use crate::support::orchestrator::{Minted, post};
use crate::support::stranger::{acting, can_be_others};
use crate::support::{Builder, FakeUpstream, Orchestrator, Stage, policies};

mod narrowing;

const LINE: &str = r#"
delegate = { depth = 2, to = ["researcher", "summarizer"], children_max = 2 }

[agents.researcher]
identity = ["any"]
grants = { api = ["read", "write"] }
delegate = { to = ["researcher", "summarizer", "stranger"] }

[agents.summarizer]
identity = ["any"]
grants = { api = ["read"] }
delegate = { to = ["researcher"] }

[agents.stranger]
identity = ["any"]
grants = { api = ["read"] }
"#;

fn policy() -> String {
    format!("{}{LINE}", policies::ONE_API)
}

async fn stage() -> Stage {
    Stage::of_policy(&policy()).await
}

async fn mint(stage: &Stage, extra: Value) -> Minted {
    let mut body = json!({"agent": "worker", "task": "t-1", "service": "api", "scope": ["read", "write", "once"]});
    body.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
    stage.sidecar.orchestrator().mint_with(body).await
}

async fn ask(stage: &Stage, parent: &str, body: Value) -> (u16, Value) {
    let path = format!("/v1/nonces/{parent}/delegate");
    let (status, answer) = stage.sidecar.orchestrator().call("POST", &path, Some(body)).await;
    (status.as_u16(), answer)
}

async fn delegate(stage: &Stage, parent: &str, body: Value) -> Minted {
    let (status, answer) = ask(stage, parent, body).await;
    assert_eq!(status, 201, "{answer:#}");
    let text = |name: &str| answer[name].as_str().expect("a text").to_owned();
    Minted { nonce: text("nonce"), id: text("id"), answer }
}

async fn read(stage: &Stage, id: &str) -> Value {
    stage.sidecar.orchestrator().call("GET", &format!("/v1/nonces/{id}"), None).await.1
}

/// A child's end is its parent's, and never later: both are kept in microseconds since their own beginning.
fn assert_same_end(child: &Value, parent: &Value) {
    let end = |lease: &Value| lease["expires_at"].as_str().expect("a time").parse::<jiff::Timestamp>().expect("a time");
    let earlier = end(child).duration_until(end(parent)).as_nanos();
    assert!((0..2_000).contains(&earlier), "{earlier} ns: {child:#}");
}

/// The pointers of a refusal because of the parent.
async fn exceeds(stage: &Stage, parent: &str, body: Value) -> Vec<String> {
    let (status, problem) = ask(stage, parent, body).await;
    assert_eq!((status, &problem["code"]), (403, &"delegation_exceeds_parent".into()), "{problem:#}");
    let errors = problem["errors"].as_array().expect("what exceeds").iter();
    errors.map(|error| error["pointer"].as_str().expect("a pointer").to_owned()).collect()
}

#[tokio::test]
async fn a_child_works_for_its_agent_and_everything_says_where_it_comes_from() {
    let stage = stage().await;
    let root = mint(&stage, json!({"on_behalf_of": "user:ana", "labels": {"team": "x"}, "max_uses": 9})).await;
    let asked = json!({"agent": "researcher", "ttl": "2m", "labels": {"run": "1"}, "reason": "look it up"});
    let child = delegate(&stage, &root.id, asked).await;
    assert_eq!((&child.answer["parent"], &child.answer["agent"]), (&root.id.as_str().into(), &"researcher".into()));
    assert_eq!((&child.answer["task"], &child.answer["max_uses"]), (&"t-1".into(), &9.into()));
    assert_eq!((&child.answer["expires_in"], &child.answer["ttl_capped_by"]), (&120.into(), &Value::Null));
    assert_eq!(child.answer["grants"][0]["scopes"], json!(["read", "write"]), "what both may have");
    let grandchild = delegate(&stage, &child.id, json!({"agent": "summarizer", "ttl": "1h"})).await;
    assert_eq!(grandchild.answer["ttl_capped_by"], "parent");
    assert_same_end(&grandchild.answer, &child.answer);
    assert_eq!(stage.sidecar.agent().get("api.test", "/x", &grandchild.nonce).await.status, 200);

    let (one, two) = (read(&stage, &root.id).await, read(&stage, &grandchild.id).await);
    assert_eq!((&one["parent"], &one["depth"], &one["children"]), (&Value::Null, &0.into(), &1.into()));
    assert_eq!((&two["parent"], &two["depth"], &two["children"]), (&child.id.as_str().into(), &2.into(), &0.into()));
    assert_eq!((&two["on_behalf_of"], &two["labels"]), (&"user:ana".into(), &json!({"team": "x", "run": "1"})));
    assert_eq!((&one["uses_left"], &two["uses_left"]), (&8.into(), &8.into()), "one use of each");

    let (id, chain) = (Value::from(grandchild.id.as_str()), json!(["worker", "researcher", "summarizer"]));
    stage.sidecar.orchestrator().revoke(&root.id).await;
    for kind in ["mint", "decision", "end", "lease_end"] {
        let record = stage.sidecar.audited(|record| record["type"] == kind && record["nonce.id"] == id).await;
        assert_eq!((&record["parent.id"], &record["chain"]), (&child.id.as_str().into(), &chain), "{record:#}");
    }
    let own = stage.sidecar.audited(|record| record["type"] == "mint" && record["nonce.id"] == root.id.as_str()).await;
    assert!(own.get("parent.id").is_none() && own.get("chain").is_none(), "{own:#}");
    stage.assert_silent(&[&root.nonce, &child.nonce, &grandchild.nonce]);
}

#[tokio::test]
async fn whatever_exceeds_the_parent_is_pointed_at() {
    let stage = stage().await;
    let reader = json!({"scope": ["read", "once"], "max_uses": 3, "on_behalf_of": "user:ana", "labels": {"team": "x"}});
    let root = mint(&stage, reader).await;
    let to = |extra: Value| {
        let mut body = json!({"agent": "researcher"});
        body.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
        body
    };
    for (extra, pointers) in [
        (json!({"service": "api", "scope": "write"}), vec!["/scope"]),
        (json!({"service": "api", "scope": ["read", "write"]}), vec!["/scope/1"]),
        (json!({"service": "other", "scope": "read"}), vec!["/service"]),
        (
            json!({"grants": [{"service": "api", "scopes": ["read", "write"]}, {"service": "other", "scopes": ["x"]}]}),
            vec!["/grants/0/scopes/1", "/grants/1/service"],
        ),
        (json!({"max_uses": 4}), vec!["/max_uses"]),
        (json!({"on_behalf_of": "user:bob"}), vec!["/on_behalf_of"]),
        (json!({"labels": {"team": "y", "other": "1"}}), vec!["/labels/team"]),
    ] {
        assert_eq!(exceeds(&stage, &root.id, to(extra.clone())).await, pointers, "{extra}");
    }
    assert_eq!(exceeds(&stage, &root.id, json!({"agent": "stranger", "max_uses": 4})).await, ["/agent", "/max_uses"]);
    let many: serde_json::Map<String, Value> = (0..16).map(|n| (format!("l{n}"), "v".into())).collect();
    assert_eq!(exceeds(&stage, &root.id, to(json!({"labels": many}))).await, ["/labels"]);
    // The parent has it, the policy does not grant it to the child's agent.
    let (status, problem) = ask(&stage, &root.id, to(json!({"service": "api", "scope": "once"}))).await;
    assert_eq!((status, &problem["code"]), (403, &"scope_not_grantable".into()), "{problem:#}");
    assert_eq!(problem["grantable"], json!(["read", "write"]));
    assert_eq!(stage.sidecar.audit().iter().filter(|record| record["type"] == "mint").count(), 1);
    stage.sidecar.audited(|record| record["type"] == "control_refused" && record["call"] == "delegate").await;
}

#[tokio::test]
async fn a_delegation_is_read_strictly() {
    let stage = stage().await;
    let root = mint(&stage, json!({})).await;
    for (body, code) in [
        (json!({}), "invalid_request"),
        (json!([]), "invalid_request"),
        (json!({"agent": "researcher", "task": "another"}), "invalid_request"),
        (json!({"agent": "researcher", "ttl": 0}), "invalid_request"),
        (json!({"agent": "researcher", "max_uses": 0}), "invalid_request"),
        (json!({"agent": "researcher", "service": "api"}), "invalid_request"),
        (json!({"agent": "researcher", "grants": []}), "invalid_request"),
        (json!({"agent": "researcher", "surprise": 1}), "invalid_request"),
        (json!({"agent": "researcher", "rules": []}), "invalid_request"),
        (json!({"agent": "researcher", "rules": "GET /x"}), "invalid_request"),
        (json!({"agent": "researcher", "rules": ["* /x"]}), "invalid_request"),
        (json!({"agent": "researcher", "rules": ["GET /x?y"]}), "invalid_request"),
        (json!({"agent": "researcher", "rules": ["GET /x", "GET /x"]}), "invalid_request"),
        (json!({"agent": "researcher", "rules": vec!["GET /x"; 65]}), "invalid_request"),
        (json!({"agent": "nobody"}), "unknown_agent"),
    ] {
        let (status, problem) = ask(&stage, &root.id, body.clone()).await;
        assert!(status >= 400 && problem["code"] == code, "{body}: {status} {problem:#}");
    }
    for id in ["nc_01J8Z4T6V0Q2W4E6R8T0Y2V4X6", "nc_x"] {
        assert_eq!(ask(&stage, id, json!({"agent": "researcher"})).await.0, 404, "{id}");
    }
    assert_eq!(read(&stage, &root.id).await["children"], 0);
}

#[tokio::test]
async fn leaving_out_a_scope_that_denies_opens_nothing() {
    let stage = stage().await;
    // `write` denies this to whoever holds it, in both lines.
    let policy = policy().replace("deny = [\"POST /forbidden\"]", "deny = [\"POST /forbidden\", \"GET /forbidden\"]");
    let strict = Stage::of_policy(&policy).await;
    for (stage, status) in [(&stage, 200), (&strict, 403)] {
        let root = mint(stage, json!({})).await;
        let asked = json!({"agent": "researcher", "service": "api", "scope": "read"});
        let child = delegate(stage, &root.id, asked).await;
        let agent = stage.sidecar.agent();
        assert_eq!(agent.get("api.test", "/forbidden", &child.nonce).await.status, status);
        assert_eq!(agent.get("api.test", "/forbidden", &root.nonce).await.status, status);
        assert_eq!(agent.get("api.test", "/else", &child.nonce).await.status, 200);
        let bearer = format!("Bearer {}", child.nonce);
        let reply = agent.send(with("POST", "api.test", "/x", &[("authorization", &bearer)], "")).await;
        assert_eq!(reply.refusal(), Some("out_of_scope"), "it has less than its parent");
    }
}

#[tokio::test]
async fn depth_and_children_are_bounded_by_every_agent_above() {
    let stage = stage().await;
    let root = mint(&stage, json!({})).await;
    let child = delegate(&stage, &root.id, json!({"agent": "researcher"})).await;
    assert_eq!(exceeds(&stage, &child.id, json!({"agent": "stranger"})).await, ["/agent"], "worker does not name it");
    let last = delegate(&stage, &child.id, json!({"agent": "summarizer"})).await;
    assert_eq!(exceeds(&stage, &last.id, json!({"agent": "researcher"})).await, ["", ""], "too deep for both above");
    let second = delegate(&stage, &root.id, json!({"agent": "summarizer"})).await;
    assert_eq!(exceeds(&stage, &root.id, json!({"agent": "researcher"})).await, [""], "two children live");
    let (status, _) = stage.sidecar.orchestrator().call("DELETE", &format!("/v1/nonces/{}", second.id), None).await;
    assert_eq!(status, 204);
    delegate(&stage, &root.id, json!({"agent": "researcher"})).await;
    let plain = stage.sidecar.orchestrator().mint("stranger", "api", "read").await;
    assert_eq!(exceeds(&stage, &plain.id, json!({"agent": "researcher"})).await, [""], "its agent has no `delegate`");
}

#[tokio::test]
async fn children_die_with_their_parent_and_open_streams_are_cut() {
    let stage = stage().await;
    let root = mint(&stage, json!({})).await;
    let child = delegate(&stage, &root.id, json!({"agent": "researcher"})).await;
    let last = delegate(&stage, &child.id, json!({"agent": "summarizer"})).await;
    let mut tunnel = stage.sidecar.agent().tunnel("api.test").await;
    let mut response = tunnel.start(get("api.test", "/endless", &last.nonce)).await;
    response.body_mut().frame().await.expect("a frame").expect("data");
    let path = format!("/v1/nonces/{}", root.id);
    let (status, answer) = stage.sidecar.orchestrator().call("DELETE", &path, None).await;
    assert_eq!((status.as_u16(), answer), (200, json!({"descendants": 2})));
    let cut = tokio::time::timeout(Duration::from_secs(5), async {
        while let Some(frame) = response.body_mut().frame().await {
            if frame.is_err() {
                return true;
            }
        }
        false
    });
    assert!(cut.await.expect("it ends"), "cut, not ended cleanly");
    for nonce in [&child.nonce, &last.nonce] {
        assert_eq!(stage.sidecar.agent().get("api.test", "/x", nonce).await.refusal(), Some("nonce_revoked"));
    }
    let ended = stage.sidecar.audited(|r| r["type"] == "lease_end" && r["nonce.id"] == last.id.as_str()).await;
    assert_eq!((&ended["cause"], &ended["by"]), (&"revoked".into(), &format!("parent {}", child.id).into()));
    let (status, problem) = ask(&stage, &root.id, json!({"agent": "researcher"})).await;
    assert_eq!((status, &problem["code"]), (409, &"not_delegable".into()), "{problem:#}");
    let (status, answer) = stage.sidecar.orchestrator().call("DELETE", &path, None).await;
    assert_eq!((status.as_u16(), answer), (204, Value::Null), "nothing is left to end");
}

#[tokio::test]
async fn the_uses_of_a_family_are_spent_together() {
    let stage = stage().await;
    let root = mint(&stage, json!({"max_uses": 5})).await;
    let one = delegate(&stage, &root.id, json!({"agent": "researcher", "max_uses": 3})).await;
    let two = delegate(&stage, &root.id, json!({"agent": "researcher"})).await;
    let tries = (0..24).map(|at| {
        let (agent, nonce) = (stage.sidecar.agent(), [&root, &one, &two][at % 3].nonce.clone());
        tokio::spawn(async move { (at % 3, agent.get("api.test", "/x", &nonce).await) })
    });
    let mut allowed = [0; 3];
    for reply in tries.collect::<Vec<_>>() {
        let (at, reply) = reply.await.expect("a reply");
        match reply.refusal() {
            None => allowed[at] += 1,
            Some(code) => assert_eq!(code, "nonce_spent"),
        }
    }
    assert_eq!((allowed.iter().sum::<u32>(), stage.upstream.seen().len()), (5, 5));
    assert!(allowed[1] <= 3, "{allowed:?}");
    let reply = stage.sidecar.agent().get("api.test", "/x", &two.nonce).await;
    assert_eq!((reply.status.as_u16(), reply.refusal()), (401, Some("nonce_spent")));
}

#[tokio::test]
async fn a_scope_that_is_spent_above_is_spent_below() {
    let policy = policy().replace("api = [\"read\", \"write\"]", "api = [\"read\", \"write\", \"once\"]");
    let stage = Stage::of_policy(&policy).await;
    let root = mint(&stage, json!({})).await;
    let child = delegate(&stage, &root.id, json!({"agent": "researcher"})).await;
    let delete = async |nonce: &str| {
        let bearer = format!("Bearer {nonce}");
        stage.sidecar.agent().send(with("DELETE", "api.test", "/x", &[("authorization", &bearer)], "")).await
    };
    assert_eq!(delete(&root.nonce).await.status, 200);
    assert_eq!(delete(&child.nonce).await.refusal(), Some("nonce_spent"));
    assert_eq!(stage.sidecar.agent().get("api.test", "/x", &child.nonce).await.status, 200, "other scopes go on");
    let asked = json!({"agent": "researcher", "service": "api", "scope": ["read", "once"]});
    assert_eq!(exceeds(&stage, &root.id, asked).await, ["/scope/1"]);
}

#[tokio::test]
async fn a_childs_renewal_ends_with_its_parents_period() {
    let stage = stage().await;
    let root = mint(&stage, json!({"ttl": "2m", "scope": "read"})).await;
    let child = delegate(&stage, &root.id, json!({"agent": "researcher", "ttl": "1m"})).await;
    let path = format!("/v1/nonces/{}/renew", child.id);
    let (_, view) = stage.sidecar.orchestrator().call("POST", &path, Some(json!({"ttl": "5m"}))).await;
    assert_eq!(view["ttl_capped_by"], "parent", "{view:#}");
    assert_same_end(&view, &root.answer);
}

#[tokio::test]
async fn a_repeated_delegation_makes_one_child() {
    let stage = stage().await;
    let (root, other) = (mint(&stage, json!({})).await, mint(&stage, json!({})).await);
    let send = async |parent: &str, body: &str| {
        let path = format!("/v1/nonces/{parent}/delegate");
        let mut request = post(&path, "application/json", body);
        request.headers_mut().insert("idempotency-key", "k-1".parse().expect("a value"));
        let (status, headers, body) = stage.sidecar.orchestrator().exchange(request).await;
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        (status.as_u16(), headers.contains_key("idempotency-replayed"), body)
    };
    let asked = r#"{"agent":"researcher"}"#;
    let (first, second) = (send(&root.id, asked).await, send(&root.id, asked).await);
    assert_eq!((first.0, first.1, second.0, second.1), (201, false, 201, true), "{second:?}");
    assert_eq!((&first.2["id"], &first.2["nonce"]), (&second.2["id"], &second.2["nonce"]));
    assert_eq!(read(&stage, &root.id).await["children"], 1);
    assert_eq!(send(&other.id, asked).await.0, 409, "another parent is another call");
}

const GROUP: u32 = 54_331;
const BOTH: u32 = 54_332;
const WORKERS: u32 = 54_333;
const READER: u32 = 54_334;

/// The minters `both` and `workers` may mint; the latter for the parent's agent alone.
async fn with_minters() -> Stage {
    let minter = |name: &str, uid: u32, agents: &str, may: &str| {
        format!("[minters.{name}]\nidentity = [\"uid:{uid}\"]\nagents = [{agents}]\nmay = [\"{may}\"]\n")
    };
    let minters = [
        minter("both", BOTH, "\"worker\", \"researcher\"", "mint"),
        minter("workers", WORKERS, "\"worker\"", "mint"),
        minter("reader", READER, "\"*\"", "read"),
    ];
    let policy = format!("{}\n{}", policy(), minters.concat());
    let group = |builder: Builder| builder.flag("--control-group").flag(&GROUP.to_string());
    let stage = Stage::of(&policy, FakeUpstream::start(&["api.test"]).await, group).await;
    let open = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    std::fs::set_permissions(stage.sidecar.directory.path(), open).expect("our directory");
    stage
}

#[tokio::test]
async fn only_its_own_minter_delegates_it_and_to_agents_of_its_own() {
    if !can_be_others() {
        return;
    }
    let stage = with_minters().await;
    let call = async |uid: u32, path: String, body: Value| {
        let control = stage.sidecar.control();
        let call = move || async move { Orchestrator::new(control).call("POST", &path, Some(body)).await };
        let (status, answer) = acting(uid, GROUP, call).await;
        (status.as_u16(), answer)
    };
    let asked = json!({"agent": "worker", "task": "t", "service": "api", "scope": "read"});
    let own = call(BOTH, "/v1/nonces".into(), asked.clone()).await.1;
    let other = call(WORKERS, "/v1/nonces".into(), asked).await.1;
    let path = |lease: &Value| format!("/v1/nonces/{}/delegate", lease["id"].as_str().expect("an id"));
    for (uid, parent, to) in [
        (WORKERS, &own, "researcher"),
        (WORKERS, &other, "researcher"),
        (BOTH, &other, "researcher"),
        (BOTH, &own, "summarizer"),
        (READER, &own, "researcher"),
    ] {
        let (status, problem) = call(uid, path(parent), json!({"agent": to})).await;
        assert_eq!((status, &problem["code"]), (403, &"forbidden".into()), "{uid} to {to}: {problem:#}");
    }
    let (status, child) = call(BOTH, path(&own), json!({"agent": "researcher"})).await;
    assert_eq!(status, 201, "{child:#}");
    let record = stage.sidecar.audited(|record| record["nonce.id"] == child["id"]).await;
    assert_eq!((&record["minted_by"], &record["parent.id"]), (&"both".into(), &own["id"]));
}
