//! Where in a text a form may begin, without looking at every byte.
//!
//! Wu and Manber, "A fast algorithm for multi-pattern searching" (1994): the last bytes of a window say how far the
//! next window that could match is away. On ordinary text that is most of the window's length.

use std::ops::RangeInclusive;

/// Length of the beginnings of forms by which they are found, in bytes: as long as the shortest form lets it be, since a
/// search may skip the further, the longer they are.
pub(super) const WINDOW_BYTES: RangeInclusive<usize> = 12..=32;
/// Bytes that are looked up together.
pub(super) const BLOCK_BYTES: usize = 4;
/// Places of a text that are looked at by turns.
const SEARCHES: usize = 4;
/// Bits of a block's place in the table: 8 KiB, which stays in the first-level cache.
const TABLE_BITS: u32 = 13;

type Block = [u8; BLOCK_BYTES];

/// The table of skips. Blocks that share a place share the shortest skip, so that none is too long.
pub(super) struct Skip {
    table: Box<[u8; 1 << TABLE_BITS]>,
    window_bytes: usize,
}

impl Skip {
    /// Of windows of `window_bytes` each, within [`WINDOW_BYTES`].
    pub(super) fn new<'a>(window_bytes: usize, windows: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut this = Self { table: Box::new([0; 1 << TABLE_BITS]), window_bytes };
        let skip_max = this.skip_max();
        this.table.fill(skip_max);
        for window in windows {
            for (index, block) in window.array_windows().enumerate() {
                let skip = &mut this.table[place(*block)];
                // Never more than the window has bytes.
                *skip = (*skip).min((window_bytes - BLOCK_BYTES - index) as u8);
            }
        }
        this
    }

    /// How far a search may go on from a block that no window has.
    fn skip_max(&self) -> u8 {
        (self.window_bytes - BLOCK_BYTES + 1) as u8
    }

    /// How far from its beginning a window's last block stands.
    fn last_block(&self) -> usize {
        self.window_bytes - BLOCK_BYTES
    }

    /// How many bytes a window has.
    pub(super) fn window_bytes(&self) -> usize {
        self.window_bytes
    }

    /// The first place from `at` on where a whole window of the text may be one of ours. Every real one is given.
    pub(super) fn next(&self, text: &[u8], at: usize) -> Option<usize> {
        let blocks = text.get(self.last_block()..)?;
        let mut start = at;
        loop {
            match self.skip(blocks, start)? {
                0 => return Some(start),
                skip => start += usize::from(skip),
            }
        }
    }

    /// True if no window of the text may be one of ours. Several places are looked at by turns: where one search waits for
    /// its table, another goes on.
    pub(super) fn is_clear(&self, text: &[u8]) -> bool {
        let Some(blocks) = text.get(self.last_block()..) else { return true };
        let share = blocks.len().div_ceil(SEARCHES);
        // A block that begins in a share may end in the next.
        let shares: [&[u8]; SEARCHES] = std::array::from_fn(|search| {
            let from = blocks.len().min(search * share);
            &blocks[from..blocks.len().min(from + share + BLOCK_BYTES - 1)]
        });
        let mut places = [0; SEARCHES];
        loop {
            for (share, place) in shares.iter().zip(&mut places) {
                match self.skip(share, *place) {
                    Some(0) => return false,
                    Some(skip) => *place += usize::from(skip),
                    // The shares end at about the same time, and what is left of the others is short.
                    None => return shares.iter().zip(places).all(|(share, place)| self.is_rest_clear(share, place)),
                }
            }
        }
    }

    fn is_rest_clear(&self, blocks: &[u8], mut place: usize) -> bool {
        while let Some(skip) = self.skip(blocks, place) {
            if skip == 0 {
                return false;
            }
            place += usize::from(skip);
        }
        true
    }

    /// How far the next window that may be one of ours is from here, by its last block; `None` at the text's end.
    #[inline(always)]
    fn skip(&self, blocks: &[u8], at: usize) -> Option<u8> {
        let block: &Block = blocks.get(at..)?.first_chunk()?;
        Some(self.table[place(*block)])
    }

    /// Whether the text's last block, if it has one, may be in a window. Every real one is seen.
    pub(super) fn may_end_a_beginning(&self, text: &[u8]) -> bool {
        let block: Option<&Block> = text.last_chunk();
        block.is_none_or(|block| self.table[place(*block)] < self.skip_max())
    }
}

/// The place of a block, the same in either letter case.
#[inline(always)]
fn place(block: Block) -> usize {
    // Setting this bit lowers a letter; that it also makes other bytes alike only shortens a skip.
    const LOWER: u32 = 0x2020_2020;
    // Knuth's multiplicative hashing.
    const GOLDEN: u32 = 0x9e37_79b1;
    ((u32::from_le_bytes(block) | LOWER).wrapping_mul(GOLDEN) >> (u32::BITS - TABLE_BITS)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOWS: [[&[u8]; 3]; 2] = [
        [b"sk_live_abcd", b"abcdefghijkl", b"aaaaaaaaaaaa"],
        [b"sk_live_abcdefghijklmnopqrstuvwx", b"abcdefghijklmnopqrstuvwxyz012345", b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"],
    ];

    fn skips() -> impl Iterator<Item = (Skip, [&'static [u8]; 3])> {
        WINDOWS.into_iter().map(|windows| (Skip::new(windows[0].len(), windows.into_iter()), windows))
    }

    fn places(skip: &Skip, text: &[u8]) -> Vec<usize> {
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
        for (skip, windows) in skips() {
            for length in [0, 1, 11, 12, 13, 31, 32, 33, 47, 48, 127, 200, 211, 1000] {
                let clear = vec![b'z'; length];
                assert!(skip.is_clear(&clear), "{length}");
                for window in windows {
                    for at in 0..(length + 1).saturating_sub(window.len()) {
                        let mut text = clear.clone();
                        text[at..at + window.len()].copy_from_slice(&window.to_ascii_uppercase());
                        assert!(!skip.is_clear(&text), "{length} at {at}");
                    }
                }
            }
        }
    }

    #[test]
    fn no_window_is_skipped_wherever_it_stands() {
        for (skip, windows) in skips() {
            for window in windows {
                for before in 0..80 {
                    for fill in [b'x', b'a', b'd', 0] {
                        let text = [&vec![fill; before], &window.to_ascii_uppercase()[..], b"tail"].concat();
                        assert!(places(&skip, &text).contains(&before), "{before} of {fill}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_beginning_ends_in_a_block_that_is_known() {
        for (skip, windows) in skips() {
            for window in windows {
                for length in 0..=window.len() {
                    let text = [b"#", &window.to_ascii_uppercase()[..length]].concat();
                    assert!(length < BLOCK_BYTES || skip.may_end_a_beginning(&text), "{length}");
                }
            }
            assert!(!skip.may_end_a_beginning(b"\"\"}]"), "the usual end of a text");
            assert!(skip.may_end_a_beginning(b"sk_"), "too short to tell");
        }
    }

    #[test]
    fn a_text_shorter_than_a_window_has_none() {
        for (skip, windows) in skips() {
            assert!(places(&skip, b"").is_empty());
            assert!(places(&skip, &windows[0][1..]).is_empty());
            assert_eq!(places(&skip, windows[0]), [0]);
        }
    }
}
