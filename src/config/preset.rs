//! Presets: what a well-known API looks like, versioned and built in.
//!
//! A preset speaks key by key where the file is silent. A published version never changes: what has to change gets
//! the next number.

use toml::de::DeTable;

use super::mistake::Code;
use super::section::{Node, did_you_mean};

/// All presets, in alphabetical order.
const SOURCES: [(&str, &str); 5] = [
    ("anthropic@1", include_str!("presets/anthropic@1.toml")),
    ("github@1", include_str!("presets/github@1.toml")),
    ("openai@1", include_str!("presets/openai@1.toml")),
    ("slack@1", include_str!("presets/slack@1.toml")),
    ("stripe@1", include_str!("presets/stripe@1.toml")),
];

/// The presets, parsed.
pub(super) struct Presets {
    tables: Vec<(&'static str, DeTable<'static>)>,
}

impl Presets {
    pub(super) fn new() -> Self {
        // They are part of the binary, and a test holds that each is TOML without a mistake.
        let parse = |(name, text)| (name, DeTable::parse_recoverable(text).0.into_inner());
        Self { tables: SOURCES.into_iter().map(parse).collect() }
    }

    /// The preset that the value of `preset = "NAME@VERSION"` names.
    pub(super) fn find(&self, node: &Node<'_>) -> Option<(&'static str, &DeTable<'static>)> {
        let name = node.string()?;
        let found = self.tables.iter().find(|(known, _)| *known == name).map(|(known, table)| (*known, table));
        if found.is_none() {
            let all: Vec<_> = names().collect();
            let hint = did_you_mean(name, names()).unwrap_or_else(|| format!("there is {}", all.join(", ")));
            node.visible_fault(Code::BadValue, "is not a preset of this build".to_owned(), hint);
        }
        found
    }
}

/// Names of the presets, with their versions: `github@1`.
pub fn names() -> impl Iterator<Item = &'static str> {
    SOURCES.iter().map(|(name, _)| *name)
}

/// The text of a preset, as `[services.NAME]` would spell it.
#[must_use]
pub fn text(name: &str) -> Option<&'static str> {
    SOURCES.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_toml_without_a_mistake() {
        for (name, text) in SOURCES {
            assert_eq!(DeTable::parse_recoverable(text).1, [], "{name}");
        }
    }
}
