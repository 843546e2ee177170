//! `[risk.levels]`: what is still allowed while a monitor says that an agent or a task is risky.

use std::collections::BTreeMap;

use serde::Serialize;

use super::mistake::Code;
use super::section::{Keys, Named, Node, Section};
use crate::model::{LevelName, Risk, RiskCap};
use crate::policy::{RISK_NORMAL as NORMAL, RiskLevel};

/// Levels at most.
const LEVELS_MAX: usize = 16;

const RISK: Keys = Keys { known: &["levels"], later: &[] };
const LEVEL: Keys = Keys { known: &["max_risk"], later: &[] };
/// `high` is not among them: it would restrict nothing.
const CAPS: [(&str, RiskCap); 3] =
    [("none", RiskCap::Nothing), ("low", RiskCap::UpTo(Risk::Low)), ("medium", RiskCap::UpTo(Risk::Medium))];

/// `[risk]` as it was read.
#[derive(Default)]
pub(super) struct Risks {
    pub(super) levels: Vec<RiskLevel>,
}

/// The same, for printing.
#[derive(Debug, Clone, Serialize)]
pub(super) struct EffectiveRisk {
    levels: BTreeMap<String, EffectiveLevel>,
}

#[derive(Debug, Clone, Serialize)]
struct EffectiveLevel {
    max_risk: &'static str,
}

impl EffectiveRisk {
    pub(super) fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }
}

impl Risks {
    pub(super) fn effective(&self) -> EffectiveRisk {
        let level = |level: &RiskLevel| (level.name.to_string(), EffectiveLevel { max_risk: level.cap.as_str() });
        EffectiveRisk { levels: self.levels.iter().map(level).collect() }
    }
}

/// Reads `[risk]`.
pub(super) fn read(root: &Section<'_>) -> Option<Risks> {
    let Some(node) = root.get("risk") else { return Some(Risks::default()) };
    let section = node.section()?;
    section.check_keys(&RISK);
    let levels = section.require("levels", "[risk.levels] elevated = { max_risk = \"low\" }")?;
    let entries = levels.section()?.entries();
    if entries.is_empty() || entries.len() > LEVELS_MAX {
        levels.fault(Code::BadValue, format!("has {} levels", entries.len()), format!("from 1 to {LEVELS_MAX}"));
        return None;
    }
    let levels: Vec<_> = entries.iter().map(read_level).collect();
    Some(Risks { levels: levels.into_iter().collect::<Option<_>>()? })
}

fn read_level(entry: &Named<'_>) -> Option<RiskLevel> {
    let name = if entry.name == NORMAL {
        let message = format!("the name {NORMAL} means that no level is in force");
        entry.label.fault(Code::BadValue, message, "give the level another name");
        None
    } else {
        entry.label.name(entry.name, LevelName::parse)
    };
    let section = entry.value.section_at(&entry.label)?;
    section.check_keys(&LEVEL);
    let cap = section.require("max_risk", "max_risk = \"low\": the riskiest scopes that may still be used");
    let cap = cap.and_then(|node: Node<'_>| node.word(&CAPS));
    Some(RiskLevel { name: name?, cap: cap? })
}
