//! What was opened last: matches are copied out of it, and the output is its end.

use super::{BLOCK_BYTES_MAX, Damaged};

/// The last bytes of a frame; never more of them than a window, half of one and a block.
#[derive(Default)]
pub(super) struct Window {
    bytes: Vec<u8>,
    /// From here on, nobody has had them yet.
    fresh_from: usize,
    /// How far back a match may reach.
    reach_bytes: usize,
}

impl Window {
    /// An empty window for a frame whose matches reach this far.
    pub(super) fn begin(&mut self, reach_bytes: usize) {
        self.bytes.clear();
        self.fresh_from = 0;
        self.reach_bytes = reach_bytes;
    }

    /// Makes room for a block, when everything has been handed out.
    pub(super) fn make_room(&mut self) {
        let limit = self.reach_bytes + (self.reach_bytes / 2).max(BLOCK_BYTES_MAX);
        if self.bytes.len() > limit {
            self.bytes.drain(..self.bytes.len() - self.reach_bytes);
            self.fresh_from = self.bytes.len();
        }
        // It grows as an answer does, and not beyond what is ever used.
        let wanted = self.bytes.len().clamp(BLOCK_BYTES_MAX, limit + BLOCK_BYTES_MAX - self.bytes.len());
        if self.bytes.capacity() - self.bytes.len() < BLOCK_BYTES_MAX {
            self.bytes.reserve_exact(wanted);
        }
    }

    pub(super) fn fresh(&self) -> &[u8] {
        &self.bytes[self.fresh_from..]
    }

    /// Hands out what fits.
    pub(super) fn hand_out(&mut self, output: &mut [u8]) -> usize {
        let count = self.fresh().len().min(output.len());
        output[..count].copy_from_slice(&self.fresh()[..count]);
        self.fresh_from += count;
        count
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn fill(&mut self, byte: u8, count: usize) {
        self.bytes.resize(self.bytes.len() + count, byte);
    }

    /// Repeats what stands `offset` bytes back.
    pub(super) fn copy(&mut self, offset: usize, count: usize) -> Result<(), Damaged> {
        let len = self.bytes.len();
        if offset == 0 || offset > self.reach_bytes || offset > len {
            return Err(Damaged);
        }
        let start = len - offset;
        if count <= offset {
            self.bytes.extend_from_within(start..start + count);
            return Ok(());
        }
        // It repeats what it has just written: each round has twice as much to copy.
        let mut left = count;
        while left > 0 {
            let round = left.min(self.bytes.len() - start);
            self.bytes.extend_from_within(start..start + round);
            left -= round;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_match_may_overlap_what_it_writes_and_never_reaches_too_far() {
        let mut window = Window::default();
        window.begin(4);
        window.make_room();
        window.push(b"abc");
        assert!(window.copy(4, 1).is_err() && window.copy(0, 1).is_err());
        window.copy(3, 8).unwrap();
        window.copy(1, 2).unwrap();
        assert_eq!(window.fresh(), b"abcabcabcabbb");
        assert!(window.copy(5, 1).is_err(), "farther than the window");
    }

    #[test]
    fn it_stays_as_small_as_it_was_said_to_be() {
        const REACH: usize = 300_000;
        let mut window = Window::default();
        window.begin(REACH);
        let mut out = vec![0; BLOCK_BYTES_MAX];
        for round in 0..40_u8 {
            window.make_room();
            window.fill(round, BLOCK_BYTES_MAX);
            assert_eq!(window.hand_out(&mut out), BLOCK_BYTES_MAX);
            assert!(window.bytes.capacity() <= REACH + REACH / 2 + 2 * BLOCK_BYTES_MAX);
        }
        window.make_room();
        window.copy(REACH, 1).unwrap();
        assert_eq!(window.fresh(), [37], "three blocks back");
    }
}
