//! An answer leaves without any echo of the credential.
//!
//! What is found is masked with `*`, byte for byte, so that lengths stay what they were. What cannot be searched is
//! withheld: an answer in a coding that is not known here, stacked codings, compressed gRPC messages, parts of a whole
//! (206), since a secret can be carried out of two halves, and what was made of a whole in another way (226).
//!
//! - `forms`: the spellings of a credential that are searched for, and the limits of that list
//! - `masker`: the search over any split into chunks
//! - `skip`: where in a text a spelling may begin
//! - `head`: headers, trailers and the reason phrase
//! - `body`: the answer's body, searched as it streams
//! - `recode`: a compressed one, between `open` and `close`
//! - `open`: what is compressed, opened in bounded memory: `gunzip`, `inflate`, `unbrotli`, `zstd`
//! - `close`: it leaves in the coding in which it came
//! - `text`: a body's text, all of it or message by message
//! - `envelopes`: the messages of gRPC, gRPC-Web and Connect
//! - `frames`: what comes over a WebSocket, message by message
//! - `accept`: what upstream is told that we can read
//!
//! Digests and validators. An identity body keeps `ETag`, `Content-MD5` and the digest fields: where something was
//! masked they no longer fit, which tells the truth. A compressed body is always encoded anew, so the digests of its
//! encoded bytes (`Content-MD5`, `Digest`, `Content-Digest`, `Repr-Digest`) are removed. `ETag` stays even there: the client
//! sends it back to the upstream that made it, and ranges, for which a strong validator matters, are never asked for.

mod accept;
mod body;
mod close;
mod envelopes;
mod forms;
mod frames;
mod gunzip;
mod head;
mod inflate;
mod masker;
mod open;
mod recode;
#[cfg(test)]
mod samples;
mod skip;
mod text;
mod unbrotli;
mod zstd;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, Response, StatusCode};

pub use accept::narrow_accepted;
pub use body::{ScrubError, ScrubbedBody};
pub use frames::{FrameFault, Frames, close};
pub use masker::{Masker, Needles};

use crate::model::Denial;
use envelopes::Protocol;

/// How a body is compressed: what can be opened, and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

impl Coding {
    /// One content coding (RFC 9110, 8.4.1), by its exact name: `x-gzip` is gzip.
    fn named(name: &[u8]) -> Option<Self> {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        match name.len() {
            2 if is("br") => Some(Self::Brotli),
            4 if is("gzip") => Some(Self::Gzip),
            4 if is("zstd") => Some(Self::Zstd),
            6 if is("x-gzip") => Some(Self::Gzip),
            7 if is("deflate") => Some(Self::Deflate),
            _ => None,
        }
    }
}

/// Masks status reason, headers, trailers and body. `is_bodyless` for answers to HEAD and 204, 304, whose framing
/// and encoding headers describe a body that is not there and stay as they are.
///
/// # Errors
/// [`Denial::AnswerUnscrubbable`] for an encoding that cannot be searched, of the whole or of its messages, for a 206 and for
/// a 226.
pub fn scrub<B>(answer: Response<B>, needles: &Needles, is_bodyless: bool) -> Result<Response<ScrubbedBody<B>>, Denial>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let (mut parts, body) = answer.into_parts();
    let body = if is_bodyless {
        ScrubbedBody::identity(body, None, needles.clone())
    } else {
        let protocol = Protocol::of(&parts.headers)?;
        match searchable(parts.status, &parts.headers)? {
            None => ScrubbedBody::identity(body, protocol, needles.clone()),
            Some(coding) => {
                forget_encoded_bytes(&mut parts.headers);
                ScrubbedBody::coded(body, coding, protocol, needles.clone())
            }
        }
    };
    head::mask_headers(&mut parts.headers, needles);
    head::mask_reason(&mut parts.extensions, needles);
    Ok(Response::from_parts(parts, body))
}

/// The coding of a body that can be searched from its first byte to its last; `None` for one that is not compressed.
fn searchable(status: StatusCode, headers: &HeaderMap) -> Result<Option<Coding>, Denial> {
    let is_part = status == StatusCode::PARTIAL_CONTENT || headers.get_all(CONTENT_TYPE).iter().any(is_byteranges);
    // RFC 3229: a difference to what the agent has, or packed without a content coding. Nobody was asked for it.
    let is_manipulated = status == StatusCode::IM_USED || headers.contains_key("im");
    if is_part
        || is_manipulated
        || !headers.get_all(TRANSFER_ENCODING).iter().all(|value| is_token(value.as_bytes(), b"chunked"))
    {
        return Err(Denial::AnswerUnscrubbable);
    }
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    let one = match (encodings.next(), encodings.next()) {
        (None, _) => return Ok(None),
        (Some(one), None) => one.as_bytes().trim_ascii(),
        (Some(_), Some(_)) => return Err(Denial::AnswerUnscrubbable),
    };
    if one.is_empty() || one.eq_ignore_ascii_case(b"identity") {
        return Ok(None);
    }
    // A list of codings has no name.
    Coding::named(one).map(Some).ok_or(Denial::AnswerUnscrubbable)
}

fn is_token(value: &[u8], token: &[u8]) -> bool {
    value.trim_ascii().eq_ignore_ascii_case(token)
}

fn is_byteranges(value: &http::HeaderValue) -> bool {
    const BYTERANGES: &[u8] = b"multipart/byteranges";
    let value = value.as_bytes().trim_ascii_start();
    value.len() >= BYTERANGES.len() && value[..BYTERANGES.len()].eq_ignore_ascii_case(BYTERANGES)
}

/// Drops what was said of the encoded bytes: they are about to change.
fn forget_encoded_bytes(headers: &mut HeaderMap) {
    const DIGESTS: [HeaderName; 5] = [
        CONTENT_LENGTH,
        HeaderName::from_static("content-md5"),
        HeaderName::from_static("digest"),
        HeaderName::from_static("content-digest"),
        HeaderName::from_static("repr-digest"),
    ];
    head::remove_all(headers, &DIGESTS);
}

#[cfg(test)]
mod tests;
