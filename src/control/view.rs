//! What the policy and a lease look like from outside.

use std::collections::BTreeMap;

use super::CredentialHealth;
use super::caller::Caller;
use super::types::{AwsKeys, GrantGiven, LeaseView, Minted, MinterView, PlainNonce, RiskView, ScopeView, ServiceView};
use crate::lease::{Lease, Restriction, StandIn};
use crate::model::{AgentName, LeaseGrant, Nonce, Now};
use crate::policy::{HostPattern, MinterRule, Permission, Policy, Scope, Service};

/// The port that is not written out.
const HTTPS_PORT: u16 = 443;

/// What is told of a mint beside its lease.
pub(super) struct MintNotes {
    pub(super) ttl_capped_by: Option<String>,
    pub(super) rate_capped_by: Option<String>,
    pub(super) proxy: String,
    pub(super) warning: Option<&'static str>,
    /// The key pair of the nonce, for services whose requests are signed.
    pub(super) stand_in: Option<StandIn>,
}

/// The one answer that holds the nonce.
pub(super) fn minted(policy: &Policy, lease: &Lease, nonce: &Nonce, notes: MintNotes, now: &Now) -> Minted {
    let view = lease_view(policy, lease, now);
    Minted {
        id: view.id,
        parent: view.parent,
        nonce: PlainNonce::new(nonce.as_str().to_owned()),
        placeholders: placeholders(policy, lease, nonce),
        aws: aws(policy, lease, nonce, notes.stand_in),
        agent: view.agent,
        task: view.task,
        grants: view.grants,
        rules: view.rules,
        issued_at: view.issued_at,
        expires_at: view.expires_at,
        expires_in: view.expires_in,
        ends_at: view.ends_at,
        ttl_capped_by: notes.ttl_capped_by,
        max_uses: view.max_uses,
        uses_left: view.uses_left,
        rate: view.rate,
        rate_capped_by: notes.rate_capped_by,
        proxy: notes.proxy,
        warning: notes.warning.map(str::to_owned),
    }
}

/// For every service of the lease, so that nobody has to know which of them insist on a shape.
fn placeholders(policy: &Policy, lease: &Lease, nonce: &Nonce) -> BTreeMap<String, PlainNonce> {
    let shaped = |grant: &LeaseGrant| {
        let shape = policy.service(&grant.service).and_then(|service| service.placeholder.as_ref());
        let (prefix, suffix) = shape.map_or(("", ""), |shape| (shape.prefix.as_str(), shape.suffix.as_str()));
        let text = [prefix, nonce.as_str(), suffix].concat();
        (grant.service.to_string(), PlainNonce::new(text))
    };
    lease.terms().grants.iter().map(shaped).collect()
}

/// What an AWS SDK signs with, where a service of the lease wants signatures.
fn aws(policy: &Policy, lease: &Lease, nonce: &Nonce, pair: Option<StandIn>) -> Option<AwsKeys> {
    let signs = |grant: &LeaseGrant| policy.service(&grant.service).is_some_and(|service| service.signs());
    if !lease.terms().grants.iter().any(signs) {
        return None;
    }
    pair.map(|pair| AwsKeys {
        access_key_id: pair.access_key_id,
        secret_access_key: PlainNonce::new(pair.secret.to_string()),
        session_token: PlainNonce::new(nonce.as_str().to_owned()),
    })
}

/// A lease, read back.
pub(super) fn lease_view(policy: &Policy, lease: &Lease, now: &Now) -> LeaseView {
    let (terms, deadline) = (lease.terms(), lease.deadline());
    LeaseView {
        id: lease.id().to_string(),
        parent: lease.parent().map(|parent| parent.id().to_string()),
        depth: lease.depth(),
        children: lease.children_count(),
        agent: terms.agent.to_string(),
        task: terms.task.to_string(),
        minter: terms.minter.to_string(),
        grants: terms.grants.iter().map(|grant| grant_given(policy, grant)).collect(),
        rules: terms.lines.iter().map(str::to_owned).collect(),
        canary: lease.is_canary(),
        issued_at: lease.issued_at(),
        expires_at: deadline.wall,
        expires_in: rounded_seconds(deadline.remaining(now)),
        ends_at: lease.ends_at(),
        max_uses: terms.max_uses,
        uses_left: lease.uses_left(),
        rate: terms.rate.map(|rate| rate.to_string()),
        instance: terms.instance.map(str::to_owned),
        on_behalf_of: terms.on_behalf_of.map(str::to_owned),
        reason: terms.reason.map(str::to_owned),
        labels: terms.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        risk: lease.restriction().as_ref().map(risk_view),
        ttl_capped_by: None,
    }
}

/// A level of risk in force.
pub(super) fn risk_view(restriction: &Restriction) -> RiskView {
    RiskView {
        level: restriction.level.to_string(),
        max_risk: Some(restriction.cap.as_str().to_owned()),
        until: Some(restriction.until.wall),
    }
}

/// A lease made microseconds ago has its whole time left.
fn rounded_seconds(time: std::time::Duration) -> u64 {
    time.saturating_add(std::time::Duration::from_millis(500)).as_secs()
}

fn grant_given(policy: &Policy, grant: &LeaseGrant) -> GrantGiven {
    let service = policy.service(&grant.service);
    let held = |scope: &&Scope| grant.scopes.iter().any(|(name, _)| *name == scope.name);
    let mut allow: Vec<String> = Vec::new();
    for rule in service.iter().flat_map(|service| service.scopes.iter().filter(held)).flat_map(|scope| &scope.allow) {
        if !allow.iter().any(|known| known == rule.text()) {
            allow.push(rule.text().to_owned());
        }
    }
    GrantGiven {
        service: grant.service.to_string(),
        scopes: grant.scopes.iter().map(|(name, _)| name.to_string()).collect(),
        hosts: service.map(|service| hosts(service)).unwrap_or_default(),
        allow,
    }
}

fn hosts(service: &Service) -> Vec<String> {
    service.hosts.iter().map(host).collect()
}

fn host(pattern: &HostPattern) -> String {
    let star = if pattern.wildcard { "*." } else { "" };
    match pattern.port {
        HTTPS_PORT => format!("{star}{}", pattern.host),
        port => format!("{star}{}:{port}", pattern.host),
    }
}

/// A service with the scopes that some agent of the caller's may have; `None` if there are none.
pub(super) fn service_view(
    policy: &Policy,
    caller: &Caller,
    service: &Service,
    health: &[CredentialHealth],
) -> Option<ServiceView> {
    let agents: Vec<_> = policy.agents().into_iter().filter(|agent| caller.knows(agent)).collect();
    let scopes: Vec<_> =
        service.scopes.iter().filter_map(|scope| scope_view(policy, &agents, service, scope, health)).collect();
    (!scopes.is_empty()).then(|| ServiceView { name: service.name.to_string(), hosts: hosts(service), scopes })
}

fn scope_view(
    policy: &Policy,
    agents: &[&AgentName],
    service: &Service,
    scope: &Scope,
    health: &[CredentialHealth],
) -> Option<ScopeView> {
    let may = |agent: &&&AgentName| policy.grantable(agent, &service.name).contains(&scope.name);
    let agents: Vec<_> = agents.iter().filter(may).map(ToString::to_string).collect();
    let credential = health.iter().find(|health| health.name == scope.credential.as_str());
    (!agents.is_empty()).then(|| ScopeView {
        name: scope.name.to_string(),
        risk: scope.risk.to_string(),
        max_uses: scope.max_uses,
        rate: scope.rate.map(|rate| rate.to_string()),
        allow: scope.allow.iter().map(|rule| rule.text().to_owned()).collect(),
        agents,
        problem: credential.and_then(|health| health.problem.clone()),
    })
}

/// A minter as the caller sees it.
pub(super) fn minter_view(minter: &MinterRule) -> MinterView {
    let agents = minter.agents.as_ref();
    MinterView {
        name: minter.name.to_string(),
        agents: agents.map_or_else(|| vec!["*".to_owned()], |agents| agents.iter().map(ToString::to_string).collect()),
        may: minter.may.iter().map(|permission| permission_word(*permission).to_owned()).collect(),
    }
}

fn permission_word(permission: Permission) -> &'static str {
    match permission {
        Permission::Mint => "mint",
        Permission::Read => "read",
        Permission::Revoke => "revoke",
        Permission::Events => "events",
        Permission::Risk => "risk",
    }
}
