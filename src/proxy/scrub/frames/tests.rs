use super::*;

const SECRET: &[u8] = b"sk_live_a/b+c&d=0123456789";

fn needles() -> Needles {
    Needles::new(SECRET, &[])
}

fn frame(is_last: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    put_frame(is_last, opcode, payload, &mut out);
    out.to_vec()
}

/// What comes out when the bytes come in pieces of this size.
fn pushed(bytes: &[u8], size: usize) -> Result<Vec<u8>, FrameFault> {
    let (mut frames, mut out) = (Frames::new(needles()), BytesMut::new());
    for piece in bytes.chunks(size) {
        frames.push(Bytes::copy_from_slice(piece), &mut out)?;
    }
    assert!(frames.is_between_messages());
    Ok(out.to_vec())
}

/// Opcode and payload of each message and control frame in what came out.
fn messages(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let (mut found, mut open) = (Vec::new(), None);
    while !bytes.is_empty() {
        let (head, used) = (2..=HEAD_BYTES_MAX)
            .find_map(|used| Head::parse(&bytes[..used]).unwrap().map(|head| (head, used)))
            .expect("a head");
        let end = used + usize::try_from(head.length).unwrap();
        let payload = &bytes[used..end];
        bytes = &bytes[end..];
        match head.opcode {
            CLOSE | PING | PONG => found.push((head.opcode, payload.to_vec())),
            opcode => {
                let (_, text) = open.get_or_insert((opcode, Vec::new()));
                text.extend_from_slice(payload);
                if head.is_last {
                    found.extend(open.take());
                }
            }
        }
    }
    assert!(open.is_none());
    found
}

#[test]
fn frames_without_an_echo_stay_as_they_were() {
    let long = vec![7; 40_000];
    let bytes = [
        frame(true, TEXT, b"hello"),
        frame(false, BINARY, &long),
        frame(true, PING, b"are you there?"),
        frame(false, CONTINUATION, b"more of it"),
        frame(true, CONTINUATION, b""),
        frame(true, BINARY, b""),
        frame(true, PONG, b""),
        frame(true, CLOSE, b"\x03\xe8bye"),
    ]
    .concat();
    for size in [1, 2, 3, 7, 4096, bytes.len()] {
        assert!(pushed(&bytes, size).unwrap() == bytes, "in pieces of {size}");
    }
}

#[test]
fn an_echo_is_masked_however_it_is_split() {
    let text = [b"before ", SECRET, b" after"].concat();
    let masked = [&b"before "[..], &b"*".repeat(SECRET.len()), b" after"].concat();
    for cut in 0..=text.len() {
        for size in [1, 5, 1000] {
            let bytes = [
                frame(false, TEXT, &text[..cut]),
                frame(true, PING, b"meanwhile"),
                frame(true, CONTINUATION, &text[cut..]),
            ]
            .concat();
            let found = messages(&pushed(&bytes, size).unwrap());
            assert_eq!(found, [(PING, b"meanwhile".to_vec()), (TEXT, masked.clone())], "cut at {cut}");
        }
    }
}

#[test]
fn control_frames_are_masked_whole() {
    let reason = [b"\x03\xf0denied: ", SECRET].concat();
    let bytes = [frame(true, PING, SECRET), frame(true, PONG, SECRET), frame(true, CLOSE, &reason)].concat();
    let stars = b"*".repeat(SECRET.len());
    let from_the_status_on = messages(&pushed(&frame(true, CLOSE, SECRET), 3).unwrap());
    assert_eq!(from_the_status_on, [(CLOSE, stars.clone())]);
    let expected = [(PING, stars.clone()), (PONG, stars.clone()), (CLOSE, [&b"\x03\xf0denied: "[..], &stars].concat())];
    assert_eq!(messages(&pushed(&bytes, 3).unwrap()), expected);
}

#[test]
fn a_long_message_keeps_its_bytes_and_leaves_in_pieces() {
    let long: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    let bytes = frame(true, BINARY, &long);
    let (mut frames, mut out) = (Frames::new(needles()), BytesMut::new());
    let mut whole = Vec::new();
    for piece in bytes.chunks(16 * 1024) {
        frames.push(Bytes::copy_from_slice(piece), &mut out).unwrap();
        assert!(out.len() <= 2 * PIECE_BYTES);
        whole.extend_from_slice(&out.split());
    }
    assert_eq!(messages(&whole), [(BINARY, long)]);
}

#[test]
fn a_claimed_length_takes_no_memory() {
    let mut frames = Frames::new(needles());
    let mut out = BytesMut::new();
    let head = [&[0x82, 127][..], &(u64::MAX >> 1).to_be_bytes()].concat();
    frames.push(head.into(), &mut out).unwrap();
    for _ in 0..100 {
        frames.push(Bytes::from_static(&[1; 16 * 1024]), &mut out).unwrap();
        assert!(frames.message.as_ref().unwrap().ready.capacity() <= 4 * PIECE_BYTES);
        out.clear();
    }
    assert!(!frames.is_between_messages());
}

#[test]
fn a_message_has_left_when_its_last_byte_has_come() {
    let mut frames = Frames::new(needles());
    let mut out = BytesMut::new();
    // What could become the credential is held back in the middle of a message, and only there.
    let bytes = frame(true, TEXT, b"ends with sk_live_a/b+");
    let (before, last) = bytes.split_at(bytes.len() - 1);
    frames.push(Bytes::copy_from_slice(before), &mut out).unwrap();
    frames.push(Bytes::copy_from_slice(last), &mut out).unwrap();
    assert_eq!(&out[..], bytes);
}

#[test]
fn what_no_server_may_send_is_a_fault() {
    let cases: [(&[u8], FrameFault); 15] = [
        (&[0xc1, 0], FrameFault::ReservedBit),
        (&[0xa1, 0], FrameFault::ReservedBit),
        (&[0x91, 0], FrameFault::ReservedBit),
        (&[0x83, 0], FrameFault::ReservedOpcode),
        (&[0x8b, 0], FrameFault::ReservedOpcode),
        (&[0x81, 0x80, 1, 2, 3, 4], FrameFault::Masked),
        (&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0], FrameFault::Length),
        (&[0x82, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff], FrameFault::Length),
        (&[0x82, 126, 0, 125], FrameFault::Length),
        (&[0x09, 0], FrameFault::Control),
        (&[0x89, 126, 0, 126], FrameFault::Control),
        (&[0x88, 1, 3], FrameFault::Control),
        (&[0x80, 0], FrameFault::Sequence),
        (&[0x01, 0, 0x81, 0], FrameFault::Sequence),
        (&[0x88, 0, 0x81, 0], FrameFault::AfterClose),
    ];
    for (bytes, fault) in cases {
        assert_eq!(pushed(bytes, 1), Err(fault), "{bytes:x?}");
        assert_eq!(pushed(bytes, bytes.len()), Err(fault), "{bytes:x?}");
    }
}

#[test]
fn a_close_frame_of_ours_is_one() {
    assert_eq!(messages(&close(1002)), [(CLOSE, vec![3, 0xea])]);
}
