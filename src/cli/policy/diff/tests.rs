//! Two policies beside each other.

use std::sync::Arc;

use super::*;

const BASE: &str = r#"
version = 1
[credentials.api]
source = "env"
name = "API_KEY"
hosts = ["api.test", "b.api.test"]
[services.api]
hosts = ["api.test"]
credential = "api"
slots = ["bearer"]
deny = ["* /v1/keys"]
[[services.api.scopes]]
name = "read"
risk = "low"
allow = ["GET /v1/{item}", "GET /v1/{item}/parts/{part}"]
[[services.api.scopes]]
name = "write"
risk = "high"
max_uses = 1
allow = ["POST /v1/{item}"]
[agents.reader]
identity = ["uid:1000"]
grants = { api = ["read"] }
[agents.writer]
identity = ["uid:1001"]
grants = { api = ["read", "write"] }
[minters.boss]
identity = ["uid:0"]
agents = ["reader"]
may = ["mint"]
"#;

fn loaded(text: &str) -> Loaded {
    let file: Arc<str> = "policy.toml".into();
    config::check_policy(&file, text.as_bytes().to_vec(), false).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

/// `+ agent scope rule` and `- …`, then `mark key was is`.
fn lines(old: &str, new: &str) -> Vec<String> {
    let difference = compare(&loaded(old), &loaded(new)).unwrap_or_else(|_| panic!("they are compared"));
    let reached = |mark: &'static str, reached: &[Reached]| -> Vec<String> {
        let scope = |one: &Reached| one.scope.clone().unwrap_or_else(|| format!("{:?}", one.since));
        reached.iter().map(|one| format!("{mark} {} {} {}", one.agent, scope(one), one.rule)).collect()
    };
    let value =
        |value: &Option<serde_json::Value>| value.as_ref().map_or_else(|| "nothing".to_owned(), settings::shown);
    let change = |one: &Change| format!("{:?} {} {} {}", one.direction, one.key, value(&one.was), value(&one.is));
    let mut lines = reached("+", &difference.allowed);
    lines.extend(reached("-", &difference.denied));
    lines.extend(difference.changed.iter().map(change));
    assert_eq!(difference.same, lines.is_empty());
    lines
}

/// Of the base and the base with this replaced.
#[track_caller]
fn changed(from: &str, to: &str) -> Vec<String> {
    assert!(BASE.contains(from), "{from}");
    let new = BASE.replacen(from, to, 1);
    // Whatever becomes allowed one way becomes denied the other way.
    let forth = lines(BASE, &new);
    let back = lines(&new, BASE);
    let flipped = |line: &String| match line.split_at(2) {
        ("+ ", rest) => Some(format!("- {rest}")),
        ("- ", rest) => Some(format!("+ {rest}")),
        _ => None,
    };
    let mut expected: Vec<String> = forth.iter().filter_map(flipped).collect();
    let mut found: Vec<String> = back.into_iter().filter(|line| line.starts_with(['+', '-'])).collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    forth
}

#[test]
fn the_same_policy_in_other_words_is_no_difference() {
    assert!(lines(BASE, BASE).is_empty());
    let words = "# a comment\n".to_owned()
        + &BASE.replace(
            "\"GET /v1/{item}\", \"GET /v1/{item}/parts/{part}\"",
            "\"GET /v1/{item}/parts/{part}\", \"GET /v1/{item}\"",
        );
    assert!(lines(BASE, &words).is_empty());
}

#[test]
fn a_rule_that_another_includes_is_no_difference_to_an_agent() {
    let found = changed("\"GET /v1/{item}/parts/{part}\"", "\"GET /v1/{item}/parts/{other}\"");
    assert!(found.iter().all(|line| !line.starts_with(['+', '-'])), "{found:?}");
    assert_eq!(found.len(), 2, "the file says it in other words: {found:?}");
}

#[test]
fn rules_are_told_by_agent_and_scope() {
    assert_eq!(
        changed("\"POST /v1/{item}\"", "\"POST /v1/{item}\", \"DELETE /v1/{item}\""),
        ["+ writer write DELETE /v1/{item}", "More services.api.scopes.write.allow nothing DELETE /v1/{item}"]
    );
    assert_eq!(
        changed("\"GET /v1/{item}\"", "\"GET /v1/customers\""),
        [
            "- reader read GET /v1/{item}",
            "- writer read GET /v1/{item}",
            "Less services.api.scopes.read.allow GET /v1/{item} nothing",
            "More services.api.scopes.read.allow nothing GET /v1/customers",
        ]
    );
}

#[test]
fn grants_are_told_by_agent() {
    assert_eq!(
        changed("grants = { api = [\"read\"] }", "grants = { api = [\"read\", \"write\"] }"),
        ["+ reader write POST /v1/{item}", "More agents.reader.grants.api nothing write"]
    );
}

#[test]
fn denies_count_where_they_forbid_something() {
    assert_eq!(
        changed("deny = [\"* /v1/keys\"]", "deny = []"),
        ["+ reader Deny * /v1/keys", "+ writer Deny * /v1/keys", "More services.api.deny * /v1/keys nothing"]
    );
    assert_eq!(
        changed("deny = [\"* /v1/keys\"]", "deny = [\"* /v1/keys\", \"* /v2/{*rest}\"]"),
        ["Less services.api.deny nothing * /v2/{*rest}"]
    );
    assert_eq!(
        changed("deny = [\"* /v1/keys\"]", "deny = [\"* /v1/keys\", \"POST /v1/cus_{id}\"]"),
        ["- writer Deny POST /v1/cus_{id}", "Less services.api.deny nothing POST /v1/cus_{id}"]
    );
}

#[test]
fn a_condition_that_is_gone_lets_more_through() {
    let rule = |rest: &str| format!("risk = \"high\"\nrules = [{{ allow = \"PUT /v1/{{item}}\"{rest} }}]");
    let when = ", when = \"path.item != 'a'\"";
    let with_body = |order: &str| format!(", body = {{ type = \"json\", fields = {{ {order} }} }}");
    let base = |rest: &str| BASE.replace("risk = \"high\"", &rule(rest));
    let reached = |old: &str, new: &str| -> Vec<String> {
        lines(&base(old), &base(new)).into_iter().filter(|line| line.starts_with(['+', '-'])).collect()
    };
    assert_eq!(reached(when, ""), ["+ writer write PUT /v1/{item}"]);
    assert_eq!(reached("", when), ["- writer write PUT /v1/{item}"]);
    let other = ", when = \"path.item != 'b'\"";
    assert_eq!(
        reached(when, other),
        ["+ writer write PUT /v1/{item} when path.item != 'b'", "- writer write PUT /v1/{item} when path.item != 'a'"]
    );
    let body = with_body("a = \"int\", b = \"string\"");
    assert_eq!(reached(&body, ""), ["+ writer write PUT /v1/{item}"]);
    assert_eq!(reached(&body, &with_body("b = \"string\", a = \"int\"")), [""; 0]);
    assert_eq!(reached(&body, &with_body("a = \"int\"")).len(), 2);
}

#[test]
fn a_deny_that_only_some_nonces_meet_is_less_than_one_for_all() {
    let deny = "deny = [\"* /v1/keys\"]\n";
    let of_scope = BASE.replace(deny, "").replace("max_uses = 1\n", &format!("max_uses = 1\n{deny}"));
    let reached = |old: &str, new: &str| -> Vec<String> {
        lines(old, new).into_iter().filter(|line| line.starts_with(['+', '-'])).collect()
    };
    assert_eq!(reached(BASE, &of_scope), ["+ reader Deny * /v1/keys", "+ writer Deny * /v1/keys"]);
    assert_eq!(reached(&of_scope, BASE), ["- reader Deny * /v1/keys", "- writer Deny * /v1/keys"]);
}

#[test]
fn hosts_are_told_to_everybody_who_may_go_there() {
    assert_eq!(
        changed("hosts = [\"api.test\"]", "hosts = [\"api.test\", \"b.api.test\"]"),
        ["+ reader Host b.api.test", "+ writer Host b.api.test", "More services.api.hosts nothing b.api.test"]
    );
}

#[test]
fn settings_have_a_direction() {
    for (from, to, line) in [
        ("version = 1", "version = 1\n[nonces]\nttl = \"4m\"", "Less nonces.ttl 5m 4m"),
        (
            "version = 1",
            "version = 1\n[nonces.ceilings]\nhigh = { ttl = \"10m\" }",
            "More nonces.ceilings.high.ttl 5m 10m",
        ),
        ("version = 1", "version = 1\n[egress]\nunlisted = \"tunnel\"", "More egress.unlisted deny tunnel"),
        ("risk = \"high\"", "risk = \"low\"", "More services.api.scopes.write.risk high low"),
        ("max_uses = 1\n", "", "More services.api.scopes.write.max_uses 1 nothing"),
        ("max_uses = 1\n", "max_uses = 3\n", "More services.api.scopes.write.max_uses 1 3"),
        ("slots = [", "scrub = false\nslots = [", "More services.api.scrub true false"),
        ("slots = [", "leak_scan = \"off\"\nslots = [", "More services.api.leak_scan report off"),
        ("slots = [", "anonymous = true\nslots = [", "More services.api.anonymous false true"),
        ("name = \"API_KEY\"", "name = \"OTHER_KEY\"", "Other credentials.api.name API_KEY OTHER_KEY"),
        ("\"b.api.test\"]", "\"c.api.test\"]", "More credentials.api.hosts nothing c.api.test"),
        ("identity = [\"uid:1000\"]", "identity = [\"uid:1002\"]", "More agents.reader.identity nothing uid:1002"),
        ("may = [\"mint\"]", "may = [\"mint\", \"revoke\"]", "More minters.boss.may nothing revoke"),
        ("agents = [\"reader\"]", "agents = [\"*\"]", "Less minters.boss.agents reader nothing"),
        ("slots = [", "dialect = \"git\"\nslots = [", "Other services.api.dialect json git"),
    ] {
        let found = changed(from, to);
        assert!(found.iter().any(|found| found == line), "{line}: {found:?}");
    }
}

#[test]
fn what_agents_and_minters_may_has_a_direction() {
    const LIMITS: &str = r#"
ttl = "4m"
self_renew = true
delegate = { depth = 2, to = ["writer"], children_max = 8 }
budget = { uses = 10, rate = "10/min" }
grants = { api = ["read"] }"#;
    let base = BASE
        .replace("grants = { api = [\"read\"] }", LIMITS.trim())
        .replace("may = [\"mint\"]", "may = [\"mint\"]\nrate = \"5/s\"\nnonces_max = 10")
        .replace("max_uses = 1", "rate = \"1/min\"")
        .replace("version = 1", "version = 1\n[risk.levels]\nelevated = { max_risk = \"low\" }");
    for (from, to, line) in [
        ("ttl = \"4m\"\n", "", "More agents.reader.ttl 4m nothing"),
        ("ttl = \"4m\"", "ttl = \"3m\"", "Less agents.reader.ttl 4m 3m"),
        ("self_renew = true\n", "", "Less agents.reader.self_renew true nothing"),
        ("depth = 2", "depth = 3", "More agents.reader.delegate.depth 2 3"),
        ("children_max = 8", "children_max = 7", "Less agents.reader.delegate.children_max 8 7"),
        ("to = [\"writer\"]", "to = [\"writer\", \"reader\"]", "More agents.reader.delegate.to nothing reader"),
        ("uses = 10, ", "", "More agents.reader.budget.uses 10 nothing"),
        ("uses = 10", "uses = 9", "Less agents.reader.budget.uses 10 9"),
        (", rate = \"10/min\"", "", "More agents.reader.budget.rate 10/min nothing"),
        ("\"10/min\"", "\"20/min\"", "More agents.reader.budget.rate 10/min 20/min"),
        ("\"10/min\"", "\"600/h\"", "More agents.reader.budget.rate 10/min 600/h"),
        ("\"10/min\"", "\"1/s\"", "Other agents.reader.budget.rate 10/min 1/s"),
        ("rate = \"5/s\"", "rate = \"4/s\"", "Less minters.boss.rate 5/s 4/s"),
        ("nonces_max = 10", "nonces_max = 11", "More minters.boss.nonces_max 10 11"),
        ("rate = \"1/min\"", "rate = \"1/h\"", "Less services.api.scopes.write.rate 1/min 1/h"),
        ("rate = \"1/min\"\n", "", "More services.api.scopes.write.rate 1/min nothing"),
        ("max_risk = \"low\"", "max_risk = \"none\"", "Less risk.levels.elevated.max_risk low none"),
        ("max_risk = \"low\"", "max_risk = \"medium\"", "More risk.levels.elevated.max_risk low medium"),
    ] {
        assert!(base.contains(from), "{from}");
        let found = lines(&base, &base.replacen(from, to, 1));
        assert_eq!(found, [line]);
    }
    let without = base.replace("budget = { uses = 10, rate = \"10/min\" }\n", "");
    assert!(lines(&base, &without)[0].starts_with("More agents.reader.budget "));
    assert!(lines(&without, &base)[0].starts_with("Less agents.reader.budget "));
}

#[test]
fn whole_agents_and_minters_are_told() {
    let less = &BASE[..BASE.find("[minters.boss]").unwrap()];
    assert_eq!(lines(BASE, less).len(), 1);
    let more = format!("{BASE}[agents.third]\nidentity = [\"uid:7\"]\ngrants = {{ api = [\"write\"] }}\n");
    let found = lines(BASE, &more);
    assert_eq!(found[0], "+ third write POST /v1/{item}");
    assert!(found[1].starts_with("More agents.third nothing"), "{found:?}");
}

#[test]
fn scopes_of_one_risk_have_an_order() {
    let same = BASE.replace("risk = \"high\"", "risk = \"low\"");
    let (head, rest) = same.split_once("[[services.api.scopes]]\nname = \"read\"").unwrap();
    let (read, write) = rest.split_once("[[services.api.scopes]]\nname = \"write\"").unwrap();
    let (write, tail) = write.split_at(write.find("[agents").unwrap());
    let scope = "[[services.api.scopes]]\nname = ";
    let turned = format!("{head}{scope}\"write\"{write}{scope}\"read\"{read}{tail}");
    assert_eq!(lines(&same, &turned), ["Other services.api.scopes [\"read\",\"write\"] [\"write\",\"read\"]"]);
}
