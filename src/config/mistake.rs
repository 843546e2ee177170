//! What is wrong with a policy file: every mistake, where it stands, and what to do about it.

use std::fmt;
use std::io::IsTerminal;
use std::ops::Range;
use std::sync::Arc;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};

use super::mask;

/// Mistakes that are kept and shown; of the others only the number is.
pub const MISTAKES_SHOWN_MAX: usize = 200;

/// Width of the reports for people, in columns.
const REPORT_WIDTH_COLUMNS: usize = 110;

/// What kind of mistake it is: stable, for scripts and tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The file is not there, is not a regular file, or may not be read.
    Unreadable,
    /// The file is over [`super::POLICY_BYTES_MAX`], or one of its lists is over its limit.
    TooLarge,
    /// The file is not UTF-8.
    NotUtf8,
    /// The file is not TOML.
    Syntax,
    /// A key that no version of the policy knows.
    UnknownKey,
    /// A key, source, slot or word that the policy knows and this build does not enforce.
    NotSupported,
    /// A key that has to be there is not.
    Missing,
    /// A value of another type than the key takes.
    WrongType,
    /// A value that the key does not take.
    BadValue,
    /// A list that has to have something in it has nothing.
    Empty,
    /// The same thing twice.
    Duplicate,
    /// A name that nothing in the file has.
    Dangling,
    /// Something that could never take effect.
    Unreachable,
    /// A credential would go to a host that it may not go to.
    HostNotCovered,
    /// A time that is over its ceiling.
    CeilingExceeded,
    /// A command as a source, without `--allow-exec`.
    ExecNotAllowed,
    /// A minter that is an agent too.
    SelfMint,
    /// Something that looks like a real credential.
    SecretInPolicy,
}

impl Code {
    /// The stable word: `unknown_key`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::TooLarge => "too_large",
            Self::NotUtf8 => "not_utf8",
            Self::Syntax => "syntax",
            Self::UnknownKey => "unknown_key",
            Self::NotSupported => "not_supported",
            Self::Missing => "missing",
            Self::WrongType => "wrong_type",
            Self::BadValue => "bad_value",
            Self::Empty => "empty",
            Self::Duplicate => "duplicate",
            Self::Dangling => "dangling",
            Self::Unreachable => "unreachable",
            Self::HostNotCovered => "host_not_covered",
            Self::CeilingExceeded => "ceiling_exceeded",
            Self::ExecNotAllowed => "exec_not_allowed",
            Self::SelfMint => "self_mint",
            Self::SecretInPolicy => "secret_in_policy",
        }
    }

    /// True when a line that could not be read as TOML cannot have brought it about elsewhere in the file.
    pub(super) fn stands_beside_syntax_mistakes(self) -> bool {
        matches!(self, Self::UnknownKey | Self::NotSupported | Self::BadValue | Self::WrongType | Self::SecretInPolicy)
    }
}

/// One mistake. Sentence and hint hold no value that could be a secret.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Mistake {
    /// The file, as it was named.
    pub file: Arc<str>,
    /// From 1; 1 where the whole file is meant.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What kind.
    pub code: Code,
    /// The way to it: `services.stripe.scopes[0].risk`; empty where the whole file is meant.
    pub key: String,
    /// What is wrong, a sentence.
    pub message: String,
    /// What to do about it.
    pub hint: String,
    #[serde(skip)]
    span: Range<usize>,
    #[serde(skip)]
    shows_value: bool,
}

/// `file:line:column: sentence (hint)`, one line, never in colour.
impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}", self.message)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, " ({})", self.hint) }
    }
}

/// Every mistake of a policy file, in the order of the file. `Display` is one plain line each, [`Mistakes::report`] is
/// for people, [`Mistakes::items`] for `--json`.
#[derive(Debug)]
pub struct Mistakes {
    items: Vec<Mistake>,
    left_out: usize,
    /// The file, shown masked alone; `None` where it is not TOML, since masking needs that.
    source: Option<Source>,
}

/// Colours of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// None.
    Plain,
    /// ANSI colours.
    Colour,
}

impl Look {
    /// Colour when standard error is a terminal and `NO_COLOR` is not set.
    #[must_use]
    pub fn of_stderr() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        if wanted && std::io::stderr().is_terminal() { Self::Colour } else { Self::Plain }
    }
}

impl Mistakes {
    /// The mistakes, at most [`MISTAKES_SHOWN_MAX`], in the order of the file; each serialises to a JSON object.
    #[must_use]
    pub fn items(&self) -> &[Mistake] {
        &self.items
    }

    /// How many more there are.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// For people: each mistake with its line of the file, in which every value that could be a secret is masked.
    #[must_use]
    pub fn report(&self, look: Look) -> String {
        let theme = match look {
            Look::Plain => GraphicalTheme::unicode_nocolor(),
            Look::Colour => GraphicalTheme::unicode(),
        };
        let handler = GraphicalReportHandler::new_themed(theme)
            .with_width(REPORT_WIDTH_COLUMNS)
            .with_context_lines(1)
            .with_links(false)
            .without_syntax_highlighting();
        let mut text = String::new();
        for mistake in &self.items {
            let shown = Shown { mistake, source: self.snippet(mistake) };
            if handler.render_report(&mut text, &shown).is_err() {
                text.push_str(&mistake.to_string());
            }
            text.push('\n');
        }
        text.push_str(&self.summary());
        text
    }

    fn snippet(&self, mistake: &Mistake) -> Option<NamedSource<String>> {
        let source = self.source.as_ref()?;
        let visible = if mistake.shows_value { mistake.span.clone() } else { 0..0 };
        Some(NamedSource::new(&*mistake.file, mask::masked(&source.text, visible)))
    }

    fn summary(&self) -> String {
        match self.items.len() + self.left_out {
            1 => "1 mistake; nothing of this file is in force\n".to_owned(),
            n if self.left_out == 0 => format!("{n} mistakes; nothing of this file is in force\n"),
            n => format!("{n} mistakes, the first {MISTAKES_SHOWN_MAX} shown; nothing of this file is in force\n"),
        }
    }

    /// The whole file is the mistake.
    pub(super) fn of_file(file: &Arc<str>, code: Code, message: &str, hint: &str) -> Self {
        let item = Mistake {
            file: Arc::clone(file),
            line: 1,
            column: 1,
            code,
            key: String::new(),
            message: message.to_owned(),
            hint: hint.to_owned(),
            span: 0..0,
            shows_value: false,
        };
        Self { items: vec![item], left_out: 0, source: None }
    }

    /// Puts findings in order and gives each its line and column.
    pub(super) fn locate(source: Source, mut findings: Vec<Finding>) -> Self {
        let readable = findings.iter().all(|finding| finding.code != Code::Syntax);
        findings.sort_by_key(|finding| finding.span.start);
        findings.dedup();
        let left_out = findings.len().saturating_sub(MISTAKES_SHOWN_MAX);
        findings.truncate(MISTAKES_SHOWN_MAX);
        let items = findings.into_iter().map(|finding| source.place(finding)).collect();
        Self { items, left_out, source: readable.then_some(source) }
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mistake in &self.items {
            writeln!(f, "{mistake}")?;
        }
        f.write_str(self.summary().trim_end())
    }
}

impl std::error::Error for Mistakes {}

/// A mistake before its line and column are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) code: Code,
    pub(super) span: Range<usize>,
    pub(super) key: String,
    pub(super) message: String,
    pub(super) hint: String,
    /// The value that the span covers cannot be a secret and helps to see the mistake.
    pub(super) shows_value: bool,
}

/// The text of a file and where its lines begin. Never printed: it can hold anything.
pub(super) struct Source {
    file: Arc<str>,
    text: String,
    lines: Vec<usize>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source(…)")
    }
}

impl Source {
    pub(super) fn new(file: Arc<str>, text: String) -> Self {
        let ends = memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1);
        let lines = std::iter::once(0).chain(ends).collect();
        Self { file, text, lines }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Index of the line that holds this byte, from 0.
    pub(super) fn line_of(&self, at: usize) -> usize {
        self.lines.partition_point(|start| *start <= at).saturating_sub(1)
    }

    /// The text of a line, with its end.
    pub(super) fn line(&self, index: usize) -> &str {
        let start = self.lines.get(index).copied().unwrap_or(self.text.len());
        let end = self.lines.get(index + 1).copied().unwrap_or(self.text.len());
        self.text.get(start..end).unwrap_or_default()
    }

    fn place(&self, finding: Finding) -> Mistake {
        let index = self.line_of(finding.span.start);
        let start = self.lines.get(index).copied().unwrap_or(0);
        let before = self.text.get(start..finding.span.start).unwrap_or_default();
        Mistake {
            file: Arc::clone(&self.file),
            line: index + 1,
            column: before.chars().count() + 1,
            code: finding.code,
            key: finding.key,
            message: finding.message,
            hint: finding.hint,
            span: finding.span,
            shows_value: finding.shows_value,
        }
    }
}

/// A mistake as miette draws it.
#[derive(Debug)]
struct Shown<'a> {
    mistake: &'a Mistake,
    source: Option<NamedSource<String>>,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.source, self.mistake.key.as_str()) {
            (None, _) => write!(f, "{}:{}:{}: ", self.mistake.file, self.mistake.line, self.mistake.column)?,
            (Some(_), "") => {}
            (Some(_), key) => write!(f, "{key}: ")?,
        }
        f.write_str(&self.mistake.message)
    }
}

impl std::error::Error for Shown<'_> {}

impl Diagnostic for Shown<'_> {
    fn code(&self) -> Option<Box<dyn fmt::Display + '_>> {
        Some(Box::new(self.mistake.code.as_str()))
    }
    fn help(&self) -> Option<Box<dyn fmt::Display + '_>> {
        let hint: &str = &self.mistake.hint;
        if hint.is_empty() { None } else { Some(Box::new(hint)) }
    }
    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|source| source as &dyn SourceCode)
    }
    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.source.as_ref()?;
        let span = self.mistake.span.clone();
        Some(Box::new(std::iter::once(LabeledSpan::underline(span))))
    }
}
