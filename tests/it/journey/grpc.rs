//! gRPC: calls of every kind, their trailers, and refusals that its clients can read.

mod messages;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use tokio::io::AsyncWriteExt;

use crate::support::agent::PATIENCE;
use crate::support::streams;
use crate::support::upstream::read_head;
use crate::support::{FakeUpstream, Stage};

/// A message in its frame.
fn message(text: &str) -> Bytes {
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(text.len()).expect("short").to_be_bytes());
    frame.extend_from_slice(text.as_bytes());
    frame.into()
}

fn status(code: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.parse().expect("a value"));
    trailers.insert("grpc-message", "as%20asked".parse().expect("a value"));
    trailers
}

/// A gRPC server: `/t.T/Unary`, `/t.T/Many`, `/t.T/Talk` and `/t.T/Not`.
async fn upstream() -> FakeUpstream {
    FakeUpstream::played(&["api.test"], b"h2", |stream, _| async move {
        let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
        while let Some(Ok((request, respond))) = connection.accept().await {
            tokio::spawn(answer(request, respond));
        }
    })
    .await
}

async fn answer(request: Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    assert_eq!(request.headers()["te"], "trailers");
    assert_eq!(request.headers()["content-type"], "application/grpc+proto");
    assert_eq!(request.headers()["grpc-timeout"], "10S");
    let path = request.uri().path().to_owned();
    let mut response =
        Response::builder().header("content-type", "application/grpc+proto").body(()).expect("a response");
    if path == "/t.T/Not" {
        response.headers_mut().extend(status("5"));
        respond.send_response(response, true).expect("an open stream");
        return;
    }
    let mut stream = respond.send_response(response, false).expect("an open stream");
    let mut body = request.into_body();
    match path.as_str() {
        "/t.T/Unary" => {
            let (all, _) = streams::whole(body).await;
            assert!(streams::send(&mut stream, all.into()).await);
        }
        "/t.T/Many" => {
            streams::whole(body).await;
            for number in 0..100 {
                assert!(streams::send(&mut stream, message(&format!("{number}"))).await);
            }
        }
        _ => {
            while let Some(ping) = streams::next(&mut body).await {
                if !ping.is_empty() {
                    assert!(streams::send(&mut stream, ping).await);
                }
            }
        }
    }
    stream.send_trailers(status("0")).expect("an open stream");
}

/// The head of a call.
fn call(path: &str, nonce: &str) -> Request<()> {
    Request::post(format!("https://api.test{path}"))
        .header("authorization", format!("Bearer {nonce}"))
        .header("content-type", "application/grpc+proto")
        .header("te", "trailers")
        .header("grpc-timeout", "10S")
        .body(())
        .expect("a request")
}

async fn head(response: h2::client::ResponseFuture) -> Response<h2::RecvStream> {
    tokio::time::timeout(PATIENCE, response).await.expect("in time").expect("an answer")
}

#[tokio::test]
async fn calls_with_one_message_and_with_many_end_in_their_trailers() {
    let stage = Stage::with(upstream().await, |builder| builder).await;
    let nonce = stage.writer().await;
    let mut sender = stage.sidecar.agent().frames("api.test").await;
    let many: Vec<u8> = (0..100).flat_map(|number| message(&format!("{number}"))).collect();
    for (path, expected) in [("/t.T/Unary", message("hello").to_vec()), ("/t.T/Many", many)] {
        let (response, mut body) = sender.send_request(call(path, &nonce), false).expect("a stream");
        body.send_data(message("hello"), true).expect("an open stream");
        let response = head(response).await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (200, &"application/grpc+proto".parse().expect("a value"))
        );
        let (all, trailers) = streams::whole(response.into_body()).await;
        assert_eq!(all, expected, "{path}");
        assert_eq!(trailers, Some(status("0")), "{path}");
    }
    let (response, _) = sender.send_request(call("/t.T/Not", &nonce), true).expect("a stream");
    let response = head(response).await;
    assert_eq!(
        (&response.headers()["grpc-status"], response.body().is_end_stream()),
        (&"5".parse().expect("a value"), true)
    );
}

#[tokio::test]
async fn both_sides_wait_for_each_other_a_hundred_times() {
    let stage = Stage::with(upstream().await, |builder| builder).await;
    let nonce = stage.writer().await;
    let mut sender = stage.sidecar.agent().frames("api.test").await;
    let (response, mut stream) = sender.send_request(call("/t.T/Talk", &nonce), false).expect("a stream");
    let mut body = head(response).await.into_body();
    for number in 0..100 {
        // The end could begin the credential: nothing of it may wait for the next message.
        let ping = message(&format!("message {number} {}", &stage.secret[..number % stage.secret.len()]));
        assert!(streams::send(&mut stream, ping.clone()).await);
        let mut pong = Vec::new();
        while pong.len() < ping.len() {
            pong.extend_from_slice(&streams::next(&mut body).await.expect("a message"));
        }
        assert_eq!(pong, ping);
    }
    stream.send_data(Bytes::new(), true).expect("an open stream");
    let (rest, trailers) = streams::whole(body).await;
    assert!(rest.is_empty());
    assert_eq!(trailers, Some(status("0")));
}

#[tokio::test]
async fn refusals_are_read_as_such_by_its_clients() {
    let stage = Stage::with(upstream().await, |builder| builder).await;
    let nonce = stage.writer().await;
    let mut sender = stage.sidecar.agent().frames("api.test").await;
    for (path, nonce, code) in [("/forbidden", nonce.as_str(), "7"), ("/t.T/Unary", "an_unknown", "16")] {
        let (response, mut body) = sender.send_request(call(path, nonce), false).expect("a stream");
        let _ = body.send_data(message("hello"), false);
        let response = head(response).await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (200, &"application/grpc".parse().expect("a value"))
        );
        assert_eq!(response.headers()["grpc-status"], code, "{path}");
        let text = response.headers()["grpc-message"].to_str().expect("text");
        assert!(text.starts_with("valetkey "), "{text}");
        assert!(response.body().is_end_stream(), "trailers alone");
    }
}

#[tokio::test]
async fn an_upstream_without_http2_can_answer_in_the_trailers_of_a_chunked_body() {
    let upstream = FakeUpstream::played(&["api.test"], b"http/1.1", |mut stream, _| async move {
        let head = read_head(&mut stream).await.to_ascii_lowercase();
        assert!(head.starts_with("post /t.t/unary http/1.1\r\n") && head.contains("\r\nte: trailers\r\n"), "{head}");
        let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\
                      Trailer: grpc-status\r\n\r\n7\r\n\0\0\0\0\x02ok\r\n0\r\ngrpc-status: 0\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.expect("writable");
    })
    .await;
    let stage = Stage::with(upstream, |builder| builder).await;
    let nonce = stage.writer().await;
    let mut sender = stage.sidecar.agent().frames("api.test").await;
    let (response, mut body) = sender.send_request(call("/t.T/Unary", &nonce), false).expect("a stream");
    body.send_data(message("hello"), true).expect("an open stream");
    let (all, trailers) = streams::whole(head(response).await.into_body()).await;
    assert_eq!(all, message("ok"));
    assert_eq!(trailers.expect("trailers")["grpc-status"], "0");
    let stage = Stage::with(FakeUpstream::start_with(&["api.test"], &[b"http/1.1"]).await, |builder| builder).await;
    let nonce = stage.writer().await;
    let mut sender = stage.sidecar.agent().frames("api.test").await;
    let (response, mut body) = sender.send_request(call("/x", &nonce), false).expect("a stream");
    body.send_data(message("hello"), true).expect("an open stream");
    let response = head(response).await;
    assert_eq!((response.status().as_u16(), response.headers().get("grpc-status")), (200, None), "as it came");
    assert_eq!(streams::whole(response.into_body()).await, (b"ok".to_vec(), None));
}
