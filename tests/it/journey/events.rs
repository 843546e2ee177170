//! Streams of events: each is with the agent before the upstream sends the next.

use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt as _;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Mutex, mpsc};

use crate::support::agent::{PATIENCE, with};
use crate::support::upstream::read_head;
use crate::support::{FakeUpstream, Stage};

const EVENTS: usize = 20;

/// The bytes of each event: plain, or one gzip stream that is flushed after each.
fn events(gzip: bool) -> Vec<Bytes> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    (0..EVENTS)
        .map(|number| {
            let event = format!("id: {number}\ndata: {{\"delta\": \"word {number}\"}}\n\n");
            if !gzip {
                return Bytes::from(event);
            }
            encoder.write_all(event.as_bytes()).expect("memory");
            encoder.flush().expect("memory");
            Bytes::from(std::mem::take(encoder.get_mut()))
        })
        .collect()
}

/// An upstream that sends an event only when it is told that the one before has arrived.
async fn upstream(h2: bool, gzip: bool, told: mpsc::Receiver<()>) -> FakeUpstream {
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
                if gzip {
                    response = response.header("content-encoding", "gzip");
                }
                let response = response.body(()).expect("a response");
                let mut body = respond.send_response(response, false).expect("an open stream");
                for event in events(gzip) {
                    body.send_data(event, false).expect("an open stream");
                    told.recv().await.expect("a word");
                }
                driving.abort();
            } else {
                read_head(&mut stream).await;
                let encoding = if gzip { "Content-Encoding: gzip\r\n" } else { "" };
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{encoding}Transfer-Encoding: chunked\r\n\r\n"
                );
                stream.write_all(head.as_bytes()).await.expect("writable");
                for event in events(gzip) {
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
    for (h2, h2_upstream, gzip) in [false, true]
        .into_iter()
        .flat_map(|a| [false, true].map(|b| (a, b)))
        .flat_map(|(a, b)| [false, true].map(|c| (a, b, c)))
    {
        let (tell, told) = mpsc::channel(1);
        let stage = Stage::with(upstream(h2_upstream, gzip, told).await, |builder| builder).await;
        let bearer = format!("Bearer {}", stage.reader().await);
        let agent = stage.sidecar.agent();
        let mut tunnel = if h2 { agent.tunnel_h2("api.test").await } else { agent.tunnel("api.test").await };
        let fields = [("authorization", bearer.as_str()), ("accept-encoding", "gzip"), ("accept", "text/event-stream")];
        let mut response = tunnel.start(with("GET", "api.test", "/v1/stream", &fields, "")).await;
        assert_eq!(response.headers().contains_key("content-encoding"), gzip);
        let mut decoder = flate2::write::GzDecoder::new(Vec::new());
        let mut text = Vec::new();
        for number in 0..EVENTS {
            let end = format!("word {number}\"}}\n\n");
            while !String::from_utf8_lossy(if gzip { decoder.get_ref() } else { &text }).ends_with(&end) {
                let frame = tokio::time::timeout(PATIENCE, response.body_mut().frame()).await;
                let frame = frame.unwrap_or_else(|_| panic!("event {number}: h2 {h2} {h2_upstream}, gzip {gzip}"));
                let data = frame.expect("more").expect("a frame").into_data().expect("data");
                if gzip {
                    decoder.write_all(&data).expect("gzip");
                    decoder.flush().expect("gzip");
                } else {
                    text.extend_from_slice(&data);
                }
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
