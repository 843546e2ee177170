//! A service's rules as a trie of segments, which finds *all* rules that match a path.

mod trie;

use smallvec::SmallVec;

use trie::{Draft, Ending, Matches, Trie};

use super::rule::Rule;
use super::service::{Scope, Service};
use super::target::{Target, before_delimiter, without_ends};

/// Segments that are walked without an allocation.
const SEGMENTS_INLINE: usize = 16;

type Segments<'a> = SmallVec<[&'a str; SEGMENTS_INLINE]>;

/// The rules of one service.
pub(super) struct RuleIndex {
    allows: Trie,
    denies: Trie,
    bodies: bool,
    rates: bool,
}

impl RuleIndex {
    /// Indexes the rules of a service.
    pub(super) fn new(service: &Service) -> Self {
        let mut by_risk: Vec<(usize, &Scope)> = service.scopes.iter().enumerate().collect();
        by_risk.sort_by_key(|(_, scope)| scope.risk);
        let (mut allows, mut denies) = (Draft::new(), Draft::new());
        denies.insert_all(None, &service.deny);
        for (at, scope) in by_risk {
            allows.insert_all(Some(at), &scope.allow);
            denies.insert_all(Some(at), &scope.deny);
        }
        let rules = service.scopes.iter().flat_map(|scope| scope.allow.iter().chain(&scope.deny)).chain(&service.deny);
        let bodies = rules.filter_map(Rule::condition).any(|condition| condition.body.is_some());
        let rates = service.scopes.iter().flat_map(|scope| &scope.allow).any(|rule| rule.rate.is_some());
        Self { allows: allows.finish(), denies: denies.finish(), bodies, rates }
    }

    /// True if any rule looks at a body.
    pub(super) fn looks_at_bodies(&self) -> bool {
        self.bodies
    }

    /// True if any rule has a rate.
    pub(super) fn has_rates(&self) -> bool {
        self.rates
    }

    /// The allows whose path matches, each with its scope, the least risky first.
    pub(super) fn allows<'a>(
        &'a self,
        service: &'a Service,
        target: &Target,
    ) -> impl Iterator<Item = (&'a Scope, &'a Rule)> {
        let segments: Segments<'_> = target.segments().collect();
        let mut matches = Matches::new();
        let ending = if target.has_trailing_slash() { Ending::Slash } else { Ending::Plain };
        self.allows.walk(&segments, ending, &mut matches);
        matches.sort_unstable();
        matches.into_iter().filter_map(|entry| {
            let scope = &service.scopes[entry.scope()?];
            Some((scope, &scope.allow[entry.rule()]))
        })
    }

    /// The denies whose path matches in any way in which a server could read it, each with its scope if it has one.
    pub(super) fn denies<'a>(
        &'a self,
        service: &'a Service,
        target: &Target,
    ) -> impl Iterator<Item = (Option<&'a Scope>, &'a Rule)> {
        let mut matches = Matches::new();
        if !self.denies.is_empty() {
            for segments in readings(target) {
                self.denies.walk(&segments, Ending::Either, &mut matches);
            }
        }
        matches.into_iter().map(|entry| match entry.scope().map(|at| &service.scopes[at]) {
            Some(scope) => (Some(scope), &scope.deny[entry.rule()]),
            None => (None, &service.deny[entry.rule()]),
        })
    }
}

/// What a server may take off a path that its sender has left in it.
#[derive(Debug, Clone, Copy)]
enum Cut {
    Nothing,
    /// In each segment what follows `;`, `?` or `#`.
    Segments,
    /// And the segments behind one with `?` or `#`: decoded first, the path ends there.
    Path,
}

/// As it is; with encoded slashes as slashes; cut; without blanks, and dots at the end, around its segments; and each of
/// these with each other.
fn readings(target: &Target) -> impl Iterator<Item = Segments<'_>> {
    let delimiters = target.segments().any(|segment| segment.contains([';', '?', '#']));
    let cuts: &[Cut] = if delimiters { &[Cut::Nothing, Cut::Segments, Cut::Path] } else { &[Cut::Nothing] };
    let has_ends = delimiters
        || target.has_encoded_slash()
        || target.segments().any(|segment| without_ends(segment).len() < segment.len());
    let of_both = |is_there: bool| [false, true].into_iter().take(1 + usize::from(is_there));
    of_both(target.has_encoded_slash()).flat_map(move |split| {
        let cuts = cuts.iter().flat_map(move |cut| of_both(has_ends).map(move |trim| (*cut, trim)));
        cuts.map(move |(cut, trim)| reading(target, split, cut, trim))
    })
}

fn reading(target: &Target, split: bool, cut: Cut, trim: bool) -> Segments<'_> {
    let parts = target.segments().flat_map(move |segment| segment.split(move |c| split && c == '/'));
    let mut segments = Segments::new();
    for part in parts {
        let kept = match cut {
            Cut::Nothing => part,
            Cut::Segments | Cut::Path => before_delimiter(part),
        };
        segments.push(if trim { without_ends(kept) } else { kept });
        if matches!(cut, Cut::Path) && part.contains(['?', '#']) {
            break;
        }
    }
    segments
}
