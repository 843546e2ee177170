//! The agent's own door: what a nonce may do for itself on `valetkey.internal`, and that nothing else is there.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::support::agent::{PATIENCE, Reply, breaks, get, with};
use crate::support::orchestrator::Minted;
use crate::support::stranger::{STRANGER, acting, can_be_others};
use crate::support::wire::read_answers;
use crate::support::{FakeUpstream, Stage, policies};

const DOOR: &str = "valetkey.internal";

const CEILINGS: &str = "\n[nonces]\nttl = \"1m\"\n[nonces.ceilings]\nlow = { ttl = \"10m\", lifetime = \"15m\" }\n\
                        medium = { ttl = \"5m\", lifetime = \"1h\" }\nhigh = { ttl = \"2m\", lifetime = \"3m\" }\n";

/// The agent may renew by itself; `quiet` may not.
fn policy() -> String {
    let renewing = "grants = { api = [\"read\", \"write\"] }\nself_renew = true\n\n[agents.quiet]\n\
                    identity = [\"any\"]\ngrants = { api = [\"read\", \"once\"] }\n";
    policies::ONE_API.replace("grants = { api = [\"read\", \"write\", \"once\"] }\n", renewing) + CEILINGS
}

/// Whoever would dial the door's host, or resolve it, would come to the upstream.
async fn stage_of(policy: &str) -> Stage {
    let upstream = FakeUpstream::start(&["api.test", DOOR]).await;
    let address = upstream.address;
    let trap = |port: u16| format!("{DOOR}:{port}:{address}");
    Stage::of(policy, upstream, |builder| {
        builder.flag("--connect-to").flag(&trap(443)).flag("--connect-to").flag(&trap(80))
    })
    .await
}

async fn stage() -> Stage {
    stage_of(&policy()).await
}

async fn mint(stage: &Stage, agent: &str, extra: Value) -> Minted {
    let mut body = json!({"agent": agent, "task": "t", "service": "api", "scope": "read", "ttl": "1m"});
    body.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
    stage.sidecar.orchestrator().mint_with(body).await
}

/// One call with a nonce, over each protocol in turn.
async fn call(stage: &Stage, method: &str, path: &str, nonce: &str, body: &str) -> Reply {
    let bearer = format!("Bearer {nonce}");
    let mut fields = vec![("authorization", bearer.as_str())];
    if !body.is_empty() {
        fields.push(("content-type", "application/json"));
    }
    stage.sidecar.agent().send(with(method, DOOR, path, &fields, body)).await
}

fn problem(reply: &Reply) -> (u16, String) {
    assert_eq!(reply.headers["content-type"], "application/problem+json", "{}", reply.text());
    assert_eq!(reply.headers["cache-control"], "no-store");
    (reply.status.as_u16(), reply.json()["code"].as_str().expect("a code").to_owned())
}

fn untouched(stage: &Stage) {
    assert_eq!(stage.upstream.connections(), 0, "nothing is ever dialled for the door");
}

#[tokio::test]
async fn a_nonce_reads_its_own_lease_as_the_control_api_shows_it() {
    let stage = stage().await;
    let (own, other) = (mint(&stage, "worker", json!({"max_uses": 1})).await, mint(&stage, "worker", json!({})).await);
    let agent = stage.sidecar.agent();
    for reply in [agent.get(DOOR, "/v1/self", &own.nonce).await, agent.send_h2(get(DOOR, "/v1/self", &own.nonce)).await]
    {
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(
            (&reply.headers["content-type"], &reply.headers["cache-control"]),
            (&"application/json".parse().unwrap(), &"no-store".parse().unwrap())
        );
        let (_, mut shown) = stage.sidecar.orchestrator().call("GET", &format!("/v1/nonces/{}", own.id), None).await;
        let mut read = reply.json();
        for view in [&mut shown, &mut read] {
            view.as_object_mut().expect("an object").remove("expires_in").expect("it");
        }
        assert_eq!(read, shown);
        assert_eq!((&read["id"], &read["uses_left"]), (&own.id.as_str().into(), &1.into()), "no use is spent");
        let everything = String::from_utf8_lossy(&reply.everything()).into_owned();
        assert!(!everything.contains(&own.nonce) && !everything.contains(&other.id), "{everything}");
        stage.assert_clean(everything.as_bytes(), "the answer");
    }
    let head = with("HEAD", DOOR, "/v1/self", &[("authorization", &format!("Bearer {}", own.nonce))], "");
    for reply in [agent.send(head.clone()).await, agent.send_h2(head).await] {
        assert_eq!((reply.status.as_u16(), reply.body.len()), (200, 0));
    }
    let decision = stage.sidecar.audited(|record| record["type"] == "decision").await;
    assert_eq!(
        (&decision["nonce.id"], &decision["agent"]),
        (&own.id.as_str().into(), &"worker".into()),
        "{decision:#}"
    );
    assert_eq!((&decision["destination"], &decision["path"]), (&"valetkey.internal:443".into(), &"/v1/self".into()));
    let end = stage.sidecar.audited(|record| record["type"] == "end").await;
    assert_eq!(
        (&end["status"], &end["ending"], &end["task"]),
        (&200.into(), &"complete".into(), &"t".into()),
        "{end:#}"
    );
    stage.assert_silent(&[&own.nonce, &other.nonce]);
    untouched(&stage);
}

#[tokio::test]
async fn a_nonce_renews_itself_within_its_ceilings() {
    let stage = stage().await;
    let minted = mint(&stage, "worker", json!({})).await;
    let reply = call(&stage, "POST", "/v1/self/renew", &minted.nonce, r#"{"ttl":"1h"}"#).await;
    let view = reply.json();
    assert_eq!((reply.status.as_u16(), &view["id"]), (200, &minted.id.as_str().into()), "{view:#}");
    assert_eq!((&view["expires_in"], &view["ttl_capped_by"]), (&600.into(), &"ceilings.low".into()));
    assert!(view.get("nonce").is_none());
    assert_eq!(view["ends_at"], minted.answer["ends_at"], "its life is what it was");
    let again = call(&stage, "POST", "/v1/self/renew", &minted.nonce, "").await;
    assert_eq!(again.json()["expires_at"], view["expires_at"], "never moved backwards");
    let record = stage.sidecar.audited(|record| record["type"] == "renew").await;
    assert_eq!((&record["nonce.id"], &record["expires_at"]), (&minted.id.as_str().into(), &view["expires_at"]));
    assert_eq!(record["renewed_by"], "the agent itself", "{record:#}");
    untouched(&stage);
}

#[tokio::test]
async fn whoever_may_not_renew_is_told_so() {
    let stage = stage().await;
    for extra in [json!({}), json!({"scope": "once"})] {
        let minted = mint(&stage, "quiet", extra).await;
        let reply = call(&stage, "POST", "/v1/self/renew", &minted.nonce, r#"{"ttl":"5m"}"#).await;
        assert_eq!(problem(&reply), (403, "forbidden".to_owned()), "{}", reply.text());
        assert!(reply.text().contains("self_renew"), "{}", reply.text());
        let (_, view) = stage.sidecar.orchestrator().call("GET", &format!("/v1/nonces/{}", minted.id), None).await;
        assert_eq!(view["expires_at"], minted.answer["expires_at"]);
    }
    let end = stage.sidecar.audited(|record| record["type"] == "end").await;
    assert_eq!((&end["status"], &end["code"], &end["decision"]), (&403.into(), &"forbidden".into(), &"allow".into()));
    assert!(stage.sidecar.audit().iter().all(|record| record["type"] != "renew"));
    let risky = policy().replace("[\"read\", \"write\"]", "[\"read\", \"once\"]");
    let refused = crate::support::TestSidecar::with_policy(&risky).file("api.pem", "").environment("API_KEY", "x");
    let (code, text) = refused.fails();
    assert!(code == Some(3) && text.contains("self_renew") && text.contains("high risk"), "{code:?} {text}");
}

#[tokio::test]
async fn a_nonce_that_revokes_itself_is_dead_and_its_streams_are_cut() {
    for h2 in [false, true] {
        let stage = stage().await;
        let (minted, other) = (mint(&stage, "worker", json!({})).await, mint(&stage, "worker", json!({})).await);
        let agent = stage.sidecar.agent();
        let mut tunnel = if h2 { agent.tunnel_h2("api.test").await } else { agent.tunnel("api.test").await };
        let open = tunnel.start(get("api.test", "/large?pieces=800", &minted.nonce)).await;
        let revoke = with("DELETE", DOOR, "/v1/self", &[("authorization", &format!("Bearer {}", minted.nonce))], "");
        let reply = if h2 { agent.send_h2(revoke).await } else { agent.send(revoke).await };
        assert_eq!((reply.status.as_u16(), reply.body.len()), (204, 0), "h2 {h2}: {}", reply.text());
        assert!(breaks(open).await, "h2 {h2}");
        assert_eq!(call(&stage, "GET", "/v1/self", &minted.nonce, "").await.refusal(), Some("nonce_revoked"));
        assert_eq!(agent.get("api.test", "/x", &minted.nonce).await.refusal(), Some("nonce_revoked"));
        assert_eq!(call(&stage, "GET", "/v1/self", &other.nonce, "").await.status, 200, "h2 {h2}: the other lives");
        let end = stage.sidecar.audited(|record| record["type"] == "lease_end").await;
        assert_eq!((&end["nonce.id"], &end["cause"]), (&minted.id.as_str().into(), &"revoked".into()));
        assert!(end["by"].as_str().expect("a text").starts_with("the agent itself"), "{end:#}");
    }
}

#[tokio::test]
async fn what_is_no_live_nonce_in_its_place_is_refused_as_everywhere() {
    let stage = stage().await;
    let minted = mint(&stage, "worker", json!({})).await;
    let nonce = minted.nonce.as_str();
    let bearer = format!("Bearer {nonce}");
    let own = ("authorization", bearer.as_str());
    let (token, raw) = (format!("token {nonce}"), nonce.to_owned());
    let shaped = format!("Bearer sk_test_{nonce}");
    let query = format!("/v1/self?n={nonce}");
    let path = format!("/v1/{nonce}");
    for (path, fields, expected) in [
        ("/v1/self", vec![], "nonce_missing"),
        ("/v1/self", vec![("authorization", "Bearer an_000000000000000000000000000000000")], "nonce_unknown"),
        ("/v1/self", vec![("authorization", "Bearer sk_live_0123456789")], "foreign_credential"),
        ("/v1/self", vec![("authorization", shaped.as_str())], "foreign_credential"),
        ("/v1/self", vec![("authorization", token.as_str())], "nonce_misplaced"),
        ("/v1/self", vec![("authorization", raw.as_str())], "nonce_misplaced"),
        ("/v1/self", vec![("x-api-key", nonce)], "foreign_credential"),
        ("/v1/self", vec![own, ("x-api-key", "sk_live_0123456789")], "foreign_credential"),
        ("/v1/self", vec![own, ("cookie", "session=1")], "foreign_credential"),
        ("/v1/self?access_token=abc", vec![own], "foreign_credential"),
        ("/v1/self", vec![own, ("x-note", nonce)], "nonce_misplaced"),
        (query.as_str(), vec![own], "nonce_misplaced"),
        (path.as_str(), vec![own], "nonce_misplaced"),
        ("/v1/self", vec![own, own], "request_ambiguous"),
        ("/v1/self", vec![own, ("x-http-method-override", "DELETE")], "request_ambiguous"),
        ("/v1/x/../self", vec![own], "request_ambiguous"),
    ] {
        let request = with("GET", DOOR, path, &fields, "");
        let agent = stage.sidecar.agent();
        assert_eq!(agent.send(request.clone()).await.refusal(), Some(expected), "{path} {fields:?}");
        assert_eq!(agent.send_h2(request).await.refusal(), Some(expected), "{path} {fields:?}");
    }
    assert_eq!(call(&stage, "GET", "/v1/self", nonce, "").await.status, 200, "it is nobody else's, so it lives on");
    let denied = stage.sidecar.audited(|record| record["code"] == "nonce_misplaced").await;
    assert_eq!(denied["decision"], "deny", "{denied:#}");
    stage.assert_silent(&[nonce]);
    untouched(&stage);
}

#[tokio::test]
async fn the_dead_stay_dead() {
    let stage = stage().await;
    let (short, once) =
        (mint(&stage, "worker", json!({"ttl": "1s"})).await, mint(&stage, "worker", json!({"max_uses": 1})).await);
    assert_eq!(stage.sidecar.agent().get("api.test", "/x", &once.nonce).await.status, 200);
    stage.sidecar.audited(|record| record["cause"] == "expired").await;
    for (nonce, expected) in [(&short.nonce, "nonce_expired"), (&once.nonce, "nonce_spent")] {
        for (method, path) in [("GET", "/v1/self"), ("POST", "/v1/self/renew"), ("DELETE", "/v1/self")] {
            let reply = call(&stage, method, path, nonce, "").await;
            assert_eq!((reply.status.as_u16(), reply.refusal()), (401, Some(expected)), "{method} {path}");
        }
    }
    assert!(stage.sidecar.audit().iter().all(|record| record["type"] != "renew"));
}

#[tokio::test]
async fn it_is_bound_to_its_agent() {
    if !can_be_others() {
        return;
    }
    let stage = stage_of(&policy().replace("identity = [\"any\"]", "identity = [\"uid:65534\"]")).await;
    let minted = mint(&stage, "worker", json!({})).await;
    for (method, path) in [("GET", "/v1/self"), ("POST", "/v1/self/renew"), ("DELETE", "/v1/self")] {
        let reply = call(&stage, method, path, &minted.nonce, "").await;
        assert_eq!((reply.status.as_u16(), reply.refusal()), (403, Some("agent_mismatch")), "{method} {path}");
    }
    let (agent, nonce) = (stage.sidecar.agent(), minted.nonce.clone());
    let own = acting(STRANGER, STRANGER, move || async move { agent.get(DOOR, "/v1/self", &nonce).await }).await;
    assert_eq!((own.status.as_u16(), &own.json()["id"]), (200, &minted.id.as_str().into()));
    let record = stage.sidecar.audited(|record| record["decision"] == "allow").await;
    assert_eq!(record["presented_by.identity"], "uid:65534", "{record:#}");
    untouched(&stage);
}

#[tokio::test]
async fn who_vouches_for_the_tunnel_is_of_the_same_task_and_opens_nothing() {
    let stage = stage().await;
    let (own, same) = (mint(&stage, "worker", json!({})).await, mint(&stage, "worker", json!({})).await);
    let other = mint(&stage, "quiet", json!({})).await;
    for (voucher, expected) in [(&same, None), (&own, None), (&other, Some("agent_mismatch"))] {
        let agent = stage.sidecar.agent().vouched(&format!("{}:", voucher.nonce));
        assert_eq!(agent.get(DOOR, "/v1/self", &own.nonce).await.refusal(), expected);
        assert_eq!(agent.send(with("GET", DOOR, "/v1/self", &[], "")).await.refusal(), Some("nonce_missing"));
    }
    let dead = stage.sidecar.agent().vouched("an_000000000000000000000000000000000:");
    assert_eq!(dead.get(DOOR, "/v1/self", &own.nonce).await.refusal(), Some("nonce_unknown"));
    untouched(&stage);
}

#[tokio::test]
async fn nothing_else_is_there() {
    let stage = stage().await;
    let nonce = mint(&stage, "worker", json!({})).await.nonce;
    for (method, path, expected, allow) in [
        ("GET", "/", (404, "not_found"), None),
        ("GET", "/v1/self/", (404, "not_found"), None),
        ("POST", "/v1/nonces", (404, "not_found"), None),
        ("GET", "/v1/whoami", (404, "not_found"), None),
        ("PUT", "/v1/self", (405, "method_not_allowed"), Some("GET, HEAD, DELETE")),
        ("GET", "/v1/self/renew", (405, "method_not_allowed"), Some("POST")),
        ("POST", "/v1/self/delegate", (415, "unsupported_media_type"), None),
        ("GET", "/v1/self?x=1", (400, "invalid_request"), None),
    ] {
        let reply = call(&stage, method, path, &nonce, "").await;
        assert_eq!(problem(&reply), (expected.0, expected.1.to_owned()), "{method} {path}");
        assert_eq!(reply.headers.get("allow").map(|value| value.to_str().unwrap()), allow, "{method} {path}");
    }
    for host in ["valetkey", "localhost"] {
        let socket = with("GET", host, "/v1/whoami", &[], "");
        assert_eq!(
            stage.sidecar.agent().send(socket).await.refusal(),
            Some("host_not_listed"),
            "a name of the socket's"
        );
    }
    untouched(&stage);
}

#[tokio::test]
async fn bodies_are_read_strictly_and_within_limits() {
    let stage = stage().await;
    let nonce = mint(&stage, "worker", json!({})).await.nonce;
    let long = format!("{{\"ttl\":\"{}\"}}", "1".repeat(70_000));
    for (body, expected) in [
        (r#"{"ttl":"1m","ttl":"2m"}"#, (400, "invalid_request")),
        (r#"{"ttl":"1m","lifetime":"9h"}"#, (400, "invalid_request")),
        (r#"{"ttl":"1m"}{}"#, (400, "invalid_request")),
        (r#"{"ttl":0}"#, (400, "invalid_request")),
        (long.as_str(), (413, "request_too_large")),
    ] {
        let reply = call(&stage, "POST", "/v1/self/renew", &nonce, body).await;
        assert_eq!(problem(&reply), (expected.0, expected.1.to_owned()), "{}", reply.text());
    }
    let bearer = format!("Bearer {nonce}");
    let untyped = with("POST", DOOR, "/v1/self/renew", &[("authorization", &bearer)], r#"{"ttl":"2m"}"#);
    assert_eq!(problem(&stage.sidecar.agent().send_h2(untyped).await), (415, "unsupported_media_type".to_owned()));
    let chatty = call(&stage, "DELETE", "/v1/self", &nonce, "{}").await;
    assert_eq!(problem(&chatty), (400, "invalid_request".to_owned()));
    assert!(stage.sidecar.audit().iter().all(|record| record["type"] != "renew" && record["type"] != "lease_end"));
    untouched(&stage);
}

#[tokio::test]
async fn one_lease_calls_so_often_and_may_always_end_itself() {
    let stage = stage().await;
    let (busy, calm) = (mint(&stage, "worker", json!({})).await, mint(&stage, "worker", json!({})).await);
    let mut tunnel = stage.sidecar.agent().tunnel_h2(DOOR).await;
    let mut refused = None;
    for _ in 0..200 {
        let reply = tunnel.send(get(DOOR, "/v1/self", &busy.nonce)).await;
        if reply.status != 200 {
            refused = Some(reply);
            break;
        }
    }
    let refused = refused.expect("a bound");
    assert_eq!((refused.status.as_u16(), refused.refusal()), (429, Some("rate_limited")));
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(tunnel.send(get(DOOR, "/v1/self", &calm.nonce)).await.status, 200, "each has its own");
    for (path, body) in [("/v1/self", "{}"), ("/v1/self?x", ""), ("/v1/selves", "")] {
        let reply = call(&stage, "DELETE", path, &busy.nonce, body).await;
        assert_eq!(reply.refusal(), Some("rate_limited"), "{path} {body} ends nothing");
    }
    assert_eq!(call(&stage, "DELETE", "/v1/self", &busy.nonce, "").await.status, 204);
    untouched(&stage);
}

#[tokio::test]
async fn the_host_is_one_however_it_is_spelled_and_no_other() {
    let policy = format!("{}\n[egress]\nunlisted = \"tunnel\"\n", policy());
    for policy in [self::policy(), policy] {
        let stage = stage_of(&policy).await;
        let nonce = mint(&stage, "worker", json!({})).await.nonce;
        let agent = stage.sidecar.agent();
        let request =
            |host: &str| format!("GET /v1/self HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {nonce}\r\n\r\n");
        let connector = tokio_rustls::TlsConnector::from(Arc::new(agent.tls(&[b"http/1.1"])));
        for (connect, sni, host, status) in [
            ("VALETKEY.INTERNAL:443", DOOR, "ValetKey.Internal", Some(200)),
            ("valetkey.internal.:443", DOOR, "valetkey.internal:443", Some(200)),
            (DOOR_443, DOOR, "api.test", Some(421)),
            (DOOR_443, DOOR, "valetkey.internal:80", Some(421)),
            (DOOR_443, "api.test", DOOR, None),
            ("x.valetkey.internal:443", "x.valetkey.internal", "x.valetkey.internal", Some(403)),
        ] {
            let (answer, stream) = agent.connect(connect).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{connect}: {answer}");
            let name = ServerName::try_from(sni).expect("a name");
            let Ok(mut tls) = connector.connect(name, stream).await else {
                assert_eq!(status, None, "{connect} {sni}");
                continue;
            };
            tls.write_all(request(host).as_bytes()).await.expect("writable");
            let text = read_answers(&mut tls, 1, PATIENCE).await;
            let status = status.expect("no answer is expected");
            assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "{connect} {sni} {host}: {text}");
        }
        for elsewhere in ["valetkey.internal:80", "valetkey.internal:8443", "VALETKEY.INTERNAL.:22"] {
            let (answer, _) = agent.connect(elsewhere).await;
            assert!(answer.starts_with("HTTP/1.1 403 host_not_listed"), "{elsewhere}: {answer}");
        }
        untouched(&stage);
    }
}

const DOOR_443: &str = "valetkey.internal:443";

#[tokio::test]
async fn over_loopback_it_answers_in_absolute_form_too() {
    let stage = stage().await;
    let nonce = mint(&stage, "worker", json!({})).await.nonce;
    let agent = stage.sidecar.agent();
    for (target, status) in [
        ("https://valetkey.internal/v1/self", "200"),
        ("http://valetkey.internal/v1/self", "200"),
        ("http://valetkey.internal:80/v1/self", "200"),
        ("http://valetkey.internal:443/v1/self", "403"),
        ("https://valetkey.internal:8443/v1/self", "403"),
        ("http://x.valetkey.internal/v1/self", "403"),
    ] {
        let host = target.split('/').nth(2).expect("a host");
        let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {nonce}\r\n\r\n");
        let text = agent.raw(head.as_bytes()).await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "{target}: {text}");
    }
    stage.assert_silent(&[&nonce]);
    untouched(&stage);
}
