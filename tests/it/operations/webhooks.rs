//! What others are told of while it happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use valetkey::control::client::Client;

use crate::support::agent::with;
use crate::support::orchestrator::{Minted, post};
use crate::support::policies::ONE_API;
use crate::support::sidecar::eventually;
use crate::support::upstream::Seen;
use crate::support::{FakeUpstream, Stage, TestSidecar, canary};

const KEY: [u8; 32] = [7; 32];

fn policy(on: &str) -> String {
    let hook =
        "[webhooks.soc]\nurl = \"https://hooks.test/told?x=1\"\nsecret = \"{dir}/whsec\"\nca = \"{dir}/hooks.pem\"";
    format!("{ONE_API}\n{hook}\non = {on}\n")
}

/// A sidecar that tells this receiver.
async fn telling(on: &str, receiver: &FakeUpstream) -> Stage {
    let secret = format!("whsec_{}\n", STANDARD.encode(KEY));
    Stage::of(&policy(on), FakeUpstream::start(&["api.test"]).await, |builder| {
        builder.upstream(&["hooks.test"], "hooks", receiver).file("whsec", &secret)
    })
    .await
}

/// The body of a message, whose signature is right.
fn believed(message: &Seen) -> Value {
    let header = |name| message.header(name).expect("a field of the standard");
    let body = std::str::from_utf8(&message.body).expect("text");
    let signed = format!("{}.{}.{body}", header("webhook-id"), header("webhook-timestamp"));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &KEY);
    let tag = STANDARD.decode(header("webhook-signature").strip_prefix("v1,").expect("version 1")).expect("base64");
    ring::hmac::verify(&key, signed.as_bytes(), &tag).expect("signed by the secret");
    assert_eq!((message.method.as_str(), message.target.as_str()), ("POST", "/told?x=1"));
    assert_eq!(header("content-type"), "application/json");
    serde_json::from_str(body).expect("JSON")
}

async fn first(receiver: &FakeUpstream) -> Seen {
    eventually("a message", || receiver.seen().into_iter().next()).await
}

#[tokio::test]
async fn a_revocation_is_told_and_signed() {
    let receiver = FakeUpstream::start_with(&["hooks.test"], &[b"http/1.1"]).await;
    let stage = telling("[\"revoked\"]", &receiver).await;
    let orchestrator = stage.sidecar.orchestrator();
    let minted = orchestrator.mint("worker", "api", "read").await;
    assert_eq!(stage.sidecar.agent().get("api.test", "/x", &minted.nonce).await.status, 200);
    orchestrator.revoke(&minted.id).await;
    let message = first(&receiver).await;
    let body = believed(&message);
    assert_eq!(body["type"], "nonce.revoked");
    assert_eq!((&body["data"]["nonce.id"], &body["data"]["agent"]), (&Value::from(minted.id), &Value::from("worker")));
    assert!(!String::from_utf8_lossy(&message.body).contains(&minted.nonce));
    assert_eq!(receiver.seen().len(), 1, "and nothing else that happened");
    stage.assert_silent(&[&minted.nonce]);
    assert!(!stage.sidecar.log().contains(&STANDARD.encode(KEY)), "its secret is in no log");
}

#[tokio::test]
async fn followers_of_the_audit_keep_no_webhook_from_being_told() {
    let receiver = FakeUpstream::start_with(&["hooks.test"], &[b"http/1.1"]).await;
    let stage = telling("[\"revoked\"]", &receiver).await;
    let (path, client) = (stage.sidecar.path("policy.toml"), Client::new(&stage.sidecar.control()));
    let with_webhook = std::fs::read_to_string(&path).expect("the policy");
    let (without, _) = with_webhook.split_once("[webhooks").expect("a webhook");
    let adopt = async |text: &str, times: usize| {
        std::fs::write(&path, text).expect("our directory");
        let adopted = || stage.sidecar.audit_text().matches("\"outcome\":\"adopted\"").count();
        eventually("another policy", || (adopted() == times).then_some(())).await;
    };
    adopt(without, 1).await;
    let mut followers = Vec::new();
    while let Ok(follower) = client.events(None, None).await {
        followers.push(follower);
    }
    assert_eq!(followers.len(), 16);
    adopt(&with_webhook, 2).await;
    let orchestrator = stage.sidecar.orchestrator();
    let minted = orchestrator.mint("worker", "api", "read").await;
    orchestrator.revoke(&minted.id).await;
    assert_eq!(believed(&first(&receiver).await)["data"]["nonce.id"], minted.id.as_str());
}

/// A message of one leak, whose nonce this is.
async fn is_told_of_leak(receiver: &FakeUpstream, leaked: &Minted, told: [&str; 3]) {
    let message = first(receiver).await;
    let body = believed(&message);
    assert_eq!(body["type"], "nonce.leaked");
    let sent: i64 = message.header("webhook-timestamp").and_then(|seconds| seconds.parse().ok()).expect("seconds");
    assert!((jiff::Timestamp::now().as_second() - sent).abs() < 60, "{sent}");
    let (data, [kind, key, value]) = (&body["data"], told);
    assert_eq!((&data["nonce.id"], &data["agent"]), (&leaked.id.as_str().into(), &"worker".into()), "{data:#}");
    assert_eq!((&data["type"], &data[key]), (&kind.into(), &value.into()), "{data:#}");
    assert!(!String::from_utf8_lossy(&message.body).contains(&leaked.nonce));
    assert_eq!(receiver.seen().len(), 1, "and nothing else that happened");
}

#[tokio::test]
async fn a_reported_leak_is_told_and_signed() {
    let receiver = FakeUpstream::start_with(&["hooks.test"], &[b"http/1.1"]).await;
    let stage = telling("[\"leaked\"]", &receiver).await;
    let orchestrator = stage.sidecar.orchestrator();
    let leaked = orchestrator.mint("worker", "api", "read").await;
    let report = json!({"text": format!("KEY={}", leaked.nonce), "source": "ci log 7"}).to_string();
    let (status, _) = orchestrator.send(post("/v1/leaks", "application/json", &report)).await;
    assert_eq!(status, 202);
    is_told_of_leak(&receiver, &leaked, ["leak", "alarm", "high"]).await;
}

#[tokio::test]
async fn a_leak_that_the_scan_finds_is_told_and_signed() {
    let receiver = FakeUpstream::start_with(&["hooks.test"], &[b"http/1.1"]).await;
    let stage = telling("[\"leaked\"]", &receiver).await;
    let leaked = stage.sidecar.orchestrator().mint("worker", "api", "read").await;
    let (bearer, text) = (format!("Bearer {}", stage.writer().await), format!("KEY={}", leaked.nonce));
    let spill = with("POST", "api.test", "/x", &[("authorization", &bearer)], &text);
    assert_eq!(stage.sidecar.agent().send(spill).await.status, 200);
    is_told_of_leak(&receiver, &leaked, ["alarm", "kind", "nonce_in_body"]).await;
}

/// Only the way by `--connect-to` is not judged; here the receiver's name itself has a private address.
#[tokio::test]
async fn a_webhook_at_a_private_address_is_dialled_only_where_the_policy_says_so() {
    for is_private in [false, true] {
        let receiver = FakeUpstream::start_with(&["localhost"], &[b"http/1.1"]).await;
        let port = receiver.address.port();
        let hook = policy(&format!("[\"revoked\"]\nprivate = {is_private}"));
        let hook = hook.replace("hooks.test", &format!("localhost:{port}"));
        let secret = format!("whsec_{}\n", STANDARD.encode(KEY));
        let stage = Stage::of(&hook, FakeUpstream::start(&["api.test"]).await, |builder| {
            builder.file("whsec", &secret).file("hooks.pem", &receiver.authority.pem)
        })
        .await;
        let orchestrator = stage.sidecar.orchestrator();
        let minted = orchestrator.mint("worker", "api", "read").await;
        orchestrator.revoke(&minted.id).await;
        if is_private {
            assert_eq!(believed(&first(&receiver).await)["data"]["nonce.id"], minted.id.as_str());
        } else {
            let failed = "valetkey_webhook_attempts_total{webhook=\"soc\",outcome=\"failed\"} 2";
            let has_failed = || metrics_now(stage.sidecar.admin).contains(failed).then_some(());
            eventually("two attempts", has_failed).await;
            assert_eq!(receiver.connections(), 0, "nobody was dialled");
        }
    }
}

#[tokio::test]
async fn misuse_and_bursts_are_told() {
    let receiver = FakeUpstream::start_with(&["hooks.test"], &[b"http/1.1"]).await;
    let stage = telling("[\"misused\", \"denials\"]", &receiver).await;
    let reader = stage.reader().await;
    let agent = stage.sidecar.agent();
    let mut tunnel = agent.tunnel("api.test").await;
    for _ in 0..25 {
        let fields = [("authorization", format!("Bearer {reader}"))];
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let refused = tunnel.send(with("POST", "api.test", "/x", &fields, "")).await;
        assert_eq!(refused.refusal(), Some("out_of_scope"));
    }
    let burst = believed(&first(&receiver).await);
    assert_eq!((&burst["type"], &burst["data"]["agent"]), (&"agent.denials".into(), &"worker".into()));
    assert_eq!((&burst["data"]["refusals"], &burst["data"]["last_code"]), (&20.into(), &"out_of_scope".into()));
    assert_eq!(agent.get("other.test", "/x", &reader).await.refusal(), Some("nonce_misplaced"));
    let misused = eventually("the misuse", || receiver.seen().into_iter().nth(1)).await;
    assert_eq!(believed(&misused)["type"], "nonce.misused");
}

#[tokio::test]
async fn what_is_not_taken_is_told_again_with_the_same_id() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let (counted, ids) = (attempts.clone(), Arc::new(std::sync::Mutex::new(Vec::new())));
    let noted = ids.clone();
    let receiver = FakeUpstream::raw(&["hooks.test"], move |head| {
        let id = head.lines().find_map(|line| line.strip_prefix("webhook-id: ")).unwrap_or_default();
        noted.lock().expect("not poisoned").push(id.to_owned());
        match counted.fetch_add(1, Ordering::SeqCst) {
            // Redirects are not followed.
            0 => {
                b"HTTP/1.1 307 Temporary Redirect\r\nlocation: https://api.test/\r\ncontent-length: 0\r\n\r\n".to_vec()
            }
            _ => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        }
    })
    .await;
    let stage = telling("[\"revoked\"]", &receiver).await;
    let orchestrator = stage.sidecar.orchestrator();
    orchestrator.revoke(&orchestrator.mint("worker", "api", "read").await.id).await;
    eventually("a second attempt", || (attempts.load(Ordering::SeqCst) == 2).then_some(())).await;
    let ids = ids.lock().expect("not poisoned").clone();
    assert!(ids[0].starts_with("msg_") && ids[0] == ids[1], "{ids:?}");
    assert!(stage.upstream.seen().is_empty(), "the redirect led nowhere");
    let metrics = String::from_utf8(stage.sidecar.admin_get("/metrics").await.body).expect("text");
    assert!(metrics.contains("valetkey_webhook_attempts_total{webhook=\"soc\",outcome=\"failed\"} 1"), "{metrics}");
}

/// A receiver that takes what is told of revocations, and of nothing else.
async fn choosy() -> FakeUpstream {
    FakeUpstream::speaking_freely(&["hooks.test"], |head, mut stream| async move {
        let mut text = head;
        let mut piece = [0; 4096];
        while !text.contains("\"type\":\"nonce.") {
            match stream.read(&mut piece).await {
                Ok(count) if count > 0 => text.push_str(&String::from_utf8_lossy(&piece[..count])),
                Ok(_) | Err(_) => return,
            }
        }
        let status = if text.contains("nonce.revoked") { "204 No Content" } else { "503 Service Unavailable" };
        let _ = stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await;
    })
    .await
}

#[tokio::test]
async fn many_messages_of_one_topic_keep_none_of_another_away() {
    let receiver = choosy().await;
    let stage = telling("[\"leaked\", \"revoked\"]", &receiver).await;
    let (orchestrator, writer) = (stage.sidecar.orchestrator(), stage.writer().await);
    // Each nonce in a body is an alarm of its own, of 16 in one request.
    let mut spilled = Vec::new();
    for _ in 0..16 {
        spilled.push(orchestrator.mint("worker", "api", "read").await);
    }
    let body = spilled.iter().map(|minted| minted.nonce.as_str()).collect::<Vec<_>>().join(" ");
    let bearer = format!("Bearer {writer}");
    let mut tunnel = stage.sidecar.agent().tunnel("api.test").await;
    for _ in 0..40 {
        let spill = with("POST", "api.test", "/x", &[("authorization", &bearer)], &body);
        assert_eq!(tunnel.send(spill).await.status, 200);
    }
    let lost = |record: &Value| record["type"] == "webhook_lost" && record["event"] == "nonce.leaked";
    assert_eq!(stage.sidecar.audited(lost).await["attempts"], 0, "there is no room left for more of these");
    orchestrator.revoke(&spilled[0].id).await;
    let is_told =
        || metrics_now(stage.sidecar.admin).contains("webhook=\"soc\",outcome=\"delivered\"} 1").then_some(());
    eventually("the revocation is told", is_told).await;
}

#[tokio::test]
async fn who_wants_nothing_more_gets_nothing_and_it_is_on_record() {
    let gone = |_: &str| b"HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n".to_vec();
    let receiver = FakeUpstream::raw(&["hooks.test"], gone).await;
    let stage = telling("[\"revoked\"]", &receiver).await;
    let orchestrator = stage.sidecar.orchestrator();
    orchestrator.revoke(&orchestrator.mint("worker", "api", "read").await.id).await;
    let record = stage.sidecar.audited(|record| record["type"] == "webhook_lost").await;
    assert_eq!((&record["webhook"], &record["event"]), (&"soc".into(), &"nonce.revoked".into()));
    assert_eq!(record["attempts"], 1);
}

#[tokio::test]
async fn one_that_a_reload_takes_away_is_told_of_nothing_that_waits() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = attempts.clone();
    let receiver = FakeUpstream::raw(&["hooks.test"], move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 6\r\ncontent-length: 0\r\n\r\n".to_vec()
    })
    .await;
    let stage = telling("[\"revoked\"]", &receiver).await;
    let orchestrator = stage.sidecar.orchestrator();
    orchestrator.revoke(&orchestrator.mint("worker", "api", "read").await.id).await;
    let has_failed = || metrics_now(stage.sidecar.admin).contains("outcome=\"failed\"} 1").then_some(());
    eventually("a first attempt", has_failed).await;
    let path = stage.sidecar.path("policy.toml");
    let text = std::fs::read_to_string(&path).expect("the policy");
    // A reload that keeps the webhook keeps what waits for it within reach of the next.
    std::fs::write(&path, format!("{text}\n# again\n")).expect("our directory");
    stage.sidecar.audited(|record| record["type"] == "policy").await;
    let without = text.split("[webhooks.soc]").next().expect("what is before").to_owned();
    std::fs::write(&path, without).expect("our directory");
    let record = stage.sidecar.audited(|record| record["type"] == "webhook_lost").await;
    assert_eq!((&record["webhook"], &record["attempts"]), (&"soc".into(), &1.into()));
    tokio::time::sleep(std::time::Duration::from_secs(8)).await;
    assert_eq!(attempts.load(Ordering::SeqCst), 1, "the second was due after six seconds");
}

#[tokio::test]
async fn a_webhook_that_cannot_be_signed_ends_the_start() {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let started = |secret: &str| {
        TestSidecar::with_policy(&policy("[\"revoked\"]"))
            .environment("API_KEY", &canary())
            .upstream(&["api.test"], "api", &upstream)
            .file("whsec", secret)
            .file("hooks.pem", "")
            .fails()
    };
    for secret in ["", "whsec_short", "no secret at all, but a long enough text of words"] {
        let (code, said) = started(secret);
        assert_eq!(code, Some(3), "{said}");
        assert!(said.contains("webhook soc") && said.contains("openssl rand"), "{said}");
        assert!(secret.is_empty() || !said.contains(secret), "{said}");
    }
    for (from, to) in [("https://", "http://"), ("[\"revoked\"]", "[]"), ("hooks.test/", "user:pw@hooks.test/")] {
        let policy = policy("[\"revoked\"]").replace(from, to);
        let (code, said) = TestSidecar::with_policy(&policy).environment("API_KEY", &canary()).fails();
        assert_eq!(code, Some(3), "{said}");
        assert!(said.contains("webhooks.soc") && !said.contains("user:pw"), "{said}");
    }
}

/// The metrics, without the runtime of the test.
fn metrics_now(admin: std::net::SocketAddr) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(admin).expect("the admin listener");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("writable");
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    text
}
