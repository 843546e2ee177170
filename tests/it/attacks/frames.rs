//! HTTP/2 by hand: heads and frames that no library would send.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::mutations::strict;
use super::reading::Message;
use crate::support::agent::PATIENCE;
use crate::support::{FakeUpstream, Stage};

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
/// A head without a body.
pub(super) const WHOLE: u8 = END_STREAM | END_HEADERS;

type Fields<'a> = Vec<(&'a str, &'a str)>;

/// A frame (RFC 9113, 4.1).
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A length of a string that is not Huffman coded (RFC 7541, 5.1).
fn length(text: &[u8]) -> Vec<u8> {
    let Some(mut rest) = text.len().checked_sub(127) else { return vec![u8::try_from(text.len()).expect("short")] };
    let mut bytes = vec![127];
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).expect("small") | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).expect("small"));
    bytes
}

/// A field that begins with this byte: 0 for none in a table, 64 for one more in the dynamic table.
pub(super) fn field(kind: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[kind], &length(name)[..], name, &length(value), value].concat()
}

pub(super) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| field(0, name.as_bytes(), value.as_bytes())).collect()
}

/// The fields of a request that is as it should be.
pub(super) fn usual<'a>(method: &'a str, path: &'a str, bearer: &'a str) -> Fields<'a> {
    let pseudo = [(":method", method), (":scheme", "https"), (":authority", "api.test"), (":path", path)];
    pseudo.into_iter().chain([("authorization", bearer)]).collect()
}

/// What the sidecar said in frames.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// Why it ended the connection.
    pub goaway: Option<u32>,
    /// The streams that it reset or answered to the end.
    pub over: Vec<u32>,
    /// Whether it closed the connection.
    pub closed: bool,
}

impl Said {
    pub fn ended(&self) -> bool {
        self.goaway.is_some() || self.closed
    }
}

/// The usual opening, then these frames; what was said until the connection or this stream was over.
pub(super) async fn speak(stage: &Stage, frames: &[u8], stream: u32) -> Said {
    let opening = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, b"")[..]].concat();
    say(stage, b"h2", &[&opening, frames].concat(), stream).await
}

/// These bytes in a tunnel with this protocol.
async fn say(stage: &Stage, alpn: &[u8], bytes: &[u8], last: u32) -> Said {
    let opened = stage.sidecar.agent().tls_tunnel("api.test", "api.test", &[alpn]).await.expect("TLS");
    let (mut from, mut to) = tokio::io::split(opened);
    let saying = async {
        let _ = to.write_all(bytes).await;
        let _ = to.flush().await;
        std::future::pending::<()>().await;
    };
    let mut said = Said::default();
    let hearing = async {
        while !said.ended() && !said.over.contains(&last) {
            let mut head = [0; 9];
            let is_there = from.read_exact(&mut head).await.is_ok();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            if !is_there || from.read_exact(&mut payload).await.is_err() {
                said.closed = true;
                return;
            }
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            match head[3] {
                GOAWAY => said.goaway = Some(u32::from_be_bytes([payload[4], payload[5], payload[6], payload[7]])),
                RST_STREAM => said.over.push(stream),
                DATA | HEADERS if head[4] & END_STREAM != 0 => said.over.push(stream),
                _ => {}
            }
        }
    };
    tokio::select! {
        () = saying => {}
        heard = tokio::time::timeout(PATIENCE, hearing) => heard.expect("an end"),
    }
    said
}

#[tokio::test]
async fn heads_that_are_malformed_reach_nobody() {
    let (upstream, notes) = strict().await;
    let stage = Stage::with(upstream, |builder| builder).await;
    let bearer = format!("Bearer {}", stage.reader().await);
    let usual = usual("GET", "/x", &bearer);
    let mut cases: Vec<Fields> = Vec::new();
    for (at, values) in [
        (0, &["GE T", "GET\r\n", "GET\0", "", "GET /x HTTP/1.1\r\nX:", "GET\u{e9}"][..]),
        (1, &["ht tps", "https\r\n", "https\0", "", "https://api.test/"]),
        (2, &["api.test\r\nX: 1", "api.test x", "api.test\0", "api.test\t", "api.test/x"]),
        (3, &["/x y", "/x\r\nX: 1", "/x\0", "", "x", "/x\n", "/x\t", "/x\u{7f}", "https://evil.test/x"]),
    ] {
        cases.extend(values.iter().map(|value| {
            let mut fields = usual.clone();
            fields[at].1 = value;
            fields
        }));
        // There twice, and not at all.
        cases.push([&usual[at..=at], &usual].concat());
        cases.push([&usual[..at], &usual[at + 1..]].concat());
        // After the others.
        cases.push([&usual[..at], &usual[at + 1..], &usual[at..=at]].concat());
    }
    for (name, value) in [
        ("x\r\ny", "1"),
        ("x\0", "1"),
        ("x y", "1"),
        ("", "1"),
        ("X-Upper", "1"),
        ("x:y", "1"),
        ("x\u{e9}", "1"),
        (":unknown", "1"),
        (":status", "200"),
        (":protocol", "websocket"),
        ("x", "1\r\ny: 2"),
        ("x", "1\0"),
        ("x", "1\n"),
        ("x", "1\r"),
        ("connection", "keep-alive"),
        ("connection", "close, x"),
        ("te", "gzip"),
        ("te", "trailers, gzip"),
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("upgrade", "h2c"),
        ("keep-alive", "1"),
        ("proxy-connection", "close"),
        ("content-length", "x"),
        ("content-length", "-1"),
        ("content-length", "1, 1"),
    ] {
        cases.push([&usual[..], &[(name, value)]].concat());
    }
    for fields in &cases {
        let said = speak(&stage, &frame(HEADERS, WHOLE, 1, &block(fields)), 1).await;
        assert!(said.ended() || said.over == [1], "{fields:?}: {said:?}");
        assert_eq!(notes.lock().expect("not poisoned").messages, [], "{fields:?}");
    }
    assert!(notes.lock().expect("not poisoned").wrong.is_empty());
    speak(&stage, &frame(HEADERS, WHOLE, 1, &block(&usual)), 1).await;
    assert_eq!(notes.lock().expect("not poisoned").messages.len(), 1, "so that the others failed for what they were");
}

#[tokio::test]
async fn a_body_of_another_length_than_was_said_is_no_whole_request() {
    let (upstream, notes) = strict().await;
    let stage = Stage::with(upstream, |builder| builder).await;
    let bearer = format!("Bearer {}", stage.writer().await);
    let head = |lengths: &[&'static str], flags| {
        let mut fields = usual("POST", "/x", &bearer);
        fields.extend(lengths.iter().map(|length| ("content-length", *length)));
        frame(HEADERS, flags, 1, &block(&fields))
    };
    let data = |text: &str, flags| frame(DATA, flags, 1, text.as_bytes());
    for frames in [
        [head(&["5"], END_HEADERS), data("abc", END_STREAM)].concat(),
        [head(&["3"], END_HEADERS), data("abcde", END_STREAM)].concat(),
        [head(&["3"], END_HEADERS), data("abc", 0), data("d", END_STREAM)].concat(),
        [head(&["0"], END_HEADERS), data("a", END_STREAM)].concat(),
        [head(&["3", "5"], END_HEADERS), data("abc", END_STREAM)].concat(),
        [head(&["03"], END_HEADERS), data("abc", END_STREAM)].concat(),
        [head(&["+3"], END_HEADERS), data("abc", END_STREAM)].concat(),
        head(&["5"], WHOLE),
    ] {
        let said = speak(&stage, &frames, 1).await;
        assert!(said.ended() || said.over == [1], "{said:?}");
        let notes = notes.lock().expect("not poisoned");
        assert!(notes.messages.is_empty() && notes.wrong.is_empty(), "{frames:?} {:?}", notes.messages);
    }
    speak(&stage, &[head(&["3"], END_HEADERS), data("abc", END_STREAM)].concat(), 1).await;
    let whole = Message { method: "POST".to_owned(), target: "/x".to_owned(), body: b"abc".to_vec() };
    assert_eq!(notes.lock().expect("not poisoned").messages, [whole]);
}

#[tokio::test]
async fn connect_over_http_2_opens_nothing() {
    let stage = Stage::new().await;
    let bearer = format!("Bearer {}", stage.reader().await);
    let mut cases: Vec<Fields> = Vec::new();
    for authority in ["evil.test:443", "api.test:443", "api.test", "127.0.0.1:22"] {
        cases.push(vec![(":method", "CONNECT"), (":authority", authority), ("authorization", &bearer)]);
    }
    for (method, protocol, authority) in [
        ("CONNECT", "connect-udp", "api.test"),
        ("CONNECT", "connect-ip", "api.test"),
        ("CONNECT", "webtransport", "api.test"),
        ("CONNECT", "websocket", "evil.test"),
        ("CONNECT", "", "api.test"),
        ("CONNECT", "websocket", "api.test"),
        ("GET", "websocket", "api.test"),
        ("CONNECT", "h2c", "api.test"),
    ] {
        let mut fields = usual(method, "/x", &bearer);
        fields[2].1 = authority;
        fields.insert(4, (":protocol", protocol));
        cases.push(fields);
    }
    for fields in &cases {
        let said = speak(&stage, &frame(HEADERS, END_HEADERS, 1, &block(fields)), 1).await;
        assert!(said.ended() || said.over == [1], "{fields:?}: {said:?}");
    }
    assert!(stage.upstream.seen().is_empty(), "{:?}", stage.upstream.seen());
}

#[tokio::test]
async fn frames_that_break_the_protocol_end_the_connection() {
    let stage = Stage::new().await;
    let bearer = format!("Bearer {}", stage.reader().await);
    let head = block(&usual("GET", "/x", &bearer));
    let setting = |id: u16, value: u32| frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat());
    let window = |stream, by: u32| frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
    for (what, frames) in [
        ("a window beyond 2^31", window(0, 0x7fff_ffff)),
        ("a window of nothing", window(0, 0)),
        ("a short window", frame(WINDOW_UPDATE, 0, 0, b"abc")),
        ("an initial window beyond 2^31", setting(4, 0x8000_0000)),
        ("frames of nothing", setting(5, 0)),
        ("push by number", setting(2, 7)),
        ("settings of five bytes", frame(SETTINGS, 0, 0, b"abcde")),
        ("settings of a stream", frame(SETTINGS, 0, 1, b"")),
        ("an acknowledgement with a payload", frame(SETTINGS, 1, 0, &[0; 6])),
        ("a head on no stream", frame(HEADERS, WHOLE, 0, &head)),
        ("a head on an even stream", frame(HEADERS, WHOLE, 2, &head)),
        ("data on an idle stream", frame(DATA, END_STREAM, 5, b"x")),
        ("data on no stream", frame(DATA, 0, 0, b"x")),
        ("a reset of an idle stream", frame(RST_STREAM, 0, 5, &[0; 4])),
        ("a short ping", frame(PING, 0, 0, b"1234567")),
        ("a ping on a stream", frame(PING, 0, 1, b"12345678")),
        ("a continuation of nothing", frame(CONTINUATION, END_HEADERS, 1, &head)),
        (
            "a head that another frame breaks",
            [frame(HEADERS, END_STREAM, 1, &head), frame(PING, 0, 0, &[0; 8])].concat(),
        ),
        ("more padding than frame", frame(HEADERS, WHOLE | PADDED, 1, &[&[255], &head[..20]].concat())),
        ("a frame that is too large", frame(DATA, 0, 1, &vec![0; 17_000])),
        ("a push by a client", frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2], &head[..]].concat())),
        ("an index that is not there", frame(HEADERS, WHOLE, 1, &[0xff, 0x7f])),
        ("index 0", frame(HEADERS, WHOLE, 1, &[0x80])),
        ("a table beyond its size", frame(HEADERS, WHOLE, 1, &[&[0x3f, 0xff, 0xff, 0x7f], &head[..]].concat())),
        ("an integer without end", frame(HEADERS, WHOLE, 1, &[0xff; 64])),
        ("Huffman code that is none", frame(HEADERS, WHOLE, 1, &[0x00, 0x84, 0xff, 0xff, 0xff, 0xff, 0x01, b'x'])),
    ] {
        let said = speak(&stage, &frames, 99).await;
        assert!(said.ended(), "{what}: {said:?}");
    }
    assert!(stage.upstream.seen().is_empty(), "{:?}", stage.upstream.seen());
    // Streams go on upwards alone; the first of these two is a request.
    for (first, second) in [(3, 1), (1, 1), (0x7fff_ffff, 1)] {
        let heads = [frame(HEADERS, WHOLE, first, &head), frame(HEADERS, WHOLE, second, &head)].concat();
        let before = stage.upstream.seen().len();
        let said = speak(&stage, &heads, 99).await;
        assert!(said.ended(), "{first} and {second}: {said:?}");
        assert!(stage.upstream.seen().len() <= before + 1, "{first} and {second}");
    }
}

#[tokio::test]
async fn what_is_unknown_is_passed_over() {
    let stage = Stage::new().await;
    let bearer = format!("Bearer {}", stage.reader().await);
    let grease = [0x0a, 0x0a, 1, 2, 3, 4, 0xfa, 0xfa, 0xff, 0xff, 0xff, 0xff];
    let padded = [&[3], &block(&usual("GET", "/x", &bearer))[..], b"\0\0\0"].concat();
    let frames = [
        frame(SETTINGS, 0, 0, &grease),
        frame(0x0b, 0xff, 0, b"grease"),
        frame(0xfa, 0xff, 1, &[7; 100]),
        frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 16]),
        frame(HEADERS, WHOLE | PADDED, 1, &padded),
        frame(0x2a, 0, 1, b""),
    ];
    let said = speak(&stage, &frames.concat(), 1).await;
    assert_eq!((said.ended(), &said.over[..]), (false, &[1][..]));
    assert_eq!(stage.upstream.only().target, "/x");
}

#[tokio::test]
async fn another_protocol_than_was_agreed_on_is_not_spoken() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let bearer = format!("Bearer {nonce}");
    let head = frame(HEADERS, WHOLE, 1, &block(&usual("GET", "/x", &bearer)));
    let opening = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, b"")[..], &head].concat();
    let answer = super::send(&stage, &opening).await;
    assert!(!answer.contains(" 200 "), "HTTP/2 under http/1.1: {answer}");
    say(&stage, b"h2", &super::request("GET /x", "", &nonce, ""), 1).await;
    for unknown in [&b"h3"[..], b"http/1.0", b"spdy/3.1"] {
        let tunnel = stage.sidecar.agent().tls_tunnel("api.test", "api.test", &[unknown]).await;
        assert!(tunnel.is_err(), "nothing was agreed on: {}", String::from_utf8_lossy(unknown));
    }
    assert!(stage.upstream.seen().is_empty());
}

#[tokio::test]
async fn a_target_over_http_2_is_the_same_over_http_1() {
    let stage = Stage::with(FakeUpstream::start_with(&["api.test"], &[b"http/1.1"]).await, |builder| builder).await;
    let bearer = format!("Bearer {}", stage.reader().await);
    let targets = "/a/b?c=d%20e&f=%C3%A9 /a~b!$&'()*+,;=:@ /x?a=b?c/d /%E2%82%AC /x? /A/b-._~";
    for target in targets.split(' ') {
        speak(&stage, &frame(HEADERS, WHOLE, 1, &block(&usual("GET", target, &bearer))), 1).await;
        let seen = stage.upstream.seen().pop().unwrap_or_else(|| panic!("{target} did not arrive"));
        assert_eq!((seen.target.as_str(), seen.header("host")), (target, Some("api.test")));
    }
    assert_eq!(stage.upstream.seen().len(), targets.split(' ').count());
}
