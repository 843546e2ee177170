//! Who asks for what: HTTP/1.1, HTTP/2, events, sockets; each with a nonce that it changes all the time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Request;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;

use super::Soak;
use crate::support::agent::{Reply, Tunnel, get, read, with};
use crate::support::leak;
use crate::support::orchestrator::Minted;
use crate::support::websocket::{Socket, TEXT, head, question};

/// Requests with one nonce in one tunnel.
const ROUND: u64 = 40;
/// One request in so many is a fault.
const FAULT_EVERY: u64 = 100;

/// What a worker speaks.
#[derive(Debug, Clone, Copy)]
enum Sort {
    H1,
    H2,
    Events,
    Sockets,
}

pub async fn warm_up(soak: &Arc<Soak>) {
    for sort in [Sort::H1, Sort::H2] {
        let minted = mint(soak, "api").await;
        let mut tunnel = open(soak, sort).await;
        ask(soak, &mut tunnel, get("api.test", "/x", &minted.nonce)).await;
    }
}

pub fn start(soak: &Arc<Soak>) -> Vec<JoinHandle<()>> {
    let sorts = [Sort::H1, Sort::H1, Sort::H1, Sort::H2, Sort::H2, Sort::H2, Sort::Events, Sort::Sockets];
    (0..).zip(sorts).map(|(number, sort)| tokio::spawn(work(soak.clone(), sort, number))).collect()
}

async fn work(soak: Arc<Soak>, sort: Sort, number: u64) {
    // A place of its own in the order of faults.
    let mut turn = number * 13;
    while !soak.is_over() {
        match sort {
            Sort::H1 | Sort::H2 => requests(&soak, sort, &mut turn).await,
            Sort::Events => events(&soak).await,
            Sort::Sockets => sockets(&soak).await,
        }
    }
}

async fn mint(soak: &Soak, service: &str) -> Minted {
    soak.minted.fetch_add(1, Ordering::SeqCst);
    soak.sidecar.orchestrator().mint("worker", service, "read").await
}

async fn open(soak: &Soak, sort: Sort) -> Tunnel {
    let agent = soak.sidecar.agent();
    match sort {
        Sort::H2 => agent.tunnel_h2("api.test").await,
        Sort::H1 | Sort::Events | Sort::Sockets => agent.tunnel("api.test").await,
    }
}

/// One request; the answer, or `None` where it broke.
async fn ask(soak: &Soak, tunnel: &mut Tunnel, request: Request<http_body_util::Full<bytes::Bytes>>) -> Option<Reply> {
    soak.requests.fetch_add(1, Ordering::SeqCst);
    let response = tunnel.try_start(request).await.ok()?;
    let reply = tokio::time::timeout(crate::client::DEADLINE, read(response)).await;
    let Ok(reply) = reply else {
        soak.error("an answer hung");
        return None;
    };
    let reply = reply.ok()?;
    leak::assert_clean(&soak.secret, &reply.everything(), "an answer");
    Some(reply)
}

/// A tunnel's worth of requests, a few of which are faults; then the nonce is revoked, which is tried.
async fn requests(soak: &Arc<Soak>, sort: Sort, turn: &mut u64) {
    let minted = mint(soak, "api").await;
    let mut tunnel = open(soak, sort).await;
    for _ in 0..ROUND {
        *turn += 1;
        if turn.is_multiple_of(FAULT_EVERY) {
            fault(soak, sort, &minted.nonce, *turn).await;
            continue;
        }
        let path = ["/x", "/echo", "/header", "/gzip", "/204", "/split"][(*turn % 6) as usize];
        match ask(soak, &mut tunnel, get("api.test", path, &minted.nonce)).await {
            Some(reply) if reply.status.is_success() => {}
            Some(reply) => soak.error(&format!("{sort:?} {path}: {} {:?}", reply.status, reply.refusal())),
            None => {
                soak.error(&format!("{sort:?} {path}: broke"));
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    soak.sidecar.orchestrator().revoke(&minted.id).await;
    let reply = ask(soak, &mut tunnel, get("api.test", "/x", &minted.nonce)).await;
    if reply.as_ref().and_then(Reply::refusal) != Some("nonce_revoked") {
        soak.error("accepted after its revocation");
    }
}

/// A fault in a tunnel of its own: upstream breaks off, the agent goes away, or the nonce is nobody's.
async fn fault(soak: &Arc<Soak>, sort: Sort, nonce: &str, turn: u64) {
    let mut tunnel = open(soak, sort).await;
    let went_well = match turn / FAULT_EVERY % 3 {
        0 => ask(soak, &mut tunnel, get("api.test", "/break", nonce)).await.is_none(),
        1 => {
            soak.requests.fetch_add(1, Ordering::SeqCst);
            drop(tunnel.try_start(get("api.test", "/endless", nonce)).await);
            true
        }
        _ => {
            let nobody = with("POST", "api.test", "/x", &[("authorization", &format!("Bearer {nonce}"))], "x");
            let reply = ask(soak, &mut tunnel, nobody).await;
            reply.as_ref().and_then(Reply::refusal) == Some("out_of_scope")
        }
    };
    if went_well {
        soak.faults.fetch_add(1, Ordering::SeqCst);
    } else {
        soak.error(&format!("{sort:?}: a fault came out otherwise"));
    }
}

/// A stream of events, read to its end.
async fn events(soak: &Arc<Soak>) {
    let minted = mint(soak, "api").await;
    let mut tunnel = open(soak, Sort::Events).await;
    match ask(soak, &mut tunnel, get("api.test", "/sse", &minted.nonce)).await {
        Some(reply) if reply.text().matches("data: event").count() == 5 => {}
        _ => soak.error("events were not whole"),
    }
    soak.sidecar.orchestrator().revoke(&minted.id).await;
}

/// A socket, some messages, and the end.
async fn sockets(soak: &Arc<Soak>) {
    let minted = mint(soak, "ws").await;
    let agent = soak.sidecar.agent();
    let Ok(mut stream) = agent.tls_tunnel("ws.test", "ws.test", &[b"http/1.1"]).await else {
        return soak.error("a socket's TLS broke");
    };
    soak.requests.fetch_add(1, Ordering::SeqCst);
    let asked = question("/socket", &minted.nonce, "").replace("Host: api.test", "Host: ws.test");
    let _ = stream.write_all(asked.as_bytes()).await;
    let answer = head(&mut stream).await;
    leak::assert_clean(&soak.secret, answer.as_bytes(), "an answer");
    if !answer.starts_with("HTTP/1.1 101 ") {
        return soak.error(&format!("a socket was not opened: {}", answer.lines().next().unwrap_or_default()));
    }
    let mut socket = Socket::client(stream);
    for number in 0..20 {
        let text = format!("message {number}");
        if socket.send(true, TEXT, text.as_bytes()).await.is_err()
            || socket.hear().await != Some((TEXT, text.into_bytes()))
        {
            return soak.error("a socket broke");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    soak.sidecar.orchestrator().revoke(&minted.id).await;
}
