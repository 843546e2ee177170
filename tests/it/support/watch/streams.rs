//! What stands in the frames of an HTTP/2 connection (RFC 9113, 6), stream by stream.

use std::collections::BTreeMap;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD_BYTES: usize = 9;
const SETTINGS: u8 = 4;
const PADDED: u8 = 8;

/// What one stream said, frame after frame.
#[derive(Default)]
pub(super) struct Stream {
    /// Header blocks and trailers, packed as they came.
    pub(super) fields: Vec<u8>,
    pub(super) data: Vec<u8>,
}

/// The streams of one side of a connection; none where it does not begin as HTTP/2 does.
pub(super) fn of(bytes: &[u8]) -> Vec<Stream> {
    let mut rest = bytes.strip_prefix(PREFACE).unwrap_or(bytes);
    let mut streams: BTreeMap<u32, Stream> = BTreeMap::new();
    if !matches!(rest, [_, _, _, SETTINGS, _, 0, 0, 0, 0, ..]) {
        return Vec::new();
    }
    while let Some((head, more)) = rest.split_first_chunk::<HEAD_BYTES>() {
        let &[a, b, c, kind, flags, s, t, u, v] = head;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        // The last one may be cut off.
        let (payload, more) = more.split_at(length.min(more.len()));
        let stream = streams.entry(u32::from_be_bytes([s, t, u, v])).or_default();
        match kind {
            0 => stream.data.extend_from_slice(unpadded(payload, flags)),
            1 | 5 => stream.fields.extend_from_slice(unpadded(payload, flags)),
            9 => stream.fields.extend_from_slice(payload),
            _ => {}
        }
        rest = more;
    }
    streams.into_values().collect()
}

fn unpadded(payload: &[u8], flags: u8) -> &[u8] {
    match payload {
        [padding, rest @ ..] if flags & PADDED != 0 => &rest[..rest.len().saturating_sub(usize::from(*padding))],
        _ => payload,
    }
}

#[test]
fn frames_are_put_together_and_padding_is_left_out() {
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let length = u8::try_from(payload.len()).expect("a short one");
        [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
    };
    let frames = [
        frame(SETTINGS, 0, 0, &[]),
        frame(1, PADDED, 1, b"\x02one..").clone(),
        frame(9, 0, 1, b" two"),
        frame(0, 0, 1, b"a"),
        frame(0, PADDED, 3, b"\x01x."),
        frame(0, 0, 1, b"b"),
    ]
    .concat();
    for bytes in [frames.clone(), [PREFACE, &frames].concat()] {
        let streams = of(&bytes);
        let [_, first, second] = &streams[..] else { panic!("two, and the connection") };
        assert_eq!((&first.fields[..], &first.data[..], &second.data[..]), (&b"one two"[..], &b"ab"[..], &b"x"[..]));
        assert_eq!(of(&bytes[..bytes.len() - 1]).len(), 3, "cut off");
    }
    assert!(of(b"HTTP/1.1 200 OK\r\n\r\n").is_empty());
}
