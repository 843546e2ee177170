//! The walk over the file: tables and values that know where they stand and say what is wrong with them.

use std::cell::RefCell;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::duration;
use super::mistake::{Code, Finding};

/// Longest key, name or word of the file that a sentence repeats, in characters.
const ECHO_CHARACTERS_MAX: usize = 64;

/// Edits that a word may be away from the one that was probably meant.
const EDITS_MAX: usize = 2;

/// What the walk has found so far.
#[derive(Default)]
pub(super) struct Notes {
    findings: RefCell<Vec<Finding>>,
    warnings: RefCell<Vec<String>>,
}

impl Notes {
    pub(super) fn warn(&self, sentence: String) {
        self.warnings.borrow_mut().push(sentence);
    }

    pub(super) fn find(&self, finding: Finding) {
        self.findings.borrow_mut().push(finding);
    }

    pub(super) fn into_parts(self) -> (Vec<Finding>, Vec<String>) {
        (self.findings.into_inner(), self.warnings.into_inner())
    }
}

/// Where something stands: in the file, or in the preset that the file names there.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) span: Range<usize>,
    pub(super) preset: Option<&'static str>,
}

/// The keys of a table.
pub(super) struct Keys {
    /// Enforced.
    pub(super) known: &'static [&'static str],
    /// Part of the policy, and not enforced by this build.
    pub(super) later: &'static [&'static str],
}

/// A table with the way to it.
pub(super) struct Section<'a> {
    table: &'a DeTable<'a>,
    /// What a preset says where the file says nothing.
    fallback: Option<(&'a DeTable<'a>, Place)>,
    /// The preset that was to fill it is not there: what is missing is not the file's mistake.
    lacks_preset: bool,
    place: Place,
    key: String,
    notes: &'a Notes,
}

/// A value with the way to it.
#[derive(Clone)]
pub(super) struct Node<'a> {
    value: &'a DeValue<'a>,
    place: Place,
    key: String,
    notes: &'a Notes,
}

/// A key of the file and the table behind it: `[services.NAME]`.
pub(super) struct Named<'a> {
    pub(super) name: &'a str,
    /// The key itself.
    pub(super) label: Node<'a>,
    pub(super) value: Node<'a>,
}

impl<'a> Section<'a> {
    /// The whole file.
    pub(super) fn root(table: &'a DeTable<'a>, notes: &'a Notes) -> Self {
        let place = Place { span: 0..0, preset: None };
        Self { table, fallback: None, lacks_preset: false, place, key: String::new(), notes }
    }

    /// Lets a preset speak where the file is silent; `at` is where the file names it.
    pub(super) fn with_preset(mut self, name: &'static str, table: &'a DeTable<'a>, at: &Node<'a>) -> Self {
        self.fallback = Some((table, Place { span: at.place.span.clone(), preset: Some(name) }));
        self
    }

    /// Lets what a preset would have filled be missing.
    pub(super) fn without_preset(mut self) -> Self {
        self.lacks_preset = true;
        self
    }

    pub(super) fn notes(&self) -> &'a Notes {
        self.notes
    }

    pub(super) fn get(&self, name: &str) -> Option<Node<'a>> {
        let own = self.table.get(name).map(|value| (value, None));
        let (value, preset) = own.or_else(|| {
            let (table, place) = self.fallback.as_ref()?;
            table.get(name).map(|value| (value, Some(place.clone())))
        })?;
        let inherited = preset.or_else(|| self.place.preset.map(|_| self.place.clone()));
        let place = inherited.unwrap_or(Place { span: value.span(), preset: None });
        Some(Node { value: value.get_ref(), place, key: self.path(name), notes: self.notes })
    }

    /// The value of a key that has to be there.
    pub(super) fn require(&self, name: &str, hint: &str) -> Option<Node<'a>> {
        let node = self.get(name);
        if node.is_none() && !self.lacks_preset {
            self.fault(Code::Missing, format!("`{name}` is missing"), hint);
        }
        node
    }

    /// Where it begins in the file, in bytes.
    pub(super) fn start(&self) -> usize {
        self.place.span.start
    }

    /// The keys in the order of the file.
    pub(super) fn entries(&self) -> Vec<Named<'a>> {
        let mut entries: Vec<_> = self.table.iter().map(|(key, value)| self.named(key, value)).collect();
        entries.sort_by_key(|entry| entry.label.place.span.start);
        entries
    }

    fn named(&self, key: &'a Spanned<DeString<'a>>, value: &'a Spanned<DeValue<'a>>) -> Named<'a> {
        let path = self.path(key.get_ref());
        let at = |span| match self.place.preset {
            Some(_) => self.place.clone(),
            None => Place { span, preset: None },
        };
        let node = |span| Node { value: value.get_ref(), place: at(span), key: path.clone(), notes: self.notes };
        Named { name: key.get_ref(), label: node(key.span()), value: node(value.span()) }
    }

    /// Says of each key that it is unknown, or known and not enforced.
    pub(super) fn check_keys(&self, keys: &Keys) {
        for entry in self.entries() {
            if keys.later.contains(&entry.name) {
                entry.label.not_supported(&format!("`{}`", entry.name));
            } else if !keys.known.contains(&entry.name) {
                let hint = did_you_mean(entry.name, keys.known.iter().copied())
                    .unwrap_or_else(|| format!("known here: {}", keys.known.join(", ")));
                entry.label.fault(Code::UnknownKey, format!("there is no key `{}`", echo(entry.name)), hint);
            }
        }
    }

    pub(super) fn fault(&self, code: Code, message: String, hint: impl Into<String>) {
        note(self.notes, code, &self.place, &self.key, (message, hint.into()), false);
    }

    fn path(&self, name: &str) -> String {
        let plain = !name.is_empty() && name.bytes().all(is_plain);
        let name = if plain { echo(name) } else { format!("\"{}\"", echo(name)) };
        if self.key.is_empty() { name } else { format!("{}.{name}", self.key) }
    }
}

impl<'a> Node<'a> {
    pub(super) fn string(&self) -> Option<&'a str> {
        let text = self.value.as_str();
        self.expect(text, "a string")
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        self.expect(self.value.as_bool(), "true or false")
    }

    /// A whole number from `min` to `max`.
    pub(super) fn number(&self, min: u32, max: u32) -> Option<u32> {
        let integer = self.expect(self.value.as_integer(), "a whole number")?;
        let number = u32::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number = number.filter(|number| (min..=max).contains(number));
        if number.is_none() {
            self.fault(Code::BadValue, "is out of range".to_owned(), format!("a whole number from {min} to {max}"));
        }
        number
    }

    /// A time like `5m` or `1h30m`, over 0 and at most [`duration::DURATION_MAX`].
    pub(super) fn duration(&self) -> Option<Duration> {
        let text = self.string()?;
        let parsed = duration::parse(text);
        match parsed {
            Ok(time) => Some(time),
            Err(problem) => {
                self.fault(Code::BadValue, problem.to_string(), "write a time like \"90s\", \"5m\" or \"1h30m\"");
                None
            }
        }
    }

    /// The values of a list, at most `max`.
    pub(super) fn list(&self, max: usize) -> Option<Vec<Node<'a>>> {
        let values = self.expect(self.value.as_array(), "a list")?;
        if values.len() > max {
            self.fault(Code::TooLarge, format!("has {} entries", values.len()), format!("at most {max}"));
            return None;
        }
        let child = |(index, value): (usize, &'a Spanned<DeValue<'a>>)| {
            let place = match self.place.preset {
                Some(_) => self.place.clone(),
                None => Place { span: value.span(), preset: None },
            };
            Node { value: value.get_ref(), place, key: format!("{}[{index}]", self.key), notes: self.notes }
        };
        Some(values.iter().enumerate().map(child).collect())
    }

    /// The values of a list that must have some.
    pub(super) fn filled_list(&self, max: usize, hint: &str) -> Option<Vec<Node<'a>>> {
        let list = self.list(max)?;
        if list.is_empty() {
            self.fault(Code::Empty, "is empty".to_owned(), hint);
            return None;
        }
        Some(list)
    }

    /// The table of this value; what is wrong with it as a whole is said at `label`.
    pub(super) fn section_at(&self, label: &Node<'a>) -> Option<Section<'a>> {
        let table = self.expect(self.value.as_table(), "a table")?;
        let place = label.place.clone();
        Some(Section { table, fallback: None, lacks_preset: false, place, key: self.key.clone(), notes: self.notes })
    }

    pub(super) fn section(&self) -> Option<Section<'a>> {
        self.section_at(self)
    }

    pub(super) fn is_table(&self) -> bool {
        self.value.is_table()
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let text = self.string()?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let all: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            let hint = did_you_mean(text, all.iter().copied()).unwrap_or_else(|| format!("one of {}", all.join(", ")));
            self.fault(Code::BadValue, "is not a word that this key takes".to_owned(), hint);
        }
        found
    }

    /// A name that one of the model's types takes.
    pub(super) fn name<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, crate::model::name::NameError>,
    ) -> Option<T> {
        match parse(name) {
            Ok(name) => Some(name),
            Err(problem) => {
                self.fault(Code::BadValue, format!("the name {problem}"), "shorten or respell it");
                None
            }
        }
    }

    /// The key or source is known to the policy, and this build would not enforce it.
    pub(super) fn not_supported(&self, what: &str) {
        let message = format!("{what} is known, and not enforced by this build");
        self.fault(Code::NotSupported, message, "take it out: what is not enforced must not look as if it were");
    }

    /// A name that nothing in the file has; `kind` is `agent`, `place` is empty or ` in …`.
    pub(super) fn dangling<'n>(&self, (kind, place): (&str, &str), name: &str, there: impl Iterator<Item = &'n str>) {
        let there: Vec<_> = there.collect();
        let hint = did_you_mean(name, there.iter().copied()).unwrap_or_else(|| match there.len() {
            0 => format!("the file has no {kind}"),
            1..=8 => format!("there is {}", there.iter().map(|name| echo(name)).collect::<Vec<_>>().join(", ")),
            n => format!("there are {n} others"),
        });
        self.visible_fault(Code::Dangling, format!("there is no {kind} `{}`{place}", echo(name)), hint);
    }

    pub(super) fn fault(&self, code: Code, message: String, hint: impl Into<String>) {
        note(self.notes, code, &self.place, &self.key, (message, hint.into()), false);
    }

    /// A mistake whose value helps to see it and cannot be a secret: a rule, a host, a slot, a name.
    pub(super) fn visible_fault(&self, code: Code, message: String, hint: impl Into<String>) {
        note(self.notes, code, &self.place, &self.key, (message, hint.into()), true);
    }

    pub(super) fn warn(&self, sentence: &str) {
        self.notes.warn(format!("{}: {sentence}", self.key));
    }

    pub(super) fn value(&self) -> &'a DeValue<'a> {
        self.value
    }

    /// The preset that it comes from.
    pub(super) fn preset(&self) -> Option<&'static str> {
        self.place.preset
    }

    fn expect<T>(&self, found: Option<T>, wanted: &str) -> Option<T> {
        if found.is_none() {
            self.fault(Code::WrongType, format!("is of type {}", self.value.type_str()), format!("write {wanted}"));
        }
        found
    }
}

fn note(notes: &Notes, code: Code, place: &Place, key: &str, (message, hint): (String, String), shows_value: bool) {
    let message = match place.preset {
        Some(preset) => format!("{message} (from preset {preset})"),
        None => message,
    };
    let shows_value = shows_value && place.preset.is_none();
    notes.find(Finding { code, span: place.span.clone(), key: key.to_owned(), message, hint, shows_value });
}

/// What stands in a key without quotes (TOML 1.0, keys).
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// A word of the file, short and without control characters, for a sentence.
pub(super) fn echo(text: &str) -> String {
    // As nearly every key is: each has its path made, in case that there is something to say of it.
    if text.len() <= ECHO_CHARACTERS_MAX && text.bytes().all(is_plain) {
        return text.to_owned();
    }
    let mut shown: String = text.chars().take(ECHO_CHARACTERS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(ECHO_CHARACTERS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// A file's name for a sentence.
pub(super) fn echo_path(path: &std::path::Path) -> String {
    path.display()
        .to_string()
        .chars()
        .flat_map(|c| if c.is_control() { c.escape_debug().collect() } else { vec![c] })
        .collect()
}

/// `did you mean …?` with the nearest of `words`, if one is near.
pub(super) fn did_you_mean<'w>(word: &str, words: impl Iterator<Item = &'w str>) -> Option<String> {
    if word.len() > ECHO_CHARACTERS_MAX {
        return None;
    }
    let near = |candidate: &'w str| {
        let edits = edits(word.as_bytes(), candidate.as_bytes());
        (edits <= EDITS_MAX && edits < candidate.len()).then_some((edits, candidate))
    };
    let (_, best) = words.filter(|word| word.len() <= ECHO_CHARACTERS_MAX).filter_map(near).min()?;
    Some(format!("did you mean `{}`?", echo(best)))
}

/// Levenshtein distance, one row at a time.
fn edits(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(!x.eq_ignore_ascii_case(y));
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_meant() {
        let words = ["hosts", "slots", "scopes"];
        assert_eq!(did_you_mean("host", words.into_iter()).as_deref(), Some("did you mean `hosts`?"));
        assert_eq!(did_you_mean("slosts", words.into_iter()).as_deref(), Some("did you mean `slots`?"));
        assert_eq!(did_you_mean("webhooks", words.into_iter()), None);
        assert_eq!(did_you_mean("x", ["ab"].into_iter()), None);
    }

    #[test]
    fn what_is_repeated_cannot_drive_a_terminal() {
        assert_eq!(echo("a\u{1b}[31m\n"), "a\\u{1b}[31m\\n");
        assert_eq!(echo(&"x".repeat(70)).chars().count(), ECHO_CHARACTERS_MAX + 1);
    }
}
