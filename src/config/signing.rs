//! What comes with the slot `aws-sigv4`: `aws`, a key pair as the credential, and nothing beside it.

use serde::Serialize;

use super::egress::Egress;
use super::mistake::Code;
use super::section::{Keys, Node, Section};
use super::service::ReadService;
use crate::credential::Form;
use crate::model::CredentialName;
use crate::policy::{HostPattern, Service, Signing, Slot, is_of_aws};

/// As `valetkey policy show` prints it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct EffectiveSigning {
    service: String,
    regions: Vec<String>,
}

impl EffectiveSigning {
    pub(super) fn new(said: &Signing) -> Self {
        Self { service: said.service.clone(), regions: said.regions.clone() }
    }
}

const KEYS: Keys = Keys { known: &["service", "regions"], later: &[] };
/// Regions of a service at most.
const REGIONS_MAX: usize = 64;
/// Longest name of a service or region, in bytes.
const WORD_BYTES_MAX: usize = 64;
const HINT: &str = "aws = { service = \"s3\", regions = [\"eu-west-1\"] }";

/// Reads `aws`; `None` where it is wrong.
pub(super) fn read(node: &Node<'_>) -> Option<Signing> {
    let section = node.section()?;
    section.check_keys(&KEYS);
    let service = section.require("service", HINT).and_then(|node| word(&node));
    let regions = section.require("regions", HINT).and_then(|node| node.filled_list(REGIONS_MAX, HINT));
    let regions: Option<Vec<String>> = regions.and_then(|list| list.iter().map(word).collect());
    Some(Signing { service: service?, regions: regions? })
}

fn word(node: &Node<'_>) -> Option<String> {
    let text = node.string()?;
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !(1..=WORD_BYTES_MAX).contains(&text.len()) || !text.bytes().all(plain) {
        node.fault(Code::BadValue, "is not a name as AWS has them".to_owned(), "small letters, digits and `-`");
        return None;
    }
    Some(text.to_owned())
}

/// What signs does nothing else, and says for what where its hosts do not.
pub(super) fn check(section: &Section<'_>, slots: &[Slot], hosts: Option<&[HostPattern]>) {
    if !slots.contains(&Slot::AwsSigV4) {
        if let Some(node) = section.get("aws") {
            node.fault(Code::BadValue, "means nothing without the slot `aws-sigv4`".to_owned(), "take it out");
        }
        return;
    }
    if slots.len() > 1
        && let Some(node) = section.get("slots")
    {
        let message = "has other slots beside `aws-sigv4`, whose credential is a key pair".to_owned();
        node.visible_fault(Code::BadValue, message, "slots = [\"aws-sigv4\"], and another service for the others");
    }
    for (name, why) in [("attach", "who signs has to hold the key"), ("placeholder", "the token is the nonce itself")] {
        if let Some(node) = section.get(name) {
            node.fault(Code::BadValue, format!("cannot be with the slot `aws-sigv4`: {why}"), "take it out");
        }
    }
    let other = hosts.unwrap_or_default().iter().find(|pattern| !is_of_aws(pattern.host.as_str()));
    if let (Some(pattern), None) = (other, section.get("aws")) {
        let message = format!("{pattern} does not say by its name which service and region of AWS it is");
        section.fault(Code::Missing, message, HINT);
    }
}

/// A key pair that signs goes out nowhere else, where it would be sent as it is.
pub(super) fn check_credentials(root: &Section<'_>, services: &[ReadService], egress: Option<&Egress>) {
    let built = || services.iter().filter_map(|service| service.built.as_ref().map(|(service, _)| service));
    let of_parent = egress.and_then(|egress| egress.parent_proxy.as_ref()?.credential.as_ref());
    let Some(section) = root.get("services").and_then(|node| node.section()) else { return };
    for entry in section.entries() {
        let Some(service) = built().find(|service| service.name.as_str() == entry.name && service.signs()) else {
            continue;
        };
        let is_sent = |name: &CredentialName| {
            of_parent == Some(name) || built().any(|other| !other.signs() && names(other).any(|other| other == name))
        };
        if let Some(name) = names(service).find(|name| is_sent(name)) {
            let message = format!("signs with credential `{name}`, which goes out as it is elsewhere");
            entry.label.visible_fault(Code::BadValue, message, "a credential of its own for what is signed");
        }
    }
}

/// What a credential has to be, for the services that use it.
pub(super) fn form(services: &[Service], credential: &CredentialName) -> Form {
    let signs = services.iter().any(|service| service.signs() && names(service).any(|name| name == credential));
    if signs { Form::AwsKeyPair } else { Form::Text }
}

fn names(service: &Service) -> impl Iterator<Item = &CredentialName> {
    std::iter::once(&service.credential).chain(service.scopes.iter().map(|scope| &scope.credential))
}
