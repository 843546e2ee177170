//! The dependencies, as cargo has resolved them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::Context;
use serde::Deserialize;

use crate::workspace::Workspace;

/// A package of the resolved graph.
#[derive(Debug, Default)]
pub struct Package {
    pub name: String,
    pub version: String,
    /// The SPDX expression that it states.
    pub license: Option<String>,
    /// Where it comes from; none for the workspace's own.
    pub source: Option<String>,
    /// Its dependencies without a version or a path.
    pub wildcards: Vec<String>,
    /// The names of the packages that depend on it.
    pub dependents: BTreeSet<String>,
}

impl Package {
    /// Who brought it here.
    pub fn needed_by(&self) -> String {
        self.dependents.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for Package {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.name, self.version)
    }
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Described>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Described {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    req: String,
    path: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    dependencies: Vec<String>,
}

/// Every package that a build for one of these targets uses, tests and build scripts included.
pub fn packages(workspace: &Workspace, targets: &[String]) -> anyhow::Result<Vec<Package>> {
    let filters: Vec<_> = targets.iter().flat_map(|target| ["--filter-platform", target.as_str()]).collect();
    let metadata = workspace.metadata(&filters)?;
    let metadata: Metadata = serde_json::from_value(metadata).context("cargo metadata has another form")?;
    Ok(metadata.into_packages())
}

impl Metadata {
    fn into_packages(self) -> Vec<Package> {
        let names: BTreeMap<_, _> =
            self.packages.iter().map(|described| (described.id.clone(), described.name.clone())).collect();
        let mut dependents: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for node in &self.resolve.nodes {
            dependents.entry(node.id.clone()).or_default();
            for dependency in &node.dependencies {
                dependents.entry(dependency.clone()).or_default().extend(names.get(&node.id).cloned());
            }
        }
        let used = |described: Described| dependents.remove(&described.id).map(|by| described.into_package(by));
        self.packages.into_iter().filter_map(used).collect()
    }
}

impl Described {
    fn into_package(self, dependents: BTreeSet<String>) -> Package {
        let is_wild = |dependency: &Dependency| dependency.req == "*" && dependency.path.is_none();
        let wildcards = self.dependencies.into_iter().filter(is_wild).map(|dependency| dependency.name).collect();
        let Self { name, version, license, source, .. } = self;
        Package { name, version, license, source, wildcards, dependents }
    }
}
