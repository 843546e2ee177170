//! Upstreams that have much to say before they answer.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::upstream::read_head;
use crate::support::{FakeUpstream, Stage, policies};

/// How many interim heads come before the answer over HTTP/2.
const HEADS: usize = 60_000;
/// What they may take at most, in KiB; kept all, they would take some 30 MiB.
const GROWTH_KIB_MAX: u64 = 16 * 1024;

const PREFACE_BYTES: usize = 24;
const SETTINGS: u8 = 4;
const HEADERS: u8 = 1;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A frame of less than 256 bytes (RFC 9113, 4.1).
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("short");
    [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
}

/// 103 again and again, each of eleven bytes once the first has filled the table (RFC 7541, 6.1 and 6.2.1); then 200.
async fn hints(count: usize) -> FakeUpstream {
    FakeUpstream::played(&["api.test"], b"h2", move |mut stream, _| async move {
        stream.read_exact(&mut [0; PREFACE_BYTES]).await.expect("a preface");
        let mut head = [0; 9];
        while head[3] != HEADERS {
            stream.read_exact(&mut head).await.expect("a frame");
            let length = usize::from(u16::from_be_bytes([head[1], head[2]]));
            stream.read_exact(&mut vec![0; length]).await.expect("its payload");
        }
        let first = frame(HEADERS, END_HEADERS, 1, b"\x48\x03103\x40\x04link\x03</>");
        let opening = [frame(SETTINGS, 0, 0, b""), frame(SETTINGS, ACK, 0, b""), first].concat();
        stream.write_all(&opening).await.expect("writable");
        let many = frame(HEADERS, END_HEADERS, 1, b"\xbf\xbe");
        let last = frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x88");
        let rest = [many.repeat(count - 1), last].concat();
        for piece in rest.chunks(8_000) {
            // It may be hung up.
            let _ = stream.write_all(piece).await;
        }
        let _ = stream.flush().await;
        // Until it is hung up.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await
}

#[tokio::test]
async fn a_flood_of_interim_heads_is_not_kept() {
    // One of them reads, while the other waits for the answer.
    let two = |builder: crate::support::Builder| builder.environment("TOKIO_WORKER_THREADS", "2");
    let stage = Stage::of(policies::ONE_API, hints(HEADS).await, two).await;
    let nonce = stage.reader().await;
    // What a first tunnel takes is no matter here; the nonce would end where it is not meant to be.
    assert_eq!(stage.sidecar.agent().get("other.test", "/x", "an_none").await.status, 403);
    let before = stage.sidecar.status("VmHWM");
    assert_eq!(stage.sidecar.agent().get("api.test", "/x", &nonce).await.status, 502);
    let after = stage.sidecar.status("VmHWM");
    assert!(after < before + GROWTH_KIB_MAX, "from {before} to {after} KiB");
}

/// The library tells of none of them.
#[tokio::test]
async fn over_http_2_too_many_interim_heads_end_the_connection() {
    for (count, status) in [(1, 200), (64, 200), (67, 502)] {
        let stage = Stage::with(hints(count).await, |builder| builder).await;
        let nonce = stage.reader().await;
        let reply = stage.sidecar.agent().get("api.test", "/x", &nonce).await;
        assert_eq!(reply.status, status, "{count}: {}", reply.text());
        assert_eq!(stage.upstream.connections(), 1, "{count}: asked once");
    }
}

/// An upstream over HTTP/1.1 that sends so many hints and then answers; without end, where there is no number.
async fn hinting(hints: Option<usize>) -> FakeUpstream {
    FakeUpstream::played(&["api.test"], b"http/1.1", move |mut stream, _| async move {
        read_head(&mut stream).await;
        let hint = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
        match hints {
            // Until it is hung up.
            None => while stream.write_all(hint.repeat(100).as_bytes()).await.is_ok() {},
            Some(count) => {
                let answer = hint.repeat(count) + "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        }
    })
    .await
}

/// The time for an answer's head is not shortened: it is not what ends this.
#[tokio::test]
async fn interim_heads_without_end_end_the_exchange() {
    for (hints, status) in [(Some(64), 200), (Some(65), 502), (None, 502)] {
        let stage = Stage::with(hinting(hints).await, |builder| builder).await;
        let nonce = stage.reader().await;
        let reply = stage.sidecar.agent().get("api.test", "/x", &nonce).await;
        assert_eq!(reply.status, status, "{hints:?}: {}", reply.text());
    }
}
