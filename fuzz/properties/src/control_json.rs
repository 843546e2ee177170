//! Bodies of the control API: one value, one meaning.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;
use valetkey::control::fuzzing::{JSON_DEPTH_MAX, canonical, taken_by};

/// What is JSON is what serde_json says, but for depth; the canonical spelling has the same meaning and is its own; no call
/// takes a body in which a key is there twice.
///
/// # Panics
/// Where that does not hold.
pub fn control_json(data: &[u8]) {
    let theirs: Option<Value> = serde_json::from_slice(data).ok();
    let ours = canonical(data);
    match (&theirs, &ours) {
        (None, None) => return,
        (Some(value), None) => assert!(depth(value) > JSON_DEPTH_MAX || is_deep(data), "{value} is refused"),
        (None, Some(ours)) => panic!("{ours} is no JSON"),
        (Some(value), Some(ours)) => {
            assert!(depth(value) <= JSON_DEPTH_MAX + 1, "too deep");
            assert_eq!(canonical(ours.as_bytes()).as_ref(), Some(ours), "a canonical spelling is its own");
            if !has_key_twice(data) {
                assert_eq!(serde_json::from_str::<Value>(ours).ok().as_ref(), Some(value), "one meaning");
            }
        }
    }
    let taken = taken_by(data);
    assert!(taken.is_empty() || !has_key_twice(data), "{taken:?} would take a key that is there twice");
    if let Some(ours) = ours.filter(|_| !has_key_twice(data)) {
        assert_eq!(taken_by(ours.as_bytes()), taken, "the canonical spelling of {ours} is taken alike");
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// Brackets inside each other, outside of strings: what a later member of the same name hides is deep too.
fn is_deep(data: &[u8]) -> bool {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    let mut deepest = 0;
    for byte in data {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => depth += 1,
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest > JSON_DEPTH_MAX
}

/// Whether any object of a JSON text has a key twice: by a reader of serde that keeps nothing but this.
fn has_key_twice(data: &[u8]) -> bool {
    serde_json::from_slice::<Keys>(data).is_ok_and(|keys| keys.0)
}

struct Keys(bool);

impl<'de> serde::Deserialize<'de> for Keys {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KeysVisitor)
    }
}

struct KeysVisitor;

impl<'de> serde::de::Visitor<'de> for KeysVisitor {
    type Value = Keys;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Keys, E> {
        Ok(Keys(false))
    }
    fn visit_bool<E>(self, _: bool) -> Result<Keys, E> {
        Ok(Keys(false))
    }
    fn visit_u64<E>(self, _: u64) -> Result<Keys, E> {
        Ok(Keys(false))
    }
    fn visit_i64<E>(self, _: i64) -> Result<Keys, E> {
        Ok(Keys(false))
    }
    fn visit_f64<E>(self, _: f64) -> Result<Keys, E> {
        Ok(Keys(false))
    }
    fn visit_str<E>(self, _: &str) -> Result<Keys, E> {
        Ok(Keys(false))
    }
    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut from: A) -> Result<Keys, A::Error> {
        let mut twice = false;
        while let Some(Keys(inner)) = from.next_element()? {
            twice |= inner;
        }
        Ok(Keys(twice))
    }
    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut from: A) -> Result<Keys, A::Error> {
        let (mut seen, mut twice) = (BTreeSet::new(), false);
        while let Some((name, Keys(inner))) = from.next_entry::<String, Keys>()? {
            twice |= inner | !seen.insert(name);
        }
        Ok(Keys(twice))
    }
}
