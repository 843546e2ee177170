//! How fast and how often: `rate` and `reattest` of a scope, and what an agent has of its own (`ttl`, `budget`, `self_renew`,
//! `reattest`, `max_risk`).

use std::num::NonZeroU32;
use std::time::Duration;

use super::mistake::Code;
use super::section::{Keys, Node, Section};
use super::service::ReadService;
use crate::model::rate::RATE_COUNT_MAX;
use crate::model::{Budget, Grant, Rate, Risk};
use crate::policy::{AgentLimits, Ceiling, MinterLimits, Scope};

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

/// Reads `rate` and `nonces_max` of a minter.
pub(super) fn read_minter_limits(section: &Section<'_>) -> Option<MinterLimits> {
    let default = MinterLimits::default();
    let rate = read_rate(section);
    let most = section.get("nonces_max").map_or(Some(None), |node| node.number(1, u32::MAX).map(Some));
    let nonces_max = most?.map_or(default.nonces_max, |most| usize::try_from(most).unwrap_or(usize::MAX));
    Some(MinterLimits { rate: rate?.unwrap_or(default.rate), nonces_max })
}

/// Reads `reattest = "10m"`, where it is there.
pub(super) fn read_reattest(section: &Section<'_>) -> Option<Option<Duration>> {
    section.get("reattest").map_or(Some(None), |node| node.duration().map(Some))
}

/// Reads `max_risk`, where it is there. `high` is not among its words: it would limit nothing.
pub(super) fn read_max_risk(section: &Section<'_>) -> Option<Option<Risk>> {
    section
        .get("max_risk")
        .map_or(Some(None), |node| node.word(&[("low", Risk::Low), ("medium", Risk::Medium)]).map(Some))
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
    let reattest = read_reattest(section);
    let max_risk = read_agent_max_risk(section, grants.unwrap_or(&[]), services);
    Some(AgentLimits { ttl: ttl?, budget: budget?, self_renew: self_renew?, reattest: reattest?, max_risk: max_risk? })
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
    if self_renew && let Some(grant) = grants.iter().find(|grant| risk_of(grant, services) == Some(Risk::High)) {
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

/// What nobody may mint for it, its grants may not hold: whoever raises the risk of a scope learns of it here.
fn read_agent_max_risk(section: &Section<'_>, grants: &[Grant], services: &[ReadService]) -> Option<Option<Risk>> {
    let Some(node) = section.get("max_risk") else { return Some(None) };
    let max = read_max_risk(section)?;
    let Some(grant) = grants.iter().find(|grant| risk_of(grant, services) > max) else { return Some(max) };
    let message = format!("a scope of {} that this agent may have is riskier", grant.service);
    node.visible_fault(Code::CeilingExceeded, message, "take that scope out of its grants");
    None
}

/// True where a scope among these has to be proven again and again.
pub(super) fn has_reattest(grants: &[Grant], services: &[ReadService]) -> bool {
    grants.iter().any(|grant| granted(grant, services).any(|scope| scope.reattest.is_some()))
}

/// The riskiest scope of a grant.
fn risk_of(grant: &Grant, services: &[ReadService]) -> Option<Risk> {
    granted(grant, services).map(|scope| scope.risk).max()
}

fn granted<'a>(grant: &'a Grant, services: &'a [ReadService]) -> impl Iterator<Item = &'a Scope> {
    let service = services.iter().filter_map(|read| read.built.as_ref()).find(|(built, _)| built.name == grant.service);
    service.into_iter().flat_map(|(built, _)| &built.scopes).filter(|scope| grant.scopes.contains(&scope.name))
}
