//! Bodies for tests, packed and opened by others than those that are tested.

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

use super::Coding;

pub(super) const CODINGS: [(Coding, &str); 4] =
    [(Coding::Gzip, "gzip"), (Coding::Deflate, "deflate"), (Coding::Brotli, "br"), (Coding::Zstd, "zstd")];

pub(super) fn pack(coding: Coding, text: &[u8]) -> Vec<u8> {
    match coding {
        Coding::Gzip => finished(GzEncoder::new(Vec::new(), Compression::default()), text, GzEncoder::finish),
        Coding::Deflate => finished(ZlibEncoder::new(Vec::new(), Compression::default()), text, ZlibEncoder::finish),
        Coding::Brotli => {
            let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
            encoder.write_all(text).unwrap();
            encoder.into_inner()
        }
        Coding::Zstd => ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest),
    }
}

pub(super) fn bare_deflate(text: &[u8]) -> Vec<u8> {
    finished(DeflateEncoder::new(Vec::new(), Compression::default()), text, DeflateEncoder::finish)
}

fn finished<E: std::io::Write>(mut encoder: E, text: &[u8], finish: fn(E) -> std::io::Result<Vec<u8>>) -> Vec<u8> {
    encoder.write_all(text).unwrap();
    finish(encoder).unwrap()
}

/// Opens what must be whole.
pub(super) fn unpack(coding: Coding, bytes: &[u8]) -> Vec<u8> {
    let (text, is_whole) = unpack_so_far(coding, bytes);
    assert!(is_whole, "{coding:?}");
    text
}

/// What another decoder can tell from bytes that may not be all, and whether they are.
pub(super) fn unpack_so_far(coding: Coding, bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut text = Vec::new();
    let is_whole = match coding {
        Coding::Gzip => MultiGzDecoder::new(bytes).read_to_end(&mut text).is_ok(),
        Coding::Deflate => ZlibDecoder::new(bytes).read_to_end(&mut text).is_ok(),
        Coding::Brotli => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut text).is_ok(),
        Coding::Zstd => unzstd(bytes, &mut text).is_some(),
    };
    (text, is_whole)
}

/// Frame by frame; `None` where one is not whole.
fn unzstd(mut bytes: &[u8], text: &mut Vec<u8>) -> Option<()> {
    use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
    while !bytes.is_empty() {
        let mut decoder = FrameDecoder::new();
        decoder.reset(&mut bytes).ok()?;
        decoder.decode_blocks(&mut bytes, BlockDecodingStrategy::All).ok()?;
        text.extend(decoder.collect()?);
    }
    Some(())
}

/// Zeros that are far more than they look: fewer of what takes long to pack.
pub(super) fn bomb(coding: Coding) -> Vec<u8> {
    pack(coding, &vec![0; if coding == Coding::Brotli { 4 << 20 } else { 32 << 20 }])
}

/// Words and numbers, the same in every run: what compresses as answers do.
pub(super) fn prose(bytes: usize) -> Vec<u8> {
    const WORDS: [&str; 16] = [
        "the",
        "credential",
        "of",
        "a",
        "service",
        "is",
        "{\"id\": ",
        "\"name\": \"",
        "\"},\n",
        "not",
        "here",
        "true",
        "null",
        "https://api.test/v1/",
        "customer",
        "2026-01-01T00:00:00Z",
    ];
    let (mut text, mut dice) = (Vec::with_capacity(bytes + 32), 0x9e37_79b9_7f4a_7c15_u64);
    while text.len() < bytes {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        // Now and then, what has not been there before; and stretches of one byte.
        match dice % 64 {
            0 => text.extend_from_slice(format!("{dice:x}").as_bytes()),
            1 => text.resize(text.len() + (dice >> 32) as usize % 300, b' '),
            _ => text.extend_from_slice(WORDS[(dice >> 40) as usize % WORDS.len()].as_bytes()),
        }
        text.push(b' ');
    }
    text.truncate(bytes);
    text
}
