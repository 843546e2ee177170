//! What is compressed, opened step by step in bounded memory.

use super::Coding;
use super::gunzip::Gunzip;
use super::inflate::Inflate;
use super::unbrotli::Unbrotli;
use super::zstd::Unzstd;

/// Up to this many bytes of output, any ratio is taken for honest.
const RATIO_FREE_BYTES: u64 = 1024 * 1024;
/// From there on, output over input at most. Deflate reaches 1,032, the others far more; text and JSON stay far below.
const RATIO_MAX: u64 = 1000;

/// Why a body could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OpenError {
    /// It is not in the coding that it names, is damaged, ends early, or goes on after its end.
    Corrupt,
    /// It grows beyond any honest ratio.
    Bomb,
}

/// What was done by one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    /// Bytes taken from the input.
    pub(super) read: usize,
    /// Bytes put into the output.
    pub(super) written: usize,
}

/// Opens a body, piece by piece.
pub(super) struct Opener {
    decoder: Decoder,
    input_bytes: u64,
    output_bytes: u64,
}

enum Decoder {
    Gzip(Box<Gunzip>),
    Deflate(Inflate),
    Brotli(Unbrotli),
    Zstd(Box<Unzstd>),
}

impl Opener {
    pub(super) fn new(coding: Coding) -> Self {
        let decoder = match coding {
            Coding::Gzip => Decoder::Gzip(Box::new(Gunzip::new())),
            Coding::Deflate => Decoder::Deflate(Inflate::new()),
            Coding::Brotli => Decoder::Brotli(Unbrotli::new()),
            Coding::Zstd => Decoder::Zstd(Box::new(Unzstd::new())),
        };
        Self { decoder, input_bytes: 0, output_bytes: 0 }
    }

    /// True where the input may end: nothing at all is an empty body.
    pub(super) fn may_end(&self) -> bool {
        self.is_untouched()
            || match &self.decoder {
                Decoder::Gzip(gunzip) => gunzip.may_end(),
                Decoder::Deflate(inflate) => inflate.may_end(),
                Decoder::Brotli(unbrotli) => unbrotli.may_end(),
                Decoder::Zstd(unzstd) => unzstd.may_end(),
            }
    }

    /// True before the first byte.
    pub(super) fn is_untouched(&self) -> bool {
        self.input_bytes == 0
    }

    /// Reads from `input` until it is used up or `output` is full, and writes all that the input tells so far. What a full
    /// output left behind comes with the next step, also for an empty input.
    pub(super) fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, OpenError> {
        let step = match &mut self.decoder {
            Decoder::Gzip(gunzip) => gunzip.step(input, output),
            Decoder::Deflate(inflate) => inflate.step(input, output),
            Decoder::Brotli(unbrotli) => unbrotli.step(input, output),
            Decoder::Zstd(unzstd) => unzstd.step(input, output),
        }?;
        self.input_bytes += step.read as u64;
        self.output_bytes += step.written as u64;
        if self.output_bytes > RATIO_FREE_BYTES && self.output_bytes / RATIO_MAX > self.input_bytes {
            return Err(OpenError::Bomb);
        }
        Ok(step)
    }
}

#[cfg(test)]
pub(super) mod tests;
