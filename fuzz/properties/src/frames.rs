//! What a server says over a WebSocket: message by message, however it comes.

use bytes::{Bytes, BytesMut};
use valetkey::proxy::scrub::{FrameFault, Frames};

use crate::cuts::{self, Input};
use crate::echo::Echo;

const CLOSE: u8 = 8;

/// A message or a control frame, its fragments put together.
type Said = (u8, Vec<u8>);

/// The messages and control frames that leave are those that came, each masked by itself; a fault is one for every cut.
///
/// # Panics
/// Where that does not hold.
pub fn frames(data: &[u8]) {
    let mut input = Input(data);
    let choice = input.byte();
    let echo = Echo::of(choice >> 4);
    let steps = input.take(3);
    let wire = if choice & 8 == 0 { input.0.to_vec() } else { spoken(&echo, input) };
    let (came, _) = read(&wire);
    let (out, fault) = pushed(&echo, vec![Bytes::copy_from_slice(&wire)]);
    let (left, is_framed) = read(&out);
    assert!(is_framed, "whole frames leave, and nothing else");
    assert!(left.len() <= came.len(), "nothing is added");
    for ((opcode, text), (own, masked)) in came.iter().zip(&left) {
        assert_eq!(opcode, own, "nothing changes its kind");
        let status = if *opcode == CLOSE { text.len().min(2) } else { 0 };
        let unchanged = status == 2 && masked.get(..2) == text.get(..2);
        if *opcode != CLOSE || unchanged {
            echo.judge(&text[status..], &masked[status..]);
        }
    }
    let mut before_last = left.iter().rev().skip(1);
    assert!(before_last.all(|(opcode, _)| *opcode != CLOSE), "nothing follows a close frame");
    if fault.is_none() {
        assert_eq!(left.len(), came.len(), "nothing is lost");
    }
    for pieces in cuts::all(&wire, steps) {
        let (again, other_fault) = pushed(&echo, pieces);
        assert_eq!((read(&again).0, other_fault), (left.clone(), fault), "another cut, another message");
    }
}

fn pushed(echo: &Echo, pieces: Vec<Bytes>) -> (Vec<u8>, Option<FrameFault>) {
    let mut frames = Frames::new(echo.needles.clone());
    let mut out = BytesMut::new();
    for piece in pieces {
        if let Err(fault) = frames.push(piece, &mut out) {
            return (out.to_vec(), Some(fault));
        }
    }
    (out.to_vec(), None)
}

/// What no frame may have set, stands for a message in two frames, cut in its middle.
const IN_TWO: u8 = 0x40;

/// Frames of an input: a byte for kind and end, a length, and a template of that length.
fn spoken(echo: &Echo, mut input: Input<'_>) -> Vec<u8> {
    let mut wire = Vec::new();
    while !input.0.is_empty() {
        let (first, length) = (input.byte(), usize::from(input.byte() % 48));
        let text = echo.text(input.take(length));
        if first & IN_TWO == 0 {
            put(&mut wire, first, &text);
        } else {
            let (one, other) = text.split_at(text.len() / 2);
            put(&mut wire, first & 0x0f, one);
            put(&mut wire, 0x80, other);
        }
    }
    wire
}

fn put(wire: &mut Vec<u8>, first: u8, text: &[u8]) {
    wire.push(first);
    match u8::try_from(text.len()) {
        Ok(short) if short < 126 => wire.push(short),
        _ => {
            wire.push(126);
            wire.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    wire.extend_from_slice(text);
}

/// What whole frames say, by a reader that trusts them; and whether they are frames to their end. What has not ended is
/// left out.
fn read(mut wire: &[u8]) -> (Vec<Said>, bool) {
    let (mut said, mut open): (Vec<Said>, Option<Said>) = (Vec::new(), None);
    while let Some((first, second)) = wire.first().zip(wire.get(1)) {
        let (length, head): (usize, usize) = match second & 0x7f {
            126 if wire.len() >= 4 => (usize::from(u16::from_be_bytes([wire[2], wire[3]])), 4),
            127 if wire.len() >= 10 => {
                let bytes = <[u8; 8]>::try_from(&wire[2..10]).unwrap_or_default();
                (usize::try_from(u64::from_be_bytes(bytes)).unwrap_or(usize::MAX), 10)
            }
            126 | 127 => return (said, false),
            short => (usize::from(short), 2),
        };
        let Some(payload) = head.checked_add(length).and_then(|end| wire.get(head..end)) else { return (said, false) };
        wire = &wire[head + length..];
        let (opcode, is_last) = (first & 0x0f, first & 0x80 != 0);
        if opcode >= CLOSE {
            said.push((opcode, payload.to_vec()));
            continue;
        }
        let mut message = open.take().unwrap_or((opcode, Vec::new()));
        message.1.extend_from_slice(payload);
        if is_last { said.push(message) } else { open = Some(message) }
    }
    (said, wire.is_empty())
}
