//! Where in a text a form may begin, without looking at every byte.
//!
//! Wu and Manber, "A fast algorithm for multi-pattern searching" (1994): the last three bytes of a window say how far the
//! next window that could match is away. On ordinary text that is most of the window's length.

/// Length of the beginning of a form by which it is found, in bytes. The longer, the further a search may skip.
pub(super) const WINDOW_BYTES: usize = 12;
/// Bytes that are looked up together.
pub(super) const BLOCK_BYTES: usize = 3;
/// How far a search may go on from a block that no window has.
const SKIP_BYTES_MAX: u8 = (WINDOW_BYTES - BLOCK_BYTES + 1) as u8;
/// Places of a text that are looked at by turns.
const SEARCHES: usize = 4;
/// Bits of a block's place in the table: 8 KiB, which stays in the first-level cache.
const TABLE_BITS: u32 = 13;

/// The table of skips. Blocks that share a place share the shortest skip, so that none is too long.
pub(super) struct Skip(Box<[u8; 1 << TABLE_BITS]>);

impl Skip {
    /// Of windows of [`WINDOW_BYTES`] each.
    pub(super) fn new<'a>(windows: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut table = Box::new([SKIP_BYTES_MAX; 1 << TABLE_BITS]);
        for window in windows {
            for (index, block) in window.windows(BLOCK_BYTES).enumerate() {
                let skip = &mut table[place(block[0], block[1], block[2])];
                // Never more than the window has bytes.
                *skip = (*skip).min((window.len() - BLOCK_BYTES - index) as u8);
            }
        }
        Self(table)
    }

    /// The first place from `at` on where a whole window of the text may be one of ours. Every real one is given.
    pub(super) fn next(&self, text: &[u8], at: usize) -> Option<usize> {
        let mut start = at;
        loop {
            let window: &[u8; WINDOW_BYTES] = text.get(start..)?.first_chunk()?;
            let [.., first, second, third] = *window;
            match self.0[place(first, second, third)] {
                0 => return Some(start),
                skip => start += usize::from(skip),
            }
        }
    }

    /// True if no window of the text may be one of ours. Several places are looked at by turns: where one search waits for
    /// its table, another goes on.
    pub(super) fn is_clear(&self, text: &[u8]) -> bool {
        let part = text.len() / SEARCHES;
        let mut starts: [usize; SEARCHES] = std::array::from_fn(|search| search * part);
        let mut is_over = false;
        while !is_over {
            is_over = true;
            for (search, start) in starts.iter_mut().enumerate() {
                let end = if search + 1 == SEARCHES { text.len() } else { (search + 1) * part };
                if *start >= end {
                    continue;
                }
                let Some(window) = text.get(*start..).and_then(<[u8]>::first_chunk::<WINDOW_BYTES>) else { continue };
                let [.., first, second, third] = *window;
                match self.0[place(first, second, third)] {
                    0 => return false,
                    skip => *start += usize::from(skip),
                }
                is_over = false;
            }
        }
        true
    }

    /// Whether the text's last block, if it has one, may be in a window. Every real one is seen.
    pub(super) fn may_end_a_beginning(&self, text: &[u8]) -> bool {
        let block: Option<&[u8; BLOCK_BYTES]> = text.last_chunk();
        block.is_none_or(|&[first, second, third]| self.0[place(first, second, third)] < SKIP_BYTES_MAX)
    }
}

/// The place of a block, the same in either letter case.
fn place(first: u8, second: u8, third: u8) -> usize {
    // Setting this bit lowers a letter; that it also makes other bytes alike only shortens a skip.
    const LOWER: u32 = 0x0020_2020;
    // Knuth's multiplicative hashing.
    const GOLDEN: u32 = 0x9e37_79b1;
    let bytes = u32::from(first) | u32::from(second) << 8 | u32::from(third) << 16;
    ((bytes | LOWER).wrapping_mul(GOLDEN) >> (u32::BITS - TABLE_BITS)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOWS: [&[u8]; 3] = [b"sk_live_abcd", b"abcdefghijkl", b"aaaaaaaaaaaa"];

    fn places(text: &[u8]) -> Vec<usize> {
        let skip = Skip::new(WINDOWS.into_iter());
        let mut found = Vec::new();
        let mut at = 0;
        while let Some(start) = skip.next(text, at) {
            found.push(start);
            at = start + 1;
        }
        found
    }

    #[test]
    fn a_text_is_clear_exactly_if_no_window_may_be_in_it() {
        let skip = Skip::new(WINDOWS.into_iter());
        for length in [0, 1, 11, 12, 13, 47, 48, 200, 211] {
            let clear = vec![b'x'; length];
            assert!(skip.is_clear(&clear), "{length}");
            for window in WINDOWS {
                for at in 0..(length + 1).saturating_sub(WINDOW_BYTES) {
                    let mut text = clear.clone();
                    text[at..at + WINDOW_BYTES].copy_from_slice(&window.to_ascii_uppercase());
                    assert!(!skip.is_clear(&text), "{length} at {at}");
                }
            }
        }
    }

    #[test]
    fn no_window_is_skipped_wherever_it_stands() {
        for window in WINDOWS {
            for before in 0..40 {
                for fill in [b'x', b'a', b'd', 0] {
                    let text = [&vec![fill; before], &window.to_ascii_uppercase()[..], b"tail"].concat();
                    assert!(places(&text).contains(&before), "{before} of {fill}");
                }
            }
        }
    }

    #[test]
    fn every_beginning_ends_in_a_block_that_is_known() {
        let skip = Skip::new(WINDOWS.into_iter());
        for window in WINDOWS {
            for length in 0..=WINDOW_BYTES {
                let text = [b"#", &window.to_ascii_uppercase()[..length]].concat();
                assert!(length < BLOCK_BYTES || skip.may_end_a_beginning(&text), "{length}");
            }
        }
        assert!(!skip.may_end_a_beginning(b"\"}]"), "the usual end of a text");
        assert!(skip.may_end_a_beginning(b"sk"), "too short to tell");
    }

    #[test]
    fn a_text_shorter_than_a_window_has_none() {
        assert!(places(b"").is_empty());
        assert!(places(b"sk_live_abc").is_empty());
        assert_eq!(places(b"sk_live_abcd"), [0]);
    }
}
