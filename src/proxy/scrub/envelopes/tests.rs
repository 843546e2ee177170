use http::HeaderValue;
use proptest::prelude::*;

use super::*;

const SECRET: &str = "sk_live_0123456789abcdef";
const MASKED: &str = "************************";

fn message(flags: u8, text: &str) -> Vec<u8> {
    let mut bytes = vec![flags];
    bytes.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

fn envelopes(protocol: Protocol) -> Envelopes {
    Envelopes::new(protocol, Needles::new(SECRET.as_bytes(), &[]))
}

#[test]
fn nothing_is_held_behind_a_message() {
    let mut envelopes = envelopes(Protocol::Grpc);
    for text in ["", "s", "ends in sk_live_", "sk_live_0123456789abcde", "S"] {
        let sent = message(0, text);
        assert_eq!(envelopes.push(sent.clone().into()), sent, "{text}");
        assert_eq!(envelopes.held_bytes(), 0);
        assert!(envelopes.is_between_messages() && envelopes.finish().is_ok());
    }
}

#[test]
fn every_message_is_masked_at_every_split_and_heads_stay() {
    let texts = ["", SECRET, "a", "key sk_live_0123456789abcdef!", "sk_live_0123", "456789abcdef"];
    let all: Vec<u8> = texts.iter().flat_map(|text| message(0, text)).collect();
    let expected: Vec<u8> = texts.iter().flat_map(|text| message(0, &text.replace(SECRET, MASKED))).collect();
    for piece_bytes in 1..=all.len() {
        let mut envelopes = envelopes(Protocol::Grpc);
        let (mut out, mut taken) = (Vec::new(), 0);
        for piece in all.chunks(piece_bytes) {
            out.extend_from_slice(&envelopes.push(Bytes::copy_from_slice(piece)));
            taken += piece.len();
            assert_eq!(out.len() + envelopes.held_bytes(), taken);
        }
        assert_eq!(out, expected, "in pieces of {piece_bytes}");
    }
}

#[test]
fn what_is_compressed_or_unknown_is_cut_before_its_first_byte() {
    let first = message(0, "first");
    for (protocol, readable) in
        [(Protocol::Grpc, &[0][..]), (Protocol::GrpcWeb, &[0, 0x80]), (Protocol::Connect, &[0, 2])]
    {
        for flags in 0..=255 {
            let mut envelopes = envelopes(protocol);
            let second = message(flags, "second");
            let sent = envelopes.push([first.clone(), second.clone()].concat().into());
            if readable.contains(&flags) {
                assert_eq!(sent, [first.clone(), second].concat(), "{protocol:?} {flags}");
                assert!(envelopes.check().is_ok());
            } else {
                assert_eq!(sent, first, "{protocol:?} {flags}");
                assert!(envelopes.check().is_err() && envelopes.finish().is_err());
                assert!(envelopes.push(message(0, "third").into()).is_empty());
            }
        }
    }
}

#[test]
fn an_end_in_a_message_is_none() {
    let bytes = message(0, "text");
    for end in 1..bytes.len() {
        let mut envelopes = envelopes(Protocol::Grpc);
        envelopes.push(Bytes::copy_from_slice(&bytes[..end]));
        assert!(envelopes.finish().is_err() && !envelopes.is_between_messages(), "cut at {end}");
    }
}

type Field = (&'static str, &'static str);
type Verdict = Result<Option<Protocol>, ()>;

#[test]
fn the_head_of_an_answer_says_what_its_messages_are() {
    let cases: [(&[Field], Verdict); 23] = [
        (&[], Ok(None)),
        (&[("content-type", "text/plain"), ("grpc-encoding", "gzip")], Ok(None)),
        (&[("content-type", "text/plain"), ("content-type", "text/html")], Ok(None)),
        (&[("content-type", "application/grpc")], Ok(Some(Protocol::Grpc))),
        (&[("content-type", " Application/GRPC+proto ; charset=x")], Ok(Some(Protocol::Grpc))),
        (&[("content-type", "application/grpc"), ("grpc-encoding", " Identity")], Ok(Some(Protocol::Grpc))),
        (&[("content-type", "application/grpc"), ("connect-content-encoding", "gzip")], Ok(Some(Protocol::Grpc))),
        (&[("content-type", "application/grpc-web")], Ok(Some(Protocol::GrpcWeb))),
        (&[("content-type", "application/grpc-web+json")], Ok(Some(Protocol::GrpcWeb))),
        (&[("content-type", "application/connect+json")], Ok(Some(Protocol::Connect))),
        (&[("content-type", "application/connectivity")], Ok(None)),
        (&[("content-type", "application/grpc"), ("grpc-encoding", "gzip")], Err(())),
        (&[("content-type", "application/grpc"), ("grpc-encoding", "")], Err(())),
        (&[("content-type", "application/grpc"), ("grpc-encoding", "identity, gzip")], Err(())),
        (&[("content-type", "application/grpc"), ("grpc-encoding", "identity"), ("grpc-encoding", "br")], Err(())),
        (&[("content-type", "application/connect+proto"), ("connect-content-encoding", "br")], Err(())),
        (&[("content-type", "application/grpc-web-text")], Err(())),
        (&[("content-type", "application/grpc-web-text+proto")], Err(())),
        (&[("content-type", "application/grpc, text/plain")], Err(())),
        (&[("content-type", "application/grpc+proto, text/plain")], Err(())),
        (&[("content-type", "application/connect+json, text/plain")], Err(())),
        (&[("content-type", "application/grpc"), ("content-type", "application/grpc")], Err(())),
        (
            &[("content-type", "text/plain"), ("content-type", "text/html"), ("content-type", "application/grpc")],
            Err(()),
        ),
    ];
    for (fields, expected) in cases {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        assert_eq!(
            Protocol::of(&headers).map_err(|denial| assert_eq!(denial, Denial::AnswerUnscrubbable)),
            expected,
            "{fields:?}"
        );
    }
}

proptest! {
    #[test]
    fn no_bytes_at_all_carry_the_credential_in_a_message(
        bytes in proptest::collection::vec(prop_oneof![Just(0u8), Just(24u8), any::<u8>()], 0..200),
        at in any::<proptest::sample::Index>(),
        cuts in proptest::collection::vec(1usize..40, 0..20),
    ) {
        // Whatever stands before it, the credential is masked, cut off, or over the border of two messages.
        let at = at.index(bytes.len() + 1);
        let whole = [&bytes[..at], &message(0, SECRET), &bytes[at..]].concat();
        let mut rest = Bytes::from(whole);
        let mut envelopes = envelopes(Protocol::Grpc);
        let mut out = Vec::new();
        for cut in cuts {
            out.extend_from_slice(&envelopes.push(rest.split_to(cut.min(rest.len()))));
        }
        out.extend_from_slice(&envelopes.push(rest));
        let mut left = &out[..];
        while let Some((head, behind)) = left.split_at_checked(HEAD_BYTES) {
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            let (text, next) = behind.split_at(length.min(behind.len()));
            prop_assert!(!text.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()));
            left = next;
        }
    }
}
