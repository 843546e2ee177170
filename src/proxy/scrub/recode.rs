//! A compressed body on its way: opened, searched, and closed again.

use bytes::{Buf as _, Bytes};

use super::Coding;
use super::body::ScrubError;
use super::close::Closer;
use super::open::{OpenError, Opener};
use super::text::Text;

/// What is opened is taken in steps of this many bytes.
const STEP_BYTES: usize = 32 * 1024;
/// What is read in one step: much can be read that opens to nothing.
const STEP_READ_MAX: usize = 8 * 1024;
/// Reading a byte takes at most about as long as writing this many: tables can be described in a few bytes.
const WORK_PER_READ: usize = 8;

/// Between opened and encoded bytes.
pub(super) struct Recoder {
    opener: Opener,
    closer: Closer,
    /// What came and is not opened yet.
    input: Bytes,
    /// The last step filled its output, so there may be more without further input.
    has_more: bool,
    /// Bytes were encoded that a flush has not brought out.
    is_dirty: bool,
    scratch: Box<[u8]>,
}

impl Recoder {
    pub(super) fn new(coding: Coding) -> Self {
        Self {
            opener: Opener::new(coding),
            closer: Closer::new(coding),
            input: Bytes::new(),
            has_more: false,
            is_dirty: false,
            scratch: vec![0; STEP_BYTES].into(),
        }
    }

    /// Takes what came, when there is nothing left to do.
    pub(super) fn feed(&mut self, input: Bytes) {
        self.input = input;
    }

    pub(super) fn has_work(&self) -> bool {
        self.has_more || !self.input.is_empty()
    }

    /// True before the first byte: an empty body has nothing in it to open.
    pub(super) fn is_untouched(&self) -> bool {
        self.opener.is_untouched() && self.input.is_empty()
    }

    /// True where a flush would bring something out.
    pub(super) fn is_dirty(&self) -> bool {
        self.is_dirty
    }

    pub(super) fn encoded_bytes(&self) -> usize {
        self.closer.encoded_bytes()
    }

    /// Opens one step, masks it, encodes it; gives how much work that was, in opened bytes.
    pub(super) fn step(&mut self, text: &mut Text) -> Result<usize, OpenError> {
        let input = &self.input[..self.input.len().min(STEP_READ_MAX)];
        let step = self.opener.step(input, &mut self.scratch)?;
        self.input.advance(step.read);
        self.has_more = step.written == self.scratch.len();
        let safe = text.push(Bytes::copy_from_slice(&self.scratch[..step.written]));
        self.encode(&safe)?;
        Ok(step.written.max(step.read * WORK_PER_READ))
    }

    fn encode(&mut self, text: &[u8]) -> Result<(), OpenError> {
        self.is_dirty |= !text.is_empty();
        // Writing to memory does not fail.
        self.closer.write(text).map_err(|_| OpenError::Corrupt)
    }

    /// What is encoded so far.
    pub(super) fn take(&mut self) -> Bytes {
        self.closer.take()
    }

    /// All that was encoded.
    pub(super) fn flush(&mut self) -> Result<Bytes, OpenError> {
        self.is_dirty = false;
        self.closer.flush().map_err(|_| OpenError::Corrupt)?;
        Ok(self.take())
    }

    /// The end of the encoded body, where the other one may end.
    pub(super) fn finish(&mut self, text: &mut Text) -> Result<Bytes, ScrubError> {
        if !self.opener.may_end() {
            return Err(ScrubError::Corrupt);
        }
        if self.opener.is_untouched() {
            return Ok(Bytes::new());
        }
        let rest = text.finish()?;
        self.encode(&rest)?;
        self.closer.finish().map_err(|_| ScrubError::Corrupt)?;
        Ok(self.take())
    }
}
