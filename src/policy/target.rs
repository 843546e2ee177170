//! The request target, parsed once: what is judged is, byte for byte, what is sent.

mod decode;
mod query;

use std::fmt;
use std::ops::Range;

use smallvec::SmallVec;

pub(super) use decode::{before_delimiter, segment as decode_segment, without_ends};
pub use query::{QueryParameter, QuerySlot};

use crate::model::Ambiguity;

/// Longest target that is parsed at all, in bytes; the proxy's own limit lies far below.
pub const TARGET_BYTES_MAX: usize = 1024 * 1024;

/// Segments that fit a [`Target`] without an allocation.
const SEGMENTS_INLINE: usize = 8;

/// A request target in origin form (RFC 9112, 3.2.1) that every common server reads in one way.
///
/// Equality is that of the bytes. `Debug` shows lengths only, since a path or a query may hold what no log should.
#[derive(Clone)]
pub struct Target {
    text: Box<str>,
    path_end: usize,
    /// The decoded segments, one after the other; `None` where decoding changes nothing.
    decoded: Option<Box<str>>,
    /// Where each segment stands: in `decoded` if there is one, else in `text`.
    segments: SmallVec<[Range<u32>; SEGMENTS_INLINE]>,
    trailing_slash: bool,
    encoded_slash: bool,
}

impl Target {
    /// Parses path and query as they came; refuses, never repairs.
    ///
    /// A single trailing slash is kept and makes another path. Encoded slashes (`%2F`) are noted, and refused later
    /// unless the matching rule allows them; one that would form a dot segment or an empty segment is refused here.
    /// The query is opaque, except that it holds no raw control byte, space, `#` or byte beyond ASCII.
    ///
    /// # Errors
    /// [`Ambiguity`], for whatever two servers could read differently: no leading `/` or a `#` (`TargetForm`), `.` and
    /// `..` in any spelling (`DotSegment`), empty segments, backslashes (`EncodedSlash`), `..;` (`PathParameter`), an
    /// escape in an escape (`DoubleEncoding`), control bytes, bad escapes and what is not UTF-8 (`PathBytes`).
    pub fn parse(path_and_query: &str) -> Result<Self, Ambiguity> {
        if !path_and_query.starts_with('/') {
            return Err(Ambiguity::TargetForm);
        }
        if path_and_query.len() > TARGET_BYTES_MAX {
            return Err(Ambiguity::PathBytes);
        }
        check_raw(path_and_query)?;
        let path_end = memchr::memchr(b'?', path_and_query.as_bytes()).unwrap_or(path_and_query.len());
        let mut target = Self {
            text: path_and_query.into(),
            path_end,
            decoded: None,
            segments: SmallVec::new(),
            trailing_slash: false,
            encoded_slash: false,
        };
        target.read_segments(&path_and_query[..path_end])?;
        Ok(target)
    }

    fn read_segments(&mut self, path: &str) -> Result<(), Ambiguity> {
        let mut decoded = memchr::memchr(b'%', path.as_bytes()).is_some().then(|| String::with_capacity(path.len()));
        // The common case: what is judged of a segment is what stands there.
        let is_plain = decoded.is_none() && memchr::memchr(b'\\', path.as_bytes()).is_none();
        let mut at = 1;
        let mut pieces = path[1..].split('/').peekable();
        while let Some(raw) = pieces.next() {
            if raw.is_empty() {
                if pieces.peek().is_some() {
                    return Err(Ambiguity::EmptySegment);
                }
                self.trailing_slash = true;
                break;
            }
            let segment = if is_plain { decode::plain_segment(raw)? } else { decode::segment(raw)? };
            self.encoded_slash |= segment.contains('/');
            let start = match &mut decoded {
                Some(buffer) => {
                    buffer.push_str(&segment);
                    buffer.len() - segment.len()
                }
                None => at,
            };
            self.segments.push(span(start, segment.len())?);
            at += raw.len() + 1;
        }
        self.decoded = decoded.map(String::into_boxed_str);
        Ok(())
    }

    /// Path and query as they came, and as they go out.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The path as it came.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.text[..self.path_end]
    }

    /// The query as it came, without `?`.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.text.get(self.path_end + 1..)
    }

    /// The decoded segments; none for `/`, and none for a trailing slash.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> + ExactSizeIterator {
        let text = self.decoded.as_deref().unwrap_or(&self.text);
        self.segments.iter().map(move |at| &text[at.start as usize..at.end as usize])
    }

    /// True when the path ends in `/`.
    #[must_use]
    pub fn has_trailing_slash(&self) -> bool {
        self.trailing_slash
    }

    /// True when a segment holds `%2F`.
    #[must_use]
    pub fn has_encoded_slash(&self) -> bool {
        self.encoded_slash
    }
}

impl PartialEq for Target {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Target {}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let query_bytes = self.query().map(str::len);
        f.debug_struct("Target").field("path_bytes", &self.path_end).field("query_bytes", &query_bytes).finish()
    }
}

/// What no request target holds raw (RFC 3986, 2): anything but visible ASCII, and a fragment.
fn check_raw(text: &str) -> Result<(), Ambiguity> {
    match text.bytes().find(|b| !b.is_ascii_graphic() || *b == b'#') {
        None => Ok(()),
        Some(b'#') => Err(Ambiguity::TargetForm),
        Some(_) => Err(Ambiguity::PathBytes),
    }
}

fn span(start: usize, length: usize) -> Result<Range<u32>, Ambiguity> {
    match (u32::try_from(start), u32::try_from(start + length)) {
        (Ok(start), Ok(end)) => Ok(start..end),
        _ => Err(Ambiguity::PathBytes),
    }
}

#[cfg(test)]
mod tests;
