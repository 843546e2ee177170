use serde::Deserialize;

use super::*;
use crate::model::{CredentialName, Risk, ServiceName};
use crate::policy::{Dialect, HostPattern};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    deny: Vec<RuleText>,
    scopes: Vec<ScopeText>,
    held: Vec<ScopeName>,
    grantable: Vec<ScopeName>,
    requests: Vec<Asked>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScopeText {
    name: ScopeName,
    risk: String,
    allow: Vec<RuleText>,
    deny: Vec<RuleText>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RuleText {
    Short(String),
    Long {
        allow: String,
        #[serde(default)]
        query: Option<QueryText>,
        #[serde(default)]
        encoded_slash: bool,
    },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum QueryText {
    Only(Vec<String>),
    Exactly(std::collections::BTreeMap<String, String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// Method and target; `//host/…` names a host other than `api.test`. `WEBSOCKET` is an upgrade by GET, `CONNECTWS`
    /// one by an extended CONNECT, `WS` a request whose method is spelled `WEBSOCKET`.
    request: String,
    expect: String,
}

fn rules(texts: Vec<RuleText>) -> Vec<Rule> {
    texts
        .into_iter()
        .map(|text| match text {
            RuleText::Short(text) => Rule::parse(&text, QueryRule::Any, false).unwrap(),
            RuleText::Long { allow, query, encoded_slash } => {
                let query = match query {
                    None => QueryRule::Any,
                    Some(QueryText::Only(names)) => QueryRule::Only(names),
                    Some(QueryText::Exactly(pairs)) => QueryRule::Exactly(pairs.into_iter().collect()),
                };
                Rule::parse(&allow, query, encoded_slash).unwrap()
            }
        })
        .collect()
}

fn service(deny: Vec<RuleText>, scopes: Vec<ScopeText>) -> Service {
    let credential = CredentialName::parse("key").unwrap();
    let scope = |text: ScopeText| Scope {
        name: text.name,
        risk: [Risk::Low, Risk::Medium, Risk::High].into_iter().find(|risk| risk.as_str() == text.risk).unwrap(),
        data: None,
        credential: credential.clone(),
        max_uses: None,
        reattest: None,
        rate: None,
        allow: rules(text.allow),
        deny: rules(text.deny),
    };
    Service {
        name: ServiceName::parse("service").unwrap(),
        hosts: vec![HostPattern::parse("api.test").unwrap(), HostPattern::parse("other.test").unwrap()],
        credential: credential.clone(),
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
        deny: rules(deny),
        scopes: scopes.into_iter().map(scope).collect(),
    }
}

fn spelled(verdict: Verdict<'_>) -> String {
    match verdict {
        Verdict::Allow { scope, next, .. } => {
            let next: Vec<String> = next.iter().map(|other| format!(" {}", other.scope.name)).collect();
            format!("allow {}{}", scope.name, next.concat())
        }
        Verdict::Deny { required_scope: Some(scope), .. } => format!("deny, ask for {scope}"),
        Verdict::Deny { required_scope: None, .. } => "deny".to_owned(),
        Verdict::Unmet(_) => "unmet".to_owned(),
        Verdict::Ambiguous(ambiguity) => format!("ambiguous {ambiguity:?}"),
    }
}

fn decided(service: &Service, held: &[ScopeName], grantable: &[ScopeName], request: &str) -> String {
    let (method, place) = request.split_once(' ').unwrap();
    let (method, websocket) = match method {
        "WEBSOCKET" => ("GET", true),
        "CONNECTWS" => ("CONNECT", true),
        "WS" => ("WEBSOCKET", false),
        other => (other, false),
    };
    let (host, target) = match place.strip_prefix("//") {
        Some(place) => place.split_at(place.find('/').unwrap()),
        None => ("api.test", place),
    };
    let (host, target) = (Host::parse(host).unwrap(), Target::parse(target).unwrap());
    let facts = RequestFacts { method, websocket, host: &host, target: &target };
    spelled(decide(service, &RuleIndex::new(service), held, grantable, (&facts, None)))
}

#[test]
fn every_request_is_decided_as_written() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../../../tests/vectors/rules.json")).unwrap();
    assert!(cases.iter().map(|case| case.requests.len()).sum::<usize>() > 150);
    let mut wrong = Vec::new();
    for case in cases {
        let service = service(case.deny, case.scopes);
        for Asked { request, expect } in case.requests {
            let got = decided(&service, &case.held, &case.grantable, &request);
            if got != expect {
                wrong.push(format!("{}: {request}: {got}, not {expect}", case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn texts(texts: impl IntoIterator<Item = String>) -> Vec<RuleText> {
    texts.into_iter().map(RuleText::Short).collect()
}

fn scope(name: &str, allow: Vec<RuleText>) -> ScopeText {
    ScopeText { name: ScopeName::parse(name).unwrap(), risk: "low".to_owned(), allow, deny: Vec::new() }
}

fn facts_of<'a>(host: &'a Host, target: &'a Target) -> RequestFacts<'a> {
    RequestFacts { method: "GET", websocket: false, host, target }
}

#[test]
fn a_refusal_lists_sixteen_rules_of_held_scopes_only() {
    let many = scope("many", texts((0..20).map(|n| format!("GET /{n}"))));
    let service = service(Vec::new(), vec![scope("hidden", texts(["GET /hidden".to_owned()])), many]);
    let (host, target) = (Host::parse("api.test").unwrap(), Target::parse("/x").unwrap());
    let held = [ScopeName::parse("many").unwrap()];
    match decide(&service, &RuleIndex::new(&service), &held, &[], (&facts_of(&host, &target), None)) {
        Verdict::Deny { allowed, .. } => {
            assert_eq!(allowed, (0..16).map(|n| format!("GET /{n}")).collect::<Vec<_>>());
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_rule_is_the_first_that_matches_as_the_policy_spells_it() {
    let rules = texts(["GET /{*rest}", "GET /a/{id}", "GET /a/b"].map(str::to_owned));
    let service = service(Vec::new(), vec![scope("s", rules)]);
    let (host, target) = (Host::parse("api.test").unwrap(), Target::parse("/a/b").unwrap());
    let held = [ScopeName::parse("s").unwrap()];
    match decide(&service, &RuleIndex::new(&service), &held, &[], (&facts_of(&host, &target), None)) {
        Verdict::Allow { rule, next, .. } => assert_eq!((rule, next.len()), ("GET /{*rest}", 0)),
        other => panic!("{other:?}"),
    }
}

mod trie_and_list {
    use proptest::prelude::*;

    use super::*;

    fn pattern() -> impl Strategy<Value = String> {
        let segment = prop::sample::select(vec!["a", "b", "ab", "{x}", "a{x}", "ab{x}"]);
        let end = prop::sample::select(vec!["", "/", "/{*rest}"]);
        (prop::collection::vec(segment, 0..4), end).prop_map(|(segments, end)| {
            let named =
                segments.iter().enumerate().map(|(at, s)| format!("/{}", s.replace("{x}", &format!("{{x{at}}}"))));
            let path = format!("{}{end}", named.collect::<String>());
            format!("GET {}", if path.is_empty() { "/" } else { &path })
        })
    }

    /// What a pattern matches, read off the text, one rule at a time.
    fn matches(pattern: &str, path: &str) -> bool {
        let mut wanted: Vec<&str> = pattern.strip_prefix("GET /").unwrap().split('/').collect();
        let mut given: Vec<&str> = path[1..].split('/').collect();
        if wanted.last() == Some(&"{*rest}") {
            wanted.pop();
            if given.len() <= wanted.len() || given[wanted.len()].is_empty() {
                return false;
            }
            given.truncate(wanted.len());
        }
        let fits = |(wanted, given): (&&str, &&str)| match wanted.split_once('{') {
            Some((beginning, _)) => given.len() > beginning.len() && given.starts_with(beginning),
            None => wanted == given,
        };
        wanted.len() == given.len() && wanted.iter().zip(&given).all(fits)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn find_the_same_rules(
            patterns in prop::collection::vec(pattern(), 0..12),
            segments in prop::collection::vec(prop::sample::select(vec!["a", "b", "ab", "abc", "c"]), 0..5),
            slash in any::<bool>(),
        ) {
            let mut path: String = segments.iter().map(|s| format!("/{s}")).collect();
            if slash || path.is_empty() {
                path.push('/');
            }
            let service = service(Vec::new(), vec![scope("s", texts(patterns.clone()))]);
            let index = RuleIndex::new(&service);
            let target = Target::parse(&path).unwrap();
            let found: Vec<&str> = index.allows(&service, &target).map(|(_, rule)| rule.text()).collect();
            let expected: Vec<&str> = patterns.iter().map(String::as_str).filter(|p| matches(p, &path)).collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn what_covers_matches_all_that_the_other_matches(
            own in pattern(), other in pattern(),
            segments in prop::collection::vec(prop::sample::select(vec!["a", "b", "ab", "abc", "c"]), 0..5),
        ) {
            let path = format!("/{}", segments.join("/"));
            let (rule, others) = (Rule::parse(&own, QueryRule::Any, false).unwrap(), Rule::parse(&other, QueryRule::Any, false).unwrap());
            if rule.covers(&others) && matches(&other, &path) {
                prop_assert!(matches(&own, &path), "{own} covers {other} and does not match {path}");
            }
        }
    }
}
