//! A text that needs no memory of its own while it is short.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

/// Longest text that is kept in place: as long as makes it no larger than three words.
const INLINE_MAX: usize = 22;

/// A text; compared, ordered and hashed as any other.
#[derive(Clone)]
pub(super) enum Compact {
    Inline { length: u8, bytes: [u8; INLINE_MAX] },
    Boxed(Box<str>),
}

impl From<&str> for Compact {
    fn from(text: &str) -> Self {
        let mut bytes = [0; INLINE_MAX];
        match (u8::try_from(text.len()), bytes.get_mut(..text.len())) {
            (Ok(length), Some(room)) => {
                room.copy_from_slice(text.as_bytes());
                Self::Inline { length, bytes }
            }
            _ => Self::Boxed(text.into()),
        }
    }
}

impl Deref for Compact {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            // The bytes of a whole text: neither default is ever taken.
            Self::Inline { length, bytes } => {
                let text = bytes.get(..usize::from(*length)).unwrap_or_default();
                std::str::from_utf8(text).unwrap_or_default()
            }
            Self::Boxed(text) => text,
        }
    }
}

impl PartialEq for Compact {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Compact {}

impl PartialOrd for Compact {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Compact {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

impl Hash for Compact {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    use super::*;

    #[test]
    fn it_is_the_text_whatever_its_length() {
        let keys = RandomState::new();
        for length in [0, 1, INLINE_MAX - 1, INLINE_MAX, INLINE_MAX + 1, 128, 255, 256, 1000] {
            let text = "x".repeat(length);
            let compact = Compact::from(text.as_str());
            assert_eq!(&*compact, text);
            assert_eq!(keys.hash_one(&compact), keys.hash_one(text.as_str()));
            assert_eq!(matches!(compact, Compact::Inline { .. }), length <= INLINE_MAX);
        }
        let umlauts = "ä".repeat(INLINE_MAX / 2);
        assert_eq!(&*Compact::from(umlauts.as_str()), umlauts);
    }

    #[test]
    fn it_is_small_and_ordered_as_texts_are() {
        assert_eq!(size_of::<Compact>(), 24);
        let mut texts = ["b", "a", "ab", "a-long-one-that-has-its-own-memory", ""];
        let mut compact = texts.map(Compact::from);
        texts.sort_unstable();
        compact.sort_unstable();
        assert!(compact.iter().zip(texts).all(|(compact, text)| **compact == *text));
    }
}
