//! `[issuers.NAME]`: whose tokens are believed; and the spelling of identities, which name them.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use super::mistake::Code;
use super::people::entries;
use super::section::{Keys, Named, Node, Section};
use crate::identity::{
    ALGORITHMS, Address, Algorithm, IssuerSpec, Kind, Proof, WorkloadApi, is_certificate_name, is_service_account,
    is_trust_domain, spiffe_id, trust_domain_of,
};
use crate::model::{IdentityRule, MinterName};

/// Issuers of a policy at most.
const ISSUERS_MAX: usize = 64;
/// Longest issuer, audience and claim, in bytes.
const TEXT_BYTES_MAX: usize = 512;
/// Claims of one identity at most.
const CLAIMS_MAX: usize = 16;
/// The uid that means "no change" to the kernel and is nobody's.
const UID_NOBODY_CAN_HAVE: u32 = u32::MAX;
/// Everybody's repositories have this one issuer.
const GITHUB_ACTIONS: &str = "https://token.actions.githubusercontent.com";
/// Claims of GitHub Actions of which one has to be named: the others do not say whose workflow it is.
const GITHUB_OWNERS: [&str; 6] =
    ["sub", "repository", "repository_id", "repository_owner", "repository_owner_id", "job_workflow_ref"];

const ISSUER: Keys = Keys {
    known: &[
        "kind",
        "issuer",
        "trust_domain",
        "audience",
        "algorithms",
        "jwks",
        "workload_api",
        "api_server",
        "api_token",
        "ca",
    ],
    later: &[],
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KindWord {
    Kubernetes,
    Spiffe,
    Oidc,
}

const KINDS: [(&str, KindWord); 3] =
    [("kubernetes", KindWord::Kubernetes), ("spiffe", KindWord::Spiffe), ("oidc", KindWord::Oidc)];

/// An issuer as it was read; what is `None` had mistakes.
pub(super) struct ReadIssuer {
    /// As the file spells it.
    name: String,
    kind: Option<KindWord>,
    pub(super) spec: Option<IssuerSpec>,
}

impl ReadIssuer {
    /// True where it vouches for the trust domain of this SPIFFE ID; one with mistakes might.
    pub(super) fn is_of_domain(&self, id: &str) -> bool {
        let of = |spec: &IssuerSpec| match &spec.kind {
            Kind::Spiffe { trust_domain } => trust_domain_of(id) == Some(trust_domain),
            Kind::Kubernetes | Kind::Oidc => false,
        };
        self.kind == Some(KindWord::Spiffe) && self.spec.as_ref().is_none_or(of)
    }
}

/// An issuer as `policy show` prints it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct EffectiveIssuer {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trust_domain: Option<String>,
    audience: String,
    algorithms: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jwks: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workload_api: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_server: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca: Option<String>,
}

impl EffectiveIssuer {
    pub(super) fn new(spec: &IssuerSpec) -> Self {
        let (kind, trust_domain) = match &spec.kind {
            Kind::Kubernetes => ("kubernetes", None),
            Kind::Spiffe { trust_domain } => ("spiffe", Some(trust_domain.clone())),
            Kind::Oidc => ("oidc", None),
        };
        let path = |path: &PathBuf| path.display().to_string();
        let (jwks, workload_api, api_server, api_token) = match &spec.proof {
            Proof::File(file) => (Some(path(file)), None, None, None),
            Proof::Server(address) => (Some(address.to_string()), None, None, None),
            Proof::Workload(api) => (None, Some(api.to_string()), None, None),
            Proof::Review { server, token } => (None, None, Some(server.to_string()), Some(path(token))),
        };
        Self {
            kind,
            issuer: spec.issuer.clone(),
            trust_domain,
            audience: spec.audience.clone(),
            algorithms: spec.algorithms.iter().map(|algorithm| algorithm.as_str()).collect(),
            jwks,
            workload_api,
            api_server,
            api_token,
            ca: spec.ca.as_ref().map(path),
        }
    }
}

/// Reads `[issuers]`.
pub(super) fn read(root: &Section<'_>) -> Vec<ReadIssuer> {
    let entries = entries(root, "issuers", ISSUERS_MAX);
    let mut issuers: Vec<ReadIssuer> = Vec::with_capacity(entries.len());
    for entry in &entries {
        let issuer = read_issuer(entry);
        if let Some(spec) = &issuer.spec
            && let Some(other) =
                issuers.iter().find(|other| other.spec.as_ref().is_some_and(|other| clash(spec, other)))
        {
            let message = format!("vouches for the same as `{}`", super::section::echo(&other.name));
            let hint =
                "one cluster, and one issuer for each `issuer` or `trust_domain`: identities do not say which is meant";
            entry.label.fault(Code::Duplicate, message, hint);
        }
        issuers.push(issuer);
    }
    issuers
}

/// Two issuers that could prove one and the same identity, or whose tokens could not be told apart.
fn clash(one: &IssuerSpec, other: &IssuerSpec) -> bool {
    match (&one.kind, &other.kind) {
        (Kind::Kubernetes, Kind::Kubernetes) => true,
        (Kind::Spiffe { trust_domain }, Kind::Spiffe { trust_domain: other }) => trust_domain == other,
        (Kind::Spiffe { .. }, _) | (_, Kind::Spiffe { .. }) => false,
        (Kind::Kubernetes | Kind::Oidc, Kind::Kubernetes | Kind::Oidc) => one.issuer == other.issuer,
    }
}

fn read_issuer(entry: &Named<'_>) -> ReadIssuer {
    let mut read = ReadIssuer { name: entry.name.to_owned(), kind: None, spec: None };
    let name = entry.label.name(entry.name, MinterName::parse);
    if entry.name.contains(':') {
        let message = "the name has a colon, which ends it in an identity".to_owned();
        entry.label.fault(Code::BadValue, message, "oidc:NAME:CLAIM=VALUE");
        return read;
    }
    let Some(section) = entry.value.section_at(&entry.label) else { return read };
    section.check_keys(&ISSUER);
    read.kind =
        section.require("kind", "kind = \"kubernetes\", \"spiffe\" or \"oidc\"").and_then(|node| node.word(&KINDS));
    let Some(word) = read.kind else { return read };
    let issuer = match (word, section.get("issuer")) {
        (_, Some(node)) => read_text(&node).map(Some),
        (KindWord::Spiffe, None) => Some(None),
        (KindWord::Kubernetes | KindWord::Oidc, None) => {
            section.require("issuer", "issuer = \"https://…\": what `iss` of its tokens is").map(|_| None)
        }
    };
    let kind = read_kind(&section, word);
    let audience = section.require("audience", "audience = \"valetkey\": what `aud` of a token for this sidecar holds");
    let audience = audience.and_then(|node| read_text(&node));
    let algorithms = section.require("algorithms", "algorithms = [\"RS256\"]").and_then(|node| read_algorithms(&node));
    let proof = read_proof(&section, word);
    let ca = read_ca(&section, proof.as_ref());
    let all = name.zip(issuer).zip(kind).zip(audience).zip(algorithms).zip(proof).zip(ca);
    read.spec = all.map(|((((((_, issuer), kind), audience), algorithms), proof), ca)| IssuerSpec {
        name: entry.name.into(),
        kind,
        issuer,
        audience,
        algorithms,
        proof,
        ca,
    });
    read
}

fn read_text(node: &Node<'_>) -> Option<String> {
    let text = node.string()?;
    let is_fine = (1..=TEXT_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if !is_fine {
        node.fault(Code::BadValue, "is not one word".to_owned(), "1 to 512 printable ASCII characters, no spaces");
    }
    is_fine.then(|| text.to_owned())
}

fn read_kind(section: &Section<'_>, word: KindWord) -> Option<Kind> {
    match (word, section.get("trust_domain")) {
        (KindWord::Kubernetes, None) => Some(Kind::Kubernetes),
        (KindWord::Oidc, None) => Some(Kind::Oidc),
        (KindWord::Kubernetes | KindWord::Oidc, Some(node)) => {
            node.fault(Code::BadValue, "is for kind = \"spiffe\" alone".to_owned(), "take it out");
            None
        }
        (KindWord::Spiffe, None) => {
            section.require("trust_domain", "trust_domain = \"example.org\"");
            None
        }
        (KindWord::Spiffe, Some(node)) => {
            let text = node.string()?;
            if !is_trust_domain(text) {
                node.fault(Code::BadValue, "is not a trust domain".to_owned(), "lower case, without spiffe://");
                return None;
            }
            Some(Kind::Spiffe { trust_domain: text.to_owned() })
        }
    }
}

fn read_algorithms(node: &Node<'_>) -> Option<Vec<Algorithm>> {
    let list = node.filled_list(ALGORITHMS.len(), "algorithms = [\"RS256\"]")?;
    let wanted = list.len();
    let mut algorithms: Vec<Algorithm> = Vec::with_capacity(wanted);
    for node in &list {
        let Some(algorithm) = node.word(&ALGORITHMS) else { continue };
        if algorithms.contains(&algorithm) {
            node.visible_fault(Code::Duplicate, "is here already".to_owned(), "take one of them out");
        } else if algorithms.first().is_some_and(|first| first.family() != algorithm.family()) {
            let hint = "an issuer has keys of one kind: RS* and PS*, or ES*, or EdDSA";
            node.visible_fault(Code::BadValue, "is for another kind of key than the first".to_owned(), hint);
        } else {
            algorithms.push(algorithm);
        }
    }
    (algorithms.len() == wanted).then_some(algorithms)
}

fn read_proof(section: &Section<'_>, word: KindWord) -> Option<Proof> {
    let (jwks, server, token) = (section.get("jwks"), section.get("api_server"), section.get("api_token"));
    if word != KindWord::Kubernetes
        && let Some(node) = server.as_ref().or(token.as_ref())
    {
        node.fault(Code::BadValue, "is for kind = \"kubernetes\" alone".to_owned(), "jwks = \"…\" for the others");
        return None;
    }
    if let Some(node) = section.get("workload_api") {
        return read_workload_api(&node, word, jwks.is_some());
    }
    match (jwks, server, token) {
        (Some(node), None, None) => read_jwks(&node),
        (None, Some(server), Some(token)) => {
            let address = server.string().and_then(Address::parse).filter(|address| address.path == "/");
            if address.is_none() {
                server.fault(Code::BadValue, "is not an API server".to_owned(), "\"https://HOST[:PORT]\", no path");
            }
            Some(Proof::Review { server: address?, token: read_path(&token)? })
        }
        (Some(_), Some(node), _) | (Some(_), None, Some(node)) => {
            node.fault(Code::BadValue, "is there beside `jwks`".to_owned(), "one of the two ways");
            None
        }
        (None, ..) => {
            let hint = match word {
                KindWord::Kubernetes => "jwks = \"/FILE\" or \"https://…\", or `api_server` with `api_token`",
                KindWord::Spiffe => {
                    "jwks = \"/FILE\" or \"https://…\", or workload_api = \"unix:///run/spire/agent.sock\""
                }
                KindWord::Oidc => "jwks = \"/FILE\" or \"https://…\"",
            };
            section.fault(Code::Missing, "says nothing of how tokens are verified".to_owned(), hint);
            None
        }
    }
}

fn read_workload_api(node: &Node<'_>, word: KindWord, has_keys: bool) -> Option<Proof> {
    if word != KindWord::Spiffe {
        node.fault(Code::BadValue, "is for kind = \"spiffe\" alone".to_owned(), "jwks = \"…\" for the others");
        return None;
    }
    if has_keys {
        node.fault(Code::BadValue, "is there beside `jwks`".to_owned(), "one of the two ways");
        return None;
    }
    read_socket(node).map(Proof::Workload)
}

/// The socket of a Workload API.
pub(super) fn read_socket(node: &Node<'_>) -> Option<WorkloadApi> {
    let api = WorkloadApi::parse(node.string()?);
    if api.is_none() {
        let hint = "\"unix:///PATH\", as SPIFFE_ENDPOINT_SOCKET has it; 107 bytes of path at most";
        node.fault(Code::BadValue, "is not the socket of a Workload API".to_owned(), hint);
    }
    api
}

fn read_jwks(node: &Node<'_>) -> Option<Proof> {
    let text = node.string()?;
    if text.starts_with('/') {
        return read_path(node).map(Proof::File);
    }
    let address = Address::parse(text);
    if address.is_none() {
        let hint = "an absolute path, or \"https://HOST[:PORT]/PATH\" without user and fragment";
        node.fault(Code::BadValue, "is neither a file nor an https:// address".to_owned(), hint);
    }
    address.map(Proof::Server)
}

pub(super) fn read_path(node: &Node<'_>) -> Option<PathBuf> {
    let path = PathBuf::from(node.string()?);
    if !path.is_absolute() {
        node.fault(Code::BadValue, "is not an absolute path".to_owned(), "begin it with /");
        return None;
    }
    Some(path)
}

fn read_ca(section: &Section<'_>, proof: Option<&Proof>) -> Option<Option<PathBuf>> {
    let Some(node) = section.get("ca") else { return Some(None) };
    if matches!(proof, Some(Proof::File(_) | Proof::Workload(_))) {
        node.fault(Code::BadValue, "is for a server, and there is none to be asked".to_owned(), "take it out");
        return None;
    }
    read_path(&node).map(Some)
}

/// Reads one identity. Never repeats the text: it can hold a bearer token that somebody wrote down.
pub(super) fn read_identity(node: &Node<'_>, issuers: &[ReadIssuer]) -> Option<IdentityRule> {
    let text = node.string()?;
    let Some(identity) = parse_identity(text) else {
        let hint = "\"uid:1000\", \"kubernetes:NAMESPACE/NAME\", \"spiffe://DOMAIN/PATH\", \"oidc:ISSUER:CLAIM=VALUE,…\", \
                    \"mtls:NAME\", \"bearer:file:/PATH\", or \"any\"";
        node.fault(Code::BadValue, "is not an identity".to_owned(), hint);
        return None;
    };
    let wanted = match &identity {
        IdentityRule::Any
        | IdentityRule::Uid(_)
        | IdentityRule::Bearer(_)
        | IdentityRule::Spiffe(_)
        | IdentityRule::Mtls(_) => return Some(identity),
        IdentityRule::Kubernetes(_) => issuers.iter().find(|issuer| issuer.kind == Some(KindWord::Kubernetes)),
        IdentityRule::Oidc { issuer, .. } => {
            issuers.iter().find(|known| *known.name == **issuer && known.kind != Some(KindWord::Kubernetes))
        }
    };
    let Some(issuer) = wanted.filter(|issuer| issuer.kind.is_none_or(|kind| kind != KindWord::Spiffe)) else {
        let hint = "[issuers.NAME] with kind = \"kubernetes\" or \"oidc\" says whose tokens are believed";
        node.fault(Code::Dangling, "names an issuer that the file does not have".to_owned(), hint);
        return None;
    };
    if let (IdentityRule::Oidc { claims, .. }, Some(spec)) = (&identity, &issuer.spec)
        && spec.issuer.as_deref() == Some(GITHUB_ACTIONS)
        && !GITHUB_OWNERS.iter().any(|owner| claims.contains_key(*owner))
    {
        let hint = "name `repository`, `repository_owner`, `job_workflow_ref` or `sub` too";
        node.fault(Code::BadValue, "admits everybody's workflows on GitHub".to_owned(), hint);
        return None;
    }
    Some(identity)
}

/// One identity as the file spells it; which issuers there are is not looked at.
pub(super) fn parse_identity(text: &str) -> Option<IdentityRule> {
    if text == "any" {
        return Some(IdentityRule::Any);
    }
    if text.starts_with("spiffe://") {
        return spiffe_id(text).map(|_| IdentityRule::Spiffe(text.into()));
    }
    let (kind, rest) = text.split_once(':')?;
    match kind {
        "uid" => parse_uid(rest),
        "bearer" => {
            let path = rest.strip_prefix("file:")?;
            let is_fine = path.starts_with('/') && path.len() <= TEXT_BYTES_MAX && !path.chars().any(char::is_control);
            is_fine.then(|| IdentityRule::Bearer(path.into()))
        }
        "kubernetes" => is_service_account(rest).then(|| IdentityRule::Kubernetes(rest.into())),
        "oidc" => {
            let (issuer, claims) = rest.split_once(':')?;
            Some(IdentityRule::Oidc { issuer: issuer.into(), claims: Arc::new(parse_claims(claims)?) })
        }
        "mtls" => is_certificate_name(rest).then(|| IdentityRule::Mtls(rest.into())),
        _ => None,
    }
}

fn parse_uid(digits: &str) -> Option<IdentityRule> {
    let uid: u32 = digits.parse().ok()?;
    (uid.to_string() == digits && uid != UID_NOBODY_CAN_HAVE).then_some(IdentityRule::Uid(uid))
}

fn parse_claims(text: &str) -> Option<BTreeMap<Box<str>, Box<str>>> {
    let mut claims = BTreeMap::new();
    for pair in text.split(',') {
        let (name, value) = pair.split_once('=')?;
        let is_word =
            |text: &str| !text.is_empty() && text.len() <= TEXT_BYTES_MAX && !text.chars().any(char::is_control);
        if !is_word(name) || !is_word(value) || name.trim() != name || value.trim() != value {
            return None;
        }
        if claims.insert(name.into(), value.into()).is_some() || claims.len() > CLAIMS_MAX {
            return None;
        }
    }
    Some(claims)
}
