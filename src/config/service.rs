//! `[services.NAME]`: one API, with what its preset says where the file is silent.

use std::net::IpAddr;
use std::path::PathBuf;

use jiff::Timestamp;

use super::client_certificate;
use super::credentials::{self, ReadCredential};
use super::effective::EffectiveService;
use super::hosts;
use super::mistake::Code;
use super::observing;
use super::preset::Presets;
use super::rules::{self, PlacedRule, Side};
use super::scopes::{self, ReadScope};
use super::section::{Keys, Named, Node, Section};
use super::signing;
use crate::model::{CredentialName, Host, ServiceName};
use crate::policy::{Dialect, HostPattern, LeakScan, Placeholder, Service, Signing, Slot};

/// Services of a policy at most.
const SERVICES_MAX: usize = 1024;
/// Slots of a service at most.
const SLOTS_MAX: usize = 16;

const KEYS: Keys = Keys {
    known: &[
        "preset",
        "hosts",
        "credential",
        "client_certificate",
        "slots",
        "attach",
        "placeholder",
        "aws",
        "private",
        "cleartext",
        "anonymous",
        "scrub",
        "leak_scan",
        "upstream_ca",
        "dialect",
        "enforce",
        "until",
        "deny",
        "scopes",
    ],
    later: &[],
};

const DIALECTS: [(&str, Dialect); 7] = [
    ("json", Dialect::Json),
    ("git", Dialect::Git),
    ("aws", Dialect::Aws),
    ("slack", Dialect::Slack),
    ("npm", Dialect::Npm),
    ("grpc", Dialect::Grpc),
    ("kubernetes", Dialect::Kubernetes),
];

const LEAK_SCANS: [(&str, LeakScan); 4] =
    [("report", LeakScan::Report), ("refuse", LeakScan::Refuse), ("revoke", LeakScan::Revoke), ("off", LeakScan::Off)];

/// A service as it was read; what is `None` had mistakes.
pub(super) struct ReadService {
    /// As the file spells it: what grants refer to.
    pub(super) name: String,
    /// Names of its scopes, those with mistakes too.
    pub(super) scope_names: Vec<String>,
    pub(super) built: Option<(Service, EffectiveService)>,
}

/// A service's parts while they are still with their places.
struct Parts<'a> {
    hosts: Option<Vec<HostPattern>>,
    credential: Option<CredentialName>,
    client_certificate: Option<Option<CredentialName>>,
    slots: Option<Vec<Slot>>,
    attach: Option<Option<Slot>>,
    placeholder: Option<Option<Placeholder>>,
    signing: Option<Option<Signing>>,
    private: Option<bool>,
    cleartext: Option<bool>,
    anonymous: Option<bool>,
    scrub: Option<bool>,
    leak_scan: Option<LeakScan>,
    upstream_ca: Option<Option<PathBuf>>,
    dialect: Option<Dialect>,
    observe_until: Option<Option<Timestamp>>,
    deny: Option<Vec<PlacedRule<'a>>>,
    scopes: Option<Vec<ReadScope<'a>>>,
}

/// Reads the whole table.
pub(super) fn read<'a>(root: &Section<'a>, presets: &'a Presets, credentials: &[ReadCredential]) -> Vec<ReadService> {
    let section = root.get("services").and_then(|node| node.section());
    let Some(section) = section else {
        root.notes().warn("the policy has no services: nothing can be called".to_owned());
        return Vec::new();
    };
    let entries = section.entries();
    if entries.len() > SERVICES_MAX {
        section.fault(Code::TooLarge, format!("has {} services", entries.len()), format!("at most {SERVICES_MAX}"));
        return Vec::new();
    }
    entries.iter().map(|entry| read_one(entry, presets, credentials)).collect()
}

fn read_one<'a>(entry: &Named<'a>, presets: &'a Presets, credentials: &[ReadCredential]) -> ReadService {
    let mut read = ReadService { name: entry.name.to_owned(), scope_names: Vec::new(), built: None };
    let name = entry.label.name(entry.name, ServiceName::parse);
    let Some(section) = entry.value.section_at(&entry.label) else { return read };
    section.check_keys(&KEYS);
    let (section, preset) = apply_preset(section, presets);
    let parts = read_parts(&section, credentials);
    check(&section, &parts, credentials);
    read.scope_names = parts.scopes.iter().flatten().map(|scope| scope.name.clone()).collect();
    read.built = name.and_then(|name| build(name, preset, parts));
    read
}

fn apply_preset<'a>(section: Section<'a>, presets: &'a Presets) -> (Section<'a>, Option<&'static str>) {
    let Some(node) = section.get("preset") else { return (section, None) };
    match presets.find(&node) {
        Some((name, table)) => (section.with_preset(name, table, &node), Some(name)),
        None => (section.without_preset(), None),
    }
}

fn read_parts<'a>(section: &Section<'a>, credentials: &[ReadCredential]) -> Parts<'a> {
    let hosts = section.require("hosts", "hosts = [\"api.example.com\"], or a preset").and_then(|n| hosts::read(&n));
    let client_certificate = client_certificate::read(section, credentials);
    let credential = match (section.get("credential"), section.get("client_certificate")) {
        // It says it all: nothing takes the nonce's place.
        (None, Some(_)) => client_certificate.clone().flatten(),
        (_, _) => section
            .require("credential", "credential = \"NAME\" of a [credentials.NAME]")
            .and_then(|node| read_credential(&node, credentials)),
    };
    let slots = section.require("slots", "slots = [\"bearer\"]: where a nonce may be").and_then(|n| read_slots(&n));
    let deny = match section.get("deny") {
        Some(node) => rules::read_texts(&node, Side::Deny, hosts.as_deref()),
        None => Some(Vec::new()),
    };
    let scopes = scopes::read(section, hosts.as_deref(), credential.as_ref(), credentials);
    let signs = slots.as_ref().is_some_and(|slots| slots.contains(&Slot::AwsSigV4));
    let dialect = if signs { Dialect::Aws } else { Dialect::default() };
    let flag = |name, default| section.get(name).map_or(Some(default), |node| node.boolean());
    Parts {
        hosts,
        credential,
        client_certificate,
        slots,
        attach: optional(section, "attach", read_slot),
        placeholder: optional(section, "placeholder", read_placeholder),
        signing: optional(section, "aws", signing::read),
        private: flag("private", false),
        cleartext: flag("cleartext", false),
        anonymous: flag("anonymous", false),
        scrub: flag("scrub", true),
        leak_scan: section.get("leak_scan").map_or(Some(LeakScan::default()), |node| node.word(&LEAK_SCANS)),
        upstream_ca: optional(section, "upstream_ca", credentials::absolute_path),
        dialect: section.get("dialect").map_or(Some(dialect), |node| node.word(&DIALECTS)),
        observe_until: observing::read(section),
        deny,
        scopes,
    }
}

/// `Some(None)` where the key is absent, `None` where it is wrong.
fn optional<T>(section: &Section<'_>, name: &str, read: impl Fn(&Node<'_>) -> Option<T>) -> Option<Option<T>> {
    match section.get(name) {
        Some(node) => read(&node).map(Some),
        None => Some(None),
    }
}

/// The name of a credential that is there, whether it was read without a mistake or not.
pub(super) fn read_credential(node: &Node<'_>, credentials: &[ReadCredential]) -> Option<CredentialName> {
    let name = node.string()?;
    if !credentials.iter().any(|credential| credential.name == name) {
        node.dangling(("credential", ""), name, credentials.iter().map(|credential| credential.name.as_str()));
        return None;
    }
    CredentialName::parse(name).ok()
}

fn read_slots(node: &Node<'_>) -> Option<Vec<Slot>> {
    let list = node.filled_list(SLOTS_MAX, "slots = [\"bearer\"]: where a nonce may be")?;
    let wanted = list.len();
    let mut slots = Vec::with_capacity(wanted);
    for node in list {
        let Some(slot) = read_slot(&node) else { continue };
        if slots.contains(&slot) {
            node.visible_fault(Code::Duplicate, "is here already".to_owned(), "take one of them out");
        } else {
            slots.push(slot);
        }
    }
    (slots.len() == wanted).then_some(slots)
}

fn read_slot(node: &Node<'_>) -> Option<Slot> {
    let text = node.string()?;
    match Slot::parse(text) {
        Ok(slot) => Some(slot),
        Err(problem) => {
            node.visible_fault(Code::BadValue, problem.to_string(), "docs/POLICY.md, Slots");
            None
        }
    }
}

/// Never repeats the text: a real key is what people put here by mistake.
fn read_placeholder(node: &Node<'_>) -> Option<Placeholder> {
    let parsed = Placeholder::parse(node.string()?);
    if parsed.is_err() {
        let message = "is not a text with {nonce} in it once".to_owned();
        node.fault(Code::BadValue, message, "like \"sk_test_{nonce}\", of letters, digits, - and _");
    }
    parsed.ok()
}

fn check(section: &Section<'_>, parts: &Parts<'_>, credentials: &[ReadCredential]) {
    warn_of_flags(section);
    check_attach(section, parts);
    check_certificate(section, parts, credentials);
    if let Some(slots) = &parts.slots {
        signing::check(section, slots, parts.hosts.as_deref());
    }
    if let Some(hosts) = &parts.hosts {
        check_ports(section, parts, hosts);
        check_addresses(section, parts, hosts);
        let patterns: Vec<_> = hosts.iter().collect();
        if let (Some(name), Some(node)) = (&parts.credential, section.get("credential")) {
            check_reach(&node, name, &patterns, credentials);
        }
        if let (Some(Some(name)), Some(node)) = (&parts.client_certificate, section.get("client_certificate")) {
            check_reach(&node, name, &patterns, credentials);
        }
        for scope in parts.scopes.iter().flatten() {
            if let (Some(name), Some(node)) = (&scope.own_credential, &scope.credential_node) {
                check_reach(node, name, &scope.reach(&patterns), credentials);
            }
        }
    }
    let deny = parts.deny.as_deref().unwrap_or_default();
    for scope in parts.scopes.iter().flatten() {
        rules::check_reachable(&scope.allow, deny, &scope.deny);
    }
}

/// A certificate is shown on connections, and never stands in a slot.
fn check_certificate(section: &Section<'_>, parts: &Parts<'_>, credentials: &[ReadCredential]) {
    client_certificate::check(section);
    let shown = parts.client_certificate.as_ref().and_then(Option::as_ref);
    let own = parts.credential.as_ref().zip(section.get("credential"));
    let of_scopes = parts.scopes.iter().flatten().filter_map(|scope| {
        let node = scope.credential_node.as_ref()?;
        scope.own_credential.as_ref().map(|name| (name, node))
    });
    for (name, node) in own.as_ref().map(|(name, node)| (*name, node)).into_iter().chain(of_scopes) {
        client_certificate::check_credential(node, name, shown, credentials);
    }
}

/// A credential goes only where a nonce may come.
fn check_attach(section: &Section<'_>, parts: &Parts<'_>) {
    if let (Some(Some(attach)), Some(slots)) = (&parts.attach, &parts.slots)
        && !slots.contains(attach)
        && let Some(node) = section.get("attach")
    {
        let slots: Vec<String> = slots.iter().map(ToString::to_string).collect();
        let hint = format!("one of its slots: {}", slots.join(", "));
        node.visible_fault(Code::BadValue, format!("`{attach}` is not one of the service's slots"), hint);
    }
}

/// What weakens a service is said at every start.
fn warn_of_flags(section: &Section<'_>) {
    let weak = [
        ("scrub", false, "answers are not searched for the credential"),
        ("cleartext", true, "the credential may travel unencrypted"),
        ("anonymous", true, "requests without a nonce go on, without any credential"),
    ];
    for (name, value, sentence) in weak {
        if let Some(node) = section.get(name).filter(|node| node.value().as_bool() == Some(value)) {
            node.warn(sentence);
        }
    }
}

/// `http://` means port 80, which a service has to list like every port but 443.
fn check_ports(section: &Section<'_>, parts: &Parts<'_>, hosts: &[HostPattern]) {
    if parts.cleartext == Some(true)
        && hosts.iter().all(|host| host.port == 443)
        && let Some(node) = section.get("cleartext")
    {
        node.warn("no host of the service has a port other than 443; http:// is port 80 where no other is written");
    }
}

/// An address that would be refused at every request.
fn check_addresses(section: &Section<'_>, parts: &Parts<'_>, hosts: &[HostPattern]) {
    if parts.private == Some(false)
        && hosts.iter().any(|pattern| is_private(&pattern.host))
        && let Some(node) = section.get("hosts")
    {
        node.warn("a private address is refused unless the service says private = true");
    }
}

fn is_private(host: &Host) -> bool {
    match host.ip() {
        Some(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        Some(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
        None => host.as_str() == "localhost" || host.as_str().ends_with(".localhost"),
    }
}

fn check_reach(node: &Node<'_>, name: &CredentialName, wanted: &[&HostPattern], credentials: &[ReadCredential]) {
    let credential = credentials.iter().find(|credential| credential.name == name.as_str());
    let Some(allowed) = credential.and_then(|credential| credential.hosts.as_ref()) else { return };
    for pattern in wanted.iter().filter(|pattern| !hosts::within(pattern, allowed)) {
        let message = format!("credential `{name}` may not go to {pattern}");
        let hint = format!("add it to hosts of [credentials.{name}], or take the host from the service");
        node.visible_fault(Code::HostNotCovered, message, hint);
    }
}

fn build(name: ServiceName, preset: Option<&'static str>, parts: Parts<'_>) -> Option<(Service, EffectiveService)> {
    let deny = parts.deny?;
    let scopes: Option<Vec<_>> = parts.scopes?.into_iter().map(ReadScope::build).collect();
    let (scopes, effective_scopes) = scopes?.into_iter().unzip();
    let effective_deny = rules::texts(&deny);
    let service = Service {
        name,
        hosts: parts.hosts?,
        credential: parts.credential?,
        client_certificate: parts.client_certificate?,
        slots: parts.slots?,
        attach: parts.attach?,
        placeholder: parts.placeholder?,
        signing: parts.signing?,
        private: parts.private?,
        cleartext: parts.cleartext?,
        anonymous: parts.anonymous?,
        scrub: parts.scrub?,
        leak_scan: parts.leak_scan?,
        upstream_ca: parts.upstream_ca?,
        dialect: parts.dialect?,
        observe_until: parts.observe_until?,
        deny: deny.into_iter().map(|rule| rule.rule).collect(),
        scopes,
    };
    let effective = EffectiveService::new(&service, preset, effective_deny, effective_scopes);
    Some((service, effective))
}

/// The word of the policy for a dialect.
pub(super) fn dialect_word(dialect: Dialect) -> &'static str {
    DIALECTS.iter().find(|(_, known)| *known == dialect).map_or("json", |(word, _)| word)
}

/// The word of the policy for what happens to a nonce in a body.
pub(super) fn leak_scan_word(leak_scan: LeakScan) -> &'static str {
    LEAK_SCANS.iter().find(|(_, known)| *known == leak_scan).map_or("report", |(word, _)| word)
}
