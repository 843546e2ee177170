//! What the sidecar says of a request that nobody makes is what it does with one that somebody makes.

use serde_json::{Value, json};

use super::callers::{GROUP, open_to_group};
use crate::support::agent::with;
use crate::support::stranger::{acting, can_be_others};
use crate::support::{Orchestrator, Stage, policies};

async fn explain(orchestrator: &Orchestrator, body: Value) -> Value {
    let (status, answer) = orchestrator.call("POST", "/v1/explain", Some(body.clone())).await;
    assert_eq!(status, 200, "{body}: {answer:#}");
    answer
}

#[tokio::test]
async fn what_is_said_is_what_happens() {
    let stage = Stage::new().await;
    let orchestrator = stage.sidecar.orchestrator();
    let body =
        json!({"agent": "worker", "task": "t", "service": "api", "scope": ["read", "write", "once"], "max_uses": 9});
    let minted = orchestrator.mint_with(body).await;
    let agent = stage.sidecar.agent();
    let bearer = format!("Bearer {}", minted.nonce);
    for (method, path, allowed) in [
        ("GET", "/v1/x?limit=3", true),
        ("HEAD", "/v1/x", true),
        ("POST", "/v1/x", true),
        ("POST", "/forbidden", false),
        ("PATCH", "/v1/x", false),
        ("GET", "/v1//x", false),
        ("DELETE", "/v1/x", true),
        ("DELETE", "/v1/x", false), // its one use is gone
    ] {
        let url = format!("https://api.test{path}");
        let said = explain(&orchestrator, json!({"id": minted.id, "method": method, "url": url})).await;
        let reply = agent.send(with(method, "api.test", path, &[("authorization", &bearer)], "")).await;
        assert_eq!(said["allowed"], allowed, "{method} {path}: {said:#}");
        assert_eq!(said["code"].as_str(), reply.refusal(), "{method} {path}: {said:#}");
        assert_eq!(reply.status == 200, allowed, "{method} {path}");
    }
    let (_, lease) = orchestrator.call("GET", &format!("/v1/nonces/{}", minted.id), None).await;
    assert_eq!(lease["uses_left"], 5, "only what was sent has spent uses");
    stage.upstream.seen();
    stage.assert_silent(&[&minted.nonce]);
}

/// A scope with a condition on what a minter says, one on the body, one on the level of risk; and a deny.
const LINE: &str = r#"
[[services.api.scopes]]
name = "read"
risk = "low"
allow = ["GET /{*path}"]

[[services.api.scopes]]
name = "team"
risk = "medium"
when = "nonce.labels.team == 'x' && nonce.agent != 'last'"
allow = ["POST /team", "PUT /team"]
deny = ["GET /secret"]

[[services.api.scopes]]
name = "order"
risk = "medium"
max_uses = 4
[[services.api.scopes.rules]]
allow = "POST /orders"
body = { type = "json", fields = { amount = "int" } }
when = "body.amount < 10 && request.size < 100"
[[services.api.scopes.rules]]
allow = "PUT /calm"
when = "risk == 'normal'"

[agents.first]
identity = ["any"]
grants = { api = ["read", "team", "order"] }
delegate = { depth = 3, to = ["middle", "last"], children_max = 9 }

[agents.middle]
identity = ["any"]
grants = { api = ["read", "team", "order"] }
delegate = { depth = 3, to = ["middle", "last"], children_max = 9 }

[agents.last]
identity = ["any"]
grants = { api = ["read", "team", "order"] }

[risk.levels]
watched = { max_risk = "medium" }
elevated = { max_risk = "low" }
"#;

#[tokio::test]
async fn what_is_said_of_a_line_of_nonces_is_what_happens() {
    let stage = Stage::of_policy(&policies::bearer_api(LINE)).await;
    let orchestrator = stage.sidecar.orchestrator();
    let mut nonces = Vec::new();
    for labels in [json!({"team": "x"}), json!({})] {
        let all = json!({"agent": "first", "task": "t", "service": "api", "scope": ["read", "team", "order"], "labels": labels});
        let root = orchestrator.mint_with(all).await;
        nonces.push((root.nonce.clone(), root.id.clone()));
        let mut parent = root.id;
        for body in [
            json!({"agent": "middle", "labels": {"team": "x"}, "rules": ["GET /{*path}", "POST /team", "PUT /team", "POST /orders", "PUT /calm"]}),
            json!({"agent": "middle", "service": "api", "scope": ["read", "order"]}),
            json!({"agent": "last", "rules": ["GET /x", "GET /secret", "POST /orders", "PUT /calm"]}),
        ] {
            let (status, child) = orchestrator.call("POST", &format!("/v1/nonces/{parent}/delegate"), Some(body)).await;
            assert_eq!(status, 201, "{child:#}");
            let text = |name: &str| child[name].as_str().expect("a text").to_owned();
            nonces.push((text("nonce"), text("id")));
            parent = text("id");
        }
    }
    let requests = [
        ("GET", "/x", ""),
        ("GET", "/y", ""),
        ("GET", "/secret", ""),
        ("POST", "/team", ""),
        ("PUT", "/calm", ""),
        ("POST", "/orders", r#"{"amount":5}"#),
        ("POST", "/orders", r#"{"amount":50}"#),
        ("POST", "/orders", ""),
        ("PATCH", "/x", ""),
    ];
    let (mut allowed, mut codes) = (0, std::collections::BTreeSet::new());
    for level in [None, Some(("first", "watched")), Some(("middle", "elevated"))] {
        if let Some((agent, level)) = level {
            let body = json!({"agent": agent, "level": level, "ttl": "10m"});
            assert_eq!(orchestrator.call("POST", "/v1/risk", Some(body)).await.0, 200);
        }
        for ((nonce, id), (method, path, body)) in
            nonces.iter().flat_map(|nonce| requests.map(|request| (nonce, request)))
        {
            let url = format!("https://api.test{path}");
            let mut asked = json!({"id": id, "method": method, "url": url});
            let bearer = format!("Bearer {nonce}");
            let mut fields = vec![("authorization", bearer.as_str())];
            if !body.is_empty() {
                (asked["body"], asked["content_type"]) = (body.into(), "application/json".into());
                fields.push(("content-type", "application/json"));
            }
            let said = explain(&orchestrator, asked).await;
            let reply = stage.sidecar.agent().send(with(method, "api.test", path, &fields, body)).await;
            let what = format!(
                "{level:?} {} {method} {path} {body}",
                nonces.iter().position(|known| known.1 == *id).expect("it")
            );
            assert_eq!(said["code"].as_str(), reply.refusal(), "{what}: {said:#}");
            assert_eq!(said["allowed"].as_bool(), Some(reply.status == 200), "{what}: {said:#}");
            allowed += usize::from(reply.status == 200);
            codes.extend(reply.refusal().map(str::to_owned));
        }
    }
    let wanted = ["condition_failed", "nonce_spent", "out_of_scope", "risk_restricted"];
    assert!(allowed > 40 && codes.iter().eq(wanted), "too little was tried: {allowed} {codes:?}");
}

#[tokio::test]
async fn it_says_by_what_and_else_what_would_do() {
    let stage = Stage::new().await;
    let orchestrator = stage.sidecar.orchestrator();
    let said = explain(&orchestrator, json!({"agent": "worker", "method": "GET", "url": "https://api.test/x"})).await;
    let by = json!({"service": "api", "scope": "read", "risk": "low", "rule": "GET /{*path}", "credential": "api",
                    "max_uses": null, "agents": ["worker"]});
    assert_eq!((&said["allowed"], &said["by"], &said["code"]), (&true.into(), &by, &Value::Null));
    let body =
        json!({"agent": "worker", "service": "api", "scope": "read", "method": "DELETE", "url": "https://api.test/x"});
    let said = explain(&orchestrator, body).await;
    assert_eq!((&said["allowed"], &said["code"]), (&false.into(), &"out_of_scope".into()));
    assert_eq!((&said["would"][0]["scope"], &said["would"][0]["max_uses"]), (&"once".into(), &1.into()));
    assert_eq!(said["instead"], json!(["GET /{*path}"]));
    let said = explain(&orchestrator, json!({"agent": "worker", "method": "GET", "url": "https://evil.test/x"})).await;
    assert_eq!(said["code"], "host_not_listed");
    assert!(!said.to_string().contains(&stage.secret));
    assert!(stage.upstream.seen().is_empty(), "nobody was contacted");
}

#[tokio::test]
async fn what_is_asked_is_read_strictly_and_what_is_not_judged_is_refused() {
    let stage = Stage::new().await;
    let orchestrator = stage.sidecar.orchestrator();
    let nonce = stage.reader().await;
    let url = "https://api.test/x";
    for (body, status, code) in [
        (json!({"method": "GET", "url": url}), 400, "invalid_request"),
        (json!({"agent": "worker", "id": "nc_x", "method": "GET", "url": url}), 400, "invalid_request"),
        (json!({"agent": "worker", "method": "GET", "url": "api.test/x"}), 400, "invalid_request"),
        (json!({"agent": "worker", "method": "GET", "url": format!("{url}?key={nonce}")}), 400, "invalid_request"),
        (json!({"agent": "worker", "method": "GET", "url": url, "headers": {"x": "y"}}), 400, "invalid_request"),
        (json!({"agent": "nobody", "method": "GET", "url": url}), 404, "unknown_agent"),
        (json!({"agent": "worker", "service": "none", "method": "GET", "url": url}), 404, "unknown_service"),
        (
            json!({"agent": "worker", "service": "api", "scope": "all", "method": "GET", "url": url}),
            403,
            "scope_not_grantable",
        ),
        (json!({"id": "nc_01J8Z4T6V0Q2W4E6R8T0Y2V4X6", "method": "GET", "url": url}), 404, "not_found"),
    ] {
        let (found, problem) = orchestrator.call("POST", "/v1/explain", Some(body.clone())).await;
        assert_eq!((found.as_u16(), &problem["code"]), (status, &code.into()), "{body}: {problem:#}");
        assert!(!problem.to_string().contains(&nonce));
    }
}

const READER: u32 = 54_351;

#[tokio::test]
async fn others_agents_are_not_told_of() {
    if !can_be_others() {
        return;
    }
    let other = "\n[agents.other]\nidentity = [\"any\"]\ngrants = { api = [\"read\"] }\n";
    let minter = format!("[minters.m]\nidentity = [\"uid:{READER}\"]\nagents = [\"other\"]\nmay = [\"read\"]\n");
    let stage = open_to_group(&[policies::ONE_API, other, &minter].concat()).await;
    let theirs = stage.sidecar.orchestrator().mint("worker", "api", "read").await;
    let ask = async |whom: Value, method: &str| {
        let mut body = json!({"method": method, "url": "https://api.test/x"});
        body.as_object_mut().expect("an object").extend(whom.as_object().expect("an object").clone());
        let control = stage.sidecar.control();
        acting(READER, GROUP, move || async move {
            let (status, answer) = Orchestrator::new(control).call("POST", "/v1/explain", Some(body)).await;
            (status.as_u16(), answer)
        })
        .await
    };
    assert_eq!(ask(json!({"agent": "worker"}), "GET").await.0, 403);
    assert_eq!(ask(json!({"id": theirs.id}), "GET").await.0, 404);
    let (status, said) = ask(json!({"agent": "other"}), "GET").await;
    assert_eq!((status, &said["by"]["agents"]), (200, &json!(["other"])));
    let (_, said) = ask(json!({"agent": "other"}), "POST").await;
    assert_eq!((&said["allowed"], &said["would"]), (&false.into(), &json!([])), "only others may have that scope");
}
