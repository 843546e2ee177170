//! An answer leaves without any echo of the credential.

use bytes::Bytes;
use http::Response;

use crate::model::Denial;

/// What is searched for: the credential in the form that went out and in every documented encoding. Cheap to clone;
/// made once per credential version (only `inject` makes one).
#[derive(Clone)]
pub struct Needles {}

impl Needles {
    /// Compiles the search for `secret` and for the forms in which it `went_out` (header values, a Basic blob, …).
    #[must_use]
    pub fn new(_secret: &[u8], _went_out: &[&[u8]]) -> Self {
        todo!()
    }
}

/// A body whose every echo of the credential is masked with the same length.
pub struct ScrubbedBody<B>(B);

/// Masks status reason, headers, trailers and body. `is_bodyless` for answers to HEAD and 204, 304.
///
/// # Errors
/// [`Denial::AnswerUnscrubbable`] for an encoding that cannot be searched, and for a 206.
pub fn scrub<B>(
    _answer: Response<B>,
    _needles: &Needles,
    _is_bodyless: bool,
) -> Result<Response<ScrubbedBody<B>>, Denial>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    todo!()
}

/// What to ask of upstream, so that its answer can be searched.
#[must_use]
pub fn narrow_accept_encoding(_headers: &http::HeaderMap) -> http::HeaderValue {
    todo!()
}
impl<B: http_body::Body<Data = Bytes> + Unpin> http_body::Body for ScrubbedBody<B> {
    type Data = Bytes;
    type Error = B::Error;
    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, B::Error>>> {
        std::pin::Pin::new(&mut self.0).poll_frame(cx)
    }
}
