//! JSON, in the one reading that all parsers share: no key twice at any depth, no NUL, nothing behind the end.

use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::{BodyFault, Field, FieldType, FieldValue, check_not_in_query, declared};
use crate::policy::target::Target;

/// How the error begins that a second key makes.
const REPEATED: &str = "a key is there twice";

/// Whole numbers that a float holds exactly.
const EXACT_MAX: u64 = 1 << 53;

/// What conditions see of a value.
enum Json {
    Bool(bool),
    Int(i64),
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Table(HashMap<String, Json>),
    /// null, and whole numbers beyond 64 bits.
    Other,
}

/// The declared fields of an object. How deep it may nest is bounded by the parser (128).
pub(super) fn read(
    content: &str,
    fields: Option<&[(String, FieldType)]>,
    target: &Target,
) -> Result<Vec<Field>, BodyFault> {
    let whole: Json = serde_json::from_str(content).map_err(|error| {
        if error.to_string().starts_with(REPEATED) { BodyFault::Repeated } else { BodyFault::Malformed }
    })?;
    let members = match (whole, fields) {
        (Json::Table(members), _) => members,
        (_, Some(_)) => return Err(BodyFault::WrongType),
        (_, None) => return Ok(Vec::new()),
    };
    check_not_in_query(members.keys().map(String::as_str), target)?;
    let mut found = Vec::with_capacity(members.len());
    for (name, value) in members {
        if let Some(kind) = declared(fields, &name)? {
            found.push(Field { name, value: of_type(value, kind)? });
        }
    }
    Ok(found)
}

fn of_type(value: Json, kind: FieldType) -> Result<FieldValue, BodyFault> {
    match (kind, value) {
        (FieldType::Any, _) => Ok(FieldValue::Any),
        (FieldType::Text, Json::Text(text)) => Ok(FieldValue::Text(text)),
        (FieldType::Int, Json::Int(number)) => Ok(FieldValue::Int(number)),
        (FieldType::Number, Json::Number(number)) => Ok(FieldValue::Number(number)),
        #[expect(clippy::cast_precision_loss, reason = "whole numbers up to 2^53 lose nothing")]
        (FieldType::Number, Json::Int(number)) if number.unsigned_abs() <= EXACT_MAX => {
            Ok(FieldValue::Number(number as f64))
        }
        (FieldType::Bool, Json::Bool(value)) => Ok(FieldValue::Bool(value)),
        (FieldType::Texts, Json::List(values)) => {
            let texts = values.into_iter().map(|value| if let Json::Text(text) = value { Some(text) } else { None });
            texts.collect::<Option<_>>().map(FieldValue::Texts).ok_or(BodyFault::WrongType)
        }
        (FieldType::Ints, Json::List(values)) => {
            let ints = values.into_iter().map(|value| if let Json::Int(number) = value { Some(number) } else { None });
            ints.collect::<Option<_>>().map(FieldValue::Ints).ok_or(BodyFault::WrongType)
        }
        (
            FieldType::Text | FieldType::Int | FieldType::Number | FieldType::Bool | FieldType::Texts | FieldType::Ints,
            _,
        ) => Err(BodyFault::WrongType),
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

/// To whoever keeps texts as C does, one ends at its first NUL: `XX\u0000` is `XX` there.
fn check_text<E: serde::de::Error>(text: &str) -> Result<(), E> {
    if text.contains('\0') { Err(E::custom("a text holds NUL")) } else { Ok(()) }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(i64::try_from(value).map_or(Json::Other, Json::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Number(value))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Json, E> {
        check_text(value)?;
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Json::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut table: A) -> Result<Json, A::Error> {
        let mut members = HashMap::new();
        while let Some((name, value)) = table.next_entry::<String, Json>()? {
            check_text(&name)?;
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom(REPEATED));
            }
        }
        Ok(Json::Table(members))
    }
}
