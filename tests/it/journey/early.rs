//! Answers that come while the agent still sends: they reach it, and nothing hangs.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};

use crate::support::agent::PATIENCE;
use crate::support::streams;
use crate::support::upstream::{PIECE, read_head};
use crate::support::wire::{answers, read_answers};
use crate::support::{FakeUpstream, Stage};

/// What the upstream does once it has refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// It closes, with the rest unread.
    Closes,
    /// It keeps the connection and reads no more before the agent has its answer.
    Stops,
    /// It reads on.
    Reads,
}

const REFUSAL: &[u8] = b"HTTP/1.1 413 Too Much\r\nContent-Length: 8\r\n\r\ntoo much";

/// An upstream that refuses after the first piece; the receiver hears when its connection or stream is over.
async fn refusing(h2: bool, then: Then) -> (FakeUpstream, mpsc::Receiver<()>, Arc<Notify>) {
    let (over, heard) = mpsc::channel(8);
    let resumed = Arc::new(Notify::new());
    let resume = resumed.clone();
    let upstream = if h2 {
        FakeUpstream::played(&["api.test"], b"h2", move |stream, _| {
            let over = over.clone();
            async move {
                let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(refuse(request, respond, then, over.clone()));
                }
            }
        })
        .await
    } else {
        FakeUpstream::played(&["api.test"], b"http/1.1", move |mut stream, _| {
            let (over, resume) = (over.clone(), resume.clone());
            async move {
                read_head(&mut stream).await;
                stream.read_exact(&mut [0; 1024]).await.expect("some of the body");
                stream.write_all(REFUSAL).await.expect("writable");
                stream.flush().await.expect("writable");
                let mut piece = vec![0; 64 * 1024];
                if then == Then::Stops {
                    resume.notified().await;
                }
                while then != Then::Closes && stream.read(&mut piece).await.is_ok_and(|count| count > 0) {}
                let _ = over.send(()).await;
            }
        })
        .await
    };
    (upstream, heard, resumed)
}

async fn refuse(
    request: Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    then: Then,
    over: mpsc::Sender<()>,
) {
    let mut body = request.into_body();
    streams::next(&mut body).await.expect("some of the body");
    let response = Response::builder().status(413).body(()).expect("a response");
    let mut answer = respond.send_response(response, false).expect("an open stream");
    answer.send_data(Bytes::from_static(b"too much"), true).expect("an open stream");
    match then {
        // Dropped unread: the library resets the stream with NO_ERROR, after the answer.
        Then::Closes => drop(body),
        Then::Stops => {
            // Without capacity given back, the other side can only end the stream.
            while let Some(Ok(_)) = body.data().await {}
        }
        Then::Reads => while streams::next(&mut body).await.is_some() {},
    }
    let _ = over.send(()).await;
}

/// A client that sends all of a large body before it looks at the answer, as many do.
async fn send_then_read(
    stage: &Stage,
    nonce: &str,
    path: &str,
    pieces: usize,
) -> (String, impl AsyncWriteExt + AsyncReadExt + Unpin) {
    let mut stream = stage.sidecar.agent().tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("TLS");
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\nContent-Length: {}\r\n\r\n",
        pieces * PIECE.len()
    );
    let sending = async {
        stream.write_all(head.as_bytes()).await?;
        for _ in 0..pieces {
            stream.write_all(&PIECE).await?;
        }
        stream.flush().await
    };
    tokio::time::timeout(PATIENCE, sending).await.expect("all of it is taken").expect("and nothing is reset");
    (read_answers(&mut stream, 1, PATIENCE).await, stream)
}

/// 16 MiB: more than the sockets on the way hold.
const PIECES: usize = 256;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_reaches_an_agent_that_still_sends() {
    for h2_upstream in [false, true] {
        for then in [Then::Closes, Then::Stops, Then::Reads] {
            let (upstream, mut heard, resume) = refusing(h2_upstream, then).await;
            let stage = Stage::with(upstream, |builder| builder.flag("--idle-timeout").flag("2s")).await;
            let nonce = stage.writer().await;
            let (answer, _) = send_then_read(&stage, &nonce, "/x", PIECES).await;
            assert!(answer.starts_with("HTTP/1.1 413"), "h2 upstream {h2_upstream} {then:?}: {answer}");
            assert!(answer.contains("\r\ntoo much"), "h2 upstream {h2_upstream} {then:?}: {answer}");
            resume.notify_one();
            tokio::time::timeout(PATIENCE, heard.recv())
                .await
                .unwrap_or_else(|_| panic!("never let go: h2 upstream {h2_upstream} {then:?}"))
                .expect("a word");

            let mut sender = stage.sidecar.agent().frames("api.test").await;
            let request = Request::post("https://api.test/x").header("authorization", format!("Bearer {nonce}"));
            let (response, mut body) =
                sender.send_request(request.body(()).expect("a request"), false).expect("a stream");
            let sending = tokio::spawn(async move {
                let mut sent = 0;
                while sent < 100 * PIECES && streams::send(&mut body, Bytes::from_static(&PIECE)).await {
                    sent += 1;
                }
                sent
            });
            let response = tokio::time::timeout(PATIENCE, response).await.expect("in time").expect("an answer");
            assert_eq!(response.status(), 413, "h2 agent, h2 upstream {h2_upstream} {then:?}");
            assert_eq!(streams::whole(response.into_body()).await.0, b"too much");
            let sent = tokio::time::timeout(PATIENCE, sending).await.expect("sending is over").expect("no panic");
            assert!(sent < 100 * PIECES, "nobody takes an endless body");
            resume.notify_one();
            tokio::time::timeout(PATIENCE, heard.recv())
                .await
                .unwrap_or_else(|_| panic!("never let go: h2 upstream {h2_upstream} {then:?}"))
                .expect("a word");
        }
    }
}

#[tokio::test]
async fn an_upload_that_gets_no_room_ends_with_the_idle_limit() {
    let (over, mut heard) = mpsc::channel(8);
    let upstream = FakeUpstream::played(&["api.test"], b"h2", move |stream, _| {
        let over = over.clone();
        async move {
            let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let over = over.clone();
                tokio::spawn(async move {
                    respond.send_response(Response::new(()), true).expect("an open stream");
                    let mut body = request.into_body();
                    while let Some(Ok(_)) = body.data().await {}
                    let _ = over.send(()).await;
                });
            }
        }
    })
    .await;
    let stage = Stage::with(upstream, |builder| builder.flag("--idle-timeout").flag("1s")).await;
    let nonce = stage.writer().await;
    let mut sender = stage.sidecar.agent().frames("api.test").await;
    let request = Request::post("https://api.test/x").header("authorization", format!("Bearer {nonce}"));
    let (response, mut body) = sender.send_request(request.body(()).expect("a request"), false).expect("a stream");
    let sending = tokio::spawn(async move { while streams::send(&mut body, Bytes::from_static(&PIECE)).await {} });
    let response = tokio::time::timeout(PATIENCE, response).await.expect("in time").expect("an answer");
    assert_eq!(response.status(), 200);
    tokio::time::timeout(PATIENCE, heard.recv()).await.expect("let go of").expect("a word");
    tokio::time::timeout(PATIENCE, sending).await.expect("the agent is told").expect("no panic");
}

#[tokio::test]
async fn a_refusal_of_ours_reaches_an_agent_that_sends_first_and_the_connection_is_kept() {
    let stage = Stage::new().await;
    let nonce = stage.writer().await;
    let (answer, mut stream) = send_then_read(&stage, &nonce, "/forbidden", PIECES).await;
    assert!(answer.starts_with("HTTP/1.1 403 out_of_scope"), "{answer}");
    let next = format!(
        "POST /next HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\nContent-Length: 2\r\n\r\nhi"
    );
    stream.write_all(next.as_bytes()).await.expect("still open");
    let answer = read_answers(&mut stream, 1, PATIENCE).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!((stage.upstream.only().target.as_str(), &stage.upstream.only().body[..]), ("/next", &b"hi"[..]));
}

#[tokio::test]
async fn requests_behind_unwanted_bodies_are_found_where_they_begin() {
    let stage = Stage::new().await;
    let nonce = stage.writer().await;
    let hidden = "POST /hidden HTTP/1.1\r\nHost: api.test\r\n\r\n".repeat(1000);
    let head = |path: &str, fields: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\n{fields}\r\n")
    };
    let length = format!("Content-Length: {}\r\n", hidden.len());
    let bytes = [
        head("/forbidden", &length) + &hidden,
        head("/a", "Content-Length: 1\r\n") + "a",
        head("/forbidden", "Transfer-Encoding: chunked\r\n") + &format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len()),
        head("/b", "Content-Length: 1\r\n") + "b",
    ]
    .concat();
    let text = stage.sidecar.agent().pipelined("api.test", bytes.as_bytes(), 4).await;
    let statuses: Vec<u16> = answers(text.as_bytes(), true).iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [403, 200, 403, 200], "{text}");
    let targets: Vec<String> = stage.upstream.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(targets, ["/a", "/b"]);
}
