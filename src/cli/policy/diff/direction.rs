//! Whether a setting that differs gives more or less than before.

use std::cmp::Ordering;

use serde::Serialize;
use serde_json::Value;

use crate::config;
use crate::model::Rate;

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
        ("services", "leak_scan") => by(look(was), look(is)).reversed(),
        ("services", "scrub") => by(flag(was), flag(is)).reversed(),
        // A riskier scope lives shorter.
        ("services", "risk") if way.len() > 3 => by(rank(was), rank(is)).reversed(),
        ("services", "max_uses") | ("agents", "uses") => by(uses(was), uses(is)),
        ("services" | "agents", "rate") => rates(was, is),
        ("services", "rules") if is_deny(was.or(is)) => presence(was, is).reversed(),
        ("services", "deny") => presence(was, is).reversed(),
        ("services", "hosts" | "slots" | "allow" | "rules") | ("credentials", "hosts") => presence(was, is),
        ("agents" | "minters", "max_risk") => by(ceiling(was), ceiling(is)),
        ("services" | "agents", "reattest") | ("agents", "ttl") => by(within(was), within(is)),
        ("agents", "budget") => presence(was, is).reversed(),
        ("agents", "self_renew") => by(flag_or_off(was), flag_or_off(is)),
        ("agents", "depth" | "children_max") | ("minters", "nonces_max") => by(number(was), number(is)),
        ("minters", "rate") => rates(was, is),
        ("agents", "delegate" | "to") => presence(was, is),
        ("agents" | "minters", "identity") | ("minters", "agents" | "may") => presence(was, is),
        ("risk", "max_risk") => by(cap(was), cap(is)),
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

fn number(value: Option<&Value>) -> Option<u64> {
    value?.as_u64()
}

/// Where it is left out it is off.
fn flag_or_off(value: Option<&Value>) -> Option<bool> {
    value.map_or(Some(false), Value::as_bool)
}

/// None is without a limit. `60/h` and `1/min` are neither more than the other: more at once, or more in an hour.
fn rates(was: Option<&Value>, is: Option<&Value>) -> Direction {
    let rate = |value: &Value| value.as_str().and_then(Rate::parse);
    match (was.map(rate), is.map(rate)) {
        (Some(_), None) => Direction::More,
        (None, Some(_)) => Direction::Less,
        (Some(Some(was)), Some(Some(is))) => match (was.is_within(is), is.is_within(was)) {
            (true, false) => Direction::More,
            (false, true) => Direction::Less,
            _ => Direction::Other,
        },
        _ => Direction::Other,
    }
}

fn flag(value: Option<&Value>) -> Option<bool> {
    value?.as_bool()
}

fn rank(value: Option<&Value>) -> Option<usize> {
    let word = value?.as_str()?;
    ["low", "medium", "high"].iter().position(|risk| *risk == word)
}

/// How much comes of a nonce that was found where none belongs.
fn look(value: Option<&Value>) -> Option<usize> {
    let word = value?.as_str()?;
    ["off", "report", "refuse", "revoke"].iter().position(|look| *look == word)
}

/// What a level of risk leaves, from nothing.
fn cap(value: Option<&Value>) -> Option<usize> {
    if value?.as_str()? == "none" { Some(0) } else { Some(rank(value)? + 1) }
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
