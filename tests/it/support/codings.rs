//! Content codings, packed as upstreams do and opened as agents do, by libraries that the binary does not open them with.

use std::io::{Read as _, Write as _};

use bytes::Bytes;

/// What the binary opens.
pub const CODINGS: [&str; 4] = ["gzip", "deflate", "br", "zstd"];

pub fn pack(coding: &str, text: &[u8]) -> Vec<u8> {
    events(coding, &[text]).concat()
}

/// A stream that brings out each of these texts before the next; the last piece is its end.
pub fn events(coding: &str, texts: &[&[u8]]) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    match coding {
        "gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            for text in texts {
                encoder.write_all(text).and_then(|()| encoder.flush()).expect("memory");
                pieces.push(std::mem::take(encoder.get_mut()));
            }
            pieces.push(encoder.finish().expect("memory"));
        }
        "deflate" => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
            for text in texts {
                encoder.write_all(text).and_then(|()| encoder.flush()).expect("memory");
                pieces.push(std::mem::take(encoder.get_mut()));
            }
            pieces.push(encoder.finish().expect("memory"));
        }
        "br" => {
            let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
            let mut from = 0;
            for text in texts {
                encoder.write_all(text).and_then(|()| encoder.flush()).expect("memory");
                pieces.push(encoder.get_ref()[from..].to_vec());
                from = encoder.get_ref().len();
            }
            pieces.push(encoder.into_inner()[from..].to_vec());
        }
        "zstd" => {
            let frame = |text| ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest);
            pieces.extend(texts.iter().map(|text| frame(*text)));
        }
        _ => pieces.extend(texts.iter().map(|text| text.to_vec())),
    }
    pieces.into_iter().map(Bytes::from).collect()
}

/// What an agent can read of a stream that came so far, and whether that is all of it.
pub fn open(coding: &str, bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut text = Vec::new();
    let is_whole = match coding {
        "gzip" => flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut text).is_ok(),
        "deflate" => flate2::read::ZlibDecoder::new(bytes).read_to_end(&mut text).is_ok(),
        "br" => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut text).is_ok(),
        "zstd" => {
            // It gives nothing of a frame before its end, so where that is missing it gets one: an empty block.
            let opened = unzstd(bytes);
            let is_whole = opened.is_some();
            text = opened.or_else(|| unzstd(&[bytes, &[1, 0, 0]].concat())).unwrap_or_default();
            is_whole
        }
        _ => {
            text = bytes.to_vec();
            true
        }
    };
    (text, is_whole)
}

/// Frame by frame; `None` where one is not whole.
fn unzstd(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    while !bytes.is_empty() {
        let mut decoder = ruzstd::decoding::FrameDecoder::new();
        decoder.reset(&mut bytes).ok()?;
        decoder.decode_blocks(&mut bytes, ruzstd::decoding::BlockDecodingStrategy::All).ok()?;
        text.extend(decoder.collect()?);
    }
    Some(text)
}
