//! HTTP/2 by hand, the states: frames that are well formed and come where they do not belong (RFC 9113, 5.1 and 6; RFC
//! 7541, 4.2 and 5.2), and odd ones that belong.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PRIORITY, RST_STREAM, SETTINGS, WHOLE, WINDOW_UPDATE,
};
use super::frames::{block, frame, speak, usual};
use crate::support::{FakeUpstream, Stage};

const GOAWAY: u8 = 7;
const PADDED: u8 = 8;
const WITH_PRIORITY: u8 = 32;
const CANCEL: [u8; 4] = 8u32.to_be_bytes();

/// A stream that no frame is about, so that only the end of the connection ends the wait.
const NONE: u32 = 99;

fn setting(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

#[tokio::test]
async fn what_comes_where_it_does_not_belong_ends_its_stream_or_the_connection() {
    let stage = Stage::new().await;
    let bearer = format!("Bearer {}", stage.writer().await);
    let head = block(&usual("POST", "/x", &bearer));
    let other = block(&usual("POST", "/other", &bearer));
    let open = |flags| frame(HEADERS, flags, 1, &head);
    let whole = open(WHOLE);
    let reset = [open(END_HEADERS), frame(RST_STREAM, 0, 1, &CANCEL)].concat();
    // Names of pseudo fields are written as any others are.
    let trailers = |name: &str| frame(HEADERS, WHOLE, 1, &block(&[(name, "/evil")]));
    // A new name, `x-test`, of which Huffman code is well formed.
    let huffman = [0, 0x85, 0xf2, 0xb2, 0x4a, 0x84, 0xff];
    for (what, frames) in [
        ("data after the end", [&whole[..], &frame(DATA, END_STREAM, 1, b"x")].concat()),
        ("a head after the end", [&whole[..], &frame(HEADERS, WHOLE, 1, &other)].concat()),
        ("more of a head after the end", [&whole[..], &frame(CONTINUATION, END_HEADERS, 1, &other)].concat()),
        ("data after a reset", [&reset[..], &frame(DATA, END_STREAM, 1, b"x")].concat()),
        ("a head after a reset", [&reset[..], &frame(HEADERS, WHOLE, 1, &other)].concat()),
        ("more of a head after a reset", [&reset[..], &frame(CONTINUATION, END_HEADERS, 1, &other)].concat()),
        (
            "more of a head after data",
            [&open(END_HEADERS)[..], &frame(DATA, 0, 1, b"x"), &frame(CONTINUATION, 4, 1, &other)].concat(),
        ),
        ("more of a head that was whole", [&open(END_HEADERS)[..], &frame(CONTINUATION, 4, 1, &other)].concat()),
        ("more of no stream's head", [&open(0)[..], &frame(CONTINUATION, END_HEADERS, 0, &other)].concat()),
        ("another's head within a head", [&open(END_STREAM)[..], &frame(HEADERS, WHOLE, 3, &other)].concat()),
        ("a priority within a head", [&open(END_STREAM)[..], &frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])].concat()),
        ("the unknown within a head", [&open(END_STREAM)[..], &frame(0xbb, 0, 1, b"x")].concat()),
        ("a second head that ends nothing", [&open(END_HEADERS)[..], &frame(HEADERS, END_HEADERS, 1, &other)].concat()),
        ("a path in trailers", [&open(END_HEADERS)[..], &trailers(":path")].concat()),
        ("an authority in trailers", [&open(END_HEADERS)[..], &trailers(":authority")].concat()),
        ("an upper-case name in trailers", [&open(END_HEADERS)[..], &trailers("X-Upper")].concat()),
        (
            "a stream that waits for itself",
            frame(HEADERS, WHOLE | WITH_PRIORITY, 1, &[&[0, 0, 0, 1, 16], &head[..]].concat()),
        ),
        ("a window of nothing", [&open(END_HEADERS)[..], &frame(WINDOW_UPDATE, 0, 1, &[0; 4])].concat()),
        (
            "a window beyond 2^31",
            [&open(END_HEADERS)[..], &frame(WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0xff, 0xff])].concat(),
        ),
        ("more padding than data", [&open(END_HEADERS)[..], &frame(DATA, END_STREAM | PADDED, 1, &[9, b'x'])].concat()),
        ("a table sized after its use", frame(HEADERS, WHOLE, 1, &[&head[..], &[0x20]].concat())),
        (
            "eight bits of Huffman padding",
            frame(HEADERS, WHOLE, 1, &[&head[..], &[&huffman[..], &[0x84, 0x49, 0x50, 0x9f, 0xff]].concat()].concat()),
        ),
        (
            "Huffman padding of zeros",
            frame(HEADERS, WHOLE, 1, &[&head[..], &[&huffman[..], &[0x83, 0x49, 0x50, 0x90]].concat()].concat()),
        ),
        (
            "the end of a string within it",
            frame(
                HEADERS,
                WHOLE,
                1,
                &[&head[..], &[&huffman[..], &[0x87, 0x49, 0x51, 0xff, 0xff, 0xff, 0xfa, 0x7f]].concat()].concat(),
            ),
        ),
        ("a head longer than may be", frame(HEADERS, WHOLE, 1, &vec![0; 20_000])),
    ] {
        let said = speak(&stage, &frames, 1).await;
        assert!(said.ended() || said.over.contains(&1), "{what}: {said:?}");
        let seen = stage.upstream.seen();
        assert!(seen.iter().all(|seen| seen.target == "/x"), "{what}: {seen:?}");
    }
    let late = stage.upstream.seen().iter().any(|seen| seen.body.contains(&b'x'));
    assert!(!late, "nothing that came too late belongs to a body");
}

#[tokio::test]
async fn frames_of_the_connection_that_are_wrong_end_it() {
    let stage = Stage::new().await;
    let bearer = format!("Bearer {}", stage.reader().await);
    let head = block(&usual("GET", "/stall", &bearer));
    for (what, frames) in [
        ("a priority of no stream", frame(PRIORITY, 0, 0, &[0, 0, 0, 3, 1])),
        ("a reset of no stream", frame(RST_STREAM, 0, 0, &CANCEL)),
        ("a reset of three bytes", [frame(HEADERS, WHOLE, 1, &head), frame(RST_STREAM, 0, 1, &[0; 3])].concat()),
        ("a farewell of a stream", frame(GOAWAY, 0, 1, &[0; 8])),
        ("frames beyond 2^24", setting(5, 1 << 24)),
        ("a window of an idle stream", frame(WINDOW_UPDATE, 0, 1, &1u32.to_be_bytes())),
        ("an initial window that lifts another beyond 2^31", {
            let lifted = frame(WINDOW_UPDATE, 0, 1, &0x7fff_0000u32.to_be_bytes());
            [setting(4, 100), frame(HEADERS, WHOLE, 1, &head), lifted, setting(4, 0x7fff_ffff)].concat()
        }),
    ] {
        let said = speak(&stage, &frames, NONE).await;
        assert!(said.ended(), "{what}: {said:?}");
    }
}

#[tokio::test]
async fn streams_beyond_the_number_that_was_said_are_refused() {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let stage = Stage::with(upstream, |builder| builder.flag("--streams-max").flag("3")).await;
    let bearer = format!("Bearer {}", stage.reader().await);
    let head = block(&usual("GET", "/stall", &bearer));
    let frames: Vec<u8> = [1, 3, 5, 7].into_iter().flat_map(|stream| frame(HEADERS, WHOLE, stream, &head)).collect();
    let said = speak(&stage, &frames, 7).await;
    assert!(said.ended() || said.over.contains(&7), "{said:?}");
    assert!(stage.upstream.seen().len() <= 3, "{:?}", stage.upstream.seen());
}

#[tokio::test]
async fn what_is_odd_and_allowed_is_one_request_as_it_was_meant() {
    let stage = Stage::new().await;
    let bearer = format!("Bearer {}", stage.writer().await);
    let head = block(&usual("POST", "/x", &bearer));
    let (one, rest) = head.split_at(1);
    let (two, three) = rest.split_at(20);
    let large = vec![b'y'; 16_384];
    let undefined = !(PADDED | WITH_PRIORITY);
    let mut reserved = frame(HEADERS, WHOLE, 1, &head);
    reserved[5] |= 0x80;
    for (what, frames, body) in [
        ("flags that mean nothing", frame(HEADERS, undefined, 1, &head), ""),
        ("the reserved bit", reserved, ""),
        (
            "a head in three",
            [
                frame(HEADERS, END_STREAM, 1, one),
                frame(CONTINUATION, 0, 1, two),
                frame(CONTINUATION, END_HEADERS, 1, three),
            ]
            .concat(),
            "",
        ),
        (
            "a priority with it",
            frame(HEADERS, WHOLE | WITH_PRIORITY, 1, &[&[0x80, 0, 0, 3, 255], &head[..]].concat()),
            "",
        ),
        ("a table that is emptied first", frame(HEADERS, WHOLE, 1, &[&[0x20], &head[..]].concat()), ""),
        (
            "a priority of a stream to come",
            [frame(PRIORITY, 0, 9, &[0, 0, 0, 3, 16]), frame(HEADERS, WHOLE, 1, &head)].concat(),
            "",
        ),
        (
            "a body with padding and nothing between",
            [
                frame(HEADERS, END_HEADERS, 1, &head),
                frame(DATA, PADDED, 1, &[2, b'a', 0, 0]),
                frame(DATA, 0, 1, b""),
                frame(DATA, PADDED | END_STREAM, 1, &[0, b'b']),
            ]
            .concat(),
            "ab",
        ),
        (
            "the largest frame that may be",
            [frame(HEADERS, END_HEADERS, 1, &head), frame(DATA, END_STREAM, 1, &large)].concat(),
            std::str::from_utf8(&large).expect("ASCII"),
        ),
        (
            "trailers",
            [
                frame(HEADERS, END_HEADERS, 1, &head),
                frame(DATA, 0, 1, b"ab"),
                frame(HEADERS, WHOLE, 1, &block(&[("x-sum", "1")])),
            ]
            .concat(),
            "ab",
        ),
    ] {
        let before = stage.upstream.seen().len();
        let said = speak(&stage, &frames, 1).await;
        assert_eq!((said.ended(), &said.over[..]), (false, &[1][..]), "{what}");
        let seen = stage.upstream.seen();
        assert_eq!(seen.len(), before + 1, "{what}");
        let last = seen.last().expect("one");
        assert_eq!((last.target.as_str(), &last.body[..]), ("/x", body.as_bytes()), "{what}");
    }
}

const PREFACE_BYTES: usize = 24;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const ACK: u8 = 1;
/// `:status: 200`, and a field whose name is written out.
const OK: u8 = 0x88;

/// An upstream that says this once it was asked.
async fn saying(frames: Vec<u8>) -> FakeUpstream {
    FakeUpstream::played(&["api.test"], b"h2", move |mut stream, _| {
        let frames = frames.clone();
        async move {
            stream.read_exact(&mut [0; PREFACE_BYTES]).await.expect("a preface");
            let mut head = [0; 9];
            while head[3] != HEADERS {
                stream.read_exact(&mut head).await.expect("a frame");
                let length = usize::from(u16::from_be_bytes([head[1], head[2]]));
                stream.read_exact(&mut vec![0; length]).await.expect("its payload");
            }
            let opening = [frame(SETTINGS, 0, 0, b""), frame(SETTINGS, ACK, 0, b""), frames].concat();
            // It may be hung up, which ends this.
            let _ = stream.write_all(&opening).await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    })
    .await
}

#[tokio::test]
async fn an_upstream_that_breaks_the_protocol_has_not_answered() {
    let pushed = block(&usual("GET", "/pushed", "none"));
    for (what, frames) in [
        ("a push", frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2], &pushed[..]].concat())),
        ("data before its head", frame(DATA, END_STREAM, 1, b"x")),
        ("data of no stream", frame(DATA, END_STREAM, 0, b"x")),
        ("an answer to nobody", frame(HEADERS, WHOLE, 5, &[OK])),
        ("an answer on no stream", frame(HEADERS, WHOLE, 0, &[OK])),
        ("a stream of its own", frame(HEADERS, WHOLE, 2, &[OK])),
        ("more of no head", frame(CONTINUATION, END_HEADERS, 1, &[OK])),
        ("a head that another frame breaks", [frame(HEADERS, 0, 1, &[OK]), frame(PING, 0, 0, &[0; 8])].concat()),
        ("an index that is not there", frame(HEADERS, WHOLE, 1, &[OK, 0xff, 0x7f])),
        ("no status", frame(HEADERS, WHOLE, 1, &block(&[("x", "1")]))),
        ("two of them", frame(HEADERS, WHOLE, 1, &[OK, OK])),
        ("one that is none", frame(HEADERS, WHOLE, 1, &block(&[(":status", "2000")]))),
        ("an upper-case name", frame(HEADERS, WHOLE, 1, &[&[OK], &block(&[("X-Upper", "1")])[..]].concat())),
        ("a field of a connection", frame(HEADERS, WHOLE, 1, &[&[OK], &block(&[("connection", "x")])[..]].concat())),
        ("a value of two lines", frame(HEADERS, WHOLE, 1, &[&[OK], &block(&[("x", "1\r\ny: 2")])[..]].concat())),
        ("a window of nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        ("frames beyond 2^24", setting(5, 1 << 24)),
        ("a short ping", frame(PING, 0, 0, b"1234567")),
        ("a reset", frame(RST_STREAM, 0, 1, &2u32.to_be_bytes())),
    ] {
        let stage =
            Stage::with(saying(frames).await, |builder| builder.flag("--upstream-head-timeout").flag("30s")).await;
        let nonce = stage.reader().await;
        let reply = stage.sidecar.agent().get("api.test", "/x", &nonce).await;
        assert_eq!((reply.status.as_u16(), reply.refusal()), (502, Some("upstream_unreachable")), "{what}");
        stage.assert_clean(&reply.everything(), what);
        assert_eq!(stage.upstream.connections(), 1, "{what}: asked once");
    }
    let stage = Stage::with(saying(frame(HEADERS, WHOLE, 1, &[OK])).await, |builder| builder).await;
    let nonce = stage.reader().await;
    let reply = stage.sidecar.agent().get("api.test", "/x", &nonce).await;
    assert_eq!(reply.status, 200, "so that the others failed for what they were");
}
