//! The same questions in the same order as the sidecar asks them, answered from the policy alone.

mod answer;
mod case;
mod line;
mod question;
mod supposed;

use std::sync::Arc;

use super::{Policy, Service, Unlisted};
use crate::model::denial::{Misplaced, Missing};
use crate::model::{Denial, Destination, Scheme, ServiceName};
use case::Case;
use line::Line;

pub use answer::{Answer, Way};
pub use line::Member;
pub use question::{Asked, Holding, Holds, Question, read};
pub use supposed::Supposed;

/// The code of [`Denial::OutOfScope`].
const OUT_OF_SCOPE: &str = "out_of_scope";
/// The code of [`Denial::RiskRestricted`].
const RISK_RESTRICTED: &str = "risk_restricted";
/// The code of [`Denial::NonceSpent`].
const NONCE_SPENT: &str = "nonce_spent";
/// The code of what no mint gives, so that no sidecar ever has to decide it.
const NOT_GRANTABLE: &str = "scope_not_grantable";

/// Every code of an answer that knows nothing of uses: of a question about the policy alone.
pub const CODES: [&str; 9] = [
    "cleartext_forbidden",
    "condition_failed",
    "host_not_listed",
    "nonce_misplaced",
    "nonce_missing",
    OUT_OF_SCOPE,
    "request_ambiguous",
    RISK_RESTRICTED,
    NOT_GRANTABLE,
];

/// Answers it.
#[must_use]
pub fn explain(policy: &Policy, question: &Question) -> Answer {
    explain_line(policy, question, &[])
}

/// Answers it for a nonce that there is ([`Holding::Minted`]) and for all above it: it goes first.
#[must_use]
pub fn explain_line(policy: &Policy, question: &Question, line: &[Member<'_>]) -> Answer {
    let answer = Answer::of(&question.method, question.scheme, &question.destination, question.target.path());
    let here = policy.services_at(&question.destination);
    if here.is_empty() {
        return unlisted(policy, question, answer);
    }
    let asked = |service: &&Arc<Service>| {
        question.service.as_ref().is_none_or(|name| service.name == *name) && is_held(&question.holding, &service.name)
    };
    let cases: Vec<Case<'_>> =
        here.iter().filter(asked).map(|service| Case::new(policy, question, service, Line(line))).collect();
    if cases.is_empty() {
        let names: Vec<&str> = here.iter().map(|service| service.name.as_str()).collect();
        let why = format!("the host is listed by {} and not by that service", names.join(", "));
        return answer.refused(&Denial::NonceMisplaced(Misplaced::Host), why);
    }
    if matches!(question.holding, Holding::Nothing) {
        return without_nonce(&cases, question, answer);
    }
    let given = among(&cases, answer);
    if given.allowed && given.observed.is_none() {
        return given;
    }
    Answer { would: cases.iter().flat_map(Case::would).collect(), ..given }
}

/// A nonce that there is knows nothing of the services that it is not for.
fn is_held(holding: &Holding, service: &ServiceName) -> bool {
    match holding {
        Holding::Minted(grants) => grants.iter().any(|grant| grant.service == *service),
        Holding::Nothing | Holding::Everything | Holding::Scopes(_) | Holding::Grants(_) => true,
    }
}

/// A request without a nonce: the first service that lets it pass has it, without a credential.
fn without_nonce(cases: &[Case<'_>], question: &Question, answer: Answer) -> Answer {
    // A WebSocket needs a rule, and rules are read for nonces.
    let open = cases.iter().find(|case| case.service.anonymous && !question.websocket);
    let Some(case) = open else {
        let why = "no service of the host takes it without a nonce";
        return answer.refused(&Denial::NonceMissing(Missing::Nowhere), why);
    };
    if case.is_cleartext_forbidden() {
        return case.cleartext_forbidden(answer);
    }
    let why = format!("service {} is anonymous: it goes on without a credential", case.service.name);
    Answer { allowed: true, why, ..answer }
}

/// Among the services of which the nonce holds something, as the sidecar tries them.
fn among(cases: &[Case<'_>], answer: Answer) -> Answer {
    let mut refusal: Option<Answer> = None;
    for case in cases.iter().filter(|case| !case.held.is_empty()) {
        let given = case.decide(answer.clone());
        if given.allowed {
            return given;
        }
        // As the sidecar does: being out of scope is the refusal that helps most.
        if refusal.as_ref().is_none_or(|known| known.code != Some(OUT_OF_SCOPE)) {
            refusal = Some(given);
        }
    }
    refusal.unwrap_or_else(|| {
        // A nonce without any grant of a service has no business at its host.
        let why = cases.first().map_or_else(String::new, Case::why_nothing);
        answer.refused(&Denial::NonceMisplaced(Misplaced::Host), why)
    })
}

fn unlisted(policy: &Policy, question: &Question, answer: Answer) -> Answer {
    let is_known = policy.lists_host(&question.destination.host);
    match (question.scheme, policy.unlisted()) {
        (Scheme::Http, _) if is_known => {
            answer.refused(&Denial::CleartextForbidden, "the host is listed for TLS alone: use https://")
        }
        (Scheme::Https, _) if is_unread(policy, question.scheme, &question.destination) => answer.unread(),
        (Scheme::Https, _) if is_known => {
            answer.refused(&Denial::HostNotListed, "no service lists the host with this port")
        }
        (Scheme::Http | Scheme::Https, _) => answer.refused(&Denial::HostNotListed, "no service lists the host"),
    }
}

/// True for what is relayed without a look into it.
fn is_unread(policy: &Policy, scheme: Scheme, destination: &Destination) -> bool {
    let is_tunnelled = scheme == Scheme::Https && policy.unlisted() == Unlisted::Tunnel;
    is_tunnelled && destination.port == scheme.default_port() && !policy.lists_host(&destination.host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_refusals() {
        let at = jiff::Timestamp::UNIX_EPOCH;
        assert_eq!(Denial::OutOfScope { allowed: Vec::new(), required_scope: None }.code(), OUT_OF_SCOPE);
        assert_eq!(Denial::RiskRestricted { until: at }.code(), RISK_RESTRICTED);
        assert_eq!(Denial::NonceSpent { at }.code(), NONCE_SPENT);
    }
}
