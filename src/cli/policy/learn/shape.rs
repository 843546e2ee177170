//! Paths of one shape, folded together while the audit streams by: what is held grows with the shapes, not with the
//! requests.

use std::collections::BTreeMap;

use super::record::{Outcome, Request};
use super::segment::prefix_of_id;
use crate::model::{AgentName, Risk, ServiceName};

/// Shapes that are held at most.
pub(super) const SHAPES_MAX: usize = 20_000;

/// Too many shapes.
#[derive(Debug)]
pub(super) struct Full;

/// All that was seen.
pub(super) struct Seen {
    /// By agent and service.
    pub(super) groups: BTreeMap<(AgentName, ServiceName), Group>,
    shapes: usize,
    many: usize,
}

/// What an agent asked of a service.
#[derive(Default)]
pub(super) struct Group {
    pub(super) shapes: BTreeMap<Shape, Tally>,
    /// The greatest of the scopes that allowed something.
    pub(super) risk: Option<Risk>,
}

/// What requests have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shape {
    pub(super) method: String,
    pub(super) host: String,
    pub(super) parts: Vec<Part>,
    pub(super) trailing_slash: bool,
    /// A segment held `%2F`.
    pub(super) encoded_slash: bool,
}

/// One segment, decoded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// This text.
    Literal(String),
    /// An id with this beginning.
    Id(String),
}

/// How often a shape was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) allowed: u64,
    pub(super) observed: u64,
    pub(super) refused: u64,
    /// Beside each id of the shape, in order.
    pub(super) values: Vec<Value>,
}

/// What stood in the place of an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// Always this.
    One(String),
    /// More than one.
    Several,
}

impl Seen {
    /// Nothing yet. So `many` words in one place count as ids.
    pub(super) fn new(many: usize) -> Self {
        Self { groups: BTreeMap::new(), shapes: 0, many }
    }

    /// Adds a request.
    ///
    /// # Errors
    /// [`Full`], where folding does not help.
    pub(super) fn add(&mut self, request: Request) -> Result<(), Full> {
        let (shape, values) = Shape::of(&request);
        let group = self.groups.entry((request.agent, request.service)).or_default();
        group.risk = group.risk.max(request.risk);
        let (allowed, observed, refused) = match request.outcome {
            Outcome::Allowed => (1, 0, 0),
            Outcome::Observed => (0, 1, 0),
            Outcome::Refused => (0, 0, 1),
        };
        self.shapes += group.add(shape, Tally { allowed, observed, refused, values });
        if self.shapes < SHAPES_MAX {
            return Ok(());
        }
        self.fold();
        // Little room left would mean folding at every other request.
        if self.shapes > SHAPES_MAX / 2 { Err(Full) } else { Ok(()) }
    }

    /// Makes ids of words of which there are many in one place.
    pub(super) fn fold(&mut self) {
        let many = self.many;
        self.groups.values_mut().for_each(|group| group.fold(many));
        self.shapes = self.groups.values().map(|group| group.shapes.len()).sum();
    }
}

impl Shape {
    fn of(request: &Request) -> (Self, Vec<Value>) {
        let mut values = Vec::new();
        let part = |segment: &str| match prefix_of_id(segment) {
            Some(prefix) => {
                values.push(Value::One(segment.to_owned()));
                Part::Id(prefix.to_owned())
            }
            None => Part::Literal(segment.to_owned()),
        };
        let parts = request.target.segments().map(part).collect();
        let shape = Self {
            method: request.method.clone(),
            host: request.host.to_string(),
            parts,
            trailing_slash: request.target.has_trailing_slash(),
            encoded_slash: request.target.has_encoded_slash(),
        };
        (shape, values)
    }

    /// The same, with an id in this place.
    fn with_id_at(&self, at: usize) -> Self {
        let mut shape = self.clone();
        shape.parts[at] = Part::Id(String::new());
        shape
    }
}

impl Group {
    /// Adds to a shape; gives the number of shapes that this made.
    fn add(&mut self, shape: Shape, tally: Tally) -> usize {
        match self.shapes.entry(shape) {
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(tally);
                1
            }
            std::collections::btree_map::Entry::Occupied(mut known) => {
                known.get_mut().add(&tally);
                0
            }
        }
    }

    /// From the last segment to the first, so that `/repos/OWNER/REPO` folds in both.
    fn fold(&mut self, many: usize) {
        let depth = self.shapes.keys().map(|shape| shape.parts.len()).max().unwrap_or(0);
        for at in (0..depth).rev() {
            let mut words: BTreeMap<Shape, usize> = BTreeMap::new();
            for shape in self.shapes.keys().filter(|shape| shape.has_word_at(at)) {
                *words.entry(shape.with_id_at(at)).or_default() += 1;
            }
            words.retain(|_, count| *count >= many);
            if !words.is_empty() {
                self.fold_at(at, &words);
            }
        }
    }

    fn fold_at(&mut self, at: usize, folded: &BTreeMap<Shape, usize>) {
        for (shape, mut tally) in std::mem::take(&mut self.shapes) {
            let wide = if shape.has_word_at(at) { Some(shape.with_id_at(at)) } else { None };
            match wide.filter(|wide| folded.contains_key(wide)) {
                None => self.add(shape, tally),
                Some(wide) => {
                    let before = shape.parts[..at].iter().filter(|part| matches!(part, Part::Id(_))).count();
                    tally.values.insert(before, Value::Several);
                    self.add(wide, tally)
                }
            };
        }
    }
}

impl Shape {
    fn has_word_at(&self, at: usize) -> bool {
        matches!(self.parts.get(at), Some(Part::Literal(_)))
    }
}

impl Tally {
    /// All of them.
    pub(super) fn requests(&self) -> u64 {
        self.allowed + self.observed + self.refused
    }

    fn add(&mut self, other: &Self) {
        self.allowed += other.allowed;
        self.observed += other.observed;
        self.refused += other.refused;
        for (own, others) in self.values.iter_mut().zip(&other.values) {
            if own != others {
                *own = Value::Several;
            }
        }
    }
}
