//! Texts with the shape of a nonce, in a text that comes in pieces.

use memchr::memchr2_iter;

use crate::model::nonce::{NONCE_BYTES, NONCE_PREFIX};

/// The longest spelling of a nonce: every character as `%61`.
const SPELLING_BYTES_MAX: usize = 3 * NONCE_BYTES;

/// Finds what has the shape of a nonce wherever a text was cut.
#[derive(Default)]
pub struct Finder {
    /// The end of what came, as far as it may be the beginning of a nonce: always shorter than the longest spelling.
    open: Vec<u8>,
}

impl Finder {
    /// Looks through the next piece. Something may be told twice.
    pub fn look(&mut self, piece: &[u8], found: &mut impl FnMut(&[u8])) {
        let is_long = piece.len() >= SPELLING_BYTES_MAX;
        if !self.open.is_empty() {
            // What began before this piece ends in its first bytes.
            self.open.extend_from_slice(&piece[..piece.len().min(SPELLING_BYTES_MAX)]);
            find(&self.open, found);
        }
        find(piece, found);
        if self.open.is_empty() || is_long {
            let from = open_from(piece);
            self.open.clear();
            self.open.extend_from_slice(&piece[from..]);
        } else {
            let from = open_from(&self.open);
            self.open.drain(..from);
        }
    }

    /// How many of the last bytes may be the beginning of a nonce.
    pub fn open_bytes(&self) -> usize {
        self.open.len()
    }
}

/// Tells every nonce in `text`, decoded. Each has one `_`, as itself or as `%5F`, and is read both ways from there.
fn find(text: &[u8], found: &mut impl FnMut(&[u8])) {
    for at in memchr2_iter(b'_', b'%', text) {
        if let Some((b'_', after)) = first(&text[at..])
            && ends_with_prefix(&text[..at])
            && let Some(nonce) = read(after)
        {
            found(&nonce);
        }
    }
}

/// The first character, decoded, and what comes after it.
fn first(text: &[u8]) -> Option<(u8, &[u8])> {
    match text {
        [b'%', high, low, rest @ ..] => Some((digit(*high)? << 4 | digit(*low)?, rest)),
        [b'%', ..] | [] => None,
        [byte, rest @ ..] => Some((*byte, rest)),
    }
}

/// Whether a text ends with what comes before the `_` of the prefix.
fn ends_with_prefix(mut text: &[u8]) -> bool {
    NONCE_PREFIX.bytes().rev().skip(1).all(|wanted| {
        let bytes = if text.ends_with(&[wanted]) { 1 } else { 3 };
        let Some((before, last)) = text.len().checked_sub(bytes).map(|at| text.split_at(at)) else { return false };
        text = before;
        matches!(first(last), Some((byte, [])) if byte == wanted)
    })
}

/// The nonce whose prefix is behind us, if its other characters follow.
fn read(mut text: &[u8]) -> Option<[u8; NONCE_BYTES]> {
    let mut nonce = [0; NONCE_BYTES];
    let (prefix, others) = nonce.split_at_mut(NONCE_PREFIX.len());
    prefix.copy_from_slice(NONCE_PREFIX.as_bytes());
    for character in others {
        let (byte, rest) = first(text).filter(|(byte, _)| byte.is_ascii_alphanumeric())?;
        (*character, text) = (byte, rest);
    }
    Some(nonce)
}

/// Where the longest end begins that may grow into a nonce.
fn open_from(text: &[u8]) -> usize {
    let first = text.len().saturating_sub(SPELLING_BYTES_MAX - 1);
    (first..text.len()).find(|&start| is_beginning(&text[start..])).unwrap_or(text.len())
}

/// True for a spelling of a nonce that has not come to its end.
fn is_beginning(mut text: &[u8]) -> bool {
    for at in 0..NONCE_BYTES {
        let (byte, rest) = match (first(text), text) {
            (Some(read), _) => read,
            (None, [] | [b'%']) => return true,
            (None, [b'%', digit]) => return digit.is_ascii_hexdigit(),
            (None, _) => return false,
        };
        let fits = match NONCE_PREFIX.as_bytes().get(at) {
            Some(wanted) => byte == *wanted,
            None => byte.is_ascii_alphanumeric(),
        };
        if !fits {
            return false;
        }
        text = rest;
    }
    false
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use crate::model::Nonce;
    use crate::model::nonce::find_all;

    fn nonce() -> String {
        Nonce::from_entropy(&[9; 32]).as_str().to_owned()
    }

    fn encoded(text: &str) -> String {
        text.bytes().map(|byte| format!("%{byte:02x}")).collect()
    }

    fn found_in(text: &[u8], sizes: usize) -> Vec<Vec<u8>> {
        let (mut finder, mut found) = (Finder::default(), Vec::new());
        for piece in text.chunks(sizes) {
            finder.look(piece, &mut |candidate| found.push(candidate.to_vec()));
            assert!(finder.open_bytes() < SPELLING_BYTES_MAX);
        }
        found.dedup();
        found
    }

    #[test]
    fn it_is_found_in_every_spelling_and_wherever_it_is_cut() {
        let nonce = nonce();
        let mixed = format!("{}{}{}", &nonce[..2], encoded(&nonce[2..20]), &nonce[20..]);
        for spelling in [nonce.clone(), encoded(&nonce), mixed, nonce.replace('_', "%5F")] {
            for text in [spelling.clone(), format!("a%an_an_{spelling}_an_x"), format!("{}{spelling}", "y".repeat(300))]
            {
                for size in 1..=text.len() {
                    let found = found_in(text.as_bytes(), size);
                    assert!(found.iter().all(|one| one == nonce.as_bytes()), "{text} in {size}");
                    assert!(!found.is_empty(), "{text} in {size}");
                }
            }
        }
    }

    #[test]
    fn only_what_may_grow_into_a_nonce_stays_open() {
        let nonce = nonce();
        for (text, open) in [
            ("plain text", 0),
            ("a", 1),
            ("xan", 2),
            ("an-", 0),
            ("an_ abc", 0),
            ("%6", 2),
            ("%61%6e%5", 8),
            ("%7", 2),
            ("%zz", 0),
            (&nonce[..35], 35),
            (&nonce, 0),
        ] {
            let mut finder = Finder::default();
            finder.look(text.as_bytes(), &mut |_| ());
            assert_eq!(finder.open_bytes(), open, "{text}");
        }
    }

    #[test]
    fn nothing_is_found_where_nothing_is() {
        let nonce = nonce();
        for text in [format!("an-{}", &nonce[3..]), nonce[1..].to_owned(), nonce[..35].to_owned()] {
            assert!(found_in(text.as_bytes(), 7).is_empty(), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Against the plain way: the text decoded, from wherever one may begin to read it.
        #[test]
        fn it_finds_what_decoding_everything_would(pieces in prop::collection::vec(0_usize..12, 0..40)) {
            let nonce = nonce();
            let parts = ["a", "n", "_", "%", "%61", "%6e", "%5F", "%5", "an_", &nonce, &nonce[3..], &encoded(&nonce[20..])];
            let text: String = pieces.iter().map(|&piece| parts[piece]).collect();
            let decoded = |from: usize| percent_encoding::percent_decode(&text.as_bytes()[from..]).collect::<Vec<u8>>();
            let mut wanted: Vec<_> =
                (0..text.len()).flat_map(|from| find_all(&decoded(from)).map(<[u8]>::to_vec).collect::<Vec<_>>()).collect();
            let mut found = found_in(text.as_bytes(), usize::MAX);
            for list in [&mut wanted, &mut found] {
                list.sort();
                list.dedup();
            }
            prop_assert_eq!(found, wanted);
        }
    }
}
