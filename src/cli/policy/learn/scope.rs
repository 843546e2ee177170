//! From shapes to rules: placeholders where ids differed, the text itself where it never did.

use std::collections::{BTreeMap, BTreeSet};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::record::{LeftOut, Unusable};
use super::shape::{Group, Part, Seen, Shape, Tally, Value};
use crate::model::{AgentName, Risk, ScopeName, ServiceName};
use crate::policy::{QueryRule, Rule};

/// Rules of one scope at most, which is what the policy takes in one list.
const RULES_MAX: usize = 512;

/// Hosts of a service that its rules name at most; with more (a wildcard) they name none.
const HOSTS_NAMED_MAX: usize = 8;

/// What a segment of a rule holds as it is; `{`, `}`, `*` and the like mean something there.
const LITERAL: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@');

/// A scope that covers what an agent asked of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Learned {
    pub(super) agent: String,
    pub(super) service: String,
    pub(super) name: String,
    /// A guess: by method, and not less than what allowed it.
    pub(super) risk: Risk,
    /// Where it was seen.
    pub(super) hosts: Vec<String>,
    pub(super) rules: Vec<LearnedRule>,
}

/// A rule, and how often it was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct LearnedRule {
    pub(super) allow: String,
    pub(super) encoded_slash: bool,
    pub(super) allowed: u64,
    /// Went on though no scope allowed them, since the service was only observed.
    pub(super) observed: u64,
    pub(super) refused: u64,
}

impl Learned {
    /// Requests that it covers.
    pub(super) fn requests(&self) -> u64 {
        self.rules.iter().map(|rule| rule.allowed + rule.observed + rule.refused).sum()
    }
}

/// The least scopes, by service and agent.
pub(super) fn learn(mut seen: Seen, left_out: &mut LeftOut) -> Vec<Learned> {
    seen.fold();
    let mut hosts: BTreeMap<ServiceName, BTreeSet<String>> = BTreeMap::new();
    for ((_, service), group) in &seen.groups {
        hosts.entry(service.clone()).or_default().extend(group.shapes.keys().map(|shape| shape.host.clone()));
    }
    let mut learned: Vec<Learned> = Vec::new();
    for ((agent, service), group) in seen.groups {
        let are_named = hosts.get(&service).is_some_and(|hosts| (2..=HOSTS_NAMED_MAX).contains(&hosts.len()));
        learned.extend(scopes(&agent, &service, group, are_named, left_out));
    }
    learned.sort_by(|a, b| (&a.service, &a.agent).cmp(&(&b.service, &b.agent)));
    learned
}

fn scopes(
    agent: &AgentName,
    service: &ServiceName,
    group: Group,
    are_hosts_named: bool,
    left_out: &mut LeftOut,
) -> Vec<Learned> {
    let seen_risk = group.risk;
    let hosts: BTreeSet<String> = group.shapes.keys().map(|shape| shape.host.clone()).collect();
    let hosts: Vec<String> = hosts.into_iter().collect();
    let mut drafts: BTreeMap<(String, bool), Draft> = BTreeMap::new();
    for (shape, tally) in group.shapes {
        let (text, encoded_slash) = (shape.rule(&tally, are_hosts_named), shape.encoded_slash);
        match Rule::parse(&text, QueryRule::Any, encoded_slash).ok().filter(|rule| !rule.is_any_method()) {
            None => left_out.add(Unusable::Rule, tally.requests()),
            Some(rule) => drafts.entry((text, encoded_slash)).or_insert_with(|| Draft::new(rule, &shape)).add(&tally),
        }
    }
    let rules = without_covered(drafts.into_iter().map(|((_, encoded_slash), draft)| (draft, encoded_slash)).collect());
    let risk = rules.iter().map(|rule| guess(&rule.allow)).max().max(seen_risk).unwrap_or(Risk::Low);
    let parts = rules.chunks(RULES_MAX).enumerate();
    let scope = |(at, rules): (usize, &[LearnedRule])| Learned {
        agent: agent.to_string(),
        service: service.to_string(),
        name: name(agent, at),
        risk,
        hosts: hosts.clone(),
        rules: rules.to_vec(),
    };
    parts.map(scope).collect()
}

/// `learned:billing`, and `learned:billing:2` for what the first has no room for.
fn name(agent: &AgentName, at: usize) -> String {
    let suffix = if at == 0 { String::new() } else { format!(":{}", at + 1) };
    let whole = format!("learned:{agent}{suffix}");
    ScopeName::parse(&whole).map_or_else(|_| format!("learned{suffix}"), |name| name.to_string())
}

fn guess(rule: &str) -> Risk {
    match rule.split(' ').next().unwrap_or_default() {
        "GET" | "HEAD" | "OPTIONS" => Risk::Low,
        "DELETE" => Risk::High,
        _ => Risk::Medium,
    }
}

/// A rule that may yet be covered by another one.
struct Draft {
    rule: Rule,
    /// Only rules of the same number of segments can cover each other: none ends in `{*rest}`.
    segments: usize,
    allowed: u64,
    observed: u64,
    refused: u64,
}

impl Draft {
    fn new(rule: Rule, shape: &Shape) -> Self {
        Self { rule, segments: shape.parts.len(), allowed: 0, observed: 0, refused: 0 }
    }

    fn add(&mut self, tally: &Tally) {
        self.allowed += tally.allowed;
        self.observed += tally.observed;
        self.refused += tally.refused;
    }
}

/// Drops what another rule allows anyway, and counts it there; sorted by path, then by method.
fn without_covered(drafts: Vec<(Draft, bool)>) -> Vec<LearnedRule> {
    let mut by_length: BTreeMap<usize, Vec<(Draft, bool)>> = BTreeMap::new();
    for draft in drafts {
        by_length.entry(draft.0.segments).or_default().push(draft);
    }
    let mut kept: Vec<LearnedRule> = by_length.into_values().flat_map(keep).collect();
    let key = |rule: &LearnedRule| {
        let (method, place) = rule.allow.split_once(' ').unwrap_or(("", &rule.allow));
        (place.to_owned(), method.to_owned())
    };
    kept.sort_by_key(key);
    kept
}

fn keep(drafts: Vec<(Draft, bool)>) -> Vec<LearnedRule> {
    let mut kept: Vec<(Draft, bool)> = Vec::new();
    for (draft, encoded_slash) in drafts {
        match kept.iter_mut().find(|(known, _)| known.rule.covers(&draft.rule)) {
            Some((known, _)) => {
                known.allowed += draft.allowed;
                known.observed += draft.observed;
                known.refused += draft.refused;
            }
            None => {
                let mut fresh = draft;
                kept.retain(|(known, _)| {
                    let is_covered = fresh.rule.covers(&known.rule);
                    if is_covered {
                        fresh.allowed += known.allowed;
                        fresh.observed += known.observed;
                        fresh.refused += known.refused;
                    }
                    !is_covered
                });
                kept.push((fresh, encoded_slash));
            }
        }
    }
    let learned = |(draft, encoded_slash): (Draft, bool)| LearnedRule {
        allow: draft.rule.text().to_owned(),
        encoded_slash,
        allowed: draft.allowed,
        observed: draft.observed,
        refused: draft.refused,
    };
    kept.into_iter().map(learned).collect()
}

impl Shape {
    /// The text of the rule that covers what was seen of this shape.
    fn rule(&self, tally: &Tally, is_host_named: bool) -> String {
        let mut text = format!("{} {}", self.method, if is_host_named { &self.host } else { "" });
        let (mut values, mut captures) = (tally.values.iter(), 0);
        for part in &self.parts {
            text.push('/');
            let literal = match (part, if matches!(part, Part::Id(_)) { values.next() } else { None }) {
                (Part::Literal(literal), _) | (Part::Id(_), Some(Value::One(literal))) => literal,
                (Part::Id(prefix), Some(Value::Several) | None) => {
                    captures += 1;
                    let number = if captures == 1 { String::new() } else { captures.to_string() };
                    text.push_str(&format!("{}{{id{number}}}", escaped(prefix)));
                    continue;
                }
            };
            text.push_str(&escaped(literal));
        }
        if self.trailing_slash || self.parts.is_empty() {
            text.push('/');
        }
        text
    }
}

fn escaped(text: &str) -> String {
    let escaped = utf8_percent_encode(text, LITERAL).to_string();
    // At the beginning of a segment a colon is another framework's placeholder.
    match escaped.strip_prefix(':') {
        Some(rest) => format!("%3A{rest}"),
        None => escaped,
    }
}
