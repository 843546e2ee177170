//! JSON of callers, tokens and key sets, read strictly: duplicate keys are kept to be refused, depth is bounded, nothing
//! may follow the value.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Objects and arrays inside each other at most.
pub const DEPTH_MAX: usize = 16;

/// A JSON value that keeps every member of its objects, duplicates and order included.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// Any number.
    Number(serde_json::Number),
    /// A string.
    Text(String),
    /// An array.
    Array(Vec<Json>),
    /// An object's members as they came.
    Object(Vec<(String, Json)>),
}

/// The text is not one JSON value; the line and column where that showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed {
    /// From 1.
    pub line: usize,
    /// From 1, in bytes.
    pub column: usize,
}

impl Json {
    /// Reads one value and nothing else.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        let malformed = |error: serde_json::Error| Malformed { line: error.line(), column: error.column() };
        let value = Nested { depth_left: DEPTH_MAX }.deserialize(&mut reader).map_err(malformed)?;
        reader.end().map_err(malformed)?;
        Ok(value)
    }

    /// Reads one object and nothing else, in which every object has each key once, at every depth.
    #[must_use]
    pub fn parse_object(bytes: &[u8]) -> Option<Self> {
        Self::parse(bytes).ok().filter(|value| value.members().is_some() && value.is_unambiguous())
    }

    fn is_unambiguous(&self) -> bool {
        match self {
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) => true,
            Self::Array(items) => items.iter().all(Self::is_unambiguous),
            Self::Object(members) => {
                let names: HashSet<_> = members.iter().map(|(name, _)| name).collect();
                names.len() == members.len() && members.iter().all(|(_, value)| value.is_unambiguous())
            }
        }
    }

    /// A string.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Array(_) | Self::Object(_) => None,
        }
    }

    /// A whole number of 64 bits.
    #[must_use]
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Number(number) => number.as_i64(),
            Self::Null | Self::Bool(_) | Self::Text(_) | Self::Array(_) | Self::Object(_) => None,
        }
    }

    /// The items of an array.
    #[must_use]
    pub fn array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(items) => Some(items),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) | Self::Object(_) => None,
        }
    }

    /// The members of an object.
    #[must_use]
    pub fn members(&self) -> Option<&[(String, Self)]> {
        match self {
            Self::Object(members) => Some(members),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) | Self::Array(_) => None,
        }
    }

    /// The value itself, if it is an object.
    #[must_use]
    pub fn object(&self) -> Option<&Self> {
        self.members().map(|_| self)
    }

    /// The first member of this name; none where this is no object.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Self> {
        self.members()?.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// A text, a whole number or a truth, as a text.
    #[must_use]
    pub fn scalar(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::Bool(value) => Some(value.to_string()),
            Self::Number(number) => number.as_i64().map(|number| number.to_string()),
            Self::Null | Self::Array(_) | Self::Object(_) => None,
        }
    }

    /// The value in one spelling: no blanks, members sorted by name. For comparing, where no member is there twice.
    #[must_use]
    pub fn canonical(&self) -> String {
        serde_json::Value::from(self).to_string()
    }
}

impl From<&Json> for serde_json::Value {
    fn from(json: &Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => Self::Number(number.clone()),
            Json::Text(text) => Self::String(text.clone()),
            Json::Array(items) => Self::Array(items.iter().map(Self::from).collect()),
            Json::Object(members) => sorted(members),
        }
    }
}

/// Sorted whether or not some crate switches serde_json's `preserve_order` on.
fn sorted(members: &[(String, Json)]) -> serde_json::Value {
    let sorted: std::collections::BTreeMap<_, _> = members.iter().map(|(name, value)| (name, value)).collect();
    let member = |(name, value): (&String, &Json)| (name.clone(), serde_json::Value::from(value));
    serde_json::Value::Object(sorted.into_iter().map(member).collect())
}

/// Reads a value with this many levels left.
struct Nested {
    depth_left: usize,
}

impl Nested {
    fn deeper<E: Error>(&self) -> Result<Self, E> {
        let depth_left = self.depth_left.checked_sub(1).ok_or_else(|| E::custom("too deep"))?;
        Ok(Self { depth_left })
    }
}

impl<'de> DeserializeSeed<'de> for Nested {
    type Value = Json;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Nested {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }
    fn visit_bool<E: Error>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<Json, E> {
        serde_json::Number::from_f64(value).map(Json::Number).ok_or_else(|| E::custom("not finite"))
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }
    fn visit_string<E: Error>(self, text: String) -> Result<Json, E> {
        Ok(Json::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = from.next_element_seed(self.deeper()?)? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Json, A::Error> {
        let mut members = Vec::new();
        while let Some(name) = from.next_key()? {
            members.push((name, from.next_value_seed(self.deeper()?)?));
        }
        Ok(Json::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Json, Malformed> {
        Json::parse(text.as_bytes())
    }

    #[test]
    fn duplicates_are_kept_and_order_does_not_matter_for_the_canonical_form() {
        let Json::Object(members) = parse(r#"{"a":1,"a":2}"#).unwrap() else { panic!("no object") };
        assert_eq!(members.len(), 2);
        let one = parse(r#"{"b":[1,{"z":null,"y":true}],"a":"x"}"#).unwrap().canonical();
        let other = parse("{\"a\":\"\\u0078\", \"b\": [1, {\"y\":true,\"z\":null}] }\n").unwrap().canonical();
        assert_eq!(one, other);
        assert_ne!(one, parse(r#"{"a":"x","b":[1]}"#).unwrap().canonical());
    }

    #[test]
    fn what_is_not_one_value_is_refused() {
        for bad in ["", "{", "{} {}", "{}x", "nul", "{\"a\":NaN}", "{'a':1}", "[1,]", "\u{feff}{}", "{\"a\":1e999}"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        assert!(Json::parse(b"\"\xff\"").is_err(), "invalid UTF-8");
        assert!(parse("\"\\ud800\"").is_err(), "a lone surrogate");
    }

    #[test]
    fn an_object_has_each_key_once_at_every_depth() {
        assert!(Json::parse_object(br#"{"a": 1, "b": {"a": [1, "x", null, true, 2.5]}}"#).is_some());
        for bad in [r#"{"a":1,"a":1}"#, r#"{"a":{"b":1,"b":2}}"#, r#"{"a":[{"a":1,"a":2}]}"#, r#"{"a":1,"\u0061":2}"#] {
            assert_eq!(Json::parse_object(bad.as_bytes()), None, "{bad}");
        }
        for bad in ["", "[]", "1", "\"x\"", "{", "{} {}"] {
            assert_eq!(Json::parse_object(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(parse(&nested(DEPTH_MAX)).is_ok());
        assert!(parse(&nested(DEPTH_MAX + 2)).is_err());
        assert!(parse(&nested(30_000)).is_err());
    }
}
