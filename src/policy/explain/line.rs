//! A nonce that there is, with all above it: what is asked of each where a request comes with it.

use crate::model::{AgentName, LeaseGrant, RiskCap, ScopeName, ServiceName};
use crate::policy::{Circumstances, Policy, RequestFacts, Scope, Verdict, lists};

/// One nonce of a line.
#[derive(Debug, Clone)]
pub struct Member<'a> {
    /// Whose.
    pub agent: &'a AgentName,
    /// What it holds, with the uses that are left.
    pub grants: &'a [LeaseGrant],
    /// The list of its own; empty where it has none.
    pub lines: Vec<&'a str>,
    /// The most that a level of risk allows it.
    pub cap: Option<RiskCap>,
    /// What conditions see of it.
    pub circumstances: Circumstances<'a>,
}

impl Member<'_> {
    /// What it holds of a service, as far as its agent may still have it.
    pub(super) fn scopes(&self, policy: &Policy, service: &ServiceName) -> Vec<ScopeName> {
        let held = self.grants.iter().filter(|grant| grant.service == *service).flat_map(|grant| &grant.scopes);
        let still = held.filter(|(scope, _)| policy.still_grants(self.agent, service, scope));
        still.map(|(scope, _)| scope.clone()).collect()
    }

    /// True where no use of the scope is left to it.
    fn is_spent(&self, service: &ServiceName, scope: &ScopeName) -> bool {
        let held = self.grants.iter().filter(|grant| grant.service == *service).flat_map(|grant| &grant.scopes);
        let mut limits = held.filter(|(name, _)| name == scope).map(|(_, limits)| limits.uses);
        // What one above it does not have, it cannot use.
        limits.next().is_none_or(|left| left == Some(0))
    }
}

/// The nonce first, then its parent, and so on; empty where a question is about no nonce in particular.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Line<'a>(pub(super) &'a [Member<'a>]);

impl<'a> Line<'a> {
    /// The lines of the nonce's own list, if the request is not within it or not within one above.
    pub(super) fn unlisted(self, facts: &RequestFacts<'_>) -> Option<Vec<String>> {
        let is_listed = self.0.iter().all(|member| lists(member.lines.iter().copied(), facts));
        let own = self.0.first().filter(|_| !is_listed)?;
        Some(own.lines.iter().map(|line| (*line).to_owned()).collect())
    }

    /// What the sidecar decides of it.
    pub(super) fn decide<'p>(
        self,
        policy: &'p Policy,
        service: &ServiceName,
        grantable: &[ScopeName],
        facts: &RequestFacts<'_>,
    ) -> Option<Verdict<'p>> {
        let (own, above) = self.0.split_first()?;
        let of = |member: &Member<'a>, grantable: &[ScopeName]| {
            let given = || member.circumstances.clone();
            policy.decide_given(service, &member.scopes(policy, service), grantable, facts, Some(&given))
        };
        let scopes = own.scopes(policy, service);
        let verdict = policy.decide_below(service, &scopes, of(own, &[]), above.iter().map(|member| of(member, &[])));
        Some(match verdict {
            // What else the agent may have matters to the hint of a refusal, and is no way around the nonces above.
            Verdict::Deny { .. } | Verdict::Ambiguous(_) if above.is_empty() => of(own, grantable),
            settled @ (Verdict::Allow { .. } | Verdict::Unmet(_) | Verdict::Deny { .. } | Verdict::Ambiguous(_)) => {
                settled
            }
        })
    }

    /// True where a deny of a nonce above stands against it.
    pub(super) fn is_denied_above(self, policy: &Policy, service: &ServiceName, facts: &RequestFacts<'_>) -> bool {
        let is_denied = |member: &Member<'_>| policy.denying(service, &member.scopes(policy, service), facts).is_some();
        self.0.iter().skip(1).any(is_denied)
    }

    /// True where the levels of risk in force for all of it allow the scope.
    pub(super) fn allows_risk(self, scope: &Scope) -> bool {
        self.0.iter().filter_map(|member| member.cap).all(|cap| cap.allows(scope.risk))
    }

    /// True where one of it has no use of the scope left.
    pub(super) fn is_spent(self, service: &ServiceName, scope: &Scope) -> bool {
        self.0.iter().any(|member| member.is_spent(service, &scope.name))
    }
}
