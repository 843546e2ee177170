//! Questions of people, and what they are told.

use super::explain::Way;
use super::*;

const POLICY: &str = r#"
[services.first]
hosts = ["s.test", "t.test"]
credential = "c"
slots = ["bearer"]
[[services.first.scopes]]
name = "read"
risk = "low"
rules = [
  { allow = "GET /v1/{item}" },
  { allow = "PUT /night", when = "nonce.task == 'night'", because = "at night" },
  { allow = "PUT /plain", when = "nonce.task == 'night'" },
  { allow = "PATCH /{item}" },
  { deny = "PATCH /new", when = "nonce.age_seconds < 60" },
  { deny = "PATCH /old" },
]
[[services.first.scopes]]
name = "admin"
risk = "high"
allow = ["GET /v1/{item}", "DELETE /v1/{item}"]

[services.second]
hosts = ["s.test"]
credential = "c"
slots = ["bearer"]
[[services.second.scopes]]
name = "write"
risk = "medium"
max_uses = 3
rules = [
  { allow = "POST /v1/{item}" },
  { allow = "DELETE /night", when = "nonce.task == 'night'" },
]

[services.open]
hosts = ["open.test"]
credential = "c"
slots = ["query:key"]
anonymous = true
[[services.open.scopes]]
name = "look"
risk = "low"
rules = [{ allow = "GET /x", query = ["q"] }]

[agents.reader]
identity = ["uid:1000"]
grants = { first = ["read"] }

[agents.writer]
identity = ["uid:1001"]
grants = { first = ["read", "admin"], second = ["write"] }
"#;

/// What is asked as at the command line; `holds` are scopes with blanks between, all where it is empty, none for `-`.
fn asked(policy: &Policy, line: &str, who: &str, about: &str, holds: &str) -> Result<Answer, String> {
    let (method, url) = halves(line);
    let names: Vec<String> = holds.split_whitespace().map(str::to_owned).collect();
    let question = Asked {
        method,
        url,
        agent: Some(who).filter(|name| !name.is_empty()),
        service: Some(about).filter(|name| !name.is_empty()),
        holds: match holds {
            "" => Holds::Unsaid,
            "-" => Holds::Nothing,
            _ => Holds::Scopes(&names),
        },
        now: Timestamp::UNIX_EPOCH,
        supposed: None,
    };
    Ok(read(policy, &question)?.map_or_else(|answer| answer, |question| explain(policy, &question)))
}

/// `allowed`, or the code of the refusal.
fn word(answer: &Answer) -> &'static str {
    answer.code.unwrap_or(if answer.allowed { "allowed" } else { "neither" })
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table: one request after the other")]
fn every_answer_says_why() {
    let policy = policy(POLICY);
    for (line, who, holds, code, why) in [
        ("GET https://s.test/v1/x", "", "", "allowed", "scope read of service first allows it"),
        ("GET https://s.test/v1/x", "", "admin", "allowed", "scope admin of service first allows it"),
        ("POST https://s.test/v1/x", "", "", "allowed", "scope write of service second allows it"),
        (
            "POST https://s.test/v1/x",
            "reader",
            "",
            "out_of_scope",
            "no scope of service first that agent reader may have allows it",
        ),
        ("HEAD https://s.test/none", "", "", "out_of_scope", "no scope of service first allows it"),
        ("POST https://t.test/v1/x", "", "read", "out_of_scope", "none of these scopes of service first allows it"),
        ("PATCH https://t.test/old", "", "", "out_of_scope", "a deny of service first forbids it, whatever allows it"),
        (
            "DELETE https://t.test/v1/x",
            "reader",
            "admin",
            "scope_not_grantable",
            "agent reader may not have first:admin: such a nonce is never minted",
        ),
        (
            "PUT https://t.test/night",
            "",
            "",
            "condition_failed",
            "the rule `PUT /night` allows it if its condition holds (at night), which is judged with the request alone",
        ),
        (
            "PUT https://t.test/plain",
            "",
            "",
            "condition_failed",
            "the rule `PUT /plain` allows it if its condition holds, which is judged with the request alone",
        ),
        (
            "PATCH https://t.test/new",
            "",
            "",
            "condition_failed",
            "the rule `PATCH /new` forbids it unless its condition does not hold, which is judged with the request alone",
        ),
        ("GET http://s.test/v1/x", "", "", "cleartext_forbidden", "the host is listed for TLS alone: use https://"),
        ("GET https://u.test/", "", "", "host_not_listed", "no service lists the host"),
        ("GET http://u.test/", "", "", "host_not_listed", "no service lists the host"),
        ("GET https://s.test:444/", "", "", "host_not_listed", "no service lists the host with this port"),
        ("GET https://t.test/a/../b", "", "", "request_ambiguous", "its path has a `.` or `..` segment"),
        ("GET https://t.test/a//b", "", "", "request_ambiguous", "its path has an empty segment"),
        (
            "GET https://t.test/a%2Fb",
            "",
            "",
            "request_ambiguous",
            "its path has an encoded slash or a backslash, and no rule says encoded_slash",
        ),
        ("GET https://t.test/a%252Fb", "", "", "request_ambiguous", "its path is percent-encoded twice"),
        (
            "GET https://t.test/a%zz",
            "",
            "",
            "request_ambiguous",
            "its path or query has bytes or escapes that are not valid there",
        ),
        ("GET https://t.test/..;a/b", "", "", "request_ambiguous", "its path has a `;` parameter beside dots"),
        ("GET https://t.test/v1/x?_method=PUT", "", "", "request_ambiguous", "a query parameter overrides its method"),
        ("TRACE https://t.test/v1/x", "", "", "request_ambiguous", "its method is none that a request may have"),
        (
            "GET https://open.test/x?q=%FF",
            "",
            "",
            "request_ambiguous",
            "a query parameter that a rule looks at is repeated or cannot be decoded",
        ),
        ("GET https://open.test/x?q=1&key=n", "", "", "allowed", "scope look of service open allows it"),
        ("GET https://open.test/x?q=1&other=n", "", "", "out_of_scope", "no scope of service open allows it"),
        ("GET https://open.test/x", "", "-", "allowed", "service open is anonymous: it goes on without a credential"),
        ("GET https://open.test/x", "reader", "", "nonce_misplaced", "agent reader may have no scope of service open"),
        ("GET wss://open.test/x", "", "-", "nonce_missing", "no service of the host takes it without a nonce"),
        ("GET https://s.test/v1/x", "", "-", "nonce_missing", "no service of the host takes it without a nonce"),
    ] {
        let answer = asked(&policy, line, who, "", holds).unwrap();
        assert_eq!((word(&answer), &*answer.why), (code, why), "{line} {who} {holds}");
    }
}

#[test]
fn of_the_services_of_a_host_the_refusal_that_helps_most_is_told() {
    let policy = policy(POLICY);
    for (line, code, why) in [
        // The first says `condition_failed`, the second `out_of_scope`.
        ("PUT https://s.test/night", "out_of_scope", "no scope of service second allows it"),
        // And the other way round.
        ("DELETE https://s.test/night", "out_of_scope", "no scope of service first allows it"),
        ("HEAD https://s.test/none", "out_of_scope", "no scope of service first allows it"),
    ] {
        let answer = asked(&policy, line, "", "", "").unwrap();
        assert_eq!((word(&answer), &*answer.why), (code, why), "{line}");
    }
    let answer = asked(&policy, "GET https://t.test/v1/x", "", "second", "").unwrap();
    assert_eq!(word(&answer), "nonce_misplaced");
    assert_eq!(answer.why, "the host is listed by first and not by that service");
    let answer = asked(&policy, "GET https://s.test/v1/x", "", "open", "").unwrap();
    assert_eq!(answer.why, "the host is listed by first, second and not by that service");
}

#[test]
fn what_would_allow_it_is_told_with_who_may_have_it() {
    let policy = policy(POLICY);
    let answer = asked(&policy, "DELETE https://s.test/v1/x", "reader", "", "").unwrap();
    assert_eq!((word(&answer), answer.allowed, answer.required), ("out_of_scope", false, None));
    let way = Way {
        service: "first".to_owned(),
        scope: "admin".to_owned(),
        risk: Risk::High,
        rule: "DELETE /v1/{item}".to_owned(),
        credential: "c".to_owned(),
        max_uses: None,
        agents: vec!["writer".to_owned()],
    };
    assert_eq!(answer.would, [way]);
    let answer = asked(&policy, "DELETE https://s.test/v1/x", "writer", "", "read").unwrap();
    assert_eq!((answer.required.as_deref(), answer.would.len()), (Some("admin"), 1));
    assert_eq!(answer.instead[0], "GET /v1/{item}");
    let answer = asked(&policy, "POST https://s.test/v1/x", "", "", "read").unwrap();
    assert_eq!((&*answer.would[0].scope, answer.would[0].max_uses), ("write", Some(3)));
    let answer = asked(&policy, "GET https://t.test/v1/x", "writer", "", "").unwrap();
    assert_eq!((answer.also, answer.would.len()), (vec!["admin".to_owned()], 0));
    // Of what a condition decides nobody knows whether it would.
    let answer = asked(&policy, "PUT https://t.test/night", "", "", "").unwrap();
    assert_eq!((answer.denied_by, answer.would.len()), (None, 0));
    let answer = asked(&policy, "PATCH https://t.test/new", "", "", "").unwrap();
    assert_eq!(answer.denied_by.as_deref(), Some("PATCH /new"));
}

#[test]
fn what_cannot_be_asked_is_told_with_what_there_is() {
    let policy = policy(POLICY);
    let example = "such as https://api.stripe.com/v1/customers";
    for (line, who, about, holds, said) in [
        ("GET s.test/", "", "", "", &*format!("expected a URL with its scheme, {example}")),
        ("GET ftp://s.test/", "", "", "", &*format!("expected the scheme https, http, wss or ws, {example}")),
        ("GET https://u:p@s.test/", "", "", "", "the URL has a user or password in it; leave them out"),
        (
            "GET https://s.test/",
            "no\u{7}body",
            "",
            "",
            "there is no agent no\\u{7}body here; there are: reader, writer",
        ),
        ("GET https://s.test/", "", "third", "", "there is no service third here; there are: first, second, open"),
        ("GET https://s.test/", "", "", "look", "there is no scope look here; there are: read, admin, write"),
        ("GET https://s.test/", "", "second", "read", "there is no scope read here; there are: write"),
    ] {
        assert_eq!(asked(&policy, line, who, about, holds).err().as_deref(), Some(said), "{line}");
    }
    let answer = asked(&policy, "GET https://u.test/", "", "", "whatever").unwrap();
    assert_eq!(word(&answer), "host_not_listed", "no service is there whose scopes it could be");
    let bare = super::policy(
        "[services.s]\nhosts = [\"s.test\"]\ncredential = \"c\"\nslots = [\"bearer\"]\n\
        [[services.s.scopes]]\nname = \"r\"\nrisk = \"low\"\nallow = [\"GET /x\"]\n",
    );
    let said = asked(&bare, "GET https://s.test/", "any", "", "").err();
    assert_eq!(said.as_deref(), Some("there is no agent any here; there are: none"));
}

#[test]
fn grants_are_of_services_that_there_are() {
    let policy = policy(POLICY);
    let ask = |service: &str, scope: &str| {
        let grants = [(service.to_owned(), vec![scope.to_owned()])];
        let (method, url) = ("DELETE", "https://s.test/v1/x");
        let (holds, now) = (Holds::Grants(&grants), Timestamp::UNIX_EPOCH);
        let read = read(&policy, &Asked { method, url, agent: None, service: None, holds, now, supposed: None })?;
        Ok::<_, String>(word(&explain(&policy, &read.expect("a target that can be read"))))
    };
    for (service, scope, wanted) in [
        ("first", "admin", Ok("allowed")),
        ("first", "read", Ok("out_of_scope")),
        ("open", "look", Ok("nonce_misplaced")),
        ("third", "read", Err("there is no service third here; there are: first, second, open")),
        ("second", "read", Err("there is no scope read here; there are: write")),
    ] {
        assert_eq!(ask(service, scope), wanted.map_err(str::to_owned), "{service}:{scope}");
    }
}

#[test]
fn the_request_is_told_as_it_was_read() {
    let policy = policy(POLICY);
    for (line, method, scheme, destination, path) in [
        ("GET HTTPS://S.test:443/v1/x?q=1#top", "GET", "https", "s.test", "/v1/x"),
        ("GET http://s.test:8080?q", "GET", "http", "s.test:8080", "/"),
        ("WEBSOCKET https://s.test", "GET", "https", "s.test", "/"),
        ("POST wss://s.test/x", "POST", "https", "s.test", "/x"),
        ("GET ws://s.test/a/../b?q", "GET", "http", "s.test", "/a/../b"),
    ] {
        let answer = asked(&policy, line, "", "", "").unwrap();
        assert_eq!(
            (&*answer.method, answer.scheme, &*answer.destination, &*answer.path),
            (method, scheme, destination, path)
        );
    }
}

#[test]
fn an_unlisted_host_is_relayed_unread_where_the_policy_says_so() {
    let policy = policy(&format!("[egress]\nunlisted = \"tunnel\"\n{POLICY}"));
    let unread = "no service lists the host: it is relayed unread, without a credential (egress.unlisted)";
    for (line, code, why) in [
        ("GET https://u.test/", "allowed", unread),
        ("GET https://u.test/a/../b", "allowed", unread),
        ("GET https://u.test:444/", "host_not_listed", "no service lists the host"),
        ("GET http://u.test/", "host_not_listed", "no service lists the host"),
        ("GET https://s.test:444/", "host_not_listed", "no service lists the host with this port"),
        ("GET https://s.test:444/a/../b", "request_ambiguous", "its path has a `.` or `..` segment"),
    ] {
        let answer = asked(&policy, line, "", "", "").unwrap();
        assert_eq!((word(&answer), &*answer.why), (code, why), "{line}");
    }
}
