//! What is compressed, opened as far as it goes, by libraries that the binary does not open it with.

use std::io::Read;

use memchr::memmem::find_iter;
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// What is opened of one body.
const OPENED_MAX: usize = 1024 * 1024;
/// Beginnings that are tried in one text.
const TRIES_MAX: usize = 16;

/// All that can be opened of these bytes: gzip and zstd wherever they begin, deflate and Brotli, which have no name in
/// them, from the first byte.
pub(super) fn opened(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for at in find_iter(bytes, b"\x1f\x8b\x08").take(TRIES_MAX) {
        read(flate2::read::MultiGzDecoder::new(&bytes[at..]), &mut text);
    }
    for at in find_iter(bytes, b"\x28\xb5\x2f\xfd").take(TRIES_MAX) {
        unzstd(&bytes[at..], &mut text);
    }
    if bytes.first() == Some(&0x78) {
        read(flate2::read::ZlibDecoder::new(bytes), &mut text);
    }
    read(brotli::Decompressor::new(bytes, 4096), &mut text);
    text
}

/// Up to its end, its first mistake, or the bound.
fn read(decoder: impl Read, text: &mut Vec<u8>) {
    let _ = decoder.take(OPENED_MAX as u64).read_to_end(text);
}

/// One frame, cut off or not.
fn unzstd(mut bytes: &[u8], text: &mut Vec<u8>) {
    let mut decoder = FrameDecoder::new();
    if decoder.reset(&mut bytes).is_err() {
        return;
    }
    if !matches!(decoder.decode_blocks(&mut bytes, BlockDecodingStrategy::UptoBytes(OPENED_MAX)), Ok(true)) {
        // It gives nothing of a frame before its end, so it gets one: an empty block, and what may be a checksum.
        let _ = decoder.decode_blocks(&[1, 0, 0, 0, 0, 0, 0][..], BlockDecodingStrategy::UptoBlocks(1));
    }
    text.extend(decoder.collect().unwrap_or_default());
}

#[test]
fn every_coding_is_opened_whole_and_cut_off_and_within_bounds() {
    use crate::support::codings::{CODINGS, events, pack};
    for coding in CODINGS {
        let (first, second) = (b"the first of them".as_slice(), b"the second of them".as_slice());
        let pieces = events(coding, &[first, second]);
        assert!(opened(&pieces[0]).ends_with(first), "{coding}");
        assert!(memchr::memmem::find(&opened(&pieces.concat()), second).is_some(), "{coding}");
        assert!(opened(&pack(coding, &vec![0; 8 * OPENED_MAX])).len() < 2 * OPENED_MAX, "{coding}");
    }
    assert!(opened(b"").is_empty());
}

#[test]
fn what_is_cut_off_is_opened_up_to_there() {
    use crate::support::codings::{CODINGS, pack};
    let mut text = b"the beginning of it".to_vec();
    text.resize(400_000, 0);
    getrandom::fill(&mut text[1000..]).expect("randomness");
    for coding in CODINGS {
        let packed = pack(coding, &text);
        assert!(opened(&packed[..packed.len() - 9]).starts_with(b"the beginning of it"), "{coding}");
    }
}
