//! The first section of a block: its literals (RFC 8878, 3.1.1.3.1).

use super::Damaged;
use super::huffman::Table;

/// Lengths of the first three of four streams.
const JUMPS_BYTES: usize = 6;

/// Literals, and the code that the next block may use again.
#[derive(Default)]
pub(super) struct Literals {
    pub(super) bytes: Vec<u8>,
    code: Option<Table>,
}

/// What a section says of itself.
struct Head {
    kind: u8,
    /// How many literals.
    count: usize,
    /// Bytes that hold them, the description of their code included.
    packed_bytes: usize,
    is_one_stream: bool,
    head_bytes: usize,
}

impl Literals {
    /// Nothing of one frame is used in the next.
    pub(super) fn begin(&mut self) {
        self.bytes.clear();
        self.code = None;
    }

    /// Reads the section, of so many literals at most; gives what follows it.
    pub(super) fn read<'a>(&mut self, block: &'a [u8], bytes_max: usize) -> Result<&'a [u8], Damaged> {
        let head = Head::read(block)?;
        if head.count > bytes_max {
            return Err(Damaged);
        }
        let packed = block.get(head.head_bytes..head.head_bytes + head.packed_bytes).ok_or(Damaged)?;
        self.bytes.clear();
        match head.kind {
            0 => self.bytes.extend_from_slice(packed),
            1 => self.bytes.resize(head.count, packed[0]),
            2 => {
                let (code, used) = Table::read(packed)?;
                self.code = Some(code);
                self.unpack(&head, &packed[used..])?;
            }
            _ => self.unpack(&head, packed)?,
        }
        Ok(&block[head.head_bytes + head.packed_bytes..])
    }

    fn unpack(&mut self, head: &Head, packed: &[u8]) -> Result<(), Damaged> {
        let code = self.code.as_ref().ok_or(Damaged)?;
        self.bytes.resize(head.count, 0);
        if head.is_one_stream {
            return code.decode(packed, &mut self.bytes);
        }
        let (jumps, mut rest) = packed.split_at_checked(JUMPS_BYTES).ok_or(Damaged)?;
        let each = head.count.div_ceil(4);
        let mut out = &mut self.bytes[..];
        for jump in jumps.as_chunks().0 {
            let (stream, after) = rest.split_at_checked(u16::from_le_bytes(*jump).into()).ok_or(Damaged)?;
            let (part, others) = out.split_at_mut_checked(each).ok_or(Damaged)?;
            code.decode(stream, part)?;
            (rest, out) = (after, others);
        }
        code.decode(rest, out)
    }
}

impl Head {
    fn read(block: &[u8]) -> Result<Self, Damaged> {
        let byte = |at: usize| block.get(at).copied().map(u64::from).ok_or(Damaged);
        let (kind, format) = (byte(0)? as u8 & 3, byte(0)? as u8 >> 2 & 3);
        let is_packed = kind >= 2;
        // Bytes of the head, and bits of each size in it.
        let (head_bytes, size_bits) = match (is_packed, format) {
            (false, 0 | 2) => (1, 5),
            (false, 1) => (2, 12),
            (false, _) => (3, 20),
            (true, 0 | 1) => (3, 10),
            (true, 2) => (4, 14),
            (true, _) => (5, 18),
        };
        let mut word = 0;
        for at in (0..head_bytes).rev() {
            word = word << 8 | byte(at)?;
        }
        // The shortest has one bit of format.
        let sizes = word >> if head_bytes == 1 { 3 } else { 4 };
        let mask = (1 << size_bits) - 1;
        let count = (sizes & mask) as usize;
        let packed_bytes = match kind {
            0 => count,
            1 => 1,
            _ => (sizes >> size_bits & mask) as usize,
        };
        Ok(Self { kind, count, packed_bytes, is_one_stream: format == 0, head_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_literals_than_there_may_be() {
        let block = [3 << 3, b'a', b'b', b'c', b'!'];
        let mut literals = Literals::default();
        assert!(literals.read(&block, 2).is_err());
        assert_eq!(literals.read(&block, 3).ok(), Some(&b"!"[..]));
        assert_eq!(literals.bytes, b"abc");
    }

    #[test]
    fn a_frame_begins_without_the_code_of_the_last() {
        let (code, _) = Table::read(&[128, 0x10]).expect("two symbols, one bit each");
        let mut literals = Literals { code: Some(code), bytes: b"left".to_vec() };
        literals.begin();
        assert!(literals.code.is_none() && literals.bytes.is_empty());
    }
}
