//! Answers in the other content codings, as `gzip` has them: opened, searched and closed again, however they come.

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::{DeflateDecoder, ZlibDecoder};
use flate2::write::{DeflateEncoder, ZlibEncoder};
use http::Response;

use crate::cuts::{self, Input};
use crate::echo::Echo;
use crate::envelopes::{Chunks, delivered};

/// Longest text that an input may open to: longer ones are about bombs, which have tests of their own.
const OPENED_BYTES_MAX: usize = 64 * 1024;

/// A coding as others read and write it.
struct Coding {
    name: &'static str,
    pack: fn(&[u8], u8) -> Vec<u8>,
    /// `None` for what nobody can open.
    open: fn(&[u8]) -> Option<Vec<u8>>,
}

/// What comes out opens to the masked text of what went in, and what another reader of zlib or bare deflate cannot open
/// never ends well.
///
/// # Panics
/// Where that does not hold.
pub fn deflate(data: &[u8]) {
    holds(&Coding { name: "deflate", pack: pack_deflate, open: open_deflate }, data);
}

/// As [`deflate`], of Brotli.
///
/// # Panics
/// Where that does not hold.
pub fn brotli(data: &[u8]) {
    holds(&Coding { name: "br", pack: pack_brotli, open: open_brotli }, data);
}

/// As [`deflate`], of zstd.
///
/// # Panics
/// Where that does not hold.
pub fn zstd(data: &[u8]) {
    holds(&Coding { name: "zstd", pack: pack_zstd, open: open_zstd }, data);
}

fn holds(coding: &Coding, data: &[u8]) {
    let mut input = Input(data);
    let choice = input.byte();
    let echo = Echo::of(choice >> 1);
    let steps = input.take(3);
    let is_honest = choice & 1 == 1;
    let closed = if is_honest { (coding.pack)(&echo.text(input.0), choice) } else { input.0.to_vec() };
    let opened = (coding.open)(&closed);
    if opened.as_ref().is_some_and(|text| text.len() >= OPENED_BYTES_MAX) {
        return;
    }
    let whole = Bytes::from(closed);
    for pieces in [vec![whole.clone()], cuts::by_steps(&whole, &[1]), cuts::by_steps(&whole, steps)] {
        let answer = Response::builder().header("content-encoding", coding.name).body(Chunks::new(pieces));
        let (out, is_ended) = delivered(answer.expect("an answer"), &echo.needles).expect("it is searched");
        if is_ended && !whole.is_empty() {
            let opened = opened.as_ref().expect("it ended well, and nobody else can open it");
            let again = (coding.open)(&out).expect("what goes out can be opened");
            assert_eq!(again, echo.masked(opened), "what goes out is what came in, masked");
            echo.judge(opened, &again);
        } else if is_honest {
            panic!("an honest body did not end");
        }
    }
}

fn pack_deflate(text: &[u8], choice: u8) -> Vec<u8> {
    if choice & 2 == 0 {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).expect("memory");
        encoder.finish().expect("memory")
    } else {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).expect("memory");
        encoder.finish().expect("memory")
    }
}

fn open_deflate(bytes: &[u8]) -> Option<Vec<u8>> {
    let limit = OPENED_BYTES_MAX as u64;
    let mut text = Vec::new();
    if ZlibDecoder::new(bytes).take(limit).read_to_end(&mut text).is_ok() {
        return Some(text);
    }
    text.clear();
    DeflateDecoder::new(bytes).take(limit).read_to_end(&mut text).is_ok().then_some(text)
}

fn pack_brotli(text: &[u8], choice: u8) -> Vec<u8> {
    let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, u32::from(choice >> 1) % 6, 16);
    encoder.write_all(text).expect("memory");
    encoder.into_inner()
}

fn open_brotli(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let mut reader = brotli::Decompressor::new(bytes, 4096).take(OPENED_BYTES_MAX as u64);
    reader.read_to_end(&mut text).is_ok().then_some(text)
}

fn pack_zstd(text: &[u8], choice: u8) -> Vec<u8> {
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};
    let level = if choice & 2 == 0 { CompressionLevel::Fastest } else { CompressionLevel::Uncompressed };
    compress_to_vec(text, level)
}

fn open_zstd(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(OPENED_BYTES_MAX);
    match ruzstd::decoding::FrameDecoder::new().decode_all_to_vec(bytes, &mut text) {
        Ok(()) => Some(text),
        Err(ruzstd::decoding::errors::FrameDecoderError::TargetTooSmall) => Some(vec![0; OPENED_BYTES_MAX]),
        Err(_) => None,
    }
}
