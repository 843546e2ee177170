//! What a row of the catalogue says.
//!
//! Each is a `[[row]]` with `id`, `what` (the attack or the fault in a line), and one of:
//!
//! - `tests`: names of tests from outside, as `cargo test --test it -- --list` prints them. A row names a test only if
//!   that test shows the row, or `faults::KIND` for a kind of tests/faults (`cargo xtask faults --list`), which checks
//!   these names when it runs; with `limits` it says what of the row they do not show, and why
//! - `outside`: why the product does not promise it
//! - `waiting`: what is not built yet that it is about

use serde::Deserialize;

/// A row as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    pub id: String,
    pub what: String,
    pub tests: Option<Vec<String>>,
    pub limits: Option<String>,
    outside: Option<String>,
    waiting: Option<String>,
}

/// The one thing that a row says about itself.
#[derive(Debug)]
pub enum State<'a> {
    Tests(&'a [String]),
    Outside(&'a str),
    Waiting(&'a str),
}

impl Row {
    /// What it says, or what is wrong with it.
    pub fn state(&self) -> Result<State<'_>, &'static str> {
        let texts = [&self.limits, &self.outside, &self.waiting];
        if texts.into_iter().flatten().any(|text| text.trim().is_empty()) {
            return Err("a reason is empty");
        }
        if self.limits.is_some() && self.tests.is_none() {
            return Err("only what tests show has limits");
        }
        match (&self.tests, &self.outside, &self.waiting) {
            (Some(names), None, None) if !names.is_empty() => Ok(State::Tests(names)),
            (None, Some(why), None) => Ok(State::Outside(why)),
            (None, None, Some(why)) => Ok(State::Waiting(why)),
            _ => Err("exactly one of tests, outside and waiting"),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    row: Vec<Row>,
}

/// The rows in a file's text.
pub fn parse(text: &str) -> Result<Vec<Row>, toml::de::Error> {
    toml::from_str::<File>(text).map(|file| file.row)
}

/// The rows of a class.
pub fn of(class: char) -> Vec<Row> {
    let path = format!("{}/tests/attacks/rows/{class}.toml", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    parse(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}
