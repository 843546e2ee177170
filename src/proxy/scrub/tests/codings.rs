//! Whole answers in each coding, in every cut.

use super::*;
use crate::proxy::scrub::samples::{CODINGS, bare_deflate, bomb, pack, prose, unpack, unpack_so_far};

fn coded(name: &str, body: Script) -> ScrubbedBody<Script> {
    scrubbed(&[("content-encoding", name)], body).into_body()
}

#[test]
fn a_body_is_opened_masked_and_closed_again_in_every_cut() {
    let (text, expected) = echo();
    let bare = (Coding::Deflate, "deflate", bare_deflate(&text));
    for (coding, name, packed) in
        CODINGS.map(|(coding, name)| (coding, name, pack(coding, &text))).into_iter().chain([bare])
    {
        for cut in 0..packed.len() {
            let (head, tail) = packed.split_at(cut);
            let acts = [head, tail].map(|piece| Act::Data(piece.to_vec()));
            let received = receive(&mut coded(name, script(acts)));
            assert!(received.error.is_none());
            assert_eq!(unpack(coding, &received.text()), expected, "{name} cut at {cut}");
        }
        let received = receive(&mut coded(&name.to_ascii_uppercase(), sized(&packed, 1)));
        assert_eq!(unpack(coding, &received.text()), expected, "{name} byte by byte");
    }
}

#[test]
fn what_opens_to_nothing_keeps_nobody_waiting() {
    const NOTHINGS: usize = 20_000;
    /// Far more than a poll may read.
    const READ_MAX: usize = 64 * 1024;
    let zstd_skipped = [&[0x50, 0x2a, 0x4d, 0x18][..], &2_u32.to_le_bytes(), b"no"].concat();
    for (coding, name, nothing) in [
        (Coding::Zstd, "zstd", pack(Coding::Zstd, b"")),
        (Coding::Zstd, "zstd", zstd_skipped),
        (Coding::Gzip, "gzip", pack(Coding::Gzip, b"")),
    ] {
        let (text, expected) = echo();
        let packed = [nothing.repeat(NOTHINGS), pack(coding, &text)].concat();
        let mut body = coded(name, script([Act::Data(packed.clone())]));
        let (mut polls, mut out) = (0, Vec::new());
        let mut context = Context::from_waker(Waker::noop());
        loop {
            polls += 1;
            match Pin::new(&mut body).poll_frame(&mut context) {
                Poll::Pending => {}
                Poll::Ready(Some(frame)) => out.extend_from_slice(&frame.unwrap().into_data().unwrap()),
                Poll::Ready(None) => break,
            }
        }
        assert_eq!(unpack(coding, &out), expected, "{name}");
        assert!(polls > packed.len() / READ_MAX, "{name}: {} bytes in {polls} polls", packed.len());
        assert!(out.len() < 2 * text.len() + 100, "{name}: {} bytes come of nothing", out.len());
    }
}

#[test]
fn the_head_keeps_what_stays_true() {
    let headers = ["content-length", "content-md5", "digest", "content-digest", "repr-digest"];
    for (coding, name) in CODINGS {
        let mut all: Vec<_> = headers.iter().map(|header| (*header, "9")).collect();
        all.extend([("content-encoding", name), ("etag", "\"e\""), ("vary", "accept-encoding")]);
        let answer = scrubbed(&all, sized(&pack(coding, b"text"), 100));
        assert!(headers.iter().all(|header| !answer.headers().contains_key(*header)), "{name}");
        let kept = ["content-encoding", "etag", "vary"].map(|header| answer.headers()[header].to_str().unwrap());
        assert_eq!(kept, [name, "\"e\"", "accept-encoding"]);
        assert_eq!(answer.body().size_hint().exact(), None);
    }
}

#[test]
fn a_body_that_ends_early_never_ends_cleanly() {
    for (coding, name) in CODINGS {
        let packed = pack(coding, &echo().0);
        for end in 1..packed.len() {
            let mut body = coded(name, sized(&packed[..end], 7));
            let received = receive(&mut body);
            assert!(matches!(received.error, Some(ScrubError::Corrupt)), "{name} cut at {end}");
            assert!(!body.is_end_stream());
            let sent = received.text();
            assert!(sent.is_empty() || !unpack_so_far(coding, &sent).1, "nor does what was sent of it");
        }
    }
}

#[test]
fn an_empty_body_stays_empty() {
    for (coding, name) in CODINGS {
        let received = receive(&mut coded(name, script([])));
        assert!(received.pieces.is_empty() && received.error.is_none());
        let received = receive(&mut coded(name, script([Act::Data(pack(coding, b""))])));
        assert!(received.error.is_none(), "{name}");
        assert_eq!(unpack(coding, &received.text()), b"", "{name}");
    }
}

#[test]
fn a_large_body_comes_in_bounded_pieces() {
    let text = [prose(200_000), vec![0; 700_000]].concat();
    for (coding, name) in CODINGS {
        let mut body = coded(name, sized(&pack(coding, &text), 1 << 20));
        let received = receive(&mut body);
        assert!(received.error.is_none(), "{name}");
        assert!(received.pieces.iter().all(|piece| piece.len() < 128 * 1024), "{name}");
        assert!(unpack(coding, &received.text()) == text, "{name}");
    }
}

#[test]
fn a_bomb_breaks_off_and_little_of_it_is_sent() {
    for (coding, name) in CODINGS {
        let mut body = coded(name, sized(&bomb(coding), 8192));
        let received = receive(&mut body);
        assert!(matches!(received.error, Some(ScrubError::Bomb)), "{name}");
        assert!(received.text().len() <= 2 << 20, "{name}");
    }
}

#[test]
fn what_follows_the_end_breaks_off() {
    for (coding, name) in CODINGS {
        let all = [&pack(coding, b"text")[..], SECRET.as_bytes()].concat();
        for piece_bytes in [1, 5, 1000] {
            let received = receive(&mut coded(name, sized(&all, piece_bytes)));
            assert!(matches!(received.error, Some(ScrubError::Corrupt)), "{name}");
            assert!(!received.text().windows(SECRET.len()).any(|window| window == SECRET.as_bytes()), "{name}");
        }
    }
}

/// An encoder that can bring out what it has, as an upstream does after each event.
trait Flushing {
    fn event(&mut self, text: &[u8]) -> Vec<u8>;
    fn end(&mut self) -> Vec<u8>;
}

impl Flushing for flate2::write::ZlibEncoder<Vec<u8>> {
    fn event(&mut self, text: &[u8]) -> Vec<u8> {
        self.write_all(text).unwrap();
        self.flush().unwrap();
        std::mem::take(self.get_mut())
    }

    fn end(&mut self) -> Vec<u8> {
        self.try_finish().unwrap();
        std::mem::take(self.get_mut())
    }
}

impl Flushing for Option<brotli::CompressorWriter<Vec<u8>>> {
    fn event(&mut self, text: &[u8]) -> Vec<u8> {
        let encoder = self.as_mut().unwrap();
        let before = encoder.get_ref().len();
        encoder.write_all(text).unwrap();
        encoder.flush().unwrap();
        encoder.get_ref()[before..].to_vec()
    }

    fn end(&mut self) -> Vec<u8> {
        let encoder = self.take().unwrap();
        let before = encoder.get_ref().len();
        encoder.into_inner()[before..].to_vec()
    }
}

/// A frame for each event.
struct Frames;

impl Flushing for Frames {
    fn event(&mut self, text: &[u8]) -> Vec<u8> {
        pack(Coding::Zstd, text)
    }

    fn end(&mut self) -> Vec<u8> {
        Vec::new()
    }
}

/// A block for each event, all in one frame.
struct Blocks(crate::proxy::scrub::close::Closer);

impl Flushing for Blocks {
    fn event(&mut self, text: &[u8]) -> Vec<u8> {
        self.0.write(text).unwrap();
        self.0.take().to_vec()
    }

    fn end(&mut self) -> Vec<u8> {
        self.0.finish().unwrap();
        self.0.take().to_vec()
    }
}

#[test]
fn an_event_is_not_delayed_while_upstream_pauses() {
    use crate::proxy::scrub::close::Closer;
    let encoders: [(Coding, Box<dyn Flushing>); 5] = [
        (Coding::Deflate, Box::new(flate2::write::ZlibEncoder::new(Vec::new(), Compression::default()))),
        (Coding::Brotli, Box::new(Some(brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22)))),
        (Coding::Brotli, Box::new(Blocks(Closer::new(Coding::Brotli)))),
        (Coding::Zstd, Box::new(Frames)),
        (Coding::Zstd, Box::new(Blocks(Closer::new(Coding::Zstd)))),
    ];
    let name = |coding| CODINGS.iter().find(|(known, _)| *known == coding).unwrap().1;
    let events = [format!("data: {SECRET}\n\n"), "data: two\n\n".to_owned(), "data: two again\n\n".to_owned()];
    for (coding, mut encoder) in encoders {
        let mut acts = Vec::new();
        for event in &events {
            acts.extend([Act::Data(encoder.event(event.as_bytes())), Act::Pause]);
        }
        acts.push(Act::Data(encoder.end()));
        let mut body = coded(name(coding), script(acts));
        let mut context = Context::from_waker(Waker::noop());
        let (mut so_far, mut expected) = (Vec::new(), String::new());
        for event in &events {
            let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut context) else { panic!("delayed") };
            so_far.extend_from_slice(&frame.into_data().unwrap());
            expected.push_str(&event.replace(SECRET, MASKED));
            assert_eq!(so_far_of(coding, &so_far), expected.as_bytes(), "{coding:?}");
        }
        let rest = receive(&mut body);
        assert_eq!(unpack(coding, &[so_far, rest.text()].concat()), expected.as_bytes(), "{coding:?}");
    }
}

/// What a client has of a stream that has not ended. The decoder of zstd that tests have gives nothing before a frame's
/// end, so it gets one.
fn so_far_of(coding: Coding, bytes: &[u8]) -> Vec<u8> {
    match coding {
        Coding::Zstd => unpack(coding, &[bytes, &[1, 0, 0]].concat()),
        Coding::Gzip | Coding::Deflate | Coding::Brotli => unpack_so_far(coding, bytes).0,
    }
}
