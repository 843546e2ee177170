//! Questions about a policy and the answers that the sidecar would give.

use std::sync::Arc;

use super::render::render;
use crate::config;
use crate::model::Risk;
use crate::policy::Policy;
use crate::policy::explain::{Answer, Asked, Holds, explain, read};

const POLICY: &str = r#"
version = 1

[credentials.api]
source = "env"
name = "API_KEY"
hosts = ["api.test", "api.test:8443"]

[services.api]
hosts = ["api.test"]
credential = "api"
slots = ["bearer", "query:key"]
deny = ["* /v1/keys"]

[[services.api.scopes]]
name = "read"
risk = "low"
allow = ["GET /v1/{item}"]

[[services.api.scopes]]
name = "search"
risk = "low"
rules = [{ allow = "GET /search", query = ["q"] }]

[[services.api.scopes]]
name = "write"
risk = "high"
max_uses = 1
allow = ["POST /v1/{item}", "GET /v1/{item}"]

[services.other]
hosts = ["api.test:8443"]
credential = "api"
slots = ["bearer"]
[[services.other.scopes]]
name = "all"
risk = "medium"
allow = ["GET /{*rest}"]

[agents.reader]
identity = ["any"]
grants = { api = ["read"] }

[agents.writer]
identity = ["any"]
grants = { api = ["read", "search", "write"] }
"#;

fn policy(text: &str) -> Policy {
    let file: Arc<str> = "policy.toml".into();
    config::check_policy(&file, text.as_bytes().to_vec(), false).unwrap_or_else(|mistakes| panic!("{mistakes}")).policy
}

fn try_ask(text: &str, line: &str, agent: &str, service: &str, scopes: &[&str]) -> Result<Answer, String> {
    let policy = policy(text);
    let (method, url) = line.split_once(' ').unwrap();
    let scopes: Vec<String> = scopes.iter().map(|scope| (*scope).to_owned()).collect();
    let asked = Asked {
        method,
        url,
        agent: Some(agent).filter(|name| !name.is_empty()),
        service: Some(service).filter(|name| !name.is_empty()),
        holds: if scopes.is_empty() { Holds::Unsaid } else { Holds::Scopes(&scopes) },
        supposed: None,
        now: jiff::Timestamp::UNIX_EPOCH,
    };
    Ok(match read(&policy, &asked)? {
        Ok(question) => explain(&policy, &question),
        Err(answer) => answer,
    })
}

fn ask(line: &str, agent: &str, scopes: &[&str]) -> Answer {
    try_ask(POLICY, line, agent, "", scopes).unwrap()
}

#[test]
fn what_is_allowed_names_scope_and_rule() {
    let answer = ask("GET https://api.test/v1/customers?limit=3", "", &[]);
    assert!(answer.allowed);
    let by = answer.by.unwrap();
    assert_eq!((by.scope.as_str(), by.rule.as_str(), by.risk), ("read", "GET /v1/{item}", Risk::Low));
    assert_eq!((by.credential.as_str(), by.agents), ("api", vec!["reader".to_owned(), "writer".to_owned()]));
    assert_eq!((answer.also, answer.path.as_str()), (vec!["write".to_owned()], "/v1/customers"));
}

#[test]
fn what_is_out_of_scope_names_the_scope_that_would_do() {
    let answer = ask("POST https://api.test/v1/customers", "reader", &[]);
    assert_eq!((answer.allowed, answer.code), (false, Some("out_of_scope")));
    assert_eq!(answer.why, "no scope of service api that agent reader may have allows it");
    assert_eq!(answer.instead, ["GET /v1/{item}"]);
    let [would] = &answer.would[..] else { panic!("{:?}", answer.would) };
    assert_eq!(
        (would.scope.as_str(), would.max_uses, &would.agents[..]),
        ("write", Some(1), &["writer".to_owned()][..])
    );
    let answer = ask("POST https://api.test/v1/customers", "writer", &["read"]);
    assert_eq!((answer.code, answer.would.len()), (Some("out_of_scope"), 1));
}

#[test]
fn a_deny_is_named_and_no_scope_helps() {
    let answer = ask("GET https://api.test/v1/keys", "writer", &[]);
    assert_eq!((answer.code, answer.denied_by.as_deref()), (Some("out_of_scope"), Some("* /v1/keys")));
    assert!(answer.would.is_empty());
}

#[test]
fn a_scope_that_the_agent_may_not_have_is_never_minted() {
    let answer = ask("POST https://api.test/v1/customers", "reader", &["write"]);
    assert_eq!((answer.allowed, answer.code), (false, Some("scope_not_grantable")));
}

#[test]
fn a_nonce_without_a_grant_of_the_service_is_misplaced() {
    let answer = ask("GET https://api.test:8443/x", "reader", &[]);
    assert_eq!((answer.code, answer.would.len()), (Some("nonce_misplaced"), 1));
    assert_eq!(answer.why, "agent reader may have no scope of service other");
}

#[test]
fn of_several_services_the_refusal_that_helps_is_told() {
    let shared = POLICY.replace("hosts = [\"api.test:8443\"]\ncredential", "hosts = [\"api.test\"]\ncredential");
    for (scope, why) in [("all", "other"), ("read", "api")] {
        let answer = try_ask(&shared, "DELETE https://api.test/v1/x", "", "", &[scope]).unwrap();
        assert_eq!(answer.code, Some("out_of_scope"));
        assert_eq!(answer.why, format!("none of these scopes of service {why} allows it"));
    }
}

#[test]
fn hosts_and_clear_text_are_judged_first() {
    for (line, code) in [
        ("GET https://unknown.test/", "host_not_listed"),
        ("GET https://api.test:444/v1/x", "host_not_listed"),
        ("GET http://api.test/v1/x", "cleartext_forbidden"),
        ("GET http://api.test:8443/v1/x", "cleartext_forbidden"),
        ("GET https://api.test/v1/../x", "request_ambiguous"),
        ("GET https://api.test/v1/%2e%2e/x", "request_ambiguous"),
        ("GET https://api.test/v1/x?_method=DELETE", "request_ambiguous"),
        ("CONNECT https://api.test/v1/x", "request_ambiguous"),
    ] {
        let answer = ask(line, "", &[]);
        assert_eq!((answer.allowed, answer.code), (false, Some(code)), "{line}");
        assert!(!answer.why.is_empty() && answer.would.is_empty(), "{line}");
    }
    let answer = try_ask(POLICY, "GET https://api.test/v1/x", "", "other", &[]).unwrap();
    assert_eq!(answer.code, Some("nonce_misplaced"));
}

#[test]
fn an_unlisted_host_can_be_relayed_unread() {
    let tunnel = POLICY.replacen("version = 1", "version = 1\n[egress]\nunlisted = \"tunnel\"", 1);
    let ask = |line: &str| try_ask(&tunnel, line, "", "", &[]).unwrap();
    let answer = ask("GET https://unknown.test/");
    assert!(answer.allowed && answer.by.is_none());
    for line in ["GET http://unknown.test/", "GET https://unknown.test:8080/", "GET https://api.test:444/"] {
        assert!(!ask(line).allowed, "{line}");
    }
}

#[test]
fn queries_upgrades_and_ports_are_judged_as_the_sidecar_does() {
    for (line, by) in [
        ("GET https://api.test/search?q=x", Some("search")),
        ("GET https://api.test/search?q=x&key=n", Some("search")),
        ("GET https://api.test/search?q=x&r=y", None),
        ("WEBSOCKET https://api.test/v1/x", None),
        ("GET wss://api.test/v1/x#top", None),
        ("GET https://api.test/v1/x#top", Some("read")),
        ("DELETE https://api.test/v1/x", None),
        ("HEAD https://api.test/v1/x", Some("read")),
        ("GET https://api.test:8443", None),
        ("GET https://api.test:8443?x", None),
        ("GET https://api.test:8443/x", Some("all")),
    ] {
        let answer = ask(line, "", &[]);
        assert_eq!(answer.by.map(|by| by.scope).as_deref(), by, "{line}");
    }
}

#[test]
fn what_cannot_be_asked_is_a_sentence() {
    for (line, agent, scope) in [
        ("GET api.test/v1/x", "", "read"),
        ("GET ftp://api.test/v1/x", "", "read"),
        ("GET https://user:pass@api.test/", "", "read"),
        ("GET https:///v1/x", "", "read"),
        ("GET https://api.test:99999/", "", "read"),
        ("GET https://api.test/v1/x", "nobody", "read"),
        ("GET https://api.test/v1/x", "", "nothing"),
    ] {
        let said = try_ask(POLICY, line, agent, "", &[scope]).unwrap_err();
        assert!(!said.contains("pass@"), "{said}");
    }
    assert!(try_ask(POLICY, "GET https://api.test/", "", "nothing", &[]).is_err());
}

#[test]
fn the_account_for_people_is_whole() {
    let text =
        anstream::adapter::strip_str(&render(&ask("POST https://api.test/v1/x?secret=1", "reader", &[]))).to_string();
    let lines = [
        "POST https://api.test/v1/x",
        "refused out_of_scope",
        "  why      no scope of service api that agent reader may have allows it",
        "  would    api:write (high) by POST /v1/{item}; agents: writer",
        "  instead  GET /v1/{item}",
    ];
    assert_eq!(text.trim_end(), lines.join("\n"));
    let text = anstream::adapter::strip_str(&render(&ask("POST https://api.test/v1/x", "writer", &[]))).to_string();
    assert!(text.contains("\nallowed\n") && text.contains("1 use per nonce"), "{text}");
}

#[test]
fn an_observed_service_lets_by_what_no_rule_allows_and_never_what_a_deny_forbids() {
    let observed = |until: &str| {
        POLICY.replacen("[services.api]", &format!("[services.api]\nenforce = \"observe\"\nuntil = {until}"), 1)
    };
    // The questions are asked at the start of 1970.
    let (during, over) = (observed("1970-01-02"), observed("1969-12-30"));
    let delete = |text: &str| try_ask(text, "DELETE https://api.test/v1/x", "writer", "", &[]).unwrap();
    let answer = delete(&during);
    assert_eq!((answer.allowed, answer.code, answer.observed), (true, None, Some("out_of_scope")));
    assert!(answer.why.contains("no scope of service api") && answer.why.contains("is observed"), "{}", answer.why);
    let by = answer.by.as_ref().unwrap();
    assert_eq!((by.scope.as_str(), by.rule.as_str()), ("read", ""), "the least risky that it holds");
    assert!(
        render(&answer).contains("observed") && serde_json::to_value(&answer).unwrap()["observed"] == "out_of_scope"
    );
    let answer = try_ask(&during, "POST https://api.test/v1/x", "reader", "", &[]).unwrap();
    assert_eq!((answer.allowed, &*answer.would[0].scope), (true, "write"), "what to grant before it is enforced");
    let answer = try_ask(&during, "GET https://api.test/v1/x", "writer", "", &[]).unwrap();
    assert_eq!((answer.allowed, answer.observed), (true, None));
    let answer = try_ask(&during, "GET https://api.test/v1/keys", "writer", "", &[]).unwrap();
    assert_eq!((answer.code, answer.observed), (Some("out_of_scope"), None));
    assert_eq!(delete(&over).code, Some("out_of_scope"));
}
