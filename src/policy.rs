//! The policy: pure decisions. (policy, facts) → allow or denial; no clock, no I/O, no async, no TOML.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    AgentName, Ambiguity, CredentialName, Destination, Grant, Host, Identity, IdentityRule, MinterName, Risk,
    ScopeName, ServiceName,
};

/// What a host that no service lists gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unlisted {
    /// Refused.
    Deny,
    /// Relayed unread, on port 443.
    Tunnel,
}

/// What happens to a nonce seen on a host that is not its service's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnMisplaced {
    /// Refused, alarmed and revoked.
    Revoke,
    /// Refused and alarmed.
    Refuse,
}

/// In which form a nonce comes and the credential goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Slot {
    /// `Authorization: Bearer NONCE`.
    Bearer,
    /// `Authorization: token NONCE`.
    Token,
    /// `Authorization: NONCE`.
    Raw,
    /// `Authorization: Basic base64(NONCE:password)`.
    BasicUser,
    /// `Authorization: Basic base64(user:NONCE)`.
    BasicPassword,
    /// A header of its own, in lower case.
    Header(String),
    /// A query parameter.
    Query(String),
}

/// How refusals of this service are spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Dialect {
    /// The JSON that many SDKs read.
    #[default]
    Json,
    /// `text/plain`, which git shows.
    Git,
    /// XML, which AWS SDKs read.
    Aws,
    /// A string in `error`.
    Slack,
    /// `grpc-status` and `grpc-message`.
    Grpc,
    /// A Kubernetes `Status`.
    Kubernetes,
}

/// The shape that an SDK insists on: text around the nonce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placeholder {
    /// Before the nonce: `sk_test_`.
    pub prefix: String,
    /// After it.
    pub suffix: String,
}

/// One API.
#[derive(Debug)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// Its hosts with ports; wildcards cover one label.
    pub hosts: Vec<HostPattern>,
    /// The credential of scopes that name none.
    pub credential: CredentialName,
    /// Where a nonce may be.
    pub slots: Vec<Slot>,
    /// The shape that its SDKs insist on.
    pub placeholder: Option<Placeholder>,
    /// Private addresses are allowed.
    pub private: bool,
    /// `http://` is allowed.
    pub cleartext: bool,
    /// Requests without a nonce go on, without any credential.
    pub anonymous: bool,
    /// Answers are searched for the credential.
    pub scrub: bool,
    /// Extra roots for this service alone, PEM file.
    pub upstream_ca: Option<PathBuf>,
    /// How refusals are spelled.
    pub dialect: Dialect,
    /// Denies of the whole service.
    pub deny: Vec<Rule>,
    /// Its scopes.
    pub scopes: Vec<Scope>,
}

/// A host of a service: exact, or `*.example.com` for one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern {
    /// True for `*.`: then `host` is what stands behind it.
    pub wildcard: bool,
    /// The host.
    pub host: Host,
    /// The port.
    pub port: u16,
}

/// A named set of rules.
#[derive(Debug)]
pub struct Scope {
    /// Its name.
    pub name: ScopeName,
    /// Its risk.
    pub risk: Risk,
    /// A label for the audit.
    pub data: Option<String>,
    /// The credential that its requests carry.
    pub credential: CredentialName,
    /// Uses per nonce.
    pub max_uses: Option<u32>,
    /// What it allows.
    pub allow: Vec<Rule>,
    /// What it forbids, whatever else allows it.
    pub deny: Vec<Rule>,
}

/// One rule, parsed: method, optional host, path pattern, query conditions.
#[derive(Debug, Clone)]
pub struct Rule {}

/// What a rule says of the query.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum QueryRule {
    /// Any parameters.
    #[default]
    Any,
    /// These parameters may be there and no others: `query = ["limit"]`.
    Only(Vec<String>),
    /// These parameters must be there once with exactly these values, and no others: `query = { service = "x" }`.
    Exactly(Vec<(String, String)>),
}

/// Why the text of a rule, slot, placeholder or host pattern was refused; a sentence with a hint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadSyntax(pub String);

impl Rule {
    /// Parses `GET /v1/customers/cus_{id}`, `GET api.github.com/repos/{*rest}`, `* /v1/{*rest}` (any method, in denies).
    ///
    /// # Errors
    /// [`BadSyntax`].
    pub fn parse(_text: &str, _query: QueryRule, _encoded_slash: bool) -> Result<Self, BadSyntax> {
        todo!()
    }
    /// As the policy spells it.
    #[must_use]
    pub fn text(&self) -> &str {
        todo!()
    }
    /// The host that it names, if it names one.
    #[must_use]
    pub fn host(&self) -> Option<&Host> {
        todo!()
    }
    /// True when every request that `other` matches is matched by this rule too: `other` after a deny like that is unreachable.
    #[must_use]
    pub fn covers(&self, _other: &Rule) -> bool {
        todo!()
    }
}

impl Slot {
    /// Parses `bearer`, `header:X-Api-Key`, `query:key` …; refuses the header names that no slot may have.
    ///
    /// # Errors
    /// [`BadSyntax`].
    pub fn parse(_text: &str) -> Result<Self, BadSyntax> {
        todo!()
    }
}

impl Placeholder {
    /// Parses a text with `{nonce}` in it once.
    ///
    /// # Errors
    /// [`BadSyntax`].
    pub fn parse(_text: &str) -> Result<Self, BadSyntax> {
        todo!()
    }
}

impl HostPattern {
    /// Parses `api.stripe.com`, `*.example.com`, `internal.test:8443`; refuses a wildcard directly under a public suffix.
    ///
    /// # Errors
    /// [`BadSyntax`].
    pub fn parse(_text: &str) -> Result<Self, BadSyntax> {
        todo!()
    }
    /// True when it covers this destination.
    #[must_use]
    pub fn covers(&self, _destination: &Destination) -> bool {
        todo!()
    }
}

/// Longest period and whole life of a nonce, by risk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ceiling {
    /// One period, from mint or renewal.
    pub ttl: Duration,
    /// From mint to the last renewal's end.
    pub lifetime: Duration,
}

/// One `[agents.NAME]`.
#[derive(Debug, Clone)]
pub struct AgentRule {
    /// Its name.
    pub name: AgentName,
    /// Who may present its nonces.
    pub identities: Arc<[IdentityRule]>,
    /// The most that may be minted for it.
    pub grants: Vec<Grant>,
}

/// A policy's content, each part parsed and every name checked by `config`.
#[derive(Debug)]
pub struct Parts {
    /// SHA-256 of the file, in hex.
    pub digest: Arc<str>,
    /// What unlisted hosts get.
    pub unlisted: Unlisted,
    /// What happens to misplaced nonces.
    pub on_misplaced: OnMisplaced,
    /// TTL where a mint names none.
    pub default_ttl: Duration,
    /// By risk: low, medium, high.
    pub ceilings: [Ceiling; 3],
    /// The services.
    pub services: Vec<Service>,
    /// The agents.
    pub agents: Vec<AgentRule>,
    /// The minters.
    pub minters: Vec<MinterRule>,
}

/// A request target in its one canonical form; what is judged is what is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {}

impl Target {
    /// Parses path and query as they came; refuses, never repairs. Encoded slashes are noted, and refused later unless
    /// the matching rule allows them.
    ///
    /// # Errors
    /// [`Ambiguity`].
    pub fn parse(_path_and_query: &str) -> Result<Self, Ambiguity> {
        todo!()
    }
    /// The path as it came.
    #[must_use]
    pub fn path(&self) -> &str {
        todo!()
    }
    /// The query as it came, without `?`.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        todo!()
    }
}

/// What a decision is made on.
#[derive(Debug, Clone, Copy)]
pub struct RequestFacts<'a> {
    /// The method, exact.
    pub method: &'a str,
    /// True for an upgrade to WebSocket.
    pub websocket: bool,
    /// The host.
    pub host: &'a Host,
    /// Path and query; the slot's own query parameter is already taken out.
    pub target: &'a Target,
}

/// What the policy says.
#[derive(Debug)]
pub enum Verdict<'a> {
    /// Allowed by this scope (the least risky of those that allow) and rule (as the policy spells it).
    Allow {
        /// The scope.
        scope: &'a Scope,
        /// The rule.
        rule: &'a str,
    },
    /// No scope of these allows it (or a deny forbids it).
    Deny {
        /// What they allow, as the policy spells it; at most 16.
        allowed: Vec<String>,
        /// A scope of the service that would allow it and that the agent may have.
        required_scope: Option<ScopeName>,
    },
    /// The request cannot be judged.
    Ambiguous(Ambiguity),
}

impl Service {
    /// Decides a request over the scopes that a lease holds. `grantable` are the scopes that the agent may have.
    #[must_use]
    pub fn decide(&self, _scopes: &[ScopeName], _grantable: &[ScopeName], _facts: &RequestFacts<'_>) -> Verdict<'_> {
        todo!()
    }

    /// True when it lists this destination.
    #[must_use]
    pub fn lists(&self, _destination: &Destination) -> bool {
        todo!()
    }
}

/// A policy, whole and checked.
pub struct Policy {}

/// What a minter asks for.
#[derive(Debug, Clone)]
pub struct MintRequest {
    /// For which agent.
    pub agent: AgentName,
    /// For what.
    pub grants: Vec<Grant>,
    /// How long.
    pub ttl: Option<Duration>,
}

/// What it gets.
#[derive(Debug, Clone)]
pub struct MintPlan {
    /// Who may present the nonce.
    pub identities: Arc<[IdentityRule]>,
    /// With the uses of each scope.
    pub grants: Vec<crate::lease::LeaseGrant>,
    /// How long this period lasts.
    pub ttl: Duration,
    /// How long it may live with renewals.
    pub lifetime: Duration,
    /// What capped it: `ceilings.high`; `None` when it was given as asked.
    pub ttl_capped_by: Option<String>,
    /// The riskiest scope.
    pub risk: Risk,
}

/// Why a mint is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MintRefusal {
    /// No such agent.
    UnknownAgent,
    /// No such service; these there are for this agent.
    UnknownService {
        /// As asked.
        service: ServiceName,
        /// What there is for this agent.
        services: Vec<ServiceName>,
    },
    /// The agent may not have this scope.
    ScopeNotGrantable {
        /// As asked.
        service: ServiceName,
        /// As asked.
        scope: ScopeName,
        /// What it may have of this service.
        grantable: Vec<ScopeName>,
    },
}

/// One `[minters.NAME]`.
#[derive(Debug, Clone)]
pub struct MinterRule {
    /// Its name.
    pub name: MinterName,
    /// Who may act as it.
    pub identities: Vec<IdentityRule>,
    /// For which agents; `None` is all (`"*"`).
    pub agents: Option<Vec<AgentName>>,
    /// What it may do.
    pub may: Vec<Permission>,
}

/// What a minter may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Make nonces.
    Mint,
    /// List and read leases.
    Read,
    /// End them.
    Revoke,
}

impl Policy {
    /// Indexes the parts.
    #[must_use]
    pub fn new(_parts: Parts) -> Self {
        todo!()
    }
    /// SHA-256 of the file, in hex.
    #[must_use]
    pub fn digest(&self) -> &Arc<str> {
        todo!()
    }
    /// What unlisted hosts get.
    #[must_use]
    pub fn unlisted(&self) -> Unlisted {
        todo!()
    }
    /// What happens to misplaced nonces.
    #[must_use]
    pub fn on_misplaced(&self) -> OnMisplaced {
        todo!()
    }
    /// The services that list this destination (several may share a host).
    #[must_use]
    pub fn services_at(&self, _destination: &Destination) -> Vec<&Arc<Service>> {
        todo!()
    }
    /// True when any service lists this host on any port.
    #[must_use]
    pub fn lists_host(&self, _host: &Host) -> bool {
        todo!()
    }
    /// All services.
    #[must_use]
    pub fn services(&self) -> &[Arc<Service>] {
        todo!()
    }
    /// One service.
    #[must_use]
    pub fn service(&self, _name: &ServiceName) -> Option<&Arc<Service>> {
        todo!()
    }
    /// Scopes of a service that an agent may have.
    #[must_use]
    pub fn grantable(&self, _agent: &AgentName, _service: &ServiceName) -> &[ScopeName] {
        todo!()
    }
    /// The agents.
    #[must_use]
    pub fn agents(&self) -> Vec<&AgentName> {
        todo!()
    }
    /// True when some agent is this identity (an agent's uid never mints).
    #[must_use]
    pub fn is_agent(&self, _identity: &Identity) -> bool {
        todo!()
    }
    /// The minters as which this identity may act.
    #[must_use]
    pub fn minters_for(&self, _identity: &Identity) -> Vec<&MinterRule> {
        todo!()
    }
    /// Decides what a mint gets.
    ///
    /// # Errors
    /// [`MintRefusal`].
    pub fn plan(&self, _request: &MintRequest) -> Result<MintPlan, MintRefusal> {
        todo!()
    }
}
