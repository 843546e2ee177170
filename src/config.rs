//! What was typed → what it means: the policy file and the flags. The only code that knows TOML.
//!
//! `section` walks the file and keeps the place of everything; `limits`, `credentials`, `egress`, `service` (with `scopes`,
//! `rules`, `hosts`), `identities`, `client_cas`, `people` and `allowance` read one table each, in the order in which names refer to one
//! another; `preset` holds
//! what well-known APIs look like; `mistake` and `mask` say what is wrong without showing a secret; `effective` prints
//! what is in force. `lint` knows endpoints that make a rule meaningless; `cases` reads what `valetkey policy test` runs.

mod allowance;
mod cases;
mod client_cas;
mod client_certificate;
mod conditions;
mod credentials;
mod delegate;
mod duration;
mod effective;
mod egress;
mod hosts;
mod identities;
mod limits;
mod lint;
mod mask;
mod mistake;
mod observing;
mod paths;
mod people;
pub mod preset;
mod risks;
mod rules;
mod scopes;
mod secrets;
mod section;
mod service;
mod signing;
mod supposed;
mod webhooks;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use toml::de::DeTable;

pub use self::cases::{CASES_MAX, Cases, Holds, TestCase, load_cases};
pub use self::credentials::{EXEC_TIMEOUT_DEFAULT, EXEC_TIMEOUT_MAX, EXEC_TTL_DEFAULT};
pub use self::duration::DURATION_MAX;
pub use self::effective::Effective;
pub use self::limits::{CEILINGS_DEFAULT, TTL_DEFAULT};
pub use self::mistake::{Code, Look, MISTAKES_SHOWN_MAX, Mistake, Mistakes};
pub use self::paths::{read_files, runs_commands};

use self::client_cas::EffectiveClientCa;
use self::credentials::{Exec, ReadCredential};
use self::effective::{EffectiveEgress, EffectiveNonces};
use self::egress::Egress;
use self::identities::{EffectiveIssuer, ReadIssuer};
use self::limits::Nonces;
use self::mistake::{Finding, Source};
use self::people::ReadAgent;
use self::preset::Presets;
use self::risks::Risks;
use self::section::{Keys, Notes, Section};
use self::service::ReadService;
use crate::control::webhooks::Webhook;
use crate::credential::{self, SourceSpec};
use crate::identity::{ClientCa, Identities};
use crate::model::{CredentialName, IdentityRule};
use crate::policy::{Parts, Policy, Service};

/// Longest policy file, in bytes.
pub const POLICY_BYTES_MAX: usize = 1024 * 1024;

/// The one version of the format.
const VERSION: u32 = 1;

const KEYS: Keys = Keys {
    known: &[
        "version",
        "egress",
        "nonces",
        "credentials",
        "services",
        "issuers",
        "client_cas",
        "agents",
        "minters",
        "risk",
        "webhooks",
    ],
    later: &[],
};

/// A policy file that was read without a mistake.
pub struct Loaded {
    /// The policy.
    pub policy: Policy,
    /// Its credentials.
    pub credentials: Vec<credential::Spec>,
    /// Whose proofs from further away are believed.
    pub identities: Identities,
    /// Its webhooks.
    pub webhooks: Vec<Webhook>,
    /// What deserves a word at start, each a sentence.
    pub warnings: Vec<String>,
    effective: Effective,
}

/// What a policy file amounts to, presets and defaults filled in; for `valetkey policy show`.
#[must_use]
pub fn effective(loaded: &Loaded) -> &Effective {
    &loaded.effective
}

/// A time as the policy spells it (`1h30m`), in seconds.
#[must_use]
pub fn seconds(text: &str) -> Option<u64> {
    duration::parse(text).ok().map(|time| time.as_secs())
}

/// Names of the environment variables that credentials come from, or that their commands get, each once and in
/// order: what `serve` takes out of its own environment.
#[must_use]
pub fn read_environment(loaded: &Loaded) -> Vec<String> {
    let mut names = BTreeSet::new();
    for spec in &loaded.credentials {
        match &spec.source {
            SourceSpec::Env { name } => names.extend([name.clone()]),
            SourceSpec::File { .. } | SourceSpec::Certificate { .. } => {}
            SourceSpec::Exec { environment, .. } => names.extend(environment.iter().cloned()),
        }
    }
    names.into_iter().collect()
}

/// Reads and checks a policy file. `allow_exec` lets credentials come from commands.
///
/// # Errors
/// [`Mistakes`]: all of them at once.
pub fn load_policy(path: &Path, allow_exec: bool) -> Result<Loaded, Mistakes> {
    let file: Arc<str> = section::echo_path(path).into();
    let bytes = read_file(path, &file)?;
    check_policy(&file, bytes, allow_exec)
}

/// Checks a policy that was read already; `file` is what mistakes call it.
///
/// # Errors
/// [`Mistakes`]: all of them at once.
pub fn check_policy(file: &Arc<str>, bytes: Vec<u8>, allow_exec: bool) -> Result<Loaded, Mistakes> {
    if bytes.len() > POLICY_BYTES_MAX {
        return Err(Mistakes::of_file(file, Code::TooLarge, "the file is over 1 MiB", "split the policy by sidecar"));
    }
    let digest = hex::encode(ring::digest::digest(&ring::digest::SHA256, &bytes));
    let Ok(text) = String::from_utf8(bytes) else {
        return Err(Mistakes::of_file(file, Code::NotUtf8, "the file is not UTF-8", "save it as UTF-8"));
    };
    // A byte order mark would shift the first line's columns, and means nothing in UTF-8.
    let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
    let exec = if allow_exec { Exec::Allowed } else { Exec::Refused };
    let source = Source::new(Arc::clone(file), text);
    walk(&source, &digest, exec).map_err(|findings| Mistakes::locate(source, findings))
}

fn read_file(path: &Path, file: &Arc<str>) -> Result<Vec<u8>, Mistakes> {
    let fault = |code, message: &str, hint: &str| Mistakes::of_file(file, code, message, hint);
    let unreadable = |problem: std::io::Error| match problem.kind() {
        std::io::ErrorKind::NotFound => fault(Code::Unreadable, "the file is not there", "--policy names the file"),
        std::io::ErrorKind::PermissionDenied => {
            fault(Code::Unreadable, "the file may not be read", "let the sidecar's user read it")
        }
        kind => fault(Code::Unreadable, &format!("the file cannot be read: {kind}"), ""),
    };
    // A pipe without a writer would block, so only regular files are opened.
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        let what = if metadata.is_dir() { "is a directory" } else { "is not a regular file" };
        return Err(fault(Code::Unreadable, what, "name the policy file itself"));
    }
    let opened = std::fs::File::open(path).map_err(unreadable)?;
    if opened.metadata().map_err(unreadable)?.nlink() == 0 {
        // Standard input holds secrets of the environment, and not the policy, after the start over (`process`).
        let hint = "name the file by its path; standard input is of no use, nor is a file that was removed";
        return Err(fault(Code::Unreadable, "the file has no name", hint));
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(POLICY_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    opened.take(limit).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

/// What the tables of the file say, with mistakes where something is `None`.
struct Draft {
    version: Option<()>,
    egress: Option<Egress>,
    nonces: Option<Nonces>,
    risks: Option<Risks>,
    credentials: Vec<ReadCredential>,
    services: Vec<ReadService>,
    issuers: Vec<ReadIssuer>,
    client_cas: Vec<Option<ClientCa>>,
    agents: Vec<ReadAgent>,
    minters: Vec<Option<(crate::policy::MinterRule, effective::EffectiveMinter)>>,
    webhooks: Vec<webhooks::ReadWebhook>,
}

fn walk(source: &Source, digest: &str, exec: Exec) -> Result<Loaded, Vec<Finding>> {
    let presets = Presets::new();
    let notes = Notes::default();
    let (table, errors) = DeTable::parse_recoverable(source.text());
    let table = table.into_inner();
    let read = read_tables(&Section::root(&table, &notes), &presets, exec);
    secrets::look(&table, &notes);
    let (findings, warnings) = notes.into_parts();
    let findings = beside_syntax(source, &errors, findings);
    if !findings.is_empty() {
        return Err(findings);
    }
    build(read, digest, warnings).ok_or_else(|| vec![unexplained()])
}

fn read_tables<'a>(root: &Section<'a>, presets: &'a Presets, exec: Exec) -> Draft {
    root.check_keys(&KEYS);
    let version = root.require("version", "version = 1").and_then(|node| read_version(&node));
    let nonces = limits::read_nonces(root);
    let risks = risks::read(root);
    let credentials = credentials::read(root, exec);
    let egress = egress::read(root, &credentials);
    let services = service::read(root, presets, &credentials);
    let issuers = identities::read(root);
    let client_cas = client_cas::read(root);
    let ceilings = nonces.as_ref().map(|nonces| &nonces.ceilings);
    let agents = people::read_agents(root, &services, (&issuers, &client_cas), ceilings);
    let minters = people::read_minters(root, &agents, &issuers);
    signing::check_credentials(root, &services, egress.as_ref());
    warn_of_unused(root, &credentials, &services, egress.as_ref());
    let webhooks = webhooks::read(root);
    Draft { version, egress, nonces, risks, credentials, services, issuers, client_cas, agents, minters, webhooks }
}

fn read_version(node: &section::Node<'_>) -> Option<()> {
    let version = node.number(0, u32::MAX)?;
    if version != VERSION {
        let message = "is a version of the format that this build does not know".to_owned();
        node.visible_fault(Code::BadValue, message, "version = 1");
    }
    (version == VERSION).then_some(())
}

/// A credential that no service uses is a secret too many in this process.
fn warn_of_unused(
    root: &Section<'_>,
    credentials: &[ReadCredential],
    services: &[ReadService],
    egress: Option<&Egress>,
) {
    let of_parent = egress.and_then(|egress| egress.parent_proxy.as_ref()?.credential.as_ref());
    let built = || services.iter().filter_map(|service| service.built.as_ref());
    for credential in credentials {
        let uses = |name: &crate::model::CredentialName| name.as_str() == credential.name;
        let used = built().any(|(service, _)| {
            let certificate = service.client_certificate.as_ref();
            [&service.credential].into_iter().chain(certificate).any(uses)
                || service.scopes.iter().any(|scope| uses(&scope.credential))
        });
        if !used && !of_parent.is_some_and(uses) {
            root.notes().warn(format!("credentials.{}: no service uses it", section::echo(&credential.name)));
        }
    }
}

/// Mistakes of the syntax, and those of the rest that cannot be a consequence of them.
fn beside_syntax(source: &Source, errors: &[toml::de::Error], findings: Vec<Finding>) -> Vec<Finding> {
    if errors.is_empty() {
        return findings;
    }
    let lines: BTreeSet<_> = errors.iter().filter_map(|e| e.span()).map(|span| source.line_of(span.start)).collect();
    // A broken header moves the keys below it into another table: nothing about keys can be said then.
    let header_broken = lines.iter().any(|line| source.line(*line).trim_start().starts_with('['));
    let stands = |finding: &Finding| {
        !header_broken
            && finding.code.stands_beside_syntax_mistakes()
            && !lines.contains(&source.line_of(finding.span.start))
    };
    // The first of a line; the others follow from it.
    let mut said = BTreeSet::new();
    let first = |error: &&toml::de::Error| said.insert(error.span().map(|span| source.line_of(span.start)));
    let syntax = errors.iter().filter(first).map(|error| Finding {
        code: Code::Syntax,
        span: error.span().unwrap_or(0..0),
        key: String::new(),
        message: error.message().to_owned(),
        hint: "the file is TOML 1.0".to_owned(),
        shows_value: false,
    });
    syntax.chain(findings.into_iter().filter(stands)).collect()
}

/// Every part without a mistake can be built; if one cannot, refusing is all that is safe.
fn unexplained() -> Finding {
    Finding {
        code: Code::BadValue,
        span: 0..0,
        key: String::new(),
        message: "the policy could not be put together".to_owned(),
        hint: "this is a fault of valetkey; please report it".to_owned(),
        shows_value: false,
    }
}

fn build(read: Draft, digest: &str, warnings: Vec<String>) -> Option<Loaded> {
    read.version?;
    let (egress, nonces, risks) = (read.egress?, read.nonces?, read.risks?);
    let mut shown = Effective {
        version: VERSION,
        egress: EffectiveEgress::new(&egress),
        nonces: EffectiveNonces::new(&nonces),
        risk: risks.effective(),
        credentials: BTreeMap::new(),
        services: BTreeMap::new(),
        issuers: BTreeMap::new(),
        client_cas: BTreeMap::new(),
        agents: BTreeMap::new(),
        minters: BTreeMap::new(),
        webhooks: BTreeMap::new(),
    };
    let mut specs = Vec::new();
    for credential in read.credentials {
        let spec = credential.spec?;
        let effective = credentials::effective(&spec, &credential.hosts?);
        shown.credentials.insert(credential.name, effective);
        specs.push(spec);
    }
    let (services, effective) = unzip(read.services.into_iter().map(|service| service.built))?;
    for spec in &mut specs {
        spec.scrubbed = is_scrubbed(&services, &spec.name);
        spec.form = signing::form(&services, &spec.name);
    }
    shown.services = services.iter().map(|service| service.name.to_string()).zip(effective).collect();
    let issuers = read.issuers.into_iter().map(|issuer| issuer.spec).collect::<Option<Vec<_>>>()?;
    shown.issuers = issuers.iter().map(|issuer| (issuer.name.to_string(), EffectiveIssuer::new(issuer))).collect();
    let client_cas = read.client_cas.into_iter().collect::<Option<Vec<_>>>()?;
    shown.client_cas = client_cas.iter().map(|ca| (ca.name.to_string(), EffectiveClientCa::new(ca))).collect();
    let (agents, effective) = unzip(read.agents.into_iter().map(|agent| agent.built))?;
    shown.agents = agents.iter().map(|agent| agent.name.to_string()).zip(effective).collect();
    let (minters, effective) = unzip(read.minters.into_iter())?;
    shown.minters = minters.iter().map(|minter| minter.name.to_string()).zip(effective).collect();
    let (webhooks, effective) = unzip(read.webhooks.into_iter())?;
    shown.webhooks = webhooks.iter().map(|webhook: &Webhook| webhook.name.clone()).zip(effective).collect();
    let identities = Identities { bearers: bearers(&minters), issuers, client_cas };
    let policy = Policy::new(Parts {
        digest: digest.into(),
        unlisted: egress.unlisted,
        parent_proxy: egress.parent_proxy,
        proxy_auth: egress.proxy_auth,
        on_misplaced: nonces.on_misplaced,
        default_ttl: nonces.default_ttl,
        ceilings: nonces.ceilings,
        risk_levels: risks.levels,
        services,
        agents,
        minters,
    });
    Some(Loaded { policy, credentials: specs, identities, webhooks, warnings, effective: shown })
}

/// The files whose tokens a minter may show, each once.
fn bearers(minters: &[crate::policy::MinterRule]) -> Vec<Arc<str>> {
    let mut paths: Vec<Arc<str>> = Vec::new();
    for rule in minters.iter().flat_map(|minter| &minter.identities) {
        if let IdentityRule::Bearer(path) = rule
            && !paths.contains(path)
        {
            paths.push(path.clone());
        }
    }
    paths
}

/// True where a service that uses a credential searches its answers for it.
fn is_scrubbed(services: &[Service], credential: &CredentialName) -> bool {
    let uses = |service: &Service| {
        service.credential == *credential || service.scopes.iter().any(|scope| scope.credential == *credential)
    };
    services.iter().any(|service| service.scrub && uses(service))
}

fn unzip<A, B>(pairs: impl Iterator<Item = Option<(A, B)>>) -> Option<(Vec<A>, Vec<B>)> {
    pairs.collect::<Option<Vec<_>>>().map(|pairs| pairs.into_iter().unzip())
}

#[cfg(test)]
mod tests;
