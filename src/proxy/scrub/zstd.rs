//! zstd, opened in bounded memory (RFC 8878), with the window that RFC 9659 allows.
//!
//! A decoder of our own: those that there are hand out nothing before a window is full, which would hold back events for
//! megabytes, or are C. This one hands out each block as soon as it is there, has no `unsafe`, and knows no dictionaries.
//!
//! - `bits`: streams of bits, from the front and from the back
//! - `fse`, `huffman`: the two kinds of codes
//! - `literals`, `sequences`: the two sections of a block
//! - `window`: what was opened last
//! - `checksum`: XXH64
//! - here: frames, and blocks in them

mod bits;
mod checksum;
mod fse;
mod huffman;
mod literals;
mod sequences;
mod window;

use checksum::Checksum;
use literals::Literals;
use sequences::Sequences;
use window::Window;

use super::open::{OpenError, Step};

/// Largest block, packed and opened.
const BLOCK_BYTES_MAX: usize = 128 * 1024;
/// Largest window (RFC 9659, 3); of a frame that names none, its content.
const WINDOW_BYTES_MAX: u64 = 8 * 1024 * 1024;

const MAGIC: u32 = 0xfd2f_b528;
/// The low four bits are free.
const SKIPPED_MAGIC: u32 = 0x184d_2a50;
const MAGIC_BYTES: usize = 4;
const BLOCK_HEAD_BYTES: usize = 3;
const CHECKSUM_BYTES: usize = 4;

/// Not what the format says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Damaged;

impl From<Damaged> for OpenError {
    fn from(Damaged: Damaged) -> Self {
        Self::Corrupt
    }
}

/// Opens one or more frames, piece by piece.
pub(super) struct Unzstd {
    stage: Stage,
    /// What came of a head, a packed block or a checksum.
    held: Vec<u8>,
    window: Window,
    literals: Literals,
    sequences: Sequences,
    frame: Frame,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Head,
    Skipped { left: u32 },
    BlockHead,
    Raw { left: usize, is_last: bool },
    Repeated { count: usize, is_last: bool },
    Packed { bytes: usize, is_last: bool },
    Checksum,
}

/// What a frame's head said, and what came of it.
struct Frame {
    /// Largest block: no larger than the window.
    block_bytes_max: usize,
    content_bytes: Option<u64>,
    opened_bytes: u64,
    checksum: Option<Checksum>,
}

impl Unzstd {
    pub(super) fn new() -> Self {
        Self {
            stage: Stage::Head,
            held: Vec::new(),
            window: Window::default(),
            literals: Literals::default(),
            sequences: Sequences::new(),
            frame: Frame { block_bytes_max: 0, content_bytes: None, opened_bytes: 0, checksum: None },
        }
    }

    /// True where the input may end: before the first frame, or after a whole one.
    pub(super) fn may_end(&self) -> bool {
        self.stage == Stage::Head && self.held.is_empty() && self.window.fresh().is_empty()
    }

    /// Reads from `input` until it is used up or `output` is full. What a full output left behind comes with the next
    /// step, also for an empty input.
    pub(super) fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, OpenError> {
        let (mut read, mut written) = (0, 0);
        loop {
            written += self.window.hand_out(&mut output[written..]);
            // The window has room for one block, so the next waits until this one is handed out.
            if !self.window.fresh().is_empty() || read == input.len() {
                return Ok(Step { read, written });
            }
            read += self.take(&input[read..])?;
        }
    }

    /// Takes some bytes, at least one.
    fn take(&mut self, input: &[u8]) -> Result<usize, Damaged> {
        match self.stage {
            Stage::Skipped { left } => {
                let count = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
                let left = left - count as u32;
                self.stage = if left == 0 { Stage::Head } else { Stage::Skipped { left } };
                Ok(count)
            }
            Stage::Raw { left, is_last } => {
                let count = left.min(input.len());
                self.opened(|window| {
                    window.push(&input[..count]);
                    Ok(())
                })?;
                let left = left - count;
                self.stage = if left == 0 { self.after_block(is_last)? } else { Stage::Raw { left, is_last } };
                Ok(count)
            }
            Stage::Head | Stage::BlockHead | Stage::Repeated { .. } | Stage::Packed { .. } | Stage::Checksum => {
                let count = (self.wanted() - self.held.len()).min(input.len());
                self.held.extend_from_slice(&input[..count]);
                if self.held.len() == self.wanted() {
                    self.stage = self.whole()?;
                }
                Ok(count)
            }
        }
    }

    /// How many bytes must be held for the stage to be whole, as far as those that are there say.
    fn wanted(&self) -> usize {
        match self.stage {
            Stage::Head => head_bytes(&self.held),
            Stage::BlockHead => BLOCK_HEAD_BYTES,
            Stage::Repeated { .. } => 1,
            Stage::Packed { bytes, .. } => bytes,
            Stage::Checksum => CHECKSUM_BYTES,
            Stage::Skipped { .. } | Stage::Raw { .. } => 0,
        }
    }

    /// What the held bytes make of the stage.
    fn whole(&mut self) -> Result<Stage, Damaged> {
        let mut held = std::mem::take(&mut self.held);
        let next = match self.stage {
            Stage::Head => self.head(&held)?,
            Stage::BlockHead => self.block_head(&held)?,
            Stage::Repeated { count, is_last } => {
                self.opened(|window| {
                    window.fill(held[0], count);
                    Ok(())
                })?;
                self.after_block(is_last)?
            }
            Stage::Packed { is_last, .. } => {
                self.unpack(&held)?;
                self.after_block(is_last)?
            }
            Stage::Checksum => {
                let sum = self.frame.checksum.take().map(|checksum| checksum.finish().to_le_bytes());
                sum.filter(|sum| *sum == *held).map(|_| Stage::Head).ok_or(Damaged)?
            }
            stage @ (Stage::Skipped { .. } | Stage::Raw { .. }) => stage,
        };
        // Kept for what is held next.
        held.clear();
        self.held = held;
        Ok(next)
    }

    fn head(&mut self, held: &[u8]) -> Result<Stage, Damaged> {
        let word = |from: usize| held[from..].first_chunk().map(|four| u32::from_le_bytes(*four)).ok_or(Damaged);
        let magic = word(0)?;
        if magic & !15 == SKIPPED_MAGIC {
            return Ok(match word(MAGIC_BYTES)? {
                0 => Stage::Head,
                left => Stage::Skipped { left },
            });
        }
        let head = Head::read(held)?;
        self.window.begin(head.window_bytes);
        self.window.make_room();
        self.literals.begin();
        self.sequences = Sequences::new();
        let checksum = head.has_checksum.then(Checksum::new);
        let block_bytes_max = head.window_bytes.min(BLOCK_BYTES_MAX);
        self.frame = Frame { block_bytes_max, content_bytes: head.content_bytes, opened_bytes: 0, checksum };
        Ok(Stage::BlockHead)
    }

    fn block_head(&mut self, held: &[u8]) -> Result<Stage, Damaged> {
        let word = u32::from_le_bytes([held[0], held[1], held[2], 0]);
        let (is_last, kind, size) = (word & 1 == 1, word >> 1 & 3, (word >> 3) as usize);
        if size > self.frame.block_bytes_max {
            return Err(Damaged);
        }
        self.window.make_room();
        match (kind, size) {
            (0, 0) => self.after_block(is_last),
            (0, left) => Ok(Stage::Raw { left, is_last }),
            (1, count) => Ok(Stage::Repeated { count, is_last }),
            (2, 1..) => Ok(Stage::Packed { bytes: size, is_last }),
            _ => Err(Damaged),
        }
    }

    fn unpack(&mut self, block: &[u8]) -> Result<(), Damaged> {
        let bytes_max = self.frame.block_bytes_max;
        let rest = self.literals.read(block, bytes_max)?;
        let (literals, sequences) = (&self.literals.bytes, &mut self.sequences);
        opened(&mut self.window, &mut self.frame, |window| sequences.write(rest, literals, window, bytes_max))
    }

    fn opened(&mut self, write: impl FnOnce(&mut Window) -> Result<(), Damaged>) -> Result<(), Damaged> {
        opened(&mut self.window, &mut self.frame, write)
    }

    fn after_block(&self, is_last: bool) -> Result<Stage, Damaged> {
        if !is_last {
            return Ok(Stage::BlockHead);
        }
        if self.frame.content_bytes.is_some_and(|said| said != self.frame.opened_bytes) {
            return Err(Damaged);
        }
        Ok(if self.frame.checksum.is_some() { Stage::Checksum } else { Stage::Head })
    }
}

/// Counts and sums what is written: everything before it was handed out.
fn opened(
    window: &mut Window,
    frame: &mut Frame,
    write: impl FnOnce(&mut Window) -> Result<(), Damaged>,
) -> Result<(), Damaged> {
    write(window)?;
    frame.opened_bytes += window.fresh().len() as u64;
    if let Some(checksum) = &mut frame.checksum {
        checksum.update(window.fresh());
    }
    Ok(())
}

/// How long a frame's head is, as far as its first bytes say.
fn head_bytes(held: &[u8]) -> usize {
    let Some(magic) = held.first_chunk() else { return MAGIC_BYTES };
    if u32::from_le_bytes(*magic) & !15 == SKIPPED_MAGIC {
        return 2 * MAGIC_BYTES;
    }
    let Some(descriptor) = held.get(MAGIC_BYTES) else { return MAGIC_BYTES + 1 };
    let descriptor = Descriptor(*descriptor);
    MAGIC_BYTES + 1 + descriptor.window_bytes() + descriptor.dictionary_bytes() + descriptor.content_bytes()
}

/// What a frame's head says (RFC 8878, 3.1.1.1).
struct Head {
    window_bytes: usize,
    content_bytes: Option<u64>,
    has_checksum: bool,
}

/// Its first byte after the magic, which says how long the fields are.
#[derive(Clone, Copy)]
struct Descriptor(u8);

impl Descriptor {
    fn is_single_segment(self) -> bool {
        self.0 & 0x20 != 0
    }

    fn window_bytes(self) -> usize {
        usize::from(!self.is_single_segment())
    }

    fn dictionary_bytes(self) -> usize {
        [0, 1, 2, 4][usize::from(self.0 & 3)]
    }

    fn content_bytes(self) -> usize {
        [usize::from(self.is_single_segment()), 2, 4, 8][usize::from(self.0 >> 6)]
    }
}

impl Head {
    fn read(held: &[u8]) -> Result<Self, Damaged> {
        let (magic, rest) = held.split_first_chunk().ok_or(Damaged)?;
        let (&descriptor, rest) = rest.split_first().ok_or(Damaged)?;
        // Bit 3 is reserved, bit 4 says nothing.
        if u32::from_le_bytes(*magic) != MAGIC || descriptor & 8 != 0 {
            return Err(Damaged);
        }
        let descriptor = Descriptor(descriptor);
        let (window, rest) = rest.split_at_checked(descriptor.window_bytes()).ok_or(Damaged)?;
        let (dictionary, rest) = rest.split_at_checked(descriptor.dictionary_bytes()).ok_or(Damaged)?;
        if number(dictionary) != 0 {
            return Err(Damaged);
        }
        let content_bytes = match rest.len() {
            0 => None,
            2 => Some(number(rest) + 256),
            _ => Some(number(rest)),
        };
        let window_bytes = match *window {
            [byte] => {
                let base = 1_u64 << (10 + (byte >> 3));
                base + (base >> 3) * u64::from(byte & 7)
            }
            _ => content_bytes.ok_or(Damaged)?,
        };
        let window_bytes = Some(window_bytes).filter(|bytes| *bytes <= WINDOW_BYTES_MAX).ok_or(Damaged)?;
        Ok(Self { window_bytes: window_bytes as usize, content_bytes, has_checksum: descriptor.0 & 4 != 0 })
    }
}

/// In the order of the format: the low byte first.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests;
