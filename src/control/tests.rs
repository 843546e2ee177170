//! Whole calls: what the documents promise of the control API, on a real policy, store and audit.

mod following;
mod panicking;
mod serving;
mod waiting;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

use super::client::{Client, ClientError};
use super::fixture::{AGENT_UID, AUDITOR_UID, LEASES_MAX, ORCHESTRATOR_UID, Plane, refund};
use super::serve::Limits;
use super::types::{ListQuery, NewNonce, PlainNonce, ScopeList, TtlAsked};
use super::{events, front};
use crate::lease::{EndCause, Found};
use crate::model::{NonceHash, NonceId};

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

// ---- minting ----

#[tokio::test]
async fn a_mint_answers_what_was_given() {
    let plane = Plane::new();
    let body = json!({
        "agent": "billing", "task": "refund-4711", "grants": [{"service": "stripe", "scopes": ["read:customers", "write:refunds"]}],
        "ttl": "1h", "max_uses": 20, "instance": "run-9", "on_behalf_of": "user:ana", "reason": "refund check",
        "labels": {"ticket": "OPS-12"},
    });
    let read = plane.mint(ORCHESTRATOR_UID, &body).await;
    assert_eq!(read.status, 201, "{read:?}");
    let minted = read.json();
    let (id, nonce) = (minted["id"].as_str().unwrap(), minted["nonce"].as_str().unwrap());
    assert_eq!(read.headers["location"], format!("/v1/nonces/{id}"));
    assert!(nonce.starts_with("an_") && id.starts_with("nc_"));
    assert_eq!(minted["placeholders"], json!({"stripe": format!("sk_test_{nonce}")}));
    let allow = json!(["GET /v1/customers", "GET /v1/customers/cus_{id}", "POST /v1/refunds"]);
    let grant = json!({"service": "stripe", "scopes": ["read:customers", "write:refunds"], "hosts": ["api.stripe.com"], "allow": allow});
    assert_eq!(minted["grants"], json!([grant]));
    let told = ["expires_in", "ttl_capped_by", "max_uses", "uses_left", "proxy"].map(|name| minted[name].clone());
    let wanted = [json!(300), json!("ceilings.high"), json!(20), json!(20), json!("http://127.0.0.1:8080")];
    assert_eq!(told, wanted, "{minted}");
    assert!(minted.get("warning").is_none());
    for moment in ["issued_at", "expires_at", "ends_at"] {
        assert!(minted[moment].as_str().unwrap().ends_with('Z'), "{minted}");
    }

    let records = plane.records().await;
    let record = records.iter().find(|record| record["type"] == "mint").unwrap();
    let said = ["instance", "reason", "max_uses", "labels"].map(|name| record[name].clone());
    assert_eq!(said, [json!("run-9"), json!("refund check"), json!(20), json!({"ticket": "OPS-12"})]);
    assert!(!std::fs::read_to_string(&plane.audit_path).unwrap().contains(nonce));
}

#[tokio::test]
async fn a_service_without_a_shape_has_the_nonce_itself_as_placeholder() {
    let plane = Plane::new();
    let body = json!({"agent": "research", "task": "t", "service": "github", "scope": ["read:app"]});
    let minted = plane.mint(own_uid(), &body).await.json();
    assert_eq!(minted["placeholders"]["github"], minted["nonce"]);
    assert_eq!(minted["grants"][0]["hosts"], json!(["api.github.com", "*.github.test:8443"]));
    assert_eq!(minted["ttl_capped_by"], Value::Null);
    assert!(minted["warning"].as_str().unwrap().contains("uid"), "our own uid is warned");
}

#[tokio::test]
async fn a_mint_that_the_policy_refuses_says_why_and_is_on_record() {
    let plane = Plane::new();
    let with = |changes: Value| {
        let mut body = refund();
        body.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        body
    };
    let mint = async |uid, body| plane.mint(uid, &body).await;
    let not_grantable = mint(ORCHESTRATOR_UID, with(json!({"scope": "read:secret-plans"}))).await;
    assert_eq!(not_grantable.code(), (403, "scope_not_grantable".into()));
    assert_eq!(not_grantable.json()["grantable"], json!(["read:customers", "write:refunds"]));
    let unknown = mint(ORCHESTRATOR_UID, with(json!({"service": "github", "scope": "read:app"}))).await;
    assert_eq!(unknown.code(), (404, "unknown_service".into()));
    assert_eq!(unknown.json()["services"], json!(["stripe"]), "another agent's services are not told");
    assert_eq!(mint(own_uid(), with(json!({"agent": "nobody"}))).await.code(), (404, "unknown_agent".into()));
    assert_eq!(mint(ORCHESTRATOR_UID, with(json!({"agent": "nobody"}))).await.code(), (403, "forbidden".into()));
    assert_eq!(mint(ORCHESTRATOR_UID, with(json!({"agent": "research"}))).await.code(), (403, "forbidden".into()));
    assert_eq!(mint(AUDITOR_UID, refund()).await.code(), (403, "forbidden".into()));
    assert_eq!(mint(AGENT_UID, refund()).await.code(), (403, "forbidden".into()));
    assert_eq!(mint(4242, refund()).await.code(), (401, "unauthenticated".into()));
    assert_eq!(mint(ORCHESTRATOR_UID, with(json!({"renewable": true}))).await.code(), (400, "invalid_request".into()));
    let twice = mint(ORCHESTRATOR_UID, with(json!({"ttl": 0, "x": 1}))).await;
    assert_eq!(twice.json()["errors"][1]["pointer"], "/ttl");
    assert_eq!(plane.store.live_count(), 0);
    let records = plane.records().await;
    let refused: Vec<_> =
        records.iter().filter(|r| r["type"] == "control_refused").map(|r| r["code"].as_str().unwrap()).collect();
    assert_eq!(
        refused,
        [
            "scope_not_grantable",
            "unknown_service",
            "unknown_agent",
            "forbidden",
            "forbidden",
            "forbidden",
            "forbidden",
            "unauthenticated",
            "invalid_request",
            "invalid_request",
        ]
    );
}

#[tokio::test]
async fn without_an_audit_there_is_no_lease() {
    let plane = Plane::with_full_disk();
    let read = plane.mint(ORCHESTRATOR_UID, &refund()).await;
    assert_eq!(read.code(), (503, "audit_unavailable".into()));
    assert!(read.headers.contains_key("retry-after"));
    let keyed = plane.mint_with_key(ORCHESTRATOR_UID, "k", &refund()).await;
    assert_eq!(keyed.code(), (503, "audit_unavailable".into()));
    assert_eq!(plane.store.live_count(), 0);
}

#[tokio::test]
async fn a_full_store_refuses_and_the_record_of_the_mint_is_taken_back() {
    let plane = Plane::new();
    for _ in 0..LEASES_MAX {
        assert_eq!(plane.mint(ORCHESTRATOR_UID, &refund()).await.status, 201);
    }
    assert_eq!(plane.mint(ORCHESTRATOR_UID, &refund()).await.code(), (503, "overloaded".into()));
    let records = plane.records().await;
    let last_mint = records.iter().rfind(|record| record["type"] == "mint").unwrap();
    let end = records.iter().find(|record| record["type"] == "lease_end").unwrap();
    assert_eq!((&end["cause"], &end["nonce.id"]), (&json!("not_made"), &last_mint["nonce.id"]));
}

// ---- idempotency ----

#[tokio::test]
async fn a_retry_gets_the_same_nonce_and_another_body_a_conflict() {
    let plane = Plane::new();
    let first = plane.mint_with_key(ORCHESTRATOR_UID, "k-1", &refund()).await;
    plane.clock.advance(Duration::from_secs(60));
    let again = plane.mint_with_key(ORCHESTRATOR_UID, "k-1", &refund()).await;
    assert_eq!((first.status, again.status), (201, 201));
    let (one, two) = (first.json(), again.json());
    assert_eq!((&one["nonce"], &one["id"]), (&two["nonce"], &two["id"]));
    assert_eq!((&one["expires_in"], &two["expires_in"]), (&json!(300), &json!(240)));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert!(!first.headers.contains_key("idempotency-replayed"));
    assert_eq!(plane.store.live_count(), 1);

    let reordered = r#"{"scope":"read:customers","service":"stripe","task":"refund-4711","agent":"billing"}"#;
    let request = Request::post("/v1/nonces").header("content-type", "application/json");
    let request = request.header("idempotency-key", "k-1").body(Full::from(reordered)).unwrap();
    assert_eq!(plane.send(ORCHESTRATOR_UID, request).await.json()["id"], one["id"], "the same body, spelled otherwise");

    let mut other = refund();
    other["task"] = json!("refund-4712");
    let conflict = plane.mint_with_key(ORCHESTRATOR_UID, "k-1", &other).await;
    assert_eq!(conflict.code(), (409, "idempotency_conflict".into()));
    let elsewhere = plane.mint_with_key(own_uid(), "k-1", &other).await;
    assert_eq!(elsewhere.status, 201, "another minter's key is another key");
}

#[tokio::test]
async fn the_key_of_a_dead_lease_is_a_conflict() {
    let plane = Plane::new();
    let minted = plane.mint_with_key(ORCHESTRATOR_UID, "k", &refund()).await.json();
    let id = minted["id"].as_str().unwrap();
    plane.call(ORCHESTRATOR_UID, Method::DELETE, &format!("/v1/nonces/{id}"), None).await;
    let again = plane.mint_with_key(ORCHESTRATOR_UID, "k", &refund()).await;
    assert_eq!(again.code(), (409, "idempotency_conflict".into()));
    let expiring = plane.mint_with_key(ORCHESTRATOR_UID, "k2", &refund()).await;
    assert_eq!(expiring.status, 201);
    plane.clock.advance(Duration::from_secs(301));
    let again = plane.mint_with_key(ORCHESTRATOR_UID, "k2", &refund()).await;
    assert_eq!(again.code(), (409, "idempotency_conflict".into()));
    plane.clock.advance(Duration::from_secs(300));
    assert_eq!(plane.mint_with_key(ORCHESTRATOR_UID, "k2", &refund()).await.status, 201, "keys live ten minutes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn duplicates_at_once_make_one_lease() {
    let plane = Arc::new(Plane::new());
    let calls = (0..32).map(|_| {
        let plane = Arc::clone(&plane);
        tokio::spawn(async move { plane.mint_with_key(ORCHESTRATOR_UID, "same", &refund()).await })
    });
    let mut nonces = HashSet::new();
    for call in calls.collect::<Vec<_>>() {
        nonces.insert(call.await.unwrap().json()["nonce"].as_str().unwrap().to_owned());
    }
    assert_eq!((nonces.len(), plane.store.live_count()), (1, 1));
    assert_eq!(plane.records().await.iter().filter(|record| record["type"] == "mint").count(), 1);
}

#[tokio::test]
async fn a_refused_mint_does_not_hold_its_key() {
    let plane = Plane::new();
    let mut wrong = refund();
    wrong["scope"] = json!("read:nothing");
    assert_eq!(plane.mint_with_key(ORCHESTRATOR_UID, "k", &wrong).await.status, 403);
    assert_eq!(plane.mint_with_key(ORCHESTRATOR_UID, "k", &refund()).await.status, 201);
    for bad in ["", &"k".repeat(256)] {
        let read = plane.mint_with_key(ORCHESTRATOR_UID, bad, &refund()).await;
        assert_eq!(read.code(), (400, "invalid_request".into()));
        assert_eq!(read.json()["errors"][0]["header"], "Idempotency-Key");
    }
}

// ---- reading and ending ----

async fn minted(plane: &Plane, uid: u32, agent: &str, task: &str) -> (String, String) {
    let (service, scope) = if agent == "billing" { ("stripe", "read:customers") } else { ("github", "read:app") };
    let body = json!({"agent": agent, "task": task, "service": service, "scope": scope});
    let minted = plane.mint(uid, &body).await.json();
    (minted["id"].as_str().unwrap().to_owned(), minted["nonce"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn one_reads_ones_own_agents_leases_and_never_a_nonce() {
    let plane = Plane::new();
    let (own, nonce) = minted(&plane, ORCHESTRATOR_UID, "billing", "a").await;
    let (foreign, _) = minted(&plane, own_uid(), "research", "b").await;
    let get = async |uid, target: &str| plane.call(uid, Method::GET, target, None).await;
    let read = get(ORCHESTRATOR_UID, &format!("/v1/nonces/{own}")).await;
    assert_eq!((read.status, &read.json()["minter"]), (200, &json!("orchestrator")));
    assert!(!read.text.contains(&nonce));
    let unseen = get(ORCHESTRATOR_UID, &format!("/v1/nonces/{foreign}")).await;
    let unknown = get(ORCHESTRATOR_UID, "/v1/nonces/nc_01ARZ3NDEKTSV4RRFFQ69G5FAV").await;
    assert_eq!(unseen.text, unknown.text, "what is another's is as if it were not");
    assert_eq!(unknown.code(), (404, "not_found".into()));
    assert_eq!(get(AUDITOR_UID, &format!("/v1/nonces/{foreign}")).await.status, 200);

    let ids = |read: super::fixture::Read| -> Vec<String> {
        assert!(!read.text.contains(&nonce));
        let page = read.json();
        page["nonces"].as_array().unwrap().iter().map(|lease| lease["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(get(ORCHESTRATOR_UID, "/v1/nonces").await), std::slice::from_ref(&own));
    assert_eq!(ids(get(AUDITOR_UID, "/v1/nonces").await).len(), 2);
    assert_eq!(ids(get(AUDITOR_UID, "/v1/nonces?task=b").await), std::slice::from_ref(&foreign));
    assert_eq!(ids(get(AUDITOR_UID, "/v1/nonces?service=github&agent=research").await), [foreign]);
    assert_eq!(get(ORCHESTRATOR_UID, "/v1/nonces?agent=research").await.code(), (403, "forbidden".into()));
    assert_eq!(get(AUDITOR_UID, "/v1/nonces?agent=a&agent=b").await.code(), (400, "invalid_request".into()));
}

#[tokio::test]
async fn lists_come_in_pages() {
    let plane = Plane::new();
    let mut wanted = HashSet::new();
    for n in 0..5 {
        wanted.insert(minted(&plane, ORCHESTRATOR_UID, "billing", &format!("t{n}")).await.0);
    }
    let (mut seen, mut after, mut pages) = (HashSet::new(), String::new(), 0);
    loop {
        let page = plane.call(AUDITOR_UID, Method::GET, &format!("/v1/nonces?limit=2{after}"), None).await.json();
        seen.extend(page["nonces"].as_array().unwrap().iter().map(|l| l["id"].as_str().unwrap().to_owned()));
        pages += 1;
        let Some(next) = page["next_after"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!((pages, seen), (3, wanted));
}

#[tokio::test]
async fn revoking_ends_ones_own_and_can_be_repeated() {
    let plane = Plane::new();
    let (own, nonce) = minted(&plane, ORCHESTRATOR_UID, "billing", "a").await;
    let (foreign, _) = minted(&plane, own_uid(), "research", "b").await;
    let delete = async |uid, id: &str| plane.call(uid, Method::DELETE, &format!("/v1/nonces/{id}"), None).await;
    assert_eq!(delete(AUDITOR_UID, &own).await.code(), (403, "forbidden".into()));
    assert_eq!(delete(ORCHESTRATOR_UID, &foreign).await.code(), (403, "forbidden".into()));
    assert!(plane.store.minter().get(NonceId::parse(&foreign).unwrap()).is_some(), "it lives on");
    for _ in 0..2 {
        let read = delete(ORCHESTRATOR_UID, &own).await;
        assert_eq!((read.status, read.text.as_str()), (204, ""));
    }
    let found = plane.store.lookup().find(&NonceHash::of(nonce.as_bytes()));
    assert!(matches!(found, Found::Dead(stone) if stone.cause == EndCause::Revoked));
    assert_eq!(delete(ORCHESTRATOR_UID, "nc_01ARZ3NDEKTSV4RRFFQ69G5FAV").await.status, 204);
    assert_eq!(delete(ORCHESTRATOR_UID, "nonsense").await.code(), (404, "not_found".into()));
}

#[tokio::test]
async fn introspection_tells_of_ones_own_agents_live_nonces_and_of_nothing_else() {
    let plane = Plane::new();
    let (own, nonce) = minted(&plane, ORCHESTRATOR_UID, "billing", "a").await;
    let (_, foreign) = minted(&plane, own_uid(), "research", "b").await;
    let ask = async |nonce: &str| {
        let body = json!({ "nonce": nonce }).to_string();
        plane.call(ORCHESTRATOR_UID, Method::POST, "/v1/introspect", Some(&body)).await.json()
    };
    let active = ask(&nonce).await;
    assert_eq!((&active["active"], &active["jti"]), (&json!(true), &json!(own)));
    assert_eq!((&active["scope"], &active["sub"]), (&json!("stripe:read:customers"), &json!("billing")));
    assert!(active["exp"].as_i64() > active["iat"].as_i64());
    let inactive = json!({"active": false});
    for other in [foreign.as_str(), &own, "", "an_short", &format!("{nonce}x"), &format!("sk_test_{nonce}")] {
        assert_eq!(ask(other).await, inactive, "{other}");
    }
    plane.clock.advance(Duration::from_secs(301));
    assert_eq!(ask(&nonce).await, inactive, "expired, swept or not");
}

// ---- what there is ----

#[tokio::test]
async fn one_sees_what_one_may_have_minted() {
    let plane = Plane::new();
    let seen = plane.call(ORCHESTRATOR_UID, Method::GET, "/v1/services", None).await.json();
    let names: Vec<_> = seen["services"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["stripe"], "nobody else's services");
    let scopes = seen["services"][0]["scopes"].as_array().unwrap();
    assert_eq!(scopes.len(), 2, "nobody else's scopes");
    assert_eq!((&scopes[0]["agents"], &scopes[0]["problem"]), (&json!(["billing"]), &json!("the file is gone")));

    let who = plane.call(ORCHESTRATOR_UID, Method::GET, "/v1/whoami", None).await.json();
    assert_eq!(who["identity"], format!("uid:{ORCHESTRATOR_UID}"));
    let minter =
        json!({"name": "orchestrator", "agents": ["billing"], "may": ["mint", "read", "revoke", "events", "risk"]});
    assert_eq!((&who["minters"], who.get("warning")), (&json!([minter]), None));
    let own = plane.call(own_uid(), Method::GET, "/v1/whoami", None).await.json();
    assert_eq!((&own["minters"][0]["name"], &own["minters"][0]["agents"]), (&json!("self"), &json!(["*"])));
    assert!(own["warning"].is_string());

    assert!(plane.call(AUDITOR_UID, Method::GET, "/ca.pem", None).await.text.starts_with("-----BEGIN CERTIFICATE"));
    assert_eq!(plane.call(AUDITOR_UID, Method::GET, "/openapi.json", None).await.json()["openapi"], "3.1.0");
}

#[tokio::test]
async fn every_call_needs_a_caller_who_is_no_agent() {
    let plane = Plane::new();
    for target in ["/v1/nonces", "/v1/services", "/v1/whoami", "/ca.pem", "/openapi.json", "/v1/events", "/nowhere"] {
        assert_eq!(plane.call(4242, Method::GET, target, None).await.code().0, 401, "{target}");
        assert_eq!(plane.call(AGENT_UID, Method::GET, target, None).await.code().0, 403, "{target}");
    }
    let unproven = plane.control.handle(None, Request::get("/v1/whoami").body(Full::default()).unwrap()).await;
    assert_eq!(unproven.status(), 401);
    assert!(unproven.headers().contains_key("www-authenticate"));
}

// ---- requests that are not for us ----

#[tokio::test]
async fn browsers_and_foreign_hosts_are_refused() {
    let plane = Plane::new();
    let send = async |headers: &[(&str, &str)], target: &str| {
        let mut request = Request::get(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        plane.send(ORCHESTRATOR_UID, request.body(Full::default()).unwrap()).await
    };
    for fine in [&[][..], &[("host", "")], &[("host", "LocalHost")], &[("host", "valetkey")]] {
        assert_eq!(send(fine, "/v1/whoami").await.status, 200, "{fine:?}");
    }
    for foreign in [
        &[("host", "evil.example")][..],
        &[("host", "localhost:80")],
        &[("host", "localhost.evil.example")],
        &[("host", "127.0.0.1")],
        &[("host", "localhost"), ("host", "localhost")],
        &[("host", "localhost"), ("origin", "http://localhost")],
        &[("host", "localhost"), ("origin", "null")],
        &[("host", "localhost"), ("sec-fetch-site", "same-origin")],
        &[("host", "localhost"), ("sec-fetch-mode", "cors")],
    ] {
        assert_eq!(send(foreign, "/v1/whoami").await.code(), (403, "forbidden".into()), "{foreign:?}");
    }
    let absolute = send(&[("host", "localhost")], "http://localhost/v1/whoami").await;
    assert_eq!(absolute.code(), (400, "invalid_request".into()));
}

#[tokio::test]
async fn a_body_is_json_of_bounded_size_or_refused() {
    let plane = Plane::new();
    let post = async |kind: Option<&str>, encoding: Option<&str>, body: &str| {
        let mut request = Request::post("/v1/nonces");
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        if let Some(encoding) = encoding {
            request = request.header("content-encoding", encoding);
        }
        plane.send(ORCHESTRATOR_UID, request.body(Full::from(body.to_owned())).unwrap()).await
    };
    let body = refund().to_string();
    for fine in ["application/json", "Application/JSON; charset=UTF-8", "application/json;charset=\"utf-8\""] {
        assert_eq!(post(Some(fine), None, &body).await.status, 201, "{fine}");
    }
    for bad in
        ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "application/json; charset=latin1"]
    {
        assert_eq!(post(Some(bad), None, &body).await.code(), (415, "unsupported_media_type".into()), "{bad}");
    }
    assert_eq!(post(None, None, &body).await.status, 415);
    assert_eq!(post(Some("application/json"), Some("gzip"), &body).await.status, 415);
    let large = format!("{body}{}", " ".repeat(64 * 1024));
    let refused = post(Some("application/json"), None, &large).await;
    assert_eq!(refused.code(), (413, "request_too_large".into()));
    assert_eq!(refused.headers["connection"], "close");
    for bad in ["", "{", &format!("{body}{{}}"), &format!("{body}x")] {
        assert_eq!(post(Some("application/json"), None, bad).await.code(), (400, "invalid_request".into()), "{bad}");
    }
    let with_body = plane.call(ORCHESTRATOR_UID, Method::GET, "/v1/whoami", Some("{}")).await;
    assert_eq!(with_body.code(), (400, "invalid_request".into()));
    let with_query = plane.call(ORCHESTRATOR_UID, Method::GET, "/v1/whoami?nonce=x", None).await;
    assert_eq!(with_query.code(), (400, "invalid_request".into()));
    let put = plane.call(ORCHESTRATOR_UID, Method::PUT, "/v1/nonces", None).await;
    assert_eq!((put.code().0, &put.headers["allow"]), (405, &"GET, HEAD, POST".parse().unwrap()));
}
