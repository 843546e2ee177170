//! Streams of bits, read from the front and from the back (RFC 8878, 4.1).

use super::Damaged;

/// Bits that one look may take from the back: a word, less those of its first byte that may lie before.
const PEEK_BITS_MAX: usize = 56;

/// Reads from the first byte on, the lowest bit first.
pub(super) struct Forward<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Forward<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next bits, at most 16; zeros behind the end.
    pub(super) fn peek(&self, count: u32) -> u32 {
        let first = self.at / 8;
        let byte = |offset: usize| self.bytes.get(first + offset).copied().unwrap_or(0);
        let word = u32::from_le_bytes([byte(0), byte(1), byte(2), 0]);
        (word >> (self.at % 8)) & ((1 << count) - 1)
    }

    /// Takes bits that were looked at.
    pub(super) fn skip(&mut self, count: u32) -> Result<(), Damaged> {
        self.at += count as usize;
        if self.at > self.bytes.len() * 8 { Err(Damaged) } else { Ok(()) }
    }

    pub(super) fn take(&mut self, count: u32) -> Result<u32, Damaged> {
        let bits = self.peek(count);
        self.skip(count).map(|()| bits)
    }

    /// How many bytes were begun.
    pub(super) fn bytes_read(&self) -> usize {
        self.at.div_ceil(8)
    }
}

/// Reads from the last byte back. Its highest set bit marks the end, and is none of the stream.
pub(super) struct Backward<'a> {
    bytes: &'a [u8],
    /// Bits that are not read yet.
    left: usize,
}

impl<'a> Backward<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, Damaged> {
        let last = bytes.last().filter(|last| **last != 0).ok_or(Damaged)?;
        let left = bytes.len() * 8 - 1 - last.leading_zeros() as usize;
        Ok(Self { bytes, left })
    }

    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// The next bits, at most 56, the first of them highest; zeros before the beginning.
    pub(super) fn peek(&self, count: usize) -> u64 {
        debug_assert!(count <= PEEK_BITS_MAX);
        let have = count.min(self.left);
        let start = self.left - have;
        let word = self.word(start / 8) >> (start % 8);
        (word & ((1 << have) - 1)) << (count - have)
    }

    /// Takes bits that were looked at.
    pub(super) fn skip(&mut self, count: usize) -> Result<(), Damaged> {
        self.left = self.left.checked_sub(count).ok_or(Damaged)?;
        Ok(())
    }

    pub(super) fn take(&mut self, count: usize) -> Result<u64, Damaged> {
        let bits = self.peek(count);
        self.skip(count).map(|()| bits)
    }

    /// Eight bytes from here on; zeros behind the end.
    fn word(&self, from: usize) -> u64 {
        let rest = &self.bytes[from..];
        if let Some(eight) = rest.first_chunk() {
            return u64::from_le_bytes(*eight);
        }
        let mut eight = [0; 8];
        eight[..rest.len()].copy_from_slice(rest);
        u64::from_le_bytes(eight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_the_front_the_lowest_bit_comes_first() {
        let mut bits = Forward::new(&[0b1010_0110, 0b0000_0011]);
        assert_eq!((bits.take(3), bits.take(4), bits.take(3)), (Ok(0b110), Ok(0b0100), Ok(0b111)));
        assert_eq!(bits.bytes_read(), 2);
        assert_eq!(bits.peek(16), 0);
        assert_eq!((bits.take(6), bits.take(1)), (Ok(0), Err(Damaged)));
    }

    #[test]
    fn from_the_back_the_mark_is_no_bit() {
        let mut bits = Backward::new(&[0b1111_0000, 0b0010_1101]).unwrap();
        assert_eq!(bits.left(), 13);
        assert_eq!((bits.take(3), bits.take(0), bits.take(6)), (Ok(0b011), Ok(0), Ok(0b01_1111)));
        assert_eq!((bits.left(), bits.peek(6)), (4, 0));
        assert_eq!((bits.take(5), bits.left()), (Err(Damaged), 4));
        assert!(Backward::new(&[]).is_err() && Backward::new(&[1, 0]).is_err());
        let long: Vec<u8> = (1..=20).collect();
        let mut bits = Backward::new(&long).unwrap();
        let mut all = 0u128;
        bits.skip(bits.left() - 112).unwrap();
        for _ in 0..2 {
            all = (all << 56) | u128::from(bits.take(56).unwrap());
        }
        assert_eq!(all.to_le_bytes()[..14], long[..14]);
    }
}
