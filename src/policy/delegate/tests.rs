//! No chain of delegations widens anything: one example of each bound, and random policies, asks and requests.

mod bounds;

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::model::{CredentialName, Host, IdentityRule, Rate};
use crate::policy::{
    AgentLimits, AgentRule, Ceiling, Dialect, HostPattern, MintRequest, OnMisplaced, Parts, ProxyAuth, QueryRule, Rule,
    Service, Target, Unlisted, lists,
};

const MINUTE: Duration = Duration::from_secs(60);
const RULES: [&str; 6] = ["GET /a", "GET /a/{x}", "GET /{*rest}", "POST /a", "POST /{*rest}", "DELETE /a/b"];
/// What a delegation can list: also what no rule has.
const LINES: [&str; 7] =
    ["GET /a", "GET /a/b", "GET api.test/{*rest}", "POST /{*rest}", "POST /c", "DELETE /a/b", "GET /c/d/{x}"];
const REQUESTS: [(&str, &str); 7] = [
    ("GET", "/a"),
    ("GET", "/a/b"),
    ("GET", "/c/d/e"),
    ("POST", "/a"),
    ("POST", "/c"),
    ("DELETE", "/a/b"),
    ("HEAD", "/a%2Fb"),
];
const SERVICES: [&str; 2] = ["s", "t"];
const SCOPES: [&str; 4] = ["p", "q", "r", "u"];
const AGENTS: [&str; 4] = ["a0", "a1", "a2", "a3"];
const RATES: [&str; 6] = ["1/s", "10/min", "3/min", "60/h", "1/h", "5/d"];
const LABELS: [(&str, &str); 3] = [("team", "x"), ("team", "y"), ("run", "1")];

fn agent(name: &str) -> AgentName {
    AgentName::parse(name).unwrap()
}

fn service_name(name: &str) -> ServiceName {
    ServiceName::parse(name).unwrap()
}

fn scope_name(name: &str) -> ScopeName {
    ScopeName::parse(name).unwrap()
}

fn rules(picked: &[usize]) -> Vec<Rule> {
    picked.iter().map(|at| Rule::parse(RULES[*at], QueryRule::Any, false).unwrap()).collect()
}

/// One scope: risk, uses, allows, denies.
type ScopeDraw = (u8, Option<u32>, Vec<usize>, Vec<usize>);
/// One agent: what it may have of each service, and `delegate`.
type AgentDraw = (Vec<(usize, usize)>, Option<(u32, Vec<usize>, u32)>);

fn scope(name: &str, (risk, max_uses, allow, deny): &ScopeDraw) -> Scope {
    let risk = [Risk::Low, Risk::Medium, Risk::High][usize::from(*risk)];
    Scope {
        name: scope_name(name),
        risk,
        data: None,
        credential: CredentialName::parse("key").unwrap(),
        max_uses: *max_uses,
        reattest: None,
        rate: None,
        allow: rules(allow),
        deny: rules(deny),
    }
}

fn service(name: &str, scopes: &[ScopeDraw]) -> Service {
    Service {
        name: service_name(name),
        hosts: vec![HostPattern::parse("api.test").unwrap()],
        credential: CredentialName::parse("key").unwrap(),
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
        scopes: SCOPES.iter().zip(scopes).map(|(name, draw)| scope(name, draw)).collect(),
    }
}

fn grants(picked: &[(usize, usize)]) -> Vec<Grant> {
    let grant = |(service, scope): &(usize, usize)| Grant {
        service: service_name(SERVICES[*service]),
        scopes: vec![scope_name(SCOPES[*scope])],
    };
    crate::policy::mint::fold(picked.iter().map(grant).collect())
}

fn agent_rule(at: usize, (granted, delegate): &AgentDraw) -> AgentRule {
    let delegate = delegate.as_ref().map(|(depth, to, children_max)| DelegateRule {
        depth: *depth,
        to: to.iter().map(|at| agent(AGENTS[*at])).collect(),
        children_max: *children_max,
    });
    let uid = u32::try_from(1000 + at).unwrap();
    AgentRule {
        name: agent(AGENTS[at]),
        identities: [IdentityRule::Uid(uid)].into(),
        grants: grants(granted),
        delegate,
        limits: AgentLimits::default(),
    }
}

fn policy(services: &[Vec<ScopeDraw>], agents: &[AgentDraw]) -> Policy {
    let ceiling = |ttl: u32, lifetime: u32| Ceiling { ttl: MINUTE * ttl, lifetime: MINUTE * lifetime };
    Policy::new(Parts {
        digest: "00".into(),
        unlisted: Unlisted::Deny,
        parent_proxy: None,
        proxy_auth: ProxyAuth::None,
        on_misplaced: OnMisplaced::Revoke,
        default_ttl: MINUTE * 10,
        risk_levels: Vec::new(),
        ceilings: [ceiling(30, 1440), ceiling(15, 240), ceiling(5, 30)],
        services: SERVICES.iter().zip(services).map(|(name, scopes)| service(name, scopes)).collect(),
        agents: agents.iter().enumerate().map(|(at, draw)| agent_rule(at, draw)).collect(),
        minters: Vec::new(),
    })
}

/// A nonce as it was minted or delegated.
#[derive(Debug, Clone)]
struct Made {
    chain: Vec<AgentName>,
    grants: Vec<LeaseGrant>,
    ttl: Duration,
    lifetime: Duration,
    max_uses: Option<u32>,
    rate: Option<Rate>,
    on_behalf_of: Option<String>,
    labels: BTreeMap<String, String>,
    lines: Vec<String>,
}

impl Made {
    /// As it is after a while: time has passed, and uses are gone.
    fn later(&self, minutes: u32, used: u32) -> Self {
        let left = |uses: Option<u32>| uses.map(|uses| uses.saturating_sub(used));
        let mut later = self.clone();
        for (_, limits) in later.grants.iter_mut().flat_map(|grant| &mut grant.scopes) {
            limits.uses = left(limits.uses);
        }
        later.max_uses = left(later.max_uses);
        later.ttl = later.ttl.saturating_sub(MINUTE * minutes);
        later.lifetime = later.lifetime.saturating_sub(MINUTE * minutes);
        later
    }

    fn delegator(&self) -> Delegator<'_> {
        Delegator {
            chain: &self.chain,
            grants: &self.grants,
            ttl: self.ttl,
            lifetime: self.lifetime,
            uses_left: self.max_uses,
            rate: self.rate,
            on_behalf_of: self.on_behalf_of.as_deref(),
            labels: &self.labels,
            lines: &self.lines,
        }
    }

    fn below(&self, to: &AgentName, plan: DelegationPlan) -> Self {
        Self {
            chain: self.chain.iter().chain([to]).cloned().collect(),
            grants: plan.mint.grants,
            ttl: plan.mint.ttl,
            lifetime: plan.mint.lifetime,
            max_uses: plan.max_uses,
            rate: plan.mint.rate,
            on_behalf_of: plan.on_behalf_of,
            labels: plan.labels,
            lines: plan.lines,
        }
    }

    fn scopes(&self, service: &ServiceName) -> Vec<ScopeName> {
        let held = self.grants.iter().filter(|grant| grant.service == *service);
        held.flat_map(|grant| grant.scopes.iter().map(|(scope, _)| scope.clone())).collect()
    }
}

/// Whether a nonce below these (the lowest last) may do this.
fn allows(policy: &Policy, line: &[Made], service: &ServiceName, (method, path): (&str, &str)) -> bool {
    let (host, target) = (Host::parse("api.test").unwrap(), Target::parse(path).unwrap());
    let facts = crate::policy::RequestFacts { method, websocket: false, host: &host, target: &target };
    if !line.iter().all(|made| lists(made.lines.iter().map(String::as_str), &facts)) {
        return false;
    }
    let (own, above) = line.split_last().unwrap();
    let above = above.iter().map(|made| policy.decide(service, &made.scopes(service), &[], &facts));
    let (scopes, own) = (own.scopes(service), policy.decide(service, &own.scopes(service), &[], &facts));
    matches!(policy.decide_below(service, &scopes, own, above), Verdict::Allow { .. })
}

fn at_most(child: Option<u32>, parent: Option<u32>) -> bool {
    parent.is_none_or(|parent| child.is_some_and(|child| child <= parent))
}

/// All that a child must not exceed.
fn check(policy: &Policy, line: &[Made], parent: &Made, child: &Made) {
    for (service, scope, own) in child.grants.iter().flat_map(|g| g.scopes.iter().map(|(s, l)| (&g.service, s, *l))) {
        let held = parent.grants.iter().filter(|grant| grant.service == *service).flat_map(|grant| &grant.scopes);
        let (_, left) = held.clone().find(|(name, _)| name == scope).expect("a scope of the parent");
        assert!(at_most(own.uses, left.uses) && own.uses != Some(0));
        assert!(policy.grantable(child.chain.last().unwrap(), service).contains(scope));
    }
    assert!(!child.grants.is_empty());
    assert!(child.ttl <= parent.ttl && child.lifetime <= parent.lifetime);
    assert!(at_most(child.max_uses, parent.max_uses) && child.max_uses != Some(0));
    assert!(parent.rate.is_none_or(|above| child.rate.is_some_and(|rate| rate.is_within(above))));
    assert!(parent.labels.iter().all(|label| child.labels.get(label.0) == Some(label.1)));
    // Of a list, each line is within a line above and within a rule; a list above goes on below.
    let read = |line: &String| read_line(line).unwrap();
    let is_listed =
        |line: &Rule| parent.lines.is_empty() || parent.lines.iter().any(|above| read(above).covers_line(line));
    assert!(
        child.lines.iter().map(read).all(|line| is_listed(&line))
            && (parent.lines.is_empty() || !child.lines.is_empty())
    );
    assert!(parent.on_behalf_of.is_none() || child.on_behalf_of == parent.on_behalf_of);
    for (distance, above) in line.iter().rev().enumerate() {
        let rule = policy.agent(above.chain.last().unwrap()).unwrap().delegate.as_ref().expect("may delegate");
        assert!(distance < rule.depth as usize && rule.to.contains(child.chain.last().unwrap()));
    }
}

fn scope_draw() -> impl Strategy<Value = ScopeDraw> {
    let some = prop::collection::vec(0..RULES.len(), 1..4);
    let few = prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(0..RULES.len(), 1..3)];
    (0..3_u8, prop::option::of(1..9_u32), some, few)
}

fn agent_draw() -> impl Strategy<Value = AgentDraw> {
    let granted = prop::collection::vec((0..SERVICES.len(), 0..SCOPES.len()), 3..9);
    let to = prop::sample::subsequence((0..AGENTS.len()).collect::<Vec<_>>(), 3..=AGENTS.len());
    (granted, prop::option::weighted(0.95, (1..6_u32, to, 1..4_u32)))
}

#[derive(Debug, Clone)]
struct AskDraw {
    to: usize,
    grants: Option<Vec<(usize, usize)>>,
    ttl: Option<u32>,
    max_uses: Option<u32>,
    rate: Option<&'static str>,
    on_behalf_of: Option<&'static str>,
    label: Option<usize>,
    lines: Vec<usize>,
    /// Time and uses that are gone before it.
    gone: (u32, u32),
}

fn ask_draw() -> impl Strategy<Value = AskDraw> {
    let grants = prop::option::weighted(0.3, prop::collection::vec((0..SERVICES.len(), 0..SCOPES.len()), 1..3));
    let rest = (
        prop::option::of(1..60_u32),
        (prop::option::weighted(0.2, 1..9_u32), prop::option::weighted(0.3, prop::sample::select(RATES.to_vec()))),
        prop::option::weighted(0.2, prop::sample::select(vec!["ana", "bob"])),
        prop::option::weighted(0.2, 0..LABELS.len()),
        (0..4_u32, 0..2_u32),
        prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(0..LINES.len(), 1..4)],
    );
    (0..AGENTS.len(), grants, rest).prop_map(
        |(to, grants, (ttl, (max_uses, rate), on_behalf_of, label, gone, lines))| AskDraw {
            to,
            grants,
            ttl,
            max_uses,
            rate,
            on_behalf_of,
            label,
            lines,
            gone,
        },
    )
}

impl AskDraw {
    fn request(&self) -> DelegationRequest {
        DelegationRequest {
            agent: agent(AGENTS[self.to]),
            grants: self.grants.as_ref().map(|picked| grants(picked)),
            ttl: self.ttl.map(|minutes| MINUTE * minutes),
            max_uses: self.max_uses,
            rate: self.rate.and_then(Rate::parse),
            on_behalf_of: self.on_behalf_of.map(str::to_owned),
            labels: self.label.map(|at| (LABELS[at].0.to_owned(), LABELS[at].1.to_owned())).into_iter().collect(),
            lines: self.lines.iter().map(|at| LINES[*at].to_owned()).collect(),
        }
    }
}

fn minted(policy: &Policy, uses: Option<u32>) -> Made {
    let rule = policy.agent(&agent(AGENTS[0])).unwrap();
    let asked = MintRequest { agent: rule.name.clone(), grants: rule.grants.clone(), ttl: None, rate: None };
    let plan = policy.plan(&asked).unwrap();
    Made {
        chain: vec![rule.name.clone()],
        grants: plan.grants,
        ttl: plan.ttl,
        lifetime: plan.lifetime,
        max_uses: uses,
        rate: None,
        on_behalf_of: None,
        labels: BTreeMap::new(),
        lines: Vec::new(),
    }
}

#[test]
fn no_chain_of_delegations_widens_anything() {
    let config = Config { cases: 1_500, failure_persistence: None, ..Config::default() };
    let services = prop::collection::vec(prop::collection::vec(scope_draw(), SCOPES.len()), SERVICES.len());
    let agents = prop::collection::vec(agent_draw(), AGENTS.len());
    let asks = prop::collection::vec(ask_draw(), 1..30);
    let (deepest, allowed, listed) = (Cell::new(0), Cell::new(0_usize), Cell::new(0_usize));
    let strategy = (services, agents, prop::option::of(1..30_u32), asks);
    let outcome = TestRunner::new(config).run(&strategy, |(services, agents, uses, asks)| {
        let policy = policy(&services, &agents);
        let mut line = vec![minted(&policy, uses)];
        for ask in &asks {
            let parent = line.last().unwrap().later(ask.gone.0, ask.gone.1);
            let request = ask.request();
            let Ok(plan) = policy.plan_delegation(&parent.delegator(), &request) else { continue };
            assert_eq!(plan.mint.identities, policy.agent(&request.agent).unwrap().identities);
            let child = parent.below(&request.agent, plan);
            check(&policy, &line, &parent, &child);
            line.push(child);
        }
        deepest.set(deepest.get().max(line.len() - 1));
        for (service, request) in SERVICES.iter().flat_map(|name| REQUESTS.map(|request| (service_name(name), request)))
        {
            for below in 1..line.len() {
                if allows(&policy, &line[..=below], &service, request) {
                    allowed.set(allowed.get() + 1);
                    listed.set(listed.get() + usize::from(!line[below].lines.is_empty()));
                    let all_above = (1..=below).all(|above| allows(&policy, &line[..above], &service, request));
                    assert!(all_above, "{request:?} of {service} is allowed below alone: {line:#?}");
                }
            }
        }
        Ok(())
    });
    outcome.unwrap();
    assert!(
        deepest.get() == 5 && allowed.get() > 1_000 && listed.get() > 300,
        "too little was tried: {deepest:?}, {allowed:?}, {listed:?}"
    );
}
