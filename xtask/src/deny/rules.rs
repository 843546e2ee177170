//! deny.toml: the part of cargo-deny's format that is used here.

use anyhow::anyhow;
use serde::Deserialize;
use spdx::{Licensee, ParseMode};

use super::graph::Package;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    pub graph: Graph,
    pub licenses: Licenses,
    pub bans: Bans,
    pub sources: Sources,
}

/// Which packages count.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Graph {
    /// Target triples; a dependency of other targets alone is not looked at.
    pub targets: Vec<String>,
}

/// Licences.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Licenses {
    allow: Vec<String>,
}

/// Crates that may not be here.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Bans {
    pub multiple_versions: Level,
    pub wildcards: Level,
    pub deny: Vec<Banned>,
}

/// A banned crate, in any version.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Banned {
    #[serde(rename = "crate")]
    pub name: String,
    pub reason: String,
}

/// Where packages may come from.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Sources {
    unknown_registry: Level,
    unknown_git: Level,
}

/// What a finding means.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Deny,
    Warn,
    Allow,
}

impl Rules {
    /// What it means that this package is from elsewhere.
    pub fn source_level(&self, package: &Package) -> Level {
        let is_git = package.source.as_deref().is_some_and(|source| source.starts_with("git+"));
        if is_git { self.sources.unknown_git } else { self.sources.unknown_registry }
    }
}

impl Licenses {
    /// The allowed licences, exceptions included.
    pub fn parsed(&self) -> anyhow::Result<Vec<Licensee>> {
        let parse = |text: &String| Licensee::parse_mode(text, ParseMode::STRICT);
        self.allow
            .iter()
            .map(|text| parse(text).map_err(|error| anyhow!("deny.toml: the licence {text:?}: {}", error.reason)))
            .collect()
    }
}
