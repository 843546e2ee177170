//! A body's text on its way: all of it, or message by message.

use bytes::Bytes;

use super::envelopes::{EnvelopeFault, Envelopes, Protocol};
use super::{Masker, Needles};

/// Every echo is masked with the same length; what is held is less than a form.
pub(super) enum Text {
    /// One text from the first byte to the last.
    Whole(Masker),
    /// Each message is one.
    Messages(Envelopes),
}

impl Text {
    pub(super) fn new(protocol: Option<Protocol>, needles: Needles) -> Self {
        match protocol {
            None => Self::Whole(Masker::new(needles)),
            Some(protocol) => Self::Messages(Envelopes::new(protocol, needles)),
        }
    }

    /// Takes the next piece, gives what is safe to send.
    pub(super) fn push(&mut self, piece: Bytes) -> Bytes {
        match self {
            Self::Whole(masker) => masker.push(piece),
            Self::Messages(envelopes) => envelopes.push(piece),
        }
    }

    /// Whether more may be read.
    pub(super) fn check(&self) -> Result<(), EnvelopeFault> {
        match self {
            Self::Whole(_) => Ok(()),
            Self::Messages(envelopes) => envelopes.check(),
        }
    }

    /// Ends the text: gives what was held back.
    pub(super) fn finish(&mut self) -> Result<Bytes, EnvelopeFault> {
        match self {
            Self::Whole(masker) => Ok(masker.finish()),
            Self::Messages(envelopes) => envelopes.finish().map(|()| Bytes::new()),
        }
    }

    /// True where the text may end without anything more to say.
    pub(super) fn is_settled(&self) -> bool {
        match self {
            Self::Whole(masker) => masker.held_bytes() == 0,
            Self::Messages(envelopes) => envelopes.is_between_messages(),
        }
    }

    /// How many bytes are held back.
    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Self::Whole(masker) => masker.held_bytes(),
            Self::Messages(envelopes) => envelopes.held_bytes(),
        }
    }
}
