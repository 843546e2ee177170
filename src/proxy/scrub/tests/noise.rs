//! What no upstream meant is not replaced: noise goes through as it came, piece by piece, past all forms of credentials as
//! they are.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

const PIECE_BYTES: usize = 64 * 1024;
/// What is tried in every run.
const SOME_BYTES: usize = 64 << 20;
/// What is tried where there is time.
const MANY_BYTES: usize = 1 << 30;

/// How a byte of chance is written.
type Kind = (&'static str, fn(u8) -> u8);

/// Noise as it is, and in the alphabets in which credentials and their spellings are.
const KINDS: [Kind; 4] = [
    ("bytes", |byte| byte),
    ("base64", |byte| b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[usize::from(byte & 63)]),
    ("base64url", |byte| b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[usize::from(byte & 63)]),
    ("hex", |byte| b"0123456789abcdef"[usize::from(byte & 15)]),
];

/// One search for credentials of four shapes, made up, in all their forms.
fn credentials() -> Needles {
    let shapes = [
        "sk_live_51HqLyjWDarjtT1zdp7dc4eC39HqLyjWDarjtT1zdp7dc4eC39HqLyjWDarjt",
        "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "0123456789abcdef",
    ];
    let each = shapes.map(|secret| {
        let basic = format!("Basic {}", STANDARD.encode(format!("{secret}:")));
        Needles::new(secret.as_bytes(), &[format!("Bearer {secret}").as_bytes(), basic.as_bytes()])
    });
    Needles::any_of(each.iter())
}

/// `xorshift64*`, from another seed in each run.
struct Noise(u64);

impl Noise {
    fn new() -> Self {
        Self(getrandom::u64().unwrap() | 1)
    }

    fn fill(&mut self, piece: &mut [u8], kind: fn(u8) -> u8) {
        for eight in piece.chunks_mut(8) {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            let bytes = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes();
            for (byte, chance) in eight.iter_mut().zip(bytes) {
                *byte = kind(chance);
            }
        }
    }
}

/// The masker holds little, so that what came out so far is always what went in.
fn passes(bytes: usize, (name, kind): Kind) {
    let (mut noise, mut masker) = (Noise::new(), Masker::new(credentials()));
    let mut piece = vec![0; PIECE_BYTES];
    let mut expected = Vec::new();
    for _ in 0..bytes / PIECE_BYTES {
        noise.fill(&mut piece, kind);
        expected.extend_from_slice(&piece);
        let sent = masker.push(Bytes::copy_from_slice(&piece));
        assert!(expected.starts_with(&sent), "{name} was changed");
        expected.drain(..sent.len());
    }
    assert!(masker.finish() == expected, "{name} was changed");
}

#[test]
fn noise_passes_as_it_came() {
    KINDS.into_iter().for_each(|kind| passes(SOME_BYTES / KINDS.len(), kind));
}

#[test]
#[ignore = "a gigabyte of each kind: CARGO_PROFILE_TEST_OPT_LEVEL=3 cargo test --lib gigabytes -- --ignored"]
fn gigabytes_of_noise_pass_as_they_came() {
    KINDS.into_iter().for_each(|kind| passes(MANY_BYTES, kind));
}
