//! Bodies that are signed chunk by chunk: the same bytes for every cut, signed by the other key, or an error for good.

use bytes::Bytes;
use valetkey::proxy::flow::UploadFault;
use valetkey::proxy::fuzzing::SignedUpload;

use crate::cuts::{self, Input};
use crate::signing::{AGENT, HOST, Part, REAL, Signer, now};

const TARGET: &str = "/bucket/key";
const TRAILER: &str = "x-amz-checksum-crc32c";
const CHECKSUM: &str = "sOO8/Q==";

/// How a body went: what of it went on, and its end.
type Went = (Vec<u8>, Result<bool, UploadFault>);

/// An input is a byte (trailer, announced length, number of changes), three steps of a cut, changes of the body that is
/// made, and its chunks: a length and so many bytes each. A chunk of no bytes is an end that is none.
///
/// # Panics
/// Where that does not hold.
pub fn chunks(data: &[u8]) {
    let mut input = Input(data);
    let choice = input.byte();
    let steps = input.take(3);
    let changes: Vec<(usize, u8)> = (0..choice >> 6).map(|_| (input.number(), input.byte())).collect();
    let trailer = (choice & 1 != 0).then_some(TRAILER);
    let mut pieces = Vec::new();
    while !input.0.is_empty() {
        let length = usize::from(input.byte() % 96);
        pieces.push(input.take(length));
    }
    let bytes = pieces.iter().map(|piece| piece.len()).sum::<usize>() + usize::from(choice & 2 != 0);
    let (headers, seed) = AGENT.upload(TARGET, bytes, trailer);
    let good = body(AGENT, &seed, &pieces, trailer);
    let mut wire = good.clone();
    for (place, with) in changes {
        let at = place % wire.len();
        match with {
            b'-' => drop(wire.remove(at)),
            b'+' => wire.insert(at, wire[at]),
            _ => wire[at] = with,
        }
    }
    let begin = || {
        let keys = (&AGENT.stand_in(), &REAL.pair(), now());
        SignedUpload::of((HOST, TARGET), &headers, keys).expect("a head that is signed right")
    };
    let ours = begin().1.rsplit('=').next().expect("a signature").to_owned();
    let (out, end) = went(begin().0, vec![Bytes::copy_from_slice(&wire)]);
    let came = Read::of(&wire, AGENT, &seed, trailer);
    let left = Read::of(&out, REAL, &ours, trailer);
    assert!(came.data.starts_with(&left.data), "what goes on is what came");
    assert!(out.len() <= wire.len() && left.rest < 2 + 86, "nothing goes on unsigned: {}", out.escape_ascii());
    if end == Ok(true) {
        assert_eq!((out.len(), left.is_whole, came.is_whole), (wire.len(), true, true), "{}", wire.escape_ascii());
        assert_eq!((&left.data, left.data.len()), (&came.data, bytes), "all of it, as long as was said");
    } else {
        // By its framing; bytes behind the end are seen after it has gone on.
        assert!(out.len() < wire.len(), "what goes on falls short of its length: {}", out.escape_ascii());
    }
    let is_right = wire == good && choice & 2 == 0 && pieces.iter().all(|piece| !piece.is_empty());
    assert!(!is_right || end == Ok(true), "{end:?}");
    for pieces in cuts::all(&wire, steps) {
        assert_eq!(went(begin().0, pieces), (out.clone(), end), "another cut, another body");
    }
}

fn went(mut upload: SignedUpload, pieces: Vec<Bytes>) -> Went {
    let mut out = Vec::new();
    for piece in pieces {
        match upload.push(piece) {
            Ok(data) => out.extend_from_slice(&data),
            Err((data, fault)) => {
                out.extend_from_slice(&data);
                for _ in 0..3 {
                    assert_eq!(upload.more(), Err(fault), "an error is the end");
                    assert!(!upload.is_over(), "what broke is not whole");
                }
                return (out, Err(fault));
            }
        }
    }
    (out, Ok(upload.is_over()))
}

/// A body as a client makes it.
fn body(signer: Signer, seed: &str, pieces: &[&[u8]], trailer: Option<&str>) -> Vec<u8> {
    let (mut wire, mut last) = (Vec::new(), seed.to_owned());
    for data in pieces.iter().copied().chain([&b""[..]]) {
        last = signer.behind(&last, Part::Chunk(data));
        wire.extend_from_slice(format!("{:x};chunk-signature={last}\r\n", data.len()).as_bytes());
        wire.extend_from_slice(data);
        wire.extend_from_slice(if data.is_empty() && trailer.is_some() { b"" } else { b"\r\n" });
    }
    if let Some(name) = trailer {
        let signature = signer.behind(&last, Part::Trailers(&format!("{name}:{CHECKSUM}\n")));
        wire.extend_from_slice(format!("{name}:{CHECKSUM}\r\nx-amz-trailer-signature:{signature}\r\n\r\n").as_bytes());
    }
    wire
}

/// What a server takes a body for that checks each signature.
struct Read {
    data: Vec<u8>,
    /// True where it came to its end, with nothing behind that.
    is_whole: bool,
    /// Bytes behind the last chunk that is right.
    rest: usize,
}

impl Read {
    fn of(wire: &[u8], signer: Signer, seed: &str, trailer: Option<&str>) -> Self {
        let (mut read, mut wire, mut last) =
            (Self { data: Vec::new(), is_whole: false, rest: 0 }, wire, seed.to_owned());
        while let Some((data, signature, behind)) = chunk(wire) {
            let is_end = data.is_empty();
            last = signer.behind(&last, Part::Chunk(data));
            if last != signature {
                break;
            }
            read.data.extend_from_slice(data);
            read.is_whole = is_end && is_last(behind, signer, &last, trailer);
            wire = behind.strip_prefix(b"\r\n").unwrap_or(behind);
            if is_end {
                break;
            }
        }
        read.rest = if read.is_whole { 0 } else { wire.len() };
        read
    }
}

/// Whether this is what stands behind the last chunk.
fn is_last(rest: &[u8], signer: Signer, last: &str, trailer: Option<&str>) -> bool {
    let Some(name) = trailer else { return rest == b"\r\n" };
    let Ok(text) = std::str::from_utf8(rest) else { return false };
    let text = text.replace("\r\n", "\n");
    let Some((lines, signature)) = text.split_once("x-amz-trailer-signature:") else { return false };
    let is_it =
        lines.strip_prefix(name).is_some_and(|value| value.starts_with(':') && value.matches('\n').count() == 1);
    is_it && signature.strip_suffix("\n\n") == Some(&signer.behind(last, Part::Trailers(lines)))
}

/// The data of a chunk, its signature, and what stands behind it.
fn chunk(wire: &[u8]) -> Option<(&[u8], &str, &[u8])> {
    let end = wire.windows(2).position(|pair| pair == b"\r\n")?;
    let (size, signature) = std::str::from_utf8(&wire[..end]).ok()?.split_once(";chunk-signature=")?;
    let size = usize::from_str_radix(size, 16).ok()?;
    let rest = &wire[end + 2..];
    (size <= rest.len()).then(|| (&rest[..size], signature, &rest[size..]))
}
