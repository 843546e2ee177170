//! `[[services.NAME.scopes]]`: named sets of rules with a risk.

use std::time::Duration;

use super::allowance;
use super::conditions::CONDITION_KEYS;
use super::credentials::ReadCredential;
use super::effective::EffectiveScope;
use super::mistake::Code;
use super::rules::{self, PlacedRule};
use super::section::{Keys, Node, Section};
use super::service::read_credential;
use crate::model::{CredentialName, Rate, Risk, ScopeName};
use crate::policy::{HostPattern, Scope};

/// Scopes of a service at most.
const SCOPES_MAX: usize = 256;

const KEYS: Keys = Keys {
    known: &[
        "name",
        "risk",
        "data",
        "credential",
        "allow",
        "rules",
        "deny",
        "max_uses",
        "rate",
        "reattest",
        CONDITION_KEYS[0],
        CONDITION_KEYS[1],
        CONDITION_KEYS[2],
        CONDITION_KEYS[3],
    ],
    later: &[],
};

/// The words of `risk`.
const RISKS: [(&str, Risk); 3] = [("low", Risk::Low), ("medium", Risk::Medium), ("high", Risk::High)];

/// A scope as it was read; what is `None` had mistakes.
pub(super) struct ReadScope<'a> {
    /// As the file spells it: what grants refer to.
    pub(super) name: String,
    pub(super) own_credential: Option<CredentialName>,
    pub(super) credential_node: Option<Node<'a>>,
    pub(super) allow: Vec<PlacedRule<'a>>,
    pub(super) deny: Vec<PlacedRule<'a>>,
    parsed_name: Option<ScopeName>,
    credential: Option<CredentialName>,
    risk: Option<Risk>,
    data: Option<Option<String>>,
    max_uses: Option<Option<u32>>,
    rate: Option<Option<Rate>>,
    reattest: Option<Option<Duration>>,
    rules_whole: bool,
}

/// Reads `scopes`, which every service has; `hosts` are the service's.
pub(super) fn read<'a>(
    service: &Section<'a>,
    hosts: Option<&[HostPattern]>,
    credential: Option<&CredentialName>,
    credentials: &[ReadCredential],
) -> Option<Vec<ReadScope<'a>>> {
    let hint = "[[services.NAME.scopes]]: without a scope nothing is allowed";
    let node = service.require("scopes", hint)?;
    let mut scopes: Vec<ReadScope<'a>> = Vec::new();
    let list = node.filled_list(SCOPES_MAX, hint)?;
    let wanted = list.len();
    for node in list {
        let Some(section) = node.section() else { continue };
        let Some(scope) = read_one(&section, hosts, credential, credentials) else { continue };
        if scopes.iter().any(|known| known.name == scope.name) {
            let message = "a scope of this name is here already".to_owned();
            section.get("name").unwrap_or(node).visible_fault(
                Code::Duplicate,
                message,
                "rename one, or join their rules",
            );
        } else {
            scopes.push(scope);
        }
    }
    // Scopes that were left out had mistakes; the others are still needed for the checks of names.
    if scopes.is_empty() && wanted > 0 { None } else { Some(scopes) }
}

fn read_one<'a>(
    section: &Section<'a>,
    hosts: Option<&[HostPattern]>,
    service_credential: Option<&CredentialName>,
    credentials: &[ReadCredential],
) -> Option<ReadScope<'a>> {
    section.check_keys(&KEYS);
    let risk = section.require("risk", "risk = \"low\", \"medium\" or \"high\"").and_then(|node| node.word(&RISKS));
    let data = read_data(section);
    let max_uses = section.get("max_uses").map_or(Some(None), |node| node.number(1, u32::MAX).map(Some));
    let rate = allowance::read_rate(section);
    let reattest = allowance::read_reattest(section);
    let credential_node = section.get("credential");
    let own_credential = credential_node.as_ref().and_then(|node| read_credential(node, credentials));
    let credential = if credential_node.is_some() { own_credential.clone() } else { service_credential.cloned() };
    let rules = rules::read(section, hosts);
    let name = section.require("name", "name = \"read:things\"")?;
    let text = name.string()?;
    let parsed_name = name.name(text, ScopeName::parse);
    Some(ReadScope {
        name: text.to_owned(),
        own_credential,
        credential_node,
        allow: rules.allow,
        deny: rules.deny,
        parsed_name,
        credential,
        risk,
        data,
        max_uses,
        rate,
        reattest,
        rules_whole: rules.whole,
    })
}

/// A label has the letters of a name, so that it can stand in audit and metrics.
fn read_data(section: &Section<'_>) -> Option<Option<String>> {
    let Some(node) = section.get("data") else { return Some(None) };
    let text = node.string()?;
    node.name(text, ScopeName::parse)?;
    Some(Some(text.to_owned()))
}

impl<'a> ReadScope<'a> {
    /// The hosts of the service to which this scope's requests can go.
    pub(super) fn reach<'h>(&self, service: &[&'h HostPattern]) -> Vec<&'h HostPattern> {
        let named: Option<Vec<_>> = self.allow.iter().map(|rule| rule.rule.host()).collect();
        let Some(named) = named.filter(|hosts| !hosts.is_empty()) else { return service.to_vec() };
        let reached = |pattern: &&&HostPattern| named.iter().any(|host| pattern.covers_host(host));
        service.iter().filter(reached).copied().collect()
    }

    /// The scope, if it was read without a mistake.
    pub(super) fn build(self) -> Option<(Scope, EffectiveScope)> {
        let effective_rules = rules::effective(&self.allow, &self.deny);
        let scope = Scope {
            name: self.parsed_name?,
            risk: self.risk?,
            data: self.data?,
            credential: self.credential?,
            max_uses: self.max_uses?,
            rate: self.rate?,
            reattest: self.reattest?,
            allow: self.rules_whole.then(|| self.allow.into_iter().map(|rule| rule.rule).collect())?,
            deny: self.deny.into_iter().map(|rule| rule.rule).collect(),
        };
        let effective = EffectiveScope::new(&scope, effective_rules);
        Some((scope, effective))
    }
}
