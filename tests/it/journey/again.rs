//! A request is sent again only where it is plain that nothing was done with it, and once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::support::agent::{Reply, with};
use crate::support::upstream::read_head;
use crate::support::watch::Overheard;
use crate::support::{FakeUpstream, Stage};

/// What an upstream does with the first requests that arrive; the rest get their answer.
#[derive(Debug, Clone, Copy)]
enum First {
    /// `REFUSED_STREAM`, so often.
    Refused(usize),
    /// GOAWAY, whose last stream is not this one.
    LeftOut,
    /// GOAWAY, whose last stream is this one, and the end.
    PerhapsDone,
    /// Another reset.
    Reset,
}

/// An HTTP/2 upstream, and how many requests it saw.
async fn upstream(first: First) -> (FakeUpstream, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let seen = count.clone();
    let upstream = FakeUpstream::played(&["api.test"], b"h2", move |stream, number| {
        let seen = seen.clone();
        async move {
            match first {
                First::LeftOut if number == 1 => goodbye(stream, 0, &seen).await,
                First::PerhapsDone if number == 1 => goodbye(stream, 1, &seen).await,
                _ => serve(stream, first, &seen).await,
            }
        }
    })
    .await;
    (upstream, count)
}

async fn serve(stream: Overheard<TlsStream<TcpStream>>, first: First, seen: &AtomicUsize) {
    let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let number = seen.fetch_add(1, Ordering::SeqCst);
        match first {
            First::Refused(count) if number < count => respond.send_reset(h2::Reason::REFUSED_STREAM),
            First::Reset if number == 0 => respond.send_reset(h2::Reason::INTERNAL_ERROR),
            _ => {
                let mut body = respond.send_response(Response::new(()), false).expect("an open stream");
                body.send_data(Bytes::from_static(b"done"), true).expect("an open stream");
            }
        }
    }
}

/// Reads one request by hand, says that `last` was the last one, and closes.
async fn goodbye(mut stream: Overheard<TlsStream<TcpStream>>, last: u32, seen: &AtomicUsize) {
    stream.read_exact(&mut [0; 24]).await.expect("the preface");
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.expect("settings");
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.expect("a frame");
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        stream.read_exact(&mut vec![0; length]).await.expect("its payload");
        if head[3] == 1 {
            break;
        }
    }
    seen.fetch_add(1, Ordering::SeqCst);
    let mut frame = vec![0, 0, 8, 7, 0, 0, 0, 0, 0];
    frame.extend_from_slice(&last.to_be_bytes());
    frame.extend_from_slice(&0u32.to_be_bytes());
    stream.write_all(&frame).await.expect("GOAWAY");
    stream.shutdown().await.expect("the end");
}

async fn send(stage: &Stage, method: &str, body: &str, h2: bool) -> Reply {
    let nonce = if method == "GET" { stage.reader().await } else { stage.writer().await };
    let request = with(method, "api.test", "/x", &[("authorization", &format!("Bearer {nonce}"))], body);
    if h2 { stage.sidecar.agent().send_h2(request).await } else { stage.sidecar.agent().send(request).await }
}

#[tokio::test]
async fn what_nobody_looked_at_is_sent_once_more() {
    for first in [First::Refused(1), First::LeftOut] {
        for (method, h2) in [("GET", false), ("GET", true), ("POST", false), ("POST", true)] {
            let (upstream, count) = upstream(first).await;
            let stage = Stage::with(upstream, |builder| builder).await;
            let reply = send(&stage, method, "", h2).await;
            assert_eq!((reply.status.as_u16(), reply.text().as_str()), (200, "done"), "{first:?} {method} h2 {h2}");
            assert_eq!(count.load(Ordering::SeqCst), 2, "{first:?} {method}");
        }
    }
}

#[tokio::test]
async fn once_more_is_not_twice_more_and_takes_one_use() {
    let (upstream, count) = upstream(First::Refused(2)).await;
    let stage = Stage::with(upstream, |builder| builder).await;
    let reply = send(&stage, "POST", "", true).await;
    assert_eq!((reply.status.as_u16(), reply.refusal()), (502, Some("upstream_unreachable")));
    assert_eq!(reply.json()["retryable"], true, "nothing was done");
    assert_eq!(count.load(Ordering::SeqCst), 2);
    let (upstream, count) = self::upstream(First::Refused(1)).await;
    let stage = Stage::with(upstream, |builder| builder).await;
    let once = stage.sidecar.orchestrator().mint("worker", "api", "once").await.nonce;
    let delete = || with("DELETE", "api.test", "/x", &[("authorization", &format!("Bearer {once}"))], "");
    assert_eq!(stage.sidecar.agent().send(delete()).await.status, 200);
    assert_eq!(stage.sidecar.agent().send(delete()).await.refusal(), Some("nonce_spent"));
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_body_is_never_sent_twice() {
    for first in [First::Refused(1), First::LeftOut] {
        for h2 in [false, true] {
            let (upstream, count) = upstream(first).await;
            let stage = Stage::with(upstream, |builder| builder).await;
            let reply = send(&stage, "POST", "a body", h2).await;
            assert_eq!((reply.status.as_u16(), reply.refusal()), (502, Some("upstream_unreachable")), "{first:?}");
            assert_eq!(reply.json()["retryable"], true, "{first:?}: the agent may, since nothing was done");
            assert_eq!(count.load(Ordering::SeqCst), 1, "{first:?}");
        }
    }
}

#[tokio::test]
async fn what_may_have_been_done_is_never_sent_twice() {
    for first in [First::PerhapsDone, First::Reset] {
        for (method, retryable) in [("GET", true), ("PUT", true), ("POST", false)] {
            let (upstream, count) = upstream(first).await;
            let stage = Stage::with(upstream, |builder| builder).await;
            let reply = send(&stage, method, "", true).await;
            assert_eq!((reply.status.as_u16(), reply.refusal()), (502, Some("upstream_unreachable")), "{first:?}");
            assert_eq!(reply.json()["retryable"], retryable, "{first:?} {method}: {}", reply.text());
            assert_eq!(count.load(Ordering::SeqCst), 1, "{first:?} {method}");
        }
    }
    for (method, retryable) in [("GET", true), ("PUT", true), ("POST", false)] {
        let upstream = FakeUpstream::raw(&["api.test"], |_| Vec::new()).await;
        let stage = Stage::with(upstream, |builder| builder).await;
        let reply = send(&stage, method, "", false).await;
        assert_eq!((reply.status.as_u16(), reply.refusal()), (502, Some("upstream_unreachable")));
        assert_eq!(reply.json()["retryable"], retryable, "{method}: {}", reply.text());
        assert_eq!(reply.headers.get("x-should-retry").is_some(), !retryable, "{method}");
        stage.upstream.only();
    }
}

#[tokio::test]
async fn what_is_late_may_have_been_done() {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let stage = Stage::with(upstream, |builder| builder.flag("--upstream-head-timeout").flag("1s")).await;
    for (nonce, method, retryable) in [(stage.reader().await, "GET", true), (stage.writer().await, "POST", false)] {
        let request = with(method, "api.test", "/stall", &[("authorization", &format!("Bearer {nonce}"))], "");
        let reply = stage.sidecar.agent().send(request).await;
        assert_eq!((reply.status.as_u16(), reply.refusal()), (504, Some("upstream_timeout")));
        assert_eq!(reply.json()["retryable"], retryable, "{method}");
    }
}

#[tokio::test]
async fn what_was_revoked_meanwhile_is_not_sent_again() {
    let count = Arc::new(AtomicUsize::new(0));
    let (arrived, mut arrival) = tokio::sync::mpsc::channel::<tokio::sync::oneshot::Sender<()>>(1);
    let seen = count.clone();
    let upstream = FakeUpstream::played(&["api.test"], b"h2", move |stream, _| {
        let (seen, arrived) = (seen.clone(), arrived.clone());
        async move {
            let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                seen.fetch_add(1, Ordering::SeqCst);
                let (go, gone) = tokio::sync::oneshot::channel();
                arrived.send(go).await.expect("a test");
                let _ = gone.await;
                respond.send_reset(h2::Reason::REFUSED_STREAM);
            }
        }
    })
    .await;
    let stage = Stage::with(upstream, |builder| builder).await;
    let minted = stage.sidecar.orchestrator().mint("worker", "api", "read").await;
    let agent = stage.sidecar.agent();
    let sending = tokio::spawn(async move { agent.get("api.test", "/x", &minted.nonce).await });
    let go = arrival.recv().await.expect("a request");
    stage.sidecar.orchestrator().revoke(&minted.id).await;
    go.send(()).expect("an upstream");
    assert_eq!(sending.await.expect("an answer").refusal(), Some("nonce_revoked"));
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_upstream_that_reads_a_body_and_closes_gets_it_once() {
    let upstream = FakeUpstream::played(&["api.test"], b"http/1.1", |mut stream, _| async move {
        read_head(&mut stream).await;
        stream.read_exact(&mut [0; 6]).await.expect("the body");
    })
    .await;
    let stage = Stage::with(upstream, |builder| builder).await;
    let reply = send(&stage, "POST", "a body", false).await;
    assert_eq!((reply.status.as_u16(), reply.json()["retryable"].as_bool()), (502, Some(false)));
    assert_eq!(stage.upstream.connections(), 1);
}
