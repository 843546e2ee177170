use http::{HeaderValue, Method};

use super::*;
use crate::proxy::sigv4::{Authorization, CHUNKS, Canonical, DATE, Line as Head, SCHEME, Signed};

/// The examples of AWS's documentation, "Chunked upload" and "Trailing headers", with their well-known key.
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const MOMENT: &str = "20130524T000000Z";
const SCOPE: &str = "20130524/us-east-1/s3/aws4_request";
const SEED: &str = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9";
const EACH: [&str; 3] = [
    "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
    "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
    "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
];
const SEED_WITH_TRAILER: &str = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e";
const EACH_WITH_TRAILER: [&str; 3] = [
    "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
    "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
    "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
];
const OF_TRAILER: &str = "d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435";
const BYTES: u64 = 66_560;

fn said(names: &str, signature: &str) -> Authorization {
    let said =
        format!("{SCHEME} Credential=AKIAIOSFODNN7EXAMPLE/{SCOPE}, SignedHeaders={names}, Signature={signature}");
    Authorization::parse(&said).unwrap()
}

fn chain(secret: &str, seed: &str) -> Chain {
    Chain { key: said("host", SEED).signing_key(secret), last: seed.to_owned() }
}

/// Between the example's key and another one.
fn between(secret: &str, seed: &str, trailers: Option<&[&str]>) -> Chunks {
    let names = trailers.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
    let announced = Announced { bytes: BYTES, trailers: names };
    let chains = (chain(SECRET, seed), chain(secret, seed));
    let mut chunks = Chunks::new(chains, announced, (MOMENT.to_owned(), SCOPE.to_owned()));
    chunks.hold_in(Hold::default(), AgentName::parse("worker").unwrap());
    chunks
}

fn body([first, second, last]: [&str; 3], behind: &str) -> Vec<u8> {
    let (long, short) = ("a".repeat(65_536), "a".repeat(1_024));
    let text = format!(
        "10000;chunk-signature={first}\r\n{long}\r\n400;chunk-signature={second}\r\n{short}\r\n\
         0;chunk-signature={last}\r\n{behind}"
    );
    text.into_bytes()
}

fn plain_body() -> Vec<u8> {
    body(EACH, "\r\n")
}

fn trailed_body() -> Vec<u8> {
    body(EACH_WITH_TRAILER, &format!("x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:{OF_TRAILER}\r\n\r\n"))
}

const CRC: Option<&[&str]> = Some(&["x-amz-checksum-crc32c"]);

/// What goes on of a body that comes in pieces, and how it ends.
fn through(chunks: &mut Chunks, body: &[u8], piece: usize) -> (Vec<u8>, Result<bool, ChunkFault>) {
    let mut out = Vec::new();
    for piece in body.chunks(piece) {
        chunks.push(Bytes::copy_from_slice(piece));
        loop {
            match chunks.next() {
                Ok(Some(data)) => out.extend_from_slice(&data),
                Ok(None) => break,
                Err(fault) => return (out, Err(fault)),
            }
        }
    }
    (out, Ok(chunks.is_over()))
}

#[test]
fn the_published_head_and_its_chunks_are_verified() {
    let fields = [
        ("content-encoding", "aws-chunked"),
        ("content-length", "66824"),
        ("x-amz-content-sha256", CHUNKS),
        ("x-amz-date", MOMENT),
        ("x-amz-decoded-content-length", "66560"),
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
    ];
    let headers: HeaderMap =
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect();
    let names = "content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;\
                 x-amz-storage-class";
    let said = said(names, SEED);
    let payload = Payload::read(&headers).unwrap();
    let announced = Announced::read(payload, &headers).unwrap();
    assert_eq!(announced, Some(Announced { bytes: BYTES, trailers: None }));
    let line = Head { method: &Method::PUT, host: "s3.amazonaws.com", target: "/examplebucket/chunkObject.txt" };
    let canonical = Canonical::of(line, true, &headers, &said.headers).unwrap();
    let (date, key) = (headers[DATE].to_str().unwrap().to_owned(), said.signing_key(SECRET));
    let signed = Signed { date, said, canonical, payload, announced, verifying: None, query: None };
    let text = signed.text_to_sign(&signed.canonical);
    hmac::verify(&key, text.as_bytes(), &signed.said.signature).unwrap();
    for (body, seed, trailers) in [(plain_body(), SEED, None), (trailed_body(), SEED_WITH_TRAILER, CRC)] {
        for piece in [1, 7, 4096, 65_621, usize::MAX] {
            let mut chunks = between(SECRET, seed, trailers);
            let (out, end) = through(&mut chunks, &body, piece.min(body.len()));
            assert_eq!(end, Ok(true), "{piece}");
            assert!(out == body, "the same key makes the same signatures");
        }
    }
}

#[test]
fn what_goes_out_is_signed_by_the_other_key_and_as_long() {
    for (body, seed, trailers) in [(plain_body(), SEED, None), (trailed_body(), SEED_WITH_TRAILER, CRC)] {
        let (out, end) = through(&mut between("another-secret", seed, trailers), &body, 1000);
        assert_eq!((end, out.len()), (Ok(true), body.len()));
        let text = String::from_utf8(out.clone()).unwrap();
        assert!([EACH, EACH_WITH_TRAILER].concat().iter().all(|signature| !text.contains(signature)));
        let mut back = between(SECRET, seed, trailers);
        back.theirs = chain("another-secret", seed);
        let (again, end) = through(&mut back, &out, 1000);
        assert_eq!(end, Ok(true));
        assert!(again == body, "and back");
    }
}

#[test]
fn nothing_goes_out_of_a_chunk_that_is_not_right() {
    let body = plain_body();
    let second = body.windows(4).position(|bytes| bytes == b"400;").unwrap();
    let at = |signature: &str| body.windows(64).position(|bytes| bytes == signature.as_bytes()).unwrap();
    let mismatch = ChunkFault::Signature(SignatureFault::Mismatch);
    for (place, with, before, fault) in [
        (at(EACH[0]), b'b', 0, mismatch),
        (at(EACH[0]) + 70, b'b', 0, mismatch),
        (at(EACH[1]) + 63, b'0', second - 2, mismatch),
        (at(EACH[1]) + 63, b'A', second - 2, MALFORMED),
        (at(EACH[2]) + 1, b'0', body.len() - 88, mismatch),
        (second, b'0', second - 2, MALFORMED),
        (second, b'+', second - 2, MALFORMED),
        (second + 1, b'g', second - 2, MALFORMED),
        (second, b'5', second - 2, MALFORMED),
        (second + 3, b' ', second - 2, MALFORMED),
        (second - 1, b'\r', 0, MALFORMED),
        (body.len() - 1, b'\r', body.len() - 88, MALFORMED),
    ] {
        let mut bad = body.clone();
        assert_ne!(std::mem::replace(&mut bad[place], with), with);
        let (out, end) = through(&mut between(SECRET, SEED, None), &bad, 512);
        assert_eq!((out.len(), end), (before, Err(fault)), "{place} {with}");
        assert!(bad.starts_with(&out));
    }
}

#[test]
fn an_end_that_is_none_is_not_taken_for_one() {
    let body = plain_body();
    for bytes in [0, 10, 100, 65_621, body.len() - 86, body.len() - 2, body.len() - 1] {
        let (out, end) = through(&mut between(SECRET, SEED, None), &body[..bytes], 4096);
        assert_eq!(end, Ok(false), "{bytes}");
        assert!(out.len() < bytes.max(1), "what goes on falls short of the length");
    }
    for behind in [&b"x"[..], b"\r\n", b"0;chunk-signature="] {
        let more = [&body, behind].concat();
        for piece in [1, more.len()] {
            assert_eq!(through(&mut between(SECRET, SEED, None), &more, piece).1, Err(MALFORMED));
        }
    }
    for bytes in [BYTES - 1, BYTES + 1] {
        let mut chunks = between(SECRET, SEED, None);
        chunks.announced.bytes = bytes;
        assert_eq!(through(&mut chunks, &body, 4096).1, Err(MALFORMED), "another length than the head says");
    }
}

#[test]
fn trailers_are_those_that_were_announced() {
    let body = trailed_body();
    let text = String::from_utf8(body.clone()).unwrap();
    let with = |from: &str, to: &str| {
        let bad = text.replace(from, to);
        assert_ne!(bad, text);
        through(&mut between(SECRET, SEED_WITH_TRAILER, CRC), bad.as_bytes(), 4096).1
    };
    let mismatch = Err(ChunkFault::Signature(SignatureFault::Mismatch));
    assert_eq!(with("sOO8", "sOO9"), mismatch);
    assert_eq!(with("d81f", "d81e"), mismatch);
    assert_eq!(with("Q==\r\n", "Q==\n"), Ok(true), "as some clients end it");
    for (from, to) in [
        ("crc32c", "crc32"),
        ("x-amz-checksum-crc32c:", "x-amz-meta-a:"),
        ("crc32c:", "crc32c: "),
        ("crc32c:sOO8/Q==", "crc32c:"),
        ("x-amz-trailer-signature:", "x-amz-trailer-signature="),
        ("\r\nx-amz-trailer", "\r\nx-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer"),
        ("\r\nx-amz-trailer", "\r\n\r\nx-amz-trailer"),
        ("x-amz-checksum-crc32c:sOO8/Q==\r\n", ""),
        ("Q==", &"Q".repeat(TRAILERS_BYTES_MAX)),
        ("d81f", "D81f"),
        ("e435", "e4350"),
        ("e435\r\n\r\n", "e435\r\n\r\nx"),
    ] {
        assert_eq!(with(from, to), Err(MALFORMED), "{from} {to}");
    }
    let (_, end) = through(&mut between(SECRET, SEED, CRC), &plain_body(), 4096);
    assert_eq!(end, Ok(false), "they are still to come");
    let (_, end) = through(&mut between(SECRET, SEED_WITH_TRAILER, None), &body, 4096);
    assert_eq!(end, Err(MALFORMED), "trailers that nobody has announced");
}

#[test]
fn what_is_held_is_bounded_and_takes_room() {
    let line = |size: usize| format!("{size:x};chunk-signature={SEED}\r\n");
    let begun = |size: usize, hold: Option<Hold>| {
        let mut chunks = between(SECRET, SEED, None);
        chunks.announced.bytes = u64::MAX;
        chunks.room = Room::default();
        if let Some(hold) = hold {
            chunks.hold_in(hold, AgentName::parse("worker").unwrap());
        }
        chunks.push(line(size).into());
        let begun = chunks.next();
        (chunks, begun)
    };
    let hold = Hold::default();
    let (one, begins) = begun(CHUNK_BYTES_MAX, Some(hold.clone()));
    assert_eq!(begins, Ok(None));
    let (two, begins) = begun(CHUNK_BYTES_MAX, Some(hold.clone()));
    assert_eq!(begins, Ok(None));
    assert_eq!(begun(CHUNK_BYTES_MAX, Some(hold.clone())).1, Err(ChunkFault::NoRoom), "an agent has its share");
    drop((one, two));
    assert_eq!(begun(CHUNK_BYTES_MAX, Some(hold)).1, Ok(None), "and gives it back");
    assert_eq!(begun(1, None).1, Err(ChunkFault::NoRoom), "without room nothing is held");
    assert_eq!(begun(CHUNK_BYTES_MAX + 1, Some(Hold::default())).1, Err(ChunkFault::TooLarge));
    let mut endless = between(SECRET, SEED, None);
    let (_, end) = through(&mut endless, &[b'1'; 4096], 10);
    assert_eq!(end, Err(MALFORMED));
    assert!(endless.held_bytes() <= LINE_BYTES_MAX + 10);
}

#[test]
fn what_the_head_announces_is_read_in_one_form() {
    let read = |payload, fields: &[(&'static str, &'static str)]| {
        let fields = fields.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)));
        Announced::read(payload, &fields.collect())
    };
    let (length, names) = ("x-amz-decoded-content-length", "x-amz-trailer");
    assert_eq!(read(Payload::Unsigned, &[]), Ok(None));
    assert_eq!(read(Payload::UnsignedWithTrailer, &[(names, "anything")]), Ok(None));
    let both = Announced {
        bytes: 0,
        trailers: Some(vec!["x-amz-checksum-crc32".to_owned(), "x-amz-checksum-sha1".to_owned()]),
    };
    let fields = [(length, "0"), (names, "x-amz-checksum-sha1, x-amz-checksum-crc32")];
    assert_eq!(read(Payload::ChunksWithTrailer, &fields), Ok(Some(both)));
    for bad in ["", "+1", "01", "1 ", "18446744073709551616", "x"] {
        assert!(read(Payload::Chunks, &[(length, bad)]).is_err(), "{bad}");
    }
    for bad in ["", "x-amz-meta-a", "x-amz-checksum-", "X-Amz-Checksum-Crc32", "x-amz-checksum-a,x-amz-checksum-a"] {
        assert!(read(Payload::ChunksWithTrailer, &[(length, "1"), (names, bad)]).is_err(), "{bad}");
    }
    assert!(read(Payload::Chunks, &[]).is_err() && read(Payload::ChunksWithTrailer, &[(length, "1")]).is_err());
    assert!(read(Payload::Chunks, &[(length, "1"), (names, "x-amz-checksum-crc32")]).is_err());
}
