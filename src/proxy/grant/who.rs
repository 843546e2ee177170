//! Who presents a nonce: the owner of the connection, or whom the token proves that came with the tunnel, or the client's
//! certificate.

use std::time::Duration;

use crate::audit::DecisionFacts;
use crate::identity::TokenProof;
use crate::lease::{Lease, Lookup};
use crate::model::{Denial, Identity, IdentityRule, Now};
use crate::policy::{Policy, Scope};
use crate::proxy::accept::Connection;

/// Everything that can prove who presents.
#[derive(Debug, Clone, Copy)]
pub struct Presenter<'a> {
    /// The client connection, whose owner the kernel may know.
    pub connection: &'a Connection,
    /// What a token or a certificate has proven.
    pub proof: Option<&'a TokenProof>,
}

impl Presenter<'_> {
    /// Who it is, as far as somebody has asked already.
    pub fn known(&self, leases: &Lookup) -> Option<&Identity> {
        let by_token = self.proof.filter(|proof| proof.holds(&leases.now())).map(|proof| &proof.identity);
        by_token.or_else(|| self.connection.known_owner())
    }
}

/// The nonce is bound to an agent; the caller must be that agent, as far as the policy asks for proof.
pub(super) fn identify(
    policy: &Policy,
    presenter: Presenter<'_>,
    lease: &Lease,
    leases: &Lookup,
    facts: &mut DecisionFacts,
) -> Result<(), Denial> {
    let rules = rules(policy, lease);
    if rules.contains(&IdentityRule::Any) {
        facts.presented_by = presenter.known(leases).cloned();
        return Ok(());
    }
    let proof = presenter.proof.filter(|proof| admits(rules, &proof.identity));
    if let Some(proof) = proof.filter(|proof| proof.holds(&leases.now())) {
        facts.presented_by = Some(proof.identity.clone());
        return Ok(());
    }
    let owner = presenter.connection.owner();
    if let Some(owner) = owner.filter(|owner| admits(rules, owner)) {
        facts.presented_by = Some(owner.clone());
        return Ok(());
    }
    facts.presented_by = presenter.known(leases).cloned();
    let has_uid = rules.iter().any(|rule| matches!(rule, IdentityRule::Uid(_)));
    match (proof, presenter.proof, owner) {
        // It was the right one, and is over.
        (Some(_), ..) => Err(Denial::IdentityStale),
        (None, Some(_), _) => Err(Denial::AgentMismatch),
        (None, None, Some(_)) if has_uid => Err(Denial::AgentMismatch),
        (None, None, _) => Err(Denial::AgentUnidentified),
    }
}

/// True where the caller was proven lately enough for this scope, whether by a token or by opening the connection.
pub(super) fn is_fresh(
    policy: &Policy,
    presenter: Presenter<'_>,
    lease: &Lease,
    scope: &Scope,
    leases: &Lookup,
) -> bool {
    let within = policy.reattest(lease.terms().agent).into_iter().chain(scope.reattest).min();
    within.is_none_or(|within| is_proven_within(policy, presenter, lease, within, &leases.now()))
}

/// The same for all that a lease holds, which is asked before it is given a longer life or given on.
pub fn is_fresh_for_all(policy: &Policy, presenter: Presenter<'_>, lease: &Lease, leases: &Lookup) -> bool {
    let mut held = lease.terms().grants.iter().flat_map(|grant| {
        let service = policy.service(&grant.service);
        grant.scopes.iter().filter_map(move |(name, _)| service?.scope(name))
    });
    held.all(|scope| is_fresh(policy, presenter, lease, scope, leases))
}

fn is_proven_within(policy: &Policy, presenter: Presenter<'_>, lease: &Lease, within: Duration, now: &Now) -> bool {
    let rules = rules(policy, lease);
    let is_lately = |at: &Now| !at.plus(within).is_over(now);
    let by_token = presenter.proof.filter(|proof| proof.holds(now) && is_lately(&proof.at));
    // The kernel was asked no earlier than the connection was opened, and is never asked about it again.
    let is_opened_lately = is_lately(&presenter.connection.opened);
    by_token.is_some_and(|proof| admits(rules, &proof.identity))
        || is_opened_lately && presenter.connection.owner().is_some_and(|owner| admits(rules, owner))
}

/// Whom the lease is bound to; a reload may have changed it.
fn rules<'a>(policy: &'a Policy, lease: &'a Lease) -> &'a [IdentityRule] {
    let terms = lease.terms();
    policy.identities_since(terms.agent).unwrap_or(terms.identities)
}

/// `any` is nobody who could be proven.
fn admits(rules: &[IdentityRule], identity: &Identity) -> bool {
    rules.iter().any(|rule| *rule != IdentityRule::Any && rule.admits(Some(identity)))
}
