//! `deflate`, opened in bounded memory: zlib (RFC 1950), as RFC 9110, 8.4.1.2 says, and bare deflate (RFC 1951), as some
//! servers send and all browsers read.
//!
//! Which of the two it is, its first byte says. Nobody else has to come to the same answer: what was opened leaves as
//! zlib.

use flate2::{Decompress, FlushDecompress, Status};

use super::open::{OpenError, Step};

/// Opens one stream, piece by piece.
pub(super) struct Inflate {
    stage: Stage,
}

enum Stage {
    Untouched,
    Open(Box<Decompress>),
    Ended,
}

impl Inflate {
    pub(super) fn new() -> Self {
        Self { stage: Stage::Untouched }
    }

    /// True behind the stream's end.
    pub(super) fn may_end(&self) -> bool {
        matches!(self.stage, Stage::Ended)
    }

    /// Reads from `input` until it is used up or `output` is full. What a full output left behind comes with the next
    /// step, also for an empty input.
    pub(super) fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, OpenError> {
        let (mut read, mut written) = (0, 0);
        loop {
            let step = match &self.stage {
                Stage::Untouched => match input.first() {
                    None => return Ok(Step { read, written }),
                    Some(first) => {
                        self.stage = Stage::Open(Box::new(Decompress::new(is_zlib(*first))));
                        continue;
                    }
                },
                Stage::Open(_) => self.inflate(&input[read..], &mut output[written..])?,
                Stage::Ended if read < input.len() => return Err(OpenError::Corrupt),
                Stage::Ended => Step { read: 0, written: 0 },
            };
            read += step.read;
            written += step.written;
            if step.read == 0 && step.written == 0 {
                return Ok(Step { read, written });
            }
        }
    }

    fn inflate(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, OpenError> {
        let Stage::Open(decoder) = &mut self.stage else { return Ok(Step { read: 0, written: 0 }) };
        let (in_before, out_before) = (decoder.total_in(), decoder.total_out());
        let status = decoder.decompress(input, output, FlushDecompress::None).map_err(|_| OpenError::Corrupt)?;
        let read = (decoder.total_in() - in_before) as usize;
        let written = (decoder.total_out() - out_before) as usize;
        if status == Status::StreamEnd {
            self.stage = Stage::Ended;
        } else if read == 0 && written == 0 && !input.is_empty() && !output.is_empty() {
            return Err(OpenError::Corrupt);
        }
        Ok(Step { read, written })
    }
}

/// Method 8, a window of at most 32 KiB (RFC 1950, 2.2). Bare deflate that begins so would have a stored block whose
/// padding is not zero, which no encoder writes.
fn is_zlib(first: u8) -> bool {
    first & 15 == 8 && first >> 4 <= 7
}
