//! Reads members of objects and collects every mistake with its JSON pointer (RFC 6901).

use std::collections::HashSet;

use crate::control::refusal::Refusal;
use crate::control::types::Mistake;
use crate::json::Json;

/// Mistakes that are reported at most.
pub(super) const MISTAKES_MAX: usize = 32;
/// Characters of a name of the caller's that are repeated in a pointer at most.
const POINTER_PART_CHARACTERS_MAX: usize = 64;

/// Collects what is wrong.
#[derive(Default)]
pub(super) struct Reader {
    mistakes: Vec<Mistake>,
}

/// The members of an object that was checked.
pub(super) struct Members<'a> {
    pointer: String,
    members: &'a [(String, Json)],
}

impl<'a> Members<'a> {
    pub(super) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// A member that may be there, with its pointer.
    pub(super) fn find(&self, name: &str) -> Option<(String, &'a Json)> {
        let (_, json) = self.members.iter().find(|(known, _)| known == name)?;
        Some((join(&self.pointer, name), json))
    }
}

/// Appends a part to a pointer.
pub(super) fn join(pointer: &str, part: &str) -> String {
    let part: String = part.chars().take(POINTER_PART_CHARACTERS_MAX).collect();
    format!("{pointer}/{}", part.replace('~', "~0").replace('/', "~1"))
}

impl Reader {
    pub(super) fn mistake(&mut self, pointer: &str, detail: impl Into<String>) {
        if self.mistakes.len() < MISTAKES_MAX {
            self.mistakes.push(Mistake::at(pointer, detail));
        }
    }

    /// What was read, if nothing was wrong.
    pub(super) fn finish<T>(self, read: Option<T>) -> Result<T, Refusal> {
        match read {
            _ if !self.mistakes.is_empty() => Err(Refusal::InvalidRequest(self.mistakes)),
            Some(read) => Ok(read),
            None => Err(Refusal::InvalidRequest(self.mistakes)),
        }
    }

    /// An object with these members and no others, each once.
    pub(super) fn object<'a>(&mut self, json: &'a Json, pointer: &str, known: &[&str]) -> Option<Members<'a>> {
        let members = self.free_object(json, pointer, usize::MAX)?;
        for (name, _) in members {
            if !known.contains(&name.as_str()) {
                self.mistake(&join(pointer, name), "is not a field of this call");
            }
        }
        Some(Members { pointer: pointer.to_owned(), members })
    }

    /// An object with any members, each once.
    pub(super) fn free_object<'a>(
        &mut self,
        json: &'a Json,
        pointer: &str,
        members_max: usize,
    ) -> Option<&'a [(String, Json)]> {
        let Json::Object(members) = json else {
            self.mistake(pointer, "must be an object");
            return None;
        };
        if members.len() > members_max {
            self.mistake(pointer, format!("must have at most {members_max} members"));
            return None;
        }
        let mut seen = HashSet::new();
        for (name, _) in members {
            if !seen.insert(name) {
                self.mistake(&join(pointer, name), "is there twice");
            }
        }
        Some(members)
    }

    /// An array that is neither empty nor too long.
    pub(super) fn array<'a>(&mut self, json: &'a Json, pointer: &str, items_max: usize) -> Option<&'a [Json]> {
        if let Json::Array(items) = json
            && (1..=items_max).contains(&items.len())
        {
            return Some(items);
        }
        self.mistake(pointer, format!("must be an array of 1 to {items_max} items"));
        None
    }

    /// A member that must be there, with its pointer.
    pub(super) fn member<'a>(&mut self, members: &Members<'a>, name: &str) -> Option<(String, &'a Json)> {
        let found = members.find(name);
        if found.is_none() {
            self.mistake(&join(&members.pointer, name), "is missing");
        }
        found
    }

    /// A value, parsed; the parser says what is wrong.
    pub(super) fn value<T>(
        &mut self,
        json: &Json,
        pointer: &str,
        parse: impl Fn(&Json) -> Result<T, String>,
    ) -> Option<T> {
        parse(json).map_err(|problem| self.mistake(pointer, problem)).ok()
    }

    pub(super) fn required<T>(
        &mut self,
        members: &Members<'_>,
        name: &str,
        parse: impl Fn(&Json) -> Result<T, String>,
    ) -> Option<T> {
        let (pointer, json) = self.member(members, name)?;
        self.value(json, &pointer, parse)
    }

    pub(super) fn optional<T>(
        &mut self,
        members: &Members<'_>,
        name: &str,
        parse: impl Fn(&Json) -> Result<T, String>,
    ) -> Option<T> {
        let (pointer, json) = members.find(name)?;
        self.value(json, &pointer, parse)
    }
}
