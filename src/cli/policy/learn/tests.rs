//! What an audit teaches, from records to TOML.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::config;
use crate::model::{AgentName, Host, ScopeName, ServiceName};
use crate::policy::{Policy, RequestFacts, Target, Verdict};

const BASE: &str = r#"version = 1
[credentials.c]
source = "env"
name = "KEY"
hosts = ["api.test", "b.api.test"]
[services.api]
hosts = ["api.test", "b.api.test"]
credential = "c"
slots = ["bearer"]
"#;

/// `METHOD /path` of an agent, allowed; `!METHOD /path` refused; `?METHOD /path` only observed.
fn record(line: &str) -> String {
    let (decision, rest) = line.strip_prefix('!').map_or(("allow", line), |rest| ("deny", rest));
    let (rest, observed) = rest.strip_prefix('?').map_or((rest, None), |rest| (rest, Some("out_of_scope")));
    let (method, place) = rest.split_once(' ').unwrap();
    let (host, path) = place.split_at(place.find('/').unwrap());
    let host = if host.is_empty() { "api.test" } else { host };
    let code = if decision == "deny" { "out_of_scope" } else { "" };
    let risk = if observed.is_some() { "high" } else { "low" };
    let mut record = json!({
        "type": "decision", "decision": decision, "code": code, "agent": "a", "service": "api", "method": method,
        "path": path, "destination": format!("{host}:443"), "scheme": "https", "risk": risk,
    });
    if let Some(code) = observed {
        record["observed"] = code.into();
    }
    record.to_string()
}

fn learn_lines(lines: &[&str], many: u16) -> (Vec<Learned>, LeftOut, String) {
    let text: String = lines.iter().map(|line| record(line) + "\n").collect();
    let arguments = Learn { audit: "-".into(), agent: None, service: None, of: Which::All, many, json: false };
    let (_, seen, mut left_out) = read(text.as_bytes(), &arguments).unwrap_or_else(|_| panic!("it is read"));
    let scopes = scope::learn(seen, &mut left_out);
    let toml = fragment::spell(&arguments.audit, &scopes, &left_out);
    (scopes, left_out, toml)
}

fn rules(lines: &[&str]) -> Vec<String> {
    let (scopes, ..) = learn_lines(lines, MANY_DEFAULT);
    scopes.into_iter().flat_map(|scope| scope.rules).map(|rule| rule.allow).collect()
}

fn policy(fragment: &str) -> Policy {
    let file: Arc<str> = "policy.toml".into();
    let text = format!("{BASE}{fragment}");
    config::check_policy(&file, text.into_bytes(), false).unwrap_or_else(|found| panic!("{found}\n{fragment}")).policy
}

fn is_allowed(policy: &Policy, line: &str) -> bool {
    let (method, place) = line.trim_start_matches('!').split_once(' ').unwrap();
    let (host, path) = place.split_at(place.find('/').unwrap());
    let host = Host::parse(if host.is_empty() { "api.test" } else { host }).unwrap();
    let Ok(target) = Target::parse(path) else { return false };
    let websocket = method == "WEBSOCKET";
    let facts =
        RequestFacts { method: if websocket { "GET" } else { method }, websocket, host: &host, target: &target };
    let service = ServiceName::parse("api").unwrap();
    let scopes: Vec<ScopeName> = policy.services()[0].scopes.iter().map(|scope| scope.name.clone()).collect();
    matches!(policy.decide(&service, &scopes, &scopes, &facts), Verdict::Allow { .. })
}

#[test]
fn ids_become_placeholders_where_two_were_seen() {
    assert_eq!(rules(&["GET /v1/customers/cus_NffrFeUfNV2Hib"]), ["GET /v1/customers/cus_NffrFeUfNV2Hib"]);
    assert_eq!(rules(&["GET /v1/customers/cus_1", "GET /v1/customers/cus_2"]), ["GET /v1/customers/cus_{id}"]);
    assert_eq!(rules(&["GET /o/7/i/1", "GET /o/7/i/2"]), ["GET /o/7/i/{id}"]);
    assert_eq!(rules(&["GET /o/7/i/1", "GET /o/8/i/2"]), ["GET /o/{id}/i/{id2}"]);
    assert_eq!(
        rules(&["GET /x/1", "GET /x/01234567-89ab-cdef-0123-456789abcdef"]),
        ["GET /x/{id}"],
        "a number and a UUID are two values"
    );
}

#[test]
fn words_stay_unless_there_are_many() {
    let few = ["GET /v1/customers", "GET /v1/charges", "GET /v1/payment_intents"];
    assert_eq!(rules(&few), ["GET /v1/charges", "GET /v1/customers", "GET /v1/payment_intents"]);
    let repositories: Vec<String> = (0..9_u8).map(|n| format!("GET /repos/{}/issues", char::from(b'a' + n))).collect();
    let lines: Vec<&str> = repositories.iter().map(String::as_str).collect();
    assert_eq!(learn_lines(&lines, 9).0[0].rules[0].allow, "GET /repos/{id}/issues");
    assert_eq!(learn_lines(&lines, 10).0[0].rules.len(), 9);
    let both: Vec<String> =
        (0..16).map(|n| format!("GET /r/{}/{}", ["a", "b", "c", "d"][n / 4], ["w", "x", "y", "z"][n % 4])).collect();
    let lines: Vec<&str> = both.iter().map(String::as_str).collect();
    assert_eq!(learn_lines(&lines, 4).0[0].rules[0].allow, "GET /r/{id}/{id2}");
}

#[test]
fn methods_are_exact_and_what_a_rule_includes_is_counted_with_it() {
    assert_eq!(rules(&["HEAD /a", "POST /a"]), ["HEAD /a", "POST /a"]);
    let (scopes, ..) = learn_lines(&["HEAD /a", "GET /a", "!GET /a", "GET /b/1", "GET /b/2", "GET /b/new"], 50);
    let seen: Vec<_> = scopes[0].rules.iter().map(|rule| (rule.allow.as_str(), rule.allowed, rule.refused)).collect();
    assert_eq!(seen, [("GET /a", 2, 1), ("GET /b/{id}", 3, 0)]);
}

#[test]
fn hosts_are_named_where_there_are_several() {
    assert_eq!(rules(&["GET /a", "GET b.api.test/b"]), ["GET api.test/a", "GET b.api.test/b"]);
}

#[test]
fn what_no_rule_can_say_is_counted() {
    let (scopes, left_out, toml) = learn_lines(&["get /a", "GET /a/../b", "GET /cut…+12", "* /a", "GET /fine"], 50);
    assert_eq!((scopes[0].requests(), left_out), (1, LeftOut { path: 2, names: 0, rule: 2 }));
    assert!(toml.contains("Left out: 2 with a path"), "{toml}");
}

#[test]
fn what_no_agent_asked_is_not_learned() {
    let lines = [
        json!({"type": "decision", "decision": "allow", "service": "api", "method": "GET", "path": "/", "destination": "api.test:443"}),
        json!({"type": "decision", "decision": "deny", "code": "nonce_expired", "agent": "a", "service": "api", "method": "GET", "path": "/", "destination": "api.test:443"}),
        json!({"type": "end", "decision": "allow", "agent": "a", "service": "api"}),
        json!({"type": "decision", "decision": "allow", "agent": "a\nb = 1", "service": "api", "method": "GET", "path": "/", "destination": "api.test:443"}),
    ];
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let arguments = Learn { audit: "-".into(), agent: None, service: None, of: Which::All, many: 50, json: false };
    let (_, seen, left_out) = read(text.as_bytes(), &arguments).unwrap_or_else(|_| panic!("it is read"));
    assert!(seen.groups.is_empty());
    assert_eq!(left_out.names, 1);
}

/// Paths of every odd kind, by a generator that is the same each time.
fn odd_requests() -> Vec<String> {
    let segments = [
        "v1",
        "customers",
        "cus_1",
        "cus_2",
        "4711",
        "4712",
        "%7Bid%7D",
        "a%2Fb",
        "*",
        ":id",
        "a:b",
        "x;v=1",
        "%C3%A9",
        "\"q\"",
        "100%25",
        "payment_intents",
        "2024-11-22",
        "ana@example.com",
        "{x}",
        "%20a",
        "~a",
        "PROJ-1",
        "PROJ-2",
    ];
    let methods = ["GET", "HEAD", "POST", "DELETE", "WEBSOCKET", "!PATCH", "!GET"];
    let mut state: u64 = 42;
    let mut next = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % bound
    };
    let mut request = || {
        let (method, depth) = (methods[next(methods.len())], next(4));
        let host = ["", "", "b.api.test"][next(3)];
        let path: String = (0..depth).map(|_| format!("/{}", segments[next(segments.len())])).collect();
        let slash = if depth == 0 || next(5) == 0 { "/" } else { "" };
        format!("{method} {host}{path}{slash}")
    };
    (0..600).map(|_| request()).collect()
}

#[test]
fn all_that_was_seen_is_allowed_and_nothing_longer_and_no_other_method() {
    let requests = odd_requests();
    let lines: Vec<&str> = requests.iter().map(String::as_str).collect();
    for many in [2, 8, 50] {
        let (scopes, left_out, toml) = learn_lines(&lines, many);
        assert_eq!(left_out, LeftOut::default());
        assert_eq!(scopes.iter().map(Learned::requests).sum::<u64>(), 600);
        let policy = policy(&toml);
        for line in &lines {
            assert!(is_allowed(&policy, line), "{line}\n{toml}");
            assert!(!is_allowed(&policy, &format!("{}/zz/zz/zz/zz", line.trim_end_matches('/'))), "{line}\n{toml}");
        }
        let seen: BTreeSet<&str> =
            lines.iter().map(|line| line.trim_start_matches('!').split(' ').next().unwrap()).collect();
        for method in ["PUT", "OPTIONS", "PURGE"] {
            assert!(!seen.contains(method));
            for line in &lines {
                let place = line.split_once(' ').unwrap().1;
                assert!(!is_allowed(&policy, &format!("{method} {place}")), "{method} {place}");
            }
        }
    }
}

#[test]
fn no_path_gets_a_method_or_a_segment_that_it_was_not_seen_with() {
    let seen = [
        "GET /v1/customers",
        "GET /v1/customers/cus_1",
        "GET /v1/customers/cus_2",
        "POST /v1/customers",
        "GET /v1/customers/cus_1/cards/card_1",
        "GET /v1/customers/cus_2/cards/card_2",
        "DELETE /v1/plans/gold",
    ];
    let policy = policy(&learn_lines(&seen, 50).2);
    for line in seen {
        assert!(is_allowed(&policy, line), "{line}");
    }
    for line in [
        "POST /v1/customers/cus_1",
        "DELETE /v1/customers/cus_1",
        "GET /v1/customers/",
        "GET /v1/customers/other",
        "GET /v1/customers/cus_1/cards",
        "GET /v1/customers/cus_1/cards/card_1/x",
        "DELETE /v1/plans/silver",
        "GET /v1/plans/gold",
        "GET /v1",
        "WEBSOCKET /v1/customers",
        "DELETE /v1/plans/gold/x",
    ] {
        assert!(!is_allowed(&policy, line), "{line}");
    }
    assert!(is_allowed(&policy, "HEAD /v1/customers"), "as a GET allows");
}

#[test]
fn a_flood_of_shapes_ends_it_and_one_of_words_is_folded() {
    let mut seen = Seen::new(50);
    let request = |path: String| record::Request {
        agent: AgentName::parse("a").unwrap(),
        service: ServiceName::parse("api").unwrap(),
        method: "GET".to_owned(),
        host: Host::parse("api.test").unwrap(),
        target: Target::parse(&path).unwrap(),
        outcome: record::Outcome::Refused,
        risk: None,
    };
    let word = |n: usize| -> String { n.to_string().bytes().map(|b| char::from(b - b'0' + b'a')).collect() };
    for n in 0..shape::SHAPES_MAX + 10 {
        assert!(seen.add(request(format!("/users/{}", word(n)))).is_ok());
    }
    let flood = (0..shape::SHAPES_MAX).find(|n| seen.add(request(format!("/{0}/{0}/{0}", word(*n)))).is_err());
    assert!(flood.is_some(), "what is held is bounded");
}

#[test]
fn what_was_only_observed_is_told_apart() {
    let lines = ["GET /v1/a", "?GET /v1/a", "?GET /v1/a", "!GET /v1/a", "?GET /v1/b", "!GET /v1/b"];
    let (scopes, _, toml) = learn_lines(&lines, MANY_DEFAULT);
    let rule = &scopes[0].rules[0];
    assert_eq!((rule.allowed, rule.observed, rule.refused, scopes[0].requests()), (1, 2, 1, 6));
    assert!(toml.contains("# 1 allowed, 2 only observed, 1 refused\n"), "{toml}");
    assert!(toml.contains("# never allowed, 1 only observed, 1 refused\n"), "{toml}");
    assert_eq!(scopes[0].risk, crate::model::Risk::Low, "the scope it went on under did not allow it");
    let text: String = lines.iter().map(|line| record(line) + "\n").collect();
    for (of, requests) in [(Which::All, 6), (Which::Allowed, 1), (Which::Observed, 3), (Which::Refused, 2)] {
        let arguments = Learn { audit: "-".into(), agent: None, service: None, of, many: MANY_DEFAULT, json: false };
        let (_, seen, mut left_out) = read(text.as_bytes(), &arguments).unwrap_or_else(|_| panic!("it is read"));
        let learned: u64 = scope::learn(seen, &mut left_out).iter().map(Learned::requests).sum();
        assert_eq!(learned, requests, "{of:?}");
    }
}
