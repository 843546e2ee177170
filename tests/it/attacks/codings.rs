//! Upstreams that give back what they got in a content coding: any cut of it, over any pair of protocols, and bombs.

use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::request;
use crate::support::agent::with;
use crate::support::codings::{CODINGS, open, pack};
use crate::support::upstream::read_head;
use crate::support::{FakeUpstream, Stage};

/// An upstream that echoes the credential in a coding and in two pieces: `/coding/cut`.
async fn cutting(h2: bool) -> FakeUpstream {
    let alpn: &[u8] = if h2 { b"h2" } else { b"http/1.1" };
    FakeUpstream::played(&["api.test"], alpn, move |mut stream, _| async move {
        if h2 {
            let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
            while let Some(Ok((asked, mut respond))) = connection.accept().await {
                let credential = asked.headers()["authorization"].to_str().expect("text").to_owned();
                let (coding, one, two) = halves(asked.uri().path(), &credential);
                let head = http::Response::builder().header("content-encoding", coding).body(()).expect("an answer");
                let mut body = respond.send_response(head, false).expect("an open stream");
                body.send_data(one, false).expect("an open stream");
                body.send_data(two, true).expect("an open stream");
            }
            return;
        }
        loop {
            let head = read_head(&mut stream).await;
            let path = head.split(' ').nth(1).unwrap_or_default();
            let credential = head.lines().find_map(|line| line.split_once("uthorization: "));
            let Some((_, credential)) = credential else { return };
            let (coding, one, two) = halves(path, credential.trim());
            let fields = format!("HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nTransfer-Encoding: chunked\r\n\r\n");
            let chunk = |piece: &[u8]| [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
            for bytes in [[fields.as_bytes(), &chunk(&one)].concat(), [&chunk(&two)[..], b"0\r\n\r\n"].concat()] {
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
                let _ = stream.flush().await;
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        }
    })
    .await
}

/// Both pieces have something in them.
fn halves(path: &str, credential: &str) -> (String, Bytes, Bytes) {
    let (coding, cut) = path[1..].split_once('/').expect("a coding and a cut");
    let packed = Bytes::from(pack(coding, format!("<{credential}>").as_bytes()));
    let cut = cut.parse::<usize>().expect("a number").clamp(1, packed.len() - 1);
    (coding.to_owned(), packed.slice(..cut), packed.slice(cut..))
}

#[tokio::test]
async fn no_cut_of_any_coding_hides_it() {
    for (h2_upstream, h2) in [(false, false), (false, true), (true, false), (true, true)] {
        let stage = Stage::with(cutting(h2_upstream).await, |builder| builder).await;
        let bearer = format!("Bearer {}", stage.reader().await);
        let agent = stage.sidecar.agent();
        let mut tunnel = if h2 { agent.tunnel_h2("api.test").await } else { agent.tunnel("api.test").await };
        for coding in CODINGS {
            let bytes = pack(coding, format!("<Bearer {}>", stage.secret).as_bytes()).len();
            for cut in 1..bytes {
                let fields = [("authorization", bearer.as_str()), ("accept-encoding", coding)];
                let reply = tunnel.send(with("GET", "api.test", &format!("/{coding}/{cut}"), &fields, "")).await;
                assert_eq!(reply.headers["content-encoding"], coding);
                let (text, is_whole) = open(coding, &reply.body);
                let expected = format!("<Bearer {}>", "*".repeat(stage.secret.len()));
                assert_eq!(String::from_utf8_lossy(&text), expected, "{coding} cut at {cut}, h2 {h2_upstream} {h2}");
                assert!(is_whole, "{coding} cut at {cut}");
            }
        }
    }
}

#[tokio::test]
async fn what_the_agent_takes_and_can_be_opened_is_asked_for() {
    let stage = Stage::new().await;
    let bearer = format!("Bearer {}", stage.reader().await);
    for (offered, asked) in [
        ("gzip, deflate, br, zstd", "gzip, deflate, br, zstd"),
        ("zstd;q=1, compress, br;q=0.5, dcz, *;q=0.1", "zstd;q=1, br;q=0.5, gzip"),
        ("compress", "identity"),
    ] {
        let fields = [("authorization", bearer.as_str()), ("accept-encoding", offered)];
        stage.sidecar.agent().send(with("GET", "api.test", "/x", &fields, "")).await;
        let seen = stage.upstream.seen().pop().expect("a request");
        assert_eq!(seen.header("accept-encoding"), Some(asked), "{offered}");
    }
}

/// An answer in a coding, whole, and then the connection's end.
async fn sending(coding: &'static str, body: Vec<u8>) -> Stage {
    let body = Arc::new(body);
    let upstream = FakeUpstream::raw(&["api.test"], move |_| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: {}\r\n\r\n", body.len());
        [head.as_bytes(), &body].concat()
    });
    Stage::with(upstream.await, |builder| builder).await
}

/// All that comes back.
async fn answer(stage: &Stage) -> Vec<u8> {
    let nonce = stage.reader().await;
    let mut tunnel = stage.sidecar.agent().tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("a tunnel");
    let bytes = request("GET /x", "Accept-Encoding: gzip, deflate, br, zstd\r\n", &nonce, "");
    tunnel.write_all(&bytes).await.expect("writable");
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(crate::support::agent::PATIENCE * 3, tunnel.read_to_end(&mut answer)).await;
    answer
}

#[tokio::test]
async fn what_is_damaged_cut_or_followed_by_more_never_ends_well() {
    const TEXT: &[u8] = b"some text, some text, some text";
    for coding in CODINGS {
        let packed = pack(coding, TEXT);
        let cases = [
            ("whole", packed.clone(), true),
            ("cut", packed[..packed.len() - 1].to_vec(), false),
            ("followed by more", [&packed[..], b"and more"].concat(), false),
            ("something else", TEXT.to_vec(), false),
        ];
        for (case, body, ends_well) in cases {
            let stage = sending(coding, body).await;
            let answer = answer(&stage).await;
            assert_eq!(answer.ends_with(b"0\r\n\r\n"), ends_well, "{coding} {case}: {}", answer.escape_ascii());
        }
    }
}

/// What a bomb may take of memory, in KiB.
const BOMB_GROWTH_KIB_MAX: u64 = 24 * 1024;

/// 16 MiB of zeros in 14 bytes, in the largest window that there is.
const BROTLI_BOMB: [u8; 14] = [0xcf, 0xff, 0xff, 0x7f, 0x00, 0x24, 0x00, 0xe2, 0xb1, 0x40, 0x72, 0xef, 0xff, 0x07];

/// 256 MiB of zeros: 2048 blocks that say a byte and how often it comes.
fn zstd_bomb() -> Vec<u8> {
    let block = (0b010_u32 | (128 * 1024) << 3).to_le_bytes();
    let blocks = [block[0], block[1], block[2], 0].repeat(2048);
    [&[0x28, 0xb5, 0x2f, 0xfd, 0, 13 << 3][..], &blocks, &[1, 0, 0]].concat()
}

#[tokio::test]
async fn bombs_are_not_unpacked_into_memory() {
    let deflate = pack("deflate", &vec![0; 64 << 20]);
    for (coding, bomb) in [("deflate", deflate), ("br", BROTLI_BOMB.to_vec()), ("zstd", zstd_bomb())] {
        let stage = sending(coding, bomb).await;
        let before = stage.sidecar.status("VmHWM");
        let answer = answer(&stage).await;
        let grown = stage.sidecar.status("VmHWM") - before;
        assert!(grown < BOMB_GROWTH_KIB_MAX, "{coding}: {grown} KiB");
        assert!(answer.len() < 4 << 20 && !answer.ends_with(b"0\r\n\r\n"), "{coding}: {} bytes", answer.len());
    }
}
