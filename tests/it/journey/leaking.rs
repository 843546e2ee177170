//! Nonces where none belong: in bodies, and those that were minted to be found.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::support::agent::{PATIENCE, Reply, get, with};
use crate::support::orchestrator::Minted;
use crate::support::sidecar::eventually;
use crate::support::streams;
use crate::support::{FakeUpstream, Stage, policies};

async fn stage(leak_scan: &str) -> Stage {
    Stage::of_policy(&policies::one_api_with(&format!("leak_scan = \"{leak_scan}\""))).await
}

async fn mint(stage: &Stage, scope: &str) -> Minted {
    stage.sidecar.orchestrator().mint("worker", "api", scope).await
}

async fn canary(stage: &Stage) -> Minted {
    stage.sidecar.orchestrator().mint_with(json!({"agent": "worker", "task": "trap", "canary": true})).await
}

async fn post(stage: &Stage, h2: bool, nonce: &str, fields: &[(&str, &str)], body: &str) -> Reply {
    let agent = stage.sidecar.agent();
    let bearer = format!("Bearer {nonce}");
    let fields: Vec<_> = [("authorization", bearer.as_str())].into_iter().chain(fields.iter().copied()).collect();
    let request = with("POST", "api.test", "/x", &fields, body);
    let mut tunnel = if h2 { agent.tunnel_h2("api.test").await } else { agent.tunnel("api.test").await };
    tunnel.send(request).await
}

async fn alarm(stage: &Stage, kind: &str, place: &str) -> Value {
    let is_wanted = |record: &Value| record["type"] == "alarm" && record["kind"] == kind && record["place"] == place;
    stage.sidecar.audited(is_wanted).await
}

fn alarms(stage: &Stage) -> usize {
    stage.sidecar.audit().iter().filter(|record| record["type"] == "alarm").count()
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test]
async fn a_nonce_in_a_body_is_reported_and_passes() {
    let stage = Stage::new().await;
    let (writer, other) = (stage.writer().await, mint(&stage, "read").await);
    let body = format!("my environment: KEY={0} and again {0}, encoded {1}", other.nonce, encoded(&other.nonce));
    for h2 in [false, true] {
        assert_eq!(post(&stage, h2, &writer, &[], &body).await.status, 200);
    }
    assert!(stage.upstream.seen().iter().all(|seen| seen.body == body.as_bytes()), "unchanged");
    let record = alarm(&stage, "nonce_in_body", "body").await;
    assert_eq!(record["outcome"], "reported");
    assert_eq!((&record["nonce.id"], &record["agent"]), (&json!(other.id), &json!("worker")));
    assert_eq!((&record["service"], &record["destination"]), (&json!("api"), &json!("api.test:443")));
    let exchange = record["exchange.id"].clone();
    stage.sidecar.audited(|record| record["type"] == "end" && record["exchange.id"] == exchange).await;
    eventually("two alarms", || (alarms(&stage) == 2).then_some(())).await; // one for each request, not for each find
    let metrics = stage.sidecar.admin_get("/metrics").await.text();
    assert!(metrics.contains("valetkey_alarms_total{kind=\"nonce_in_body\"} 2"), "{metrics}");
    assert_eq!(stage.sidecar.agent().get("api.test", "/x", &other.nonce).await.status, 200, "it lives on");
    stage.assert_silent(&[&writer, &other.nonce]);
}

/// An upstream that tells of every piece of a body as it comes.
async fn listening() -> (FakeUpstream, mpsc::UnboundedReceiver<Bytes>) {
    let (tell, told) = mpsc::unbounded_channel();
    let upstream = FakeUpstream::played(&["api.test"], b"h2", move |stream, _| {
        let tell = tell.clone();
        async move {
            let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let tell = tell.clone();
                tokio::spawn(async move {
                    let mut body = request.into_body();
                    while let Some(data) = streams::next(&mut body).await {
                        let _ = tell.send(data);
                    }
                    let _ = respond.send_response(Response::new(()), true);
                });
            }
        }
    })
    .await;
    (upstream, told)
}

/// Reads until as many bytes have come.
async fn heard(told: &mut mpsc::UnboundedReceiver<Bytes>, count: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(tokio::time::timeout(PATIENCE, told.recv()).await.expect("in time").expect("a piece"));
    }
    all
}

fn upload(nonce: &str) -> Request<()> {
    let request = Request::post("https://api.test/x").header("authorization", format!("Bearer {nonce}"));
    request.body(()).expect("a request")
}

#[tokio::test]
async fn what_is_only_reported_is_never_held_back() {
    let (upstream, mut told) = listening().await;
    let stage = Stage::with(upstream, |builder| builder).await;
    let (writer, other) = (stage.writer().await, mint(&stage, "read").await);
    let mut frames = stage.sidecar.agent().frames("api.test").await;
    let (answer, mut body) = frames.send_request(upload(&writer), false).expect("a stream");
    let (first, rest) = other.nonce.split_at(17);
    for piece in [first, rest] {
        assert!(streams::send(&mut body, Bytes::copy_from_slice(piece.as_bytes())).await);
        assert_eq!(heard(&mut told, piece.len()).await, piece.as_bytes(), "before anything else comes");
    }
    body.send_data(Bytes::new(), true).expect("an open stream");
    assert_eq!(tokio::time::timeout(PATIENCE, answer).await.expect("in time").expect("an answer").status(), 200);
    assert_eq!(alarm(&stage, "nonce_in_body", "body").await["nonce.id"], other.id);
}

#[tokio::test]
async fn a_nonce_in_a_body_is_refused_before_anything_is_sent() {
    let stage = stage("refuse").await;
    let (writer, other) = (stage.writer().await, mint(&stage, "read").await);
    for body in [format!("x={}", other.nonce), format!("x={}", encoded(&other.nonce)), writer.clone()] {
        for h2 in [false, true] {
            let reply = post(&stage, h2, &writer, &[], &body).await;
            assert_eq!((reply.status.as_u16(), reply.refusal()), (403, Some("nonce_misplaced")), "{}", reply.text());
        }
    }
    assert_eq!((stage.upstream.seen().len(), stage.upstream.connections()), (0, 0), "nothing was sent");
    assert_eq!(alarm(&stage, "nonce_in_body", "body").await["outcome"], "refused");
    stage.sidecar.audited(|record| record["decision"] == "deny" && record["code"] == "nonce_misplaced").await;
    let beginning = format!("{} and an_ with nothing behind it, an_{}", &other.nonce[..35], "!".repeat(99));
    for h2 in [false, true] {
        assert_eq!(post(&stage, h2, &writer, &[], &beginning).await.status, 200);
    }
    let seen = stage.upstream.seen();
    assert!(seen.len() == 2 && seen.iter().all(|seen| seen.body == beginning.as_bytes()), "unchanged");
    assert!(seen.iter().all(|seen| seen.header("content-length").is_some()), "nor its framing");
    assert_eq!(stage.sidecar.agent().get("api.test", "/x", &other.nonce).await.status, 200, "it lives on");
}

#[tokio::test]
async fn a_nonce_late_in_a_long_body_ends_the_upload() {
    let stage = stage("refuse").await;
    let (writer, other) = (stage.writer().await, mint(&stage, "read").await);
    let body = "y".repeat(300 * 1024) + "an_" + &other.nonce + "tail";
    for h2 in [false, true] {
        let reply = post(&stage, h2, &writer, &[], &body).await;
        assert_eq!((reply.status.as_u16(), reply.refusal()), (403, Some("nonce_misplaced")), "{}", reply.text());
    }
    let is_whole = |sent: &[u8]| sent.windows(other.nonce.len()).any(|window| window == other.nonce.as_bytes());
    assert!(stage.upstream.seen().iter().all(|seen| seen.body.len() < body.len() && !is_whole(&seen.body)));
    let harmless = "y".repeat(300 * 1024) + "an_" + &other.nonce[..35];
    for h2 in [false, true] {
        assert_eq!(post(&stage, h2, &writer, &[], &harmless).await.status, 200);
    }
    let unchanged = stage.upstream.seen().iter().filter(|seen| seen.body == harmless.as_bytes()).count();
    assert_eq!(unchanged, 2, "unchanged");
}

#[tokio::test]
async fn of_a_stream_that_is_refused_no_whole_nonce_goes_out() {
    let (upstream, mut told) = listening().await;
    let policy = policies::one_api_with("leak_scan = \"refuse\"");
    let stage = Stage::of(&policy, upstream, |builder| builder).await;
    let (writer, other) = (stage.writer().await, mint(&stage, "read").await);
    let mut frames = stage.sidecar.agent().frames("api.test").await;
    let (answer, mut body) = frames.send_request(upload(&writer), false).expect("a stream");
    // A stream that waits for an answer goes on after a second.
    assert!(streams::send(&mut body, Bytes::from_static(b"hello ")).await);
    assert_eq!(heard(&mut told, 6).await, b"hello ");
    let text = format!("world {}", other.nonce);
    for piece in text.as_bytes().chunks(5) {
        if !streams::send(&mut body, Bytes::copy_from_slice(piece)).await {
            break;
        }
    }
    let answer = tokio::time::timeout(PATIENCE, answer).await.expect("in time").expect("an answer");
    assert_eq!(answer.status(), 403);
    let mut rest = Vec::new();
    while let Ok(piece) = told.try_recv() {
        rest.extend(piece);
    }
    assert!(b"world ".starts_with(&rest), "{}", String::from_utf8_lossy(&rest));
}

#[tokio::test]
async fn a_nonce_in_a_body_is_revoked_where_the_service_says_so() {
    let stage = stage("revoke").await;
    let (writer, other) = (stage.writer().await, mint(&stage, "read").await);
    let reply = post(&stage, false, &writer, &[], &other.nonce).await;
    assert_eq!((reply.status.as_u16(), reply.refusal()), (403, Some("nonce_misplaced")));
    assert_eq!(alarm(&stage, "nonce_in_body", "body").await["outcome"], "revoked");
    let reply = stage.sidecar.agent().get("api.test", "/x", &other.nonce).await;
    assert_eq!(reply.refusal(), Some("nonce_revoked"));
    stage.sidecar.audited(|record| record["type"] == "lease_end" && record["cause"] == "misplaced").await;
    // What is dead or was never ours harms nobody.
    let unknown = format!("an_{}", "0".repeat(33));
    let reply = post(&stage, false, &writer, &[], &format!("{} {unknown}", other.nonce)).await;
    assert_eq!(reply.status, 200);
    let is_noted = |record: &Value| record["outcome"] == "noted" && record["nonce.id"] == json!(other.id);
    stage.sidecar.audited(is_noted).await;
    assert_eq!(alarms(&stage), 2, "nothing is said of a text that is nobody's");
    let metrics = stage.sidecar.admin_get("/metrics").await.text();
    assert!(
        metrics.contains("valetkey_alarms_total{kind=\"nonce_in_body\"} 1"),
        "what is noted is no alarm: {metrics}"
    );
}

#[tokio::test]
async fn what_is_not_looked_at_passes() {
    let off = stage("off").await;
    let (writer, other) = (off.writer().await, mint(&off, "read").await);
    assert_eq!(post(&off, false, &writer, &[], &other.nonce).await.status, 200);
    let strict = stage("refuse").await;
    let (writer, other) = (strict.writer().await, mint(&strict, "read").await);
    for (fields, status) in [
        (&[("content-encoding", "gzip")][..], 200),
        (&[("content-encoding", "identity, gzip")], 200),
        (&[("content-encoding", "identity")], 403),
    ] {
        assert_eq!(post(&strict, false, &writer, fields, &other.nonce).await.status, status, "{fields:?}");
    }
    assert_eq!((alarms(&off), alarms(&strict)), (0, 1));
}

#[tokio::test]
async fn a_nonce_outside_its_slot_is_an_alarm() {
    let stage = Stage::new().await;
    let (reader, other) = (stage.reader().await, mint(&stage, "read").await);
    let bearer = format!("Bearer {reader}");
    for (path, field, place) in [
        ("/x", "x-note", "header"),
        (&*format!("/{}", other.nonce), "", "path"),
        (&*format!("/x?q={}", other.nonce), "", "query"),
    ] {
        let fields = [("authorization", bearer.as_str()), (field, other.nonce.as_str())];
        let fields = if field.is_empty() { &fields[..1] } else { &fields[..] };
        let reply = stage.sidecar.agent().send(with("GET", "api.test", path, fields, "")).await;
        assert_eq!(reply.refusal(), Some("nonce_misplaced"), "{place}");
        let record = alarm(&stage, "nonce_misplaced", place).await;
        assert_eq!((&record["outcome"], &record["nonce.id"]), (&json!("refused"), &json!(other.id)));
    }
    let stray = stage.sidecar.agent().send(with("GET", "elsewhere.test", "/", &[("x-a", &other.nonce)], "")).await;
    assert_eq!(stray.refusal(), Some("nonce_misplaced"));
    assert_eq!(alarm(&stage, "nonce_misplaced", "host").await["outcome"], "revoked");
}

#[tokio::test]
async fn a_canary_is_unknown_to_whoever_uses_it() {
    let stage = stage("refuse").await;
    let (writer, canary) = (stage.writer().await, canary(&stage).await);
    let unknown = format!("an_{}", "0".repeat(33));
    let agent = stage.sidecar.agent();
    let uses = |nonce: &str| {
        let bearer = format!("Bearer {writer}");
        [
            ("slot", get("api.test", "/x", nonce)),
            ("header", with("GET", "api.test", "/x", &[("authorization", &bearer), ("x-note", nonce)], "")),
            ("path", with("GET", "api.test", &format!("/{nonce}"), &[("authorization", &bearer)], "")),
            ("query", with("GET", "api.test", &format!("/x?q={nonce}"), &[("authorization", &bearer)], "")),
            ("header", with("GET", "elsewhere.test", "/", &[("x-a", nonce)], "")),
            ("body", with("POST", "api.test", "/x", &[("authorization", &bearer)], nonce)),
        ]
    };
    let told = Arc::new(Mutex::new(Vec::new()));
    for ((place, trapped), (_, plain)) in uses(&canary.nonce).into_iter().zip(uses(&unknown)) {
        let mut replies = Vec::new();
        for request in [trapped, plain] {
            let reply = agent.send(request).await;
            let text = reply.text().replace(&canary.nonce, "N").replace(&unknown, "N");
            let exchange = reply.refusal().map(|_| reply.json()["exchange_id"].as_str().unwrap_or("-").to_owned());
            let exchange = exchange.unwrap_or_else(|| "-".to_owned());
            replies.push((reply.status, reply.refusal().map(str::to_owned), text.replace(&exchange, "-")));
        }
        assert_eq!(replies[0], replies[1], "at {place}: nothing tells it from a text that is nobody's");
        let record = alarm(&stage, "canary_used", place).await;
        assert_eq!((&record["nonce.id"], &record["task"]), (&json!(canary.id), &json!("trap")));
        told.lock().expect("not poisoned").push(replies[0].1.clone());
    }
    let told = told.lock().expect("not poisoned").clone();
    let told: Vec<_> = told.iter().map(Option::as_deref).collect();
    let misplaced = Some("nonce_misplaced");
    assert_eq!(told, [Some("nonce_unknown"), misplaced, misplaced, misplaced, misplaced, None]);
    eventually("an alarm for each", || (alarms(&stage) == 6).then_some(())).await;
    stage.assert_silent(&[&canary.nonce]);
}

#[tokio::test]
async fn a_canary_is_listed_and_ended_like_any_other_nonce() {
    let stage = Stage::new().await;
    let orchestrator = stage.sidecar.orchestrator();
    let canary = canary(&stage).await;
    assert_eq!((&canary.answer["grants"], &canary.answer["expires_in"]), (&json!([]), &json!(30 * 24 * 3600)));
    let (_, list) = orchestrator.call("GET", "/v1/nonces?task=trap", None).await;
    assert_eq!((&list["nonces"][0]["id"], &list["nonces"][0]["canary"]), (&json!(canary.id), &json!(true)));
    let (_, known) = orchestrator.call("POST", "/v1/introspect", Some(json!({"nonce": canary.nonce}))).await;
    assert_eq!(known["active"], true);
    orchestrator.revoke(&canary.id).await;
    let reply = stage.sidecar.agent().get("api.test", "/x", &canary.nonce).await;
    assert_eq!(reply.refusal(), Some("nonce_revoked"));
    let long = json!({"agent": "worker", "task": "trap", "canary": true, "ttl": "900d"});
    let (_, long) = orchestrator.call("POST", "/v1/nonces", Some(long)).await;
    assert_eq!((&long["expires_in"], &long["ttl_capped_by"]), (&json!(366 * 24 * 3600), &json!("canary")));
}

#[tokio::test]
async fn a_canary_as_the_proxys_credentials_is_an_alarm() {
    for required in [false, true] {
        let policy = if required {
            policies::ONE_API.replace("version = 1", "version = 1\n[egress]\nproxy_auth = \"required\"")
        } else {
            policies::ONE_API.to_owned()
        };
        let stage = Stage::of_policy(&policy).await;
        let canary = canary(&stage).await;
        let agent = stage.sidecar.agent().vouched(&format!("{}:", canary.nonce));
        if required {
            let pair = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, format!("{}:", canary.nonce));
            let head =
                format!("CONNECT api.test:443 HTTP/1.1\r\nHost: api.test\r\nProxy-Authorization: Basic {pair}\r\n\r\n");
            assert!(agent.connect_with(head.as_bytes()).await.0.contains("407"));
        } else {
            let reply = agent.send(with("GET", "api.test", "/x", &[], "")).await;
            assert_eq!(reply.refusal(), Some("nonce_unknown"));
        }
        assert_eq!(alarm(&stage, "canary_used", "proxy").await["nonce.id"], canary.id);
    }
}
