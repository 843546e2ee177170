//! Questions about a nonce that there is, and about those above it.

use super::explain::{Holding, Member, Question, explain_line};
use super::*;
use crate::model::{Grant, RiskCap, ScopeLimits};

const POLICY: &str = r#"
[services.s]
hosts = ["s.test"]
credential = "c"
slots = ["bearer"]
[[services.s.scopes]]
name = "read"
risk = "low"
allow = ["GET /v1/{item}"]
[[services.s.scopes]]
name = "write"
risk = "high"
max_uses = 3
allow = ["POST /v1/{item}", "GET /v1/{item}"]
[[services.s.scopes]]
name = "guard"
risk = "low"
allow = ["GET /guarded"]
deny = ["* /v1/keys"]
[[services.s.scopes]]
name = "night"
risk = "low"
rules = [{ allow = "PUT /v1/{item}", when = "nonce.task == 'night'", because = "at night" }]

# Has the same host, and names its scopes alike.
[services.t]
hosts = ["s.test"]
credential = "c"
slots = ["bearer"]
[[services.t.scopes]]
name = "read"
risk = "low"
allow = ["GET /t/{item}"]

[agents.a]
identity = ["uid:1000"]
grants = { s = ["read", "write", "guard", "night"], t = ["read"] }
[agents.b]
identity = ["uid:1001"]
grants = { s = ["read", "write", "guard", "night"] }
"#;

/// One nonce, as a text: `AGENT SCOPE SCOPE=USES t:SCOPE task:NAME cap:low line:METHOD_PATH`; scopes are of `s` unless they say.
struct Nonce {
    agent: AgentName,
    grants: Vec<LeaseGrant>,
    lines: Vec<String>,
    cap: Option<RiskCap>,
    task: String,
}

fn nonce(text: &str) -> Nonce {
    let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
    let mut nonce =
        Nonce { agent: agent(name), grants: Vec::new(), lines: Vec::new(), cap: None, task: "day".to_owned() };
    for word in rest.split_whitespace() {
        match word.split_once(':') {
            Some(("task", task)) => nonce.task = task.to_owned(),
            Some(("cap", "none")) => nonce.cap = Some(RiskCap::Nothing),
            Some(("cap", _)) => nonce.cap = Some(RiskCap::UpTo(Risk::Low)),
            Some(("line", line)) => nonce.lines.push(line.replace('_', " ")),
            of_service => {
                let (of, scope) = of_service.unwrap_or(("s", word));
                let (scope, uses) =
                    scope.split_once('=').map_or((scope, None), |(scope, uses)| (scope, uses.parse().ok()));
                let held = (scopes(scope).remove(0), ScopeLimits { uses, rate: None });
                match nonce.grants.iter_mut().find(|grant| grant.service == service(of)) {
                    Some(grant) => grant.scopes.push(held),
                    None => nonce.grants.push(LeaseGrant { service: service(of), scopes: vec![held] }),
                }
            }
        }
    }
    nonce
}

impl Nonce {
    fn member(&self) -> Member<'_> {
        let facts = NonceFacts {
            agent: self.agent.as_str(),
            task: &self.task,
            instance: None,
            on_behalf_of: None,
            labels: Vec::new(),
            data: Vec::new(),
            age_seconds: 0,
            uses: None,
        };
        Member {
            agent: &self.agent,
            grants: &self.grants,
            lines: self.lines.iter().map(String::as_str).collect(),
            cap: self.cap,
            circumstances: Circumstances { now: 0, size: None, body: None, risk: RISK_NORMAL, nonce: facts },
        }
    }
}

/// Asks about the first nonce of a line; the others are above it.
fn asked(policy: &Policy, line: &[&str], request: &str, change: impl FnOnce(&mut Question)) -> Answer {
    let line: Vec<Nonce> = line.iter().map(|text| nonce(text)).collect();
    let (method, url) = halves(request);
    let mut question = Question::of(policy, method, url, Timestamp::UNIX_EPOCH).unwrap().unwrap();
    let names = |grant: &LeaseGrant| grant.scopes.iter().map(|(scope, _)| scope.clone()).collect();
    let grants = line[0].grants.iter().map(|grant| Grant { service: grant.service.clone(), scopes: names(grant) });
    question.holding = Holding::Minted(grants.collect());
    question.agent = Some(line[0].agent.clone());
    change(&mut question);
    let members: Vec<Member<'_>> = line.iter().map(Nonce::member).collect();
    explain_line(policy, &question, &members)
}

/// `allowed` and the scope, or the code of the refusal.
fn word(answer: &Answer) -> String {
    match (&answer.by, answer.code) {
        (Some(by), None) if answer.allowed => format!("allowed {}:{}", by.service, by.scope),
        (None, Some(code)) if !answer.allowed => code.to_owned(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_nonce_has_what_it_holds_as_far_as_all_above_it_have_it() {
    let policy = policy(POLICY);
    let cases: [(&[&str], &str, &str); 20] = [
        (&["a read"], "GET https://s.test/v1/x", "allowed s:read"),
        (&["a read write"], "GET https://s.test/v1/x", "allowed s:read"),
        (&["a t:read"], "GET https://s.test/t/x", "allowed t:read"),
        (&["a t:read"], "GET https://s.test/v1/x", "out_of_scope"),
        (&["a read"], "GET https://s.test/t/x", "out_of_scope"),
        (&["a read=0 t:read=1"], "GET https://s.test/t/x", "allowed t:read"),
        (&["a t:read=0"], "GET https://s.test/t/x", "nonce_spent"),
        // What helps most is told: being out of scope at the other service.
        (&["a read=1 t:read=0"], "GET https://s.test/t/x", "out_of_scope"),
        // Uses: its own, and those above.
        (&["a read=0 write=1"], "GET https://s.test/v1/x", "allowed s:write"),
        (&["a write=0"], "POST https://s.test/v1/x", "nonce_spent"),
        (&["b write=1", "a write=1"], "POST https://s.test/v1/x", "allowed s:write"),
        (&["b write=1", "a write=0"], "POST https://s.test/v1/x", "nonce_spent"),
        (&["b read write", "a read=0 write=1"], "GET https://s.test/v1/x", "allowed s:write"),
        (&["b write", "a read"], "POST https://s.test/v1/x", "out_of_scope"),
        (&["b write", "a read"], "GET https://s.test/v1/x", "condition_failed"),
        // Levels of risk: its own, and those above.
        (&["a write cap:low"], "POST https://s.test/v1/x", "risk_restricted"),
        (&["a read write cap:low"], "GET https://s.test/v1/x", "allowed s:read"),
        (&["b write", "a write cap:low"], "POST https://s.test/v1/x", "risk_restricted"),
        (&["b read", "a read cap:none"], "GET https://s.test/v1/x", "risk_restricted"),
        (&["a write=0 cap:low"], "POST https://s.test/v1/x", "risk_restricted"),
    ];
    for (line, request, wanted) in cases {
        assert_eq!(word(&asked(&policy, line, request, |_| {})), wanted, "{line:?} {request}");
    }
}

#[test]
fn what_would_do_is_told_of_the_services_that_it_is_for() {
    let policy = policy(POLICY);
    for (held, wanted) in [("a read", vec!["s:write"]), ("a t:read", vec![]), ("a read t:read", vec!["s:write"])] {
        let answer = asked(&policy, &[held], "POST https://s.test/v1/x", |_| {});
        let would: Vec<String> = answer.would.iter().map(|way| format!("{}:{}", way.service, way.scope)).collect();
        assert_eq!(
            (answer.code, would),
            (Some("out_of_scope"), wanted.into_iter().map(str::to_owned).collect()),
            "{held}"
        );
    }
}

#[test]
fn what_is_spent_or_restricted_is_said_so() {
    let policy = policy(POLICY);
    let spent = asked(&policy, &["a read"], "GET https://s.test/v1/x", |question| question.is_spent = true);
    assert_eq!((spent.code, &*spent.why), (Some("nonce_spent"), "service s allows it, and no use is left"));
    let capped = |cap: RiskCap, held: &str| {
        asked(&policy, &[held], "GET https://s.test/v1/x", |question| question.cap = Some(cap))
    };
    let restricted = capped(RiskCap::UpTo(Risk::Medium), "a write");
    let why = "service s allows it, and the level of risk in force does not";
    assert_eq!((restricted.code, &*restricted.why), (Some("risk_restricted"), why));
    assert_eq!(word(&capped(RiskCap::UpTo(Risk::High), "a write")), "allowed s:write");
    let left = capped(RiskCap::UpTo(Risk::Medium), "a read write");
    assert_eq!((word(&left), left.also.len()), ("allowed s:read".to_owned(), 0));
    let both = asked(&policy, &["a read write=1"], "GET https://s.test/v1/x", |_| {});
    assert_eq!(both.also, ["write"]);
    let other = asked(&policy, &["a read write=0"], "GET https://s.test/v1/x", |_| {});
    assert_eq!(other.also.len(), 0, "what is spent is no other way");
}

#[test]
fn a_list_narrows_the_nonce_and_all_below_it() {
    let policy = policy(POLICY);
    let why = "the rules that it, or a nonce above it, was delegated with do not have it";
    let cases: [(&[&str], &str, &str, &[&str]); 6] = [
        (&["b read line:GET_/v1/x"], "GET https://s.test/v1/x", "allowed s:read", &[]),
        (&["b read line:GET_/v1/x"], "GET https://s.test/v1/y", "out_of_scope", &["GET /v1/x"]),
        (&["b read line:GET_/v1/x line:GET_/v1/y"], "GET https://s.test/v1/y", "allowed s:read", &[]),
        (&["b read", "a read line:GET_/v1/x"], "GET https://s.test/v1/x", "allowed s:read", &[]),
        (&["b read", "a read line:GET_/v1/x"], "GET https://s.test/v1/y", "out_of_scope", &[]),
        (
            &["b read line:GET_/v1/{i}", "a read line:GET_/v1/x"],
            "GET https://s.test/v1/y",
            "out_of_scope",
            &["GET /v1/{i}"],
        ),
    ];
    for (line, request, wanted, instead) in cases {
        let answer = asked(&policy, line, request, |_| {});
        assert_eq!(word(&answer), wanted, "{line:?} {request}");
        assert_eq!(answer.instead, instead, "{line:?} {request}");
        assert!(answer.allowed || answer.why == why, "{}", answer.why);
    }
}

#[test]
fn conditions_are_judged_for_each_nonce_of_the_line() {
    let policy = policy(POLICY);
    let cases: [(&[&str], &str); 4] = [
        (&["a night task:night"], "allowed s:night"),
        (&["a night"], "condition_failed"),
        (&["b night task:night", "a night task:night"], "allowed s:night"),
        (&["b night task:night", "a night"], "condition_failed"),
    ];
    for (line, wanted) in cases {
        let answer = asked(&policy, line, "PUT https://s.test/v1/x", |_| {});
        assert_eq!(word(&answer), wanted, "{line:?}");
        let why = "the condition of the rule `PUT /v1/{item}` stands against it (at night)";
        assert!(answer.allowed || answer.why == why, "{}", answer.why);
    }
}

#[test]
fn only_a_nonce_without_others_above_is_told_what_to_ask_for() {
    let policy = policy(POLICY);
    let cases: [(&[&str], Option<&str>); 2] = [(&["a read"], Some("write")), (&["b read", "a read"], None)];
    for (line, required) in cases {
        let answer = asked(&policy, line, "POST https://s.test/v1/x", |_| {});
        assert_eq!((answer.code, answer.required.as_deref()), (Some("out_of_scope"), required), "{line:?}");
        assert_eq!(answer.instead, ["GET /v1/{item}"]);
    }
}

#[test]
fn a_deny_above_is_kept_where_rules_are_only_observed() {
    let observed = "enforce = \"observe\"\nuntil = 1970-01-02\n";
    let policy = policy(&POLICY.replacen("[services.s]\n", &format!("[services.s]\n{observed}"), 1));
    let cases: [(&[&str], &str, &str); 6] = [
        (&["a read"], "DELETE https://s.test/v1/keys", "allowed s:read"),
        (&["a read guard"], "DELETE https://s.test/v1/keys", "out_of_scope"),
        (&["a read guard"], "DELETE https://s.test/v1/x", "allowed s:read"),
        (&["b read", "a read"], "DELETE https://s.test/v1/keys", "allowed s:read"),
        (&["b read", "a read guard"], "DELETE https://s.test/v1/keys", "out_of_scope"),
        (&["b read", "a read guard"], "DELETE https://s.test/v1/x", "allowed s:read"),
    ];
    for (line, request, wanted) in cases {
        let answer = asked(&policy, line, request, |_| {});
        assert_eq!(word(&answer), wanted, "{line:?} {request}");
        assert_eq!(answer.observed, answer.allowed.then_some("out_of_scope"), "{line:?} {request}");
    }
    let spent = asked(&policy, &["a read=0"], "DELETE https://s.test/v1/x", |_| {});
    assert_eq!((spent.code, spent.observed), (Some("nonce_spent"), None));
}

#[test]
fn what_a_reload_took_back_is_not_held_any_more() {
    let less = "grants = { s = [\"read\"], t = [\"read\"] }";
    let text = POLICY.replacen("grants = { s = [\"read\", \"write\", \"guard\", \"night\"], t = [\"read\"] }", less, 1);
    let cases: [(&[&str], &str, &str); 4] = [
        (&["a read write"], "GET https://s.test/v1/x", "allowed s:read"),
        (&["a read write"], "POST https://s.test/v1/x", "out_of_scope"),
        (&["a write"], "POST https://s.test/v1/x", "nonce_misplaced"),
        (&["b write", "a write"], "POST https://s.test/v1/x", "out_of_scope"),
    ];
    let (first, later) = (policy(&text), policy(&text).reloaded());
    for (line, request, wanted) in cases {
        assert!(asked(&first, line, request, |_| {}).allowed, "a nonce keeps what it was minted with: {line:?}");
        assert_eq!(word(&asked(&later, line, request, |_| {})), wanted, "{line:?} {request}");
    }
}
