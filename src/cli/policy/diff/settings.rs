//! Everything that is in force, compared key by key: also what this file has never heard of.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Map, Value};

use super::direction::{Direction, direction};

/// Longest value that the table shows, in characters; JSON has it whole.
const SHOWN_CHARACTERS_MAX: usize = 60;

/// Lists whose order means nothing: what is in them is compared.
const SETS: [&str; 10] = ["hosts", "slots", "identity", "agents", "may", "environment", "allow", "deny", "rules", "to"];

/// A setting that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Change {
    /// The way to it: `services.stripe.scopes.read.risk`.
    pub(super) key: String,
    /// None where it was not there.
    pub(super) was: Option<Value>,
    /// None where it is no more.
    pub(super) is: Option<Value>,
    pub(super) direction: Direction,
}

/// Compares two policies as `policy show --json` prints them.
pub(super) fn compare(old: &Value, new: &Value) -> Vec<Change> {
    let mut walk = Walk { way: Vec::new(), changes: Vec::new() };
    walk.value(Some(old), Some(new));
    walk.changes
}

/// A value in a cell of the table.
pub(super) fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Object(_) => "(all of it: `valetkey policy show` prints it)".to_owned(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => value.to_string(),
    };
    if text.chars().count() <= SHOWN_CHARACTERS_MAX {
        return text;
    }
    text.chars().take(SHOWN_CHARACTERS_MAX).chain(['…']).collect()
}

struct Walk {
    way: Vec<String>,
    changes: Vec<Change>,
}

impl Walk {
    fn value(&mut self, old: Option<&Value>, new: Option<&Value>) {
        match (old, new) {
            _ if old == new => {}
            (Some(Value::Object(old)), Some(Value::Object(new))) => self.table(old, new),
            (Some(Value::Array(old)), Some(Value::Array(new))) => self.list(old, new),
            // A list that is left out where it is empty.
            (None, Some(Value::Array(new))) if self.is_set() => self.list(&[], new),
            (Some(Value::Array(old)), None) if self.is_set() => self.list(old, &[]),
            _ => self.say(old, new),
        }
    }

    fn table(&mut self, old: &Map<String, Value>, new: &Map<String, Value>) {
        let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for key in keys {
            self.below(key, |walk| walk.value(old.get(key), new.get(key)));
        }
    }

    fn list(&mut self, old: &[Value], new: &[Value]) {
        if let (Some(named_old), Some(named_new)) = (by_name(old), by_name(new)) {
            return self.named(&named_old, &named_new);
        }
        if !self.is_set() {
            return self.say(Some(&Value::Array(old.to_vec())), Some(&Value::Array(new.to_vec())));
        }
        for value in old.iter().filter(|value| !new.contains(value)) {
            self.say(Some(value), None);
        }
        for value in new.iter().filter(|value| !old.contains(value)) {
            self.say(None, Some(value));
        }
    }

    /// Scopes. Their order decides between those of one risk.
    fn named(&mut self, old: &[(&str, &Value)], new: &[(&str, &Value)]) {
        let (before, after): (BTreeMap<_, _>, BTreeMap<_, _>) =
            (old.iter().copied().collect(), new.iter().copied().collect());
        let names: BTreeSet<&str> = before.keys().chain(after.keys()).copied().collect();
        for name in names {
            self.below(name, |walk| walk.value(before.get(name).copied(), after.get(name).copied()));
        }
        let order = |list: &[(&str, &Value)], other: &BTreeMap<&str, &Value>| -> Vec<Value> {
            list.iter().filter(|(name, _)| other.contains_key(name)).map(|(name, _)| Value::from(*name)).collect()
        };
        let (was, is) = (Value::Array(order(old, &after)), Value::Array(order(new, &before)));
        if was != is {
            self.say(Some(&was), Some(&is));
        }
    }

    fn below(&mut self, key: &str, look: impl FnOnce(&mut Self)) {
        self.way.push(key.to_owned());
        look(self);
        self.way.pop();
    }

    /// The scopes of a grant are a set, whatever the service is called.
    fn is_set(&self) -> bool {
        let is_grant = matches!(&self.way[..], [agents, _, grants, _] if agents == "agents" && grants == "grants");
        is_grant || self.way.last().is_some_and(|key| SETS.contains(&key.as_str()))
    }

    fn say(&mut self, was: Option<&Value>, is: Option<&Value>) {
        self.changes.push(Change {
            key: spelled(&self.way),
            was: was.cloned(),
            is: is.cloned(),
            direction: direction(&self.way, was, is),
        });
    }
}

/// The members of a list by their names, if all have one; not for the empty list.
fn by_name(list: &[Value]) -> Option<Vec<(&str, &Value)>> {
    if list.is_empty() {
        return None;
    }
    list.iter().map(|value| Some((value.get("name")?.as_str()?, value))).collect()
}

fn spelled(way: &[String]) -> String {
    let is_bare = |key: &str| key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let keys = way.iter().map(|key| if is_bare(key) { key.clone() } else { format!("\"{key}\"") });
    keys.collect::<Vec<_>>().join(".")
}
