//! Whether a setting that differs gives more or less than before.

use std::cmp::Ordering;

use serde::Serialize;
use serde_json::Value;

use crate::config;

/// Which way a change goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Direction {
    /// More is possible, or for longer.
    More,
    /// Less is possible.
    Less,
    /// It is another, or nobody can say.
    Other,
}

impl Direction {
    fn reversed(self) -> Self {
        match self {
            Self::More => Self::Less,
            Self::Less => Self::More,
            Self::Other => Self::Other,
        }
    }
}

/// Which way it goes, by the way to the setting.
pub(super) fn direction(way: &[String], was: Option<&Value>, is: Option<&Value>) -> Direction {
    let way: Vec<&str> = way.iter().map(String::as_str).collect();
    let (Some(last), of) = (way.last(), way.first().copied().unwrap_or_default()) else { return Direction::Other };
    match (of, *last) {
        // First: a service can be called `deny`.
        _ if is_whole(&way) => presence(was, is),
        ("egress", "unlisted") => to(is, "tunnel"),
        ("services", "enforce") => presence(was, is),
        ("egress", "proxy_auth") => to(is, "none"),
        ("nonces", "on_misplaced") => to(is, "refuse"),
        ("nonces", "ttl" | "lifetime") => by(seconds(was), seconds(is)),
        ("services", "private" | "cleartext" | "anonymous") => by(flag(was), flag(is)),
        ("services", "scrub") => by(flag(was), flag(is)).reversed(),
        // A riskier scope lives shorter.
        ("services", "risk") if way.len() > 3 => by(rank(was), rank(is)).reversed(),
        ("services", "max_uses") => by(uses(was), uses(is)),
        ("services", "rules") if is_deny(was.or(is)) => presence(was, is).reversed(),
        ("services", "deny") => presence(was, is).reversed(),
        ("services", "hosts" | "slots" | "allow" | "rules") | ("credentials", "hosts") => presence(was, is),
        ("agents" | "minters", "max_risk") => by(ceiling(was), ceiling(is)),
        ("services" | "agents", "reattest") => by(within(was), within(is)),
        ("agents" | "minters", "identity") | ("minters", "agents" | "may") => presence(was, is),
        _ => Direction::Other,
    }
}

/// A whole credential, service, agent or minter; a scope; the grants of a service, or one of them.
fn is_whole(way: &[&str]) -> bool {
    matches!(
        way,
        ["credentials" | "services" | "agents" | "minters", _]
            | ["services", _, "scopes", _]
            | ["agents", _, "grants", _]
    )
}

/// Something is there that was not, or the other way round.
fn presence(was: Option<&Value>, is: Option<&Value>) -> Direction {
    match (was, is) {
        (None, Some(_)) => Direction::More,
        (Some(_), None) => Direction::Less,
        (None, None) | (Some(_), Some(_)) => Direction::Other,
    }
}

fn to(is: Option<&Value>, wider: &str) -> Direction {
    if is.and_then(Value::as_str) == Some(wider) { Direction::More } else { Direction::Less }
}

fn by<T: Ord>(was: Option<T>, is: Option<T>) -> Direction {
    let (Some(was), Some(is)) = (was, is) else { return Direction::Other };
    match is.cmp(&was) {
        Ordering::Greater => Direction::More,
        Ordering::Less => Direction::Less,
        Ordering::Equal => Direction::Other,
    }
}

fn seconds(value: Option<&Value>) -> Option<u64> {
    config::seconds(value?.as_str()?)
}

fn flag(value: Option<&Value>) -> Option<bool> {
    value?.as_bool()
}

fn rank(value: Option<&Value>) -> Option<usize> {
    let word = value?.as_str()?;
    ["low", "medium", "high"].iter().position(|risk| *risk == word)
}

/// None is without a limit.
fn ceiling(value: Option<&Value>) -> Option<usize> {
    if value.is_none() { Some(usize::MAX) } else { rank(value) }
}

/// None is without a limit.
fn within(value: Option<&Value>) -> Option<u64> {
    if value.is_none() { Some(u64::MAX) } else { seconds(value) }
}

/// None is without a limit.
fn uses(value: Option<&Value>) -> Option<u64> {
    value.map_or(Some(u64::MAX), Value::as_u64)
}

fn is_deny(value: Option<&Value>) -> bool {
    value.is_some_and(|value| value.get("deny").is_some())
}
