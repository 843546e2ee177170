//! The shape of a body, and its strict reading: what two parsers could read differently is refused.

mod form;
mod json;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use cel::Value;
use percent_encoding::percent_decode_str;

use super::check::Type;
use super::inputs::text;
use crate::policy::target::Target;

/// Largest `max` of a body, in bytes.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyKind {
    /// `application/json`.
    Json,
    /// `application/x-www-form-urlencoded`.
    Form,
}

/// What a field of a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldType {
    /// A text.
    Text,
    /// A whole number of 64 bits.
    Int,
    /// A number, whole or not.
    Number,
    /// True or false.
    Bool,
    /// A list of texts.
    Texts,
    /// A list of whole numbers.
    Ints,
    /// Anything; conditions can only ask whether it is there.
    Any,
}

impl FieldType {
    pub(super) fn type_of(self) -> Type {
        match self {
            Self::Text => Type::Text,
            Self::Int => Type::Int,
            Self::Number => Type::Number,
            Self::Bool => Type::Bool,
            Self::Texts => Type::List(Box::new(Type::Text)),
            Self::Ints => Type::List(Box::new(Type::Int)),
            Self::Any => Type::Opaque,
        }
    }
}

/// `body = { type = …, max = …, fields = { … } }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyRule {
    /// How it is written.
    pub kind: BodyKind,
    /// Bytes at most.
    pub bytes_max: usize,
    /// What may be in it; `None` is anything.
    pub fields: Option<Vec<(String, FieldType)>>,
}

/// The fields in the order of their names, since theirs in the file means nothing.
impl fmt::Display for BodyRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} up to {} bytes", self.kind, self.bytes_max)?;
        let Some(fields) = &self.fields else { return Ok(()) };
        let sorted: BTreeMap<_, _> = fields.iter().map(|(name, kind)| (name, kind)).collect();
        write!(f, " {sorted:?}")
    }
}

/// A body that was held to be judged, and what its head says of it.
#[derive(Debug, Clone, Copy)]
pub struct HeldBody<'a> {
    /// What there is of it.
    pub bytes: &'a [u8],
    /// Nothing comes after these.
    pub is_whole: bool,
    /// Trailers came behind it.
    pub has_trailers: bool,
    /// `Content-Type`; `None` where there is none, or more than one.
    pub content_type: Option<&'a str>,
    /// There is a `Content-Encoding`, whatever it says.
    pub is_encoded: bool,
}

/// Why a body is not what its rule declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFault {
    /// Over `max`.
    TooLarge,
    /// Another `Content-Type`, none, or several.
    ContentType,
    /// Any `Content-Encoding`.
    Encoded,
    /// Trailers after it.
    Trailers,
    /// It cannot be parsed to its end, or is not UTF-8.
    Malformed,
    /// A key is there twice.
    Repeated,
    /// A key is in the query too.
    InQueryToo,
    /// A field that is not declared.
    Undeclared,
    /// A field of another type.
    WrongType,
}

impl BodyFault {
    /// What the agent is told.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::TooLarge => "the body is too large to be judged",
            Self::ContentType => "the body has another Content-Type than the one that is allowed",
            Self::Encoded => "the body has a Content-Encoding, and is only judged without one",
            Self::Trailers => "the body has trailers, and is only judged without them",
            Self::Malformed => "the body cannot be read to its end in one way only",
            Self::Repeated => "the body has a key twice",
            Self::InQueryToo => "the body has a key that is in the query too",
            Self::Undeclared => "the body has a field that is not allowed",
            Self::WrongType => "a field of the body has another type than the one that is allowed",
        }
    }
}

/// A declared field with its value.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) value: FieldValue,
}

#[derive(Debug)]
pub(super) enum FieldValue {
    Text(String),
    Int(i64),
    Number(f64),
    Bool(bool),
    Texts(Vec<String>),
    Ints(Vec<i64>),
    /// There, and not looked at.
    Any,
}

impl FieldValue {
    pub(super) fn to_cel(&self) -> Value {
        match self {
            Self::Text(value) => text(value),
            Self::Int(value) => Value::Int(*value),
            Self::Number(value) => Value::Float(*value),
            Self::Bool(value) => Value::Bool(*value),
            Self::Texts(values) => Value::List(Arc::new(values.iter().map(|value| text(value)).collect())),
            Self::Ints(values) => Value::List(Arc::new(values.iter().copied().map(Value::Int).collect())),
            Self::Any => Value::Null,
        }
    }
}

impl BodyRule {
    /// The declared fields that are there.
    pub(super) fn read(&self, held: &HeldBody<'_>, target: &Target) -> Result<Vec<Field>, BodyFault> {
        if held.bytes.len() > self.bytes_max || !held.is_whole {
            return Err(BodyFault::TooLarge);
        }
        if held.has_trailers {
            return Err(BodyFault::Trailers);
        }
        if held.is_encoded {
            return Err(BodyFault::Encoded);
        }
        if !held.content_type.is_some_and(|text| self.kind.is_type(text)) {
            return Err(BodyFault::ContentType);
        }
        let content = std::str::from_utf8(held.bytes).map_err(|_| BodyFault::Malformed)?;
        match self.kind {
            BodyKind::Json => json::read(content, self.fields.as_deref(), target),
            BodyKind::Form => form::read(content, self.fields.as_deref(), target),
        }
    }
}

impl BodyKind {
    /// The one media type, with no parameter but UTF-8 as its `charset` (RFC 9110, 8.3.1).
    fn is_type(self, text: &str) -> bool {
        let wanted = match self {
            Self::Json => "application/json",
            Self::Form => "application/x-www-form-urlencoded",
        };
        let (media, parameter) = text.split_once(';').unwrap_or((text, ""));
        let parameter = parameter.trim().to_ascii_lowercase();
        media.trim().eq_ignore_ascii_case(wanted)
            && matches!(parameter.as_str(), "" | "charset=utf-8" | "charset=\"utf-8\"")
    }
}

/// The type that `fields` gives a name; `None` where anything may be there.
fn declared(fields: Option<&[(String, FieldType)]>, name: &str) -> Result<Option<FieldType>, BodyFault> {
    let Some(fields) = fields else { return Ok(None) };
    let found = fields.iter().find(|(known, _)| known == name);
    found.map(|(_, kind)| Some(*kind)).ok_or(BodyFault::Undeclared)
}

/// A key that is in the query too could be read from there instead.
fn check_not_in_query<'k>(mut keys: impl Iterator<Item = &'k str>, target: &Target) -> Result<(), BodyFault> {
    let Some(query) = target.query().filter(|query| !query.is_empty()) else { return Ok(()) };
    let mut names = Vec::new();
    for piece in query.split(['&', ';']) {
        let raw = piece.split_once('=').map_or(piece, |(name, _)| name).replace('+', " ");
        let name = percent_decode_str(&raw).decode_utf8().map_err(|_| BodyFault::InQueryToo)?;
        names.push(name.trim().to_owned());
    }
    if keys.any(|key| names.iter().any(|name| name == key.trim())) { Err(BodyFault::InQueryToo) } else { Ok(()) }
}
