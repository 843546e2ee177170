//! Whether an answer is the one that a case expects.

use crate::config::TestCase;
use crate::policy::explain::Answer;

/// What is wrong with an answer; `None` if it is as expected.
pub(super) fn fault(case: &TestCase, answer: &Answer) -> Option<String> {
    let as_expected = match case.expect.as_str() {
        "allow" => answer.allowed,
        "deny" => !answer.allowed,
        code => answer.code == Some(code),
    };
    if !as_expected {
        return Some(verdict(answer));
    }
    scope_fault(case, answer).or_else(|| rule_fault(case, answer))
}

/// The answer in a line.
pub(super) fn verdict(answer: &Answer) -> String {
    match (&answer.by, answer.code, &answer.denied_by) {
        (Some(_), ..) if answer.observed.is_some() => format!("allowed: {}", answer.why),
        (Some(way), ..) => format!("allowed by {}:{}: {}", way.service, way.scope, way.rule),
        (None, Some(code), Some(deny)) => format!("refused {code}: {}: {deny}", answer.why),
        (None, Some(code), None) => format!("refused {code}: {}", answer.why),
        (None, None, _) => format!("allowed: {}", answer.why),
    }
}

/// `read`, or `stripe:read` where the service matters.
fn scope_fault(case: &TestCase, answer: &Answer) -> Option<String> {
    let expected = case.scope.as_ref()?;
    let given = answer.by.as_ref().map(|way| &way.scope).or(answer.required.as_ref());
    let whole = answer.by.as_ref().map(|way| format!("{}:{}", way.service, way.scope));
    if given == Some(expected) || whole.as_ref() == Some(expected) {
        return None;
    }
    let what = if answer.allowed { "allows" } else { "is named by the refusal" };
    let given = whole.as_ref().or(given).map_or("no scope", String::as_str);
    Some(format!("expected that scope {expected} {what}, and it is {given}"))
}

fn rule_fault(case: &TestCase, answer: &Answer) -> Option<String> {
    let expected = case.rule.as_ref()?;
    let given = answer.by.as_ref().map(|way| &way.rule).or(answer.denied_by.as_ref());
    if given == Some(expected) {
        return None;
    }
    let what = if answer.allowed { "allows" } else { "forbids" };
    Some(format!("expected that the rule {expected} {what} it, and it is {}", given.map_or("none", String::as_str)))
}
