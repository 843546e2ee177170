//! One promise: what was done, what was seen, and whether that is what was to be.

use serde::Serialize;

use super::canary::Canaries;
use super::trouble::{Trouble, told};

/// A promise that was played through.
#[derive(Debug, Serialize)]
pub(super) struct Scene {
    /// What is promised.
    pub(super) promise: &'static str,
    /// What happened, in order.
    pub(super) story: Vec<Line>,
    /// What was looked at.
    pub(super) checks: Vec<Check>,
}

/// One line of the story.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    /// Who did it.
    pub(super) who: &'static str,
    /// What it was.
    pub(super) what: String,
}

/// One thing that was looked at.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    /// What should be so.
    pub(super) claim: String,
    pub(super) expected: String,
    pub(super) seen: String,
    pub(super) held: bool,
}

impl Scene {
    /// A scene about to be told.
    pub(super) fn new(promise: &'static str) -> Self {
        Self { promise, story: Vec::new(), checks: Vec::new() }
    }

    /// It could not be played to its end.
    pub(super) fn break_off(&mut self, error: &Trouble) {
        self.checks.push(Check::new("the scene is played to its end", "an answer", told(&**error), false));
    }

    /// Goes on with the story.
    pub(super) fn tell(&mut self, who: &'static str, what: impl Into<String>) {
        self.story.push(Line { who, what: what.into() });
    }

    /// Everything was as promised; a scene in which nothing was looked at proves nothing.
    pub(super) fn held(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(|check| check.held)
    }
}

impl Check {
    fn new(claim: impl Into<String>, expected: impl Into<String>, seen: impl Into<String>, held: bool) -> Self {
        Self { claim: claim.into(), expected: expected.into(), seen: seen.into(), held }
    }

    /// `seen` is to be exactly this.
    #[expect(clippy::needless_pass_by_value, reason = "texts and numbers, given as they are")]
    pub(super) fn same(claim: impl Into<String>, expected: impl ToString, seen: impl ToString) -> Self {
        let (expected, seen) = (expected.to_string(), seen.to_string());
        let held = expected == seen;
        Self::new(claim, expected, seen, held)
    }

    /// `seen` is to contain this.
    pub(super) fn contains(claim: impl Into<String>, expected: &str, seen: &str) -> Self {
        Self::new(claim, format!("… {expected} …"), seen, seen.contains(expected))
    }

    /// `result` is to be `Ok`; what it says is told either way.
    pub(super) fn worked(claim: impl Into<String>, expected: &str, result: Result<String, String>) -> Self {
        let held = result.is_ok();
        let (Ok(seen) | Err(seen)) = result;
        Self::new(claim, expected, seen, held)
    }

    /// None of the credentials is in there, in any form.
    pub(super) fn without_credential(what: &str, bytes: &[u8], canaries: &Canaries) -> Self {
        let found = canaries.find_in(bytes);
        Self::same(format!("no credential in {what}"), "none", found.as_deref().unwrap_or("none"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scene_holds_if_all_its_checks_do_and_there_are_some() {
        let mut scene = Scene::new("x");
        assert!(!scene.held());
        scene.checks.push(Check::same("status", 200, 200));
        assert!(scene.held());
        scene.checks.push(Check::contains("sentence", "allowed", "refused"));
        assert!(!scene.held());

        let mut scene = Scene::new("y");
        scene.checks.push(Check::same("status", 200, 200));
        scene.break_off(&"closed".into());
        assert!(!scene.held());
    }

    #[test]
    fn a_leak_is_told_without_repeating_it() {
        let canaries = Canaries::new().unwrap();
        assert!(Check::without_credential("the log", b"quiet", &canaries).held);
        let check = Check::without_credential("the log", canaries.github.as_bytes(), &canaries);
        assert!(!check.held);
        assert!(!check.seen.contains(&canaries.github));
    }
}
