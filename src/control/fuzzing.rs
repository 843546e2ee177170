//! For the fuzz targets alone (`fuzz/properties`): the bodies of calls, read as the control API reads them. Nothing in the
//! program calls it, so that none of it is in the binary.

use super::ask;
use crate::json::{DEPTH_MAX, Json};

/// Objects and arrays inside each other at most.
pub const JSON_DEPTH_MAX: usize = DEPTH_MAX;

/// A body that is one JSON value in its one spelling; `None` for what is none.
#[must_use]
pub fn canonical(body: &[u8]) -> Option<String> {
    Json::parse(body).ok().map(|json| json.canonical())
}

/// The calls that would take this body.
#[must_use]
pub fn taken_by(body: &[u8]) -> Vec<&'static str> {
    let Ok(json) = Json::parse(body) else { return Vec::new() };
    let calls = [
        ("mint", ask::mint(&json).is_ok()),
        ("renewal", ask::renewal(&json).is_ok()),
        ("introspection", ask::introspection(&json).is_ok()),
        ("delegation", ask::delegation(&json).is_ok()),
        ("revocation", ask::revocation(&json).is_ok()),
        ("completion", ask::completion(&json).is_ok()),
        ("leaks", ask::leaks(&json).is_ok()),
        ("explanation", ask::explanation(&json).is_ok()),
        ("risk", ask::risk(&json, |_| false).is_ok()),
    ];
    calls.into_iter().filter(|(_, is_taken)| *is_taken).map(|(call, _)| call).collect()
}
