//! Bodies that are signed chunk by chunk (AWS, "Transferring Payload in Multiple Chunks"), on their way.
//!
//! ```text
//! 400;chunk-signature=…\r\n  1024 bytes  \r\n  0;chunk-signature=…\r\n  x-amz-checksum-crc32c:…\r\n  x-amz-trailer-signature:…\r\n  \r\n
//! ```
//!
//! Each signature covers the one before it, and the first one that of the head: two chains over the same bytes, the
//! agent's and the one that goes out. A chunk waits until all of it is here and its signature was verified; then it goes
//! on with another signature of the same length. What is not exactly that ends the body before its end: the last bytes of
//! a chunk wait for the next one, so that what stops between two chunks falls short of its length, too.

use std::ops::Range;

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName};
use ring::hmac;

use super::{Payload, authorization, only, refused, sha_256};
use crate::model::denial::SignatureFault;
use crate::model::{AgentName, Denial};
use crate::proxy::extract::body::Hold;
use crate::proxy::fair::Place;

/// Longest chunk, in bytes: as much as is held of a body that has to be compared with its hash.
const CHUNK_BYTES_MAX: usize = super::HELD_BYTES_MAX;
/// Longest line before a chunk, in bytes: eight digits, the signature and what stands around it.
const LINE_BYTES_MAX: usize = 8 + MARK.len() + SIGNATURE_BYTES + CRLF.len();
/// Longest trailers with their signature, in bytes.
const TRAILERS_BYTES_MAX: usize = 4 * 1024;
/// Trailers at most.
const TRAILERS_MAX: usize = 8;
/// Least room that is taken for chunks, so that many sizes take one piece of it.
const ROOM_BYTES_MIN: usize = 64 * 1024;

const MARK: &str = ";chunk-signature=";
const TRAILER_SIGNATURE: &str = "x-amz-trailer-signature";
/// How the names of trailers begin that an upload may have.
const CHECKSUM_PREFIX: &str = "x-amz-checksum-";
const CRLF: &[u8] = b"\r\n";
/// A signature in hex.
const SIGNATURE_BYTES: usize = 64;

/// How long the data is.
const DECODED_LENGTH: HeaderName = HeaderName::from_static("x-amz-decoded-content-length");
/// Which trailers come behind it.
const TRAILER: HeaderName = HeaderName::from_static("x-amz-trailer");

/// What the head says of such a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Announced {
    /// Bytes of all chunks together.
    bytes: u64,
    /// Names of the trailers, in order; `None` where none may come.
    trailers: Option<Vec<String>>,
}

impl Announced {
    /// Reads it; `None` for another kind of body.
    ///
    /// # Errors
    /// [`Denial`].
    pub(super) fn read(payload: Payload, headers: &HeaderMap) -> Result<Option<Self>, Denial> {
        let malformed = || refused(SignatureFault::Malformed);
        let has_trailers = match payload {
            Payload::Body | Payload::Named(_) | Payload::Unsigned | Payload::UnsignedWithTrailer => return Ok(None),
            Payload::Chunks => false,
            Payload::ChunksWithTrailer => true,
        };
        let bytes = only(headers, &DECODED_LENGTH)?.and_then(number).ok_or_else(malformed)?;
        let trailers = match (only(headers, &TRAILER)?, has_trailers) {
            (None, false) => None,
            (Some(names), true) => Some(trailer_names(names).ok_or_else(malformed)?),
            (Some(_), false) | (None, true) => return Err(malformed()),
        };
        Ok(Some(Self { bytes, trailers }))
    }
}

/// Digits as everybody writes them.
fn number(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    is_plain.then(|| text.parse().ok()).flatten()
}

fn trailer_names(text: &str) -> Option<Vec<String>> {
    let names = text.split(',').take(TRAILERS_MAX + 1).map(|name| name.trim_matches(' ').to_owned());
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    let is_good = names.len() <= TRAILERS_MAX
        && names.is_sorted_by(|one, next| one < next)
        && names.iter().all(|name| is_checksum(name));
    is_good.then_some(names)
}

fn is_checksum(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    name.len() > CHECKSUM_PREFIX.len() && name.starts_with(CHECKSUM_PREFIX) && name.bytes().all(plain)
}

/// Why a body cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum ChunkFault {
    /// A signature is not right, or not where it should be.
    Signature(SignatureFault),
    /// A chunk is longer than any that is held.
    TooLarge,
    /// There is no room for a chunk beside what else is held.
    NoRoom,
}

const MALFORMED: ChunkFault = ChunkFault::Signature(SignatureFault::Malformed);

/// One of the two chains: what signs, and the signature before the next one, in hex.
pub(super) struct Chain {
    pub(super) key: hmac::Key,
    pub(super) last: String,
}

/// A body on its way: what came and is not yet verified.
pub struct Chunks {
    theirs: Chain,
    ours: Chain,
    /// `20150830T123600Z`
    date: String,
    /// `20150830/us-east-1/s3/aws4_request`
    scope: String,
    announced: Announced,
    /// Not yet looked at.
    came: Bytes,
    /// The part that is not whole yet.
    held: BytesMut,
    /// The end of the chunk before, which goes on with the next one.
    end: Bytes,
    /// Goes on next.
    ready: Option<Bytes>,
    part: Part,
    /// Bytes of the chunks so far.
    bytes: u64,
    room: Room,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// The line before a chunk.
    Line,
    /// A chunk, of which the line is here.
    Chunk(Line),
    /// The trailers, and the signature over them.
    Trailers,
    /// Nothing.
    Over,
    /// Nothing any more: it was not right.
    Broken(ChunkFault),
}

/// The line before a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    /// Bytes of the chunk; none in the last one.
    size: usize,
    /// Where its signature stands.
    signature: Range<usize>,
    /// Its own length, with its end.
    bytes: usize,
}

/// Where chunks are held; without it none is.
#[derive(Default)]
struct Room {
    hold: Option<(Hold, AgentName)>,
    taken: Vec<Place>,
    bytes: usize,
}

impl Room {
    /// Takes room for a chunk that comes while one of the same size is being written.
    fn take(&mut self, size: usize) -> Result<(), ChunkFault> {
        let wanted = 2 * size.next_power_of_two().max(ROOM_BYTES_MIN);
        if wanted > self.bytes {
            let (hold, agent) = self.hold.as_ref().ok_or(ChunkFault::NoRoom)?;
            self.taken.push(hold.room(agent, wanted - self.bytes).ok_or(ChunkFault::NoRoom)?);
            self.bytes = wanted;
        }
        Ok(())
    }
}

/// What a signature is over, by its first line.
#[derive(Clone, Copy)]
enum Kind {
    Chunk,
    Trailers,
}

impl Chunks {
    /// Between the agent's chain and the one that goes out; both begin with the signature of their head.
    pub(super) fn new((theirs, ours): (Chain, Chain), announced: Announced, (date, scope): (String, String)) -> Self {
        let (came, held, end, room) = (Bytes::new(), BytesMut::new(), Bytes::new(), Room::default());
        Self { theirs, ours, date, scope, announced, came, held, end, ready: None, part: Part::Line, bytes: 0, room }
    }

    /// From here on chunks can be held, beside what else is held of this agent's bodies.
    pub(in crate::proxy) fn hold_in(&mut self, hold: Hold, agent: AgentName) {
        self.room.hold = Some((hold, agent));
    }

    /// Takes the next of the body, after everything that was there has been looked at.
    pub(in crate::proxy) fn push(&mut self, data: Bytes) {
        debug_assert!(self.came.is_empty(), "what came before is looked at first");
        self.came = data;
    }

    /// How many bytes wait here.
    pub(in crate::proxy) fn held_bytes(&self) -> usize {
        self.held.len() + self.came.len() + self.end.len() + self.ready.as_ref().map_or(0, Bytes::len)
    }

    /// True once all of it has gone on.
    pub(in crate::proxy) fn is_over(&self) -> bool {
        self.part == Part::Over && self.came.is_empty() && self.ready.is_none()
    }

    /// What may go on, with its new signature; `None` where more has to come first.
    ///
    /// # Errors
    /// [`ChunkFault`]: the body must not come to its end. It is the same from then on.
    pub(in crate::proxy) fn next(&mut self) -> Result<Option<Bytes>, ChunkFault> {
        self.step().inspect_err(|fault| self.part = Part::Broken(*fault))
    }

    fn step(&mut self) -> Result<Option<Bytes>, ChunkFault> {
        if let Some(ready) = self.ready.take() {
            return Ok(Some(ready));
        }
        loop {
            match self.part.clone() {
                Part::Line => {
                    if !self.fill_line(LINE_BYTES_MAX)? {
                        return Ok(None);
                    }
                    self.part = Part::Chunk(self.begun()?);
                }
                Part::Chunk(line) => {
                    if !self.fill(self.whole(&line)) {
                        return Ok(None);
                    }
                    return self.chunk(&line).map(Some);
                }
                Part::Trailers => {
                    if !self.fill_line(TRAILERS_BYTES_MAX)? {
                        return Ok(None);
                    }
                    if self.held.ends_with(b"\r\n\r\n") {
                        return self.trailers().map(Some);
                    }
                }
                Part::Over if self.came.is_empty() => return Ok(None),
                Part::Over => return Err(MALFORMED),
                Part::Broken(fault) => return Err(fault),
            }
        }
    }

    /// Moves bytes over until so many are held.
    fn fill(&mut self, bytes: usize) -> bool {
        let missing = bytes.saturating_sub(self.held.len()).min(self.came.len());
        self.held.extend_from_slice(&self.came[..missing]);
        self.came.advance(missing);
        self.held.len() == bytes
    }

    /// Moves bytes over until a line ends, of which with all before it no more than `max` may come.
    fn fill_line(&mut self, max: usize) -> Result<bool, ChunkFault> {
        let end = memchr::memchr(b'\n', &self.came).map(|at| at + 1);
        let bytes = end.unwrap_or(self.came.len());
        if self.held.len() + bytes > max {
            return Err(MALFORMED);
        }
        Ok(self.fill(self.held.len() + bytes) && end.is_some())
    }

    /// A line is here: what it announces must fit into all that was announced.
    fn begun(&mut self) -> Result<Line, ChunkFault> {
        let line = Line::read(&self.held).ok_or(MALFORMED)?;
        if line.size > CHUNK_BYTES_MAX {
            return Err(ChunkFault::TooLarge);
        }
        self.bytes = self.bytes.saturating_add(line.size as u64);
        let is_last = line.size == 0;
        if self.bytes > self.announced.bytes || (is_last && self.bytes != self.announced.bytes) {
            return Err(MALFORMED);
        }
        self.room.take(line.size)?;
        self.held.reserve(self.whole(&line) - self.held.len());
        Ok(line)
    }

    /// How long a chunk is with all around it: before trailers, the last one has no end of its own.
    fn whole(&self, line: &Line) -> usize {
        let has_end = line.size > 0 || self.announced.trailers.is_none();
        line.bytes + line.size + if has_end { CRLF.len() } else { 0 }
    }

    /// A chunk is here, whole.
    fn chunk(&mut self, line: &Line) -> Result<Bytes, ChunkFault> {
        let (data, end) = self.held[line.bytes..].split_at(line.size);
        if !end.is_empty() && end != CRLF {
            return Err(MALFORMED);
        }
        let hash = hex::encode(sha_256(data));
        self.sign_again(Kind::Chunk, &hash, line.signature.clone())?;
        let next = match (line.size, &self.announced.trailers) {
            (0, None) => Part::Over,
            (0, Some(_)) => Part::Trailers,
            (_, _) => Part::Line,
        };
        Ok(self.verified(next))
    }

    /// The trailers are here, with the line that ends them: those that were announced, and the signature behind them.
    fn trailers(&mut self) -> Result<Bytes, ChunkFault> {
        let text = self.held.strip_suffix(b"\r\n\r\n").and_then(|text| std::str::from_utf8(text).ok());
        let (lines, last) = text.and_then(|text| text.rsplit_once('\n')).ok_or(MALFORMED)?;
        let is_last = last.strip_prefix(TRAILER_SIGNATURE).and_then(|rest| rest.strip_prefix(':'));
        let signature = is_last.filter(|hex| hex.len() == SIGNATURE_BYTES).ok_or(MALFORMED)?;
        let end = lines.len() + 1 + last.len();
        let at = end - signature.len()..end;
        // Some clients end these lines by LF alone.
        let lines = lines.split('\n').take(TRAILERS_MAX + 1).map(|line| line.strip_suffix('\r').unwrap_or(line));
        let mut lines = lines.map(trailer).collect::<Option<Vec<_>>>().ok_or(MALFORMED)?;
        lines.sort_unstable();
        let announced = self.announced.trailers.as_deref().unwrap_or_default();
        if !lines.iter().map(|(name, _)| *name).eq(announced.iter().map(String::as_str)) {
            return Err(MALFORMED);
        }
        let canonical: String = lines.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let hash = hex::encode(sha_256(canonical.as_bytes()));
        self.sign_again(Kind::Trailers, &hash, at)?;
        Ok(self.verified(Part::Over))
    }

    /// What is held was verified: it goes on behind the end of what came before it, and its own end waits unless it is the
    /// last.
    fn verified(&mut self, next: Part) -> Bytes {
        let mut whole = std::mem::take(&mut self.held).freeze();
        let kept = if next == Part::Over { 0 } else { CRLF.len() };
        let end = whole.split_off(whole.len() - kept);
        self.part = next;
        let before = std::mem::replace(&mut self.end, end);
        if before.is_empty() {
            return whole;
        }
        self.ready = Some(whole);
        before
    }

    /// Verifies the signature that stands there, and writes the new one over it.
    fn sign_again(&mut self, kind: Kind, hash: &str, at: Range<usize>) -> Result<(), ChunkFault> {
        let place = &mut self.held[at];
        let said = std::str::from_utf8(place).map_err(|_| MALFORMED)?;
        let signature = authorization::hash(said).ok_or(MALFORMED)?;
        let text = |last: &str| match kind {
            Kind::Chunk => {
                let empty = hex::encode(sha_256(b""));
                format!("AWS4-HMAC-SHA256-PAYLOAD\n{}\n{}\n{last}\n{empty}\n{hash}", self.date, self.scope)
            }
            Kind::Trailers => {
                format!("AWS4-HMAC-SHA256-TRAILER\n{}\n{}\n{last}\n{hash}", self.date, self.scope)
            }
        };
        let theirs = text(&self.theirs.last);
        hmac::verify(&self.theirs.key, theirs.as_bytes(), &signature)
            .map_err(|_| ChunkFault::Signature(SignatureFault::Mismatch))?;
        let ours = hex::encode(hmac::sign(&self.ours.key, text(&self.ours.last).as_bytes()));
        said.clone_into(&mut self.theirs.last);
        place.copy_from_slice(ours.as_bytes());
        self.ours.last = ours;
        Ok(())
    }
}

impl Line {
    /// Reads `SIZE;chunk-signature=…\r\n`.
    fn read(line: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(line.strip_suffix(CRLF)?).ok()?;
        let (size, signature) = text.split_once(MARK)?;
        let is_hex = (1..=8).contains(&size.len()) && size.bytes().all(|b| b.is_ascii_hexdigit());
        let is_plain = is_hex && (size == "0" || !size.starts_with('0'));
        if !is_plain || signature.len() != SIGNATURE_BYTES {
            return None;
        }
        let size = usize::from_str_radix(size, 16).ok()?;
        Some(Self { size, signature: text.len() - SIGNATURE_BYTES..text.len(), bytes: line.len() })
    }
}

/// `x-amz-checksum-crc32c:sOO8/Q==`, without a space.
fn trailer(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once(':')?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"+/=-".contains(&b);
    (is_checksum(name) && !value.is_empty() && value.bytes().all(plain)).then_some((name, value))
}

#[cfg(test)]
mod tests;
