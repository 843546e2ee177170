//! `delegate` of an agent: to whom its nonces may be delegated, how far, and how often.

use super::mistake::Code;
use super::section::{Keys, Node};
use crate::model::AgentName;
use crate::policy::{CHILDREN_MAX, DEPTH_MAX, DelegateRule};

const DELEGATE: Keys = Keys { known: &["depth", "to", "children_max"], later: &[] };
/// Agents in `to` at most.
const TO_MAX: usize = 1024;
/// What holds where the file is silent.
const DEPTH_DEFAULT: u32 = 1;
const CHILDREN_DEFAULT: u32 = 8;
const TO_HINT: &str = "delegate = { to = [\"AGENT\"] }: the agents to whom its nonces may be delegated";

/// Reads the value of `delegate`; `agents` are all agents of the file.
pub(super) fn read(node: &Node<'_>, agents: &[&str]) -> Option<DelegateRule> {
    let section = node.section()?;
    section.check_keys(&DELEGATE);
    let depth = section.get("depth").map_or(Some(DEPTH_DEFAULT), |node| node.number(1, DEPTH_MAX));
    let children = section.get("children_max").map_or(Some(CHILDREN_DEFAULT), |node| node.number(1, CHILDREN_MAX));
    let to = section.require("to", TO_HINT).and_then(|node| read_to(&node, agents));
    Some(DelegateRule { depth: depth?, to: to?, children_max: children? })
}

fn read_to(node: &Node<'_>, agents: &[&str]) -> Option<Vec<AgentName>> {
    let list = node.filled_list(TO_MAX, TO_HINT)?;
    let wanted = list.len();
    let mut names: Vec<AgentName> = Vec::with_capacity(wanted);
    for node in list {
        let Some(name) = read_agent(&node, agents) else { continue };
        if names.contains(&name) {
            node.visible_fault(Code::Duplicate, "is here already".to_owned(), "take one of them out");
        } else {
            names.push(name);
        }
    }
    (names.len() == wanted).then_some(names)
}

fn read_agent(node: &Node<'_>, agents: &[&str]) -> Option<AgentName> {
    let name = node.string()?;
    if !agents.contains(&name) {
        node.dangling(("agent", ""), name, agents.iter().copied());
        return None;
    }
    AgentName::parse(name).ok()
}
