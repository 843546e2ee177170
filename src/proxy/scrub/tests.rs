//! Whole answers: identity and gzip bodies in every cut, heads, trailers, and what is withheld. In `codings` the other
//! codings, in `noise` what is nothing of the kind.

mod codings;
mod noise;

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use http::HeaderValue;
use http_body::{Body, Frame, SizeHint};
use hyper::ext::ReasonPhrase;

use super::*;

const SECRET: &str = "sk_live_0123456789abcdef";
const BLOB: &str = "c2tfbGl2ZV8wMTIzNDU2Nzg5YWJjZGVmOg==";
const MASKED: &str = "************************";

fn needles() -> Needles {
    Needles::new(SECRET.as_bytes(), &[format!("Basic {BLOB}").as_bytes()])
}

/// What an upstream's body does, step by step.
enum Act {
    Data(Vec<u8>),
    Trailers(HeaderMap),
    Pause,
    Fail,
}

struct Script {
    acts: VecDeque<Act>,
    left: Option<u64>,
}

fn script(acts: impl IntoIterator<Item = Act>) -> Script {
    Script { acts: acts.into_iter().collect(), left: None }
}

/// A body of known length, in pieces.
fn sized(text: &[u8], piece_bytes: usize) -> Script {
    let acts = text.chunks(piece_bytes).map(|piece| Act::Data(piece.to_vec())).collect();
    Script { acts, left: Some(text.len() as u64) }
}

impl Body for Script {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        Poll::Ready(match self.acts.pop_front() {
            None => None,
            Some(Act::Pause) => return Poll::Pending,
            Some(Act::Fail) => Some(Err(std::io::ErrorKind::ConnectionReset.into())),
            Some(Act::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Some(Act::Data(data)) => {
                self.left = self.left.map(|left| left - data.len() as u64);
                Some(Ok(Frame::data(data.into())))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[derive(Default)]
struct Received {
    pieces: Vec<Vec<u8>>,
    trailers: Option<HeaderMap>,
    error: Option<ScrubError>,
}

impl Received {
    fn text(&self) -> Vec<u8> {
        self.pieces.concat()
    }
}

/// Reads a body as hyper does: stops as soon as the body says that it is over.
fn receive(body: &mut ScrubbedBody<Script>) -> Received {
    let mut received = Received::default();
    let mut context = Context::from_waker(Waker::noop());
    while !body.is_end_stream() {
        match Pin::new(&mut *body).poll_frame(&mut context) {
            Poll::Pending => {}
            Poll::Ready(None) => break,
            Poll::Ready(Some(Err(error))) => {
                received.error = Some(error);
                break;
            }
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => received.pieces.push(data.to_vec()),
                Err(frame) => received.trailers = frame.into_trailers().ok(),
            },
        }
    }
    received
}

fn answer(headers: &[(&'static str, &str)], body: Script) -> Response<Script> {
    let mut answer = Response::new(body);
    for (name, value) in headers {
        answer.headers_mut().append(*name, HeaderValue::from_str(value).unwrap());
    }
    answer
}

fn scrubbed(headers: &[(&'static str, &str)], body: Script) -> Response<ScrubbedBody<Script>> {
    scrub(answer(headers, body), &needles(), false).unwrap()
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    MultiGzDecoder::new(bytes).read_to_end(&mut text).unwrap();
    text
}

/// What a decoder can tell from a stream that has not ended.
fn gunzip_so_far(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    let _ = MultiGzDecoder::new(bytes).read_to_end(&mut text);
    text
}

fn echo() -> (Vec<u8>, Vec<u8>) {
    let text =
        format!("{{\"auth\": \"Bearer {SECRET}\", \"basic\": \"{BLOB}\", \"upper\": \"SK_LIVE_0123456789ABCDEF\"}}");
    let stars = "*".repeat(BLOB.len());
    let masked = text.replace(SECRET, MASKED).replace(BLOB, &stars).replace("SK_LIVE_0123456789ABCDEF", MASKED);
    (text.into_bytes(), masked.into_bytes())
}

#[test]
fn an_identity_body_keeps_its_length_in_every_cut() {
    let (text, expected) = echo();
    for piece_bytes in 1..=text.len() {
        let length = text.len().to_string();
        let mut answer = scrubbed(&[("content-length", &length)], sized(&text, piece_bytes));
        assert_eq!(answer.headers()["content-length"], *length);
        assert_eq!(answer.body().size_hint().exact(), Some(text.len() as u64));
        let received = receive(answer.body_mut());
        assert_eq!(received.text(), expected, "in pieces of {piece_bytes}");
        assert!(answer.body().is_end_stream());
        assert_eq!(answer.body().size_hint().exact(), Some(0));
    }
}

#[test]
fn the_size_that_is_left_counts_what_is_held() {
    let mut body = scrubbed(&[], sized(b"xxsk_live_", 9)).into_body();
    let mut context = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut body).poll_frame(&mut context).is_ready());
    assert_eq!(body.size_hint().exact(), Some(8));
    assert!(!body.is_end_stream());
    assert_eq!(receive(&mut body).text(), b"sk_live_");
}

#[test]
fn what_is_held_comes_out_although_upstream_says_it_is_over() {
    let mut body = scrubbed(&[], sized(b"the end: sk_live_0123", 100)).into_body();
    assert_eq!(receive(&mut body).text(), b"the end: sk_live_0123");
}

#[test]
fn a_gzip_body_is_opened_masked_and_closed_again_in_every_cut() {
    let (text, expected) = echo();
    let zipped = [gzip(&text[..40]), gzip(&text[40..])].concat();
    for name in ["gzip", "X-GZIP", " gzip "] {
        for piece_bytes in (1..=zipped.len()).step_by(3) {
            let headers =
                [("content-encoding", name), ("content-length", "9"), ("content-md5", "x"), ("etag", "\"e\"")];
            let mut answer = scrubbed(&headers, sized(&zipped, piece_bytes));
            assert!(!answer.headers().contains_key("content-length") && !answer.headers().contains_key("content-md5"));
            assert_eq!(answer.headers()["etag"], "\"e\"");
            assert_eq!(answer.body().size_hint().exact(), None);
            let received = receive(answer.body_mut());
            assert!(received.error.is_none());
            assert_eq!(gunzip(&received.text()), expected, "in pieces of {piece_bytes}");
            assert!(answer.body().is_end_stream());
        }
    }
}

#[test]
fn a_gzip_stream_is_not_delayed_while_upstream_pauses() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let mut acts = Vec::new();
    let events = [format!("data: {SECRET}\n\n"), "data: two\n\n".to_owned(), "data: three\n\n".to_owned()];
    for event in &events {
        encoder.write_all(event.as_bytes()).unwrap();
        encoder.flush().unwrap();
        acts.extend([Act::Data(std::mem::take(encoder.get_mut())), Act::Pause]);
    }
    acts.push(Act::Data(encoder.finish().unwrap()));
    let mut body = scrubbed(&[("content-encoding", "gzip")], script(acts)).into_body();
    let mut context = Context::from_waker(Waker::noop());
    let (mut so_far, mut expected) = (Vec::new(), String::new());
    for event in events {
        let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut context) else { panic!("delayed") };
        so_far.extend_from_slice(&frame.into_data().unwrap());
        expected.push_str(&event.replace(SECRET, MASKED));
        assert_eq!(gunzip_so_far(&so_far), expected.as_bytes());
    }
    let rest = receive(&mut body);
    assert_eq!(gunzip(&[so_far, rest.text()].concat()), expected.as_bytes());
}

#[test]
fn all_of_a_large_event_goes_out_before_a_pause() {
    let event = vec![b'a'; 500_000];
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&event).unwrap();
    encoder.flush().unwrap();
    let acts = [Act::Data(std::mem::take(encoder.get_mut())), Act::Pause];
    let mut body = scrubbed(&[("content-encoding", "gzip")], script(acts)).into_body();
    let mut context = Context::from_waker(Waker::noop());
    let mut so_far = Vec::new();
    while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut context) {
        so_far.extend_from_slice(&frame.into_data().unwrap());
    }
    assert_eq!(gunzip_so_far(&so_far).len(), event.len());
}

#[test]
fn a_large_gzip_body_comes_in_bounded_pieces() {
    let mut text = vec![0; 3 << 20];
    getrandom::fill(&mut text[..1 << 20]).unwrap();
    let mut body = scrubbed(&[("content-encoding", "gzip")], sized(&gzip(&text), 1 << 20)).into_body();
    let received = receive(&mut body);
    assert!(received.pieces.iter().all(|piece| piece.len() < 128 * 1024));
    assert_eq!(gunzip(&received.text()), text);
}

#[test]
fn an_empty_body_stays_empty() {
    for headers in [&[][..], &[("content-encoding", "gzip")], &[("content-encoding", "identity")]] {
        let mut known = scrubbed(headers, sized(b"", 1)).into_body();
        assert!(known.is_end_stream());
        assert!(receive(&mut known).pieces.is_empty());
        let mut unknown = scrubbed(headers, script([])).into_body();
        let received = receive(&mut unknown);
        assert!(received.pieces.is_empty() && received.error.is_none());
    }
}

#[test]
fn a_gzip_body_that_ends_early_never_ends_cleanly() {
    let zipped = gzip(&echo().0);
    for end in 1..zipped.len() {
        let mut body = scrubbed(&[("content-encoding", "gzip")], sized(&zipped[..end], 7)).into_body();
        assert!(matches!(receive(&mut body).error, Some(ScrubError::Corrupt)), "cut at {end}");
        assert!(!body.is_end_stream());
    }
}

#[test]
fn a_body_that_is_no_gzip_at_all_is_an_error() {
    let mut body = scrubbed(&[("content-encoding", "gzip")], sized(SECRET.as_bytes(), 100)).into_body();
    let received = receive(&mut body);
    assert!(received.pieces.is_empty());
    assert!(matches!(received.error, Some(ScrubError::Corrupt)));
}

#[test]
fn a_bomb_breaks_off() {
    let mut body = scrubbed(&[("content-encoding", "gzip")], sized(&gzip(&vec![0; 64 << 20]), 8192)).into_body();
    let received = receive(&mut body);
    assert!(matches!(received.error, Some(ScrubError::Bomb)));
    assert!(received.text().len() < 16 * 1024);
}

#[test]
fn an_error_of_upstream_passes_and_is_no_end() {
    for headers in [&[][..], &[("content-encoding", "gzip")]] {
        let acts = [Act::Data(gzip(b"text")), Act::Fail];
        let mut body = scrubbed(headers, script(acts)).into_body();
        let received = receive(&mut body);
        let error = received.error.unwrap();
        assert!(std::error::Error::source(&error).unwrap().is::<std::io::Error>());
        assert!(!body.is_end_stream());
    }
}

#[test]
fn trailers_are_masked_and_follow_what_was_held() {
    for is_gzip in [false, true] {
        let text = b"grpc sk_live_0123";
        let data = if is_gzip { gzip(text) } else { text.to_vec() };
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-message", HeaderValue::from_str(&format!("bad key {SECRET}")).unwrap());
        trailers.insert("x-kept", HeaderValue::from_static("yes"));
        let headers: &[_] = if is_gzip { &[("content-encoding", "gzip")] } else { &[] };
        let mut body = scrubbed(headers, script([Act::Data(data), Act::Trailers(trailers)])).into_body();
        let received = receive(&mut body);
        let sent = if is_gzip { gunzip(&received.text()) } else { received.text() };
        assert_eq!(sent, text);
        let trailers = received.trailers.unwrap();
        assert_eq!(trailers["grpc-message"], format!("bad key {MASKED}"));
        assert_eq!(trailers["x-kept"], "yes");
        assert!(body.is_end_stream());
    }
}

#[test]
fn headers_and_reason_are_masked_and_the_rest_is_kept_in_order() {
    let echoed = format!("a={SECRET}; Path=/");
    let names = ["location", "set-cookie", "set-cookie", "etag", "x-plain", "server-timing"];
    let mut answer = answer(&[], sized(b"", 1));
    for name in names {
        let value = if name == "x-plain" { "plain" } else { &echoed };
        answer.headers_mut().append(name, HeaderValue::from_str(value).unwrap());
    }
    let bytes = [b"\xff ", SECRET.as_bytes()].concat();
    answer.headers_mut().append("x-bytes", HeaderValue::from_bytes(&bytes).unwrap());
    answer.headers_mut().append("x-sk_live_0123456789abcdef", HeaderValue::from_static("1"));
    let reason = ReasonPhrase::try_from(format!("No such key {SECRET}")).unwrap();
    answer.extensions_mut().insert(reason);
    let answer = scrub(answer, &needles(), false).unwrap();
    let order = answer.headers().keys().map(http::HeaderName::as_str).collect::<Vec<_>>();
    assert_eq!(order, ["location", "set-cookie", "etag", "x-plain", "server-timing", "x-bytes"]);
    assert_eq!(answer.headers().get_all("set-cookie").iter().count(), 2);
    for (name, value) in answer.headers() {
        match name.as_str() {
            "x-plain" => assert_eq!(value, "plain"),
            "x-bytes" => assert_eq!(value.as_bytes(), [b"\xff ", MASKED.as_bytes()].concat()),
            _ => assert_eq!(value.as_bytes(), format!("a={MASKED}; Path=/").as_bytes()),
        }
    }
    let reason = answer.extensions().get::<ReasonPhrase>().unwrap();
    assert_eq!(reason.as_bytes(), format!("No such key {MASKED}").as_bytes());
}

#[test]
fn what_cannot_be_searched_is_withheld() {
    let cases: [&[(&'static str, &str)]; 18] = [
        &[("im", "gzip")],
        &[("content-encoding", "gzip"), ("im", "identity")],
        &[("content-encoding", "gzip, br")],
        &[("content-encoding", "br, zstd")],
        &[("content-encoding", "dcb")],
        &[("content-encoding", "dcz")],
        &[("content-encoding", "x-zstd")],
        &[("content-encoding", "br;q=1")],
        &[("content-encoding", "compress")],
        &[("content-encoding", "x-foo")],
        &[("content-encoding", "gzip, gzip")],
        &[("content-encoding", "identity, gzip")],
        &[("content-encoding", "gzip,")],
        &[("content-encoding", "gzip"), ("content-encoding", "gzip")],
        &[("content-encoding", "identity"), ("content-encoding", "br")],
        &[("transfer-encoding", "gzip, chunked")],
        &[("content-type", "multipart/byteranges; boundary=x")],
        &[("content-type", "text/plain"), ("content-type", " Multipart/ByteRanges")],
    ];
    for headers in cases {
        let refused = scrub(answer(headers, sized(b"", 1)), &needles(), false);
        assert_eq!(refused.err(), Some(Denial::AnswerUnscrubbable), "{headers:?}");
    }
    for status in [StatusCode::PARTIAL_CONTENT, StatusCode::IM_USED] {
        let mut part = answer(&[("content-length", "4")], sized(b"sk_l", 4));
        *part.status_mut() = status;
        assert_eq!(scrub(part, &needles(), false).err(), Some(Denial::AnswerUnscrubbable), "{status}");
    }
}

#[test]
fn other_types_than_parts_of_a_whole_pass() {
    for kind in ["text/plain", "multipart/mixed; boundary=x", "multipart/byterange", "x-multipart/byteranges", ""] {
        let mut body = scrubbed(&[("content-type", kind)], sized(b"text", 4)).into_body();
        assert_eq!(receive(&mut body).text(), b"text", "{kind}");
    }
}

/// Nobody waits for the end of an answer of which nothing more may pass: it may never come.
#[test]
fn a_message_that_cannot_be_searched_breaks_off_at_once() {
    let message = |flags: u8| [&[flags, 0, 0, 0, 4][..], b"text"].concat();
    let sent = [message(0), message(1)].concat();
    let kind = ("content-type", "application/grpc");
    for (headers, data) in [(&[kind][..], sent.clone()), (&[kind, ("content-encoding", "gzip")], gzip(&sent))] {
        let mut body = scrubbed(headers, script([Act::Data(data), Act::Pause, Act::Pause])).into_body();
        let mut context = Context::from_waker(Waker::noop());
        let mut polls = [(); 2].map(|()| Pin::new(&mut body).poll_frame(&mut context)).into_iter();
        let is_broken = polls.any(|poll| matches!(poll, Poll::Ready(Some(Err(ScrubError::Envelope(_))))));
        assert!(is_broken && !body.is_end_stream(), "{headers:?}");
    }
}

#[test]
fn an_answer_without_a_body_keeps_its_framing() {
    let headers = [("content-encoding", "br"), ("content-length", "1234"), ("x-echo", SECRET)];
    let answer = scrub(answer(&headers, sized(b"", 1)), &needles(), true).unwrap();
    assert_eq!(answer.headers()["content-length"], "1234");
    assert_eq!(answer.headers()["content-encoding"], "br");
    assert_eq!(answer.headers()["x-echo"], MASKED);
    assert!(answer.body().is_end_stream());
}
