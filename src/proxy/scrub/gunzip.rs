//! gzip, opened in bounded memory (RFC 1952).

use flate2::{Crc, Decompress, FlushDecompress, Status};

use super::open::{OpenError, Step};

/// Longest header of a member, in bytes: the two lengths of its extra field allow 64 KiB, names are seldom there.
const HEADER_BYTES_MAX: usize = 128 * 1024;

/// Opens gzip of one or more members, piece by piece.
pub(super) struct Gunzip {
    stage: Stage,
    inflate: Decompress,
    /// Of the member's output.
    crc: Crc,
}

enum Stage {
    Header(Header),
    Deflate,
    Trailer { bytes: [u8; 8], count: usize },
}

impl Gunzip {
    pub(super) fn new() -> Self {
        Self { stage: Stage::Header(Header::default()), inflate: Decompress::new(false), crc: Crc::new() }
    }

    /// True where the input may end: before the first member, or after a whole one. Nothing at all is an empty body.
    pub(super) fn may_end(&self) -> bool {
        matches!(&self.stage, Stage::Header(header) if header.count == 0)
    }

    /// Reads from `input` until it is used up or `output` is full. What a full output left behind comes with the next
    /// step, also for an empty input.
    pub(super) fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, OpenError> {
        let (mut read, mut written) = (0, 0);
        loop {
            let step = match &mut self.stage {
                Stage::Deflate => self.inflate(&input[read..], &mut output[written..])?,
                Stage::Header(_) | Stage::Trailer { .. } if read == input.len() => break,
                Stage::Header(_) | Stage::Trailer { .. } => {
                    self.frame(input[read])?;
                    Step { read: 1, written: 0 }
                }
            };
            read += step.read;
            written += step.written;
            if step.read == 0 && step.written == 0 && matches!(self.stage, Stage::Deflate) {
                break;
            }
        }
        Ok(Step { read, written })
    }

    fn inflate(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, OpenError> {
        let (in_before, out_before) = (self.inflate.total_in(), self.inflate.total_out());
        let status = self.inflate.decompress(input, output, FlushDecompress::None).map_err(|_| OpenError::Corrupt)?;
        let read = (self.inflate.total_in() - in_before) as usize;
        let written = (self.inflate.total_out() - out_before) as usize;
        self.crc.update(&output[..written]);
        if status == Status::StreamEnd {
            self.stage = Stage::Trailer { bytes: [0; 8], count: 0 };
        } else if read == 0 && written == 0 && !input.is_empty() && !output.is_empty() {
            return Err(OpenError::Corrupt);
        }
        Ok(Step { read, written })
    }

    /// Takes one byte of a header or trailer.
    fn frame(&mut self, byte: u8) -> Result<(), OpenError> {
        match &mut self.stage {
            Stage::Header(header) => {
                if header.take(byte)? == Progress::Whole {
                    self.inflate.reset(false);
                    self.crc.reset();
                    self.stage = Stage::Deflate;
                }
            }
            Stage::Trailer { bytes, count } => {
                bytes[*count] = byte;
                *count += 1;
                if *count == bytes.len() {
                    let expected = (u64::from(self.crc.amount()) << 32) | u64::from(self.crc.sum());
                    if u64::from_le_bytes(*bytes) != expected {
                        return Err(OpenError::Corrupt);
                    }
                    self.stage = Stage::Header(Header::default());
                }
            }
            Stage::Deflate => {}
        }
        Ok(())
    }
}

/// The header of a member (RFC 1952, 2.3). Its name, comment and extra field are read over and not passed on.
struct Header {
    field: Field,
    flags: u8,
    count: usize,
    crc: Crc,
}

enum Field {
    Fixed,
    ExtraLength { low: Option<u8> },
    Extra { left: u16 },
    Name,
    Comment,
    Checksum { low: Option<u8> },
}

#[derive(PartialEq, Eq)]
enum Progress {
    More,
    Whole,
}

impl Default for Header {
    fn default() -> Self {
        Self { field: Field::Fixed, flags: 0, count: 0, crc: Crc::new() }
    }
}

const FLAG_CHECKSUM: u8 = 0b0000_0010;
const FLAG_EXTRA: u8 = 0b0000_0100;
const FLAG_NAME: u8 = 0b0000_1000;
const FLAG_COMMENT: u8 = 0b0001_0000;
const FLAGS_RESERVED: u8 = 0b1110_0000;

impl Header {
    fn take(&mut self, byte: u8) -> Result<Progress, OpenError> {
        let crc_before = self.crc.sum();
        self.crc.update(&[byte]);
        self.count += 1;
        if self.count > HEADER_BYTES_MAX {
            return Err(OpenError::Corrupt);
        }
        match &mut self.field {
            Field::Fixed => return self.take_fixed(byte),
            Field::ExtraLength { low: low @ None } => *low = Some(byte),
            Field::ExtraLength { low: Some(low) } => match u16::from_le_bytes([*low, byte]) {
                0 => return Ok(self.after(FLAG_EXTRA)),
                left => self.field = Field::Extra { left },
            },
            Field::Extra { left: 1 } => return Ok(self.after(FLAG_EXTRA)),
            Field::Extra { left } => *left -= 1,
            Field::Name if byte == 0 => return Ok(self.after(FLAG_NAME)),
            Field::Comment if byte == 0 => return Ok(self.after(FLAG_COMMENT)),
            Field::Name | Field::Comment => {}
            Field::Checksum { low: low @ None } => {
                // The checksum is of what stands before it.
                if byte != crc_before.to_le_bytes()[0] {
                    return Err(OpenError::Corrupt);
                }
                *low = Some(crc_before.to_le_bytes()[1]);
            }
            Field::Checksum { low: Some(high) } => {
                return if byte == *high { Ok(Progress::Whole) } else { Err(OpenError::Corrupt) };
            }
        }
        Ok(Progress::More)
    }

    /// Magic, method 8, flags, time, extra flags, system.
    fn take_fixed(&mut self, byte: u8) -> Result<Progress, OpenError> {
        let fits = match self.count {
            1 => byte == 0x1f,
            2 => byte == 0x8b,
            3 => byte == 8,
            4 => byte & FLAGS_RESERVED == 0,
            _ => true,
        };
        match (fits, self.count) {
            (false, _) => return Err(OpenError::Corrupt),
            (true, 4) => self.flags = byte,
            (true, 10) => return Ok(self.after(0)),
            (true, _) => {}
        }
        Ok(Progress::More)
    }

    /// Goes to the next field that the flags announce; they stand in the order of the fields, but for the checksum.
    fn after(&mut self, flag: u8) -> Progress {
        let later = |candidate: u8| candidate > flag && self.flags & candidate != 0;
        self.field = if later(FLAG_EXTRA) {
            Field::ExtraLength { low: None }
        } else if later(FLAG_NAME) {
            Field::Name
        } else if later(FLAG_COMMENT) {
            Field::Comment
        } else if self.flags & FLAG_CHECKSUM != 0 {
            Field::Checksum { low: None }
        } else {
            return Progress::Whole;
        };
        Progress::More
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::write::GzEncoder;
    use flate2::{Compression, GzBuilder};

    use super::*;

    #[test]
    fn a_header_has_an_end() {
        let name_of = |bytes: usize| {
            let mut header = Header::default();
            let fixed = [0x1f, 0x8b, 8, FLAG_NAME, 0, 0, 0, 0, 0, 255];
            let name = std::iter::repeat_n(b'n', bytes).chain([0]);
            fixed.into_iter().chain(name).map(|byte| header.take(byte)).find(|end| !matches!(end, Ok(Progress::More)))
        };
        assert!(matches!(name_of(HEADER_BYTES_MAX - 11), Some(Ok(Progress::Whole))));
        assert!(matches!(name_of(HEADER_BYTES_MAX - 10), Some(Err(OpenError::Corrupt))));
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    /// Opens `input` in pieces; `Corrupt` also where it ends early.
    fn open(input: &[u8], piece_bytes: usize, output_bytes: usize) -> Result<Vec<u8>, OpenError> {
        let mut gunzip = Gunzip::new();
        let mut scratch = vec![0; output_bytes];
        let mut out = Vec::new();
        for piece in input.chunks(piece_bytes) {
            let mut rest = piece;
            loop {
                let step = gunzip.step(rest, &mut scratch)?;
                rest = &rest[step.read..];
                out.extend_from_slice(&scratch[..step.written]);
                if rest.is_empty() && step.written < scratch.len() {
                    break;
                }
            }
        }
        if gunzip.may_end() { Ok(out) } else { Err(OpenError::Corrupt) }
    }

    #[test]
    fn members_follow_each_other_over_any_pieces() {
        let text = b"lorem ipsum dolor ".repeat(500);
        let all = [gzip(&text), gzip(b""), gzip(b"end")].concat();
        let expected = [&text[..], b"end"].concat();
        for piece in [1, 2, 7, 100, 100_000] {
            for output in [1, 13, 4096] {
                assert_eq!(open(&all, piece, output).as_deref(), Ok(&expected[..]), "{piece} {output}");
            }
        }
    }

    #[test]
    fn headers_may_hold_names_comments_and_extras() {
        let mut encoder =
            GzBuilder::new().filename("a").comment("b").extra(vec![1; 300]).write(Vec::new(), Compression::fast());
        encoder.write_all(b"text").unwrap();
        let full = encoder.finish().unwrap();
        assert_eq!(open(&full, 3, 100).as_deref(), Ok(&b"text"[..]));
        let mut extra_alone = GzBuilder::new().extra(vec![]).write(Vec::new(), Compression::fast());
        extra_alone.write_all(b"text").unwrap();
        assert_eq!(open(&extra_alone.finish().unwrap(), 3, 100).as_deref(), Ok(&b"text"[..]));
    }

    #[test]
    fn the_checksum_of_a_header_is_checked() {
        let plain = gzip(b"text");
        let mut head = plain[..10].to_vec();
        head[3] |= FLAG_CHECKSUM;
        let mut crc = Crc::new();
        crc.update(&head);
        let checksum = (crc.sum() as u16).to_le_bytes();
        let good = [&head[..], &checksum, &plain[10..]].concat();
        assert_eq!(open(&good, 1, 100).as_deref(), Ok(&b"text"[..]));
        for place in [10, 11] {
            let mut bad = good.clone();
            bad[place] ^= 1;
            assert_eq!(open(&bad, 1, 100), Err(OpenError::Corrupt));
        }
    }

    #[test]
    fn nothing_is_an_empty_body() {
        assert_eq!(open(b"", 1, 10).as_deref(), Ok(&b""[..]));
    }

    #[test]
    fn every_early_end_and_every_damage_is_seen() {
        let whole = gzip(&b"lorem ipsum dolor ".repeat(20));
        for end in 1..whole.len() {
            assert_eq!(open(&whole[..end], 5, 64), Err(OpenError::Corrupt), "cut at {end}");
        }
        // Time, extra flags and system, bytes 4 to 9 of the header, say nothing of the content.
        for place in (0..4).chain(10..whole.len()) {
            let mut damaged = whole.clone();
            damaged[place] ^= 0x55;
            assert!(open(&damaged, 64, 64).is_err(), "damaged at {place}");
        }
    }

    #[test]
    fn nothing_may_follow_the_last_member() {
        for tail in [&b"\0\0\0\0"[..], b"garbage", b"\x1f"] {
            assert_eq!(open(&[gzip(b"text"), tail.to_vec()].concat(), 4, 64), Err(OpenError::Corrupt));
        }
    }
}
