//! Answers that break off, and answers whose length is said in an odd way: nobody takes a part for the whole.

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::agent::{PATIENCE, breaks, get};
use crate::support::codings::pack;
use crate::support::{FakeUpstream, Stage};

/// What upstream says before it goes away.
fn halves() -> Vec<(&'static str, Vec<u8>)> {
    let coded = |coding: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    let (gzip, zstd) = (pack("gzip", b"hello, hello, hello"), pack("zstd", b"hello, hello, hello"));
    vec![
        ("some chunks", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n".to_vec()),
        ("a part of its length", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello".to_vec()),
        ("damaged gzip", coded("gzip", &[&gzip[..gzip.len() - 8], &[0; 8]].concat())),
        ("cut zstd", coded("zstd", &zstd[..zstd.len() - 1])),
    ]
}

async fn saying(answer: Vec<u8>) -> (Stage, String) {
    let stage = Stage::with(FakeUpstream::raw(&["api.test"], move |_| answer.clone()).await, |builder| builder).await;
    let nonce = stage.reader().await;
    (stage, nonce)
}

#[tokio::test]
async fn half_an_answer_never_looks_whole() {
    for (what, answer) in halves() {
        let (stage, nonce) = saying(answer).await;
        let agent = stage.sidecar.agent();
        for h2 in [false, true] {
            let mut tunnel = if h2 { agent.tunnel_h2("api.test").await } else { agent.tunnel("api.test").await };
            if let Ok(response) = tunnel.try_start(get("api.test", "/x", &nonce)).await {
                assert!(response.status() != 200 || breaks(response).await, "{what}, h2 {h2}");
            }
        }
        // The body of an answer to HTTP/1.0 ends with its connection: only TLS can say that it was cut.
        let mut tunnel = agent.tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("a tunnel");
        let asked = format!("GET /x HTTP/1.0\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\n\r\n");
        tunnel.write_all(asked.as_bytes()).await.expect("writable");
        let mut answer = Vec::new();
        let read = tokio::time::timeout(PATIENCE, tunnel.read_to_end(&mut answer)).await.expect("an end");
        let is_whole = read.is_ok() && answer.starts_with(b"HTTP/1.") && answer[8..].starts_with(b" 200");
        assert!(!is_whole, "{what}: {}", answer.escape_ascii());
    }
}

#[tokio::test]
async fn a_length_that_is_repeated_is_said_once_or_not_at_all() {
    for lengths in [
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 05\r\n",
        "Content-Length: 5,5,5\r\nContent-Length: 5\r\n",
        "Content-Length: 5 \r\n",
        "Content-Length:\t5\r\n",
    ] {
        let (stage, nonce) = saying(format!("HTTP/1.1 200 OK\r\n{lengths}\r\nhello").into_bytes()).await;
        let agent = stage.sidecar.agent();
        let mut tunnel = agent.tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("a tunnel");
        let asked = super::request("GET /x", "", &nonce, "");
        tunnel.write_all(&asked).await.expect("writable");
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, tunnel.read_to_end(&mut answer)).await.expect("an end");
        let answer = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        let head = answer.split_once("\r\n\r\n").expect("a head").0;
        let said: Vec<_> =
            head.lines().filter_map(|line| line.strip_prefix("content-length:")).map(str::trim).collect();
        let is_one = said.len() == 1 && (said[0] == "5" || !head.starts_with("http/1.1 200"));
        assert!(is_one, "{lengths:?}: {answer}");
        let mut h2 = agent.tunnel_h2("api.test").await;
        let reply = h2.send(get("api.test", "/x", &nonce)).await;
        let said: Vec<_> = reply.headers.get_all("content-length").iter().collect();
        assert!(said.len() == 1 && (said[0] == "5" || reply.status != 200), "{lengths:?}: {said:?}");
    }
}

/// Says two lengths over HTTP/2: five, and what the path says.
async fn two_lengths() -> FakeUpstream {
    FakeUpstream::played(&["api.test"], b"h2", |stream, _| async move {
        let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
        while let Some(Ok((asked, mut respond))) = connection.accept().await {
            let second = asked.uri().path().trim_start_matches('/').replace('+', ",");
            let head = http::Response::builder().header("content-length", "5").header("content-length", second);
            let mut body = respond.send_response(head.body(()).expect("an answer"), false).expect("an open stream");
            body.send_data(Bytes::from_static(b"hello"), true).expect("an open stream");
        }
    })
    .await
}

#[tokio::test]
async fn two_lengths_over_http_2_are_none() {
    let stage = Stage::with(two_lengths().await, |builder| builder).await;
    let nonce = stage.reader().await;
    let agent = stage.sidecar.agent();
    for (second, is_same) in
        [("5", true), ("05", true), ("500", false), ("0", false), ("5+6", false), ("x", false), ("+5", false)]
    {
        for h2 in [false, true] {
            let mut tunnel = if h2 { agent.tunnel_h2("api.test").await } else { agent.tunnel("api.test").await };
            let reply = tunnel.send(get("api.test", &format!("/{second}"), &nonce)).await;
            let said: Vec<_> = reply.headers.get_all("content-length").iter().collect();
            if is_same {
                assert!(reply.text() == "hello" && said == ["5"], "{second}, h2 {h2}: {said:?}");
            } else {
                assert!(reply.status == 502 && said.len() == 1, "{second}, h2 {h2}: {} {said:?}", reply.status);
            }
        }
    }
}
