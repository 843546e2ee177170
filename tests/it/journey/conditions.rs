//! Conditions from outside: bodies are held, judged and sent as they came; what cannot be judged is refused.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::agent::{PATIENCE, with};
use crate::support::wire::read_answers;
use crate::support::{FakeUpstream, Stage, policies};

/// What follows the service.
const RULES: &str = r#"
[[services.api.scopes]]
name = "refund"
risk = "high"
[[services.api.scopes.rules]]
allow = "POST /refunds"
body = { type = "form", max = "1KiB", fields = { charge = "string", amount = "int" } }
when = "body.amount > 0 && body.amount <= 5000"
because = "refunds up to 50.00"
record = ["body.charge", "body.amount"]

[[services.api.scopes]]
name = "transfer"
risk = "medium"
[[services.api.scopes.rules]]
allow = "POST /transfers"
body = { type = "json", max = "1MiB", fields = { amount = "int", note = "string" } }
when = "body.amount < 10"
because = "small ones"

[[services.api.scopes]]
name = "any"
risk = "high"
allow = ["POST /transfers", "POST /orders"]
[[services.api.scopes.rules]]
deny = "POST /orders"
body = { type = "json", max = "1KiB", fields = { country = "string" } }
when = "body.country == 'XX'"
because = "not there"

[[services.api.scopes]]
name = "team"
risk = "low"
when = "nonce.labels.team == 'finance' && nonce.on_behalf_of == 'user:ana'"
allow = ["GET /{*path}"]

[agents.worker]
identity = ["any"]
grants = { api = ["refund", "transfer", "any", "team"] }
"#;

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

struct Scene {
    stage: Stage,
    nonce: String,
}

impl Scene {
    /// A nonce for one scope.
    async fn holding(scope: &str) -> Self {
        let stage = Stage::of_policy(&policies::bearer_api(RULES)).await;
        let nonce = stage.sidecar.orchestrator().mint("worker", "api", scope).await.nonce;
        Self { stage, nonce }
    }

    async fn post(&self, h2: bool, path: &str, kind: &str, body: &str) -> crate::support::agent::Reply {
        let bearer = format!("Bearer {}", self.nonce);
        let request = with("POST", "api.test", path, &[("authorization", &bearer), ("content-type", kind)], body);
        let agent = self.stage.sidecar.agent();
        if h2 { agent.send_h2(request).await } else { agent.send(request).await }
    }

    /// The head of an HTTP/1.1 request, but for its framing.
    fn head(&self, path: &str, kind: &str) -> String {
        format!(
            "POST {path} HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {}\r\nContent-Type: {kind}\r\n",
            self.nonce
        )
    }

    async fn raw(&self, request: String) -> String {
        self.stage.sidecar.agent().raw_inside("api.test", request.as_bytes()).await
    }

    fn assert_nothing_sent(&self) {
        assert_eq!(self.stage.upstream.seen().len(), 0, "nothing may reach the upstream");
    }
}

#[tokio::test]
async fn what_a_condition_allows_arrives_byte_for_byte() {
    let scene = Scene::holding("refund").await;
    // An escape that nobody would have to make stays one.
    let body = "charge=ch%5F1&amount=50%30";
    for (h2, count) in [(false, 1), (true, 2)] {
        let reply = scene.post(h2, "/refunds", FORM, body).await;
        assert_eq!(reply.status, StatusCode::OK, "h2 {h2}: {}", reply.text());
        let seen = scene.stage.upstream.seen();
        assert_eq!(seen.len(), count);
        let last = seen.last().expect("a request");
        assert_eq!(last.body, body, "h2 {h2}");
        assert!(last.header("authorization").expect("a credential").contains(&scene.stage.secret));
    }
    let record = scene.stage.sidecar.audited(|record| record["type"] == "decision").await;
    assert_eq!(record["inputs"], json!({"body.amount": "500", "body.charge": "ch_1"}));
    assert_eq!(record["scope"], "refund");
    scene.stage.assert_silent(&[&scene.nonce]);
}

#[tokio::test]
async fn what_a_condition_refuses_is_told_why_and_never_the_expression() {
    let scene = Scene::holding("refund").await;
    for h2 in [false, true] {
        let reply = scene.post(h2, "/refunds", FORM, "charge=ch_1&amount=5001").await;
        assert_eq!((reply.status, reply.refusal()), (StatusCode::FORBIDDEN, Some("condition_failed")), "h2 {h2}");
        let text = String::from_utf8_lossy(&reply.everything()).into_owned();
        assert!(text.contains("refunds up to 50.00") && !text.contains("5000"), "{text}");
    }
    scene.assert_nothing_sent();
    let refused = |record: &serde_json::Value| record["code"] == "condition_failed";
    let record = scene.stage.sidecar.audited(refused).await;
    assert_eq!(record["inputs"], json!({"body.amount": "5001", "body.charge": "ch_1"}));
}

#[tokio::test]
async fn what_is_recorded_holds_no_nonce_and_no_novel() {
    let scene = Scene::holding("refund").await;
    let novel = "x".repeat(600);
    for charge in [&scene.nonce, &novel] {
        let reply = scene.post(false, "/refunds", FORM, &format!("charge={charge}&amount=9999")).await;
        assert_eq!(reply.status, StatusCode::FORBIDDEN, "{}", reply.text());
    }
    let long = |record: &serde_json::Value| {
        record["inputs"]["body.charge"].as_str().is_some_and(|text| text.starts_with("xxx") && text.len() < 300)
    };
    scene.stage.sidecar.audited(long).await;
    scene.stage.assert_silent(&[&scene.nonce]);
}

#[tokio::test]
async fn a_body_that_two_parsers_could_read_differently_is_refused() {
    let scene = Scene::holding("transfer").await;
    let bodies = [
        (JSON, r#"{"amount": 5, "amount": 5000}"#),
        (JSON, r#"{"amount": "5"}"#),
        (JSON, r#"{"amount": 5} {}"#),
        (JSON, r#"{"amount": 5, "to": "me"}"#),
        ("text/plain", r#"{"amount": 5}"#),
    ];
    for h2 in [false, true] {
        for (kind, body) in bodies {
            let reply = scene.post(h2, "/transfers", kind, body).await;
            assert_eq!(reply.refusal(), Some("condition_failed"), "h2 {h2}: {body}");
        }
        let reply = scene.post(h2, "/transfers?amount=5000", JSON, r#"{"amount": 5}"#).await;
        assert_eq!(reply.refusal(), Some("condition_failed"), "h2 {h2}: in the query too");
    }
    let encoded = format!(
        "{}Content-Encoding: identity\r\nContent-Length: 13\r\n\r\n{{\"amount\": 5}}",
        scene.head("/transfers", JSON)
    );
    assert!(scene.raw(encoded).await.starts_with("HTTP/1.1 403"));
    let twice = format!(
        "{}Content-Type: text/plain\r\nContent-Length: 13\r\n\r\n{{\"amount\": 5}}",
        scene.head("/transfers", JSON)
    );
    let answer = scene.raw(twice).await;
    assert!(answer.starts_with("HTTP/1.1 40"), "{answer}");
    scene.assert_nothing_sent();
}

#[tokio::test]
async fn a_chunked_body_is_judged_as_a_whole_and_its_trailers_are_not_taken() {
    let scene = Scene::holding("transfer").await;
    let head = format!("{}Transfer-Encoding: chunked\r\n\r\n", scene.head("/transfers", JSON));
    let answer = scene.raw(format!("{head}5\r\n{{\"amo\r\n8\r\nunt\": 5}}\r\n0\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(scene.stage.upstream.only().body, r#"{"amount": 5}"#);
    let answer = scene.raw(format!("{head}5\r\n{{\"amo\r\n8\r\nunt\": 5}}\r\n0\r\nx-more: 1\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("trailers"), "{answer}");
    let answer = scene.raw(format!("{head}5\r\n{{\"amo\r\n9\r\nunt\": 50}}\r\n0\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("small ones"), "{answer}");
    assert_eq!(scene.stage.upstream.seen().len(), 1);
}

/// A body in pieces over HTTP/2, without a length.
async fn post_pieces(scene: &Scene, path: &str, pieces: Vec<Bytes>) -> (StatusCode, String) {
    let io = TokioIo::new(scene.stage.sidecar.agent().tls_tunnel("api.test", "api.test", &[b"h2"]).await.expect("TLS"));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
    tokio::spawn(connection);
    let pieces = pieces.into_iter().map(|piece| Ok::<_, std::convert::Infallible>(Frame::data(piece)));
    let request = http::Request::post(format!("https://api.test{path}"))
        .header("authorization", format!("Bearer {}", scene.nonce))
        .header("content-type", JSON)
        .body(StreamBody::new(futures_util::stream::iter(pieces)))
        .expect("a request");
    let response =
        tokio::time::timeout(PATIENCE, sender.send_request(request)).await.expect("in time").expect("an answer");
    let status = response.status();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn a_large_body_in_pieces_arrives_as_it_was_judged() {
    let scene = Scene::holding("transfer").await;
    let note = "n".repeat(600_000);
    let whole = Bytes::from(format!("{{\"amount\": 5, \"note\": \"{note}\"}}"));
    let pieces = whole.chunks(16_000).map(Bytes::copy_from_slice).collect();
    let (status, text) = post_pieces(&scene, "/transfers", pieces).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    let only = scene.stage.upstream.only();
    assert_eq!(only.body, whole);
    assert_eq!(only.header("content-length"), Some(whole.len().to_string().as_str()));
}

#[tokio::test]
async fn a_body_over_its_size_is_refused() {
    let scene = Scene::holding("refund").await;
    let large = format!("amount=5&charge={}", "x".repeat(2000));
    for h2 in [false, true] {
        let reply = scene.post(h2, "/refunds", FORM, &large).await;
        assert_eq!((reply.status.as_u16(), reply.refusal()), (413, Some("request_too_large")), "h2 {h2}");
    }
    let head = format!("{}Transfer-Encoding: chunked\r\n\r\n", scene.head("/refunds", FORM));
    let answer = scene.raw(format!("{head}{:x}\r\n{large}\r\n0\r\n\r\n", large.len())).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let (status, text) = post_pieces(&scene, "/refunds", vec![Bytes::from(large); 3]).await;
    assert_eq!(status.as_u16(), 413, "{text}");
    scene.assert_nothing_sent();
}

#[tokio::test]
async fn another_scope_without_a_condition_takes_what_the_first_cannot_read() {
    let stage = Stage::of_policy(&policies::bearer_api(RULES)).await;
    let wanted = json!({"agent": "worker", "task": "t", "grants": [{"service": "api", "scopes": ["transfer", "any"]}]});
    let nonce = stage.sidecar.orchestrator().mint_with(wanted).await.nonce;
    let scene = Scene { stage, nonce };
    // What was held before it was too large goes first, and the rest behind it.
    let pieces: Vec<Bytes> = (0..30_u8).map(|number| Bytes::from(vec![number; 50_000])).collect();
    let (status, text) = post_pieces(&scene, "/transfers", pieces.clone()).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    assert_eq!(scene.stage.upstream.only().body, pieces.concat());
    let by = |scope: &'static str| {
        move |record: &serde_json::Value| record["type"] == "decision" && record["scope"] == scope
    };
    scene.stage.sidecar.audited(by("any")).await;
    let reply = scene.post(true, "/transfers", JSON, r#"{"amount": 5}"#).await;
    assert_eq!(reply.status, StatusCode::OK);
    scene.stage.sidecar.audited(by("transfer")).await;
}

#[tokio::test]
async fn a_deny_with_a_condition_denies_what_it_cannot_read() {
    let scene = Scene::holding("any").await;
    for h2 in [false, true] {
        let reply = scene.post(h2, "/orders", JSON, r#"{"country": "FR"}"#).await;
        assert_eq!(reply.status, StatusCode::OK, "h2 {h2}: {}", reply.text());
        for body in [r#"{"country": "XX"}"#, "{}", r#"{"country": "FR", "country": "XX"}"#, "country=FR"] {
            let reply = scene.post(h2, "/orders", JSON, body).await;
            assert_eq!(reply.refusal(), Some("condition_failed"), "h2 {h2}: {body}");
        }
    }
    assert_eq!(scene.stage.upstream.seen().len(), 2);
}

#[tokio::test]
async fn what_the_minter_said_decides() {
    let stage = Stage::of_policy(&policies::bearer_api(RULES)).await;
    let orchestrator = stage.sidecar.orchestrator();
    let wanted = |team: &str| json!({"agent": "worker", "task": "t", "service": "api", "scope": "team", "labels": {"team": team}, "on_behalf_of": "user:ana"});
    let (finance, sales) =
        (orchestrator.mint_with(wanted("finance")).await, orchestrator.mint_with(wanted("sales")).await);
    let agent = stage.sidecar.agent();
    assert_eq!(agent.get("api.test", "/x", &finance.nonce).await.status, StatusCode::OK);
    assert_eq!(agent.get("api.test", "/x", &sales.nonce).await.refusal(), Some("condition_failed"));
}

#[tokio::test]
async fn a_slow_body_is_cut_in_time() {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let stage =
        Stage::of(&policies::bearer_api(RULES), upstream, |builder| builder.flag("--head-timeout").flag("1s")).await;
    let nonce = stage.sidecar.orchestrator().mint("worker", "api", "refund").await.nonce;
    let scene = Scene { stage, nonce };
    let mut stream = scene.stage.sidecar.agent().tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("TLS");
    let head = format!("{}Content-Length: 100\r\n\r\namount=5", scene.head("/refunds", FORM));
    stream.write_all(head.as_bytes()).await.expect("writable");
    let (mut reader, mut writer) = tokio::io::split(stream);
    // Something moves all the time.
    let dripping = tokio::spawn(async move {
        for _ in 0..90 {
            if writer.write_all(b"0").await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let answer = read_answers(&mut reader, 1, PATIENCE).await;
    dripping.abort();
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("request_timeout"), "{answer}");
    scene.assert_nothing_sent();
}

#[tokio::test]
async fn an_agent_that_waits_to_be_asked_for_its_body_is_asked() {
    let scene = Scene::holding("refund").await;
    let mut stream = scene.stage.sidecar.agent().tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("TLS");
    let head = format!("{}Content-Length: 8\r\nExpect: 100-continue\r\n\r\n", scene.head("/refunds", FORM));
    stream.write_all(head.as_bytes()).await.expect("writable");
    let mut asked = [0; 25];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut asked)).await.expect("in time").expect("bytes");
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    scene.assert_nothing_sent();
    stream.write_all(b"amount=5").await.expect("writable");
    let answer = read_answers(&mut stream, 1, PATIENCE).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(scene.stage.upstream.only().body, "amount=5");
    // One that is too large anyhow is not asked for.
    let head = format!("{}Content-Length: 80000\r\nExpect: 100-continue\r\n\r\n", scene.head("/refunds", FORM));
    assert!(scene.raw(head).await.starts_with("HTTP/1.1 413"));
}

#[tokio::test]
async fn a_body_that_breaks_off_reaches_nobody() {
    let scene = Scene::holding("refund").await;
    let mut stream = scene.stage.sidecar.agent().tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("TLS");
    let head = format!("{}Content-Length: 80\r\n\r\namount=5", scene.head("/refunds", FORM));
    stream.write_all(head.as_bytes()).await.expect("writable");
    drop(stream);
    let over = scene.stage.sidecar.audited(|record| record["type"] == "end" && record["service"] == "api").await;
    assert_ne!(over["decision"], "allow", "{over}");
    scene.assert_nothing_sent();
}
