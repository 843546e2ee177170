//! Every coding: any pieces, early ends, what follows an end, and bombs.

use super::*;
use crate::proxy::scrub::samples::{CODINGS, bare_deflate, bomb, pack, prose};

/// Opens `input` in pieces; `Corrupt` also where it ends early.
pub(in crate::proxy::scrub) fn open(
    coding: Coding,
    input: &[u8],
    piece_bytes: usize,
    output_bytes: usize,
) -> Result<Vec<u8>, OpenError> {
    let mut opener = Opener::new(coding);
    let mut scratch = vec![0; output_bytes];
    let mut out = Vec::new();
    for piece in input.chunks(piece_bytes) {
        let mut rest = piece;
        loop {
            let step = opener.step(rest, &mut scratch)?;
            rest = &rest[step.read..];
            out.extend_from_slice(&scratch[..step.written]);
            if step.written < scratch.len() {
                assert!(rest.is_empty(), "neither side is full");
                break;
            }
        }
    }
    if opener.may_end() { Ok(out) } else { Err(OpenError::Corrupt) }
}

#[test]
fn any_pieces_open_to_the_same_text() {
    for (coding, name) in CODINGS {
        for text in [prose(3000), b"x".to_vec(), Vec::new(), vec![b'z'; 5000]] {
            let packed = pack(coding, &text);
            for piece in [1, 2, 7, 100, 100_000] {
                for output in [1, 13, 4096] {
                    assert_eq!(
                        open(coding, &packed, piece, output).as_deref(),
                        Ok(&text[..]),
                        "{name} {piece} {output}"
                    );
                }
            }
        }
        assert_eq!(open(coding, b"", 1, 10).as_deref(), Ok(&b""[..]), "nothing is an empty body");
    }
}

#[test]
fn deflate_may_come_bare() {
    for text in [prose(3000), b"x".to_vec(), Vec::new()] {
        for piece in [1, 3, 10_000] {
            assert_eq!(open(Coding::Deflate, &bare_deflate(&text), piece, 100).as_deref(), Ok(&text[..]));
        }
    }
}

#[test]
fn every_early_end_is_seen() {
    let text = prose(800);
    let bare = (Coding::Deflate, "bare deflate", bare_deflate(&text));
    for (coding, name, packed) in
        CODINGS.map(|(coding, name)| (coding, name, pack(coding, &text))).into_iter().chain([bare])
    {
        for end in 1..packed.len() {
            assert_eq!(open(coding, &packed[..end], 5, 64), Err(OpenError::Corrupt), "{name} cut at {end}");
        }
    }
}

#[test]
fn nothing_may_follow_the_end() {
    for (coding, name) in CODINGS {
        let packed = pack(coding, b"text");
        for tail in [&b"\0\0\0\0"[..], b"garbage", b"\x1f", b"\x28", b"\x28\xb5\x2f\xfd", b"\n"] {
            for piece in [1, 4, 1000] {
                let all = [&packed, tail].concat();
                assert_eq!(open(coding, &all, piece, 64), Err(OpenError::Corrupt), "{name} {tail:?}");
            }
        }
    }
    for coding in [Coding::Deflate, Coding::Brotli] {
        let packed = pack(coding, b"text");
        assert_eq!(open(coding, &packed.repeat(2), 9, 64), Err(OpenError::Corrupt), "one stream, not two");
    }
    for coding in [Coding::Gzip, Coding::Zstd] {
        let packed = pack(coding, b"text");
        assert_eq!(open(coding, &packed.repeat(3), 9, 64).as_deref(), Ok(&b"texttexttext"[..]));
    }
}

#[test]
fn what_is_something_else_is_corrupt() {
    for (coding, name) in CODINGS {
        for (other, _) in CODINGS.into_iter().filter(|(other, _)| *other != coding) {
            assert_eq!(open(coding, &pack(other, &prose(500)), 64, 64), Err(OpenError::Corrupt), "{name} of {other:?}");
        }
        assert_eq!(open(coding, &prose(5000), 64, 64), Err(OpenError::Corrupt), "{name} of prose");
    }
}

#[test]
fn damage_ends_in_an_error_or_in_some_text_and_never_in_a_panic() {
    let text = prose(700);
    for (coding, _) in CODINGS {
        let packed = pack(coding, &text);
        for place in 0..packed.len() {
            for change in [1, 0x10, 0x80, 0xff] {
                let mut damaged = packed.clone();
                damaged[place] ^= change;
                let opened = open(coding, &damaged, 97, 333);
                assert!(coding != Coding::Deflate || opened.is_err() || opened.as_deref() == Ok(&text), "at {place}");
            }
        }
    }
}

#[test]
fn windows_beyond_the_standard_are_no_brotli() {
    // Nothing, in a window of 1 GiB: the pattern that the RFC leaves free, which encoders of large windows use.
    assert_eq!(open(Coding::Brotli, &[0x11, 0xde], 1, 8), Err(OpenError::Corrupt));
}

#[test]
fn bombs_are_stopped_early() {
    for (coding, name) in CODINGS {
        let bomb = bomb(coding);
        assert_eq!(open(coding, &bomb, 4096, 32 * 1024), Err(OpenError::Bomb), "{name}");
        let honest = pack(coding, &vec![0; 1 << 20]);
        assert_eq!(open(coding, &honest, 4096, 32 * 1024).map(|out| out.len()), Ok(1 << 20), "{name}");
    }
}

/// Runs of one byte, in a frame of zstd (RFC 8878, 3.1.1): 1,206 bytes that open to a thousand times as many, and more.
#[test]
fn a_thousandfold_is_honest_and_more_is_not() {
    let frame = |last: u32| {
        let runs = (1..=300).map(|number| if number == 300 { last << 3 | 0b011 } else { 4020 << 3 | 0b010 });
        let blocks = runs.flat_map(|head: u32| [&head.to_le_bytes()[..3], b"x"].concat());
        b"\x28\xb5\x2f\xfd\x00\x38".iter().copied().chain(blocks).collect::<Vec<u8>>()
    };
    let opened = |last| open(Coding::Zstd, &frame(last), 4096, 2 << 20).map(|out| out.len());
    assert_eq!((frame(0).len(), opened(4020)), (1206, Ok(1_206_000)));
    assert_eq!((opened(4020 + 999), opened(4020 + 1000)), (Ok(1_206_999), Err(OpenError::Bomb)));
}
