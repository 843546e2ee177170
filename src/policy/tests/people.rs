//! What the policy says of agents and minters, of how long and how often.

use super::*;

const POLICY: &str = r#"
[issuers.cluster]
kind = "kubernetes"
issuer = "https://kubernetes.default.svc"
audience = "valetkey"
algorithms = ["RS256"]
jwks = "/etc/jwks.json"

[nonces.ceilings]
low = { ttl = "1h", lifetime = "24h" }
medium = { ttl = "20m", lifetime = "4h" }

[risk.levels]
elevated = { max_risk = "medium" }
critical = { max_risk = "none" }

[services.s]
hosts = ["s.test"]
credential = "c"
slots = ["bearer"]
[[services.s.scopes]]
name = "read"
risk = "low"
allow = ["GET /x"]
[[services.s.scopes]]
name = "write"
risk = "medium"
allow = ["POST /x"]

[agents.plain]
identity = ["uid:1000"]
grants = { s = ["read", "write"] }

[agents.short]
identity = ["uid:1001", "uid:1002"]
grants = { s = ["read"] }
ttl = "20m"
self_renew = true

[agents.proven]
identity = ["kubernetes:prod/agent"]
grants = { s = ["read"] }
reattest = "10m"

[minters.first]
identity = ["uid:1"]
agents = ["*"]
may = ["mint"]

[minters.second]
identity = ["uid:2"]
agents = ["plain"]
may = ["read", "risk"]
"#;

/// Of the agent `plain` a scope is gone, of `short` an identity; `proven` is gone.
fn later() -> Policy {
    let text = POLICY.split("[agents.proven]").next().unwrap();
    let text = text.replace("\"read\", \"write\"", "\"read\"").replace("\"uid:1001\", ", "");
    let issuer = text.find("[issuers").unwrap()..text.find("[nonces").unwrap();
    policy(&text.replace(&text[issuer], ""))
}

#[test]
fn only_a_reload_takes_scopes_and_identities_back() {
    let (first, same, later) = (policy(POLICY), policy(POLICY).reloaded(), later().reloaded());
    let uids = |policy: &Policy, name: &str| policy.identities_since(&agent(name)).map(<[IdentityRule]>::to_vec);
    for (name, scope, still, since) in [
        ("plain", "read", true, Some(vec![IdentityRule::Uid(1000)])),
        ("plain", "write", false, Some(vec![IdentityRule::Uid(1000)])),
        ("short", "read", true, Some(vec![IdentityRule::Uid(1002)])),
        ("proven", "read", false, None),
    ] {
        let scope = &scopes(scope)[0];
        assert!(first.still_grants(&agent(name), &service("s"), scope), "{name} {scope}");
        assert!(same.still_grants(&agent(name), &service("s"), scope), "{name} {scope}");
        assert_eq!(later.still_grants(&agent(name), &service("s"), scope), still, "{name} {scope}");
        assert_eq!(uids(&first, name), None, "they say it themselves");
        assert_eq!(uids(&later, name), since, "{name}");
    }
    assert_eq!(uids(&same, "short"), Some(vec![IdentityRule::Uid(1001), IdentityRule::Uid(1002)]));
    let gone = &scopes("read")[0];
    assert!(!same.still_grants(&agent("plain"), &service("gone"), gone));
    assert!(first.still_grants(&agent("plain"), &service("gone"), gone), "a nonce was minted with what there was");
}

#[test]
fn what_an_agent_may_is_its_own() {
    let minutes = |count: u64| Duration::from_secs(60 * count);
    let policy = policy(POLICY);
    for (name, renews, by_token, reattest) in [
        ("plain", false, false, None),
        ("short", true, false, None),
        ("proven", false, true, Some(minutes(10))),
        ("nobody", false, false, None),
    ] {
        let rule = policy.agent(&agent(name));
        assert_eq!(policy.may_self_renew(&agent(name)), renews, "{name}");
        assert_eq!(rule.is_some_and(AgentRule::is_proven_by_token), by_token, "{name}");
        assert_eq!(policy.reattest(&agent(name)), reattest, "{name}");
    }
    assert!(policy.proves_by_token() && !later().proves_by_token());
    assert_eq!((policy.reattest_min(), later().reattest_min()), (Some(minutes(10)), None));
    let names: Vec<&str> = policy.agents().into_iter().map(AgentName::as_str).collect();
    assert_eq!(names, ["plain", "short", "proven"]);
}

#[test]
fn the_shortest_time_to_be_proven_again_is_that_of_any_agent_or_scope() {
    let both = POLICY.replacen("risk = \"low\"", "risk = \"low\"\nreattest = \"3m\"", 1);
    assert_eq!(policy(&both).reattest_min(), Some(Duration::from_secs(180)));
}

#[test]
fn minters_and_levels_are_found_by_name() {
    let policy = policy(POLICY);
    for (name, may) in [
        ("first", Some(vec![Permission::Mint])),
        ("second", Some(vec![Permission::Read, Permission::Risk])),
        ("no", None),
    ] {
        let found = policy.minter(&MinterName::parse(name).unwrap());
        assert_eq!(found.map(|minter| minter.may.clone()), may, "{name}");
    }
    let levels: Vec<&str> = policy.risk_levels().iter().map(|level| level.name.as_str()).collect();
    assert_eq!(levels, ["elevated", "critical"]);
}

#[test]
fn of_a_ceiling_and_an_agents_own_time_the_shorter_is_named_and_the_ceiling_where_they_are_alike() {
    let minutes = |count: u64| Duration::from_secs(60 * count);
    let alike = POLICY.replacen("low = { ttl = \"1h\"", "low = { ttl = \"20m\"", 1);
    for (text, name, asked, wanted, by) in [
        (POLICY, "short", 30, 20, Some("agents.short.ttl")),
        (POLICY, "short", 20, 20, None),
        (POLICY, "plain", 90, 60, Some("ceilings.low")),
        (&alike, "short", 30, 20, Some("ceilings.low")),
        (&alike, "short", 19, 19, None),
    ] {
        let grants = vec![crate::model::Grant { service: service("s"), scopes: scopes("read") }];
        let request = MintRequest { agent: agent(name), grants, ttl: Some(minutes(asked)), rate: None };
        let plan = policy(text).plan(&request).unwrap();
        assert_eq!((plan.ttl, plan.ttl_capped_by.as_deref()), (minutes(wanted), by), "{name} {asked}");
    }
}

#[test]
fn a_canary_lives_as_long_as_was_asked_and_a_year_at_most() {
    const DAY: u64 = 24 * 3600;
    let policy = policy(POLICY);
    for (asked, days, by) in
        [(None, 30, None), (Some(365), 365, None), (Some(366), 366, None), (Some(367), 366, Some("canary"))]
    {
        let asked = asked.map(|days| Duration::from_secs(DAY * days));
        let plan = policy.plan_canary(&agent("plain"), asked).unwrap();
        assert_eq!((plan.ttl, plan.lifetime), (Duration::from_secs(DAY * days), plan.ttl));
        assert_eq!((plan.ttl_capped_by.as_deref(), plan.grants.len()), (by, 0), "{asked:?}");
    }
    assert_eq!(policy.plan_canary(&agent("nobody"), None).err(), Some(MintRefusal::UnknownAgent));
}
