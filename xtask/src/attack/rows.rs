//! The rows of the catalogue. That they are whole and name tests that exist is tested in tests/it/catalogue.rs.

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::workspace::Workspace;

/// A row of tests/attacks/rows.
#[derive(Debug, Deserialize)]
pub struct Row {
    pub id: String,
    pub what: String,
    #[serde(default)]
    tests: Vec<String>,
    outside: Option<String>,
}

/// What a row says about itself.
pub enum State {
    Tests,
    Outside,
    Waiting,
}

impl Row {
    /// The letter of its class.
    pub fn class(&self) -> &str {
        self.id.get(..1).unwrap_or_default()
    }

    /// The tests that show it.
    pub fn tests(&self) -> &[String] {
        &self.tests
    }

    pub fn state(&self) -> State {
        if !self.tests.is_empty() {
            State::Tests
        } else if self.outside.is_some() {
            State::Outside
        } else {
            State::Waiting
        }
    }
}

#[derive(Deserialize)]
struct File {
    row: Vec<Row>,
}

/// The rows in a file's text.
pub fn parse(text: &str) -> anyhow::Result<Vec<Row>> {
    Ok(toml::from_str::<File>(text)?.row)
}

/// The rows of the catalogue, in order: all, or those of the classes and rows named.
pub fn read(workspace: &Workspace, only: &[String]) -> anyhow::Result<Vec<Row>> {
    let mut paths = Vec::new();
    for entry in workspace.root.join("tests/attacks/rows").read_dir().context("tests/attacks/rows")? {
        paths.push(entry?.path());
    }
    paths.sort();
    let mut rows = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        rows.extend(parse(&text).with_context(|| path.display().to_string())?);
    }
    let is_meant =
        |row: &Row, word: &String| row.id.eq_ignore_ascii_case(word) || row.class().eq_ignore_ascii_case(word);
    if let Some(word) = only.iter().find(|word| !rows.iter().any(|row| is_meant(row, word))) {
        bail!("the catalogue has no class and no row {word}");
    }
    rows.retain(|row| only.is_empty() || only.iter().any(|word| is_meant(row, word)));
    Ok(rows)
}
