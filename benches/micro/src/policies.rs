//! Policies of many services and rules, and requests for them to decide.

use std::sync::Arc;

use valetkey::config::{self, Look};
use valetkey::model::{Destination, Host, ScopeName, ServiceName};
use valetkey::policy::{Policy, RequestFacts, Target, Verdict};

/// Rules in one scope: a scope may have at most 512.
const RULES_PER_SCOPE: usize = 500;

fn scope_name(first_rule: usize) -> String {
    format!("part{}", first_rule / RULES_PER_SCOPE)
}

/// A policy of so many services with so many rules each.
///
/// # Panics
/// When there are so many that the file would be too large.
#[must_use]
pub fn policy(services: usize, rules: usize) -> Policy {
    let mut text =
        String::from("version = 1\n[credentials.c]\nsource = \"env\"\nname = \"KEY\"\nhosts = [\"*.bench.test\"]\n");
    for service in 0..services {
        text += &format!("[services.s{service}]\nhosts = [\"s{service}.bench.test\"]\ncredential = \"c\"\n");
        text += "slots = [\"bearer\"]\n";
        for first in (0..rules).step_by(RULES_PER_SCOPE) {
            let name = scope_name(first);
            text += &format!("[[services.s{service}.scopes]]\nname = \"{name}\"\nrisk = \"low\"\nallow = [");
            for rule in first..(first + RULES_PER_SCOPE).min(rules) {
                text += &format!("\"GET /v1/things{rule}/{{id}}/parts/{{part}}\",");
            }
            text += "]\n";
        }
    }
    let loaded = config::check_policy(&Arc::from("bench.toml"), text.into_bytes(), false);
    loaded.unwrap_or_else(|mistakes| panic!("{}", mistakes.report(Look::Plain))).policy
}

/// A request that the last rule of its service allows.
pub struct Question {
    destination: Destination,
    service: ServiceName,
    scopes: Vec<ScopeName>,
    host: Host,
    target: Target,
}

impl Question {
    /// One for each service of such a policy.
    #[must_use]
    pub fn all(services: usize, rules: usize) -> Vec<Self> {
        (0..services).map(|service| Self::of(service, rules)).collect()
    }

    fn of(service: usize, rules: usize) -> Self {
        let service = ServiceName::parse(&format!("s{service}")).expect("a name");
        let host = Host::parse(&format!("{service}.bench.test")).expect("a host");
        let scopes =
            (0..rules).step_by(RULES_PER_SCOPE).map(|first| ScopeName::parse(&scope_name(first)).expect("a name"));
        Self {
            destination: Destination::parse(&format!("{host}:443"), None).expect("a destination"),
            scopes: scopes.collect(),
            target: Target::parse(&format!("/v1/things{}/abc/parts/17?expand=all", rules - 1)).expect("a target"),
            service,
            host,
        }
    }

    /// What the proxy asks: who lists the destination, and may this request pass.
    #[must_use]
    pub fn put(&self, policy: &Policy) -> bool {
        let facts = RequestFacts { method: "GET", websocket: false, host: &self.host, target: &self.target };
        let is_listed = policy.services_at(&self.destination).iter().any(|service| service.name == self.service);
        is_listed && matches!(policy.decide(&self.service, &self.scopes, &self.scopes, &facts), Verdict::Allow { .. })
    }
}
