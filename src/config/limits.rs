//! `[egress]` and `[nonces]`: what holds for all services.

use std::time::Duration;

use super::mistake::Code;
use super::section::{Keys, Node, Section};
use crate::policy::{Ceiling, OnMisplaced, ProxyAuth, Unlisted};

/// TTL where neither the mint nor the policy names one.
pub const TTL_DEFAULT: Duration = Duration::from_secs(5 * 60);

/// Ceilings where the policy names none, by risk: low, medium, high.
pub const CEILINGS_DEFAULT: [Ceiling; 3] = [ceiling(30, 24 * 60), ceiling(15, 4 * 60), ceiling(5, 30)];

const RISKS: [&str; 3] = ["low", "medium", "high"];
const EGRESS: Keys = Keys { known: &["unlisted", "private_networks", "proxy_auth"], later: &["upstream_proxy"] };
const NONCES: Keys = Keys { known: &["ttl", "on_misplaced", "ceilings"], later: &[] };
const CEILINGS: Keys = Keys { known: &RISKS, later: &[] };
const CEILING: Keys = Keys { known: &["ttl", "lifetime"], later: &[] };

const fn ceiling(ttl_minutes: u64, lifetime_minutes: u64) -> Ceiling {
    Ceiling { ttl: Duration::from_secs(ttl_minutes * 60), lifetime: Duration::from_secs(lifetime_minutes * 60) }
}

/// Reads `[egress]`.
pub(super) fn read_egress(root: &Section<'_>) -> Option<Unlisted> {
    let Some(node) = root.get("egress") else { return Some(Unlisted::Deny) };
    let section = node.section()?;
    section.check_keys(&EGRESS);
    if let Some(node) = section.get("private_networks") {
        read_private_networks(&node);
    }
    let Some(node) = section.get("unlisted") else { return Some(Unlisted::Deny) };
    let unlisted = node.word(&[("deny", Unlisted::Deny), ("tunnel", Unlisted::Tunnel)])?;
    if unlisted == Unlisted::Tunnel {
        node.warn("hosts that no service lists are relayed unread");
    }
    Some(unlisted)
}

/// Reads `egress.proxy_auth`.
pub(super) fn read_proxy_auth(root: &Section<'_>) -> Option<ProxyAuth> {
    let Some(node) = root.get("egress") else { return Some(ProxyAuth::None) };
    // That it is no table is said by `read_egress`.
    let section = node.is_table().then(|| node.section()).flatten()?;
    let Some(node) = section.get("proxy_auth") else { return Some(ProxyAuth::None) };
    node.word(&[("none", ProxyAuth::None), ("required", ProxyAuth::Required)])
}

fn read_private_networks(node: &Node<'_>) {
    if node.string().is_some_and(|text| text != "deny") {
        let hint = "private = true on a service lets that service alone use private addresses";
        node.fault(Code::BadValue, "can only be \"deny\"".to_owned(), hint);
    }
}

/// `[nonces]` as it was read.
pub(super) struct Nonces {
    pub(super) default_ttl: Duration,
    pub(super) on_misplaced: OnMisplaced,
    pub(super) ceilings: [Ceiling; 3],
}

/// Reads `[nonces]` and `[nonces.ceilings]`.
pub(super) fn read_nonces(root: &Section<'_>) -> Option<Nonces> {
    let Some(node) = root.get("nonces") else {
        return Some(Nonces {
            default_ttl: TTL_DEFAULT,
            on_misplaced: OnMisplaced::Revoke,
            ceilings: CEILINGS_DEFAULT,
        });
    };
    let section = node.section()?;
    section.check_keys(&NONCES);
    let words = [("revoke", OnMisplaced::Revoke), ("refuse", OnMisplaced::Refuse)];
    let on_misplaced = section.get("on_misplaced").map_or(Some(OnMisplaced::Revoke), |node| node.word(&words));
    let ceilings = section.get("ceilings").map_or(Some(CEILINGS_DEFAULT), |node| read_ceilings(&node));
    let ttl_node = section.get("ttl");
    let ttl = ttl_node.as_ref().map(Node::duration);
    let (on_misplaced, ceilings) = (on_misplaced?, ceilings?);
    let ttl_max = ceilings.iter().map(|ceiling| ceiling.ttl).max().unwrap_or(TTL_DEFAULT);
    let default_ttl = match (ttl, ttl_node) {
        (Some(ttl), Some(node)) => checked_ttl(ttl?, ttl_max, &node)?,
        (_, _) => TTL_DEFAULT.min(ttl_max),
    };
    Some(Nonces { default_ttl, on_misplaced, ceilings })
}

fn checked_ttl(ttl: Duration, ttl_max: Duration, node: &Node<'_>) -> Option<Duration> {
    if ttl > ttl_max {
        let message = "is over every ceiling, so that no nonce would ever get it".to_owned();
        node.visible_fault(Code::CeilingExceeded, message, "lower it, or raise [nonces.ceilings]");
        return None;
    }
    Some(ttl)
}

fn read_ceilings(node: &Node<'_>) -> Option<[Ceiling; 3]> {
    let section = node.section()?;
    section.check_keys(&CEILINGS);
    let mut ceilings = CEILINGS_DEFAULT;
    let mut whole = true;
    for (ceiling, risk) in ceilings.iter_mut().zip(RISKS) {
        let Some(node) = section.get(risk) else { continue };
        match read_ceiling(&node, *ceiling) {
            Some(read) => *ceiling = read,
            None => whole = false,
        }
    }
    let inverted = ceilings.windows(2).any(|pair| pair[1].ttl > pair[0].ttl || pair[1].lifetime > pair[0].lifetime);
    if whole && inverted {
        node.warn("a riskier scope lives longer than a less risky one");
    }
    whole.then_some(ceilings)
}

fn read_ceiling(node: &Node<'_>, default: Ceiling) -> Option<Ceiling> {
    let section = node.section()?;
    section.check_keys(&CEILING);
    let ttl = section.get("ttl").map_or(Some(default.ttl), |node| node.duration());
    let lifetime = section.get("lifetime").map_or(Some(default.lifetime), |node| node.duration());
    let ceiling = Ceiling { ttl: ttl?, lifetime: lifetime? };
    if ceiling.ttl > ceiling.lifetime {
        let message = "one period is longer than the whole life".to_owned();
        node.visible_fault(Code::CeilingExceeded, message, "ttl is at most lifetime");
        return None;
    }
    Some(ceiling)
}
