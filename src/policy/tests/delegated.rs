//! Where a delegation begins to ask for too much: at the bound itself it does not.

use std::collections::BTreeMap;

use super::*;
use crate::model::{Grant, ScopeLimits};

const POLICY: &str = r#"
[services.s]
hosts = ["s.test"]
credential = "c"
slots = ["bearer"]
[[services.s.scopes]]
name = "read"
risk = "low"
max_uses = 9
allow = ["GET /x"]

[services.t]
hosts = ["t.test"]
credential = "c"
slots = ["bearer"]
[[services.t.scopes]]
name = "read"
risk = "low"
max_uses = 9
allow = ["GET /x"]

[agents.above]
identity = ["uid:1000"]
grants = { s = ["read"], t = ["read"] }
delegate = { to = ["below"] }

[agents.below]
identity = ["uid:1001"]
grants = { s = ["read"], t = ["read"] }
"#;

const MINUTE: Duration = Duration::from_secs(60);

/// What is left of the nonce above, and what is asked.
struct Case {
    left: [u32; 2],
    uses: (Option<u32>, Option<u32>),
    minutes: (u64, u64),
    on_behalf_of: (Option<&'static str>, Option<&'static str>),
}

impl Default for Case {
    fn default() -> Self {
        Self { left: [9, 9], uses: (None, None), minutes: (10, 10), on_behalf_of: (None, None) }
    }
}

fn planned(case: &Case) -> Result<DelegationPlan, Vec<Excess>> {
    let read = |uses: u32| vec![(scopes("read").remove(0), ScopeLimits { uses: Some(uses), rate: None })];
    let grants = [("s", case.left[0]), ("t", case.left[1])]
        .map(|(name, uses)| LeaseGrant { service: service(name), scopes: read(uses) });
    let parent = Delegator {
        chain: &[agent("above")],
        grants: &grants,
        ttl: MINUTE * u32::try_from(case.minutes.0).unwrap(),
        lifetime: MINUTE * 600,
        uses_left: case.uses.0,
        rate: None,
        on_behalf_of: case.on_behalf_of.0,
        labels: &BTreeMap::new(),
        lines: &[],
    };
    let request = DelegationRequest {
        agent: agent("below"),
        grants: Some(["s", "t"].map(|name| Grant { service: service(name), scopes: scopes("read") }).to_vec()),
        ttl: Some(Duration::from_secs(60 * case.minutes.1)),
        max_uses: case.uses.1,
        rate: None,
        on_behalf_of: case.on_behalf_of.1.map(str::to_owned),
        labels: BTreeMap::new(),
        lines: Vec::new(),
    };
    policy(POLICY).plan_delegation(&parent, &request).map_err(|refusal| match refusal {
        DelegationRefusal::Exceeds(excesses) => excesses,
        DelegationRefusal::Mint(refusal) => panic!("{refusal:?}"),
    })
}

#[test]
fn all_the_uses_that_are_left_may_be_given_and_no_more() {
    for (left, asked, wanted) in [
        (Some(5), Some(4), Ok(Some(4))),
        (Some(5), Some(5), Ok(Some(5))),
        (Some(5), Some(6), Err(vec![Excess::MaxUses(5)])),
        (Some(5), None, Ok(Some(5))),
        (Some(0), None, Err(vec![Excess::MaxUses(0)])),
        (None, Some(6), Ok(Some(6))),
        (None, None, Ok(None)),
    ] {
        let plan = planned(&Case { uses: (left, asked), ..Case::default() });
        assert_eq!(plan.map(|plan| plan.max_uses), wanted, "{asked:?} of {left:?}");
    }
}

#[test]
fn each_scope_has_the_uses_that_are_left_of_the_one_above() {
    let plan = planned(&Case { left: [3, 7], ..Case::default() }).unwrap();
    let uses = |grant: &LeaseGrant| (grant.service.to_string(), grant.scopes[0].1.uses);
    let wanted = [("s".to_owned(), Some(3)), ("t".to_owned(), Some(7))];
    assert_eq!(plan.mint.grants.iter().map(uses).collect::<Vec<_>>(), wanted);
    let spent = planned(&Case { left: [3, 0], ..Case::default() }).map(|_| ());
    assert_eq!(spent, Err(vec![Excess::ScopeSpent(1, 0)]));
}

#[test]
fn the_nonce_above_is_named_where_it_made_the_time_shorter() {
    for (left, asked, wanted, by) in [
        (10, 9, 9, None),
        (10, 10, 10, None),
        (10, 11, 10, Some("parent")),
        // Both would make it shorter: the ceiling by more, so that it is named.
        (30, 40, 30, Some("ceilings.low")),
        (29, 40, 29, Some("parent")),
    ] {
        let plan = planned(&Case { minutes: (left, asked), ..Case::default() }).unwrap().mint;
        assert_eq!(
            (plan.ttl, plan.ttl_capped_by.as_deref()),
            (Duration::from_secs(60 * wanted), by),
            "{asked} of {left}"
        );
    }
}

#[test]
fn on_whose_behalf_is_said_once_for_the_whole_line() {
    let other = || Err(vec![Excess::OnBehalfOf]);
    for (above, asked, wanted) in [
        (None, None, Ok(None)),
        (None, Some("ana"), Ok(Some("ana"))),
        (Some("ana"), None, Ok(Some("ana"))),
        (Some("ana"), Some("ana"), Ok(Some("ana"))),
        (Some("ana"), Some("bob"), other()),
    ] {
        let plan = planned(&Case { on_behalf_of: (above, asked), ..Case::default() });
        let said = plan.map(|plan| plan.on_behalf_of);
        assert_eq!(said, wanted.map(|name: Option<&str>| name.map(str::to_owned)), "{asked:?} below {above:?}");
    }
}
