//! One line of `allow` or `deny`, parsed: method, host, path pattern, query. `compare` has what is asked of two rules.

mod compare;
mod parse;

pub(super) use parse::FORBIDDEN_METHODS;
pub use parse::{RULE_BYTES_MAX, RULE_SEGMENTS_MAX};

use std::sync::Arc;

use smallvec::SmallVec;

use super::condition::Condition;
use super::decide::RequestFacts;
use super::target::Target;
use crate::model::{Host, Rate};

/// What a rule says of the query.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum QueryRule {
    /// Any parameters.
    #[default]
    Any,
    /// These parameters may be there and no others: `query = ["limit"]`. One may be there more than once.
    Only(Vec<String>),
    /// These parameters must be there once with exactly these values, and no others: `query = { service = "x" }`.
    Exactly(Vec<(String, String)>),
}

/// Why the text of a rule, slot, placeholder or host pattern was refused; a sentence with a hint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadSyntax(pub String);

/// One rule, parsed: method, optional host, path pattern, query conditions.
///
/// Allows and denies read it differently, each to the side of refusing:
///
/// | | as an allow | as a deny |
/// | --- | --- | --- |
/// | `* …` | never matches | matches every method |
/// | `GET …` | GET and HEAD | GET, HEAD and WebSocket upgrades |
/// | trailing slash | makes another path | is not looked at |
/// | `;v=1`, `%3F` or `%23` in a segment | is part of it | matches with it, and without all that follows |
/// | `%2F` in a segment | only with `encoded_slash` | matches as a slash and as a character |
/// | `Only` parameters | no others | is not looked at |
/// | `Exactly` parameters | once, and no others | one occurrence of each is enough |
#[derive(Debug, Clone)]
pub struct Rule {
    text: Arc<str>,
    method: Method,
    host: Option<Host>,
    pub(super) path: Pattern,
    pub(super) query: QueryRule,
    pub(super) encoded_slash: bool,
    pub(super) condition: Option<Arc<Condition>>,
    pub(super) rate: Option<Rate>,
}

/// The method of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Method {
    /// `*`.
    Any,
    /// `WEBSOCKET`: an upgrade.
    WebSocket,
    /// An exact token.
    Exact(Token),
}

/// The bytes of a method, beside the rule's other fields in memory: each request compares them.
type Token = SmallVec<[u8; 16]>;

/// The path of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    pub(super) segments: Vec<Segment>,
    pub(super) end: End,
}

/// One segment of a pattern, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    /// This text.
    Literal(Box<str>),
    /// At least one character after this beginning, which may be empty: `cus_{id}`.
    Capture(Box<str>),
}

/// How a pattern ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// After the last segment.
    Plain,
    /// With a slash after it.
    Slash,
    /// With at least one more segment: `{*rest}`.
    Rest,
}

/// Which side a rule stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Allow,
    Deny,
}

impl Rule {
    /// As the policy spells it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The same rule, with what it asks beyond its line.
    #[must_use]
    pub fn on(self, condition: Condition) -> Self {
        Self { condition: Some(Arc::new(condition)), ..self }
    }

    /// The same rule, at most so fast for each nonce.
    #[must_use]
    pub fn at(self, rate: Option<Rate>) -> Self {
        Self { rate, ..self }
    }

    /// How fast each nonce may do what it allows (`None`: as fast as its scope).
    #[must_use]
    pub fn rate(&self) -> Option<Rate> {
        self.rate
    }

    /// What it asks beyond its line.
    #[must_use]
    pub fn condition(&self) -> Option<&Condition> {
        self.condition.as_deref()
    }

    /// True if there are requests on its line to which it does not apply, since it asks more of them.
    pub(super) fn is_conditional(&self) -> bool {
        self.condition.as_ref().is_some_and(|condition| condition.is_conditional())
    }

    /// The names of its placeholders, in the order of its path.
    #[must_use]
    pub fn captures(&self) -> Vec<&str> {
        let names = self.text.split('{').skip(1).filter_map(|rest| rest.split('}').next());
        names.map(|name| name.trim_start_matches('*')).collect()
    }

    /// What its placeholders stand for in this path; `None` where it does not match as the path stands there.
    pub(super) fn captured(&self, target: &Target) -> Option<Vec<(Box<str>, String)>> {
        let mut names = self.captures().into_iter();
        let mut segments = target.segments();
        let mut captured = Vec::new();
        for own in &self.path.segments {
            let segment = segments.next()?;
            match own {
                Segment::Literal(text) if **text == *segment => {}
                Segment::Literal(_) => return None,
                Segment::Capture(beginning) => {
                    let value = segment.strip_prefix(&**beginning).filter(|value| !value.is_empty())?;
                    captured.push((names.next()?.into(), value.to_owned()));
                }
            }
        }
        if self.path.end == End::Rest {
            let rest: Vec<&str> = segments.by_ref().collect();
            captured.push((names.next()?.into(), rest.join("/")));
        }
        segments.next().is_none().then_some(captured)
    }

    /// The host that it names, if it names one.
    #[must_use]
    pub fn host(&self) -> Option<&Host> {
        self.host.as_ref()
    }

    /// True for `*`: right in a deny, and never matching in an allow, where methods are exact.
    #[must_use]
    pub fn is_any_method(&self) -> bool {
        self.method == Method::Any
    }

    /// True for `WEBSOCKET`.
    #[must_use]
    pub fn is_websocket(&self) -> bool {
        self.method == Method::WebSocket
    }

    /// True when every request that `other` matches is matched by this rule too: `other` after a deny like that is
    /// unreachable. Says false where it is not certain.
    #[must_use]
    pub fn covers(&self, other: &Rule) -> bool {
        let slash = self.encoded_slash || !other.encoded_slash;
        !self.is_conditional() && slash && self.query.covers(&other.query) && self.covers_line(other)
    }

    /// The same of method, host and path alone.
    #[must_use]
    pub fn covers_line(&self, other: &Rule) -> bool {
        let method = match (&self.method, &other.method) {
            (Method::Any, _) | (Method::WebSocket, Method::WebSocket) => true,
            (Method::Exact(own), Method::Exact(others)) => own == others || (**own == *b"GET" && **others == *b"HEAD"),
            (Method::WebSocket | Method::Exact(_), _) => false,
        };
        let host = self.host.is_none() || self.host == other.host;
        method && host && self.path.covers(&other.path)
    }

    /// True when method, host and path of a request are those of this rule, read as an allow without `encoded_slash`.
    pub(super) fn matches_line(&self, facts: &RequestFacts<'_>) -> bool {
        self.concerns(Effect::Allow, facts.method, facts.websocket, facts.host)
            && !facts.target.has_encoded_slash()
            && self.path.matches(facts.target)
    }

    /// True when this rule speaks of a request with this method to this host.
    pub(super) fn concerns(&self, effect: Effect, method: &str, websocket: bool, host: &Host) -> bool {
        let named = match &self.method {
            Method::Any => effect == Effect::Deny,
            Method::WebSocket => websocket,
            Method::Exact(name) if websocket => {
                effect == Effect::Deny && (**name == *method.as_bytes() || **name == *b"GET")
            }
            Method::Exact(name) => **name == *method.as_bytes() || (**name == *b"GET" && method == "HEAD"),
        };
        named && self.host.as_ref().is_none_or(|own| own == host)
    }
}

impl Pattern {
    fn matches(&self, target: &Target) -> bool {
        let mut segments = target.segments();
        let begins = self.segments.iter().all(|own| segments.next().is_some_and(|segment| own.matches(segment)));
        let (has_more, has_slash) = (segments.next().is_some(), target.has_trailing_slash());
        begins
            && match self.end {
                End::Plain => !has_more && !has_slash,
                End::Slash => !has_more && has_slash,
                End::Rest => has_more,
            }
    }

    fn covers(&self, other: &Self) -> bool {
        let count = self.segments.len();
        let fits = match (self.end, other.end) {
            (End::Rest, End::Rest) => count <= other.segments.len(),
            (End::Rest, End::Plain | End::Slash) => count < other.segments.len(),
            (End::Plain, End::Plain) | (End::Slash, End::Slash) => count == other.segments.len(),
            (End::Plain | End::Slash, _) => false,
        };
        fits && self.segments.iter().zip(&other.segments).all(|(own, others)| own.covers(others))
    }
}

impl Segment {
    fn matches(&self, segment: &str) -> bool {
        match self {
            Self::Literal(own) => **own == *segment,
            Self::Capture(beginning) => segment.len() > beginning.len() && segment.starts_with(&**beginning),
        }
    }

    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Literal(own), Self::Literal(others)) => own == others,
            (Self::Literal(_), Self::Capture(_)) => false,
            (Self::Capture(own), Self::Literal(others)) => others.len() > own.len() && others.starts_with(&**own),
            (Self::Capture(own), Self::Capture(others)) => others.starts_with(&**own),
        }
    }
}

impl QueryRule {
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::Only(_) | Self::Exactly(_), Self::Any) => false,
            (Self::Only(own), Self::Only(others)) => others.iter().all(|name| own.contains(name)),
            (Self::Only(own), Self::Exactly(others)) => others.iter().all(|(name, _)| own.contains(name)),
            (Self::Exactly(own), Self::Only(others)) => own.is_empty() && others.is_empty(),
            (Self::Exactly(own), Self::Exactly(others)) => {
                own.len() == others.len() && own.iter().all(|pair| others.contains(pair))
            }
        }
    }
}

#[cfg(test)]
mod tests;
