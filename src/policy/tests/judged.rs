//! What the proxy asks of a request beside the verdict: rates, bodies, denies, and whether it is only observed.

use super::*;
use crate::model::Rate;

const POLICY: &str = r#"
[services.plain]
hosts = ["plain.test"]
credential = "c"
slots = ["bearer"]
[[services.plain.scopes]]
name = "read"
risk = "low"
allow = ["GET /v1/{item}"]

[services.rated]
hosts = ["rated.test"]
credential = "c"
slots = ["bearer"]
[[services.rated.scopes]]
name = "slow"
risk = "low"
rules = [
  { allow = "GET /a/{id}", rate = "10/min" },
  { allow = "GET /a/{*rest}", rate = "5/s" },
  { allow = "GET /a/b" },
  { allow = "GET /q", query = ["x"], rate = "1/s" },
  { allow = "GET /twice", query = ["a"], rate = "3/s" },
  { allow = "GET /twice", query = ["a", "b"], rate = "3/s" },
  { allow = "POST /when", when = "nonce.age_seconds > 60", rate = "2/s" },
]
[[services.rated.scopes]]
name = "fast"
risk = "medium"
rules = [{ allow = "GET /a/{id}", rate = "99/s" }]

[services.bodies]
hosts = ["bodies.test"]
credential = "c"
slots = ["bearer"]
[[services.bodies.scopes]]
name = "small"
risk = "low"
rules = [
  { allow = "POST /x", body = { type = "json", max = "1KiB" } },
  { allow = "POST /y", query = ["a"], body = { type = "json", max = "3KiB" } },
  { allow = "GET /x" },
]
[[services.bodies.scopes]]
name = "large"
risk = "medium"
rules = [{ allow = "POST /x", body = { type = "json", max = "2KiB" } }]
[[services.bodies.scopes]]
name = "denies"
risk = "low"
rules = [
  { allow = "GET /z" },
  { deny = "POST /x", when = "body.n > 5", body = { type = "json", max = "4KiB", fields = { n = "int" } } },
]
"#;

/// A request: `GET //host/path`; `WEBSOCKET` is an upgrade by GET, `CONNECTWS` one by an extended CONNECT, and `POSTWS` what
/// nobody may send.
fn with_facts<T>(request: &str, ask: impl FnOnce(&RequestFacts<'_>) -> T) -> T {
    let (method, place) = halves(request);
    let (host, path) = place[2..].split_at(place[2..].find('/').unwrap());
    let (host, target) = (Host::parse(host).unwrap(), Target::parse(path).unwrap());
    let (method, websocket) = match method {
        "WEBSOCKET" => ("GET", true),
        "CONNECTWS" => ("CONNECT", true),
        "POSTWS" => ("POST", true),
        plain => (plain, false),
    };
    ask(&RequestFacts { method, websocket, host: &host, target: &target })
}

fn aged(age_seconds: u64) -> Circumstances<'static> {
    let labels = Vec::new();
    let (agent, task) = ("a", "t");
    let nonce = NonceFacts {
        agent,
        task,
        instance: None,
        on_behalf_of: None,
        labels,
        data: Vec::new(),
        age_seconds,
        uses: None,
    };
    Circumstances { now: 0, size: None, body: None, risk: RISK_NORMAL, nonce }
}

#[test]
fn each_rate_of_the_scope_that_holds_for_a_request_is_told_once() {
    let policy = policy(POLICY);
    let cases: [(&str, &str, u64, &[&str]); 9] = [
        ("slow", "GET //rated.test/a/b", 0, &["GET /a/{id} 10 in 60", "GET /a/{*rest} 5 in 1"]),
        ("fast", "GET //rated.test/a/b", 0, &["GET /a/{id} 99 in 1"]),
        ("slow", "GET //rated.test/a/b/c", 0, &["GET /a/{*rest} 5 in 1"]),
        ("slow", "GET //rated.test/q?x=1", 0, &["GET /q 1 in 1"]),
        ("slow", "GET //rated.test/q?y=1", 0, &[]),
        ("slow", "GET //rated.test/twice?a=1", 0, &["GET /twice 3 in 1"]),
        ("slow", "POST //rated.test/when", 61, &["POST /when 2 in 1"]),
        ("slow", "POST //rated.test/when", 60, &[]),
        ("slow", "GET //rated.test/nothing", 0, &[]),
    ];
    for (scope, request, age, wanted) in cases {
        let scope = &scopes(scope)[0];
        let found = with_facts(request, |facts| policy.rates(&service("rated"), scope, facts, &|| aged(age)));
        assert!(found.iter().all(|rate| (&rate.service, &rate.scope) == (&service("rated"), scope)), "{request}");
        let spelled =
            |rate: &RuleRate| format!("{} {} in {}", rate.rule, rate.rate.count(), rate.rate.window().as_secs());
        assert_eq!(found.iter().map(spelled).collect::<Vec<_>>(), wanted, "{scope} {request}");
    }
    for (name, scope) in [("plain", "read"), ("gone", "slow")] {
        let found = with_facts("GET //plain.test/v1/x", |facts| {
            policy.rates(&service(name), &scopes(scope)[0], facts, &|| aged(0))
        });
        assert!(found.is_empty(), "{name}");
    }
    let of_rules: Vec<Option<Rate>> =
        policy.service(&service("rated")).unwrap().scopes[0].allow.iter().map(Rule::rate).take(3).collect();
    assert_eq!(of_rules, [Rate::parse("10/min"), Rate::parse("5/s"), None]);
}

#[test]
fn as_much_of_a_body_is_wanted_as_the_largest_rule_that_concerns_the_request_takes() {
    let policy = policy(POLICY);
    for (held, request, wanted) in [
        ("small", "POST //bodies.test/x", Some(1024)),
        ("large", "POST //bodies.test/x", Some(2048)),
        ("small large", "POST //bodies.test/x", Some(2048)),
        ("small denies", "POST //bodies.test/x", Some(4096)),
        ("small", "GET //bodies.test/x", None),
        ("", "POST //bodies.test/x", None),
        ("small", "POST //bodies.test/y?a=1", Some(3072)),
        ("small", "POST //bodies.test/y?b=1", None),
        // What the query is depends on who reads it: it could be the rule's.
        ("small", "POST //bodies.test/y?a=1;b=2", Some(3072)),
        ("small", "POST //bodies.test/z", None),
    ] {
        let found = with_facts(request, |facts| policy.body_wanted(&service("bodies"), &scopes(held), facts));
        assert_eq!(found, wanted, "{held}: {request}");
    }
    for (name, held) in [("plain", "read"), ("gone", "small")] {
        let found =
            with_facts("POST //bodies.test/x", |facts| policy.body_wanted(&service(name), &scopes(held), facts));
        assert_eq!(found, None, "{name}");
    }
    assert!(!policy.service(&service("plain")).unwrap().signs());
    for (name, looks) in [("bodies", true), ("plain", false), ("rated", false), ("gone", false)] {
        assert_eq!(policy.looks_at_bodies(&service(name)), looks, "{name}");
    }
}

const DENIES: &str = r#"
[services.s]
hosts = ["s.test", "t.test"]
credential = "c"
slots = ["bearer"]
deny = [
  "GET /get", "POST /post", "WEBSOCKET /socket", "* /any", "* t.test/there", "* /keys/{name}", "* /long/{*rest}",
]
[[services.s.scopes]]
name = "all"
risk = "low"
allow = [
  "GET /{*rest}", "POST /{*rest}", "WEBSOCKET /{*rest}",
]
[[services.s.scopes]]
name = "narrow"
risk = "low"
rules = [
  { allow = "PUT /{*rest}" },
  { deny = "PUT /a/{x}", when = "nonce.age_seconds < 60" },
  { deny = "PUT /a/b" },
  { deny = "PUT /c/d", when = "nonce.age_seconds < 60" },
  { deny = "PUT /c/{x}" },
  { deny = "PUT /e/{x}", when = "nonce.age_seconds < 60", because = "old ones only" },
  { deny = "PUT /ids/{id}", when = "path.id == '5'" },
  { allow = "PATCH /two/{x}", when = "nonce.age_seconds > 60", because = "one" },
  { allow = "PATCH /two/{y}", when = "nonce.age_seconds > 90", because = "other" },
]
"#;

#[test]
fn a_deny_is_found_by_method_upgrade_host_and_every_reading_of_the_path() {
    let policy = policy(DENIES);
    for (request, wanted) in [
        ("GET //s.test/get", Some("GET /get")),
        ("HEAD //s.test/get", Some("GET /get")),
        ("POST //s.test/get", None),
        ("WEBSOCKET //s.test/get", Some("GET /get")),
        ("CONNECTWS //s.test/get", Some("GET /get")),
        ("GET //s.test/post", None),
        ("POST //s.test/post", Some("POST /post")),
        ("POSTWS //s.test/post", Some("POST /post")),
        ("WEBSOCKET //s.test/post", None),
        ("WEBSOCKET //s.test/socket", Some("WEBSOCKET /socket")),
        ("CONNECTWS //s.test/socket", Some("WEBSOCKET /socket")),
        ("GET //s.test/socket", None),
        ("DELETE //s.test/any", Some("* /any")),
        ("WEBSOCKET //s.test/any", Some("* /any")),
        ("GET //s.test/any/", Some("* /any")),
        ("GET //s.test/any.", Some("* /any")),
        ("GET //s.test/%20any", Some("* /any")),
        ("GET //s.test/there", None),
        ("GET //t.test/there", Some("* t.test/there")),
        ("GET //s.test/keys/one", Some("* /keys/{name}")),
        ("GET //s.test/keys%2Fone", Some("* /keys/{name}")),
        ("GET //s.test/keys/one%2Ftwo", Some("* /keys/{name}")),
        ("GET //s.test/keys;v=1/one", Some("* /keys/{name}")),
        ("GET //s.test/keys./one", Some("* /keys/{name}")),
        ("GET //s.test/keys/one%3Fx/two", Some("* /keys/{name}")),
        ("GET //s.test/keys%3Fx/one", Some("* /keys/{name}")),
        ("GET //s.test/keys.;v=1/one", Some("* /keys/{name}")),
        ("GET //s.test/keys.%2Fone", Some("* /keys/{name}")),
        ("GET //s.test/keys/one/two", None),
        ("GET //s.test/keys", None),
        ("GET //s.test/long/a/b/c", Some("* /long/{*rest}")),
        ("GET //s.test/long", None),
    ] {
        let found = with_facts(request, |facts| policy.denying(&service("s"), &[], facts).map(str::to_owned));
        assert_eq!(found.as_deref(), wanted, "{request}");
    }
    assert!(!with_facts("GET //s.test/get", |facts| policy.denying(&service("gone"), &[], facts).is_some()));
}

/// `allow`, `deny` without a condition, or `unmet` with the rule.
fn decided(policy: &Policy, request: &str, age: u64) -> String {
    with_facts(request, |facts| {
        match policy.decide_given(&service("s"), &scopes("narrow"), &[], facts, Some(&|| aged(age))) {
            Verdict::Allow { .. } => "allow".to_owned(),
            Verdict::Deny { .. } => "deny".to_owned(),
            Verdict::Unmet(Unmet { rule, because, .. }) => {
                format!("unmet {rule}{}", because.map_or_else(String::new, |because| format!(": {because}")))
            }
            Verdict::Ambiguous(_) => "ambiguous".to_owned(),
        }
    })
}

#[test]
fn a_deny_without_a_condition_goes_before_one_with_a_condition() {
    let policy = policy(DENIES);
    for (request, age, wanted) in [
        ("PUT //s.test/a/b", 0, "deny"),
        ("PUT //s.test/a/x", 0, "unmet PUT /a/{x}"),
        ("PUT //s.test/a/x", 60, "allow"),
        ("PUT //s.test/c/d", 0, "deny"),
        ("PUT //s.test/e/x", 0, "unmet PUT /e/{x}: old ones only"),
        ("PUT //s.test/e/x", 60, "allow"),
        // Of several allows whose conditions fail the first is told.
        ("PATCH //s.test/two/x", 0, "unmet PATCH /two/{x}: one"),
        ("PATCH //s.test/two/x", 91, "allow"),
    ] {
        assert_eq!(decided(&policy, request, age), wanted, "{request}");
    }
}

/// A deny matches however a server could read the path; where that is not as the path stands there, what its placeholders
/// stand for is nobody's to know, and the deny holds.
#[test]
fn what_a_deny_captures_is_known_only_where_the_path_reads_in_one_way() {
    let policy = policy(DENIES);
    for (path, wanted) in [
        ("/ids/5", "unmet PUT /ids/{id}"),
        ("/ids/6", "allow"),
        ("/ids./6", "unmet PUT /ids/{id}"),
        ("/ids;v=1/6", "unmet PUT /ids/{id}"),
        ("/ids/6;v=1", "unmet PUT /ids/{id}"),
    ] {
        assert_eq!(decided(&policy, &format!("PUT //s.test{path}"), 0), wanted, "{path}");
    }
}

#[test]
fn a_service_is_observed_until_a_moment_and_never_against_a_deny() {
    let observed = r#"
[services.s]
hosts = ["s.test"]
credential = "c"
slots = ["bearer"]
enforce = "observe"
until = 2026-03-01T00:00:00Z
deny = ["* /keys"]
[[services.s.scopes]]
name = "write"
risk = "high"
allow = ["POST /x"]
[[services.s.scopes]]
name = "read"
risk = "low"
allow = ["GET /x"]
deny = ["* /guarded"]
"#;
    let policy = policy(observed);
    let until: Timestamp = "2026-03-01T00:00:00Z".parse().unwrap();
    let before = until - Duration::from_nanos(1);
    for (held, request, now, wanted) in [
        ("read write", "DELETE //s.test/x", before, Some("read")),
        ("write", "DELETE //s.test/x", before, Some("write")),
        ("read write", "DELETE //s.test/x", until, None),
        ("read write", "DELETE //s.test/keys", before, None),
        ("read write", "DELETE //s.test/guarded", before, None),
        ("write", "DELETE //s.test/guarded", before, Some("write")),
        ("", "DELETE //s.test/x", before, None),
    ] {
        let scope = with_facts(request, |facts| policy.observed(&service("s"), &scopes(held), facts, now));
        assert_eq!(scope.map(|scope| scope.name.as_str()), wanted, "{held}: {request} at {now}");
    }
    assert!(with_facts("GET //s.test/x", |facts| policy.observed(&service("t"), &[], facts, before)).is_none());
}

#[test]
fn what_a_rule_wants_on_record_is_told_with_the_verdict() {
    let text = r#"
[services.s]
hosts = ["s.test"]
credential = "c"
slots = ["bearer"]
[[services.s.scopes]]
name = "r"
risk = "low"
rules = [
  { allow = "GET /a/{id}", record = ["path.id", "nonce.task"] },
  { allow = "GET /b/{id}" },
  { allow = "GET /c/{id}", when = "path.id == '5'", record = ["path.id"] },
  { allow = "GET /d/{id}", when = "path.id == '5'" },
]
"#;
    let policy = policy(text);
    let both = vec![("path.id".to_owned(), "7".to_owned()), ("nonce.task".to_owned(), "t".to_owned())];
    for (path, is_allowed, wanted) in [
        ("/a/7", true, Some(both)),
        ("/b/7", true, None),
        ("/c/5", true, Some(vec![("path.id".to_owned(), "5".to_owned())])),
        ("/c/6", false, Some(vec![("path.id".to_owned(), "6".to_owned())])),
        ("/d/6", false, None),
    ] {
        let (was_allowed, recorded) = with_facts(&format!("GET //s.test{path}"), |facts| {
            match policy.decide_given(&service("s"), &scopes("r"), &[], facts, Some(&|| aged(0))) {
                Verdict::Allow { recording, .. } => (true, recording.map(|it| it.inputs(facts, &|| aged(0)))),
                Verdict::Unmet(unmet) => (false, unmet.recording.map(|it| it.inputs(facts, &|| aged(0)))),
                other @ (Verdict::Deny { .. } | Verdict::Ambiguous(_)) => panic!("{path}: {other:?}"),
            }
        });
        assert_eq!((was_allowed, recorded), (is_allowed, wanted), "{path}");
    }
    // What only records is no condition: it needs nothing to be known.
    let is_allowed = |path: &str| {
        with_facts(&format!("GET //s.test{path}"), |facts| {
            matches!(policy.decide(&service("s"), &scopes("r"), &[], facts), Verdict::Allow { .. })
        })
    };
    assert_eq!(["/a/7", "/b/7", "/c/5"].map(is_allowed), [true, true, false]);
}
