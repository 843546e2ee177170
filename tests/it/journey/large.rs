//! Large bodies stream through: what is held does not grow with them.

use std::sync::LazyLock;

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::Stage;
use crate::support::agent::get;
use crate::support::upstream::PIECE;

/// Pieces of 64 KiB in a body: 256 MiB, or as many MiB as `VALETKEY_TEST_LARGE_MIB` says.
static PIECES: LazyLock<usize> = LazyLock::new(|| {
    let mebibytes = std::env::var("VALETKEY_TEST_LARGE_MIB").ok();
    16 * mebibytes.map_or(256, |text| text.parse::<usize>().expect("VALETKEY_TEST_LARGE_MIB is a number"))
});
/// What the sidecar may hold more after both than before, in KiB: buffers, not bodies.
const GROWTH_KIB_MAX: u64 = 16 * 1024;

async fn download(stage: &Stage, h2: bool) {
    let nonce = stage.reader().await;
    let agent = stage.sidecar.agent();
    let mut tunnel = if h2 { agent.tunnel_h2("api.test").await } else { agent.tunnel("api.test").await };
    let mut response = tunnel.start(get("api.test", &format!("/large?pieces={}", *PIECES), &nonce)).await;
    let mut count = 0;
    while let Some(frame) = response.body_mut().frame().await {
        let frame = frame.expect("a frame");
        let data = frame.data_ref().expect("data");
        assert!(data.iter().all(|byte| *byte == b'p'), "unchanged");
        count += data.len();
    }
    assert_eq!(count, *PIECES * PIECE.len(), "h2 {h2}");
}

async fn upload(stage: &Stage, h2: bool) {
    let nonce = stage.writer().await;
    let pieces =
        (0..*PIECES).map(|_| Ok::<_, std::convert::Infallible>(http_body::Frame::data(Bytes::from_static(&PIECE))));
    let body = StreamBody::new(futures_util::stream::iter(pieces));
    let request = http::Request::post("https://api.test/sink").header("authorization", format!("Bearer {nonce}"));
    let alpn: &[u8] = if h2 { b"h2" } else { b"http/1.1" };
    let io = TokioIo::new(stage.sidecar.agent().tls_tunnel("api.test", "api.test", &[alpn]).await.expect("TLS"));
    let response = if h2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
        tokio::spawn(connection);
        sender.send_request(request.body(body).expect("a request")).await
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        let request = request.uri("/sink").header("host", "api.test");
        sender.send_request(request.body(body).expect("a request")).await
    };
    let counted = response.expect("an answer").into_body().collect().await.expect("a body").to_bytes();
    assert_eq!(counted, (*PIECES * PIECE.len()).to_string(), "h2 {h2}");
}

#[tokio::test]
async fn large_bodies_each_way_do_not_stay() {
    let stage = Stage::new().await;
    // What is made once is there before the measure is taken.
    let nonce = stage.reader().await;
    for _ in 0..3 {
        stage.sidecar.agent().get("api.test", "/large?pieces=20", &nonce).await;
    }
    let before = stage.sidecar.status("VmRSS");
    for h2 in [false, true] {
        download(&stage, h2).await;
        upload(&stage, h2).await;
    }
    // The most that it ever was: what was held meanwhile and given back counts too.
    let after = stage.sidecar.status("VmHWM");
    assert!(after < before + GROWTH_KIB_MAX, "from {before} to {after} KiB");
    let sum = (*PIECES * PIECE.len()) as u64;
    let whole = |field: &'static str| move |record: &serde_json::Value| record["type"] == "end" && record[field] == sum;
    stage.sidecar.audited(whole("response_bytes")).await;
    stage.sidecar.audited(whole("request_bytes")).await;
}

#[tokio::test]
async fn a_reader_that_stops_holds_the_writer_up() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let before = stage.sidecar.status("VmRSS");
    let mut open = Vec::new();
    for _ in 0..8 {
        let mut tunnel = stage.sidecar.agent().tunnel("api.test").await;
        let response = tunnel.start(get("api.test", &format!("/large?pieces={}", *PIECES), &nonce)).await;
        open.push((tunnel, response));
    }
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let after = stage.sidecar.status("VmRSS");
    // Eight answers of 50 MiB that nobody reads: some buffers each, never the bodies.
    assert!(after < before + 4 * GROWTH_KIB_MAX, "from {before} to {after} KiB");
}

/// A byte at a time, over sockets whose buffers take what they are sent.
#[tokio::test]
async fn a_reader_of_a_byte_at_a_time_holds_the_writer_up() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let before = stage.sidecar.status("VmRSS");
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut stream = stage.sidecar.agent().tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("TLS");
        let head = format!(
            "GET /large?pieces={} HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\n\r\n",
            *PIECES
        );
        stream.write_all(head.as_bytes()).await.expect("writable");
        open.push(stream);
    }
    for _ in 0..40 {
        for stream in &mut open {
            stream.read_u8().await.expect("the answer goes on");
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    let after = stage.sidecar.status("VmHWM");
    assert!(after < before + 2 * GROWTH_KIB_MAX, "from {before} to {after} KiB");
    drop(open);
    let end = stage.sidecar.audited(|record| record["type"] == "end").await;
    assert_eq!(end["ending"], "client_gone", "{end:#}");
    assert!(end["response_bytes"].as_u64().expect("a number") < 32 * 1024 * 1024, "{end:#}");
}
