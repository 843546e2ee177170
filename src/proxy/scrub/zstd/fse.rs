//! Finite state entropy: tables of states (RFC 8878, 4.1).

use super::Damaged;
use super::bits::{Backward, Forward};

/// Least accuracy that a description can give.
const ACCURACY_MIN: u32 = 5;

/// What a state stands for, and where it leads.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    symbol: u8,
    /// How many bits are read to reach the next state.
    bits: u8,
    /// What they are added to.
    base: u16,
}

/// A table of states.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    states: Vec<State>,
    accuracy: u32,
}

/// What one kind of table may be.
pub(super) struct Bounds {
    pub(super) accuracy_max: u32,
    pub(super) symbol_max: u8,
}

impl Table {
    /// Every state is this symbol, and costs nothing.
    pub(super) fn of_one(symbol: u8) -> Self {
        Self { states: vec![State { symbol, bits: 0, base: 0 }], accuracy: 0 }
    }

    /// Reads a description; gives the table, and how many bytes it took.
    pub(super) fn read(bytes: &[u8], bounds: &Bounds) -> Result<(Self, usize), Damaged> {
        let mut bits = Forward::new(bytes);
        let accuracy = bits.take(4)? + ACCURACY_MIN;
        if accuracy > bounds.accuracy_max {
            return Err(Damaged);
        }
        let mut odds = Vec::with_capacity(usize::from(bounds.symbol_max) + 1);
        let mut left = 1_i32 << accuracy;
        while left > 0 {
            let odd = read_odd(&mut bits, left)?;
            left -= i32::from(odd).abs();
            odds.push(odd);
            if odd == 0 {
                read_zeros(&mut bits, &mut odds, bounds)?;
            }
            if odds.len() > usize::from(bounds.symbol_max) + 1 {
                return Err(Damaged);
            }
        }
        if left < 0 {
            return Err(Damaged);
        }
        Ok((Self::of(&odds, accuracy)?, bits.bytes_read()))
    }

    /// Spreads symbols over the states by how likely they are: -1 is less than once.
    pub(super) fn of(odds: &[i16], accuracy: u32) -> Result<Self, Damaged> {
        let size = 1_usize << accuracy;
        let mut states = vec![State::default(); size];
        let mut next = vec![1_u32; odds.len()];
        let mut high = size;
        for (symbol, _) in odds.iter().enumerate().filter(|(_, odd)| **odd == -1) {
            high = high.checked_sub(1).ok_or(Damaged)?;
            states[high].symbol = symbol as u8;
        }
        let (step, mut at) = ((size >> 1) + (size >> 3) + 3, 0);
        for (symbol, odd) in odds.iter().enumerate().filter(|(_, odd)| **odd > 0) {
            next[symbol] = odd.unsigned_abs().into();
            for _ in 0..*odd {
                states[at].symbol = symbol as u8;
                at = (at + step) % size;
                // The step and the size have no common divisor: every state is met once, so this ends.
                while at >= high && high > 0 {
                    at = (at + step) % size;
                }
            }
        }
        for state in &mut states {
            let count = &mut next[usize::from(state.symbol)];
            let bits = accuracy.checked_sub(count.ilog2()).ok_or(Damaged)?;
            state.bits = bits as u8;
            state.base = ((*count << bits) as usize).checked_sub(size).ok_or(Damaged)? as u16;
            *count += 1;
        }
        Ok(Self { states, accuracy })
    }
}

/// How likely the next symbol is: in fewer bits where what is left allows no more.
fn read_odd(bits: &mut Forward<'_>, left: i32) -> Result<i16, Damaged> {
    let most = left.unsigned_abs() + 1;
    let count = most.ilog2() + 1;
    let value = bits.peek(count);
    let low = value & ((1 << (count - 1)) - 1);
    let threshold = (1 << count) - 1 - most;
    let value = if low < threshold {
        bits.skip(count - 1)?;
        low
    } else {
        bits.skip(count)?;
        if value == low { value } else { value - threshold }
    };
    Ok(value as i16 - 1)
}

/// After one that never comes: how many more do not, in steps of three.
fn read_zeros(bits: &mut Forward<'_>, odds: &mut Vec<i16>, bounds: &Bounds) -> Result<(), Damaged> {
    loop {
        let more = bits.take(2)?;
        odds.resize(odds.len() + more as usize, 0);
        if odds.len() > usize::from(bounds.symbol_max) + 1 {
            return Err(Damaged);
        }
        if more < 3 {
            return Ok(());
        }
    }
}

/// A place in a table.
pub(super) struct Cursor<'a> {
    table: &'a Table,
    state: State,
}

impl<'a> Cursor<'a> {
    /// Reads where to begin.
    pub(super) fn new(table: &'a Table, bits: &mut Backward<'_>) -> Result<Self, Damaged> {
        let first = bits.take(table.accuracy as usize)?;
        let state = table.states.get(first as usize).copied().ok_or(Damaged)?;
        Ok(Self { table, state })
    }

    pub(super) fn symbol(&self) -> u8 {
        self.state.symbol
    }

    /// Reads where to go.
    pub(super) fn go(&mut self, bits: &mut Backward<'_>) -> Result<(), Damaged> {
        let more = bits.take(usize::from(self.state.bits))?;
        self.state = *self.table.states.get(usize::from(self.state.base) + more as usize).ok_or(Damaged)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether any description that begins with this accuracy is taken.
    fn is_taken(accuracy: u32, bounds: &Bounds) -> bool {
        let low = u16::try_from(accuracy - ACCURACY_MIN).unwrap();
        (0..=0xfff_u16).any(|rest| {
            let bytes = [(rest << 4 | low).to_le_bytes(), [0, 0]].concat();
            Table::read(&bytes, bounds).is_ok()
        })
    }

    #[test]
    fn the_most_accuracy_that_a_kind_may_have_is_taken_and_no_more() {
        let bounds = Bounds { accuracy_max: 6, symbol_max: 35 };
        assert!(is_taken(5, &bounds) && is_taken(6, &bounds) && !is_taken(7, &bounds));
        assert!(is_taken(5, &Bounds { symbol_max: 0, ..bounds }), "all for the one symbol that there is");
    }
}
