//! One request against one service: deny first, then the least risky scope that allows it.

mod conditional;

use smallvec::SmallVec;

use super::index::RuleIndex;
use super::rule::{Effect, FORBIDDEN_METHODS, QueryRule, Rule};
use super::service::{Scope, Service};
use super::target::{QueryParameter, Target};
use crate::model::{Ambiguity, Host, RuleRate, ScopeName};

pub use conditional::{Given, Recording, Unmet};

use super::condition::Outcome;
use conditional::Weighed;

/// Rules that a refusal lists at most.
const ALLOWED_LISTED_MAX: usize = 16;

/// What a decision is made on.
#[derive(Debug, Clone, Copy)]
pub struct RequestFacts<'a> {
    /// The method, exact.
    pub method: &'a str,
    /// True for an upgrade to WebSocket.
    pub websocket: bool,
    /// The host.
    pub host: &'a Host,
    /// Path and query; the slot's own query parameter is already taken out.
    pub target: &'a Target,
}

/// A scope that allows a request.
#[derive(Debug, Clone, Copy)]
pub struct Allowing<'a> {
    /// The scope.
    pub scope: &'a Scope,
    /// Its rule, as the policy spells it.
    pub rule: &'a str,
    /// What the rule wants on record.
    pub recording: Option<Recording<'a>>,
}

/// What the policy says.
#[derive(Debug)]
pub enum Verdict<'a> {
    /// Allowed by this scope (the least risky of those that allow) and rule (as the policy spells it).
    Allow {
        /// The scope.
        scope: &'a Scope,
        /// The rule.
        rule: &'a str,
        /// What the rule wants on record.
        recording: Option<Recording<'a>>,
        /// The other scopes that allow it, in the order in which to try them once this one's uses are gone.
        next: SmallVec<[Allowing<'a>; 2]>,
    },
    /// No scope of these allows it (or a deny forbids it).
    Deny {
        /// What they allow, as the policy spells it; at most 16.
        allowed: Vec<String>,
        /// A scope of the service that would allow it and that the agent may have; none where a deny forbids it.
        required_scope: Option<ScopeName>,
    },
    /// A rule allows it on a condition that does not hold, and no other allows it; or a deny forbids it on a condition
    /// that holds, or that cannot be evaluated.
    Unmet(Unmet<'a>),
    /// The request cannot be judged.
    Ambiguous(Ambiguity),
}

/// What a rule's query condition says of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    Yes,
    No,
    /// It depends on who reads it.
    Unclear,
}

/// One decision, as it goes on.
struct Case<'a, 'r> {
    service: &'a Service,
    index: &'a RuleIndex,
    facts: &'r RequestFacts<'r>,
    given: Option<Given<'r>>,
}

/// Decides a request over the scopes that a lease holds.
pub(super) fn decide<'a, 'r>(
    service: &'a Service,
    index: &'a RuleIndex,
    held: &[ScopeName],
    grantable: &[ScopeName],
    (facts, given): (&'r RequestFacts<'r>, Option<Given<'r>>),
) -> Verdict<'a> {
    if let Err(ambiguity) = check(facts) {
        return Verdict::Ambiguous(ambiguity);
    }
    let case = Case { service, index, facts, given };
    match case.denying(|scope| held.contains(&scope.name)) {
        Some((rule, _)) if !rule.is_conditional() => {
            return Verdict::Deny { allowed: case.allowed(held), required_scope: None };
        }
        Some((rule, outcome)) => return Verdict::Unmet(Unmet::of(rule, outcome)),
        None => {}
    }
    let Weighed { allowing, is_unclear, unmet } = case.allowing(held);
    if let Some((first, next)) = allowing.split_first() {
        let Allowing { scope, rule, recording } = *first;
        return Verdict::Allow { scope, rule, recording, next: next.into() };
    }
    if is_unclear {
        return Verdict::Ambiguous(Ambiguity::Query);
    }
    if let Some(unmet) = unmet {
        return Verdict::Unmet(unmet);
    }
    let required_scope = case.required_scope(held, grantable);
    if required_scope.is_none() && facts.target.has_encoded_slash() {
        return Verdict::Ambiguous(Ambiguity::EncodedSlash);
    }
    Verdict::Deny { allowed: case.allowed(held), required_scope }
}

/// The deny that stands against a request with these scopes, as the policy spells it.
pub(super) fn denying<'a>(
    service: &'a Service,
    index: &'a RuleIndex,
    held: &[ScopeName],
    facts: &RequestFacts<'_>,
) -> Option<&'a str> {
    let case = Case { service, index, facts, given: None };
    case.denying(|scope| held.contains(&scope.name)).map(|(rule, _)| rule.text())
}

/// The rates of the rules of a scope that allow a request, each once.
pub(super) fn rates<'r>(
    service: &Service,
    index: &RuleIndex,
    scope: &ScopeName,
    (facts, given): (&'r RequestFacts<'r>, Option<Given<'r>>),
) -> Vec<RuleRate> {
    let case = Case { service, index, facts, given };
    let mut rates: Vec<RuleRate> = Vec::new();
    for (_, rule, fit) in case.candidates().filter(|(of, rule, _)| of.name == *scope && rule.rate.is_some()) {
        let Some(rate) = rule.rate.filter(|_| fit == Fit::Yes) else { continue };
        let rate = RuleRate { service: service.name.clone(), scope: scope.clone(), rule: rule.text().into(), rate };
        if !rates.contains(&rate) && case.judge(rule, Effect::Allow) == Outcome::Holds {
            rates.push(rate);
        }
    }
    rates
}

/// How much of a body the rules that concern a request look at, in bytes.
pub(super) fn body_wanted(
    service: &Service,
    index: &RuleIndex,
    held: &[ScopeName],
    facts: &RequestFacts<'_>,
) -> Option<usize> {
    let case = Case { service, index, facts, given: None };
    let allows = case.candidates().filter(|(scope, _, fit)| held.contains(&scope.name) && *fit != Fit::No);
    let denies = case.forbidding(|scope| held.contains(&scope.name));
    allows
        .map(|(_, rule, _)| rule)
        .chain(denies)
        .filter_map(|rule| Some(rule.condition()?.body.as_ref()?.bytes_max))
        .max()
}

/// What no rule could allow.
fn check(facts: &RequestFacts<'_>) -> Result<(), Ambiguity> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    // HTTP/2 asks for a WebSocket by an extended CONNECT (RFC 8441).
    let extended = facts.websocket && facts.method == "CONNECT";
    let forbidden = FORBIDDEN_METHODS.iter().any(|name| facts.method.eq_ignore_ascii_case(name)) && !extended;
    if facts.method.is_empty() || !facts.method.bytes().all(token) || forbidden {
        return Err(Ambiguity::Method);
    }
    if facts.target.has_method_override() { Err(Ambiguity::MethodOverride) } else { Ok(()) }
}

impl<'a> Case<'a, '_> {
    fn concerns(&self, rule: &Rule, effect: Effect) -> bool {
        rule.concerns(effect, self.facts.method, self.facts.websocket, self.facts.host)
    }

    /// True when a deny of the service, or of one of these scopes, forbids the request.
    fn is_denied(&self, of: impl Fn(&Scope) -> bool) -> bool {
        self.denying(of).is_some()
    }

    /// What comes of a rule's condition; without one it holds.
    fn judge(&self, rule: &Rule, effect: Effect) -> Outcome {
        if rule.condition().is_none() {
            Outcome::Holds
        } else {
            conditional::judge(rule, effect, self.facts, self.given)
        }
    }

    /// A deny of the service, or of one of these scopes, that forbids the request, and what came of its condition; one
    /// without a condition if there is one.
    fn denying(&self, of: impl Fn(&Scope) -> bool) -> Option<(&'a Rule, Outcome)> {
        let mut conditional = None;
        for rule in self.forbidding(of) {
            match self.judge(rule, Effect::Deny) {
                outcome if !rule.is_conditional() => return Some((rule, outcome)),
                Outcome::Fails => {}
                outcome @ (Outcome::Holds | Outcome::Unknown(_)) => conditional = conditional.or(Some((rule, outcome))),
            }
        }
        conditional
    }

    /// The denies of the service, or of these scopes, whose line speaks of the request.
    fn forbidding(&self, of: impl Fn(&Scope) -> bool) -> impl Iterator<Item = &'a Rule> {
        let denies = self.index.denies(self.service, self.facts.target);
        let forbids = move |scope: Option<&Scope>, rule: &Rule| {
            scope.is_none_or(&of) && self.concerns(rule, Effect::Deny) && forbids_query(&rule.query, self.facts.target)
        };
        denies.filter(move |(scope, rule)| forbids(*scope, rule)).map(|(_, rule)| rule)
    }

    /// Everything that allows the request by method, host and path, the least risky first.
    fn candidates(&self) -> impl Iterator<Item = (&'a Scope, &'a Rule, Fit)> {
        let target = self.facts.target;
        self.index
            .allows(self.service, target)
            .filter(|(_, rule)| {
                self.concerns(rule, Effect::Allow) && (rule.encoded_slash || !target.has_encoded_slash())
            })
            .map(|(scope, rule)| (scope, rule, fits_query(&rule.query, target)))
    }

    /// The held scopes that allow the request, each once, and what stood against the others.
    fn allowing(&self, held: &[ScopeName]) -> Weighed<'a> {
        let mut weighed = Weighed::default();
        for (scope, rule, fit) in self.candidates().filter(|(scope, ..)| held.contains(&scope.name)) {
            weighed.is_unclear |= fit == Fit::Unclear;
            if fit != Fit::Yes || weighed.allowing.iter().any(|known| std::ptr::eq(known.scope, scope)) {
                continue;
            }
            match self.judge(rule, Effect::Allow) {
                Outcome::Holds => {
                    let recording = Recording::of(rule);
                    weighed.allowing.push(Allowing { scope, rule: rule.text(), recording });
                }
                outcome @ (Outcome::Fails | Outcome::Unknown(_)) => weighed.note(Unmet::of(rule, outcome)),
            }
        }
        weighed
    }

    /// The least risky scope that the agent may have, does not hold, and that would allow the request by itself.
    fn required_scope(&self, held: &[ScopeName], grantable: &[ScopeName]) -> Option<ScopeName> {
        self.candidates()
            .filter(|(scope, rule, fit)| {
                *fit == Fit::Yes
                    && grantable.contains(&scope.name)
                    && !held.contains(&scope.name)
                    && self.judge(rule, Effect::Allow) == Outcome::Holds
            })
            .find(|(scope, ..)| !self.is_denied(|other| std::ptr::eq(other, *scope)))
            .map(|(scope, ..)| scope.name.clone())
    }

    /// What the held scopes allow.
    fn allowed(&self, held: &[ScopeName]) -> Vec<String> {
        allowed(self.service, held)
    }
}

/// What these scopes of a service allow, as far as a refusal says it.
pub(super) fn allowed(service: &Service, held: &[ScopeName]) -> Vec<String> {
    let scopes = service.scopes.iter().filter(|scope| held.contains(&scope.name));
    scopes.flat_map(|scope| &scope.allow).map(|rule| rule.text().to_owned()).take(ALLOWED_LISTED_MAX).collect()
}

/// An allow's condition: nothing undecodable, nothing that is there twice and decides, nothing undeclared.
fn fits_query(rule: &QueryRule, target: &Target) -> Fit {
    // Some servers separate by `;` too, and would see parameters that were not judged.
    let split = || target.query().is_some_and(|query| query.contains(';'));
    match rule {
        QueryRule::Any => Fit::Yes,
        QueryRule::Only(_) | QueryRule::Exactly(_) if split() => Fit::Unclear,
        QueryRule::Only(names) => {
            target.query_parameters().map(|parameter| is_listed(&parameter, names)).fold(Fit::Yes, worse)
        }
        QueryRule::Exactly(pairs) => {
            let names: SmallVec<[&String; 8]> = pairs.iter().map(|(name, _)| name).collect();
            let declared =
                target.query_parameters().map(|parameter| is_listed(&parameter, &names)).fold(Fit::Yes, worse);
            pairs.iter().map(|(name, value)| has_once(target, name, value)).fold(declared, worse)
        }
    }
}

fn is_listed(parameter: &QueryParameter<'_>, names: &[impl AsRef<str>]) -> Fit {
    match (parameter.name(), parameter.value()) {
        (None, _) | (_, None) => Fit::Unclear,
        (Some(name), Some(_)) if names.iter().any(|known| known.as_ref() == name) => Fit::Yes,
        (Some(_), Some(_)) => Fit::No,
    }
}

fn has_once(target: &Target, name: &str, value: &str) -> Fit {
    let mut values = target.query_parameters().filter(|p| p.name().is_some_and(|n| n == name)).map(|p| p.value());
    match (values.next(), values.next()) {
        (None, _) => Fit::No,
        (Some(_), Some(_)) | (Some(None), None) => Fit::Unclear,
        (Some(Some(own)), None) => {
            if own == value {
                Fit::Yes
            } else {
                Fit::No
            }
        }
    }
}

/// What cannot be judged outweighs what does not fit, so that the refusal says so.
fn worse(a: Fit, b: Fit) -> Fit {
    match (a, b) {
        (Fit::Unclear, _) | (_, Fit::Unclear) => Fit::Unclear,
        (Fit::No, _) | (_, Fit::No) => Fit::No,
        (Fit::Yes, Fit::Yes) => Fit::Yes,
    }
}

/// A deny's condition: true unless every reader would see that a parameter is missing or has another value.
fn forbids_query(rule: &QueryRule, target: &Target) -> bool {
    match rule {
        QueryRule::Any | QueryRule::Only(_) => true,
        QueryRule::Exactly(pairs) => {
            let clear = |p: QueryParameter<'_>| p.name().is_some() && p.value().is_some();
            let unclear =
                target.query().is_some_and(|query| query.contains(';')) || !target.query_parameters().all(clear);
            unclear || pairs.iter().all(|(name, value)| has_somewhere(target, name, value))
        }
    }
}

fn has_somewhere(target: &Target, name: &str, value: &str) -> bool {
    target.query_parameters().any(|p| p.name().is_some_and(|n| n == name) && p.value().is_some_and(|v| v == value))
}

#[cfg(test)]
mod tests;
