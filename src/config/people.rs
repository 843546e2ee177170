//! `[agents.NAME]` and `[minters.NAME]`: who may present nonces, and who may ask for them.

use super::allowance;
use super::client_cas;
use super::delegate;
use super::effective::{EffectiveAgent, EffectiveMinter};
use super::identities::{ReadIssuer, parse_identity, read_identity};
use super::mistake::Code;
use super::section::{Keys, Named, Node, Section};
use super::service::ReadService;
use crate::identity::ClientCa;
use crate::model::{AgentName, Grant, IdentityRule, MinterName, ScopeName, ServiceName};
use crate::policy::{AgentRule, Ceiling, MinterRule, Permission};

/// Agents, or minters, of a policy at most.
const PEOPLE_MAX: usize = 4096;
/// Entries of one list at most.
const LIST_MAX: usize = 1024;
/// Scopes that one grant names at most.
const GRANT_SCOPES_MAX: usize = 256;

const AGENT: Keys = Keys {
    known: &["identity", "grants", "delegate", "ttl", "budget", "self_renew", "reattest", "max_risk"],
    later: &[],
};
const MINTER: Keys = Keys { known: &["identity", "agents", "may", "max_risk", "rate", "nonces_max"], later: &[] };

const MAY: [(&str, Permission); 5] = [
    ("mint", Permission::Mint),
    ("read", Permission::Read),
    ("revoke", Permission::Revoke),
    ("events", Permission::Events),
    ("risk", Permission::Risk),
];

/// Who vouches for agents: for their tokens, and for their certificates.
type Vouching<'a> = (&'a [ReadIssuer], &'a [Option<ClientCa>]);

/// An agent as it was read; what is `None` had mistakes.
pub(super) struct ReadAgent {
    /// As the file spells it.
    pub(super) name: String,
    /// Its identities, as far as they could be read.
    identities: Vec<IdentityRule>,
    pub(super) built: Option<(AgentRule, EffectiveAgent)>,
}

/// Reads `[agents]`.
pub(super) fn read_agents(
    root: &Section<'_>,
    services: &[ReadService],
    vouching: Vouching<'_>,
    ceilings: Option<&[Ceiling; 3]>,
) -> Vec<ReadAgent> {
    let entries = entries(root, "agents", PEOPLE_MAX);
    let names: Vec<_> = entries.iter().map(|entry| entry.name).collect();
    let agents: Vec<_> = entries.iter().map(|entry| read_agent(entry, services, vouching, &names, ceilings)).collect();
    warn_of_shared(root, &agents);
    agents
}

/// The tables below `[name]`, at most `max`.
pub(super) fn entries<'a>(root: &Section<'a>, name: &str, max: usize) -> Vec<Named<'a>> {
    let Some(section) = root.get(name).and_then(|node| node.section()) else { return Vec::new() };
    let entries = section.entries();
    if entries.len() > max {
        section.fault(Code::TooLarge, format!("has {} entries", entries.len()), format!("at most {max}"));
        return Vec::new();
    }
    entries
}

fn read_agent(
    entry: &Named<'_>,
    services: &[ReadService],
    vouching: Vouching<'_>,
    names: &[&str],
    ceilings: Option<&[Ceiling; 3]>,
) -> ReadAgent {
    let mut read = ReadAgent { name: entry.name.to_owned(), identities: Vec::new(), built: None };
    let name = read_agent_name(entry);
    let Some(section) = entry.value.section_at(&entry.label) else { return read };
    section.check_keys(&AGENT);
    let identity = section.require("identity", "identity = [\"uid:1000\"]: who may present its nonces");
    let identities = identity.as_ref().and_then(|node| read_identities(node, &mut read.identities, vouching.0));
    let identities = identity.as_ref().zip(identities).and_then(|(node, read)| presentable(node, read, vouching));
    let grants = section.require("grants", "grants = { SERVICE = [\"SCOPE\"] }: the most that may be minted for it");
    let grants = grants.and_then(|node| read_grants(&node, services));
    // Absent is never; what could not be read makes no agent.
    let delegate = section.get("delegate").map_or(Some(None), |node| delegate::read(&node, names).map(Some));
    let limits = allowance::read_agent(&section, grants.as_deref(), services, ceilings);
    if let (Some(node), true) = (&identity, read.identities.contains(&IdentityRule::Any)) {
        node.warn("anybody who reaches the listener may present this agent's nonces");
        let reattests = limits.is_some_and(|limits| limits.reattest.is_some());
        if reattests || allowance::has_reattest(grants.as_deref().unwrap_or_default(), services) {
            let message = "`reattest` is about who is proven, and \"any\" is nobody".to_owned();
            node.visible_fault(Code::Unreachable, message, "say who may present its nonces, or take `reattest` out");
        }
    }
    let own = delegate.zip(limits);
    read.built = name.zip(identities).zip(grants).zip(own).map(|(((name, identities), grants), (delegate, limits))| {
        let agent = AgentRule { name, identities: identities.into(), grants, delegate, limits };
        let effective = EffectiveAgent::new(&agent);
        (agent, effective)
    });
    read
}

fn read_agent_name(entry: &Named<'_>) -> Option<AgentName> {
    if entry.name == "*" {
        let message = "the name * means all agents".to_owned();
        entry.label.fault(Code::BadValue, message, "give the agent a name of its own");
        return None;
    }
    entry.label.name(entry.name, AgentName::parse)
}

/// What to do where the proxy could not prove an agent.
const PROVABLE: &str =
    "name an identity that the proxy can prove: uid:, a token of an issuer, or a certificate of [client_cas]";

/// The proxy proves uids, and whom a token or a certificate names. What else an agent is keeps it from minting, and cannot be all that it is.
fn presentable(
    node: &Node<'_>,
    identities: Vec<IdentityRule>,
    (issuers, cas): Vouching<'_>,
) -> Option<Vec<IdentityRule>> {
    let by_token = |rule: &IdentityRule| match rule {
        IdentityRule::Any | IdentityRule::Uid(_) | IdentityRule::Kubernetes(_) | IdentityRule::Oidc { .. } => true,
        IdentityRule::Spiffe(id) => issuers.iter().any(|issuer| issuer.is_of_domain(id)),
        IdentityRule::Bearer(_) | IdentityRule::Mtls(_) => false,
    };
    let is_proven = |rule: &IdentityRule| by_token(rule) || client_cas::prove(cas, rule);
    if identities.iter().any(|rule| matches!(rule, IdentityRule::Bearer(_))) {
        let message = "bearer: is for minters; a file cannot tell which agent shows it".to_owned();
        node.fault(Code::BadValue, message, PROVABLE);
        return None;
    }
    if !identities.iter().any(is_proven) {
        let message = "nothing here can be proven to the proxy, so that nobody could present its nonces".to_owned();
        node.fault(Code::BadValue, message, PROVABLE);
        return None;
    }
    for rule in identities.iter().filter(|rule| !is_proven(rule)) {
        node.warn(&format!("{rule} is kept from minting; the proxy cannot prove it, and admits nobody by it"));
    }
    Some(identities)
}

/// Reads a list of identities; `seen` gets every one that could be read.
fn read_identities(node: &Node<'_>, seen: &mut Vec<IdentityRule>, issuers: &[ReadIssuer]) -> Option<Vec<IdentityRule>> {
    let list = node.filled_list(LIST_MAX, "identity = [\"uid:1000\"]; \"any\" is spelled out")?;
    let wanted = list.len();
    for node in &list {
        let Some(identity) = read_identity(node, issuers) else { continue };
        if seen.contains(&identity) {
            node.visible_fault(Code::Duplicate, "is here already".to_owned(), "take one of them out");
        } else {
            seen.push(identity);
        }
    }
    if seen.contains(&IdentityRule::Any) && wanted > 1 {
        let message = "\"any\" admits everybody, so that the others mean nothing".to_owned();
        node.visible_fault(Code::Unreachable, message, "leave \"any\" alone, or take it out");
        return None;
    }
    (seen.len() == wanted).then(|| seen.clone())
}

fn read_grants(node: &Node<'_>, services: &[ReadService]) -> Option<Vec<Grant>> {
    let entries = node.section()?.entries();
    if entries.is_empty() {
        node.fault(Code::Empty, "grants nothing".to_owned(), "grants = { SERVICE = [\"SCOPE\"] }");
        return None;
    }
    let grants: Vec<_> = entries.iter().map(|entry| read_grant(entry, services)).collect();
    grants.into_iter().collect()
}

fn read_grant(entry: &Named<'_>, services: &[ReadService]) -> Option<Grant> {
    let Some(service) = services.iter().find(|service| service.name == entry.name) else {
        entry.label.dangling(("service", ""), entry.name, services.iter().map(|service| service.name.as_str()));
        return None;
    };
    let list = entry.value.filled_list(GRANT_SCOPES_MAX, "name at least one scope, or take the service out")?;
    let wanted = list.len();
    let mut scopes: Vec<ScopeName> = Vec::with_capacity(wanted);
    for node in list {
        let Some(scope) = read_scope(&node, service) else { continue };
        if scopes.contains(&scope) {
            node.visible_fault(Code::Duplicate, "is here already".to_owned(), "take one of them out");
        } else {
            scopes.push(scope);
        }
    }
    let service = ServiceName::parse(entry.name).ok()?;
    (scopes.len() == wanted).then_some(Grant { service, scopes })
}

fn read_scope(node: &Node<'_>, service: &ReadService) -> Option<ScopeName> {
    let name = node.string()?;
    if !service.scope_names.iter().any(|scope| scope == name) {
        // A service whose scopes had mistakes may have meant this one: one mistake is not reported as two.
        if service.built.is_some() || !service.scope_names.is_empty() {
            let place = format!(" in service {}", service.name);
            node.dangling(("scope", &place), name, service.scope_names.iter().map(String::as_str));
        }
        return None;
    }
    ScopeName::parse(name).ok()
}

/// Agents with one uid can present each other's nonces.
fn warn_of_shared(root: &Section<'_>, agents: &[ReadAgent]) {
    let mut owners: std::collections::BTreeMap<u32, Vec<&str>> = std::collections::BTreeMap::new();
    for agent in agents {
        for identity in &agent.identities {
            if let IdentityRule::Uid(uid) = identity {
                owners.entry(*uid).or_default().push(&agent.name);
            }
        }
    }
    for (uid, names) in owners.iter().filter(|(_, names)| names.len() > 1) {
        let names: Vec<_> = names.iter().map(|name| super::section::echo(name)).collect();
        let sentence =
            format!("agents {} share uid:{uid}, so that each can present the others' nonces", names.join(", "));
        root.notes().warn(sentence);
    }
}

/// Reads `[minters]`.
pub(super) fn read_minters(
    root: &Section<'_>,
    agents: &[ReadAgent],
    issuers: &[ReadIssuer],
) -> Vec<Option<(MinterRule, EffectiveMinter)>> {
    entries(root, "minters", PEOPLE_MAX).iter().map(|entry| read_minter(entry, agents, issuers)).collect()
}

fn read_minter(
    entry: &Named<'_>,
    agents: &[ReadAgent],
    issuers: &[ReadIssuer],
) -> Option<(MinterRule, EffectiveMinter)> {
    let name = entry.label.name(entry.name, MinterName::parse);
    let section = entry.value.section_at(&entry.label)?;
    section.check_keys(&MINTER);
    let identity = section.require("identity", "identity = [\"uid:0\"]: who may act as it");
    let identities = identity.and_then(|node| read_minter_identities(&node, agents, issuers));
    let whose = section.require("agents", "agents = [\"NAME\"], or [\"*\"] for all");
    let whose = whose.and_then(|node| read_whose(&node, agents));
    let may = section.require("may", "may = [\"mint\", \"read\", \"revoke\"]").and_then(|node| read_may(&node));
    let max_risk = allowance::read_max_risk(&section);
    let limits = allowance::read_minter_limits(&section);
    let minter = MinterRule {
        name: name?,
        identities: identities?,
        agents: whose?,
        may: may?,
        max_risk: max_risk?,
        limits: limits?,
    };
    let effective = EffectiveMinter::new(&minter);
    Some((minter, effective))
}

/// A minter is somebody that can be proven, and never an agent: an agent that mints gives itself whatever it likes.
fn read_minter_identities(node: &Node<'_>, agents: &[ReadAgent], issuers: &[ReadIssuer]) -> Option<Vec<IdentityRule>> {
    let mut seen = Vec::new();
    let identities = read_identities(node, &mut seen, issuers);
    if seen.contains(&IdentityRule::Any) {
        node.visible_fault(Code::BadValue, "a minter cannot be \"any\"".to_owned(), "name the uid: \"uid:0\"");
        return None;
    }
    let mut banned = false;
    for node in node.list(LIST_MAX)? {
        let Some(identity) = node.value().as_str().and_then(parse_identity) else { continue };
        let is_it = |agent: &&ReadAgent| agent.identities.iter().any(|rule| identity.is_within(rule));
        if let Some(agent) = agents.iter().find(is_it) {
            let agent = super::section::echo(&agent.name);
            let message = format!("{identity} is agent `{agent}` too, and an agent never mints");
            node.visible_fault(Code::SelfMint, message, "give the minter an identity that no agent has");
            banned = true;
        }
    }
    identities.filter(|_| !banned)
}

fn read_whose(node: &Node<'_>, agents: &[ReadAgent]) -> Option<Option<Vec<AgentName>>> {
    let list = node.filled_list(LIST_MAX, "agents = [\"NAME\"], or [\"*\"] for all")?;
    if let [only] = list.as_slice()
        && only.string()? == "*"
    {
        return Some(None);
    }
    let wanted = list.len();
    let mut names: Vec<AgentName> = Vec::with_capacity(wanted);
    for node in list {
        let Some(name) = read_whom(&node, agents) else { continue };
        if names.contains(&name) {
            node.visible_fault(Code::Duplicate, "is here already".to_owned(), "take one of them out");
        } else {
            names.push(name);
        }
    }
    (names.len() == wanted).then_some(Some(names))
}

fn read_whom(node: &Node<'_>, agents: &[ReadAgent]) -> Option<AgentName> {
    let name = node.string()?;
    if name == "*" {
        let message = "\"*\" means all agents, so that the others mean nothing".to_owned();
        node.visible_fault(Code::Unreachable, message, "leave \"*\" alone, or take it out");
        return None;
    }
    if !agents.iter().any(|agent| agent.name == name) {
        node.dangling(("agent", ""), name, agents.iter().map(|agent| agent.name.as_str()));
        return None;
    }
    AgentName::parse(name).ok()
}

fn read_may(node: &Node<'_>) -> Option<Vec<Permission>> {
    let list = node.filled_list(LIST_MAX, "may = [\"mint\", \"read\", \"revoke\"]")?;
    let wanted = list.len();
    let mut may = Vec::with_capacity(wanted);
    for node in list {
        let Some(permission) = read_permission(&node) else { continue };
        if may.contains(&permission) {
            node.visible_fault(Code::Duplicate, "is here already".to_owned(), "take one of them out");
        } else {
            may.push(permission);
        }
    }
    (may.len() == wanted).then_some(may)
}

fn read_permission(node: &Node<'_>) -> Option<Permission> {
    let text = node.string()?;
    if text == "admin" {
        let message = "there is no such permission: each is named by itself".to_owned();
        node.visible_fault(
            Code::BadValue,
            message,
            "may = [\"mint\", \"read\", \"revoke\", \"events\", \"risk\"] is all there is",
        );
        return None;
    }
    node.word(&MAY)
}

/// The word of the policy for a permission.
pub(super) fn permission_word(permission: Permission) -> &'static str {
    match permission {
        Permission::Mint => "mint",
        Permission::Read => "read",
        Permission::Revoke => "revoke",
        Permission::Events => "events",
        Permission::Risk => "risk",
    }
}
