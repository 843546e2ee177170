//! Brotli, opened in bounded memory (RFC 7932): the state grows as the content does, up to the window of 16 MiB.

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};

use super::open::{OpenError, Step};

/// Opens one stream, piece by piece.
pub(super) struct Unbrotli {
    state: Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>,
    total_bytes: usize,
    is_ended: bool,
}

impl Unbrotli {
    pub(super) fn new() -> Self {
        let alloc = StandardAlloc::default;
        // Strict: no windows beyond those of the RFC.
        let state = Box::new(BrotliState::new_strict(alloc(), alloc(), alloc()));
        Self { state, total_bytes: 0, is_ended: false }
    }

    /// True behind the stream's end.
    pub(super) fn may_end(&self) -> bool {
        self.is_ended
    }

    /// Reads from `input` until it is used up or `output` is full. What a full output left behind comes with the next
    /// step, also for an empty input.
    pub(super) fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, OpenError> {
        if self.is_ended {
            return if input.is_empty() { Ok(Step { read: 0, written: 0 }) } else { Err(OpenError::Corrupt) };
        }
        let (mut input_left, mut read) = (input.len(), 0);
        let (mut output_left, mut written) = (output.len(), 0);
        let result = BrotliDecompressStream(
            &mut input_left,
            &mut read,
            input,
            &mut output_left,
            &mut written,
            output,
            &mut self.total_bytes,
            &mut self.state,
        );
        match result {
            BrotliResult::ResultSuccess => self.is_ended = true,
            BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
            BrotliResult::ResultFailure => return Err(OpenError::Corrupt),
        }
        let is_stuck = input_left > 0 && output_left > 0;
        if is_stuck { Err(OpenError::Corrupt) } else { Ok(Step { read, written }) }
    }
}
