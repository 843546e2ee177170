//! What comes over a WebSocket, searched message by message (RFC 6455, 5).
//!
//! A message is searched as one text, however it is split into fragments and reads. Without an extension a
//! fragmentation may be changed on the way (RFC 6455, 5.4): a frame leaves as it came where it is short and nothing of it
//! is held back, else in pieces. A message has left when its last byte has come.

use bytes::{Bytes, BytesMut};

use super::{Masker, Needles};

/// The longest head of an unmasked frame.
const HEAD_BYTES_MAX: usize = 10;
/// The longest payload of a control frame (RFC 6455, 5.5).
const CONTROL_BYTES_MAX: usize = 125;
/// A frame leaves in pieces of about this many bytes, if it is longer: all that is held of it.
const PIECE_BYTES: usize = 64 * 1024;

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// What no endpoint may send; the connection is over. Says nothing of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameFault {
    /// A reserved bit, although no extension was agreed on.
    #[error("a reserved bit is set")]
    ReservedBit,
    /// An opcode that nobody has defined.
    #[error("an opcode is reserved")]
    ReservedOpcode,
    /// A server's frames are never masked.
    #[error("a server's frame is masked")]
    Masked,
    /// A length beyond 63 bits, or one in more bytes than it needs.
    #[error("a length is not as it should be written")]
    Length,
    /// A control frame in pieces or above 125 bytes, or a close reason of one byte.
    #[error("a control frame is in pieces, too long or cut off")]
    Control,
    /// A message in a message, or a continuation of nothing.
    #[error("a fragment does not follow from the one before it")]
    Sequence,
    /// Something after the end.
    #[error("something follows a close frame")]
    AfterClose,
}

/// A close frame with this status and no reason, as a server sends it.
#[must_use]
pub fn close(status: u16) -> Bytes {
    let [high, low] = status.to_be_bytes();
    Bytes::copy_from_slice(&[0x80 | CLOSE, 2, high, low])
}

/// A server's frames on their way, with every echo masked; memory stays within two pieces, whatever lengths they claim.
pub struct Frames {
    needles: Needles,
    at: At,
    /// Of the message that has begun and not ended.
    message: Option<Message>,
    is_closed: bool,
}

/// Where in a frame the next byte stands.
enum At {
    Head { bytes: [u8; HEAD_BYTES_MAX], have: usize },
    Data { left: u64, is_last: bool },
    Control { opcode: u8, length: usize, payload: Vec<u8> },
}

impl At {
    const START: Self = Self::Head { bytes: [0; HEAD_BYTES_MAX], have: 0 };
}

/// A message on its way.
struct Message {
    /// Of the next piece: the message's own for the first, a continuation's for those after it.
    opcode: u8,
    masker: Masker,
    /// Searched, and not yet sent.
    ready: BytesMut,
}

/// A frame's head, understood.
struct Head {
    is_last: bool,
    opcode: u8,
    length: u64,
}

impl Frames {
    /// At the beginning of a connection.
    #[must_use]
    pub fn new(needles: Needles) -> Self {
        Self { needles, at: At::START, message: None, is_closed: false }
    }

    /// Takes the next bytes, adds to `out` what is safe to send: whole frames and nothing else.
    ///
    /// # Errors
    /// [`FrameFault`]: what came before it is in `out`, nothing may follow.
    pub fn push(&mut self, mut input: Bytes, out: &mut BytesMut) -> Result<(), FrameFault> {
        while !input.is_empty() {
            match &mut self.at {
                At::Head { bytes, have } => {
                    bytes[*have] = input.split_to(1)[0];
                    *have += 1;
                    if let Some(head) = Head::parse(&bytes[..*have])? {
                        self.begin(&head, out)?;
                    }
                }
                At::Data { left, is_last } => {
                    let count = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                    *left -= count as u64;
                    let (is_over, is_last) = (*left == 0, *is_last);
                    self.data(input.split_to(count), is_over, is_last, out)?;
                }
                At::Control { opcode, length, payload } => {
                    let count = (*length - payload.len()).min(input.len());
                    payload.extend_from_slice(&input.split_to(count));
                    if payload.len() == *length {
                        let (opcode, payload) = (*opcode, std::mem::take(payload));
                        self.control(opcode, payload, out)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// True where a connection may end without anything being cut off.
    #[must_use]
    pub fn is_between_messages(&self) -> bool {
        self.message.is_none() && matches!(self.at, At::Head { have: 0, .. })
    }

    /// True once the server has said that it is over.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    fn begin(&mut self, head: &Head, out: &mut BytesMut) -> Result<(), FrameFault> {
        if self.is_closed {
            return Err(FrameFault::AfterClose);
        }
        if matches!(head.opcode, CLOSE | PING | PONG) {
            let length = usize::try_from(head.length).map_err(|_| FrameFault::Control)?;
            if !head.is_last || length > CONTROL_BYTES_MAX {
                return Err(FrameFault::Control);
            }
            self.at = At::Control { opcode: head.opcode, length, payload: Vec::with_capacity(length) };
            return if length == 0 { self.control(head.opcode, Vec::new(), out) } else { Ok(()) };
        }
        match (head.opcode, &self.message) {
            (CONTINUATION, Some(_)) => {}
            (TEXT | BINARY, None) => {
                let masker = Masker::new(self.needles.clone());
                self.message = Some(Message { opcode: head.opcode, masker, ready: BytesMut::new() });
            }
            _ => return Err(FrameFault::Sequence),
        }
        self.at = At::Data { left: head.length, is_last: head.is_last };
        if head.length == 0 { self.data(Bytes::new(), true, head.is_last, out) } else { Ok(()) }
    }

    fn data(&mut self, piece: Bytes, is_over: bool, is_last: bool, out: &mut BytesMut) -> Result<(), FrameFault> {
        let message = self.message.as_mut().ok_or(FrameFault::Sequence)?;
        message.ready.extend_from_slice(&message.masker.push(piece));
        if is_over && is_last {
            message.ready.extend_from_slice(&message.masker.finish());
            message.send(true, out);
            self.message = None;
        } else if message.ready.len() >= PIECE_BYTES || (is_over && !message.ready.is_empty()) {
            message.send(false, out);
        }
        if is_over {
            self.at = At::START;
        }
        Ok(())
    }

    fn control(&mut self, opcode: u8, mut payload: Vec<u8>, out: &mut BytesMut) -> Result<(), FrameFault> {
        if opcode == CLOSE && payload.len() == 1 {
            return Err(FrameFault::Control);
        }
        // A close frame's status, too: its two bytes could be the beginning of an echo.
        if let Some(masked) = self.needles.mask(&payload) {
            payload = masked;
        }
        self.is_closed |= opcode == CLOSE;
        self.at = At::START;
        put_frame(true, opcode, &payload, out);
        Ok(())
    }
}

impl Message {
    fn send(&mut self, is_last: bool, out: &mut BytesMut) {
        put_frame(is_last, self.opcode, &self.ready, out);
        self.ready.clear();
        self.opcode = CONTINUATION;
    }
}

impl Head {
    /// `None` as long as there are too few bytes.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, FrameFault> {
        let &[first, second, ref extended @ ..] = bytes else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(FrameFault::ReservedBit);
        }
        let opcode = first & 0x0f;
        if !matches!(opcode, CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG) {
            return Err(FrameFault::ReservedOpcode);
        }
        if second & 0x80 != 0 {
            return Err(FrameFault::Masked);
        }
        let length = match (second, extended.len()) {
            (0..=125, _) => u64::from(second),
            (126, 2) => number(extended, 126)?,
            (127, 8) => number(extended, 1 << 16)?,
            _ => return Ok(None),
        };
        Ok(Some(Self { is_last: first & 0x80 != 0, opcode, length }))
    }
}

/// A length in network order, in no more bytes than it needs.
fn number(bytes: &[u8], min: u64) -> Result<u64, FrameFault> {
    let number = bytes.iter().fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
    if number < min || number > u64::MAX >> 1 { Err(FrameFault::Length) } else { Ok(number) }
}

fn put_frame(is_last: bool, opcode: u8, payload: &[u8], out: &mut BytesMut) {
    out.reserve(HEAD_BYTES_MAX + payload.len());
    let first = if is_last { 0x80 | opcode } else { opcode };
    let length = (payload.len() as u64).to_be_bytes();
    match payload.len() {
        0..126 => out.extend_from_slice(&[first, length[7]]),
        126..65_536 => out.extend_from_slice(&[first, 126, length[6], length[7]]),
        _ => {
            out.extend_from_slice(&[first, 127]);
            out.extend_from_slice(&length);
        }
    }
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests;
