//! A service's rules as a trie of segments, which finds *all* rules that match a path.

use smallvec::SmallVec;

use super::rule::{End, Rule, Segment};
use super::service::{Scope, Service};
use super::target::{Target, before_delimiter};

/// Segments that are walked without an allocation.
const SEGMENTS_INLINE: usize = 16;
/// Matches that are held without an allocation.
const MATCHES_INLINE: usize = 16;

/// Numbers of the entries that match, ascending: the least risky scope first, then in the order of the file.
pub(super) type Matches = SmallVec<[usize; MATCHES_INLINE]>;

type Segments<'a> = SmallVec<[&'a str; SEGMENTS_INLINE]>;

/// Where a rule stands in its service.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// The scope; `None` for the service itself.
    scope: Option<usize>,
    rule: usize,
}

/// The rules of one service.
pub(super) struct RuleIndex {
    allows: Trie,
    denies: Trie,
}

/// Nodes are numbered; 0 is the root. A walk visits a node once at most: each has one way that leads to it.
struct Trie {
    nodes: Vec<Node>,
    entries: Vec<Entry>,
}

#[derive(Default)]
struct Node {
    /// Sorted by text.
    literals: Vec<(Box<str>, usize)>,
    captures: Vec<(Box<str>, usize)>,
    plain: Vec<usize>,
    slash: Vec<usize>,
    rest: Vec<usize>,
}

/// What a walk accepts at the end of the path.
#[derive(Clone, Copy)]
enum Ending {
    Plain,
    Slash,
    Either,
}

impl RuleIndex {
    /// Indexes the rules of a service.
    pub(super) fn new(service: &Service) -> Self {
        let mut by_risk: Vec<(usize, &Scope)> = service.scopes.iter().enumerate().collect();
        by_risk.sort_by_key(|(_, scope)| scope.risk);
        let mut allows = Trie { nodes: vec![Node::default()], entries: Vec::new() };
        let mut denies = Trie { nodes: vec![Node::default()], entries: Vec::new() };
        denies.insert_all(None, &service.deny);
        for (at, scope) in by_risk {
            allows.insert_all(Some(at), &scope.allow);
            denies.insert_all(Some(at), &scope.deny);
        }
        Self { allows, denies }
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
        self.allows.walk(0, &segments, ending, &mut matches);
        matches.sort_unstable();
        matches.into_iter().filter_map(move |at| {
            let Entry { scope, rule } = self.allows.entries[at];
            let scope = &service.scopes[scope?];
            Some((scope, &scope.allow[rule]))
        })
    }

    /// The denies whose path matches in any way in which a server could read it, each with its scope if it has one.
    pub(super) fn denies<'a>(
        &'a self,
        service: &'a Service,
        target: &Target,
    ) -> impl Iterator<Item = (Option<&'a Scope>, &'a Rule)> {
        let mut matches = Matches::new();
        if !self.denies.entries.is_empty() {
            for segments in readings(target) {
                self.denies.walk(0, &segments, Ending::Either, &mut matches);
            }
        }
        matches.into_iter().map(move |at| {
            let Entry { scope, rule } = self.denies.entries[at];
            match scope.map(|at| &service.scopes[at]) {
                Some(scope) => (Some(scope), &scope.deny[rule]),
                None => (None, &service.deny[rule]),
            }
        })
    }
}

/// As it is; with encoded slashes as slashes; without what follows `;`, `?` or `#`; both.
fn readings(target: &Target) -> impl Iterator<Item = Segments<'_>> {
    let delimiters = target.segments().any(|segment| segment.contains([';', '?', '#']));
    let split = [false, true].into_iter().take(1 + usize::from(target.has_encoded_slash()));
    split.flat_map(move |split| {
        let cut = [false, true].into_iter().take(1 + usize::from(delimiters));
        cut.map(move |cut| {
            let parts = target.segments().flat_map(move |segment| segment.split(move |c| split && c == '/'));
            parts.map(|part| if cut { before_delimiter(part) } else { part }).collect()
        })
    })
}

impl Trie {
    fn insert_all(&mut self, scope: Option<usize>, rules: &[Rule]) {
        for (at, rule) in rules.iter().enumerate() {
            let number = self.entries.len();
            self.entries.push(Entry { scope, rule: at });
            let node = rule.path.segments.iter().fold(0, |node, segment| self.child(node, segment));
            let node = &mut self.nodes[node];
            match rule.path.end {
                End::Plain => node.plain.push(number),
                End::Slash => node.slash.push(number),
                End::Rest => node.rest.push(number),
            }
        }
    }

    fn child(&mut self, parent: usize, segment: &Segment) -> usize {
        let fresh = self.nodes.len();
        let node = &mut self.nodes[parent];
        let (children, text) = match segment {
            Segment::Literal(text) => (&mut node.literals, text),
            Segment::Capture(beginning) => (&mut node.captures, beginning),
        };
        match children.binary_search_by(|(known, _)| known.cmp(text)) {
            Ok(at) => children[at].1,
            Err(at) => {
                children.insert(at, (text.clone(), fresh));
                self.nodes.push(Node::default());
                fresh
            }
        }
    }

    /// Collects what matches from this node on; as deep as the deepest rule.
    fn walk(&self, node: usize, segments: &[&str], ending: Ending, matches: &mut Matches) {
        let node = &self.nodes[node];
        let Some((first, rest)) = segments.split_first() else {
            if matches!(ending, Ending::Plain | Ending::Either) {
                matches.extend_from_slice(&node.plain);
            }
            if matches!(ending, Ending::Slash | Ending::Either) {
                matches.extend_from_slice(&node.slash);
            }
            return;
        };
        matches.extend_from_slice(&node.rest);
        if let Ok(at) = node.literals.binary_search_by(|(text, _)| (**text).cmp(first)) {
            self.walk(node.literals[at].1, rest, ending, matches);
        }
        for (beginning, next) in &node.captures {
            if first.len() > beginning.len() && first.starts_with(&**beginning) {
                self.walk(*next, rest, ending, matches);
            }
        }
    }
}
