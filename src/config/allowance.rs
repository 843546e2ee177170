//! How fast and how often: `rate` of a scope, and what an agent has of its own (`ttl`, `budget`, `self_renew`).

use std::num::NonZeroU32;
use std::time::Duration;

use super::mistake::Code;
use super::section::{Keys, Node, Section};
use super::service::ReadService;
use crate::model::rate::RATE_COUNT_MAX;
use crate::model::{Budget, Grant, Rate, Risk};
use crate::policy::{AgentLimits, Ceiling};

const BUDGET: Keys = Keys { known: &["uses", "rate"], later: &[] };

/// Reads `rate = "10/min"`, where it is there.
pub(super) fn read_rate(section: &Section<'_>) -> Option<Option<Rate>> {
    section.get("rate").map_or(Some(None), |node| rate(&node).map(Some))
}

fn rate(node: &Node<'_>) -> Option<Rate> {
    let rate = Rate::parse(node.string()?);
    if rate.is_none() {
        let hint = format!("\"10/min\": from 1 to {RATE_COUNT_MAX}, and /s, /min, /h or /d");
        node.fault(Code::BadValue, "is not a rate".to_owned(), hint);
    }
    rate
}

/// Reads what an agent has of its own; `grants` is what it may have, as far as that could be read.
pub(super) fn read_agent(
    section: &Section<'_>,
    grants: Option<&[Grant]>,
    services: &[ReadService],
    ceilings: Option<&[Ceiling; 3]>,
) -> Option<AgentLimits> {
    let ttl = section.get("ttl").map_or(Some(None), |node| read_ttl(&node, ceilings).map(Some));
    let budget = section.get("budget").map_or(Some(None), |node| read_budget(&node).map(Some));
    let self_renew = section.get("self_renew");
    let self_renew = self_renew.map_or(Some(false), |node| read_self_renew(&node, grants.unwrap_or(&[]), services));
    Some(AgentLimits { ttl: ttl?, budget: budget?, self_renew: self_renew? })
}

fn read_ttl(node: &Node<'_>, ceilings: Option<&[Ceiling; 3]>) -> Option<Duration> {
    let ttl = node.duration()?;
    let most = ceilings.into_iter().flatten().map(|ceiling| ceiling.ttl).max();
    if most.is_some_and(|most| ttl > most) {
        let message = "is over every ceiling, so that it would cap nothing".to_owned();
        node.visible_fault(Code::CeilingExceeded, message, "lower it, or take it out");
        return None;
    }
    Some(ttl)
}

fn read_budget(node: &Node<'_>) -> Option<Budget> {
    let section = node.section()?;
    section.check_keys(&BUDGET);
    let uses = section.get("uses").map_or(Some(None), |node| node.number(1, u32::MAX).map(NonZeroU32::new));
    let rate = read_rate(&section);
    let budget = Budget { uses: uses?, rate: rate? };
    if budget.uses.is_none() && budget.rate.is_none() {
        node.fault(
            Code::Empty,
            "limits nothing".to_owned(),
            "budget = { uses = 200, rate = \"60/min\" }, or one of the two",
        );
        return None;
    }
    Some(budget)
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
    let risks = service.iter().flat_map(|(built, _)| &built.scopes).filter(|scope| grant.scopes.contains(&scope.name));
    risks.map(|scope| scope.risk).max() == Some(Risk::High)
}
