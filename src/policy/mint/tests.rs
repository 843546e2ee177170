use super::*;
use crate::model::{Destination, Host, Identity, MinterName};
use crate::policy::{
    AgentLimits, Dialect, HostPattern, MinterLimits, MinterRule, OnMisplaced, Parts, Permission, Service, Unlisted,
};

const MINUTE: Duration = Duration::from_secs(60);

fn scope(name: &str, risk: Risk, max_uses: Option<u32>) -> Scope {
    Scope {
        name: ScopeName::parse(name).unwrap(),
        risk,
        data: None,
        credential: crate::model::CredentialName::parse("key").unwrap(),
        max_uses,
        reattest: None,
        rate: None,
        allow: Vec::new(),
        deny: Vec::new(),
    }
}

fn service(name: &str, hosts: &[&str]) -> Service {
    Service {
        name: ServiceName::parse(name).unwrap(),
        hosts: hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect(),
        credential: crate::model::CredentialName::parse("key").unwrap(),
        slots: Vec::new(),
        attach: None,
        placeholder: None,
        signing: None,
        private: false,
        cleartext: false,
        anonymous: false,
        scrub: true,
        upstream_ca: None,
        client_certificate: None,
        observe_until: None,
        leak_scan: crate::policy::LeakScan::Report,
        dialect: Dialect::Json,
        deny: Vec::new(),
        scopes: vec![
            scope("read", Risk::Low, None),
            scope("write", Risk::Medium, Some(9)),
            scope("pay", Risk::High, Some(1)),
        ],
    }
}

fn grant(service: &str, scopes: &[&str]) -> Grant {
    let scopes = scopes.iter().map(|scope| ScopeName::parse(scope).unwrap()).collect();
    Grant { service: ServiceName::parse(service).unwrap(), scopes }
}

fn agent(name: &str, identities: &[IdentityRule], grants: Vec<Grant>) -> AgentRule {
    let limits = AgentLimits::default();
    AgentRule { name: AgentName::parse(name).unwrap(), identities: identities.into(), grants, delegate: None, limits }
}

fn minter(name: &str, identity: IdentityRule) -> MinterRule {
    let name = MinterName::parse(name).unwrap();
    MinterRule {
        name,
        identities: vec![identity],
        agents: None,
        may: vec![Permission::Mint],
        max_risk: None,
        limits: MinterLimits::default(),
    }
}

fn policy() -> Policy {
    let ceiling = |ttl: u32, lifetime: u32| Ceiling { ttl: MINUTE * ttl, lifetime: MINUTE * lifetime };
    Policy::new(Parts {
        digest: "00".into(),
        unlisted: Unlisted::Deny,
        parent_proxy: None,
        proxy_auth: crate::policy::ProxyAuth::None,
        on_misplaced: OnMisplaced::Revoke,
        default_ttl: MINUTE * 10,
        ceilings: [ceiling(30, 1440), ceiling(15, 240), ceiling(5, 30)],
        risk_levels: Vec::new(),
        services: vec![
            service("wild", &["*.example.com"]),
            service("exact", &["api.example.com", "api.example.com:8443"]),
            service("both", &["*.example.com", "api.example.com"]),
        ],
        agents: vec![
            agent(
                "billing",
                &[IdentityRule::Uid(1000)],
                vec![
                    grant("exact", &["read", "write"]),
                    grant("wild", &["read", "pay"]),
                    grant("exact", &["read", "pay"]),
                ],
            ),
            agent("anybody", &[IdentityRule::Any], vec![grant("exact", &["read"])]),
        ],
        minters: vec![
            minter("root", IdentityRule::Uid(0)),
            minter("clash", IdentityRule::Uid(1000)),
            minter("open", IdentityRule::Any),
        ],
    })
}

fn asked(grants: Vec<Grant>, ttl: Option<u32>) -> Result<MintPlan, MintRefusal> {
    let agent = AgentName::parse("billing").unwrap();
    policy().plan(&MintRequest { agent, grants, ttl: ttl.map(|minutes| MINUTE * minutes), rate: None })
}

type Given = Vec<(String, Vec<(String, Option<u32>)>)>;

fn scopes(plan: &MintPlan) -> Given {
    let spelled =
        |grant: &LeaseGrant| grant.scopes.iter().map(|(scope, limits)| (scope.to_string(), limits.uses)).collect();
    plan.grants.iter().map(|grant| (grant.service.to_string(), spelled(grant))).collect()
}

#[test]
fn the_riskiest_scope_caps_the_time() {
    for (names, minutes, given, cap) in [
        (&["read"][..], Some(20), 20, None),
        (&["read"], Some(30), 30, None),
        (&["read"], Some(31), 30, Some("ceilings.low")),
        (&["read"], None, 10, None),
        (&["write", "read"], Some(20), 15, Some("ceilings.medium")),
        (&["read", "pay", "write"], Some(20), 5, Some("ceilings.high")),
        (&["pay"], None, 5, Some("ceilings.high")),
        (&["pay"], Some(1), 1, None),
    ] {
        let plan = asked(vec![grant("exact", names)], minutes).unwrap();
        assert_eq!((plan.ttl, plan.ttl_capped_by.as_deref()), (MINUTE * given, cap), "{names:?} {minutes:?}");
    }
    let plan = asked(vec![grant("exact", &["read"]), grant("wild", &["pay"])], None).unwrap();
    assert_eq!((plan.risk, plan.lifetime), (Risk::High, MINUTE * 30));
}

#[test]
fn what_is_asked_twice_is_given_once_with_its_uses() {
    let grants =
        vec![grant("exact", &["read", "read", "pay"]), grant("wild", &["read"]), grant("exact", &["write", "pay"])];
    let plan = asked(grants, None).unwrap();
    let text = str::to_owned;
    let exact = vec![(text("read"), None), (text("pay"), Some(1)), (text("write"), Some(9))];
    assert_eq!(scopes(&plan), [(text("exact"), exact), (text("wild"), vec![(text("read"), None)])]);
    assert_eq!(&*plan.identities, [IdentityRule::Uid(1000)]);
}

#[test]
fn what_may_not_be_had_is_refused_whole() {
    let names = |names: &[&str]| names.iter().map(|name| ServiceName::parse(name).unwrap()).collect::<Vec<_>>();
    let refused = asked(vec![grant("exact", &["read"]), grant("both", &["read"])], None).unwrap_err();
    let service = ServiceName::parse("both").unwrap();
    assert_eq!(refused, MintRefusal::UnknownService { service, services: names(&["exact", "wild"]) });

    let refused = asked(vec![grant("exact", &["read"]), grant("wild", &["read", "write"])], None).unwrap_err();
    let Grant { service, scopes } = grant("wild", &["write"]);
    let grantable = grant("wild", &["read", "pay"]).scopes;
    assert_eq!(refused, MintRefusal::ScopeNotGrantable { service, scope: scopes[0].clone(), grantable });

    let agent = AgentName::parse("nobody").unwrap();
    let request = MintRequest { agent, grants: vec![grant("exact", &["read"])], ttl: None, rate: None };
    assert_eq!(policy().plan(&request).unwrap_err(), MintRefusal::UnknownAgent);
}

#[test]
fn nothing_asked_is_not_everything_given() {
    assert_eq!(asked(Vec::new(), None).unwrap_err(), MintRefusal::Empty);
    assert_eq!(asked(vec![grant("exact", &[])], None).unwrap_err(), MintRefusal::Empty);
    assert_eq!(asked(vec![grant("exact", &["read"]), grant("wild", &[])], None).unwrap_err(), MintRefusal::Empty);
}

#[test]
fn grants_of_one_service_are_read_as_one() {
    let policy = policy();
    let of = |agent: &str, service: &str| {
        let grantable = policy.grantable(&AgentName::parse(agent).unwrap(), &ServiceName::parse(service).unwrap());
        grantable.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(of("billing", "exact"), ["read", "write", "pay"]);
    assert_eq!(of("billing", "both"), [""; 0]);
    assert_eq!(of("nobody", "exact"), [""; 0]);
}

#[test]
fn an_agents_identity_never_mints() {
    let policy = policy();
    let minters = |uid| policy.minters_for(&Identity::Uid(uid)).iter().map(|m| m.name.to_string()).collect::<Vec<_>>();
    assert!(policy.is_agent(&Identity::Uid(1000)));
    assert!(!policy.is_agent(&Identity::Uid(0)), "an agent that may be anybody is nobody in particular");
    assert_eq!(minters(0), ["root", "open"]);
    assert_eq!(minters(7), ["open"]);
    assert_eq!(minters(1000), [""; 0]);
}

#[test]
fn services_are_found_by_host_and_port() {
    let policy = policy();
    let at = |destination: &str| {
        let services = policy.services_at(&Destination::parse(destination, Some(443)).unwrap());
        services.iter().map(|service| service.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(at("api.example.com"), ["wild", "exact", "both"], "in the order of the file, each once");
    assert_eq!(at("API.Example.com."), ["wild", "exact", "both"]);
    assert_eq!(at("other.example.com"), ["wild", "both"]);
    assert_eq!(at("api.example.com:8443"), ["exact"]);
    for nowhere in [
        "example.com",
        "a.b.example.com",
        "other.example.com:8443",
        "api.example.com:80",
        "xapi.example.com.test",
        "127.0.0.1",
    ] {
        assert_eq!(at(nowhere), [""; 0], "{nowhere}");
    }
    let lists = |host: &str| policy.lists_host(&Host::parse(host).unwrap());
    assert!(lists("api.example.com") && lists("other.example.com"));
    assert!(!lists("example.com") && !lists("a.b.example.com") && !lists("api.example.org"));
}

#[test]
fn the_directory_says_what_each_service_says() {
    let policy = policy();
    for destination in
        ["api.example.com:443", "api.example.com:8443", "x.example.com:443", "x.example.com:8443", "example.com:443"]
    {
        let destination = Destination::parse(destination, None).unwrap();
        let found: Vec<&ServiceName> = policy.services_at(&destination).iter().map(|service| &service.name).collect();
        let expected: Vec<&ServiceName> = policy
            .services()
            .iter()
            .filter(|service| service.lists(&destination))
            .map(|service| &service.name)
            .collect();
        assert_eq!(found, expected, "{destination}");
    }
}
