//! `[client_cas.NAME]`: whose certificates prove agents that show one to the proxy.

use serde::Serialize;

use super::identities::{read_path, read_socket};
use super::mistake::Code;
use super::people::entries;
use super::section::{Keys, Named, Section};
use crate::identity::{CaSource, ClientCa, is_trust_domain, trust_domain_of};
use crate::model::{IdentityRule, MinterName};

/// Tables at most.
const CLIENT_CAS_MAX: usize = 64;

const CLIENT_CA: Keys = Keys { known: &["trust_domain", "ca", "workload_api"], later: &[] };

/// A table as `policy show` prints it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct EffectiveClientCa {
    #[serde(skip_serializing_if = "Option::is_none")]
    trust_domain: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workload_api: Option<String>,
}

impl EffectiveClientCa {
    pub(super) fn new(ca: &ClientCa) -> Self {
        let (file, workload_api) = match &ca.source {
            CaSource::File(path) => (Some(path.display().to_string()), None),
            CaSource::Workload(api) => (None, Some(api.to_string())),
        };
        Self { trust_domain: ca.trust_domain.clone(), ca: file, workload_api }
    }
}

/// Reads `[client_cas]`; what is `None` had mistakes.
pub(super) fn read(root: &Section<'_>) -> Vec<Option<ClientCa>> {
    let mut read: Vec<Option<ClientCa>> = Vec::new();
    for entry in entries(root, "client_cas", CLIENT_CAS_MAX) {
        let ca = read_one(&entry);
        let is_same = |other: &&ClientCa| ca.as_ref().is_some_and(|ca| ca.trust_domain == other.trust_domain);
        if let Some(other) = read.iter().flatten().find(is_same) {
            let message = format!("vouches for the same as `{}`", super::section::echo(&other.name));
            let hint = "one table for each trust domain, and one without: its file can hold several CAs";
            entry.label.fault(Code::Duplicate, message, hint);
        }
        read.push(ca);
    }
    read
}

fn read_one(entry: &Named<'_>) -> Option<ClientCa> {
    let name = entry.label.name(entry.name, MinterName::parse);
    let section = entry.value.section_at(&entry.label)?;
    section.check_keys(&CLIENT_CA);
    let trust_domain = match section.get("trust_domain") {
        None => Some(None),
        Some(node) => node.string().and_then(|text| {
            if !is_trust_domain(text) {
                node.fault(Code::BadValue, "is not a trust domain".to_owned(), "lower case, without spiffe://");
                return None;
            }
            Some(Some(text.to_owned()))
        }),
    };
    let source = read_source(&section);
    name.zip(trust_domain).zip(source).map(|((_, trust_domain), source)| ClientCa {
        name: entry.name.into(),
        trust_domain,
        source,
    })
}

fn read_source(section: &Section<'_>) -> Option<CaSource> {
    let Some(node) = section.get("workload_api") else {
        let ca = section.require("ca", "ca = \"/FILE\": the CAs whose certificates count, PEM; or workload_api");
        return ca.and_then(|node| read_path(&node)).map(CaSource::File);
    };
    if section.get("ca").is_some() {
        node.fault(Code::BadValue, "is there beside `ca`".to_owned(), "one of the two ways");
        return None;
    }
    if section.get("trust_domain").is_none() {
        node.fault(Code::BadValue, "is for a trust domain".to_owned(), "trust_domain = \"example.org\": whose bundle");
        return None;
    }
    read_socket(&node).map(CaSource::Workload)
}

/// True where a certificate can prove this identity; a table with mistakes might be for it.
pub(super) fn prove(cas: &[Option<ClientCa>], rule: &IdentityRule) -> bool {
    match rule {
        IdentityRule::Spiffe(id) => {
            let of = |ca: &ClientCa| ca.trust_domain.is_some() && ca.trust_domain.as_deref() == trust_domain_of(id);
            cas.iter().any(|ca| ca.as_ref().is_none_or(of))
        }
        IdentityRule::Mtls(_) => cas.iter().any(|ca| ca.as_ref().is_none_or(|ca| ca.trust_domain.is_none())),
        IdentityRule::Any
        | IdentityRule::Uid(_)
        | IdentityRule::Bearer(_)
        | IdentityRule::Kubernetes(_)
        | IdentityRule::Oidc { .. } => false,
    }
}
