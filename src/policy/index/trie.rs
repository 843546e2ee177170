//! A trie of path segments, laid flat: a walk touches few cache lines, so that a thousand services cost little more
//! than one.

use smallvec::SmallVec;

use crate::policy::rule::{End, Pattern, Rule, Segment};

/// Matches that are held without an allocation.
const MATCHES_INLINE: usize = 8;

/// The scope number of a rule that belongs to the service itself.
const NO_SCOPE: u32 = u32::MAX;

/// Where a rule stands in its service. Entries sort by their number, which is the order of insertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    number: u32,
    scope: u32,
    rule: u32,
}

impl Entry {
    /// The scope; `None` for the service itself.
    pub(super) fn scope(self) -> Option<usize> {
        (self.scope != NO_SCOPE).then_some(self.scope as usize)
    }

    /// The rule's place in its list.
    pub(super) fn rule(self) -> usize {
        self.rule as usize
    }
}

/// What matches a path.
pub(super) type Matches = SmallVec<[Entry; MATCHES_INLINE]>;

/// What a walk accepts at the end of the path.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// No slash.
    Plain,
    /// A slash.
    Slash,
    /// Both.
    Either,
}

/// A trie under construction. Node 0 is the root.
pub(super) struct Draft {
    nodes: Vec<DraftNode>,
    count: u32,
}

#[derive(Default)]
struct DraftNode {
    children: Vec<(Segment, usize)>,
    ends: Vec<(End, Entry)>,
}

impl Draft {
    pub(super) fn new() -> Self {
        Self { nodes: vec![DraftNode::default()], count: 0 }
    }

    /// Adds the rules of a scope, or of the service itself.
    pub(super) fn insert_all(&mut self, scope: Option<usize>, rules: &[Rule]) {
        for (at, rule) in rules.iter().enumerate() {
            let entry = Entry { number: self.count, scope: scope.map_or(NO_SCOPE, number), rule: number(at) };
            self.count += 1;
            let Pattern { segments, end } = &rule.path;
            let node = segments.iter().fold(0, |node, segment| self.child(node, segment));
            self.nodes[node].ends.push((*end, entry));
        }
    }

    fn child(&mut self, parent: usize, segment: &Segment) -> usize {
        if let Some((_, node)) = self.nodes[parent].children.iter().find(|(known, _)| known == segment) {
            return *node;
        }
        let fresh = self.nodes.len();
        self.nodes[parent].children.push((segment.clone(), fresh));
        self.nodes.push(DraftNode::default());
        fresh
    }

    /// Lays the trie flat.
    pub(super) fn finish(mut self) -> Trie {
        let mut flat = Flat::default();
        self.place(0, &mut flat);
        Trie { nodes: flat.nodes.into(), edges: flat.edges.into(), ends: flat.ends.into(), texts: flat.texts.into() }
    }

    /// Places a node, and what is below it right behind it; as deep as the deepest rule.
    fn place(&mut self, node: usize, flat: &mut Flat) -> u32 {
        let DraftNode { mut children, mut ends } = std::mem::take(&mut self.nodes[node]);
        children.sort_by(|(a, _), (b, _)| key(a).cmp(&key(b)));
        ends.sort_by_key(|(end, entry)| (*end, *entry));
        let until = |end: End| number(flat.ends.len() + ends.iter().filter(|(own, _)| *own <= end).count());
        let literals = children.iter().filter(|(segment, _)| matches!(segment, Segment::Literal(_))).count();
        let first = flat.edges.len();
        let placed = number(flat.nodes.len());
        flat.nodes.push(Node {
            literals: number(first),
            captures: number(first + literals),
            captures_end: number(first + children.len()),
            plain: number(flat.ends.len()),
            slash: until(End::Plain),
            rest: until(End::Slash),
            rest_end: until(End::Rest),
        });
        flat.ends.extend(ends.iter().map(|(_, entry)| *entry));
        for (segment, _) in &children {
            let text = flat.text_of(segment);
            flat.edges.push(Edge { text, node: 0 });
        }
        for (at, (_, child)) in children.iter().enumerate() {
            flat.edges[first + at].node = self.place(*child, flat);
        }
        placed
    }
}

/// A position in a trie. A file with four thousand million rules or bytes of path does not exist.
fn number(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// The order of edges: literals, then captures, each by length and then by bytes, so that most comparisons in a search
/// end at the length.
fn key(segment: &Segment) -> (bool, usize, &str) {
    match segment {
        Segment::Literal(text) => (false, text.len(), text),
        Segment::Capture(beginning) => (true, beginning.len(), beginning),
    }
}

#[derive(Default)]
struct Flat {
    nodes: Vec<Node>,
    edges: Vec<Edge>,
    ends: Vec<Entry>,
    texts: String,
}

impl Flat {
    /// Where the text of a segment stands; texts that are there already are shared.
    fn text_of(&mut self, segment: &Segment) -> Text {
        let (_, length, text) = key(segment);
        let start = self.texts.find(text).unwrap_or_else(|| {
            self.texts.push_str(text);
            self.texts.len() - length
        });
        Text { start: number(start), length: number(length) }
    }
}

/// The rules of one side of a service.
pub(super) struct Trie {
    nodes: Box<[Node]>,
    edges: Box<[Edge]>,
    ends: Box<[Entry]>,
    texts: Box<str>,
}

/// Each field says where its part begins; the next one, where it ends.
struct Node {
    literals: u32,
    captures: u32,
    captures_end: u32,
    plain: u32,
    slash: u32,
    rest: u32,
    rest_end: u32,
}

struct Edge {
    text: Text,
    node: u32,
}

#[derive(Clone, Copy)]
struct Text {
    start: u32,
    length: u32,
}

impl Trie {
    /// True when there is no rule in it.
    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Collects what matches, in no order. Visits a node once at most, since one way alone leads to each.
    pub(super) fn walk(&self, segments: &[&str], ending: Ending, matches: &mut Matches) {
        self.walk_from(0, segments, ending, matches);
    }

    fn walk_from(&self, node: u32, segments: &[&str], ending: Ending, matches: &mut Matches) {
        let node = &self.nodes[node as usize];
        let Some((first, rest)) = segments.split_first() else {
            let start = if ending == Ending::Slash { node.slash } else { node.plain };
            let end = if ending == Ending::Plain { node.slash } else { node.rest };
            matches.extend_from_slice(&self.ends[start as usize..end as usize]);
            return;
        };
        matches.extend_from_slice(&self.ends[node.rest as usize..node.rest_end as usize]);
        let literals = &self.edges[node.literals as usize..node.captures as usize];
        let wanted =
            |edge: &Edge| (edge.text.length as usize).cmp(&first.len()).then_with(|| self.text(edge.text).cmp(first));
        if let Ok(at) = literals.binary_search_by(wanted) {
            self.walk_from(literals[at].node, rest, ending, matches);
        }
        for edge in &self.edges[node.captures as usize..node.captures_end as usize] {
            let beginning = self.text(edge.text);
            if first.len() > beginning.len() && first.starts_with(beginning) {
                self.walk_from(edge.node, rest, ending, matches);
            }
        }
    }

    fn text(&self, Text { start, length }: Text) -> &str {
        &self.texts[start as usize..(start + length) as usize]
    }
}
