//! The control API, over its socket.

mod callers;
mod delegation;
mod demoted;
mod events;
mod explaining;
mod greedy;
mod idempotency;
mod leaks;
mod max_risk;
mod quota;
mod renewal;
mod reports;
mod revocations;
mod risk;
mod supervised;
mod tasks;
pub mod tcp;
pub mod tokens;

use http::{HeaderMap, Request, StatusCode};
use serde_json::{Value, json};

use crate::support::Stage;
use crate::support::orchestrator::{Minted, get, post};

fn ask(extra: &Value) -> Value {
    let mut body = json!({"agent": "worker", "task": "t", "service": "api", "scope": "read"});
    body.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
    body
}

#[tokio::test]
async fn a_mint_says_all_that_an_agent_needs_and_the_nonce_once() {
    let stage = Stage::new().await;
    let orchestrator = stage.sidecar.orchestrator();
    let Minted { nonce, id, answer } = orchestrator
        .mint_with(ask(&json!({
            "ttl": "2m", "max_uses": 20, "instance": "run-9", "on_behalf_of": "user:ana",
            "reason": "refund check", "labels": {"ticket": "OPS-12"},
        })))
        .await;
    assert!(nonce.starts_with("an_") && nonce.len() == 36, "{nonce}");
    assert!(id.starts_with("nc_"), "{id}");
    assert_eq!(answer["placeholders"]["api"], nonce.as_str());
    assert_eq!(
        answer["grants"],
        json!([{"service": "api", "scopes": ["read"], "hosts": ["api.test"], "allow": ["GET /{*path}"]}])
    );
    assert_eq!((&answer["expires_in"], &answer["ttl_capped_by"]), (&120.into(), &Value::Null));
    assert_eq!((&answer["max_uses"], &answer["uses_left"]), (&20.into(), &20.into()));
    assert_eq!(answer["proxy"], format!("http://{}", stage.sidecar.proxy));
    assert!(answer["warning"].as_str().expect("a same-uid warning").contains("uid"), "{answer:#}");
    let (status, read) = orchestrator.call("GET", &format!("/v1/nonces/{id}"), None).await;
    assert_eq!(status, 200);
    assert_eq!((&read["on_behalf_of"], &read["labels"]["ticket"]), (&"user:ana".into(), &"OPS-12".into()));
    let (_, list) = orchestrator.call("GET", "/v1/nonces", None).await;
    for text in [read.to_string(), list.to_string(), stage.sidecar.audit_text(), stage.sidecar.log()] {
        assert!(!text.contains(&nonce), "{text}");
    }
    let record = stage.sidecar.audited(|record| record["type"] == "mint").await;
    assert_eq!((&record["nonce.id"], &record["minted_by.identity"]), (&id.as_str().into(), &own_uid().into()));
    assert_eq!((&record["on_behalf_of"], &record["reason"]), (&"user:ana".into(), &"refund check".into()));
}

fn own_uid() -> String {
    format!("uid:{}", rustix::process::getuid().as_raw())
}

#[tokio::test]
async fn time_is_capped_by_the_riskiest_scope_and_the_answer_says_so() {
    let policy = format!(
        "{}\n[nonces]\nttl = \"1m\"\n[nonces.ceilings]\nlow = {{ ttl = \"10m\", lifetime = \"1h\" }}\nmedium = {{ ttl = \"5m\", lifetime = \"1h\" }}\nhigh = {{ ttl = \"2m\", lifetime = \"3m\" }}\n",
        crate::support::policies::ONE_API
    );
    let stage = Stage::of_policy(&policy).await;
    let orchestrator = stage.sidecar.orchestrator();
    for (scopes, asked, given, capped) in [
        (json!(["read"]), Value::Null, 60, Value::Null),
        (json!(["read"]), json!(90), 90, Value::Null),
        (json!(["read"]), json!("1h"), 600, json!("ceilings.low")),
        (json!(["read", "write"]), json!("1h"), 300, json!("ceilings.medium")),
        (json!(["read", "once"]), json!("1h"), 120, json!("ceilings.high")),
    ] {
        let mut body = json!({"agent": "worker", "task": "t", "service": "api", "scope": scopes});
        if !asked.is_null() {
            body["ttl"] = asked.clone();
        }
        let answer = orchestrator.mint_with(body).await.answer;
        assert_eq!((&answer["expires_in"], &answer["ttl_capped_by"]), (&given.into(), &capped), "{asked} of {scopes}");
    }
}

#[tokio::test]
async fn leases_are_listed_read_and_revoked() {
    let stage = Stage::new().await;
    let orchestrator = stage.sidecar.orchestrator();
    let mint = |task: &str| {
        orchestrator.mint_with(json!({"agent": "worker", "task": task, "service": "api", "scope": "read"}))
    };
    let (first, second) = (mint("one").await, mint("two").await);
    let ids = async |path: &str| {
        let (status, page) = orchestrator.call("GET", path, None).await;
        assert_eq!(status, 200, "{page:#}");
        let ids = page["nonces"].as_array().expect("a list").iter();
        (
            ids.map(|lease| lease["id"].as_str().expect("an id").to_owned()).collect::<Vec<_>>(),
            page["next_after"].clone(),
        )
    };
    assert_eq!(ids("/v1/nonces").await, (vec![first.id.clone(), second.id.clone()], Value::Null));
    assert_eq!(ids("/v1/nonces?task=two&agent=worker&service=api").await.0, std::slice::from_ref(&second.id));
    let (page, after) = ids("/v1/nonces?limit=1").await;
    assert_eq!((page, &after), (vec![first.id.clone()], &first.id.as_str().into()));
    assert_eq!(ids(&format!("/v1/nonces?limit=1&after={}", first.id)).await.0, std::slice::from_ref(&second.id));
    orchestrator.revoke(&first.id).await;
    orchestrator.revoke(&first.id).await;
    assert_eq!(ids("/v1/nonces").await.0, std::slice::from_ref(&second.id), "a second revoke is no error");
    let (status, problem) = orchestrator.call("GET", &format!("/v1/nonces/{}", first.id), None).await;
    assert_eq!((status.as_u16(), &problem["code"]), (404, &"not_found".into()));
    let end = stage.sidecar.audited(|record| record["type"] == "lease_end").await;
    assert_eq!((&end["nonce.id"], &end["cause"]), (&first.id.as_str().into(), &"revoked".into()));
    assert!(end["by"].as_str().expect("who").contains(&own_uid()), "{end:#}");
    for path in ["/v1/nonces/x", "/v1/nonces/nc_zzz", "/v1/nonces?limit=0", "/v1/nonces?surprise=1", "/v1/nonces/"] {
        let (status, problem) = orchestrator.call("GET", path, None).await;
        assert!(status.is_client_error() && problem["code"].is_string(), "{path}: {status} {problem:#}");
    }
}

#[tokio::test]
async fn a_nonce_can_be_introspected_by_itself() {
    let stage = Stage::new().await;
    let orchestrator = stage.sidecar.orchestrator();
    let minted = orchestrator.mint("worker", "api", "read").await;
    for name in ["nonce", "token"] {
        let (status, answer) = orchestrator.call("POST", "/v1/introspect", Some(json!({name: minted.nonce}))).await;
        assert_eq!(status, 200);
        assert_eq!(
            (&answer["active"], &answer["sub"], &answer["scope"]),
            (&true.into(), &"worker".into(), &"api:read".into())
        );
        assert_eq!(answer["jti"], minted.id.as_str());
    }
    orchestrator.revoke(&minted.id).await;
    for text in [minted.nonce.as_str(), "an_", "something else"] {
        let (status, answer) = orchestrator.call("POST", "/v1/introspect", Some(json!({"nonce": text}))).await;
        assert_eq!((status.as_u16(), answer), (200, json!({"active": false})), "{text}");
    }
}

#[tokio::test]
async fn it_describes_itself() {
    let stage = Stage::new().await;
    let orchestrator = stage.sidecar.orchestrator();
    let (_, services) = orchestrator.call("GET", "/v1/services", None).await;
    assert_eq!(services["services"][0]["name"], "api");
    let scopes = services["services"][0]["scopes"].as_array().expect("a list");
    assert_eq!(scopes.len(), 3);
    assert_eq!((&scopes[2]["risk"], &scopes[2]["max_uses"]), (&"high".into(), &1.into()));
    let (_, whoami) = orchestrator.call("GET", "/v1/whoami", None).await;
    assert_eq!((&whoami["identity"], &whoami["minters"][0]["name"]), (&own_uid().into(), &"self".into()));
    let (status, document) = orchestrator.call("GET", "/openapi.json", None).await;
    assert_eq!(status, 200);
    let committed = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json")).expect("a file");
    assert_eq!(document, serde_json::from_str::<Value>(&committed).expect("JSON"), "the committed one");
}

#[tokio::test]
async fn what_it_cannot_enforce_it_refuses() {
    let stage = Stage::new().await;
    let orchestrator = stage.sidecar.orchestrator();
    for field in
        ["parent", "delegate", "renewable", "rate", "budget", "not_before", "conditions", "webhook", "surprise"]
    {
        let (status, problem) = orchestrator.call("POST", "/v1/nonces", Some(ask(&json!({field: 1})))).await;
        assert!(status == 501 || status == 400, "{field}: {status} {problem:#}");
        let at = &problem["errors"][0]["pointer"];
        assert_eq!(at, &format!("/{field}"), "{field}: {problem:#}");
    }
    assert_eq!(stage.sidecar.audit().iter().filter(|record| record["type"] == "mint").count(), 0);
}

#[tokio::test]
async fn every_mistake_is_pointed_at_and_every_bound_is_held() {
    let stage = Stage::new().await;
    let orchestrator = stage.sidecar.orchestrator();
    let many: serde_json::Map<String, Value> = (0..17).map(|n| (format!("l{n}"), "v".into())).collect();
    for (body, pointers) in [
        (json!({"agent": "worker"}), vec!["/task", ""]),
        (ask(&json!({"agent": "", "task": 7})), vec!["/agent", "/task"]),
        (ask(&json!({"ttl": 0})), vec!["/ttl"]),
        (ask(&json!({"ttl": "soon"})), vec!["/ttl"]),
        (ask(&json!({"max_uses": 0})), vec!["/max_uses"]),
        (ask(&json!({"labels": many})), vec!["/labels"]),
        (ask(&json!({"labels": {"a": "v".repeat(257)}})), vec!["/labels/a"]),
        (ask(&json!({"reason": "r".repeat(257)})), vec!["/reason"]),
        (ask(&json!({"grants": []})), vec![]),
    ] {
        let (status, problem) = orchestrator.call("POST", "/v1/nonces", Some(body.clone())).await;
        assert_eq!((status.as_u16(), &problem["code"]), (400, &"invalid_request".into()), "{body}: {problem:#}");
        let found = problem["errors"].as_array().expect("a list");
        for pointer in pointers {
            assert!(found.iter().any(|mistake| mistake["pointer"] == pointer), "{pointer} in {problem:#}");
        }
    }
    for (body, status, code) in [
        (json!({"agent": "nobody", "task": "t", "service": "api", "scope": "read"}), 404, "unknown_agent"),
        (json!({"agent": "worker", "task": "t", "service": "none", "scope": "read"}), 404, "unknown_service"),
        (json!({"agent": "worker", "task": "t", "service": "api", "scope": "all"}), 403, "scope_not_grantable"),
    ] {
        let (found, problem) = orchestrator.call("POST", "/v1/nonces", Some(body)).await;
        assert_eq!((found.as_u16(), &problem["code"]), (status, &code.into()), "{problem:#}");
        stage.sidecar.audited(|record| record["type"] == "control_refused" && record["code"] == code).await;
    }
}

#[tokio::test]
async fn errors_are_problems_and_bodies_are_json_of_a_sensible_size() {
    let stage = Stage::new().await;
    let orchestrator = stage.sidecar.orchestrator();
    let large = ask(&json!({"reason": "r".repeat(70_000)})).to_string();
    let twice = r#"{"agent":"worker","agent":"other","task":"t","service":"api","scope":"read"}"#;
    for (body, kind, status, code) in [
        ("{", "application/json", 400, "invalid_request"),
        ("[]", "application/json", 400, "invalid_request"),
        (twice, "application/json", 400, "invalid_request"),
        ("{}", "text/plain", 415, "unsupported_media_type"),
        ("{}", "", 415, "unsupported_media_type"),
        (&large, "application/json", 413, "request_too_large"),
    ] {
        let (found, headers, body) = orchestrator.exchange(post("/v1/nonces", kind, body)).await;
        let problem: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!((found.as_u16(), &problem["code"]), (status, &code.into()), "{problem:#}");
        assert_eq!(headers["content-type"], "application/problem+json");
        assert_eq!(problem["status"], status);
        assert!(problem["title"].is_string() && problem["detail"].is_string() && problem["type"].is_string());
    }
    let (status, headers, _) = orchestrator
        .exchange(Request::put("/v1/nonces").header("host", "valetkey").body(Default::default()).expect("a request"))
        .await;
    assert_eq!((status.as_u16(), &headers["allow"]), (405, &"GET, HEAD, POST".parse().expect("a value")));
    let (status, _, _) = orchestrator.exchange(get("/v2/nonces")).await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn web_pages_and_other_names_are_refused() {
    let stage = Stage::new().await;
    let orchestrator = stage.sidecar.orchestrator();
    for (name, value) in [
        ("origin", "https://evil.test"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("host", "evil.test"),
        ("host", "127.0.0.1:8080"),
        ("host", "valetkey.evil.test"),
    ] {
        let mut request = get("/v1/whoami");
        request.headers_mut().insert(name, value.parse().expect("a value"));
        let (status, headers, body): (StatusCode, HeaderMap, _) = orchestrator.exchange(request).await;
        assert_eq!(status, 403, "{name}: {value}");
        assert!(!headers.contains_key("access-control-allow-origin"));
        assert_eq!(serde_json::from_slice::<Value>(&body).expect("JSON")["code"], "forbidden");
    }
    stage.sidecar.audited(|record| record["type"] == "control_refused" && record["call"] == "whoami").await;
    for host in ["localhost", "valetkey", "VALETKEY"] {
        let mut request = get("/v1/whoami");
        request.headers_mut().insert("host", host.parse().expect("a value"));
        assert_eq!(orchestrator.exchange(request).await.0, 200, "{host}");
    }
}
