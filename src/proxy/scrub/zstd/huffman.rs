//! Huffman codes of literals (RFC 8878, 4.2).

use super::Damaged;
use super::bits::Backward;
use super::fse::{self, Bounds, Cursor};

/// Longest code, in bits.
const CODE_BITS_MAX: u32 = 11;
/// Symbols whose weights are written; that of one more follows from theirs.
const WEIGHTS_MAX: usize = 255;
/// From this on, the first byte counts weights that stand in four bits each.
const DIRECT_FROM: u8 = 128;
/// How the weights themselves are coded.
const WEIGHTS: Bounds = Bounds { accuracy_max: 6, symbol_max: CODE_BITS_MAX as u8 + 1 };
/// Codes in one look: five of eleven bits.
const CODES_PER_LOOK: usize = 5;
const LOOK_BITS: usize = CODES_PER_LOOK * CODE_BITS_MAX as usize;

#[derive(Debug, Clone, Copy, Default)]
struct Code {
    symbol: u8,
    bits: u8,
}

/// Every code, by the bits that are next.
#[derive(Debug, Clone)]
pub(super) struct Table {
    codes: Vec<Code>,
    bits_max: u32,
}

impl Table {
    /// Reads a description; gives the table, and how many bytes it took.
    pub(super) fn read(bytes: &[u8]) -> Result<(Self, usize), Damaged> {
        let (&head, rest) = bytes.split_first().ok_or(Damaged)?;
        let (weights, used) = if head >= DIRECT_FROM {
            let count = usize::from(head - DIRECT_FROM) + 1;
            let used = count.div_ceil(2);
            let nibbles = rest.get(..used).ok_or(Damaged)?.iter().flat_map(|byte| [byte >> 4, byte & 15]);
            (nibbles.take(count).collect(), used)
        } else {
            let used = usize::from(head);
            (read_weights(rest.get(..used).ok_or(Damaged)?)?, used)
        };
        Ok((Self::of(weights)?, 1 + used))
    }

    /// The weight of the last symbol fills what the others leave.
    fn of(mut weights: Vec<u8>) -> Result<Self, Damaged> {
        let share = |weight: u8| if weight == 0 { 0 } else { 1_u32 << (weight - 1) };
        if weights.iter().any(|weight| u32::from(*weight) > CODE_BITS_MAX + 1) {
            return Err(Damaged);
        }
        let total: u32 = weights.iter().map(|weight| share(*weight)).sum();
        let bits_max = total.checked_ilog2().ok_or(Damaged)? + 1;
        let left = (1 << bits_max) - total;
        if bits_max > CODE_BITS_MAX || !left.is_power_of_two() {
            return Err(Damaged);
        }
        weights.push(left.ilog2() as u8 + 1);
        // The longest codes come in pairs.
        if weights.iter().filter(|weight| **weight == 1).count() < 2 {
            return Err(Damaged);
        }
        let mut codes = Vec::with_capacity(1 << bits_max);
        for weight in 1..=bits_max as u8 {
            for (symbol, _) in weights.iter().enumerate().filter(|(_, one)| **one == weight) {
                let code = Code { symbol: symbol as u8, bits: bits_max as u8 + 1 - weight };
                codes.resize(codes.len() + share(weight) as usize, code);
            }
        }
        if codes.len() == 1 << bits_max { Ok(Self { codes, bits_max }) } else { Err(Damaged) }
    }

    /// Reads one stream into all of `out`, to its very end.
    pub(super) fn decode(&self, stream: &[u8], out: &mut [u8]) -> Result<(), Damaged> {
        let mut bits = Backward::new(stream)?;
        let width = self.bits_max as usize;
        let mut chunks = out.chunks_exact_mut(CODES_PER_LOOK);
        for chunk in &mut chunks {
            let (look, mut left) = (bits.peek(LOOK_BITS), LOOK_BITS);
            for byte in chunk {
                let code = self.codes[(look >> (left - width)) as usize & ((1 << width) - 1)];
                *byte = code.symbol;
                left -= usize::from(code.bits);
            }
            bits.skip(LOOK_BITS - left)?;
        }
        for byte in chunks.into_remainder() {
            let code = self.codes[bits.peek(width) as usize];
            *byte = code.symbol;
            bits.skip(usize::from(code.bits))?;
        }
        if bits.left() == 0 { Ok(()) } else { Err(Damaged) }
    }
}

/// Two cursors take turns; the stream ends where one cannot go on, and the other has one symbol left.
fn read_weights(bytes: &[u8]) -> Result<Vec<u8>, Damaged> {
    let (table, used) = fse::Table::read(bytes, &WEIGHTS)?;
    let mut bits = Backward::new(bytes.get(used..).ok_or(Damaged)?)?;
    let mut one = Cursor::new(&table, &mut bits)?;
    let mut other = Cursor::new(&table, &mut bits)?;
    let mut weights = Vec::with_capacity(WEIGHTS_MAX);
    while weights.len() < WEIGHTS_MAX {
        weights.push(one.symbol());
        if one.go(&mut bits).is_err() {
            weights.push(other.symbol());
            return if weights.len() <= WEIGHTS_MAX { Ok(weights) } else { Err(Damaged) };
        }
        std::mem::swap(&mut one, &mut other);
    }
    Err(Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_read_to_its_very_end() {
        // One weight of 1, and so another: a bit for each of two symbols.
        let (table, used) = Table::read(&[DIRECT_FROM, 0x10]).unwrap();
        assert_eq!(used, 2);
        let mut out = [9; 2];
        assert_eq!(table.decode(&[0b101], &mut out), Ok(()));
        assert_eq!(out, [0, 1]);
        assert!(table.decode(&[0b101], &mut out[..1]).is_err(), "a bit is left");
        assert!(table.decode(&[0b11], &mut out).is_err(), "a bit is missing");
    }

    #[test]
    fn codes_that_leave_a_gap_are_none() {
        for weights in [&[][..], &[0], &[2], &[3, 1], &[12], &[1, 1, 1, 1, 1]] {
            assert!(Table::of(weights.to_vec()).is_err(), "{weights:?}");
        }
        assert!(Table::of(vec![1, 1]).is_ok_and(|table| table.bits_max == 2));
    }
}
