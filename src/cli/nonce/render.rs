//! Leases for people; never a plain nonce.

use std::fmt::Write as _;

use crate::cli::print::{Block, Table, span};
use crate::control::types::{GrantGiven, LeaseView, Minted};

/// What was minted, without the nonce.
pub(super) fn minted(minted: &Minted) -> String {
    let mut block = Block::default();
    block
        .fact("id", &minted.id)
        .fact("agent", &minted.agent)
        .fact("task", &minted.task)
        .fact("expires", expiry(&minted.expires_at.to_string(), minted.expires_in, minted.ttl_capped_by.as_deref()));
    uses(&mut block, minted.max_uses, minted.uses_left);
    for grant in &minted.grants {
        opens(&mut block, grant);
        if minted.placeholders.get(&grant.service).is_some_and(|shape| *shape != minted.nonce) {
            block.fact("", format_args!("its SDKs want another shape: --placeholder {}", grant.service));
        }
    }
    block.fact("proxy", &minted.proxy);
    block.render()
}

/// A live lease.
pub(super) fn lease(lease: &LeaseView) -> String {
    let mut block = Block::default();
    block
        .fact("id", &lease.id)
        .fact("agent", &lease.agent)
        .fact("task", &lease.task)
        .fact("minter", &lease.minter)
        .maybe("instance", lease.instance.as_ref())
        .maybe("on behalf of", lease.on_behalf_of.as_ref())
        .maybe("reason", lease.reason.as_ref())
        .list("labels", lease.labels.iter().map(|(name, value)| format!("{name}={value}")))
        .fact("issued", lease.issued_at)
        .fact("expires", expiry(&lease.expires_at.to_string(), lease.expires_in, lease.ttl_capped_by.as_deref()));
    uses(&mut block, lease.max_uses, lease.uses_left);
    block.maybe("opens", lease.canary.then_some("nothing: it is a canary, and any use of it is an alarm"));
    for grant in &lease.grants {
        opens(&mut block, grant);
    }
    block.render()
}

/// Leases, one a line.
pub(super) fn table(leases: &[LeaseView]) -> String {
    let mut table = Table::new(&["ID", "AGENT", "TASK", "GRANTS", "EXPIRES IN", "USES LEFT", "MINTER"]);
    for lease in leases {
        table.row(&[
            lease.id.clone(),
            lease.agent.clone(),
            lease.task.clone(),
            if lease.canary {
                "(canary)".to_owned()
            } else {
                lease.grants.iter().map(short).collect::<Vec<_>>().join(" ")
            },
            span(lease.expires_in),
            lease.uses_left.map_or("-".to_owned(), |left| left.to_string()),
            lease.minter.clone(),
        ]);
    }
    table.render()
}

/// As `--grant` takes it.
fn short(grant: &GrantGiven) -> String {
    format!("{}:{}", grant.service, grant.scopes.join(","))
}

fn expiry(at: &str, seconds: u64, capped_by: Option<&str>) -> String {
    let mut text = format!("{at} (in {}", span(seconds));
    if let Some(cap) = capped_by {
        // Writing to a String cannot fail.
        let _ = write!(text, ", shortened by {cap}");
    }
    text.push(')');
    text
}

fn uses(block: &mut Block, max: Option<u32>, left: Option<u32>) {
    if let (Some(max), Some(left)) = (max, left) {
        block.fact("uses", format_args!("{left} of {max} left"));
    }
}

fn opens(block: &mut Block, grant: &GrantGiven) {
    block.fact("opens", format_args!("{} at {}", short(grant), grant.hosts.join(", ")));
    block.list("", grant.allow.iter().map(|rule| format!("  {rule}")));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    fn answer() -> Minted {
        serde_json::from_value(json!({
            "id": "nc_1", "nonce": "an_plain", "placeholders": {"stripe": "sk_test_an_plain", "slack": "an_plain"},
            "agent": "billing", "task": "t", "issued_at": "2026-01-01T00:00:00Z", "expires_at": "2026-01-01T00:05:00Z",
            "expires_in": 300, "ends_at": "2026-01-01T00:30:00Z", "ttl_capped_by": "ceilings.high",
            "max_uses": 20, "uses_left": 19, "proxy": "http://127.0.0.1:8080",
            "grants": [
                {"service": "stripe", "scopes": ["read:x", "y"], "hosts": ["api.stripe.com"], "allow": ["GET /a", "GET /b"]},
                {"service": "slack", "scopes": ["w"], "hosts": ["slack.com"], "allow": []},
            ],
        }))
        .unwrap()
    }

    #[test]
    fn what_was_minted_is_told_without_the_nonce() {
        let lines = [
            "id       nc_1",
            "agent    billing",
            "task     t",
            "expires  2026-01-01T00:05:00Z (in 5m, shortened by ceilings.high)",
            "uses     19 of 20 left",
            "opens    stripe:read:x,y at api.stripe.com",
            "           GET /a",
            "           GET /b",
            "         its SDKs want another shape: --placeholder stripe",
            "opens    slack:w at slack.com",
            "proxy    http://127.0.0.1:8080",
        ];
        let text = plain(&minted(&answer()));
        assert_eq!(text.trim_end(), lines.join("\n"));
        assert!(!text.contains("an_plain"));
    }

    #[test]
    fn leases_are_a_table_and_one_is_a_block() {
        let view: LeaseView = serde_json::from_value(json!({
            "id": "nc_1", "agent": "billing", "task": "t\u{1b}", "minter": "self", "issued_at": "2026-01-01T00:00:00Z",
            "expires_at": "2026-01-01T00:05:00Z", "expires_in": 72, "ends_at": "2026-01-01T00:30:00Z",
            "max_uses": null, "uses_left": null, "instance": null, "on_behalf_of": "user:ana", "reason": null,
            "labels": {"a": "1", "b": "2"},
            "grants": [{"service": "stripe", "scopes": ["x"], "hosts": ["api.stripe.com"], "allow": ["GET /a"]}],
        }))
        .unwrap();
        let text = plain(&table(std::slice::from_ref(&view)));
        assert_eq!(text.lines().nth(1), Some("nc_1  billing  t\\u{1b}  stripe:x  1m 12s      -          self"));
        let text = plain(&lease(&view));
        assert!(text.contains("on behalf of  user:ana\nlabels        a=1\n              b=2\n"), "{text}");
        assert!(!text.contains("uses"), "{text}");
    }
}
