//! What the reference implementation packed, block by block, and what no honest one packs.

use super::*;
use crate::proxy::scrub::Coding;
use crate::proxy::scrub::open::tests::open;
use crate::proxy::scrub::samples::{pack, prose};

/// Packed by `zstd` 1.5.4 from `prose` of the length that stands first, with the options that follow.
const KEPT: [(usize, &[u8]); 4] = [
    (1000, include_bytes!("../../../../tests/vectors/zstd/1000-3.zst")),
    (150_000, include_bytes!("../../../../tests/vectors/zstd/150000-3.zst")),
    (150_000, include_bytes!("../../../../tests/vectors/zstd/150000-1-split.zst")),
    (150_000, include_bytes!("../../../../tests/vectors/zstd/150000-19-stream.zst")),
];

/// Twenty frames of `decodecorpus`, the reference's generator of what its own encoder would not pack: every kind of block
/// and of literals, every mode of every table, all lengths of a head. Each has a checksum.
const ODD: &[u8] = include_bytes!("../../../../tests/vectors/zstd/odd.zst");
/// What the reference opens them to.
const ODD_BYTES: usize = 17_756;
const ODD_SHA_256: &str = "6d39fdf01b774aade80a3d4b61d6b62fc340dda60054cf72778f4b748fb67672";

fn opened(input: &[u8]) -> Result<Vec<u8>, OpenError> {
    open(Coding::Zstd, input, 1 << 20, 32 * 1024)
}

#[test]
fn what_the_reference_packs_is_opened() {
    for (bytes, packed) in KEPT {
        let text = prose(bytes);
        for (piece, output) in [(1 << 20, 32 * 1024), (1000, 999), (1, 1 << 17)] {
            assert!(
                open(Coding::Zstd, packed, piece, output).as_deref() == Ok(&text[..]),
                "{bytes} in pieces of {piece}"
            );
        }
    }
}

#[test]
fn what_no_encoder_packs_and_the_reference_opens_is_opened() {
    for (piece, output) in [(1 << 20, 32 * 1024), (1000, 999), (1, 1 << 17)] {
        let text = open(Coding::Zstd, ODD, piece, output).unwrap();
        let digest = ring::digest::digest(&ring::digest::SHA256, &text);
        assert_eq!((text.len(), &*hex::encode(digest)), (ODD_BYTES, ODD_SHA_256), "in pieces of {piece}");
    }
    for end in 1..ODD.len() {
        let cut = opened(&ODD[..end]);
        assert!(cut.is_err() || cut.is_ok_and(|text| text.len() < ODD_BYTES), "cut at {end}");
    }
}

#[test]
fn a_checksum_sees_every_damage() {
    let (bytes, packed) = KEPT[0];
    let text = prose(bytes);
    for place in 0..packed.len() {
        for change in [1, 4, 0x20, 0x80] {
            let mut damaged = packed.to_vec();
            damaged[place] ^= change;
            // Some bits say nothing.
            assert!(opened(&damaged).map_or(true, |out| out == text), "at {place}");
        }
    }
}

/// Where each block ends, in a frame with a window and no other field.
fn block_ends(packed: &[u8]) -> Vec<usize> {
    let (mut at, mut ends) = (head_bytes(packed), Vec::new());
    loop {
        let word = u32::from_le_bytes([packed[at], packed[at + 1], packed[at + 2], 0]);
        let size = if word >> 1 & 3 == 1 { 1 } else { (word >> 3) as usize };
        at += BLOCK_HEAD_BYTES + size;
        ends.push(at);
        if word & 1 == 1 {
            return ends;
        }
    }
}

#[test]
fn each_block_is_handed_out_with_its_last_byte() {
    for (bytes, packed) in KEPT {
        let (text, mut unzstd, mut out) = (prose(bytes), Unzstd::new(), vec![0; 1 << 20]);
        let (mut from, mut have) = (0, 0);
        for end in block_ends(packed) {
            let before = unzstd.step(&packed[from..end - 1], &mut out).unwrap();
            let last = unzstd.step(&packed[end - 1..end], &mut out[before.written..]).unwrap();
            assert!(last.written > 0, "the block that ends at {end} waits for more");
            let count = before.written + last.written;
            assert!(out[..count] == text[have..have + count]);
            (from, have) = (end, have + count);
        }
        assert_eq!(have, text.len());
    }
}

#[test]
fn frames_follow_each_other_and_some_are_skipped() {
    let skipped = [&0x184d_2a5a_u32.to_le_bytes()[..], &5_u32.to_le_bytes(), b"\x28\xb5\x2f\xfdx"].concat();
    let empty = [&SKIPPED_MAGIC.to_le_bytes()[..], &[0; 4]].concat();
    let all = [&skipped[..], KEPT[0].1, &empty, &pack(Coding::Zstd, b"end"), &skipped].concat();
    let expected = [&prose(1000)[..], b"end"].concat();
    for piece in [1, 3, 10_000] {
        assert_eq!(open(Coding::Zstd, &all, piece, 100).as_deref(), Ok(&expected[..]));
    }
    for end in 1..skipped.len() {
        assert_eq!(opened(&skipped[..end]), Err(OpenError::Corrupt), "cut at {end}");
    }
}

/// A frame with these bytes from its descriptor on.
fn frame(rest: &[u8]) -> Vec<u8> {
    [&MAGIC.to_le_bytes(), rest].concat()
}

/// A raw block that is the last, with one byte.
const RAW: [u8; 4] = [0b1001, 0, 0, b'x'];

#[test]
fn heads_say_what_they_may_and_no_more() {
    let good: [&[u8]; 5] = [
        // A window of 1 KiB, of 8 MiB; a length; a dictionary that is none; the bit that says nothing.
        &[0, 0],
        &[0, 13 << 3],
        &[0x20, 1],
        &[0x21, 0, 1],
        &[0x10, 0],
    ];
    for head in good {
        assert_eq!(opened(&frame(&[head, &RAW].concat())).as_deref(), Ok(&b"x"[..]), "{head:?}");
    }
    let bad: [&[u8]; 7] = [
        // More than 8 MiB, as a window and as a length; a dictionary; the bit that is reserved; a wrong length; a
        // window of exabytes; a block of a kind that there is not.
        &[0, 13 << 3 | 1],
        &[0xa0, 1, 0, 0x80, 0],
        &[0x01, 0, 7],
        &[0x08, 0],
        &[0x20, 2],
        &[0, 0xff],
        &[0, 0, 0b1111, 0, 0],
    ];
    for head in bad {
        assert_eq!(opened(&frame(&[head, &RAW].concat())), Err(OpenError::Corrupt), "{head:?}");
    }
    let mut wrong_magic = frame(&[&[0, 0][..], &RAW].concat());
    wrong_magic[0] ^= 1;
    assert_eq!(opened(&wrong_magic), Err(OpenError::Corrupt));
}

#[test]
fn blocks_are_bounded() {
    let repeated = |count: u32| {
        let [a, b, c, _] = (0b011 | count << 3).to_le_bytes();
        frame(&[0, 13 << 3, a, b, c, b'y'])
    };
    assert_eq!(opened(&repeated(BLOCK_BYTES_MAX as u32)).map(|out| out.len()), Ok(BLOCK_BYTES_MAX));
    assert_eq!(opened(&repeated(BLOCK_BYTES_MAX as u32 + 1)), Err(OpenError::Corrupt));
    // 1 KiB of window, and a byte more of block.
    let [a, b, c, _] = (0b011_u32 | 1025 << 3).to_le_bytes();
    assert_eq!(opened(&frame(&[0, 0, a, b, c, b'y'])), Err(OpenError::Corrupt));
    // Packed: one literal, one sequence that copies more than a block may hold (RLE codes: 0 literals, offset code 2,
    // match code 52, of 16 more bits).
    let block = [0b0_1000, b'z', 1, 0x54, 1, 2, 52, 0xff, 0xff, 0b100];
    let head = [0, 13 << 3, 0b101 | (block.len() as u8) << 3, 0, 0];
    assert_eq!(opened(&frame(&[&head[..], &block].concat())), Err(OpenError::Corrupt));
}

#[test]
fn nothing_is_used_again_that_was_not_there() {
    // Literals with the last code, and sequences with the last tables, in the first block of a frame.
    let blocks: [&[u8]; 2] = [&[0b0001_0011, 0x40, 0, 1, 0], &[0b0_1000, b'z', 1, 0xfc, 1]];
    for block in blocks {
        let head = [0, 13 << 3, 0b101 | (block.len() as u8) << 3, 0, 0];
        let all = [KEPT[1].1, &frame(&[&head[..], block].concat())].concat();
        assert_eq!(opened(&all), Err(OpenError::Corrupt));
    }
}
