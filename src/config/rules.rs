//! Rules as a scope or service spells them: short texts, and tables where there is more to say.

use super::allowance;
use super::conditions::{Asked, CONDITION_KEYS, EffectiveCondition};
use super::effective::EffectiveRule;
use super::lint;
use super::mistake::Code;
use super::section::{Keys, Node, Section};
use crate::policy::{HostPattern, QueryRule, Rule};

/// Rules of one list at most: reachability is checked rule by rule.
const RULES_MAX: usize = 512;
/// Query parameters of a rule at most.
const PARAMETERS_MAX: usize = 64;

const KEYS: Keys = Keys {
    known: &[
        "allow",
        "deny",
        "query",
        "encoded_slash",
        "rate",
        CONDITION_KEYS[0],
        CONDITION_KEYS[1],
        CONDITION_KEYS[2],
        CONDITION_KEYS[3],
    ],
    later: &[],
};

/// Which list a rule is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Allow,
    Deny,
}

/// A rule with its place and with what `valetkey policy show` prints of it.
pub(super) struct PlacedRule<'a> {
    pub(super) rule: Rule,
    pub(super) node: Node<'a>,
    query: QueryRule,
    encoded_slash: bool,
    asked: Asked<'a>,
    condition: EffectiveCondition,
}

/// The rules of a scope.
pub(super) struct ReadRules<'a> {
    pub(super) allow: Vec<PlacedRule<'a>>,
    pub(super) deny: Vec<PlacedRule<'a>>,
    /// None of them had a mistake.
    pub(super) whole: bool,
}

/// Reads `allow`, `rules` and `deny` of a scope.
pub(super) fn read<'a>(section: &Section<'a>, hosts: Option<&[HostPattern]>) -> ReadRules<'a> {
    let (allow, rules, deny) = (section.get("allow"), section.get("rules"), section.get("deny"));
    let mut read = ReadRules { allow: Vec::new(), deny: Vec::new(), whole: true };
    for (node, side) in [(&allow, Side::Allow), (&deny, Side::Deny)] {
        if let Some(node) = node {
            read.take(side, read_texts(node, side, hosts));
        }
    }
    if let Some(node) = &rules {
        read_tables(node, hosts, &mut read);
    }
    read.put_conditions(Asked::read(section));
    if read.whole && read.allow.is_empty() {
        let hint = "allow = [\"GET /v1/things\"]; a scope without a rule would allow nothing";
        section.fault(Code::Empty, "allows nothing".to_owned(), hint);
        read.whole = false;
    }
    read
}

impl<'a> ReadRules<'a> {
    /// Puts on each rule what it asks beyond its line: an allow asks what its scope asks, too.
    fn put_conditions(&mut self, scope: Option<Asked<'a>>) {
        let Some(scope) = scope else {
            self.whole = false;
            return;
        };
        let none = Asked::default();
        for (side, list, scope) in [(Side::Allow, &mut self.allow, &scope), (Side::Deny, &mut self.deny, &none)] {
            for placed in list {
                match placed.asked.put_on(scope, side, (placed.rule.clone(), &placed.node)) {
                    Some((rule, condition)) => (placed.rule, placed.condition) = (rule, condition),
                    None => self.whole = false,
                }
            }
        }
    }

    fn take(&mut self, side: Side, rules: Option<Vec<PlacedRule<'a>>>) {
        let list = match side {
            Side::Allow => &mut self.allow,
            Side::Deny => &mut self.deny,
        };
        match rules {
            Some(rules) => list.extend(rules),
            None => self.whole = false,
        }
    }
}

/// Reads a list of short texts. `hosts` are the service's, `None` where they had mistakes.
pub(super) fn read_texts<'a>(
    node: &Node<'a>,
    side: Side,
    hosts: Option<&[HostPattern]>,
) -> Option<Vec<PlacedRule<'a>>> {
    let list = node.list(RULES_MAX)?;
    let wanted = list.len();
    let rules: Vec<_> = list.into_iter().filter_map(|node| read_text(node, side, hosts)).collect();
    (rules.len() == wanted).then_some(rules)
}

fn read_text<'a>(node: Node<'a>, side: Side, hosts: Option<&[HostPattern]>) -> Option<PlacedRule<'a>> {
    if node.is_table() {
        let message = "is a table, and this list takes texts".to_owned();
        node.fault(Code::WrongType, message, "rules = [{ allow = \"…\", query = […] }] takes tables");
        return None;
    }
    parse((node, side), hosts, QueryRule::Any, false, Asked::default())
}

fn read_tables<'a>(node: &Node<'a>, hosts: Option<&[HostPattern]>, read: &mut ReadRules<'a>) {
    let Some(list) = node.list(RULES_MAX) else {
        read.whole = false;
        return;
    };
    for node in list {
        match node.section().and_then(|section| read_table(&section, hosts)) {
            Some((side, rule)) => read.take(side, Some(vec![rule])),
            None => read.whole = false,
        }
    }
}

fn read_table<'a>(section: &Section<'a>, hosts: Option<&[HostPattern]>) -> Option<(Side, PlacedRule<'a>)> {
    section.check_keys(&KEYS);
    let query = section.get("query").map_or(Some(QueryRule::Any), |node| read_query(&node));
    let encoded_slash = section.get("encoded_slash").map_or(Some(false), |node| node.boolean());
    let asked = Asked::read(section);
    let rate = allowance::read_rate(section);
    let (side, node) = match (section.get("allow"), section.get("deny")) {
        (Some(node), None) => (Side::Allow, node),
        (None, Some(node)) => (Side::Deny, node),
        (Some(_), Some(node)) => {
            node.fault(Code::BadValue, "stands beside `allow`".to_owned(), "a rule either allows or denies: make two");
            return None;
        }
        (None, None) => {
            section.fault(Code::Missing, "`allow` is missing".to_owned(), "allow = \"GET /v1/things\", or deny = …");
            return None;
        }
    };
    if side == Side::Deny
        && let Some(node) = section.get("rate")
    {
        node.fault(Code::BadValue, "stands on a deny".to_owned(), "a deny forbids at any pace: put it on what allows");
        return None;
    }
    let (placed, rate) = (parse((node, side), hosts, query?, encoded_slash?, asked?)?, rate?);
    Some((side, PlacedRule { rule: placed.rule.at(rate), ..placed }))
}

/// `query = ["limit"]`, or `query = { service = "x" }`.
fn read_query(node: &Node<'_>) -> Option<QueryRule> {
    if node.is_table() {
        let entries = node.section()?.entries();
        let pairs: Option<Vec<_>> = entries
            .iter()
            .map(|entry| entry.value.string().map(|value| (entry.name.to_owned(), value.to_owned())))
            .collect();
        return pairs.map(QueryRule::Exactly);
    }
    let mut names: Vec<String> = Vec::new();
    for node in node.list(PARAMETERS_MAX)? {
        let name = node.string()?.to_owned();
        if names.contains(&name) {
            node.visible_fault(Code::Duplicate, "is here already".to_owned(), "take one of them out");
            return None;
        }
        names.push(name);
    }
    Some(QueryRule::Only(names))
}

fn parse<'a>(
    (node, side): (Node<'a>, Side),
    hosts: Option<&[HostPattern]>,
    query: QueryRule,
    encoded_slash: bool,
    asked: Asked<'a>,
) -> Option<PlacedRule<'a>> {
    let text = node.string()?;
    let method = text.split_whitespace().next().unwrap_or_default();
    if method == "*" && side == Side::Allow {
        let message = "allows every method".to_owned();
        node.visible_fault(Code::BadValue, message, "name the methods, one rule each; * is for denies");
        return None;
    }
    let rule = match Rule::parse(text, query.clone(), encoded_slash) {
        Ok(rule) => rule,
        Err(problem) => {
            let hint = "docs/POLICY.md, Rules";
            // A query that was pasted with its URL can hold a key.
            if text.contains('?') {
                node.fault(Code::BadValue, problem.to_string(), hint);
            } else {
                node.visible_fault(Code::BadValue, problem.to_string(), hint);
            }
            return None;
        }
    };
    check_host(&node, &rule, hosts?)?;
    if !asked.has_body() {
        lint::warn(&node, side, text);
    }
    Some(PlacedRule { rule, node, query, encoded_slash, asked, condition: EffectiveCondition::default() })
}

/// A rule's host has to be one of its service's.
fn check_host(node: &Node<'_>, rule: &Rule, hosts: &[HostPattern]) -> Option<()> {
    let Some(host) = rule.host() else { return Some(()) };
    if hosts.iter().any(|pattern| pattern.covers_host(host)) {
        return Some(());
    }
    let message = format!("the service does not list the host {host}");
    node.visible_fault(Code::Dangling, message, "add it to the service's hosts, or leave it out of the rule");
    None
}

/// Says of each allow whether a deny takes all of it away, or whether it is there already.
pub(super) fn check_reachable(allow: &[PlacedRule<'_>], service_deny: &[PlacedRule<'_>], deny: &[PlacedRule<'_>]) {
    for (index, placed) in allow.iter().enumerate() {
        let covering = service_deny.iter().chain(deny).find(|denied| denied.rule.covers(&placed.rule));
        if let Some(denied) = covering {
            let message = format!("can never allow anything: the deny `{}` covers it", denied.rule.text());
            let hint = match denied.node.preset() {
                Some(preset) => format!("the deny is of preset {preset}; `deny` of the service replaces it"),
                None => "take one of the two out".to_owned(),
            };
            placed.node.visible_fault(Code::Unreachable, message, hint);
        }
        if let Some(first) = allow[..index].iter().find(|first| first.rule.covers(&placed.rule)) {
            check_redundant(placed, first);
        }
    }
}

fn check_redundant(placed: &PlacedRule<'_>, first: &PlacedRule<'_>) {
    if placed.rule.covers(&first.rule) {
        placed.node.visible_fault(Code::Duplicate, "is here already".to_owned(), "take one of them out");
    } else if placed.rule.rate().is_none() {
        placed.node.warn(&format!("adds nothing to `{}`", first.rule.text()));
    }
}

/// The texts of rules without more.
pub(super) fn texts(rules: &[PlacedRule<'_>]) -> Vec<String> {
    rules.iter().map(|rule| rule.rule.text().to_owned()).collect()
}

/// As `valetkey policy show` prints them.
pub(super) fn effective(allow: &[PlacedRule<'_>], deny: &[PlacedRule<'_>]) -> Vec<EffectiveRule> {
    let allow = allow.iter().map(|rule| rule.effective(Side::Allow));
    allow.chain(deny.iter().map(|rule| rule.effective(Side::Deny))).collect()
}

impl PlacedRule<'_> {
    fn effective(&self, side: Side) -> EffectiveRule {
        EffectiveRule::new(
            side,
            self.rule.text(),
            (&self.query, self.encoded_slash, self.rule.rate()),
            self.condition.clone(),
        )
    }
}
