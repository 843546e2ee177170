//! Heads that an upstream sends over HTTP/2, counted below the library, which tells nobody of interim ones.
//!
//! Of a frame only its own head is looked at (RFC 9113, 4.1). A stream has one head before its body, and one after it
//! that ends it; those beyond that are interim. Too many of them end the connection: without end, they would keep the
//! library busy until the answer is overdue.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::interim::HEADS_MAX;

/// Length, kind, flags, stream.
const FRAME_HEAD_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const END_STREAM: u8 = 1;

/// Streams that are remembered. Ids go upwards and are ours to give, so that the lowest are over first.
const STREAMS_MAX: usize = 1024;

/// More interim heads than an answer may have before it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("an upstream sends heads without end")]
struct TooMany;

/// The heads of each stream that is not over.
#[derive(Debug, Default)]
struct Heads {
    /// What is known of the next frame's head.
    frame: [u8; FRAME_HEAD_BYTES],
    known: usize,
    /// Bytes of a payload that are still to come.
    payload: usize,
    streams: BTreeMap<u32, u32>,
}

impl Heads {
    fn read(&mut self, mut bytes: &[u8]) -> Result<(), TooMany> {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let passed = self.payload.min(bytes.len());
                self.payload -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            let fresh = bytes.len().min(FRAME_HEAD_BYTES - self.known);
            self.frame[self.known..self.known + fresh].copy_from_slice(&bytes[..fresh]);
            self.known += fresh;
            bytes = &bytes[fresh..];
            if self.known == FRAME_HEAD_BYTES {
                self.known = 0;
                self.begun()?;
            }
        }
        Ok(())
    }

    /// A frame's head is whole.
    fn begun(&mut self) -> Result<(), TooMany> {
        let [l1, l2, l3, kind, flags, s1, s2, s3, s4] = self.frame;
        self.payload = u32::from_be_bytes([0, l1, l2, l3]) as usize;
        // The highest bit is reserved, and says nothing.
        let stream = u32::from_be_bytes([s1 & 0x7f, s2, s3, s4]);
        match kind {
            HEADERS | DATA if flags & END_STREAM != 0 => self.over(stream),
            RST_STREAM => self.over(stream),
            HEADERS => {
                let heads = self.streams.entry(stream).or_default();
                *heads += 1;
                // The last of them may be the answer's own.
                if *heads > HEADS_MAX + 1 {
                    return Err(TooMany);
                }
                if self.streams.len() > STREAMS_MAX {
                    self.streams.pop_first();
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn over(&mut self, stream: u32) {
        self.streams.remove(&stream);
    }
}

/// A connection to an upstream; what comes over HTTP/2 is looked at.
pub(super) struct Counted<S> {
    stream: S,
    heads: Option<Box<Heads>>,
}

impl<S> Counted<S> {
    /// Over HTTP/1 the library counts.
    pub(super) fn new(stream: S, is_h2: bool) -> Self {
        Self { stream, heads: is_h2.then(Box::default) }
    }

    /// True where HTTP/2 is spoken on it.
    pub(super) fn is_h2(&self) -> bool {
        self.heads.is_some()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let heads = self.heads.as_mut();
        let read = heads.map_or(Ok(()), |heads| heads.read(&buf.filled()[before..]));
        Poll::Ready(read.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
    }

    #[test]
    fn heads_of_one_stream_are_counted_however_they_are_cut() {
        let some = frame(HEADERS, 4, 1, b"payload").repeat(HEADS_MAX as usize + 1);
        let one_more = frame(HEADERS, 4, 1, b"");
        for piece in [1, 2, 8, 9, 10, 1_000] {
            let mut heads = Heads::default();
            assert!(some.chunks(piece).all(|bytes| heads.read(bytes).is_ok()), "{piece}");
            assert_eq!(heads.read(&one_more), Err(TooMany), "{piece}");
        }
    }

    #[test]
    fn streams_that_are_over_are_forgotten_and_others_are_counted_by_themselves() {
        let mut heads = Heads::default();
        let ends = [frame(HEADERS, 5, 1, b"x"), frame(DATA, 1, 1, b"x"), frame(RST_STREAM, 0, 1, &[0; 4])];
        for end in ends {
            for stream in [1, 3] {
                heads.read(&frame(HEADERS, 4, stream, b"x").repeat(20)).unwrap();
            }
            heads.read(&end).unwrap();
        }
        assert_eq!(heads.streams, BTreeMap::from([(3, 60)]));
        // What looks like a head in a payload is none.
        heads.read(&frame(DATA, 0, 3, &frame(HEADERS, 4, 3, b"").repeat(20))).unwrap();
        assert_eq!(heads.streams, BTreeMap::from([(3, 60)]));
        heads.read(&frame(HEADERS, 4, 3, b"").repeat(6)).unwrap_err();
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut heads = Heads::default();
        for stream in 0..2 * STREAMS_MAX as u32 {
            let id = (2 * stream + 1).to_be_bytes();
            heads.read(&[&[0, 0, 0, HEADERS, 4], &id[..]].concat()).unwrap();
        }
        assert_eq!(heads.streams.len(), STREAMS_MAX);
        assert_eq!(heads.streams.first_key_value(), Some((&(2 * STREAMS_MAX as u32 + 1), &1)));
    }
}
