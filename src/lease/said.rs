//! What a minter may say of a lease and mostly does not, in one piece of memory.

use std::fmt;

use super::NewLease;

/// What a part is; a label is a name, followed by its value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Instance = 1,
    OnBehalfOf,
    Reason,
    LabelName,
    LabelValue,
    Line,
}

/// From this length on it is spelled out in eight bytes, after this byte.
const LONG: u8 = u8::MAX;

/// All that was said, part after part: what it is, its length, its text. Labels come last, in their order.
pub(super) struct Said(Box<[u8]>);

impl Said {
    /// Of these terms; `None` where nothing was said.
    pub(super) fn of(terms: &NewLease) -> Option<Self> {
        let NewLease { instance, on_behalf_of, reason, labels, lines, .. } = terms;
        let mut bytes = Vec::new();
        for (kind, text) in [(Kind::Instance, instance), (Kind::OnBehalfOf, on_behalf_of), (Kind::Reason, reason)] {
            if let Some(text) = text {
                put(&mut bytes, kind, text);
            }
        }
        for line in lines {
            put(&mut bytes, Kind::Line, line);
        }
        for (name, value) in labels {
            put(&mut bytes, Kind::LabelName, name);
            put(&mut bytes, Kind::LabelValue, value);
        }
        (!bytes.is_empty()).then(|| Self(bytes.into()))
    }

    pub(super) fn instance(&self) -> Option<&str> {
        self.first(Kind::Instance)
    }

    pub(super) fn on_behalf_of(&self) -> Option<&str> {
        self.first(Kind::OnBehalfOf)
    }

    pub(super) fn reason(&self) -> Option<&str> {
        self.first(Kind::Reason)
    }

    pub(super) fn labels(&self) -> Labels<'_> {
        Labels(&self.0)
    }

    pub(super) fn lines(&self) -> Lines<'_> {
        Lines(&self.0)
    }

    fn first(&self, kind: Kind) -> Option<&str> {
        Parts(&self.0).find(|part| part.0 == kind as u8).map(|(_, text)| text)
    }
}

fn put(bytes: &mut Vec<u8>, kind: Kind, text: &str) {
    bytes.push(kind as u8);
    match u8::try_from(text.len()) {
        Ok(length) if length != LONG => bytes.push(length),
        Ok(_) | Err(_) => {
            bytes.push(LONG);
            bytes.extend((text.len() as u64).to_le_bytes());
        }
    }
    bytes.extend(text.as_bytes());
}

/// The parts, each with its kind. What is here was put here by [`put`]: nothing is ever too short, or no text.
struct Parts<'a>(&'a [u8]);

impl<'a> Iterator for Parts<'a> {
    type Item = (u8, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let [kind, length, rest @ ..] = self.0 else { return None };
        let (length, rest) = match (*length, rest.split_first_chunk()) {
            (LONG, Some((length, rest))) => (usize::try_from(u64::from_le_bytes(*length)).ok()?, rest),
            (length, _) => (usize::from(length), rest),
        };
        let (text, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((*kind, std::str::from_utf8(text).ok()?))
    }
}

/// Labels of a lease, as the minter said, in the order of their names.
#[derive(Clone, Copy, Default)]
pub struct Labels<'a>(&'a [u8]);

impl<'a> Labels<'a> {
    /// Each name with its value.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let mut parts = Parts(self.0).skip_while(|part| part.0 != Kind::LabelName as u8);
        std::iter::from_fn(move || Some((parts.next()?.1, parts.next()?.1)))
    }
}

/// The list of its own of a lease, as it was delegated.
#[derive(Clone, Copy, Default)]
pub struct Lines<'a>(&'a [u8]);

impl<'a> Lines<'a> {
    /// Each line.
    pub fn iter(self) -> impl Iterator<Item = &'a str> {
        Parts(self.0).filter(|part| part.0 == Kind::Line as u8).map(|(_, text)| text)
    }
}

impl fmt::Debug for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl fmt::Debug for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::lease::tests::terms;

    #[test]
    fn each_part_comes_back_whatever_its_length() {
        for length in [0, 1, 254, 255, 256, 70_000] {
            let text = "ä".repeat(length / 2) + &"x".repeat(length % 2);
            let labels = BTreeMap::from([("a".to_owned(), text.clone()), (text.clone() + "b", String::new())]);
            let new = NewLease { reason: Some(text.clone()), labels: labels.clone(), ..terms() };
            let said = Said::of(&new).unwrap();
            assert_eq!((said.instance(), said.on_behalf_of(), said.reason()), (None, None, Some(text.as_str())));
            let back: BTreeMap<_, _> = said.labels().iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
            assert_eq!(back, labels);
        }
    }

    #[test]
    fn nothing_is_something_else_than_an_empty_text() {
        assert!(Said::of(&terms()).is_none());
        let empty = || Some(String::new());
        let said = Said::of(&NewLease { instance: empty(), on_behalf_of: empty(), ..terms() }).unwrap();
        assert_eq!((said.instance(), said.on_behalf_of(), said.reason()), (Some(""), Some(""), None));
        assert_eq!((said.labels().iter().count(), Labels::default().iter().count()), (0, 0));
    }

    #[test]
    fn a_text_that_looks_like_a_part_is_none() {
        let text = String::from_utf8(vec![Kind::LabelName as u8, 1, b'x', Kind::LabelValue as u8, 0]).unwrap();
        let said = Said::of(&NewLease { instance: Some(text.clone()), ..terms() }).unwrap();
        assert_eq!((said.instance(), said.reason()), (Some(text.as_str()), None));
        assert_eq!(format!("{:?}", said.labels()), "{}");
    }
}
