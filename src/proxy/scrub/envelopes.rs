//! Bodies that are a sequence of messages: gRPC (PROTOCOL-HTTP2.md of the gRPC project, "Length-Prefixed-Message"),
//! gRPC-Web (PROTOCOL-WEB.md there) and the streams of Connect ("Enveloped-Message" of its protocol).
//!
//! Each message stands behind five bytes, flags and a length, and is searched as one text. Nothing of it is held once its
//! last byte has come: both sides may wait for each other then. What cannot be searched, a compressed message, is not
//! let through; the sequence is cut before it.

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName};

use super::{Masker, Needles, is_token};
use crate::model::Denial;

/// Flags, and a length in network order.
const HEAD_BYTES: usize = 5;

const GRPC: &str = "application/grpc";
const CONNECT: &str = "application/connect";

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const CONNECT_ENCODING: HeaderName = HeaderName::from_static("connect-content-encoding");

/// What upstream is told of the messages that we can read, next to `Accept-Encoding`.
pub(super) const ACCEPT_MESSAGE_ENCODING: [HeaderName; 2] =
    [HeaderName::from_static("grpc-accept-encoding"), HeaderName::from_static("connect-accept-encoding")];

/// Whose messages they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Grpc,
    GrpcWeb,
    Connect,
}

impl Protocol {
    /// What an answer's head says of its body; `None` if that is no sequence of messages.
    ///
    /// # Errors
    /// [`Denial::AnswerUnscrubbable`]: compressed messages, `application/grpc-web-text` (messages in base64), or a type
    /// that two parties could read differently.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, Denial> {
        let mut types = headers.get_all(CONTENT_TYPE).iter().map(|value| Self::named(value.as_bytes()));
        let protocol = match (types.next(), types.next()) {
            (None, _) => return Ok(None),
            (Some(one), None) => one?,
            (Some(Ok(None)), Some(Ok(None))) if types.all(|other| other == Ok(None)) => None,
            (Some(_), Some(_)) => return Err(Denial::AnswerUnscrubbable),
        };
        let encoding = match protocol {
            None => return Ok(None),
            Some(Self::Grpc | Self::GrpcWeb) => GRPC_ENCODING,
            Some(Self::Connect) => CONNECT_ENCODING,
        };
        let is_plain = headers.get_all(encoding).iter().all(|value| is_token(value.as_bytes(), b"identity"));
        if is_plain { Ok(protocol) } else { Err(Denial::AnswerUnscrubbable) }
    }

    fn named(value: &[u8]) -> Result<Option<Self>, Denial> {
        let name = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let begins = |known: &str| name.get(..known.len()).is_some_and(|it| it.eq_ignore_ascii_case(known.as_bytes()));
        if !begins(GRPC) && !begins(CONNECT) {
            return Ok(None);
        }
        let name = name.to_ascii_lowercase();
        if let Some(rest) = name.strip_prefix(GRPC.as_bytes()) {
            return match rest.strip_prefix(b"-web") {
                Some(rest) if is_suffix(rest) => Ok(Some(Self::GrpcWeb)),
                None if is_suffix(rest) => Ok(Some(Self::Grpc)),
                Some(_) | None => Err(Denial::AnswerUnscrubbable),
            };
        }
        match name.strip_prefix(CONNECT.as_bytes()) {
            Some(rest @ [b'+', ..]) if is_suffix(rest) => Ok(Some(Self::Connect)),
            Some([b'+', ..]) => Err(Denial::AnswerUnscrubbable),
            Some(_) | None => Ok(None),
        }
    }

    /// Flags of what is no compressed message: a message, and the end that gRPC-Web (trailers) and Connect (an error)
    /// write as one.
    fn is_readable(self, flags: u8) -> bool {
        match self {
            Self::Grpc => flags == 0,
            Self::GrpcWeb => matches!(flags, 0 | 0x80),
            Self::Connect => matches!(flags, 0 | 0x02),
        }
    }
}

/// Nothing, or `+` and a name.
fn is_suffix(rest: &[u8]) -> bool {
    match rest {
        [] => true,
        [b'+', name @ ..] => name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-._".contains(byte)),
        _ => false,
    }
}

/// A compressed message, flags that nobody has defined, or an end in the middle of a message. Says nothing of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message is compressed, cut off, or none")]
pub struct EnvelopeFault;

/// A sequence of messages on its way, every echo masked with the same length; what is held is less than a form.
pub(super) struct Envelopes {
    protocol: Protocol,
    /// Empty between messages.
    masker: Masker,
    at: At,
}

/// Where in the sequence the next byte stands.
enum At {
    Head { bytes: [u8; HEAD_BYTES], have: usize },
    Message { left: u32 },
    Broken,
}

impl At {
    const START: Self = Self::Head { bytes: [0; HEAD_BYTES], have: 0 };

    /// An empty message is over at once.
    fn after_head(length: u32) -> Self {
        if length == 0 { Self::START } else { Self::Message { left: length } }
    }
}

impl Envelopes {
    pub(super) fn new(protocol: Protocol, needles: Needles) -> Self {
        Self { protocol, masker: Masker::new(needles), at: At::START }
    }

    /// Takes the next bytes, gives what is safe to send: all of it up to the end of the last whole message. Nothing
    /// comes out any more once the sequence is [broken](Self::check).
    pub(super) fn push(&mut self, mut input: Bytes) -> Bytes {
        let mut out = BytesMut::with_capacity(input.len() + HEAD_BYTES);
        while !input.is_empty() {
            match &mut self.at {
                At::Head { bytes, have } => {
                    bytes[*have] = input.split_to(1)[0];
                    *have += 1;
                    if !self.protocol.is_readable(bytes[0]) {
                        self.at = At::Broken;
                    } else if *have == HEAD_BYTES {
                        out.extend_from_slice(bytes);
                        let [_, length @ ..] = *bytes;
                        self.at = At::after_head(u32::from_be_bytes(length));
                    }
                }
                At::Message { left } => {
                    let count = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                    *left -= u32::try_from(count).unwrap_or(*left);
                    let is_over = *left == 0;
                    out.extend_from_slice(&self.masker.push(input.split_to(count)));
                    if is_over {
                        out.extend_from_slice(&self.masker.finish());
                        self.at = At::START;
                    }
                }
                At::Broken => break,
            }
        }
        out.freeze()
    }

    /// Whether what has come can be searched.
    pub(super) fn check(&self) -> Result<(), EnvelopeFault> {
        match self.at {
            At::Head { .. } | At::Message { .. } => Ok(()),
            At::Broken => Err(EnvelopeFault),
        }
    }

    /// Whether it may end here.
    pub(super) fn finish(&self) -> Result<(), EnvelopeFault> {
        if self.is_between_messages() { Ok(()) } else { Err(EnvelopeFault) }
    }

    pub(super) fn is_between_messages(&self) -> bool {
        matches!(self.at, At::Head { have: 0, .. })
    }

    /// How many bytes are held back.
    pub(super) fn held_bytes(&self) -> usize {
        match self.at {
            At::Head { have, .. } => have,
            At::Message { .. } => self.masker.held_bytes(),
            At::Broken => 0,
        }
    }
}

#[cfg(test)]
mod tests;
