//! What the end of a lease does to what is under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::support::agent::{PATIENCE, Tunnel, breaks, get, read, with};
use crate::support::orchestrator::Minted;
use crate::support::sidecar::eventually;
use crate::support::{FakeUpstream, Stage};

async fn mint(stage: &Stage, extra: serde_json::Value) -> Minted {
    let mut body = json!({"agent": "worker", "task": "t", "service": "api", "scope": "read"});
    body.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
    stage.sidecar.orchestrator().mint_with(body).await
}

#[tokio::test]
async fn a_revoke_cuts_an_answer_that_nobody_reads_just_now() {
    for h2 in [false, true] {
        let stage = Stage::new().await;
        let minted = mint(&stage, json!({})).await;
        let agent = stage.sidecar.agent();
        let mut tunnel = if h2 { agent.tunnel_h2("api.test").await } else { agent.tunnel("api.test").await };
        let response = tunnel.start(get("api.test", "/large?pieces=800", &minted.nonce)).await;
        // So much is on its way that the sidecar can write no more.
        tokio::time::sleep(Duration::from_millis(300)).await;
        stage.sidecar.orchestrator().revoke(&minted.id).await;
        let cut = stage.sidecar.audited(|record| record["type"] == "end").await;
        assert_eq!(cut["ending"], "cut", "h2 {h2}: {cut:#}");
        assert!(breaks(response).await, "h2 {h2}: a cut answer is never a whole one");
    }
}

/// By the audit's own times, for twenty nonces that are revoked one after the other: three quarters of them, since others
/// use the machine, too.
#[tokio::test]
async fn answers_that_nobody_reads_are_cut_within_a_tenth_of_a_second() {
    for h2 in [false, true] {
        let stage = Stage::new().await;
        let agent = stage.sidecar.agent();
        let mut unread = Vec::new();
        for _ in 0..20 {
            let minted = mint(&stage, json!({})).await;
            let mut tunnel = if h2 { agent.tunnel_h2("api.test").await } else { agent.tunnel("api.test").await };
            let response = tunnel.start(get("api.test", "/large?pieces=800", &minted.nonce)).await;
            unread.push((minted.id, tunnel, response));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut took = Vec::new();
        for (id, _, _) in &unread {
            stage.sidecar.orchestrator().revoke(id).await;
            let of = |kind: &'static str| {
                move |record: &serde_json::Value| record["type"] == kind && record["nonce.id"] == id.as_str()
            };
            let [over, cut] = [stage.sidecar.audited(of("lease_end")).await, stage.sidecar.audited(of("end")).await]
                .map(|record| record["time"].as_str().and_then(|time| time.parse().ok()).expect("a time"));
            took.push(jiff::Timestamp::duration_until(over, cut));
        }
        took.sort_unstable();
        assert!(took[14] < jiff::SignedDuration::from_millis(100), "h2 {h2}: {took:?}");
    }
}

/// More than all the sockets on the way hold.
const UPLOAD_BYTES: usize = 64 << 20;
/// More than a stream has room for.
const STREAM_BYTES: usize = 2 << 20;

/// True if the upload ended without a whole answer of the upstream's.
async fn is_cut_short(mut tunnel: Tunnel, nonce: String, length: usize) -> bool {
    let (bearer, body) = (format!("Bearer {nonce}"), "x".repeat(length));
    let request = with("POST", "api.test", "/x", &[("authorization", &bearer)], &body);
    match tunnel.try_start(request).await {
        Ok(response) => response.headers().contains_key("valetkey-error") || breaks(response).await,
        Err(_broken) => true,
    }
}

/// The upstream takes the head and reads no more, so that the body comes to rest on its way; it may have begun to answer.
#[tokio::test]
async fn a_revoke_cuts_an_upload_that_nobody_reads() {
    for (h2, answer) in [(false, ""), (false, BEGUN), (true, ""), (true, BEGUN)] {
        let (resume, told) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
        let (resumes, arrived) = (resume.clone(), told.clone());
        let upstream = FakeUpstream::speaking_freely(&["api.test"], move |_, mut wire| {
            let (resume, arrived) = (resumes.clone(), arrived.clone());
            async move {
                wire.write_all(answer.as_bytes()).await.expect("writable");
                wire.flush().await.expect("writable");
                resume.notified().await;
                let mut piece = vec![0; 1 << 16];
                while let Ok(read @ 1..) = wire.read(&mut piece).await {
                    arrived.fetch_add(read, Ordering::SeqCst);
                }
                resume.notify_one();
            }
        });
        let stage = Stage::with(upstream.await, |builder| builder).await;
        let minted = stage.sidecar.orchestrator().mint("worker", "api", "write").await;
        let agent = stage.sidecar.agent();
        let tunnel = if h2 { agent.tunnel_h2("api.test").await } else { agent.tunnel("api.test").await };
        let sending = tokio::spawn(is_cut_short(tunnel, minted.nonce, UPLOAD_BYTES));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(!sending.is_finished(), "it should have come to a standstill");
        stage.sidecar.orchestrator().revoke(&minted.id).await;
        let cut = stage.sidecar.audited(|record| record["type"] == "end").await;
        assert!(sending.await.expect("an end"), "h2 {h2}, {answer:?}: the agent hears of it");
        resume.notify_one();
        // Told once the connection from the sidecar has ended.
        tokio::time::timeout(PATIENCE, resume.notified()).await.expect("upstream hears of it");
        assert!(told.load(Ordering::SeqCst) < UPLOAD_BYTES, "h2 {h2}, {answer:?}: {cut:#}");
    }
}

/// The head of an answer, and the first of its body.
const BEGUN: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n";

/// An upstream over HTTP/2 that gives bodies no more room, whether it has begun to answer or not; when each body ended.
async fn roomless(is_answering: bool) -> (FakeUpstream, UnboundedReceiver<jiff::Timestamp>) {
    let (ends, ended) = unbounded_channel();
    let upstream = FakeUpstream::played(&["api.test"], b"h2", move |stream, _| {
        let ends = ends.clone();
        async move {
            let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let ends = ends.clone();
                tokio::spawn(async move {
                    let _answer = is_answering.then(|| respond.send_response(http::Response::default(), false));
                    let mut body = request.into_body();
                    while let Some(Ok(_)) = body.data().await {} // its room is not given back
                    let _ = ends.send(jiff::Timestamp::now());
                });
            }
        }
    });
    (upstream.await, ended)
}

/// From the record of the revocation until the upstream's stream ends; three quarters of eight, as above.
#[tokio::test]
async fn an_upload_without_room_is_cut_within_a_tenth_of_a_second() {
    for (h2, is_answering) in [(false, false), (false, true), (true, false), (true, true)] {
        let (upstream, mut ended) = roomless(is_answering).await;
        let stage = Stage::with(upstream, |builder| builder).await;
        let agent = stage.sidecar.agent();
        let mut stuck = Vec::new();
        for _ in 0..8 {
            let minted = stage.sidecar.orchestrator().mint("worker", "api", "write").await;
            let tunnel = if h2 { agent.tunnel_h2("api.test").await } else { agent.tunnel("api.test").await };
            stuck.push((minted.id, tokio::spawn(is_cut_short(tunnel, minted.nonce, STREAM_BYTES))));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut took = Vec::new();
        for (id, sending) in stuck {
            assert!(!sending.is_finished() && ended.is_empty(), "it should have come to a standstill");
            stage.sidecar.orchestrator().revoke(&id).await;
            let what = format!("h2 {h2}, answering {is_answering}");
            let end = tokio::time::timeout(PATIENCE, ended.recv()).await;
            let end = end.unwrap_or_else(|_| panic!("{what}: upstream hears of it")).expect("a time");
            let over = |record: &serde_json::Value| record["type"] == "lease_end" && record["nonce.id"] == id.as_str();
            let over = stage.sidecar.audited(over).await;
            let over: jiff::Timestamp = over["time"].as_str().and_then(|time| time.parse().ok()).expect("a time");
            took.push(over.duration_until(end));
            assert!(sending.await.expect("an end"), "{what}: the agent hears of it");
        }
        took.sort_unstable();
        assert!(took[5] < jiff::SignedDuration::from_millis(100), "h2 {h2}, answering {is_answering}: {took:?}");
    }
}

#[tokio::test]
async fn a_revoke_ends_the_wait_for_an_answer() {
    for h2 in [false, true] {
        let stage = Stage::new().await;
        let minted = mint(&stage, json!({})).await;
        let agent = stage.sidecar.agent();
        let mut tunnel = if h2 { agent.tunnel_h2("api.test").await } else { agent.tunnel("api.test").await };
        let waiting = tokio::spawn(async move { tunnel.send(get("api.test", "/stall", &minted.nonce)).await });
        eventually("the request to arrive", || (!stage.upstream.seen().is_empty()).then_some(())).await;
        stage.sidecar.orchestrator().revoke(&minted.id).await;
        let reply = waiting.await.expect("a reply");
        assert_eq!((reply.status.as_u16(), reply.refusal()), (401, Some("nonce_revoked")), "h2 {h2}");
    }
}

#[tokio::test]
async fn an_answer_under_way_outlives_its_time_and_its_last_use() {
    let stage = Stage::new().await;
    let short = mint(&stage, json!({"ttl": "1s"})).await;
    let mut tunnel = stage.sidecar.agent().tunnel("api.test").await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let response = tunnel.start(get("api.test", "/sse", &short.nonce)).await;
    let expired = |record: &serde_json::Value| record["type"] == "lease_end" && record["cause"] == "expired";
    stage.sidecar.audited(expired).await;
    assert_eq!(read(response).await.expect("whole").text().matches("data:").count(), 5);
    let once = mint(&stage, json!({"max_uses": 1})).await;
    let response = tunnel.start(get("api.test", "/sse", &once.nonce)).await;
    let other = stage.sidecar.agent().get("api.test", "/x", &once.nonce).await;
    assert_eq!(other.refusal(), Some("nonce_spent"));
    assert_eq!(read(response).await.expect("whole").text().matches("data:").count(), 5);
}

#[tokio::test]
async fn expiry_is_on_record_without_anybody_asking() {
    let stage = Stage::new().await;
    let ids: Vec<String> = {
        let mut ids = Vec::new();
        for ttl in ["1s", "1s", "2s"] {
            ids.push(mint(&stage, json!({"ttl": ttl})).await.id);
        }
        ids
    };
    for id in &ids {
        let ended = |record: &serde_json::Value| record["type"] == "lease_end" && record["nonce.id"] == id.as_str();
        let end = stage.sidecar.audited(ended).await;
        assert_eq!(end["cause"], "expired");
    }
    let metrics = stage.sidecar.admin_get("/metrics").await.text();
    assert!(metrics.contains("valetkey_nonces_live 0\n"), "{metrics}");
    assert!(metrics.contains("valetkey_nonces_ended_total{cause=\"expired\"} 3"), "{metrics}");
}

#[tokio::test]
async fn a_use_counts_once_however_the_request_ends() {
    let stage = Stage::new().await;
    let minted = mint(&stage, json!({"max_uses": 3})).await;
    let agent = stage.sidecar.agent();
    let left = async || {
        let (_, lease) = stage.sidecar.orchestrator().call("GET", &format!("/v1/nonces/{}", minted.id), None).await;
        lease["uses_left"].clone()
    };
    // Refused: none. Broken off by the upstream: one. Left by the client: one.
    let bearer = format!("Bearer {}", minted.nonce);
    agent.send(with("POST", "api.test", "/x", &[("authorization", &bearer)], "")).await;
    assert_eq!(left().await, 3);
    let mut tunnel = agent.tunnel("api.test").await;
    let broken = tunnel.start(get("api.test", "/break", &minted.nonce)).await;
    assert!(read(broken).await.is_err());
    assert_eq!(left().await, 2);
    let mut tunnel = agent.tunnel("api.test").await;
    let sending = tunnel.try_start(get("api.test", "/stall", &minted.nonce));
    assert!(tokio::time::timeout(Duration::from_millis(300), sending).await.is_err());
    drop(tunnel);
    stage.sidecar.audited(|record| record["type"] == "end" && record["ending"] == "client_gone").await;
    assert_eq!(left().await, 1);
}
