//! The code in which HPACK writes strings (RFC 7541, Appendix B), of printable ASCII.

/// Lengths of codes in bits, and the characters that have one of this length, in the order of their codes. The code is
/// canonical: one more than the last, with zeros behind it where codes get longer. Of the others NUL alone stands between.
const BY_LENGTH: [(u32, &[u8]); 11] = [
    (5, b"012aceiost"),
    (6, b" %-./3456789=A_bdfghlmnpru"),
    (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, b"&*,;XZ"),
    (10, b"!\"()?"),
    (11, b"'+|"),
    (12, b"#>"),
    (13, b"\0$@[]~"),
    (14, b"^}"),
    (15, b"<`{"),
    (19, b"\\"),
];

/// Shorter texts have patterns that anything might have.
const TEXT_MIN: usize = 7;

/// What a text looks like within a packed one: one pattern for each place in a byte where it may begin. Bits that its
/// neighbours have a say in are left out at both ends. None of what is not printable, or too short to stand for it.
pub(super) fn patterns(text: &str) -> impl Iterator<Item = Vec<u8>> {
    let is_printable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let bits: Vec<bool> = text.bytes().filter(|_| is_printable && text.len() >= TEXT_MIN).flat_map(bits).collect();
    let offsets = if bits.is_empty() { 0..0 } else { 0..8 };
    offsets.map(move |skipped| bits[skipped..].chunks_exact(8).map(byte).collect())
}

fn bits(character: u8) -> impl Iterator<Item = bool> {
    let (code, length) = code(character);
    (0..length).rev().map(move |at| code >> at & 1 == 1)
}

/// A code, and its length in bits.
fn code(character: u8) -> (usize, u32) {
    let (mut next, mut before) = (0, 0);
    for (length, characters) in BY_LENGTH {
        next <<= length - before;
        if let Some(at) = characters.iter().position(|known| *known == character) {
            return (next + at, length);
        }
        next += characters.len();
        before = length;
    }
    panic!("{character} is not printable")
}

fn byte(bits: &[bool]) -> u8 {
    bits.iter().fold(0, |byte, bit| byte << 1 | u8::from(*bit))
}

/// The sample of RFC 7541, C.4.1, and the longest codes.
#[test]
fn the_code_is_that_of_the_standard() {
    let packed = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4];
    assert_eq!(patterns("www.example.com").next().expect("eight of them"), packed);
    let mut inner = patterns("example");
    assert!(inner.any(|pattern| memchr::memmem::find(&packed, &pattern).is_some()));
    for (character, expected) in [(b'0', (0, 5)), (b'{', (0x7ffe, 15)), (b'$', (0x1ff9, 13)), (b'\\', (0x7fff0, 19))] {
        assert_eq!(code(character), expected, "{}", char::from(character));
    }
}
