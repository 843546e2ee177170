//! An example of each bound.

use super::*;

/// One service, whose scope `q` denies what `p` and `r` allow; everybody may delegate to everybody.
fn plain() -> Policy {
    let scopes = vec![
        (0, None, vec![2], vec![]),
        (0, None, vec![3], vec![0]),
        (1, Some(3), vec![4], vec![]),
        (2, None, vec![5], vec![]),
    ];
    let all: Vec<_> = (0..4).map(|scope| (0, scope)).collect();
    let agent = |depth: u32, granted: &[(usize, usize)], to: Vec<usize>| (granted.to_vec(), Some((depth, to, 2)));
    let agents = [
        agent(2, &all, vec![1, 2]),
        agent(8, &all[..3], vec![0, 1, 2, 3]),
        agent(8, &all[..1], vec![0, 1, 2, 3]),
        (all.clone(), None),
    ];
    policy(&[scopes, Vec::new()], &agents)
}

fn request(to: &str) -> DelegationRequest {
    DelegationRequest {
        agent: agent(to),
        grants: None,
        ttl: None,
        max_uses: None,
        rate: None,
        on_behalf_of: None,
        labels: BTreeMap::new(),
        lines: Vec::new(),
    }
}

#[test]
fn leaving_out_a_scope_that_denies_widens_nothing() {
    let policy = plain();
    let parent = minted(&policy, None);
    let asked = DelegationRequest { grants: Some(grants(&[(0, 0)])), ..request("a1") };
    let child = parent.below(&asked.agent, policy.plan_delegation(&parent.delegator(), &asked).unwrap());
    let line = [parent, child];
    let of = service_name("s");
    assert!(!allows(&policy, &line[..1], &of, ("GET", "/a")), "the parent holds the scope that denies it");
    assert!(allows(&policy, &line[1..], &of, ("GET", "/a")), "its scopes alone would allow it");
    assert!(!allows(&policy, &line, &of, ("GET", "/a")));
    assert!(allows(&policy, &line, &of, ("GET", "/c/d/e")));
}

#[test]
fn without_grants_it_is_what_both_may_have() {
    let policy = plain();
    let parent = minted(&policy, Some(7));
    let plan = policy.plan_delegation(&parent.delegator(), &request("a1")).unwrap();
    let scopes: Vec<_> = plan.mint.grants[0].scopes.iter().map(|(name, limits)| (name.as_str(), limits.uses)).collect();
    assert_eq!(scopes, [("p", None), ("q", None), ("r", Some(3))]);
    assert_eq!((plan.max_uses, plan.children_max, plan.mint.risk), (Some(7), 2, Risk::Medium));
    assert_eq!((plan.mint.ttl, plan.mint.ttl_capped_by.as_deref()), (5 * MINUTE, Some("parent")));
    assert_eq!(plan.mint.lifetime, 30 * MINUTE);
    let later = parent.later(1, 3);
    let plan = policy.plan_delegation(&later.delegator(), &request("a1")).unwrap();
    let scopes: Vec<_> = plan.mint.grants[0].scopes.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!((scopes, plan.max_uses, plan.mint.ttl), (vec!["p", "q"], Some(4), 4 * MINUTE));
}

#[test]
fn everything_that_exceeds_is_named() {
    let policy = plain();
    let mut parent = minted(&policy, Some(3)).later(0, 1);
    parent.grants[0].scopes.retain(|(name, _)| name.as_str() != "q");
    parent.grants[0].scopes[1].1.uses = Some(0);
    parent.on_behalf_of = Some("ana".into());
    parent.rate = Rate::parse("10/min");
    parent.labels.insert("team".into(), "x".into());
    let asked = DelegationRequest {
        grants: Some(grants(&[(0, 0), (0, 1), (0, 2), (1, 0)])),
        max_uses: Some(3),
        rate: Rate::parse("1/s"),
        on_behalf_of: Some("bob".into()),
        labels: [("team".to_owned(), "y".to_owned())].into(),
        ..request("a3")
    };
    let Err(DelegationRefusal::Exceeds(excesses)) = policy.plan_delegation(&parent.delegator(), &asked) else {
        panic!("it was allowed")
    };
    let wanted = [
        Excess::To(agent("a0")),
        Excess::Scope(0, 1),
        Excess::ScopeSpent(0, 2),
        Excess::Service(1),
        Excess::Label("team".into()),
        Excess::OnBehalfOf,
        Excess::MaxUses(2),
        Excess::Rate(Rate::parse("10/min").unwrap()),
    ];
    assert_eq!(excesses, wanted);
}

#[test]
fn each_agent_above_has_a_say() {
    let policy = plain();
    let mut parent = minted(&policy, None);
    let refusal = |parent: &Made, to: &str| match policy.plan_delegation(&parent.delegator(), &request(to)) {
        Err(DelegationRefusal::Exceeds(excesses)) => excesses,
        other => panic!("{other:?}"),
    };
    assert_eq!(refusal(&parent, "a3"), [Excess::To(agent("a0"))]);
    parent.chain.push(agent("a1"));
    assert_eq!(refusal(&parent, "a3"), [Excess::To(agent("a0"))], "a1 may, a0 does not let it");
    assert!(policy.plan_delegation(&parent.delegator(), &request("a2")).is_ok());
    parent.chain.push(agent("a2"));
    assert_eq!(refusal(&parent, "a1"), [Excess::Depth(agent("a0"))]);
    parent.chain = vec![agent("a3")];
    assert_eq!(refusal(&parent, "a1"), [Excess::Never(agent("a3"))]);
    parent.chain = vec![agent("a1")];
    parent.grants[0].scopes.retain(|(name, _)| name.as_str() == "u");
    assert_eq!(refusal(&parent, "a2"), [Excess::Nothing]);
    let unknown = policy.plan_delegation(&parent.delegator(), &request("nobody")).unwrap_err();
    assert_eq!(unknown, DelegationRefusal::Mint(MintRefusal::UnknownAgent));
}

#[test]
fn what_its_own_agent_may_not_have_it_does_not_get() {
    let policy = plain();
    let parent = minted(&policy, None);
    let asked = DelegationRequest { grants: Some(grants(&[(0, 1)])), ..request("a2") };
    let refused = policy.plan_delegation(&parent.delegator(), &asked).unwrap_err();
    assert!(matches!(refused, DelegationRefusal::Mint(MintRefusal::ScopeNotGrantable { .. })), "{refused:?}");
}

#[test]
fn a_rate_is_the_policys_and_else_that_of_the_nonce_above() {
    let policy = plain();
    let rate = |text: &str| Rate::parse(text).unwrap();
    let mut parent = minted(&policy, None);
    parent.grants[0].scopes[0].1.rate = Some(rate("3/min"));
    let rates = |policy: &Policy| {
        let plan = policy.plan_delegation(&parent.delegator(), &request("a1")).unwrap();
        plan.mint.grants[0].scopes.iter().map(|(_, limits)| limits.rate).collect::<Vec<_>>()
    };
    assert_eq!(rates(&policy), [Some(rate("3/min")), None, None]);
    let mut given = Given::default();
    let scope = Scope { rate: Some(rate("1/h")), ..scope("p", &(0, None, vec![0], Vec::new())) };
    given.add(&service_name("s"), &scope, parent.grants[0].scopes[0].1);
    assert_eq!(given.grants[0].scopes[0].1.rate, Some(rate("1/h")));
}

#[test]
fn the_rate_of_a_nonce_is_at_most_that_of_the_one_above() {
    let policy = plain();
    let rate = |text: &str| Rate::parse(text).unwrap();
    let mut parent = minted(&policy, None);
    let asked = |text: Option<&str>| DelegationRequest { rate: text.map(rate), ..request("a1") };
    let given = |parent: &Made, text: Option<&str>| {
        let plan = policy.plan_delegation(&parent.delegator(), &asked(text)).unwrap().mint;
        (plan.rate, plan.rate_capped_by)
    };
    assert_eq!(given(&parent, None), (None, None));
    assert_eq!(given(&parent, Some("9/s")), (Some(rate("9/s")), None), "there is none above");
    parent.rate = Some(rate("10/min"));
    assert_eq!(given(&parent, None), (Some(rate("10/min")), Some("parent".to_owned())));
    for fine in ["10/min", "9/min", "10/h", "1/d"] {
        assert_eq!(given(&parent, Some(fine)), (Some(rate(fine)), None));
    }
    for fast in ["11/min", "1/s", "60/h", "1000/d"] {
        let refused = policy.plan_delegation(&parent.delegator(), &asked(Some(fast))).unwrap_err();
        assert_eq!(refused, DelegationRefusal::Exceeds(vec![Excess::Rate(rate("10/min"))]), "{fast}");
    }
    // A nonce that opens one scope is not said to be faster than that.
    parent.grants[0].scopes.truncate(1);
    parent.grants[0].scopes[0].1.rate = Some(rate("3/min"));
    let by_scope = Some("services.s.scopes.p.rate".to_owned());
    assert_eq!(given(&parent, Some("9/min")), (Some(rate("3/min")), by_scope.clone()));
    assert_eq!(given(&parent, None), (Some(rate("3/min")), by_scope));
    assert_eq!(given(&parent, Some("2/min")), (Some(rate("2/min")), None));
}

#[test]
fn a_list_is_within_what_is_above_and_goes_on_below() {
    let policy = plain();
    let parent = minted(&policy, None);
    let asked = |lines: &[&str]| DelegationRequest {
        lines: lines.iter().map(|line| (*line).to_owned()).collect(),
        ..request("a1")
    };
    let plan = |parent: &Made, lines: &[&str]| policy.plan_delegation(&parent.delegator(), &asked(lines));
    let exceeds = |parent: &Made, lines: &[&str]| match plan(parent, lines) {
        Err(DelegationRefusal::Exceeds(excesses)) => excesses,
        other => panic!("{other:?}"),
    };
    // `DELETE` is of a scope that this agent may not have; `{*rest}` is more than `POST /a` and no more than `POST /{*rest}`.
    assert_eq!(exceeds(&parent, &["GET /c/d", "DELETE /a/b", "PUT /x"]), [Excess::Line(1), Excess::Line(2)]);
    assert_eq!(exceeds(&parent, &["GET elsewhere.test/c/d", "* /c"]), [Excess::Line(0), Excess::Line(1)]);
    let child = parent.below(&agent("a1"), plan(&parent, &["GET /c/{x}", "POST api.test/c"]).unwrap());
    assert_eq!(child.lines, ["GET /c/{x}", "POST api.test/c"]);
    assert_eq!(exceeds(&child, &["GET /c/{*rest}", "POST /c", "GET /c/d"]), [Excess::Line(0), Excess::Line(1)]);
    let below = child.below(&agent("a2"), policy.plan_delegation(&child.delegator(), &request("a2")).unwrap());
    assert_eq!(below.lines, child.lines, "a list above is a list below");
    let of = service_name("s");
    let line = [parent, child];
    assert!(allows(&policy, &line, &of, ("GET", "/c/d")) && allows(&policy, &line[..1], &of, ("GET", "/d")));
    assert!(!allows(&policy, &line, &of, ("GET", "/d")) && !allows(&policy, &line, &of, ("POST", "/d")));
}
