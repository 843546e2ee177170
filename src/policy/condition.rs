//! What a rule asks of a request beyond method, host, path and query: a body of a declared shape, and a CEL expression.
//!
//! A condition that cannot be evaluated never helps the request: an allow with it allows nothing, a deny with it denies.
//!
//! | file | holds |
//! | --- | --- |
//! | `body` | the shape of a body, and its strict reading (`json`, `form`) |
//! | `expression` | one CEL expression, parsed, bounded and checked when the policy is loaded |
//! | `check` | its types |
//! | `inputs` | what expressions can name, and its values for one request |

mod body;
mod check;
mod expression;
mod inputs;

use std::sync::Arc;

pub use body::{BODY_BYTES_MAX, BodyFault, BodyKind, BodyRule, FieldType, HeldBody};
pub use expression::{EXPRESSION_BYTES_MAX, Expression};
pub use inputs::{Circumstances, NonceFacts, Variables};

use body::Field;
use inputs::{Roots, Scene};

use super::decide::RequestFacts;

/// What a rule asks beyond its line.
#[derive(Debug, Clone)]
pub struct Condition {
    /// The shape of the body.
    pub body: Option<Arc<BodyRule>>,
    /// This holds.
    pub when: Option<Expression>,
    /// What is said to an agent whose request does not fulfil it.
    pub because: Option<Arc<str>>,
    /// Inputs that go into the audit.
    pub record: Vec<Expression>,
}

/// What came of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Holds,
    Fails,
    /// It cannot be evaluated; what is wrong with the body, if that is why.
    Unknown(Option<BodyFault>),
}

/// How many ways there are to read the path of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readings {
    One,
    /// What it captures depends on who reads it.
    Several,
}

impl Condition {
    /// True if there are requests to which the rule does not apply because of it; false if it only records.
    #[must_use]
    pub fn is_conditional(&self) -> bool {
        self.body.is_some() || self.when.is_some()
    }

    /// What it asks, for who reads the policy: two with the same words ask the same. Nothing where it only records.
    #[must_use]
    pub(super) fn described(&self) -> String {
        let body = self.body.as_ref().map(|body| format!(" with body {body}")).unwrap_or_default();
        let when = self.when.as_ref().map(|when| format!(" when {}", when.source())).unwrap_or_default();
        format!("{body}{when}")
    }

    /// Judges a request; `path` is what the rule's placeholders stand for.
    pub(super) fn judge(
        &self,
        facts: &RequestFacts<'_>,
        path: &[(Box<str>, String)],
        given: Option<&Circumstances<'_>>,
        readings: Readings,
    ) -> Outcome {
        if !self.is_conditional() {
            return Outcome::Holds;
        }
        let Some(given) = given else { return Outcome::Unknown(None) };
        let fields = match self.fields(facts, given) {
            Ok(fields) => fields,
            Err(fault) => return Outcome::Unknown(fault),
        };
        let scene = Scene { facts, path, given, fields: fields.as_deref(), readings };
        let Some(when) = &self.when else { return Outcome::Holds };
        match when.holds(scene.context(Roots::of(std::slice::from_ref(when)))) {
            Some(true) => Outcome::Holds,
            Some(false) => Outcome::Fails,
            None => Outcome::Unknown(None),
        }
    }

    /// The inputs that it wants on record, with their values; what is not there is left out.
    pub(super) fn recorded(
        &self,
        facts: &RequestFacts<'_>,
        path: &[(Box<str>, String)],
        given: &Circumstances<'_>,
    ) -> Vec<(String, String)> {
        if self.record.is_empty() {
            return Vec::new();
        }
        let fields = self.fields(facts, given).unwrap_or(None);
        let scene = Scene { facts, path, given, fields: fields.as_deref(), readings: Readings::One };
        let context = scene.context(Roots::of(&self.record));
        let value = |input: &Expression| input.text(&context).map(|value| (input.source().to_owned(), value));
        self.record.iter().filter_map(value).collect()
    }

    /// What the body holds; `None` where the rule asks for none.
    fn fields(
        &self,
        facts: &RequestFacts<'_>,
        given: &Circumstances<'_>,
    ) -> Result<Option<Vec<Field>>, Option<BodyFault>> {
        let Some(rule) = &self.body else { return Ok(None) };
        let held = given.body.ok_or(None)?;
        rule.read(&held, facts.target).map(Some).map_err(Some)
    }
}

#[cfg(test)]
mod tests;
