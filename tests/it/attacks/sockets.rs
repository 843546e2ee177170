//! WebSockets that say too much, or go on for too long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::outcome;
use crate::support::agent::{PATIENCE, breaks, get};
use crate::support::websocket::{BINARY, CLOSE, Socket, TEXT, ask, frame, open, upstream, yes};
use crate::support::{FakeUpstream, Stage, policies};

/// The usual API; its scope `read` opens sockets too.
fn policy() -> String {
    policies::ONE_API.replace("\"GET /{*path}\"", "\"GET /{*path}\", \"WEBSOCKET /{*path}\"")
}

async fn over(upstream: FakeUpstream) -> Stage {
    Stage::of(&policy(), upstream, |builder| builder).await
}

#[tokio::test]
async fn a_subprotocol_brings_no_credential_along() {
    let stage = over(upstream().await.0).await;
    let nonce = stage.reader().await;
    let hidden = STANDARD.encode(&nonce).replace('=', "");
    let protocols = [
        format!("base64url.bearer.authorization.k8s.io.{hidden}"),
        "chat,BASE64URL.Bearer.authorization.k8s.io.bWluZQ".to_owned(),
        "realtime, openai-insecure-api-key.mine".to_owned(),
        "realtime\r\nSec-WebSocket-Protocol: openai-insecure-api-key.mine".to_owned(),
        "bearer.mine".to_owned(),
        "header-bWluZQ, aws-appsync-event-ws".to_owned(),
    ];
    for protocol in protocols {
        let fields = format!("Sec-WebSocket-Protocol: {protocol}\r\n");
        let (answer, _) = ask(&stage.sidecar.agent(), "/echo", &nonce, &fields).await;
        assert_eq!(outcome(&answer), (403, Some("foreign_credential")), "{protocol}: {answer}");
    }
    let (answer, _) =
        ask(&stage.sidecar.agent(), "/echo", &nonce, &format!("Sec-WebSocket-Protocol: {nonce}\r\n")).await;
    assert_eq!(outcome(&answer), (403, Some("nonce_misplaced")), "{answer}");
    assert!(stage.upstream.seen().is_empty(), "nothing arrived");
}

#[tokio::test]
async fn no_other_spelling_of_a_handshakes_field_arrives() {
    let stage = over(upstream().await.0).await;
    let fields = "Sec_WebSocket_Extensions: permessage-deflate\r\nSec_WebSocket-Key: x\r\n\
                  Sec_WebSocket_Protocol: openai-insecure-api-key.mine\r\nSec-WebSocket_Version: 8\r\n";
    let (answer, _) = ask(&stage.sidecar.agent(), "/echo", &stage.reader().await, fields).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    let seen = stage.upstream.only();
    assert!(seen.headers.keys().all(|name| !name.as_str().contains('_')), "{seen:#?}");
}

#[tokio::test]
async fn a_close_frame_hides_nothing_in_its_status() {
    let upstream = FakeUpstream::speaking_freely(&["api.test"], |head, mut wire| async move {
        let value = crate::support::websocket::field(&head, "authorization").unwrap_or_default();
        let secret = value.trim_start_matches("Bearer ").to_owned();
        let bytes = [yes(&head, "").into_bytes(), frame(false, true, CLOSE, secret.as_bytes())].concat();
        let _ = tokio::io::AsyncWriteExt::write_all(&mut wire, &bytes).await;
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut wire).await;
    });
    let stage = over(upstream.await).await;
    let mut socket = open(&stage.sidecar.agent(), "/x", &stage.reader().await).await;
    let all = socket.rest().await;
    assert_eq!(all.len(), 2 + stage.secret.len());
    stage.assert_clean(&all, "a close frame");
}

#[tokio::test]
async fn revoking_a_spent_nonce_cuts_what_it_still_does() {
    let stage = over(upstream().await.0).await;
    let orchestrator = stage.sidecar.orchestrator();
    let once = || {
        let terms = json!({"agent": "worker", "task": "t", "service": "api", "scope": "read", "max_uses": 1});
        orchestrator.mint_with(terms)
    };
    let minted = once().await;
    let mut socket = open(&stage.sidecar.agent(), "/echo", &minted.nonce).await;
    socket.say(TEXT, b"hello").await;
    assert_eq!(socket.hear().await, Some((TEXT, b"hello".to_vec())));
    orchestrator.revoke(&minted.id).await;
    assert_eq!(socket.hear().await, None, "the socket is cut");

    let stage = Stage::new().await;
    let orchestrator = stage.sidecar.orchestrator();
    let terms = json!({"agent": "worker", "task": "t", "service": "api", "scope": "read", "max_uses": 1});
    let minted = orchestrator.mint_with(terms).await;
    let mut tunnel = stage.sidecar.agent().tunnel("api.test").await;
    let response = tunnel.start(get("api.test", "/endless", &minted.nonce)).await;
    orchestrator.revoke(&minted.id).await;
    assert!(breaks(response).await, "the answer is cut");
    assert_eq!(tunnel_reply(&stage, &minted.nonce).await, Some("nonce_spent".to_owned()));
}

async fn tunnel_reply(stage: &Stage, nonce: &str) -> Option<String> {
    let reply = stage.sidecar.agent().get("api.test", "/x", nonce).await;
    reply.refusal().map(str::to_owned)
}

/// Sockets that one nonce has open, each busy in both directions.
const BUSY: usize = 6;

/// What both sides say once they could know that it is over.
const LATE: u8 = 1;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_that_is_said_after_a_revoke_arrives() {
    let (is_over, late) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (told, heard) = (is_over.clone(), late.clone());
    let upstream = FakeUpstream::speaking_freely(&["api.test"], move |head, mut wire| {
        let (told, heard) = (told.clone(), heard.clone());
        async move {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut wire, yes(&head, "").as_bytes()).await;
            let (read, write) = tokio::io::split(wire);
            tokio::join!(listen(tokio::io::join(read, tokio::io::sink()), false, &heard), chatter(write, false, &told));
        }
    });
    let stage = over(upstream.await).await;
    let minted = stage.sidecar.orchestrator().mint("worker", "api", "read").await;
    let mut talking = tokio::task::JoinSet::new();
    for _ in 0..BUSY {
        let (read, write) = tokio::io::split(open(&stage.sidecar.agent(), "/x", &minted.nonce).await.wire);
        let (told, heard) = (is_over.clone(), late.clone());
        talking.spawn(async move {
            tokio::join!(listen(tokio::io::join(read, tokio::io::sink()), true, &heard), chatter(write, true, &told));
        });
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    stage.sidecar.orchestrator().revoke(&minted.id).await;
    is_over.store(true, Ordering::SeqCst);
    let ended = async { while talking.join_next().await.is_some() {} };
    tokio::time::timeout(PATIENCE, ended).await.expect("all are cut");
    assert_eq!(late.load(Ordering::SeqCst), 0, "sockets that told more");
}

/// Says without a pause whether it is over.
async fn chatter(write: impl tokio::io::AsyncWrite + Send + Unpin + 'static, is_client: bool, told: &AtomicBool) {
    let mut write = write;
    loop {
        let payload = [u8::from(told.load(Ordering::SeqCst)); 60];
        let bytes = frame(is_client, true, BINARY, &payload);
        if tokio::io::AsyncWriteExt::write_all(&mut write, &bytes).await.is_err() {
            return;
        }
    }
}

/// Counts a socket on which something late is heard.
async fn listen(wire: impl crate::support::websocket::Wire + 'static, is_client: bool, heard: &AtomicUsize) {
    let mut socket = if is_client { Socket::client(wire) } else { Socket::server(Box::new(wire)) };
    while let Some((_, _, payload)) = socket.frame().await {
        if payload.first() == Some(&LATE) {
            heard.fetch_add(1, Ordering::SeqCst);
            return;
        }
    }
}
