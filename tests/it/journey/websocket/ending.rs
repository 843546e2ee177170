//! When a socket ends, and what is on record of it.

use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::{closed, has, nonce, stage};
use crate::support::websocket::{BINARY, CLOSE, TEXT, open};

#[tokio::test]
async fn a_revoked_nonce_cuts_its_sockets() {
    let (stage, sockets) = stage().await;
    let orchestrator = stage.sidecar.orchestrator();
    let minted = orchestrator.mint("worker", "api", "socket").await;
    let mut socket = open(&stage.sidecar.agent(), "/echo", &minted.nonce).await;
    socket.say(TEXT, b"hello").await;
    assert_eq!(socket.hear().await, Some((TEXT, b"hello".to_vec())));
    orchestrator.revoke(&minted.id).await;
    assert_eq!(socket.hear().await, None);
    has(&sockets, 0).await;
    let record = closed(&stage).await;
    assert_eq!(record["ending"], "cut", "{record:#}");
}

#[tokio::test]
async fn a_revoked_nonce_cuts_sockets_that_nobody_reads() {
    let (stage, sockets) = stage().await;
    let orchestrator = stage.sidecar.orchestrator();
    let minted = orchestrator.mint("worker", "api", "socket").await;
    let agent = stage.sidecar.agent();
    // The one says all that it can and reads nothing, the other is told all that there is and reads nothing.
    let mut deaf = open(&agent, "/deaf", &minted.nonce).await;
    let flooded = open(&agent, "/flood", &minted.nonce).await;
    let stuffing = async { while deaf.send(true, BINARY, &[1; 60_000]).await.is_ok() {} };
    let stuck = tokio::time::timeout(std::time::Duration::from_secs(1), stuffing).await;
    assert!(stuck.is_err(), "it should have come to a standstill");
    orchestrator.revoke(&minted.id).await;
    let is_cut = |record: &serde_json::Value| record["type"] == "end" && record["ending"] == "cut";
    let cut = || {
        let count = stage.sidecar.audit().iter().filter(|record| is_cut(record)).count();
        (count == 2).then_some(())
    };
    crate::support::sidecar::eventually("both to be cut", cut).await;
    // The deaf upstream looks at nothing, so that its socket is counted for ever.
    has(&sockets, 1).await;
    drop(flooded);
}

#[tokio::test]
async fn an_expired_nonce_ends_its_sockets() {
    let (stage, sockets) = stage().await;
    let mint = json!({"agent": "worker", "task": "t", "service": "api", "scope": "socket", "ttl": "2s"});
    let minted = stage.sidecar.orchestrator().mint_with(mint).await;
    let mut socket = open(&stage.sidecar.agent(), "/echo", &minted.nonce).await;
    assert_eq!(socket.hear().await, None);
    has(&sockets, 0).await;
    assert_eq!(closed(&stage).await["ending"], "cut");
}

#[tokio::test]
async fn a_spent_nonce_leaves_its_socket_open() {
    let (stage, _) = stage().await;
    let nonce = stage.sidecar.orchestrator().mint("worker", "api", "single").await.nonce;
    let agent = stage.sidecar.agent();
    let mut socket = open(&agent, "/echo", &nonce).await;
    let (answer, _) = crate::support::websocket::ask(&agent, "/echo", &nonce, "").await;
    assert!(answer.starts_with("HTTP/1.1 401 nonce_spent"), "{answer}");
    socket.say(TEXT, b"still here").await;
    assert_eq!(socket.hear().await, Some((TEXT, b"still here".to_vec())));
}

#[tokio::test]
async fn one_direction_may_end_before_the_other() {
    let (stage, _) = stage().await;
    let mut socket = open(&stage.sidecar.agent(), "/after", &nonce(&stage).await).await;
    socket.wire.write_all(b"twelve bytes").await.expect("writable");
    socket.wire.shutdown().await.expect("half-close");
    assert_eq!(socket.hear().await, Some((TEXT, b"heard 12".to_vec())));
    assert_eq!(socket.hear().await, Some((CLOSE, vec![3, 0xe8])));
    assert!(socket.rest().await.is_empty());
    let record = closed(&stage).await;
    assert_eq!((&record["ending"], &record["request_bytes"]), (&json!("complete"), &json!(12)), "{record:#}");
}

#[tokio::test]
async fn an_agent_that_goes_away_takes_the_socket_with_it() {
    let (stage, sockets) = stage().await;
    let socket = open(&stage.sidecar.agent(), "/echo", &nonce(&stage).await).await;
    drop(socket);
    has(&sockets, 0).await;
    assert_eq!(closed(&stage).await["ending"], "client_gone");
}

#[tokio::test]
async fn frames_that_no_server_may_send_end_the_socket() {
    let (stage, sockets) = stage().await;
    let mut socket = open(&stage.sidecar.agent(), "/bad", &nonce(&stage).await).await;
    assert_eq!(socket.hear().await, Some((TEXT, b"first".to_vec())));
    assert_eq!(socket.hear().await, Some((CLOSE, vec![3, 0xea])), "1002: a protocol error");
    assert!(socket.rest().await.is_empty());
    has(&sockets, 0).await;
    assert_eq!(closed(&stage).await["ending"], "upstream_broke");
}

#[tokio::test]
async fn a_message_that_is_cut_off_is_no_good_end() {
    let (stage, _) = stage().await;
    let mut socket = open(&stage.sidecar.agent(), "/cut", &nonce(&stage).await).await;
    assert_eq!(socket.hear().await, None);
    assert_eq!(closed(&stage).await["ending"], "upstream_broke");
}

#[tokio::test]
async fn a_silent_socket_ends_when_its_time_is_over() {
    let (upstream, sockets) = crate::support::websocket::upstream().await;
    let stage = super::Stage::of(&super::policy(), upstream, |builder| builder.flag("--idle-timeout").flag("1s")).await;
    let mut socket = open(&stage.sidecar.agent(), "/echo", &nonce(&stage).await).await;
    assert_eq!(socket.hear().await, None);
    has(&sockets, 0).await;
    assert_eq!(closed(&stage).await["ending"], "cut");
}

#[tokio::test]
async fn a_shutdown_ends_what_does_not_end_by_itself() {
    let (upstream, _) = crate::support::websocket::upstream().await;
    let mut stage =
        super::Stage::of(&super::policy(), upstream, |builder| builder.flag("--drain-timeout").flag("1s")).await;
    let mut socket = open(&stage.sidecar.agent(), "/echo", &nonce(&stage).await).await;
    stage.sidecar.signal("TERM");
    assert_eq!(socket.hear().await, None);
    assert_eq!(stage.sidecar.wait(), Some(0));
    assert_eq!(closed(&stage).await["ending"], "cut");
}
