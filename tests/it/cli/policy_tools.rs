//! `policy test`, `policy learn` and `policy diff`, as they are typed; and the vectors of what a policy means.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Desk, root_policy};

/// Cases that the vectors have at least.
const VECTORS_MIN: usize = 200;

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

const CASES: &str = r#"
[[case]]
name = "refunds need a scope"
agent = "billing"
scopes = ["read:customers"]
method = "POST"
url = "https://api.stripe.com/v1/refunds?secret=ana"
expect = "out_of_scope"
scope = "write:refunds"

[[case]]
agent = "billing"
method = "GET"
url = "https://api.stripe.com/v1/customers"
expect = "allow"
rule = "GET /v1/customers"
"#;

// ── test ────────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn the_vectors_of_what_a_policy_means_hold() {
    let (desk, mut count) = (Desk::new(), 0);
    let entries = std::fs::read_dir(root("tests/vectors/policy")).expect("the vectors");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|file| !file.to_str().expect("a path").ends_with(".policy.toml"));
    files.sort();
    for file in files {
        let done = desk.run(&["policy", "test", file.to_str().expect("a path"), "--failed"]).ends(0);
        let passed = done.out.trim().strip_suffix(" passed, 0 failed").expect(&done.out);
        count += passed.parse::<usize>().expect("a number");
    }
    assert!(count >= VECTORS_MIN, "{count} cases");
}

#[test]
fn cases_are_run_against_a_policy() {
    let desk = Desk::new();
    desk.write("cases.toml", CASES);
    desk.run(&["policy", "test", "cases.toml"]).ends(3).says("policy.toml");
    let test =
        |more: &[&str]| desk.run(&[&["policy", "test", "cases.toml", "--policy", &root_policy()], more].concat());
    let done = test(&[]).ends(0).shows("2 passed, 0 failed").shows("refunds need a scope");
    assert!(done.out.contains("GET https://api.stripe.com/v1/customers") && !done.out.contains("ana"), "{}", done.out);
    let done = test(&["--json"]).ends(0).json();
    assert_eq!((&done["ok"], &done["passed"], &done["cases"][0]["line"]), (&true.into(), &2.into(), &2.into()));
    assert_eq!(done["cases"][0]["answer"]["required"], "write:refunds");
    assert_eq!(test(&["--failed"]).ends(0).out, "2 passed, 0 failed\n");
}

#[test]
fn the_policy_is_the_flags_then_the_files() {
    let desk = Desk::new();
    std::fs::create_dir(desk.path("sub")).expect("a directory");
    desk.write("sub/mine.toml", &std::fs::read_to_string(root_policy()).expect("the policy"));
    desk.write("sub/cases.toml", &format!("policy = \"mine.toml\"\n{CASES}"));
    desk.run(&["policy", "test", "sub/cases.toml"]).ends(0);
    desk.run(&["policy", "test", "sub/cases.toml", "--policy", "other.toml"]).ends(3).says("other.toml");
}

#[test]
fn a_case_that_fails_says_why_and_ends_with_1() {
    for (from, to, why) in [
        ("expect = \"allow\"", "expect = \"deny\"", "allowed by stripe:read:customers: GET /v1/customers"),
        ("expect = \"allow\"", "expect = \"host_not_listed\"", "allowed by stripe:read:customers"),
        ("expect = \"out_of_scope\"", "expect = \"allow\"", "refused out_of_scope: none of these scopes"),
        ("expect = \"out_of_scope\"", "expect = \"request_ambiguous\"", "refused out_of_scope"),
        ("scope = \"write:refunds\"", "scope = \"read:charges\"", "expected that scope read:charges is named"),
        ("rule = \"GET /v1/customers\"", "rule = \"GET /v1\"", "expected that the rule GET /v1 allows it"),
        ("agent = \"billing\"\nm", "agent = \"biling\"\nm", "there is no agent biling here; there are: billing"),
        ("scopes = [\"read:customers\"]", "scopes = [\"read\"]", "there is no scope read here"),
        ("url = \"https://api.stripe.com/v1/customers\"", "url = \"api.stripe.com\"", "expected a URL"),
        ("expect = \"allow\"", "risk = \"high\"\nexpect = \"allow\"", "there is no level of risk high here"),
    ] {
        let desk = Desk::new();
        assert!(CASES.contains(from), "{from}");
        desk.write("cases.toml", &CASES.replacen(from, to, 1));
        let done = desk.run(&["policy", "test", "cases.toml", "--policy", &root_policy()]).ends(1);
        let done = done.shows("1 passed, 1 failed").shows("FAIL").shows(why).says("1 case fails");
        assert!(!done.out.contains("ana"), "a query may hold what no log should");
        let json =
            desk.run(&["policy", "test", "cases.toml", "--policy", &root_policy(), "--json", "--failed"]).ends(1);
        let json = json.json();
        assert_eq!((json["ok"].as_bool(), json["cases"].as_array().map(Vec::len)), (Some(false), Some(1)));
    }
}

#[test]
fn a_file_of_cases_is_read_as_strictly_as_a_policy() {
    for (text, says) in [
        ("", "`case` is missing"),
        ("case = []\n", "is empty"),
        ("[[case]]\nmethod = \"GET\"\n", "`url` is missing"),
        ("[[case]]\nmethd = \"GET\"\n", "did you mean `method`?"),
        ("cases = 1\n", "did you mean `case`?"),
        ("[[case]]\nheaders = {}\n", "there is no key `headers`"),
        ("[[case]]\nbody = 1\n", "case[0].body"),
        ("[[case]]\nlabels = [\"a\"]\n", "case[0].labels"),
        ("[[case]]\nage = \"1\"\n", "write a time like"),
        ("[[case]]\nnow = \"today\"\n", "write a moment like"),
        ("[[case]]\nuses = -1\n", "is out of range"),
        ("[[case]]\nexpect = \"alow\"\n", "did you mean `allow`?"),
        ("[[case]]\nexpect = \"nonce_expired\"\n", "one of allow, deny, cleartext_forbidden"),
        ("[[case]]\nscopes = [\"a\"]\nnonce = false\n", "says twice what the nonce holds"),
        ("[[case]]\nscopes = []\n", "is empty"),
        ("[[case]]\nmethod = GET\n", "cases.toml:2"),
    ] {
        let desk = Desk::new();
        desk.write("cases.toml", text);
        desk.run(&["policy", "test", "cases.toml", "--policy", &root_policy()]).ends(3).says(says);
    }
    Desk::new().run(&["policy", "test", "none.toml"]).ends(3).says("name the file with the cases");
}

#[test]
fn the_example_says_what_its_cases_expect() {
    let script = root("examples/policy/check.sh");
    let mut command = std::process::Command::new(script);
    let output = command.env("VALETKEY_BINARY", crate::support::binary()).output().expect("a shell");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.ends_with("4 passed, 0 failed, 0 skipped\n"), "{text}");
}

// ── learn ───────────────────────────────────────────────────────────────────────────────────────────────────────────

/// A decision as the audit has it.
fn decision(agent: &str, method: &str, path: &str, is_allowed: bool) -> Value {
    let mut record = json!({
        "v": 1, "type": "decision", "scheme": "https", "destination": "api.stripe.com:443", "agent": agent,
        "service": "stripe", "method": method, "path": path, "decision": "allow", "risk": "low",
    });
    if !is_allowed {
        record["decision"] = "deny".into();
        record["code"] = "out_of_scope".into();
    }
    record
}

fn audit(records: &[Value]) -> String {
    records.iter().map(|record| format!("{record}\n")).collect()
}

/// A policy with what was learned as its only scopes.
fn pasted(fragment: &str) -> String {
    let grants = "\n[agents.billing]\nidentity = [\"uid:1000\"]\ngrants = { stripe = [\"learned:billing\"] }\n";
    let head = "version = 1\n[credentials.c]\nsource = \"env\"\nname = \"KEY\"\nhosts = [\"api.stripe.com\"]\n";
    let service = "[services.stripe]\nhosts = [\"api.stripe.com\"]\ncredential = \"c\"\nslots = [\"bearer\"]\n";
    format!("{head}{service}\n{fragment}{grants}")
}

#[test]
fn what_was_learned_is_a_policy_that_allows_what_was_seen_and_nothing_longer() {
    let seen = [
        ("GET", "/v1/customers"),
        ("GET", "/v1/customers/cus_1"),
        ("GET", "/v1/customers/cus_2"),
        ("POST", "/v1/refunds"),
        ("DELETE", "/v1/plans/gold"),
        ("GET", "/v1/odd/%7Bx%7D%22"),
        ("GET", "/v1/odd/a%2Fb"),
        ("WEBSOCKET", "/v1/stream"),
        ("GET", "/v1/dir/"),
    ];
    let records: Vec<Value> =
        seen.iter().map(|(method, path)| decision("billing", method, path, *path != "/v1/refunds")).collect();
    let desk = Desk::new();
    desk.write("audit.jsonl", &audit(&records));
    let learned = desk.run(&["policy", "learn", "audit.jsonl"]).ends(0);
    let learned = learned.shows("\"GET /v1/customers/cus_{id}\",").shows("never allowed, 1 refused");
    desk.write("policy.toml", &pasted(&learned.out));
    desk.run(&["policy", "check"]).ends(0);
    let mut cases = String::new();
    let mut case = |method: &str, path: &str, expect: &str| {
        let url = format!("https://api.stripe.com{path}");
        cases += &format!("[[case]]\nmethod = \"{method}\"\nurl = \"{url}\"\nexpect = \"{expect}\"\n");
    };
    for (method, path) in seen {
        case(method, path, "allow");
        case(method, &format!("{}/more", path.trim_end_matches('/')), "deny");
        case("PUT", path, "deny");
    }
    for (method, path) in
        [("POST", "/v1/customers"), ("GET", "/v1/plans/gold"), ("GET", "/v1/customers/other"), ("GET", "/v1/dir")]
    {
        case(method, path, "deny");
    }
    // What stands below something that was seen and was seen itself.
    let cases = cases.replace("/v1/customers/more\"\nexpect = \"allow\"", "/v1/customers/more\"\nexpect = \"deny\"");
    desk.write("cases.toml", &cases);
    desk.run(&["policy", "test", "cases.toml", "--failed"]).ends(0).shows("31 passed, 0 failed");
}

#[test]
fn what_is_learned_can_be_chosen() {
    let desk = Desk::new();
    let records = [
        decision("billing", "GET", "/v1/customers", true),
        decision("billing", "POST", "/v1/refunds", false),
        decision("other", "GET", "/v1/charges", true),
    ];
    desk.write("audit.jsonl", &format!("{}no record\n", audit(&records)));
    let learn = |more: &[&str]| desk.run(&[&["policy", "learn", "audit.jsonl"], more].concat()).ends(0).out;
    let all = learn(&[]);
    assert!(all.contains("learned:billing") && all.contains("learned:other") && all.contains("POST /v1/refunds"));
    let allowed = learn(&["--of", "allowed"]);
    assert!(allowed.contains("GET /v1/customers") && !allowed.contains("refunds"), "{allowed}");
    let refused = learn(&["--of", "refused"]);
    assert!(refused.contains("POST /v1/refunds") && !refused.contains("customers"), "{refused}");
    let other = learn(&["--agent", "other"]);
    assert!(other.contains("/v1/charges") && !other.contains("/v1/customers"), "{other}");
    assert!(!learn(&["--service", "github"]).contains("[["));
    let json: Value = serde_json::from_str(&learn(&["--json", "--agent", "billing"])).expect("JSON");
    assert_eq!((json["records"].as_u64(), json["requests"].as_u64()), (Some(3), Some(2)));
    assert_eq!(
        json["scopes"][0]["rules"][1],
        json!({"allow": "POST /v1/refunds", "encoded_slash": false, "allowed": 0, "observed": 0, "refused": 1})
    );
    assert_eq!(desk.sh("\"$V\" policy learn - < audit.jsonl").ends(0).out.replace(" -:", " audit.jsonl:"), all);
}

#[test]
fn what_is_no_audit_teaches_nothing() {
    let desk = Desk::new();
    desk.run(&["policy", "learn", "none.jsonl"]).ends(1).says("name the file that was given to");
    desk.write("audit.jsonl", "a\nb\n");
    desk.run(&["policy", "learn", "audit.jsonl"]).ends(6).says("is it an audit of valetkey?");
    desk.write("audit.jsonl", "{\"type\":\"start\"}\n");
    desk.run(&["policy", "learn", "audit.jsonl"]).ends(0).says("no request in it");
    desk.run(&["policy", "learn"]).ends(2);
    desk.run(&["policy", "learn", "audit.jsonl", "--many", "1"]).ends(2);
}

// ── diff ────────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn two_policies_are_compared() {
    let desk = Desk::new();
    let old = std::fs::read_to_string(root_policy()).expect("the policy");
    desk.write("old.toml", &old);
    let new = old
        .replace("\"GET /v1/customers\", \"GET", "\"POST /v1/customers\", \"GET")
        .replace("high   = { ttl = \"5m\"", "high   = { ttl = \"10m\"");
    assert_ne!(old, new);
    desk.write("new.toml", &new);
    let diff = |more: &[&str]| desk.run(&[&["policy", "diff", "old.toml", "new.toml"], more].concat());
    let done = diff(&[]).ends(0).shows("becomes allowed").shows("becomes denied").shows("nonces.ceilings.high.ttl");
    assert!(done.out.contains("POST /v1/customers  the rule"), "{}", done.out);
    diff(&["--exit-code"]).ends(1).says("the policies differ");
    let json = diff(&["--json"]).ends(0).json();
    assert_eq!(json["same"], false);
    assert_eq!(json["allowed"][0]["agent"], "billing");
    assert_eq!(json["denied"][0]["rule"], "GET /v1/customers");
    let ceiling =
        json["changed"].as_array().and_then(|all| all.iter().find(|one| one["key"] == "nonces.ceilings.high.ttl"));
    assert_eq!(
        ceiling,
        Some(&json!({"key": "nonces.ceilings.high.ttl", "was": "5m", "is": "10m", "direction": "more"}))
    );
    desk.run(&["policy", "diff", "old.toml", "old.toml", "--exit-code"]).ends(0).shows("no difference");
    desk.write("bad.toml", "version = 2\n");
    desk.run(&["policy", "diff", "old.toml", "bad.toml"]).ends(3).says("bad.toml");
    desk.run(&["policy", "diff", "old.toml"]).ends(2);
}

#[test]
fn a_condition_that_is_taken_out_is_told_as_what_becomes_allowed() {
    let desk = Desk::new();
    let write = |name: &str, when: &str| {
        let rules = format!(
            "[[services.stripe.scopes]]\nname = \"r\"\nrisk = \"low\"\nrules = [{{ allow = \"GET /a/{{id}}\"{when} }}]\n"
        );
        desk.write(name, &pasted(&rules).replace("learned:billing", "r"));
    };
    write("old.toml", ", when = \"path.id != 'b'\"");
    write("new.toml", "");
    let json = desk.run(&["policy", "diff", "old.toml", "new.toml", "--json"]).ends(0).json();
    assert_eq!(
        (&json["allowed"][0]["rule"], json["denied"].as_array().map(Vec::len)),
        (&json!("GET /a/{id}"), Some(0))
    );
    desk.run(&["policy", "diff", "new.toml", "old.toml"]).ends(0).shows("becomes denied");
}

// ── check ───────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_deny_that_would_step_back_from_what_it_cannot_read_is_a_mistake() {
    let desk = Desk::new();
    let scope = "[[services.stripe.scopes]]\nname = \"r\"\nrisk = \"low\"\nallow = [\"GET /a\"]\n";
    let write = |when: &str| {
        let deny = format!("rules = [{{ deny = \"GET /a\", when = \"{when}\" }}]\n");
        desk.write("policy.toml", &pasted(&format!("{scope}{deny}")).replace("learned:billing", "r"));
    };
    write("has(request.query) && request.query.force == '1'");
    desk.run(&["policy", "check"]).ends(3).says("has(…) does not go with `query`");
    write("has(request.query.force) && request.query.force == '1'");
    desk.run(&["policy", "check"]).ends(0);
    for (query, expected) in [("?force=1", "deny"), ("?force=0&force=1", "deny"), ("?force=0", "allow"), ("", "allow")]
    {
        let case = format!(
            "[[case]]\nagent = \"billing\"\nmethod = \"GET\"\nurl = \"https://api.stripe.com/a{query}\"\nexpect = \"{expected}\"\n"
        );
        desk.write("cases.toml", &case);
        desk.run(&["policy", "test", "cases.toml"]).ends(0);
    }
}

#[test]
fn rules_that_one_endpoint_makes_meaningless_are_warned_of() {
    let desk = Desk::new();
    let rules = "[[services.stripe.scopes]]\nname = \"r\"\nrisk = \"low\"\nallow = [\"GET /a\", \"POST /graphql\", \"POST /$batch\", \"POST /rpc\"]\n";
    desk.write("policy.toml", &pasted(rules).replace("learned:billing", "r"));
    desk.run(&["policy", "check"])
        .ends(0)
        .says("services.stripe.scopes[0].allow[1]: one path for every operation")
        .says("services.stripe.scopes[0].allow[2]: a batch holds requests that no rule looks at")
        .says("services.stripe.scopes[0].allow[3]: the call is named in the body");
    let json = desk.run(&["policy", "check", "--json"]).ends(0).json();
    assert_eq!(json["warnings"].as_array().map(Vec::len), Some(3));
}
