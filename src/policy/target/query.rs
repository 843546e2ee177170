//! The query: parameters as they came, decoded where a rule looks at them; one can be taken out and put back.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use zeroize::Zeroizing;

use super::Target;
use super::decode::hex_pair;
use crate::model::Ambiguity;

/// What stays as it is in a parameter's value: RFC 3986, 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Parameters that frameworks take for the method, lower case, `_` for `-`.
const METHOD_OVERRIDES: [&[u8]; 4] = [b"_method", b"x_http_method_override", b"x_http_method", b"x_method_override"];

/// One piece of a query between two `&`, as it came.
#[derive(Clone)]
pub struct QueryParameter<'a> {
    raw: &'a str,
    /// In the whole target.
    at: Range<usize>,
}

impl<'a> QueryParameter<'a> {
    /// The name as it came.
    #[must_use]
    pub fn raw_name(&self) -> &'a str {
        self.raw.split_once('=').map_or(self.raw, |(name, _)| name)
    }

    /// The value as it came; empty without `=`.
    #[must_use]
    pub fn raw_value(&self) -> &'a str {
        self.raw.split_once('=').map_or("", |(_, value)| value)
    }

    /// The name, decoded, `+` read as a space; `None` for a bad escape or what is not UTF-8.
    #[must_use]
    pub fn name(&self) -> Option<Cow<'a, str>> {
        decode(self.raw_name())
    }

    /// The value, decoded, `+` read as a space; `None` for a bad escape or what is not UTF-8.
    #[must_use]
    pub fn value(&self) -> Option<Cow<'a, str>> {
        decode(self.raw_value())
    }
}

impl fmt::Debug for QueryParameter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("QueryParameter(…)")
    }
}

fn decode(raw: &str) -> Option<Cow<'_, str>> {
    if !raw.bytes().any(|b| b == b'%' || b == b'+') {
        return Some(Cow::Borrowed(raw));
    }
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let (byte, length) = match first {
            b'%' => (hex_pair(tail)?, 3),
            b'+' => (b' ', 1),
            plain => (plain, 1),
        };
        bytes.push(byte);
        rest = &rest[length..];
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

impl Target {
    /// The parameters, in order; empty pieces (`&&`) are left out.
    pub fn query_parameters(&self) -> impl Iterator<Item = QueryParameter<'_>> {
        let mut at = self.path_end + 1;
        self.query().unwrap_or("").split('&').filter_map(move |raw| {
            let start = at;
            at += raw.len() + 1;
            (!raw.is_empty()).then(|| QueryParameter { raw, at: start..start + raw.len() })
        })
    }

    /// True when a parameter would make a framework read another method than the one that is judged.
    #[must_use]
    pub fn has_method_override(&self) -> bool {
        self.query().is_some_and(|query| query.split(['&', ';']).any(is_method_override))
    }

    /// True when a parameter of this decoded name stands behind a `;`, which some frameworks take for `&`.
    #[must_use]
    pub fn hides_parameter(&self, name: &str) -> bool {
        self.query_parameters()
            .flat_map(|parameter| parameter.raw.split(';').skip(1))
            .map(|piece| piece.split_once('=').map_or(piece, |(name, _)| name))
            .any(|raw| decode(raw).is_some_and(|found| found.trim() == name))
    }

    /// Takes the parameter with this decoded name out; everything else stays byte for byte, in order.
    ///
    /// Gives its decoded value, and the place that it left. `None` when there is no such parameter.
    ///
    /// # Errors
    /// [`Ambiguity::Query`] when it is there twice, or its value cannot be decoded.
    pub fn take_query_parameter(&self, name: &str) -> Result<Option<(Zeroizing<String>, QuerySlot)>, Ambiguity> {
        let mut found = self.query_parameters().filter(|parameter| parameter.name().is_some_and(|n| n == name));
        let Some(parameter) = found.next() else { return Ok(None) };
        if found.next().is_some() {
            return Err(Ambiguity::Query);
        }
        let value = Zeroizing::new(parameter.value().ok_or(Ambiguity::Query)?.into_owned());
        Ok(Some((value, self.slot_of(&parameter)?)))
    }

    /// The place of a parameter that is not there: behind all others. The name goes out as it is.
    #[must_use]
    pub fn room_for_parameter(&self, name: &str) -> QuerySlot {
        let before = match self.query() {
            None => "?",
            Some("") => "",
            Some(_) => "&",
        };
        QuerySlot { rest: self.clone(), at: self.text.len(), before, name: name.into(), after: "" }
    }

    /// Cuts a parameter out with one of the separators beside it.
    fn slot_of(&self, parameter: &QueryParameter<'_>) -> Result<QuerySlot, Ambiguity> {
        let Range { start, end } = parameter.at;
        let first = start == self.path_end + 1;
        let last = end == self.text.len();
        let (cut, before, after) = match (first, last) {
            (true, true) => (start - 1..end, "?", ""),
            (true, false) => (start..end + 1, "", "&"),
            (false, _) => (start - 1..end, "&", ""),
        };
        let rest = format!("{}{}", &self.text[..cut.start], &self.text[cut.end..]);
        let name = parameter.raw_name().into();
        Ok(QuerySlot { rest: Target::parse(&rest)?, at: cut.start, before, name, after })
    }
}

fn is_method_override(piece: &str) -> bool {
    let name = piece.split_once('=').map_or(piece, |(name, _)| name);
    let name = if name.contains('+') { Cow::Owned(name.replace('+', " ")) } else { Cow::Borrowed(name) };
    let name: Cow<'_, [u8]> = percent_encoding::percent_decode_str(&name).into();
    // PHP trims spaces before a name, ends it at NUL or `[`, and reads `-` as it stands; CGI reads `-` as `_`.
    let name = name.trim_ascii_start();
    let name = name.split(|b| matches!(b, 0 | b'[')).next().unwrap_or_default();
    let same = |a: u8, b: u8| a.to_ascii_lowercase() == b || (b == b'_' && matches!(a, b'-' | b'.' | b' '));
    METHOD_OVERRIDES.iter().any(|known| known.len() == name.len() && name.iter().zip(*known).all(|(a, b)| same(*a, *b)))
}

/// The place of a query parameter that is to be filled: the rest of the target, which is judged, and where a value goes in.
#[derive(Clone)]
pub struct QuerySlot {
    rest: Target,
    at: usize,
    before: &'static str,
    name: Box<str>,
    after: &'static str,
}

impl QuerySlot {
    /// The target without the parameter.
    #[must_use]
    pub fn rest(&self) -> &Target {
        &self.rest
    }

    /// Path and query with this value, percent-encoded, where the parameter was; its name is spelled as it came.
    #[must_use]
    pub fn filled(&self, value: &[u8]) -> Zeroizing<String> {
        let (head, tail) = self.rest.as_str().split_at(self.at);
        let fixed = [head, self.before, &self.name, "=", self.after, tail].map(str::len).iter().sum::<usize>();
        // Room for the longest encoding, so that no copy of the value stays behind in memory that was given back.
        let mut text = Zeroizing::new(String::with_capacity(fixed + 3 * value.len()));
        for part in [head, self.before, &self.name, "="] {
            text.push_str(part);
        }
        text.extend(percent_encode(value, RESERVED));
        text.push_str(self.after);
        text.push_str(tail);
        text
    }
}

impl fmt::Debug for QuerySlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QuerySlot({:?})", self.rest)
    }
}
