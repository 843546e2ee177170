//! Licences, bans, duplicates and sources of the dependencies, checked against deny.toml without a network.
//!
//! A part of what cargo-deny does, on the same file: building cargo-deny takes minutes on a fresh machine, this takes a
//! moment. What it cannot read in deny.toml is an error, never ignored.

mod graph;
mod rules;

use std::collections::BTreeMap;

use anyhow::Context;

use crate::workspace::Workspace;
use graph::Package;
use rules::{Level, Rules};

/// The registry that cargo uses when nothing else is said, as Cargo.lock spells it.
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// What was found.
#[derive(Debug, Default)]
struct Findings {
    errors: Vec<String>,
    warnings: Vec<String>,
}

/// Checks the dependencies and prints what it found; true if nothing is denied.
pub fn run(workspace: &Workspace) -> anyhow::Result<bool> {
    let text = std::fs::read_to_string(workspace.root.join("deny.toml")).context("cannot read deny.toml")?;
    let rules: Rules = toml::from_str(&text).context("deny.toml")?;
    let packages = graph::packages(workspace, &rules.graph.targets)?;
    let findings = judge(&rules, &packages)?;
    for warning in &findings.warnings {
        eprintln!("warning: {warning}");
    }
    for error in &findings.errors {
        eprintln!("error: {error}");
    }
    let verdict = if findings.errors.is_empty() { "ok" } else { "FAILED" };
    let (errors, warnings) = (findings.errors.len(), findings.warnings.len());
    eprintln!("deny: {verdict}: {} packages, {errors} errors, {warnings} warnings", packages.len());
    Ok(findings.errors.is_empty())
}

fn judge(rules: &Rules, packages: &[Package]) -> anyhow::Result<Findings> {
    let mut findings = Findings::default();
    for package in packages {
        findings.errors.extend(licence(rules, package)?);
        findings.errors.extend(ban(rules, package));
        findings.note(rules.source_level(package), || source(package));
        findings.note(rules.bans.wildcards, || wildcard(package));
    }
    findings.note_all(rules.bans.multiple_versions, duplicates(packages));
    Ok(findings)
}

impl Findings {
    fn note(&mut self, level: Level, finding: impl FnOnce() -> Option<String>) {
        self.note_all(level, finding());
    }

    fn note_all(&mut self, level: Level, found: impl IntoIterator<Item = String>) {
        match level {
            Level::Deny => self.errors.extend(found),
            Level::Warn => self.warnings.extend(found),
            Level::Allow => {}
        }
    }
}

fn licence(rules: &Rules, package: &Package) -> anyhow::Result<Option<String>> {
    let Some(text) = &package.license else {
        return Ok(Some(format!("{package} names no licence")));
    };
    let expression = match spdx::Expression::parse_mode(text, spdx::ParseMode::LAX) {
        Ok(expression) => expression,
        Err(error) => return Ok(Some(format!("{package}: the licence {text:?} is not SPDX: {}", error.reason))),
    };
    let allowed = rules.licenses.parsed()?;
    let fits = expression.evaluate(|wanted| allowed.iter().any(|licensee| licensee.satisfies(wanted)));
    Ok((!fits).then(|| format!("{package}: the licence {text:?} is not allowed")))
}

fn ban(rules: &Rules, package: &Package) -> Option<String> {
    let banned = rules.bans.deny.iter().find(|banned| banned.name == package.name)?;
    Some(format!("{package} is banned: {}; needed by {}", banned.reason, package.needed_by()))
}

fn source(package: &Package) -> Option<String> {
    let source = package.source.as_deref()?;
    (source != CRATES_IO).then(|| format!("{package} comes from {source}"))
}

fn wildcard(package: &Package) -> Option<String> {
    let wild = package.wildcards.as_slice();
    (package.source.is_none() && !wild.is_empty())
        .then(|| format!("{package} takes any version of {}", wild.join(", ")))
}

fn duplicates(packages: &[Package]) -> Vec<String> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in packages {
        versions.entry(&package.name).or_default().push(&package.version);
    }
    versions.retain(|_, versions| versions.len() > 1);
    versions.into_iter().map(|(name, versions)| format!("{name} is here in {}", versions.join(" and "))).collect()
}

#[cfg(test)]
mod tests;
