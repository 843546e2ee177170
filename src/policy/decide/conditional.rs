//! Rules that ask more of a request than its line: what came of that, and what goes on record.

use std::sync::Arc;

use smallvec::SmallVec;

use super::{Allowing, RequestFacts};
use crate::policy::condition::{BodyFault, Circumstances, Condition, Outcome, Readings};
use crate::policy::rule::{Effect, Rule};

/// Where what conditions look at is asked for, once there is one to be judged.
pub type Given<'r> = &'r dyn Fn() -> Circumstances<'r>;

/// What a rule wants on record.
#[derive(Debug, Clone, Copy)]
pub struct Recording<'a> {
    rule: &'a Rule,
    condition: &'a Condition,
}

impl<'a> Recording<'a> {
    pub(super) fn of(rule: &'a Rule) -> Option<Self> {
        let condition = rule.condition().filter(|condition| !condition.record.is_empty())?;
        Some(Self { rule, condition })
    }

    /// The inputs with their values, each as the policy spells it; what is not there is left out.
    #[must_use]
    pub fn inputs(&self, facts: &RequestFacts<'_>, given: Given<'_>) -> Vec<(String, String)> {
        let path = self.rule.captured(facts.target).unwrap_or_default();
        self.condition.recorded(facts, &path, &given())
    }
}

/// A rule whose condition stands against a request.
#[derive(Debug, Clone, Copy)]
pub struct Unmet<'a> {
    /// The rule, as the policy spells it.
    pub rule: &'a str,
    /// What the policy says to the agent.
    pub because: Option<&'a Arc<str>>,
    /// What is wrong with the body, if it could not be judged.
    pub fault: Option<BodyFault>,
    /// What the rule wants on record.
    pub recording: Option<Recording<'a>>,
}

impl<'a> Unmet<'a> {
    pub(super) fn of(rule: &'a Rule, outcome: Outcome) -> Self {
        let fault = match outcome {
            Outcome::Unknown(fault) => fault,
            Outcome::Holds | Outcome::Fails => None,
        };
        let because = rule.condition().and_then(|condition| condition.because.as_ref());
        Self { rule: rule.text(), because, fault, recording: Recording::of(rule) }
    }
}

/// The rules that speak of a request, weighed.
#[derive(Default)]
pub(super) struct Weighed<'a> {
    /// The scopes that allow it, each once.
    pub(super) allowing: SmallVec<[Allowing<'a>; 2]>,
    /// One of them could not be judged by its query.
    pub(super) is_unclear: bool,
    /// The first that would have allowed it if its condition held; one that could read the body goes first.
    pub(super) unmet: Option<Unmet<'a>>,
}

impl<'a> Weighed<'a> {
    pub(super) fn note(&mut self, unmet: Unmet<'a>) {
        if self.unmet.is_none_or(|known| known.fault.is_some() && unmet.fault.is_none()) {
            self.unmet = Some(unmet);
        }
    }
}

/// What comes of the condition of a rule whose line speaks of the request.
pub(super) fn judge(rule: &Rule, effect: Effect, facts: &RequestFacts<'_>, given: Option<Given<'_>>) -> Outcome {
    let Some(condition) = rule.condition() else { return Outcome::Holds };
    let captured = rule.captured(facts.target);
    // A deny matches however a server could read the path, and then nobody knows what its placeholders stand for.
    let is_one = captured.is_some() && (effect == Effect::Allow || !is_read_in_several_ways(facts));
    let readings = if is_one { Readings::One } else { Readings::Several };
    let given = given.map(|given| given());
    condition.judge(facts, &captured.unwrap_or_default(), given.as_ref(), readings)
}

fn is_read_in_several_ways(facts: &RequestFacts<'_>) -> bool {
    facts.target.has_encoded_slash() || facts.target.segments().any(|segment| segment.contains([';', '?', '#']))
}
