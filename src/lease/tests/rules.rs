//! Rates of single rules, which the policy of the moment gives.

use super::*;
use crate::model::{Rate, RuleRate};

fn pace(rule: &str, rate: &str) -> RuleRate {
    RuleRate { service: service(), scope: scope("read"), rule: rule.into(), rate: Rate::parse(rate).unwrap() }
}

fn spend(lease: &Arc<Lease>, rules: &[RuleRate]) -> Result<(), NoUse> {
    lease.reserve_paced(&service(), &scope("read"), rules).map(|mut reserved| reserved.spend())
}

#[test]
fn a_rule_has_a_pace_of_its_own_also_where_nothing_is_counted() {
    let bench = bench();
    let lease = bench.mint(1, terms());
    let (slow, other) = (pace("GET /a", "1/min"), pace("GET /b", "1/h"));
    assert_eq!(spend(&lease, std::slice::from_ref(&slow)), Ok(()));
    assert_eq!(spend(&lease, std::slice::from_ref(&slow)), Err(NoUse::TooFast { wait: MINUTE }));
    assert_eq!(spend(&lease, &[]), Ok(()), "what no such rule allows is free");
    assert_eq!(spend(&lease, &[slow.clone(), other.clone()]), Err(NoUse::TooFast { wait: MINUTE }), "the slowest says");
    assert_eq!(spend(&lease, std::slice::from_ref(&other)), Ok(()), "and nothing was taken of the others");
    bench.clock.advance(MINUTE);
    assert_eq!(spend(&lease, std::slice::from_ref(&slow)), Ok(()), "what the other one cost is not its own");
    assert_eq!(spend(&lease, &[slow, other]), Err(NoUse::TooFast { wait: HOUR - MINUTE }));
}

#[test]
fn rules_of_the_same_text_in_another_scope_are_others() {
    let bench = bench();
    let lease = bench.mint(1, terms());
    let here = pace("GET /a", "1/min");
    let there = RuleRate { scope: scope("write"), ..here.clone() };
    assert_eq!(spend(&lease, std::slice::from_ref(&here)), Ok(()));
    assert_eq!(spend(&lease, &[there]), Ok(()));
    assert!(spend(&lease, &[here]).is_err());
}
