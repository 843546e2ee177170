//! The policy as it is in force: presets filled in, defaults written out. What `valetkey policy show` prints; its TOML
//! form is itself a policy file with the same meaning.

mod credential;

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

pub(super) use credential::EffectiveCredential;

use super::client_cas::EffectiveClientCa;
use super::conditions::{EffectiveBody, EffectiveCondition};
use super::duration::spell as spell_duration;
use super::egress::Egress;
use super::identities::EffectiveIssuer;
use super::limits::Nonces;
use super::people::permission_word;
use super::risks::EffectiveRisk;
use super::rules::Side;
use super::service;
use super::signing::EffectiveSigning;
use super::webhooks::topic_word;
use crate::control::webhooks::Webhook;
use crate::model::{Budget, Rate, Risk};
use crate::policy::{
    AgentRule, Ceiling, DelegateRule, MinterRule, OnMisplaced, ProxyAuth, QueryRule, Scope, Service, Unlisted,
};

/// The whole policy; `Display` is TOML, `Serialize` is for JSON.
#[derive(Debug, Clone, Serialize)]
pub struct Effective {
    pub(super) version: u32,
    pub(super) egress: EffectiveEgress,
    pub(super) nonces: EffectiveNonces,
    #[serde(skip_serializing_if = "EffectiveRisk::is_empty")]
    pub(super) risk: EffectiveRisk,
    pub(super) credentials: BTreeMap<String, EffectiveCredential>,
    pub(super) services: BTreeMap<String, EffectiveService>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) issuers: BTreeMap<String, EffectiveIssuer>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) client_cas: BTreeMap<String, EffectiveClientCa>,
    pub(super) agents: BTreeMap<String, EffectiveAgent>,
    pub(super) minters: BTreeMap<String, EffectiveMinter>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) webhooks: BTreeMap<String, EffectiveWebhook>,
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&toml::to_string_pretty(self).map_err(|_| fmt::Error)?)
    }
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct EffectiveEgress {
    unlisted: &'static str,
    private_networks: &'static str,
    proxy_auth: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_proxy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_proxy_credential: Option<String>,
}

impl EffectiveEgress {
    pub(super) fn new(egress: &Egress) -> Self {
        let unlisted = match egress.unlisted {
            Unlisted::Deny => "deny",
            Unlisted::Tunnel => "tunnel",
        };
        let proxy_auth = match egress.proxy_auth {
            ProxyAuth::None => "none",
            ProxyAuth::Required => "required",
        };
        let parent = egress.parent_proxy.as_ref();
        Self {
            unlisted,
            private_networks: "deny",
            proxy_auth,
            upstream_proxy: parent.map(|parent| format!("http://{}", parent.proxy)),
            upstream_proxy_credential: parent.and_then(|parent| parent.credential.as_ref()).map(ToString::to_string),
        }
    }
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct EffectiveNonces {
    ttl: String,
    on_misplaced: &'static str,
    ceilings: EffectiveCeilings,
}

#[derive(Debug, Clone, Serialize)]
struct EffectiveCeilings {
    low: EffectiveCeiling,
    medium: EffectiveCeiling,
    high: EffectiveCeiling,
}

#[derive(Debug, Clone, Serialize)]
struct EffectiveCeiling {
    ttl: String,
    lifetime: String,
}

impl EffectiveNonces {
    pub(super) fn new(nonces: &Nonces) -> Self {
        let on_misplaced = match nonces.on_misplaced {
            OnMisplaced::Revoke => "revoke",
            OnMisplaced::Refuse => "refuse",
        };
        let spell = |ceiling: Ceiling| EffectiveCeiling {
            ttl: spell_duration(ceiling.ttl),
            lifetime: spell_duration(ceiling.lifetime),
        };
        let [low, medium, high] = nonces.ceilings.map(spell);
        let ceilings = EffectiveCeilings { low, medium, high };
        Self { ttl: spell_duration(nonces.default_ttl), on_misplaced, ceilings }
    }
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct EffectiveService {
    #[serde(skip_serializing_if = "Option::is_none")]
    preset: Option<&'static str>,
    hosts: Vec<String>,
    credential: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_certificate: Option<String>,
    slots: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attach: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    placeholder: Option<String>,
    private: bool,
    cleartext: bool,
    anonymous: bool,
    scrub: bool,
    leak_scan: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_ca: Option<String>,
    dialect: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    enforce: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    deny: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aws: Option<EffectiveSigning>,
    scopes: Vec<EffectiveScope>,
}

impl EffectiveService {
    pub(super) fn new(
        service: &Service,
        preset: Option<&'static str>,
        deny: Vec<String>,
        scopes: Vec<EffectiveScope>,
    ) -> Self {
        let shape = service.placeholder.as_ref();
        Self {
            preset,
            hosts: service.hosts.iter().map(ToString::to_string).collect(),
            credential: service.credential.to_string(),
            client_certificate: service.client_certificate.as_ref().map(ToString::to_string),
            slots: service.slots.iter().map(ToString::to_string).collect(),
            attach: service.attach.as_ref().map(ToString::to_string),
            placeholder: shape.map(|shape| format!("{}{{nonce}}{}", shape.prefix, shape.suffix)),
            aws: service.signing.as_ref().map(EffectiveSigning::new),
            private: service.private,
            cleartext: service.cleartext,
            anonymous: service.anonymous,
            scrub: service.scrub,
            leak_scan: service::leak_scan_word(service.leak_scan),
            upstream_ca: service.upstream_ca.as_ref().map(|path| path.display().to_string()),
            dialect: service::dialect_word(service.dialect),
            enforce: service.observe_until.map(|_| "observe"),
            until: service.observe_until.map(|until| until.to_string()),
            deny,
            scopes,
        }
    }
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct EffectiveScope {
    name: String,
    risk: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<String>,
    credential: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_uses: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reattest: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allow: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    deny: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rules: Vec<EffectiveRule>,
}

impl EffectiveScope {
    pub(super) fn new(scope: &Scope, rules: Vec<EffectiveRule>) -> Self {
        let (short, rules): (Vec<_>, Vec<_>) = rules.into_iter().partition(EffectiveRule::is_short);
        let (allow, deny): (Vec<_>, Vec<_>) = short.into_iter().partition(|rule| rule.allow.is_some());
        Self {
            name: scope.name.to_string(),
            risk: scope.risk.as_str(),
            data: scope.data.clone(),
            credential: scope.credential.to_string(),
            max_uses: scope.max_uses,
            rate: scope.rate.map(|rate| rate.to_string()),
            reattest: scope.reattest.map(spell_duration),
            allow: allow.into_iter().filter_map(|rule| rule.allow).collect(),
            deny: deny.into_iter().filter_map(|rule| rule.deny).collect(),
            rules,
        }
    }
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct EffectiveRule {
    #[serde(skip_serializing_if = "Option::is_none")]
    allow: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deny: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<EffectiveQuery>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoded_slash: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<EffectiveBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    when: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    because: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    record: Vec<String>,
}

/// A list of names or a table of values, as the file spells it.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
enum EffectiveQuery {
    Only(Vec<String>),
    Exactly(BTreeMap<String, String>),
}

impl EffectiveRule {
    pub(super) fn new(
        side: Side,
        text: &str,
        (query, encoded_slash, rate): (&QueryRule, bool, Option<Rate>),
        condition: EffectiveCondition,
    ) -> Self {
        let (allow, deny) = match side {
            Side::Allow => (Some(text.to_owned()), None),
            Side::Deny => (None, Some(text.to_owned())),
        };
        let query = match query {
            QueryRule::Any => None,
            QueryRule::Only(names) => Some(EffectiveQuery::Only(names.clone())),
            QueryRule::Exactly(pairs) => Some(EffectiveQuery::Exactly(pairs.iter().cloned().collect())),
        };
        let EffectiveCondition { body, when, because, record } = condition;
        // Without a condition there is nothing to be said.
        let because = because.filter(|_| body.is_some() || when.is_some());
        Self {
            allow,
            deny,
            query,
            encoded_slash: encoded_slash.then_some(true),
            rate: rate.map(|rate| rate.to_string()),
            body,
            when,
            because,
            record,
        }
    }

    fn is_short(&self) -> bool {
        let is_conditional = self.body.is_some() || self.when.is_some() || !self.record.is_empty();
        self.query.is_none() && self.encoded_slash.is_none() && self.rate.is_none() && !is_conditional
    }
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct EffectiveAgent {
    identity: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    self_renew: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reattest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_risk: Option<&'static str>,
    grants: BTreeMap<String, Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delegate: Option<EffectiveDelegate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    budget: Option<EffectiveBudget>,
}

#[derive(Debug, Clone, Serialize)]
struct EffectiveDelegate {
    depth: u32,
    to: Vec<String>,
    children_max: u32,
}

impl EffectiveDelegate {
    fn new(rule: &DelegateRule) -> Self {
        let to = rule.to.iter().map(ToString::to_string).collect();
        Self { depth: rule.depth, to, children_max: rule.children_max }
    }
}

#[derive(Debug, Clone, Serialize)]
struct EffectiveBudget {
    #[serde(skip_serializing_if = "Option::is_none")]
    uses: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<String>,
}

impl EffectiveBudget {
    fn new(budget: Budget) -> Self {
        Self { uses: budget.uses.map(Into::into), rate: budget.rate.map(|rate| rate.to_string()) }
    }
}

impl EffectiveAgent {
    pub(super) fn new(agent: &AgentRule) -> Self {
        let scopes = |grant: &crate::model::Grant| grant.scopes.iter().map(ToString::to_string).collect();
        Self {
            identity: agent.identities.iter().map(ToString::to_string).collect(),
            ttl: agent.limits.ttl.map(spell_duration),
            self_renew: agent.limits.self_renew,
            reattest: agent.limits.reattest.map(spell_duration),
            max_risk: agent.limits.max_risk.map(Risk::as_str),
            grants: agent.grants.iter().map(|grant| (grant.service.to_string(), scopes(grant))).collect(),
            delegate: agent.delegate.as_ref().map(EffectiveDelegate::new),
            budget: agent.limits.budget.map(EffectiveBudget::new),
        }
    }
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct EffectiveMinter {
    identity: Vec<String>,
    agents: Vec<String>,
    may: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_risk: Option<&'static str>,
    rate: String,
    nonces_max: usize,
}

impl EffectiveMinter {
    pub(super) fn new(minter: &MinterRule) -> Self {
        let agents = match &minter.agents {
            Some(agents) => agents.iter().map(ToString::to_string).collect(),
            None => vec!["*".to_owned()],
        };
        Self {
            identity: minter.identities.iter().map(ToString::to_string).collect(),
            agents,
            may: minter.may.iter().map(|may| permission_word(*may)).collect(),
            max_risk: minter.max_risk.map(Risk::as_str),
            rate: minter.limits.rate.to_string(),
            nonces_max: minter.limits.nonces_max,
        }
    }
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct EffectiveWebhook {
    url: String,
    secret: String,
    on: Vec<&'static str>,
    private: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca: Option<String>,
}

impl EffectiveWebhook {
    pub(super) fn new(webhook: &Webhook) -> Self {
        Self {
            url: format!("https://{}{}", webhook.destination, webhook.target),
            secret: webhook.secret.display().to_string(),
            on: webhook.on.iter().map(|topic| topic_word(*topic)).collect(),
            private: webhook.private,
            ca: webhook.ca.as_ref().map(|path| path.display().to_string()),
        }
    }
}
