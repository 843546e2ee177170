//! Agents that give up request after request, towards an upstream that ends connections on which too much is reset.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::server::TlsStream;

use crate::support::agent::get;
use crate::support::sidecar::eventually;
use crate::support::watch::Overheard;
use crate::support::{FakeUpstream, Stage, policies};

/// What the upstream bears on one connection: servers count since rapid reset (CVE-2023-44487).
const RESETS_MAX: usize = 64;
/// Given up at once; below what one connection of an agent may have under way.
const WAVE: usize = 100;

/// What the upstream has seen.
#[derive(Default)]
struct Strict {
    /// Requests that get no answer.
    stalled: AtomicUsize,
    /// Connections that it has ended.
    ended: AtomicUsize,
}

/// What is counted of one connection.
#[derive(Default)]
struct Patience {
    resets: AtomicUsize,
    is_over: Notify,
}

async fn upstream() -> (FakeUpstream, Arc<Strict>) {
    let strict = Arc::new(Strict::default());
    let seen = strict.clone();
    let upstream = FakeUpstream::played(&["api.test"], b"h2", move |stream, _| serve(stream, seen.clone())).await;
    (upstream, strict)
}

async fn serve(stream: Overheard<TlsStream<TcpStream>>, strict: Arc<Strict>) {
    // One that was opened and not needed says nothing.
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    let patience = Arc::new(Patience::default());
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    tokio::spawn(answer(request, respond, strict.clone(), patience.clone()));
                }
                Some(Err(_)) | None => return,
            },
            () = patience.is_over.notified() => {
                strict.ended.fetch_add(1, Ordering::SeqCst);
                connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
            }
        }
    }
}

/// Nothing, until the stream is reset; to all but `/stall` an answer that takes a moment.
async fn answer(
    request: Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    strict: Arc<Strict>,
    patience: Arc<Patience>,
) {
    if request.uri().path() == "/stall" {
        strict.stalled.fetch_add(1, Ordering::SeqCst);
        let reset = poll_fn(|cx| respond.poll_reset(cx)).await;
        if reset.is_ok() && patience.resets.fetch_add(1, Ordering::SeqCst) + 1 == RESETS_MAX {
            patience.is_over.notify_one();
        }
        return;
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    // Whoever asked may be gone.
    let _ = respond.send_response(Response::new(()), true);
}

/// How requests come to be given up.
#[derive(Debug, Clone, Copy)]
enum GivenUp {
    /// Streams of one connection are reset.
    Reset,
    /// Connections of HTTP/1.1 are closed.
    HungUp,
    /// Their nonce is revoked.
    Revoked,
}

/// One wave of requests that get no answer and are given up once all of them have arrived.
async fn give_up(stage: &Stage, strict: &Strict, how: GivenUp) {
    let minted = stage.sidecar.orchestrator().mint("worker", "api", "read").await;
    let arrived = strict.stalled.load(Ordering::SeqCst) + WAVE;
    let all = || (strict.stalled.load(Ordering::SeqCst) >= arrived).then_some(());
    let agent = stage.sidecar.agent();
    match how {
        GivenUp::Reset | GivenUp::Revoked => {
            let mut sender = agent.frames("api.test").await.ready().await.expect("HTTP/2");
            let request = || get("api.test", "/stall", &minted.nonce).map(|_| ());
            let streams: Vec<_> = (0..WAVE).map(|_| sender.send_request(request(), true).expect("a stream")).collect();
            eventually("all to arrive", all).await;
            if matches!(how, GivenUp::Revoked) {
                stage.sidecar.orchestrator().revoke(&minted.id).await;
            }
            drop(streams);
        }
        GivenUp::HungUp => {
            let mut streams = Vec::new();
            for _ in 0..WAVE {
                let mut stream = agent.tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("TLS");
                stream.write_all(&super::request("GET /stall", "", &minted.nonce, "")).await.expect("writable");
                streams.push(stream);
            }
            eventually("all to arrive", all).await;
            drop(streams);
        }
    }
}

/// What another agent is told meanwhile, request after request; those that are not 200.
async fn ask(stage: &Stage, is_over: &AtomicBool) -> (usize, Vec<u16>) {
    let nonce = stage.sidecar.orchestrator().mint("other", "api", "read").await.nonce;
    let mut tunnel = stage.sidecar.agent().tunnel_h2("api.test").await;
    let (mut asked, mut failed) = (0, Vec::new());
    while !is_over.load(Ordering::SeqCst) {
        let status = tunnel.send(get("api.test", "/x", &nonce)).await.status.as_u16();
        asked += 1;
        failed.extend(Some(status).filter(|status| *status != 200));
    }
    (asked, failed)
}

#[tokio::test]
async fn requests_given_up_without_end_break_nobody_elses() {
    for how in [GivenUp::Reset, GivenUp::HungUp, GivenUp::Revoked] {
        let (upstream, strict) = upstream().await;
        let stage = Stage::of(&policies::two_agents(), upstream, |builder| builder).await;
        let is_over = AtomicBool::new(false);
        let attack = async {
            for wave in 1..=3 {
                give_up(&stage, &strict, how).await;
                let is_ended = || (strict.ended.load(Ordering::SeqCst) >= wave).then_some(());
                eventually("the upstream to have enough", is_ended).await;
            }
            // What was under way has been answered, or has not.
            tokio::time::sleep(Duration::from_millis(100)).await;
            is_over.store(true, Ordering::SeqCst);
        };
        let ((), (asked, failed)) = tokio::join!(attack, ask(&stage, &is_over));
        assert!(asked > 1, "{how:?}: {asked}");
        assert!(failed.is_empty(), "{how:?}: of {asked} requests of another agent failed {failed:?}");
    }
}
