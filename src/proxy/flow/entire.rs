//! A body as the library reads it, whose end is believed only where the other side has said that it is one.
//!
//! The library takes a reset, or a farewell, without an error (RFC 9113, 8.1) for the end of a body. A peer that was done
//! has said so before; one that was not leaves half a body behind, which must not pass for a whole one.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Version;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The connection or the framing is broken, or the stream was reset.
    #[error("the body broke off")]
    Library(#[from] hyper::Error),
    /// Nothing more comes, and nobody has said that this was all.
    #[error("the body stopped before its end")]
    Endless,
}

/// A body that ends only where its sender says so.
#[derive(Debug)]
pub struct Entire<B = Incoming> {
    body: B,
    /// Over HTTP/1 the library itself knows a body's end from its break.
    is_h2: bool,
    has_trailers: bool,
}

impl<B> Entire<B> {
    /// A body that came over this version of HTTP.
    pub(in crate::proxy) fn new(body: B, version: Version) -> Self {
        Self { body, is_h2: version == Version::HTTP_2, has_trailers: false }
    }
}

impl<B> HttpBody for Entire<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    Broken: From<B::Error>,
{
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        let Some(frame) = ready!(Pin::new(&mut this.body).poll_frame(cx)) else {
            // Trailers are the end.
            let is_end = !this.is_h2 || this.has_trailers || this.body.is_end_stream();
            return Poll::Ready((!is_end).then_some(Err(Broken::Endless)));
        };
        let frame = frame?;
        this.has_trailers |= frame.is_trailers();
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::task::Waker;

    use http::HeaderMap;

    use super::*;

    /// Says these, and then whether that was all.
    struct Says(VecDeque<Frame<Bytes>>, bool);

    impl HttpBody for Says {
        type Data = Bytes;
        type Error = hyper::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
            Poll::Ready(self.0.pop_front().map(Ok))
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty() && self.1
        }
    }

    fn ends_well(version: Version, frames: Vec<Frame<Bytes>>, is_all: bool) -> bool {
        let mut body = Entire::new(Says(frames.into(), is_all), version);
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            match Pin::new(&mut body).poll_frame(&mut cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(Broken::Endless))) => return false,
                Poll::Ready(None) => return true,
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn an_end_that_nobody_has_named_is_none() {
        let data = || vec![Frame::data(Bytes::from_static(b"half"))];
        assert!(!ends_well(Version::HTTP_2, data(), false));
        assert!(!ends_well(Version::HTTP_2, Vec::new(), false));
        assert!(ends_well(Version::HTTP_2, data(), true));
        assert!(ends_well(Version::HTTP_2, Vec::new(), true));
    }

    #[test]
    fn trailers_are_an_end_and_http_1_is_trusted() {
        let trailers = || vec![Frame::data(Bytes::from_static(b"all")), Frame::trailers(HeaderMap::new())];
        assert!(ends_well(Version::HTTP_2, trailers(), false));
        assert!(ends_well(Version::HTTP_11, vec![Frame::data(Bytes::from_static(b"all"))], false));
    }
}
