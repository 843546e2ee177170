//! `self_renew` of an agent: whether it may renew its nonces itself.

use super::mistake::Code;
use super::section::{Node, Section};
use super::service::ReadService;
use crate::model::{Grant, Risk};
use crate::policy::AgentLimits;

/// Reads it; `grants` is what the agent may have, as far as that could be read.
pub(super) fn read(section: &Section<'_>, grants: Option<&[Grant]>, services: &[ReadService]) -> Option<AgentLimits> {
    let node = section.get("self_renew");
    let self_renew = node.map_or(Some(false), |node| read_self_renew(&node, grants.unwrap_or(&[]), services))?;
    Some(AgentLimits { self_renew })
}

/// An agent that holds something of high risk goes on only when somebody else says so.
fn read_self_renew(node: &Node<'_>, grants: &[Grant], services: &[ReadService]) -> Option<bool> {
    let self_renew = node.boolean()?;
    if self_renew && let Some(grant) = grants.iter().find(|grant| has_high_risk(grant, services)) {
        let message = format!("a scope of {} that this agent may have is of high risk", grant.service);
        node.visible_fault(
            Code::CeilingExceeded,
            message,
            "take that scope out of its grants, or let its minter renew",
        );
        return None;
    }
    Some(self_renew)
}

fn has_high_risk(grant: &Grant, services: &[ReadService]) -> bool {
    let service = services.iter().filter_map(|read| read.built.as_ref()).find(|(built, _)| built.name == grant.service);
    let scopes = service.iter().flat_map(|(built, _)| &built.scopes);
    scopes.filter(|scope| grant.scopes.contains(&scope.name)).any(|scope| scope.risk == Risk::High)
}
