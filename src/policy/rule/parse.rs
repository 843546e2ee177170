//! From the text of a rule to the rule, with a sentence for each mistake.

use super::{BadSyntax, End, Method, Pattern, QueryRule, Rule, Segment};
use crate::model::{Ambiguity, Host};
use crate::policy::target::decode_segment;

/// Longest rule, in bytes.
pub const RULE_BYTES_MAX: usize = 2048;
/// Segments of a rule's path at most; bounds the depth of the index.
pub const RULE_SEGMENTS_MAX: usize = 64;
/// Longest method, in bytes.
const METHOD_BYTES_MAX: usize = 32;

/// Methods that no request inside a tunnel may have.
pub(in crate::policy) const FORBIDDEN_METHODS: [&str; 3] = ["CONNECT", "TRACE", "TRACK"];

fn bad<T>(sentence: impl Into<String>) -> Result<T, BadSyntax> {
    Err(BadSyntax(sentence.into()))
}

impl Rule {
    /// Parses `GET /v1/customers/cus_{id}`, `GET api.github.com/repos/{*rest}`, `* /v1/{*rest}` (any method, in denies).
    ///
    /// `{id}` is one segment, `cus_{id}` one with a literal beginning, `{*rest}` at the end at least one more segment.
    /// Literals are matched decoded; what URLs escape is escaped here. `WEBSOCKET` is a method of its own.
    ///
    /// # Errors
    /// [`BadSyntax`].
    pub fn parse(text: &str, query: QueryRule, encoded_slash: bool) -> Result<Self, BadSyntax> {
        if text.len() > RULE_BYTES_MAX {
            return bad(format!("a rule has at most {RULE_BYTES_MAX} bytes"));
        }
        let Some((method, place)) = text.split_once(' ') else {
            return bad("a rule is a method and a path, as in `GET /v1/customers/{id}`");
        };
        let Some(slash) = place.find('/') else {
            return bad("the path is missing: a rule is a method and a path, as in `GET /v1/customers/{id}`");
        };
        let (host, path) = place.split_at(slash);
        Ok(Self {
            text: text.into(),
            method: parse_method(method)?,
            host: parse_host(host)?,
            path: parse_path(path, encoded_slash)?,
            query: check_query(query)?,
            encoded_slash,
            condition: None,
            rate: None,
        })
    }
}

fn parse_method(text: &str) -> Result<Method, BadSyntax> {
    let token = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    match text {
        "*" => Ok(Method::Any),
        "WEBSOCKET" => Ok(Method::WebSocket),
        _ if FORBIDDEN_METHODS.contains(&text) => bad(format!("{text} is never allowed inside a tunnel")),
        _ if text.len() > METHOD_BYTES_MAX => bad(format!("a method has at most {METHOD_BYTES_MAX} bytes")),
        _ if text.starts_with(|c: char| c.is_ascii_uppercase()) && text.bytes().all(token) => {
            Ok(Method::Exact(text.as_bytes().into()))
        }
        _ => bad("methods are exact and in upper case, as in `GET`; one rule names one method"),
    }
}

fn parse_host(text: &str) -> Result<Option<Host>, BadSyntax> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.ends_with(':') {
        return bad("a rule names a host without a scheme, as in `GET api.example.com/v1`");
    }
    if text.contains('*') {
        return bad("a rule names one exact host; without a host it holds for all hosts of its service");
    }
    match Host::parse(text) {
        Ok(host) => Ok(Some(host)),
        Err(_) if text.contains(':') => bad("a rule names a host without a port; the ports are those of its service"),
        Err(error) => bad(format!("before the path stands a host or nothing: {error}")),
    }
}

fn parse_path(path: &str, encoded_slash: bool) -> Result<Pattern, BadSyntax> {
    check_path_bytes(path)?;
    let mut pieces: Vec<&str> = path.split('/').skip(1).collect();
    if pieces.len() > RULE_SEGMENTS_MAX {
        return bad(format!("a rule's path has at most {RULE_SEGMENTS_MAX} segments"));
    }
    let end = match pieces.last() {
        Some(&"") => End::Slash,
        Some(last) if is_rest(last)? => End::Rest,
        Some(_) | None => End::Plain,
    };
    if end != End::Plain {
        pieces.pop();
    }
    let segments = pieces.iter().map(|piece| parse_segment(piece, encoded_slash)).collect::<Result<_, _>>()?;
    check_names(path)?;
    Ok(Pattern { segments, end })
}

fn check_path_bytes(path: &str) -> Result<(), BadSyntax> {
    match path.chars().find(|c| !c.is_ascii_graphic() || matches!(c, '?' | '#' | '*' | '\\')) {
        None => Ok(()),
        Some('?') => bad("a rule's path ends before `?`; say `query = […]` or `query = { name = \"value\" }`"),
        Some('#') => bad("a path holds no `#`: fragments are never sent"),
        Some('*') if path.contains("{*") && path.matches('*').count() == path.matches("{*").count() => Ok(()),
        Some('*') => bad("`*` is no pattern: `{id}` is one segment, `{*rest}` at the end is the remainder"),
        Some(c) if c.is_ascii() => {
            bad("a path holds no spaces, control characters or backslashes; escape them, as in `%20`")
        }
        Some(_) => bad("a path is ASCII; write other characters percent-encoded, in UTF-8"),
    }
}

/// True for `{*rest}`.
fn is_rest(piece: &str) -> Result<bool, BadSyntax> {
    let Some(name) = piece.strip_prefix("{*") else { return Ok(false) };
    match name.strip_suffix('}') {
        Some(name) => check_name(name).map(|()| true),
        None => bad("`{*rest}` is a whole segment and the last one"),
    }
}

fn parse_segment(piece: &str, encoded_slash: bool) -> Result<Segment, BadSyntax> {
    if piece.contains("{*") {
        return bad("`{*rest}` is a whole segment and the last one");
    }
    if piece.starts_with(':') {
        return bad("a placeholder is written `{id}`, not `:id`");
    }
    let Some((literal, rest)) = piece.split_once('{') else {
        return match piece.contains('}') {
            true => bad("`}` without `{`"),
            false => parse_literal(piece, encoded_slash).map(Segment::Literal),
        };
    };
    let Some((name, after)) = rest.split_once('}') else {
        return bad("`{` without `}` in the same segment");
    };
    check_name(name)?;
    if !after.is_empty() {
        return bad("a placeholder ends its segment: `cus_{id}` is possible, `{id}.json` is not");
    }
    if literal.is_empty() {
        return Ok(Segment::Capture("".into()));
    }
    parse_literal(literal, encoded_slash).map(Segment::Capture)
}

fn parse_literal(text: &str, encoded_slash: bool) -> Result<Box<str>, BadSyntax> {
    let literal = decode_segment(text).map_err(|ambiguity| {
        BadSyntax(match ambiguity {
            Ambiguity::EmptySegment => "a path has no empty segments".to_owned(),
            Ambiguity::DotSegment => "a path has no `.` or `..` segments".to_owned(),
            Ambiguity::PathParameter => "a path has no segment that begins with `;`, `.;` or `..;`".to_owned(),
            _ => format!("no request can have the segment `{text}`: it would be refused as ambiguous"),
        })
    })?;
    if literal.contains('/') && !encoded_slash {
        return bad("a segment with `%2F` needs `encoded_slash = true`");
    }
    Ok(literal.into())
}

fn check_name(name: &str) -> Result<(), BadSyntax> {
    let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if plain && name.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Ok(());
    }
    bad("a placeholder's name is lower-case letters, digits and `_`, as in `{id}` or `{*rest}`")
}

/// Each placeholder has a name of its own.
fn check_names(path: &str) -> Result<(), BadSyntax> {
    let names = || path.split('{').skip(1).filter_map(|rest| rest.split('}').next()).map(|n| n.trim_start_matches('*'));
    match names().enumerate().find(|(at, name)| names().take(*at).any(|earlier| earlier == *name)) {
        Some((_, name)) => bad(format!("the placeholder `{{{name}}}` is there twice")),
        None => Ok(()),
    }
}

fn check_query(query: QueryRule) -> Result<QueryRule, BadSyntax> {
    let names: Vec<&String> = match &query {
        QueryRule::Any => Vec::new(),
        QueryRule::Only(names) => names.iter().collect(),
        QueryRule::Exactly(pairs) => pairs.iter().map(|(name, _)| name).collect(),
    };
    if names.iter().any(|name| name.is_empty()) {
        return bad("a query parameter has a name");
    }
    match names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
        Some((_, name)) => bad(format!("the query parameter `{name}` is there twice")),
        None => Ok(query),
    }
}
