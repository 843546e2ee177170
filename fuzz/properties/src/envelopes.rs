//! Answers of gRPC, gRPC-Web and Connect: message by message, however they come.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame};
use valetkey::model::Denial;
use valetkey::proxy::scrub::{self, Needles};

use crate::cuts::{self, Input};
use crate::echo::Echo;

const HEAD_BYTES: usize = 5;

/// Messages keep their heads and lengths and are masked each by itself; it ends well only where another reader finds
/// whole messages alone, none of them compressed.
///
/// # Panics
/// Where that does not hold.
pub fn envelopes(data: &[u8]) {
    let mut input = Input(data);
    let choice = input.byte();
    let echo = Echo::of(choice >> 4);
    let kind = ["application/grpc", "application/grpc-web+proto", "application/connect+json"][usize::from(choice % 3)];
    let steps = input.take(3);
    let body = if choice & 8 == 0 { input.0.to_vec() } else { messages(&echo, input) };
    let end_flag = [0, 0x80, 0x02][usize::from(choice % 3)];
    let (expected, is_whole) = masked(&echo, &body, end_flag);
    for pieces in cuts::all(&body, steps) {
        let answer = Response::builder().header("content-type", kind).body(Chunks::new(pieces)).expect("an answer");
        let (out, is_ended) = delivered(answer, &echo.needles).expect("messages are searched");
        assert_eq!(is_ended, is_whole, "it ends well where all messages are whole and plain");
        if is_whole {
            assert_eq!(out, expected, "every message is masked by itself");
        } else {
            // How much has left when it breaks off depends on how it came.
            assert!(expected.starts_with(&out), "nothing leaves but masked messages");
        }
    }
}

/// Messages of an input: a length each, and a template of that length.
fn messages(echo: &Echo, mut input: Input<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    while !input.0.is_empty() {
        let length = usize::from(input.byte() % 64);
        let text = echo.text(input.take(length));
        body.push(0);
        body.extend_from_slice(&u32::try_from(text.len()).unwrap_or_default().to_be_bytes());
        body.extend_from_slice(&text);
    }
    body
}

/// The same, read and masked by another reader; and whether it is messages to its end.
fn masked(echo: &Echo, mut body: &[u8], end_flag: u8) -> (Vec<u8>, bool) {
    let mut out = Vec::new();
    while let Some((head, rest)) = body.split_at_checked(HEAD_BYTES) {
        if head[0] != 0 && head[0] != end_flag {
            return (out, false);
        }
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        out.extend_from_slice(head);
        let Some((message, rest)) = rest.split_at_checked(length) else {
            out.extend_from_slice(&echo.masked(rest));
            return (out, false);
        };
        out.extend_from_slice(&echo.masked(message));
        body = rest;
    }
    let is_whole = body.is_empty();
    (out, is_whole)
}

/// A body that comes in these pieces, all of them there.
pub(crate) struct Chunks(std::vec::IntoIter<Bytes>);

impl Chunks {
    pub(crate) fn new(pieces: Vec<Bytes>) -> Self {
        Self(pieces.into_iter())
    }
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.next().map(|piece| Ok(Frame::data(piece))))
    }
}

/// What the agent gets of a body, and whether it ended well.
pub(crate) fn delivered(answer: Response<Chunks>, needles: &Needles) -> Result<(Vec<u8>, bool), Denial> {
    let mut body = scrub::scrub(answer, needles, false)?.into_body();
    let mut context = Context::from_waker(Waker::noop());
    let mut out = Vec::new();
    loop {
        match Pin::new(&mut body).poll_frame(&mut context) {
            Poll::Ready(Some(Ok(frame))) => out.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Poll::Ready(Some(Err(_))) => return Ok((out, false)),
            Poll::Ready(None) => return Ok((out, true)),
            // It wakes itself, so that others get their turn.
            Poll::Pending => {}
        }
    }
}
