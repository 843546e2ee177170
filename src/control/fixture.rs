//! A policy and a control plane for the tests of this folder.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::CredentialHealth;
use super::front::Control;
use crate::audit::{self, Audit, Sink};
use crate::clock::ManualClock;
use crate::lease::{self, Store};
use crate::metrics::Metrics;
use crate::model::Identity;
use crate::model::{
    AgentName, CredentialName, Grant, IdentityRule, LevelName, MinterName, Risk, RiskCap, ScopeName, ServiceName,
};
use crate::policy::{
    AgentLimits, AgentRule, Ceiling, HostPattern, MinterLimits, MinterRule, OnMisplaced, Parts, Permission,
    Placeholder, Policy, QueryRule, RiskLevel, Rule, Scope, Service, Slot, Unlisted,
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
        reattest: None,
        rate: None,
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
        attach: None,
        placeholder: placeholder.map(|text| Placeholder::parse(text).unwrap()),
        signing: None,
        private: false,
        cleartext: false,
        anonymous: false,
        scrub: true,
        upstream_ca: None,
        client_certificate: None,
        observe_until: None,
        leak_scan: crate::policy::LeakScan::Report,
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
        delegate: None,
        limits: AgentLimits::default(),
    }
}

fn minter(name: &str, uid: u32, agents: Option<&[&str]>, may: &[Permission]) -> MinterRule {
    MinterRule {
        name: MinterName::parse(name).unwrap(),
        identities: vec![IdentityRule::Uid(uid)],
        agents: agents.map(|agents| agents.iter().map(|name| agent(name)).collect()),
        may: may.to_vec(),
        max_risk: None,
        limits: MinterLimits::default(),
    }
}

/// Two services, three agents, three minters.
pub(super) fn policy() -> Policy {
    Policy::new(policy_parts())
}

/// What [`policy`] is made of.
pub(super) fn policy_parts() -> Parts {
    let seconds = std::time::Duration::from_secs;
    let ceiling = |ttl, lifetime| Ceiling { ttl: seconds(ttl), lifetime: seconds(lifetime) };
    let all = [Permission::Mint, Permission::Read, Permission::Revoke, Permission::Events, Permission::Risk];
    let stripe = vec![
        scope("read:customers", Risk::Low, &["GET /v1/customers", "GET /v1/customers/cus_{id}"]),
        scope("write:refunds", Risk::High, &["POST /v1/refunds"]),
        scope("read:secret-plans", Risk::High, &["GET /v1/plans"]),
    ];
    let github = vec![scope("read:app", Risk::Low, &["GET api.github.com/repos/acme/app/contents/{*path}"])];
    Parts {
        digest: "d1ge57".into(),
        unlisted: Unlisted::Deny,
        parent_proxy: None,
        proxy_auth: crate::policy::ProxyAuth::None,
        on_misplaced: OnMisplaced::Revoke,
        default_ttl: seconds(300),
        ceilings: [ceiling(1800, 86400), ceiling(900, 14400), ceiling(300, 1800)],
        risk_levels: vec![RiskLevel { name: LevelName::parse("elevated").unwrap(), cap: RiskCap::UpTo(Risk::Low) }],
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
    }
}

/// Leases that the fixture's store holds at most.
pub(super) const LEASES_MAX: usize = 40;

/// A control plane with a clock that tests move and an audit that they can read.
pub(super) struct Plane {
    pub(super) control: Arc<Control>,
    pub(super) store: Arc<Store>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) audit: Audit,
    pub(super) audit_path: PathBuf,
    pub(super) home: tempfile::TempDir,
}

/// An answer, read.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Read {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(super) fn code(&self) -> (u16, String) {
        let problem = self.json();
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(problem["status"], self.status);
        (self.status, problem["code"].as_str().unwrap().to_owned())
    }
}

impl Plane {
    pub(super) fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let audit_path = home.path().join("audit.jsonl");
        Self::with_sink(home, Sink::File(audit_path.clone()), audit_path)
    }

    /// With an audit that cannot be written.
    pub(super) fn with_full_disk() -> Self {
        let home = tempfile::tempdir().unwrap();
        let audit_path = home.path().join("audit.jsonl");
        Self::with_sink(home, Sink::File("/dev/full".into()), audit_path)
    }

    fn with_sink(home: tempfile::TempDir, sink: Sink, audit_path: PathBuf) -> Self {
        let clock = ManualClock::new();
        let wait_max = Duration::from_millis(200);
        let config = audit::Config { queue_records_max: 1000, wait_max, ..audit::Config::new(sink) };
        let audit = Audit::start(&config, clock.clone(), serde_json::json!({})).unwrap();
        let config = lease::Config { live_max: LEASES_MAX, tombstone_life: Duration::from_secs(60), tombstones_max: 9 };
        let store = Store::new(config, clock.clone());
        let problem = Some("the file is gone".to_owned());
        let health = CredentialHealth { name: "key".into(), source: "file", problem, version: 0 };
        let parts = super::Parts {
            policy: crate::policy::Current::new(Arc::new(policy())),
            leases: store.minter(),
            audit: audit.clone(),
            metrics: Metrics::new(),
            clock: clock.clone(),
            ca_pem: "-----BEGIN CERTIFICATE-----\n".into(),
            proxy_url: "http://127.0.0.1:8080".into(),
            addresses: super::Addresses {
                proxy: "127.0.0.1:8080".parse().unwrap(),
                admin: "127.0.0.1:9090".parse().unwrap(),
            },
            credentials: Arc::new(move || vec![health.clone()]),
        };
        let control = Arc::new(Control::new(parts, crate::identity::socket_peer, CancellationToken::default()));
        Self { control, store, clock, audit, audit_path, home }
    }

    /// One call of the user with this uid, as curl would send it.
    pub(super) async fn call(&self, uid: u32, method: Method, target: &str, body: Option<&str>) -> Read {
        let mut request = Request::builder().method(method).uri(target).header("host", "localhost");
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        self.send(uid, request.body(Full::from(body.unwrap_or_default().to_owned())).unwrap()).await
    }

    pub(super) async fn send(&self, uid: u32, request: Request<Full<Bytes>>) -> Read {
        let answer = self.control.handle(Some(&Identity::Uid(uid)), request).await;
        let (head, body) = answer.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        assert_eq!(head.headers["cache-control"], "no-store");
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Read { status: head.status.as_u16(), headers: head.headers, text }
    }

    pub(super) async fn mint(&self, uid: u32, body: &Value) -> Read {
        self.call(uid, Method::POST, "/v1/nonces", Some(&body.to_string())).await
    }

    pub(super) async fn mint_with_key(&self, uid: u32, key: &str, body: &Value) -> Read {
        let request = Request::post("/v1/nonces").header("content-type", "application/json");
        let request = request.header("idempotency-key", key).body(Full::from(body.to_string())).unwrap();
        self.send(uid, request).await
    }

    /// The audit's records so far.
    pub(super) async fn records(&self) -> Vec<Value> {
        self.audit.stop("test", Duration::from_secs(5)).await;
        let text = std::fs::read_to_string(&self.audit_path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// A mint that the orchestrator may do.
pub(super) fn refund() -> Value {
    serde_json::json!({"agent": "billing", "task": "refund-4711", "service": "stripe", "scope": "read:customers"})
}
