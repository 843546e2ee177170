//! A gzip answer: opened, searched and closed again, however it comes.

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use http::Response;

use crate::cuts::{self, Input};
use crate::echo::Echo;
use crate::envelopes::{Chunks, delivered};

/// Longest text that an input may open to: longer ones are about bombs, which have tests of their own.
const OPENED_BYTES_MAX: u64 = 64 * 1024;

/// What comes out opens to the masked text of what went in, and what another reader of gzip cannot open never ends well.
///
/// # Panics
/// Where that does not hold.
pub fn gzip(data: &[u8]) {
    let mut input = Input(data);
    let choice = input.byte();
    let echo = Echo::of(choice >> 1);
    let steps = input.take(3);
    let closed = if choice & 1 == 0 { input.0.to_vec() } else { members(&echo.text(input.0), steps) };
    let mut opened = Vec::new();
    let mut reader = MultiGzDecoder::new(&closed[..]).take(OPENED_BYTES_MAX);
    let is_whole = reader.read_to_end(&mut opened).is_ok();
    if opened.len() as u64 == OPENED_BYTES_MAX {
        return;
    }
    let whole = Bytes::from(closed);
    for pieces in [vec![whole.clone()], cuts::by_steps(&whole, &[1]), cuts::by_steps(&whole, steps)] {
        let answer = Response::builder().header("content-encoding", "gzip").body(Chunks::new(pieces));
        let (out, is_ended) = delivered(answer.expect("an answer"), &echo.needles).expect("gzip is searched");
        if is_ended && !whole.is_empty() {
            assert!(is_whole, "it ended well, and nobody else can open it");
            let mut again = Vec::new();
            MultiGzDecoder::new(&out[..]).read_to_end(&mut again).expect("what goes out is gzip");
            assert_eq!(again, echo.masked(&opened), "what goes out is what came in, masked");
            echo.judge(&opened, &again);
        } else if choice & 1 == 1 {
            panic!("honest gzip did not end");
        }
    }
}

/// As one member or, as some writers do it, as two.
fn members(text: &[u8], steps: &[u8]) -> Vec<u8> {
    match steps.first() {
        Some(&cut) if cut > 0 => {
            let (one, other) = text.split_at(usize::from(cut).min(text.len()));
            [close(one), close(other)].concat()
        }
        Some(_) | None => close(text),
    }
}

fn close(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).expect("memory");
    encoder.finish().expect("memory")
}
