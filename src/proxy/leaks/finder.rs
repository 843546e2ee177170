//! Texts with the shape of a nonce, in a text that comes in pieces.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use crate::model::nonce::{NONCE_BYTES, NONCE_PREFIX, find_all};

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

fn find(text: &[u8], found: &mut impl FnMut(&[u8])) {
    for candidate in find_all(text) {
        found(candidate);
    }
    if let Cow::Owned(decoded) = Cow::from(percent_decode(text)) {
        for candidate in find_all(&decoded) {
            found(candidate);
        }
    }
}

/// Where the longest end begins that may grow into a nonce.
fn open_from(text: &[u8]) -> usize {
    let first = text.len().saturating_sub(SPELLING_BYTES_MAX - 1);
    (first..text.len()).find(|&start| is_beginning(&text[start..])).unwrap_or(text.len())
}

/// True for a spelling of a nonce that has not come to its end.
fn is_beginning(mut text: &[u8]) -> bool {
    for at in 0..NONCE_BYTES {
        let (byte, rest) = match text {
            [] | [b'%'] => return true,
            [b'%', digit] => return digit.is_ascii_hexdigit(),
            [b'%', high, low, rest @ ..] => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, rest),
                (_, _) => return false,
            },
            [byte, rest @ ..] => (*byte, rest),
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
    use crate::model::Nonce;

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
}
