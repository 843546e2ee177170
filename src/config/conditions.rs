//! `body`, `when`, `because` and `record`: what a rule asks beyond its line. On a scope they hold for all that it allows.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::mistake::Code;
use super::rules::Side;
use super::section::{Keys, Node, Section};
use crate::policy::{BODY_BYTES_MAX, BadSyntax, BodyKind, BodyRule, Condition, Expression, FieldType, Rule, Variables};

/// The keys, where a table of rules or a scope has them.
pub(super) const CONDITION_KEYS: [&str; 4] = ["body", "when", "because", "record"];

/// `max` where the policy names none.
const BODY_BYTES_DEFAULT: usize = 16 * 1024;
/// Fields of a body at most.
const FIELDS_MAX: usize = 64;
/// Longest name of a field, in bytes.
const FIELD_BYTES_MAX: usize = 128;
/// Longest `because`, in bytes.
const BECAUSE_BYTES_MAX: usize = 200;
/// Inputs that a rule records at most.
const RECORD_MAX: usize = 16;

const BODY: Keys = Keys { known: &["type", "max", "fields"], later: &[] };

/// The words of `type`.
const KINDS: [(&str, BodyKind); 2] = [("json", BodyKind::Json), ("form", BodyKind::Form)];

/// The words of a field's type.
const TYPES: [(&str, FieldType); 7] = [
    ("string", FieldType::Text),
    ("int", FieldType::Int),
    ("number", FieldType::Number),
    ("bool", FieldType::Bool),
    ("string[]", FieldType::Texts),
    ("int[]", FieldType::Ints),
    ("any", FieldType::Any),
];

/// Bytes of the units of `max`, the greater first.
const UNITS: [(&str, usize); 3] = [("MiB", 1024 * 1024), ("KiB", 1024), ("B", 1)];

/// The keys as they were read, not yet checked against a rule.
#[derive(Default)]
pub(super) struct Asked<'a> {
    body: Option<(Node<'a>, BodyRule)>,
    when: Option<Node<'a>>,
    because: Option<String>,
    record: Vec<Node<'a>>,
}

impl Asked<'_> {
    /// True where the body is judged.
    pub(super) fn has_body(&self) -> bool {
        self.body.is_some()
    }
}

/// As `valetkey policy show` prints it.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct EffectiveCondition {
    pub(super) body: Option<EffectiveBody>,
    pub(super) when: Option<String>,
    pub(super) because: Option<String>,
    pub(super) record: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct EffectiveBody {
    #[serde(rename = "type")]
    kind: &'static str,
    max: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<BTreeMap<String, &'static str>>,
}

impl<'a> Asked<'a> {
    /// Reads the keys of a rule's table or of a scope; `None` where they have mistakes.
    pub(super) fn read(section: &Section<'a>) -> Option<Self> {
        let body = section.get("body").map_or(Some(None), |node| read_body(&node).map(|body| Some((node, body))));
        let when = section.get("when");
        let is_text = when.as_ref().is_none_or(|node| node.string().is_some());
        let because_node = section.get("because");
        let because = because_node.as_ref().map_or(Some(None), |node| read_because(node).map(Some));
        let record = section.get("record").map_or(Some(Vec::new()), |node| node.list(RECORD_MAX));
        let asked = Self { body: body?, when: when.filter(|_| is_text), because: because?, record: record? };
        if let Some(node) = because_node.filter(|_| is_text && asked.when.is_none() && asked.body.is_none()) {
            let message = "says why a condition fails, and there is none".to_owned();
            node.fault(Code::BadValue, message, "when = \"…\" or body = { … } beside it, or leave it out");
            return None;
        }
        is_text.then_some(asked)
    }

    /// Puts these keys and those of the scope on a rule; `None` where they do not fit it.
    pub(super) fn put_on(
        &self,
        scope: &Self,
        side: Side,
        (rule, node): (Rule, &Node<'a>),
    ) -> Option<(Rule, EffectiveCondition)> {
        let body = self.body_of(scope, side, &rule)?;
        let captures = rule.captures();
        let variables = Variables { captures: &captures, body: body.map(|(_, body)| body) };
        let when = self.when_of(scope, &variables, node)?;
        let nodes = scope.record.iter().chain(&self.record);
        let record: Vec<Option<Expression>> = nodes.map(|node| read_input(node, &variables)).collect();
        let record: Vec<Expression> = record.into_iter().collect::<Option<_>>()?;
        let because = self.because.as_ref().or(scope.because.as_ref());
        let effective = EffectiveCondition {
            body: body.map(|(_, body)| EffectiveBody::new(body)),
            when: when.as_ref().map(|when| when.source().to_owned()),
            because: because.cloned(),
            record: record.iter().map(|input| input.source().to_owned()).collect(),
        };
        if body.is_none() && when.is_none() && record.is_empty() {
            return Some((rule, effective));
        }
        let body = body.map(|(_, body)| Arc::new(body.clone()));
        let because = because.map(|because| because.as_str().into());
        Some((rule.on(Condition { body, when, because, record }), effective))
    }

    fn body_of<'s>(&'s self, scope: &'s Self, side: Side, rule: &Rule) -> Option<Option<&'s (Node<'a>, BodyRule)>> {
        if let (Some((node, _)), Some(_)) = (&self.body, &scope.body) {
            node.fault(Code::Duplicate, "the scope has a body already".to_owned(), "take one of the two out");
            return None;
        }
        let Some(body) = self.body.as_ref().or(scope.body.as_ref()) else { return Some(None) };
        let (node, _) = body;
        if rule.is_websocket() {
            let message = format!("`{}` has no body", rule.text());
            node.fault(Code::BadValue, message, "a WebSocket's handshake has none: leave it out");
            return None;
        }
        if side == Side::Deny && self.when.is_none() {
            let message = "is declared for a deny that does not look at it".to_owned();
            node.fault(Code::BadValue, message, "when = \"…\" beside it, or leave it out: the deny holds for any body");
            return None;
        }
        Some(Some(body))
    }

    /// The rule's expression, the scope's, or both joined; each is checked by itself, so that a mistake has its place.
    fn when_of(&self, scope: &Self, variables: &Variables<'_>, rule: &Node<'a>) -> Option<Option<Expression>> {
        let read = |node: &Node<'a>| read_when(node, node.string().unwrap_or_default(), variables);
        match (&scope.when, &self.when) {
            (None, None) => Some(None),
            (Some(node), None) | (None, Some(node)) => read(node).map(Some),
            (Some(of_scope), Some(of_rule)) => {
                let (of_scope, of_rule) = (read(of_scope), read(of_rule));
                // A comment ends with its line.
                let joined = format!("({}\n) && ({}\n)", of_scope?.source(), of_rule?.source());
                read_when(rule, &joined, variables).map(Some)
            }
        }
    }
}

fn read_when(node: &Node<'_>, text: &str, variables: &Variables<'_>) -> Option<Expression> {
    told(node, Expression::condition(text, variables))
}

fn read_input(node: &Node<'_>, variables: &Variables<'_>) -> Option<Expression> {
    told(node, Expression::input(node.string()?, variables))
}

fn told<T>(node: &Node<'_>, read: Result<T, BadSyntax>) -> Option<T> {
    match read {
        Ok(read) => Some(read),
        Err(problem) => {
            node.fault(Code::BadValue, problem.to_string(), "docs/POLICY.md, Conditions");
            None
        }
    }
}

fn read_because(node: &Node<'_>) -> Option<String> {
    let text = node.string()?;
    if text.trim().is_empty() || text.len() > BECAUSE_BYTES_MAX || text.chars().any(char::is_control) {
        let message = "is empty, too long, or has control characters".to_owned();
        node.fault(Code::BadValue, message, format!("one line for the agent, at most {BECAUSE_BYTES_MAX} bytes"));
        return None;
    }
    Some(text.to_owned())
}

fn read_body(node: &Node<'_>) -> Option<BodyRule> {
    let section = node.section()?;
    section.check_keys(&BODY);
    let kind = section.require("type", "type = \"json\" or \"form\"").and_then(|node| node.word(&KINDS));
    let bytes_max = section.get("max").map_or(Some(BODY_BYTES_DEFAULT), |node| read_size(&node));
    let fields = section.get("fields").map_or(Some(None), |node| read_fields(&node, kind).map(Some));
    Some(BodyRule { kind: kind?, bytes_max: bytes_max?, fields: fields? })
}

/// `16KiB`.
fn read_size(node: &Node<'_>) -> Option<usize> {
    let text = node.string()?;
    let unit = UNITS.iter().find_map(|(unit, bytes)| text.strip_suffix(unit).map(|number| (number, *bytes)));
    let plain = |number: &&str| !number.is_empty() && number.len() <= 7 && number.bytes().all(|b| b.is_ascii_digit());
    let size = unit.and_then(|(number, bytes)| Some((Some(number).filter(plain)?.parse::<usize>().ok()?, bytes)));
    let size = size.map(|(number, bytes)| number * bytes).filter(|size| (1..=BODY_BYTES_MAX).contains(size));
    if size.is_none() {
        let hint = format!("a size like \"16KiB\", at most {}", spell_size(BODY_BYTES_MAX));
        node.fault(Code::BadValue, "is no size that this key takes".to_owned(), hint);
    }
    size
}

fn spell_size(bytes: usize) -> String {
    let unit = UNITS.iter().find(|(_, unit)| bytes.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{bytes}B"), |(name, unit)| format!("{}{name}", bytes / unit))
}

fn read_fields(node: &Node<'_>, kind: Option<BodyKind>) -> Option<Vec<(String, FieldType)>> {
    let entries = node.section()?.entries();
    if entries.len() > FIELDS_MAX {
        node.fault(Code::TooLarge, format!("has {} fields", entries.len()), format!("at most {FIELDS_MAX}"));
        return None;
    }
    let mut fields = Vec::new();
    let mut is_whole = true;
    for entry in &entries {
        let Some(of_field) = entry.value.word(&TYPES) else {
            is_whole = false;
            continue;
        };
        let is_list = matches!(of_field, FieldType::Texts | FieldType::Ints);
        if is_list && kind == Some(BodyKind::Form) {
            let message = "is a list, and parsers do not agree on lists in forms".to_owned();
            entry.value.fault(Code::BadValue, message, "a single value, or type = \"json\"");
            is_whole = false;
        }
        if entry.name.is_empty() || entry.name.len() > FIELD_BYTES_MAX {
            let hint = format!("at most {FIELD_BYTES_MAX} bytes, and not empty");
            entry.label.fault(Code::BadValue, "is no name of a field".to_owned(), hint);
            is_whole = false;
        }
        fields.push((entry.name.to_owned(), of_field));
    }
    is_whole.then_some(fields)
}

impl EffectiveBody {
    fn new(body: &BodyRule) -> Self {
        let word = |kind: FieldType| TYPES.iter().find(|(_, known)| *known == kind).map_or("any", |(word, _)| word);
        let fields = |fields: &Vec<(String, FieldType)>| {
            fields.iter().map(|(name, kind)| (name.clone(), word(*kind))).collect::<BTreeMap<_, _>>()
        };
        Self {
            kind: KINDS.iter().find(|(_, known)| *known == body.kind).map_or("json", |(word, _)| word),
            max: spell_size(body.bytes_max),
            fields: body.fields.as_ref().map(fields),
        }
    }
}

#[cfg(test)]
mod tests;
