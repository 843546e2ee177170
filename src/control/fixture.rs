//! A policy and a control plane for the tests of this folder.

use crate::model::{AgentName, CredentialName, Grant, IdentityRule, MinterName, Risk, ScopeName, ServiceName};
use crate::policy::{
    AgentRule, Ceiling, HostPattern, MinterRule, OnMisplaced, Parts, Permission, Placeholder, Policy, QueryRule, Rule,
    Scope, Service, Slot, Unlisted,
};

/// The uid of the agents `billing` and `research`.
pub(super) const AGENT_UID: u32 = 2000;
/// A uid that the policy lists as an agent's and as a minter's.
pub(super) const AGENT_AND_MINTER_UID: u32 = 2001;
/// The minter `orchestrator`: everything, for `billing` alone.
pub(super) const ORCHESTRATOR_UID: u32 = 3000;
/// The minter `auditor`: reads, for all.
pub(super) const AUDITOR_UID: u32 = 3001;

pub(super) fn agent(name: &str) -> AgentName {
    AgentName::parse(name).unwrap()
}

fn scope(name: &str, risk: Risk, allow: &[&str]) -> Scope {
    Scope {
        name: ScopeName::parse(name).unwrap(),
        risk,
        data: None,
        credential: CredentialName::parse("key").unwrap(),
        max_uses: None,
        allow: allow.iter().map(|rule| Rule::parse(rule, QueryRule::Any, false).unwrap()).collect(),
        deny: Vec::new(),
    }
}

fn service(name: &str, hosts: &[&str], placeholder: Option<&str>, scopes: Vec<Scope>) -> Service {
    Service {
        name: ServiceName::parse(name).unwrap(),
        hosts: hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect(),
        credential: CredentialName::parse("key").unwrap(),
        slots: vec![Slot::Bearer],
        placeholder: placeholder.map(|text| Placeholder::parse(text).unwrap()),
        private: false,
        cleartext: false,
        anonymous: false,
        scrub: true,
        upstream_ca: None,
        dialect: crate::policy::Dialect::Json,
        deny: Vec::new(),
        scopes,
    }
}

fn agent_rule(name: &str, uid: u32, grants: &[(&str, &[&str])]) -> AgentRule {
    let grant = |(service, scopes): &(&str, &[&str])| Grant {
        service: ServiceName::parse(service).unwrap(),
        scopes: scopes.iter().map(|scope| ScopeName::parse(scope).unwrap()).collect(),
    };
    AgentRule {
        name: agent(name),
        identities: [IdentityRule::Uid(uid)].into(),
        grants: grants.iter().map(grant).collect(),
    }
}

fn minter(name: &str, uid: u32, agents: Option<&[&str]>, may: &[Permission]) -> MinterRule {
    MinterRule {
        name: MinterName::parse(name).unwrap(),
        identities: vec![IdentityRule::Uid(uid)],
        agents: agents.map(|agents| agents.iter().map(|name| agent(name)).collect()),
        may: may.to_vec(),
    }
}

/// Two services, three agents, three minters.
pub(super) fn policy() -> Policy {
    let seconds = std::time::Duration::from_secs;
    let ceiling = |ttl, lifetime| Ceiling { ttl: seconds(ttl), lifetime: seconds(lifetime) };
    let all = [Permission::Mint, Permission::Read, Permission::Revoke];
    let stripe = vec![
        scope("read:customers", Risk::Low, &["GET /v1/customers", "GET /v1/customers/cus_{id}"]),
        scope("write:refunds", Risk::High, &["POST /v1/refunds"]),
        scope("read:secret-plans", Risk::High, &["GET /v1/plans"]),
    ];
    let github = vec![scope("read:app", Risk::Low, &["GET api.github.com/repos/acme/app/contents/{*path}"])];
    Policy::new(Parts {
        digest: "d1ge57".into(),
        unlisted: Unlisted::Deny,
        on_misplaced: OnMisplaced::Revoke,
        default_ttl: seconds(300),
        ceilings: [ceiling(1800, 86400), ceiling(900, 14400), ceiling(300, 1800)],
        services: vec![
            service("stripe", &["api.stripe.com"], Some("sk_test_{nonce}"), stripe),
            service("github", &["api.github.com", "*.github.test:8443"], None, github),
        ],
        agents: vec![
            agent_rule("billing", AGENT_UID, &[("stripe", &["read:customers", "write:refunds"])]),
            agent_rule("research", AGENT_UID, &[("github", &["read:app"])]),
            agent_rule("double", AGENT_AND_MINTER_UID, &[("github", &["read:app"])]),
        ],
        minters: vec![
            minter("orchestrator", ORCHESTRATOR_UID, Some(&["billing"]), &all),
            minter("auditor", AUDITOR_UID, None, &[Permission::Read]),
            minter("two-faced", AGENT_AND_MINTER_UID, None, &all),
        ],
    })
}
