//! Streams of events: each is with the agent before the upstream sends the next.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt as _;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Mutex, mpsc};

use crate::support::agent::{PATIENCE, with};
use crate::support::upstream::read_head;
use crate::support::{FakeUpstream, Stage, codings};

const EVENTS: usize = 20;

/// In which an upstream's events come; the first is none.
const CODINGS: [&str; 4] = ["", "gzip", "br", "zstd"];

/// The bytes of each event: plain, or one stream that is flushed after each.
fn events(coding: &str) -> Vec<Bytes> {
    let texts: Vec<_> =
        (0..EVENTS).map(|number| format!("id: {number}\ndata: {{\"delta\": \"word {number}\"}}\n\n")).collect();
    let texts: Vec<&[u8]> = texts.iter().map(|text| text.as_bytes()).collect();
    let mut pieces = codings::events(coding, &texts);
    pieces.truncate(EVENTS);
    pieces
}

/// An upstream that sends an event only when it is told that the one before has arrived.
async fn upstream(h2: bool, coding: &'static str, told: mpsc::Receiver<()>) -> FakeUpstream {
    let told = Arc::new(Mutex::new(told));
    let alpn: &[u8] = if h2 { b"h2" } else { b"http/1.1" };
    FakeUpstream::played(&["api.test"], alpn, move |mut stream, _| {
        let told = told.clone();
        async move {
            let mut told = told.lock().await;
            if h2 {
                let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
                let (_, mut respond) = connection.accept().await.expect("a request").expect("a request");
                let driving = tokio::spawn(async move { while connection.accept().await.is_some() {} });
                let mut response = Response::builder().header("content-type", "text/event-stream");
                if !coding.is_empty() {
                    response = response.header("content-encoding", coding);
                }
                let response = response.body(()).expect("a response");
                let mut body = respond.send_response(response, false).expect("an open stream");
                for event in events(coding) {
                    body.send_data(event, false).expect("an open stream");
                    told.recv().await.expect("a word");
                }
                driving.abort();
            } else {
                read_head(&mut stream).await;
                let encoding =
                    if coding.is_empty() { String::new() } else { format!("Content-Encoding: {coding}\r\n") };
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{encoding}Transfer-Encoding: chunked\r\n\r\n"
                );
                stream.write_all(head.as_bytes()).await.expect("writable");
                for event in events(coding) {
                    let chunk = [format!("{:x}\r\n", event.len()).as_bytes(), &event, b"\r\n"].concat();
                    stream.write_all(&chunk).await.expect("writable");
                    stream.flush().await.expect("writable");
                    told.recv().await.expect("a word");
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn each_event_arrives_before_the_next_is_sent() {
    for (h2, h2_upstream, coding) in [false, true]
        .into_iter()
        .flat_map(|a| [false, true].map(|b| (a, b)))
        .flat_map(|(a, b)| CODINGS.map(|c| (a, b, c)))
    {
        let (tell, told) = mpsc::channel(1);
        let stage = Stage::with(upstream(h2_upstream, coding, told).await, |builder| builder).await;
        let bearer = format!("Bearer {}", stage.reader().await);
        let agent = stage.sidecar.agent();
        let mut tunnel = if h2 { agent.tunnel_h2("api.test").await } else { agent.tunnel("api.test").await };
        let fields = [
            ("authorization", bearer.as_str()),
            ("accept-encoding", "gzip, br, zstd"),
            ("accept", "text/event-stream"),
        ];
        let mut response = tunnel.start(with("GET", "api.test", "/v1/stream", &fields, "")).await;
        assert_eq!(response.headers().contains_key("content-encoding"), !coding.is_empty());
        let mut so_far = Vec::new();
        for number in 0..EVENTS {
            let end = format!("word {number}\"}}\n\n");
            while !codings::open(coding, &so_far).0.ends_with(end.as_bytes()) {
                let frame = tokio::time::timeout(PATIENCE, response.body_mut().frame()).await;
                let frame = frame.unwrap_or_else(|_| panic!("event {number}: h2 {h2} {h2_upstream}, {coding}"));
                let data = frame.expect("more").expect("a frame").into_data().expect("data");
                so_far.extend_from_slice(&data);
            }
            tell.send(()).await.expect("an upstream");
        }
    }
}

#[test]
fn a_model_may_think_for_minutes() {
    let limits = valetkey::proxy::Limits::default();
    assert!(limits.idle_timeout.as_secs() > 120 && limits.upstream_head_timeout.as_secs() > 120);
}
