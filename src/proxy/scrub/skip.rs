//! Where in a text a form may begin, without looking at every byte.
//!
//! Wu and Manber, "A fast algorithm for multi-pattern searching" (1994): the last three bytes of a window say how far the
//! next window that could match is away. On ordinary text that is most of the window's length.

/// Length of the beginning of a form by which it is found, in bytes. The longer, the further a search may skip.
pub(super) const WINDOW_BYTES: usize = 12;
/// Bytes that are looked up together.
const BLOCK_BYTES: usize = 3;
/// How far a search may go on from a block that no window has.
const SKIP_BYTES_MAX: u8 = (WINDOW_BYTES - BLOCK_BYTES + 1) as u8;
/// Bits of a block's place in the table: 8 KiB, which stays in the first-level cache.
const TABLE_BITS: u32 = 13;

/// The table of skips. Blocks that share a place share the shortest skip, so that none is too long.
pub(super) struct Skip(Box<[u8]>);

impl Skip {
    /// Of windows of [`WINDOW_BYTES`] each.
    pub(super) fn new<'a>(windows: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut table = vec![SKIP_BYTES_MAX; 1 << TABLE_BITS].into_boxed_slice();
        for window in windows {
            for (index, block) in window.windows(BLOCK_BYTES).enumerate() {
                let skip = &mut table[place(block)];
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
            let window = text.get(start..start + WINDOW_BYTES)?;
            match self.0[place(&window[WINDOW_BYTES - BLOCK_BYTES..])] {
                0 => return Some(start),
                skip => start += usize::from(skip),
            }
        }
    }
}

/// The place of a block, the same in either letter case.
fn place(block: &[u8]) -> usize {
    // Setting this bit lowers a letter; that it also makes other bytes alike only shortens a skip.
    const LOWER: u32 = 0x0020_2020;
    // Knuth's multiplicative hashing.
    const GOLDEN: u32 = 0x9e37_79b1;
    let bytes = u32::from(block[0]) | u32::from(block[1]) << 8 | u32::from(block[2]) << 16;
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
    fn a_text_shorter_than_a_window_has_none() {
        assert!(places(b"").is_empty());
        assert!(places(b"sk_live_abc").is_empty());
        assert_eq!(places(b"sk_live_abcd"), [0]);
    }
}
