//! The second section of a block: literals and matches by turns (RFC 8878, 3.1.1.3.2).

use super::Damaged;
use super::bits::Backward;
use super::fse::{Bounds, Cursor, Table};
use super::window::Window;

/// What a code of a length begins at, and how many bits are added.
type Length = (u32, u8);

/// Lengths of literals (table 14).
const LITERALS: [Length; 36] = [
    (0, 0),
    (1, 0),
    (2, 0),
    (3, 0),
    (4, 0),
    (5, 0),
    (6, 0),
    (7, 0),
    (8, 0),
    (9, 0),
    (10, 0),
    (11, 0),
    (12, 0),
    (13, 0),
    (14, 0),
    (15, 0),
    (16, 1),
    (18, 1),
    (20, 1),
    (22, 1),
    (24, 2),
    (28, 2),
    (32, 3),
    (40, 3),
    (48, 4),
    (64, 6),
    (128, 7),
    (256, 8),
    (512, 9),
    (1024, 10),
    (2048, 11),
    (4096, 12),
    (8192, 13),
    (16_384, 14),
    (32_768, 15),
    (65_536, 16),
];
/// Lengths of matches (table 16).
const MATCHES: [Length; 53] = [
    (3, 0),
    (4, 0),
    (5, 0),
    (6, 0),
    (7, 0),
    (8, 0),
    (9, 0),
    (10, 0),
    (11, 0),
    (12, 0),
    (13, 0),
    (14, 0),
    (15, 0),
    (16, 0),
    (17, 0),
    (18, 0),
    (19, 0),
    (20, 0),
    (21, 0),
    (22, 0),
    (23, 0),
    (24, 0),
    (25, 0),
    (26, 0),
    (27, 0),
    (28, 0),
    (29, 0),
    (30, 0),
    (31, 0),
    (32, 0),
    (33, 0),
    (34, 0),
    (35, 1),
    (37, 1),
    (39, 1),
    (41, 1),
    (43, 2),
    (47, 2),
    (51, 3),
    (59, 3),
    (67, 4),
    (83, 4),
    (99, 5),
    (131, 7),
    (259, 8),
    (515, 9),
    (1027, 10),
    (2051, 11),
    (4099, 12),
    (8195, 13),
    (16_387, 14),
    (32_771, 15),
    (65_539, 16),
];

/// What is likely where no block says otherwise (3.1.1.3.2.2).
const LITERAL_ODDS: [i16; 36] =
    [4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1, -1, -1, -1, -1];
const MATCH_ODDS: [i16; 53] = [
    1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1,
];
const OFFSET_ODDS: [i16; 29] =
    [1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1];

/// One of the three kinds of codes, and the table that the next block may use again.
struct Kind {
    bounds: Bounds,
    usual: (&'static [i16], u32),
    table: Option<Table>,
}

/// The tables of a frame, and its last offsets.
pub(super) struct Sequences {
    literals: Kind,
    offsets: Kind,
    matches: Kind,
    recent: [usize; 3],
}

impl Kind {
    const fn new(accuracy_max: u32, symbol_max: u8, usual: (&'static [i16], u32)) -> Self {
        Self { bounds: Bounds { accuracy_max, symbol_max }, usual, table: None }
    }

    /// Reads a table as the mode says; gives what follows it.
    fn read<'a>(&mut self, mode: u8, bytes: &'a [u8]) -> Result<&'a [u8], Damaged> {
        match mode {
            0 => {
                self.table = Some(Table::of(self.usual.0, self.usual.1)?);
                Ok(bytes)
            }
            1 => {
                let (&symbol, rest) = bytes.split_first().ok_or(Damaged)?;
                if symbol > self.bounds.symbol_max {
                    return Err(Damaged);
                }
                self.table = Some(Table::of_one(symbol));
                Ok(rest)
            }
            2 => {
                let (table, used) = Table::read(bytes, &self.bounds)?;
                self.table = Some(table);
                bytes.get(used..).ok_or(Damaged)
            }
            _ => {
                if self.table.is_some() {
                    Ok(bytes)
                } else {
                    Err(Damaged)
                }
            }
        }
    }

    fn cursor(&self, bits: &mut Backward<'_>) -> Result<Cursor<'_>, Damaged> {
        Cursor::new(self.table.as_ref().ok_or(Damaged)?, bits)
    }
}

impl Sequences {
    pub(super) fn new() -> Self {
        Self {
            literals: Kind::new(9, 35, (&LITERAL_ODDS, 6)),
            offsets: Kind::new(8, 31, (&OFFSET_ODDS, 5)),
            matches: Kind::new(9, 52, (&MATCH_ODDS, 6)),
            recent: [1, 4, 8],
        }
    }

    /// Reads the section, and writes the block, of so many bytes at most.
    pub(super) fn write(
        &mut self,
        section: &[u8],
        literals: &[u8],
        window: &mut Window,
        bytes_max: usize,
    ) -> Result<(), Damaged> {
        let (count, rest) = count(section)?;
        let mut out = Out { literals, window, left: bytes_max };
        if count == 0 {
            return if rest.is_empty() { out.finish() } else { Err(Damaged) };
        }
        let (&modes, rest) = rest.split_first().ok_or(Damaged)?;
        if modes & 3 != 0 {
            return Err(Damaged);
        }
        let rest = self.literals.read(modes >> 6, rest)?;
        let rest = self.offsets.read(modes >> 4 & 3, rest)?;
        let rest = self.matches.read(modes >> 2 & 3, rest)?;
        let mut bits = Backward::new(rest)?;
        let mut by_literals = self.literals.cursor(&mut bits)?;
        let mut by_offset = self.offsets.cursor(&mut bits)?;
        let mut by_match = self.matches.cursor(&mut bits)?;
        for left in (0..count).rev() {
            let offset = offset_value(by_offset.symbol(), &mut bits)?;
            let match_bytes = length(&MATCHES, by_match.symbol(), &mut bits)?;
            let literal_bytes = length(&LITERALS, by_literals.symbol(), &mut bits)?;
            let offset = recall(&mut self.recent, offset, literal_bytes == 0)?;
            out.take(literal_bytes, offset, match_bytes)?;
            if left > 0 {
                by_literals.go(&mut bits)?;
                by_match.go(&mut bits)?;
                by_offset.go(&mut bits)?;
            }
        }
        if bits.left() == 0 { out.finish() } else { Err(Damaged) }
    }
}

/// How many sequences, and what follows.
fn count(section: &[u8]) -> Result<(usize, &[u8]), Damaged> {
    match *section {
        [one @ ..=127, ref rest @ ..] => Ok((one.into(), rest)),
        [255, low, high, ref rest @ ..] => Ok((usize::from(u16::from_le_bytes([low, high])) + 0x7f00, rest)),
        [high @ 128..=254, low, ref rest @ ..] => Ok((usize::from(u16::from_be_bytes([high - 128, low])), rest)),
        _ => Err(Damaged),
    }
}

fn length(table: &[Length], code: u8, bits: &mut Backward<'_>) -> Result<usize, Damaged> {
    let (base, more) = table.get(usize::from(code)).ok_or(Damaged)?;
    Ok(*base as usize + bits.take(usize::from(*more))? as usize)
}

/// The code says how many bits there are.
fn offset_value(code: u8, bits: &mut Backward<'_>) -> Result<usize, Damaged> {
    Ok((1 << code) + bits.take(usize::from(code))? as usize)
}

/// The offset that a value stands for: the first three are recent ones (3.1.1.5).
fn recall(recent: &mut [usize; 3], value: usize, is_after_match: bool) -> Result<usize, Damaged> {
    let [first, second, third] = *recent;
    let (offset, kept) = match (value, is_after_match) {
        (1, false) => return Ok(first),
        (2, false) | (1, true) => (second, third),
        (3, false) | (2, true) => (third, second),
        (3, true) => (first.checked_sub(1).filter(|offset| *offset > 0).ok_or(Damaged)?, second),
        _ => (value.checked_sub(3).ok_or(Damaged)?, second),
    };
    *recent = [offset, first, kept];
    Ok(offset)
}

/// A block as it is written.
struct Out<'a> {
    literals: &'a [u8],
    window: &'a mut Window,
    /// What the block may still hold.
    left: usize,
}

impl Out<'_> {
    fn take(&mut self, literal_bytes: usize, offset: usize, match_bytes: usize) -> Result<(), Damaged> {
        self.left = self.left.checked_sub(literal_bytes + match_bytes).ok_or(Damaged)?;
        let (literals, rest) = self.literals.split_at_checked(literal_bytes).ok_or(Damaged)?;
        self.literals = rest;
        self.window.push(literals);
        self.window.copy(offset, match_bytes)
    }

    /// Literals that are left follow the last match.
    fn finish(self) -> Result<(), Damaged> {
        if self.literals.len() > self.left {
            return Err(Damaged);
        }
        self.window.push(self.literals);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_offsets_are_recalled_as_the_format_says() {
        let mut recent = [1, 4, 8];
        let cases = [
            (2, false, 4, [4, 1, 8]),
            (1, false, 4, [4, 1, 8]),
            (3, false, 8, [8, 4, 1]),
            (13, true, 10, [10, 8, 4]),
            (1, true, 8, [8, 10, 4]),
            (2, true, 4, [4, 8, 10]),
            (3, true, 3, [3, 4, 8]),
        ];
        for (value, is_after_match, offset, after) in cases {
            assert_eq!(recall(&mut recent, value, is_after_match), Ok(offset));
            assert_eq!(recent, after);
        }
        assert!(recall(&mut [1, 4, 8], 3, true).is_err());
    }

    #[test]
    fn a_table_of_one_symbol_is_of_one_that_there_is() {
        let mut kind = Sequences::new().literals;
        assert_eq!(kind.read(3, &[7]), Err(Damaged), "there is none to use again");
        assert_eq!(kind.read(1, &[35, 7]), Ok(&[7][..]));
        assert_eq!(kind.read(3, &[7]), Ok(&[7][..]));
        assert_eq!(kind.read(1, &[36, 7]), Err(Damaged));
        assert_eq!(kind.read(1, &[]), Err(Damaged));
    }

    #[test]
    fn the_usual_tables_are_whole() {
        for kind in [Sequences::new().literals, Sequences::new().offsets, Sequences::new().matches] {
            let states: i16 = kind.usual.0.iter().map(|odd| odd.abs()).sum();
            assert_eq!(states, 1 << kind.usual.1);
            assert!(Table::of(kind.usual.0, kind.usual.1).is_ok());
        }
    }
}
