//! `Expect: 100-continue`: a body is sent when it is wanted, and never where it is not.

use bytes::Bytes;
use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::support::agent::PATIENCE;
use crate::support::streams;
use crate::support::upstream::read_head;
use crate::support::wire::read_answers;
use crate::support::{FakeUpstream, Stage};

/// A head that waits for permission, in bytes.
fn waiting(nonce: &str, path: &str, expect: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\n\
         Content-Length: 5\r\nExpect: {expect}\r\n\r\n"
    )
}

/// Reads so many bytes as text.
async fn read<S: tokio::io::AsyncRead + Unpin>(stream: &mut S, count: usize) -> String {
    let mut bytes = vec![0; count];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut bytes)).await.expect("in time").expect("bytes");
    String::from_utf8(bytes).expect("text")
}

#[tokio::test]
async fn the_body_is_asked_for_when_the_upstream_asks() {
    let (allow, allowed) = mpsc::channel::<()>(1);
    let allowed = std::sync::Arc::new(tokio::sync::Mutex::new(allowed));
    let upstream = FakeUpstream::played(&["api.test"], b"http/1.1", move |mut stream, _| {
        let allowed = allowed.clone();
        async move {
            let head = read_head(&mut stream).await.to_ascii_lowercase();
            assert!(head.contains("expect: 100-continue\r\n"), "{head}");
            allowed.lock().await.recv().await.expect("a word");
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.expect("writable");
            let body = read(&mut stream, 5).await;
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).await.expect("writable");
        }
    })
    .await;
    let stage = Stage::with(upstream, |builder| builder).await;
    let nonce = stage.writer().await;
    let mut stream = stage.sidecar.agent().tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("TLS");
    stream.write_all(waiting(&nonce, "/x", "100-continue").as_bytes()).await.expect("writable");
    let early = tokio::time::timeout(std::time::Duration::from_millis(100), stream.read_u8()).await;
    assert!(early.is_err(), "asked for before the upstream asked: {early:?}");
    allow.send(()).await.expect("an upstream");
    assert_eq!(read(&mut stream, 25).await, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.expect("writable");
    let answer = read_answers(&mut stream, 1, PATIENCE).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
}

#[tokio::test]
async fn an_upstream_that_does_not_know_of_it_gets_the_body_all_the_same() {
    for alpn in [&b"http/1.1"[..], b"h2"] {
        let upstream = if alpn == b"h2" {
            FakeUpstream::start_with(&["api.test"], &[alpn]).await
        } else {
            FakeUpstream::played(&["api.test"], alpn, |mut stream, _| async move {
                read_head(&mut stream).await;
                assert_eq!(read(&mut stream, 5).await, "hello");
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.expect("writable");
            })
            .await
        };
        let stage = Stage::with(upstream, |builder| builder).await;
        let nonce = stage.writer().await;
        let mut stream = stage.sidecar.agent().tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("TLS");
        stream.write_all(waiting(&nonce, "/x", "100-Continue").as_bytes()).await.expect("writable");
        assert_eq!(read(&mut stream, 25).await, "HTTP/1.1 100 Continue\r\n\r\n");
        stream.write_all(b"hello").await.expect("writable");
        let answer = read_answers(&mut stream, 1, PATIENCE).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

/// An upstream that answers every head at once; what it got of a body is said once the connection or stream is over.
async fn refusing(h2: bool, status: u16) -> (FakeUpstream, mpsc::Receiver<usize>) {
    let (over, got) = mpsc::channel(8);
    let upstream = if h2 {
        FakeUpstream::played(&["api.test"], b"h2", move |stream, _| {
            let over = over.clone();
            async move {
                let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let response = Response::builder().status(status).body(()).expect("a response");
                    let mut body = respond.send_response(response, false).expect("an open stream");
                    body.send_data(Bytes::from_static(b"no"), true).expect("an open stream");
                    let over = over.clone();
                    tokio::spawn(async move {
                        let _ = over.send(streams::whole(request.into_body()).await.0.len()).await;
                    });
                }
            }
        })
        .await
    } else {
        FakeUpstream::played(&["api.test"], b"http/1.1", move |mut stream, _| {
            let over = over.clone();
            async move {
                read_head(&mut stream).await;
                let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\nno");
                stream.write_all(answer.as_bytes()).await.expect("writable");
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
                let _ = over.send(rest.len()).await;
            }
        })
        .await
    };
    (upstream, got)
}

#[tokio::test]
async fn an_early_answer_arrives_and_the_body_is_never_asked_for() {
    for h2_upstream in [false, true] {
        for status in [307, 401, 413, 417, 500] {
            let (upstream, mut got) = refusing(h2_upstream, status).await;
            let stage = Stage::with(upstream, |builder| builder).await;
            let nonce = stage.writer().await;
            let bytes = waiting(&nonce, "/x", "100-continue");
            let answer = stage.sidecar.agent().raw_inside("api.test", bytes.as_bytes()).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "h2 {h2_upstream}: {answer}");
            assert!(answer.contains("\r\nno"), "{answer}");
            let got = tokio::time::timeout(PATIENCE, got.recv()).await.expect("its end in time");
            assert_eq!(got, Some(0), "h2 {h2_upstream} {status}");

            let mut sender = stage.sidecar.agent().frames("api.test").await;
            let request = Request::post("https://api.test/x").header("authorization", format!("Bearer {nonce}"));
            let request = request.header("expect", "100-continue").body(()).expect("a request");
            let (response, mut body) = sender.send_request(request, false).expect("a stream");
            let response = tokio::time::timeout(PATIENCE, response).await.expect("in time").expect("an answer");
            assert_eq!(response.status(), status, "h2 agent, h2 upstream {h2_upstream}");
            assert_eq!(streams::whole(response.into_body()).await.0, b"no");
            body.send_reset(h2::Reason::CANCEL);
        }
    }
}

#[tokio::test]
async fn a_refusal_of_ours_does_not_ask_for_the_body() {
    let stage = Stage::new().await;
    let nonce = stage.writer().await;
    let agent = stage.sidecar.agent();
    let answer = agent.raw_inside("api.test", waiting(&nonce, "/forbidden", "100-continue").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 403 out_of_scope"), "{answer}");
    for expect in ["200-ok", "100-continue, x", "100-continue\r\nExpect: 100-continue", ""] {
        let answer = agent.raw_inside("api.test", waiting(&nonce, "/x", expect).as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 417 expectation_failed"), "{expect:?}: {answer}");
    }
    assert!(stage.upstream.seen().is_empty());
}
