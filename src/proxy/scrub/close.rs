//! An opened and searched body leaves in the coding in which it came, so that its head stays true.
//!
//! gzip and deflate are packed again. Brotli and zstd are framed, and not packed: their encoders are much code and take
//! long, and the agent is a few microseconds of loopback away.

use std::io::{self, Write as _};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

use super::Coding;

/// Longest block that is framed, in bytes: what Brotli's shortest head can say.
const BLOCK_BYTES_MAX: usize = 64 * 1024;
const BLOCK_HEAD_BYTES: usize = 3;

/// Packs or frames a body as it streams.
pub(super) enum Closer {
    Gzip(GzEncoder<Vec<u8>>),
    Deflate(ZlibEncoder<Vec<u8>>),
    Brotli(Framed),
    Zstd(Framed),
}

/// Blocks that hold their content as it is.
#[derive(Default)]
pub(super) struct Framed {
    out: Vec<u8>,
    is_begun: bool,
}

impl Closer {
    pub(super) fn new(coding: Coding) -> Self {
        match coding {
            Coding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), Compression::fast())),
            Coding::Deflate => Self::Deflate(ZlibEncoder::new(Vec::new(), Compression::fast())),
            Coding::Brotli => Self::Brotli(Framed::default()),
            Coding::Zstd => Self::Zstd(Framed::default()),
        }
    }

    pub(super) fn write(&mut self, text: &[u8]) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.write_all(text),
            Self::Deflate(encoder) => encoder.write_all(text),
            Self::Brotli(framed) => {
                text.chunks(BLOCK_BYTES_MAX).for_each(|block| framed.brotli(block));
                Ok(())
            }
            Self::Zstd(framed) => {
                text.chunks(BLOCK_BYTES_MAX).for_each(|block| framed.zstd(block));
                Ok(())
            }
        }
    }

    /// Brings everything out that was written.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.flush(),
            Self::Deflate(encoder) => encoder.flush(),
            Self::Brotli(_) | Self::Zstd(_) => Ok(()),
        }
    }

    /// Ends the stream.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.try_finish(),
            Self::Deflate(encoder) => encoder.try_finish(),
            Self::Brotli(framed) => {
                // The last block, and empty; before it, where nothing stands, the shortest window.
                framed.out.push(if framed.is_begun { 0b11 } else { 0b110 });
                Ok(())
            }
            Self::Zstd(framed) => {
                framed.zstd_head();
                framed.out.extend_from_slice(&zstd_block(true, 0));
                Ok(())
            }
        }
    }

    pub(super) fn encoded_bytes(&self) -> usize {
        match self {
            Self::Gzip(encoder) => encoder.get_ref().len(),
            Self::Deflate(encoder) => encoder.get_ref().len(),
            Self::Brotli(framed) | Self::Zstd(framed) => framed.out.len(),
        }
    }

    pub(super) fn take(&mut self) -> Bytes {
        let out = match self {
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Deflate(encoder) => encoder.get_mut(),
            Self::Brotli(framed) | Self::Zstd(framed) => &mut framed.out,
        };
        std::mem::take(out).into()
    }
}

impl Framed {
    /// A block that is not the last, has four nibbles of length, and is not compressed (RFC 7932, 9.2); its head ends with
    /// a byte. Before the first stands one bit, a window of 64 KiB (9.1).
    fn brotli(&mut self, block: &[u8]) {
        let head = (block.len() as u32 - 1) << 3 | 1 << 19;
        let head = if std::mem::replace(&mut self.is_begun, true) { head } else { head << 1 };
        self.out.extend_from_slice(&head.to_le_bytes()[..BLOCK_HEAD_BYTES]);
        self.out.extend_from_slice(block);
    }

    /// A raw block (RFC 8878, 3.1.1.2).
    fn zstd(&mut self, block: &[u8]) {
        self.zstd_head();
        self.out.extend_from_slice(&zstd_block(false, block.len()));
        self.out.extend_from_slice(block);
    }

    /// Magic, no field but the window's: 128 KiB (RFC 8878, 3.1.1.1).
    fn zstd_head(&mut self) {
        if !std::mem::replace(&mut self.is_begun, true) {
            self.out.extend_from_slice(&[0x28, 0xb5, 0x2f, 0xfd, 0, 7 << 3]);
        }
    }
}

fn zstd_block(is_last: bool, bytes: usize) -> [u8; BLOCK_HEAD_BYTES] {
    let [low, middle, high, _] = (u32::from(is_last) | (bytes as u32) << 3).to_le_bytes();
    [low, middle, high]
}
