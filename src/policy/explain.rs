//! The same questions in the same order as the sidecar asks them, answered from the policy alone.

mod question;

use std::sync::Arc;

use serde::Serialize;

use super::{AgentRule, Allowing, Policy, RequestFacts, Scope, Service, Slot, Target, Unlisted, Verdict};
use crate::model::denial::Misplaced;
use crate::model::{Ambiguity, Denial, Destination, Risk, RiskCap, Scheme, ScopeName};

pub use question::{Asked, Question, read};

/// What would happen, and why; also the JSON form.
#[derive(Debug, Clone, Serialize)]
pub struct Answer {
    /// As asked.
    pub method: String,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The host, and the port where it is not the scheme's.
    pub destination: String,
    /// Without the query.
    pub path: String,
    /// The verdict.
    pub allowed: bool,
    /// The code of the refusal.
    pub code: Option<&'static str>,
    /// A sentence.
    pub why: String,
    /// By what it is allowed.
    pub by: Option<Way>,
    /// What else allows it, in the order in which it is tried once the uses of the first are gone.
    pub also: Vec<String>,
    /// The deny that stands against it.
    pub denied_by: Option<String>,
    /// Scopes that would allow it.
    pub would: Vec<Way>,
    /// What the nonce allows instead.
    pub instead: Vec<String>,
}

/// A scope and its rule that allow a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Way {
    /// The service.
    pub service: String,
    /// The scope.
    pub scope: String,
    /// Its risk.
    pub risk: Risk,
    /// The rule, as the policy spells it.
    pub rule: String,
    /// The credential, by its name.
    pub credential: String,
    /// Uses of the scope in a nonce's life.
    pub max_uses: Option<u32>,
    /// Who may have it.
    pub agents: Vec<String>,
}

impl Answer {
    /// The request, without a verdict.
    fn of(method: &str, scheme: Scheme, destination: &Destination, path: &str) -> Self {
        Self {
            method: method.to_owned(),
            scheme: scheme.as_str(),
            destination: destination.authority(scheme),
            path: if path.is_empty() { "/".to_owned() } else { path.to_owned() },
            allowed: false,
            code: None,
            why: String::new(),
            by: None,
            also: Vec::new(),
            denied_by: None,
            would: Vec::new(),
            instead: Vec::new(),
        }
    }

    /// Refused, since two parties could read it differently.
    fn ambiguous(self, ambiguity: Ambiguity) -> Self {
        self.refused(&Denial::RequestAmbiguous(ambiguity), words(ambiguity))
    }

    fn refused(self, denial: &Denial, why: impl Into<String>) -> Self {
        Self { code: Some(denial.code()), why: why.into(), ..self }
    }
}

/// The code of [`Denial::OutOfScope`].
const OUT_OF_SCOPE: &str = "out_of_scope";
/// The code of [`Denial::RiskRestricted`].
const RISK_RESTRICTED: &str = "risk_restricted";
/// The code of [`Denial::NonceSpent`].
const NONCE_SPENT: &str = "nonce_spent";

/// Answers it.
#[must_use]
pub fn explain(policy: &Policy, question: &Question) -> Answer {
    let answer = Answer::of(&question.method, question.scheme, &question.destination, question.target.path());
    let here = policy.services_at(&question.destination);
    if here.is_empty() {
        return unlisted(policy, question, answer);
    }
    let asked = |service: &&Arc<Service>| {
        question.service.as_ref().is_none_or(|name| service.name == *name)
            && question.grants.as_ref().is_none_or(|grants| grants.iter().any(|grant| grant.service == service.name))
    };
    let services: Vec<&Arc<Service>> = here.iter().filter(asked).collect();
    if services.is_empty() {
        let names: Vec<&str> = here.iter().map(|service| service.name.as_str()).collect();
        let why = format!("the host is listed by {} and not by that service", names.join(", "));
        return answer.refused(&Denial::NonceMisplaced(Misplaced::Host), why);
    }
    let mut refusal: Option<Answer> = None;
    for service in &services {
        let case = Case { policy, question, service, target: judged(service, &question.target) };
        let given = case.decide(answer.clone());
        if given.allowed {
            return given;
        }
        // As the sidecar does: being out of scope is the refusal that helps most.
        if refusal.as_ref().is_none_or(|known| known.code != Some(OUT_OF_SCOPE) && given.code == Some(OUT_OF_SCOPE)) {
            refusal = Some(given);
        }
    }
    let mut refusal = refusal.unwrap_or(answer);
    refusal.would = services
        .iter()
        .flat_map(|service| Case { policy, question, service, target: judged(service, &question.target) }.would())
        .collect();
    refusal
}

fn unlisted(policy: &Policy, question: &Question, answer: Answer) -> Answer {
    let is_known = policy.lists_host(&question.destination.host);
    match (question.scheme, policy.unlisted()) {
        (Scheme::Http, _) if is_known => {
            answer.refused(&Denial::CleartextForbidden, "the host is listed for TLS alone: use https://")
        }
        (Scheme::Https, Unlisted::Tunnel) if !is_known && question.destination.port == Scheme::Https.default_port() => {
            let why = "no service lists the host: it is relayed unread, without a credential (egress.unlisted)";
            Answer { allowed: true, why: why.to_owned(), ..answer }
        }
        (Scheme::Https, _) if is_known => {
            answer.refused(&Denial::HostNotListed, "no service lists the host with this port")
        }
        (Scheme::Http | Scheme::Https, _) => answer.refused(&Denial::HostNotListed, "no service lists the host"),
    }
}

/// Where a nonce is a query parameter, it is taken out before the rest is judged.
fn judged(service: &Service, target: &Target) -> Target {
    let parameter = |slot: &Slot| match slot {
        Slot::Query(name) => target.take_query_parameter(name).ok().flatten(),
        Slot::Bearer | Slot::Token | Slot::Raw | Slot::BasicUser | Slot::BasicPassword | Slot::Header(_) => None,
    };
    let taken = service.slots.iter().find_map(parameter);
    taken.map_or_else(|| target.clone(), |(_, place)| place.rest().clone())
}

/// One service, asked.
struct Case<'a> {
    policy: &'a Policy,
    question: &'a Question,
    service: &'a Service,
    target: Target,
}

impl Case<'_> {
    fn facts(&self) -> RequestFacts<'_> {
        RequestFacts {
            method: &self.question.method,
            websocket: self.question.websocket,
            host: &self.question.destination.host,
            target: &self.target,
        }
    }

    fn decide(&self, answer: Answer) -> Answer {
        if self.question.scheme == Scheme::Http && !self.service.cleartext {
            let why = format!("service {} is not to be used in clear text: use https://", self.service.name);
            return answer.refused(&Denial::CleartextForbidden, why);
        }
        let (held, grantable) = (self.held(), self.grantable());
        if held.is_empty() {
            // A nonce without any grant of the service has no business at its host.
            return answer.refused(&Denial::NonceMisplaced(Misplaced::Host), self.why_nothing());
        }
        // What a nonce has, it has.
        let is_minted = self.question.grants.is_some();
        if let Some(scope) = held.iter().find(|scope| !is_minted && !grantable.contains(scope)) {
            let agent = self.question.agent.as_ref().map_or("", |agent| agent.as_str());
            let why = format!("agent {agent} may not have {}:{scope}: such a nonce is never minted", self.service.name);
            return Answer { code: Some("scope_not_grantable"), why, ..answer };
        }
        match self.policy.decide(&self.service.name, &held, &grantable, &self.facts()) {
            Verdict::Allow { scope, rule, recording, next } => {
                let ways: Vec<_> = std::iter::once(Allowing { scope, rule, recording }).chain(next).collect();
                self.allowed(&ways, answer)
            }
            Verdict::Ambiguous(ambiguity) => answer.ambiguous(ambiguity),
            Verdict::Unmet(unmet) => {
                let denied_by = self.policy.denying(&self.service.name, &held, &self.facts()).map(str::to_owned);
                let because = unmet.because.map_or_else(String::new, |because| format!(" ({because})"));
                let sentence = if denied_by.is_some() {
                    "forbids it unless its condition does not hold"
                } else {
                    "allows it if its condition holds"
                };
                let why =
                    format!("the rule `{}` {sentence}{because}, which is judged with the request alone", unmet.rule);
                Answer { denied_by, ..answer.refused(&Denial::ConditionFailed { because: None }, why) }
            }
            Verdict::Deny { allowed, required_scope } => {
                let denied_by = self.policy.denying(&self.service.name, &held, &self.facts()).map(str::to_owned);
                let denial = Denial::OutOfScope { allowed: Vec::new(), required_scope };
                let why = self.why(denied_by.is_some());
                Answer { denied_by, instead: allowed, ..answer.refused(&denial, why) }
            }
        }
    }

    /// What the level of risk in force, and the uses that are left, make of what the policy allows.
    fn allowed(&self, ways: &[Allowing<'_>], answer: Answer) -> Answer {
        let service = &self.service.name;
        let cap = self.question.cap.unwrap_or(RiskCap::UpTo(Risk::High));
        let is_spent =
            |scope: &Scope| self.question.spent.iter().any(|(of, name)| of == service && *name == scope.name);
        let left: Vec<_> = ways.iter().filter(|way| cap.allows(way.scope.risk) && !is_spent(way.scope)).collect();
        let Some((Allowing { scope, rule, recording: _ }, next)) = left.split_first() else {
            let is_restricted = ways.iter().any(|way| !cap.allows(way.scope.risk));
            let (code, why) = if is_restricted {
                (RISK_RESTRICTED, format!("service {service} allows it, and the level of risk in force does not"))
            } else {
                (NONCE_SPENT, format!("service {service} allows it, and no use is left"))
            };
            return Answer { code: Some(code), why, ..answer };
        };
        Answer {
            allowed: true,
            why: format!("scope {} of service {} allows it", scope.name, self.service.name),
            by: Some(self.way(scope, rule)),
            also: next.iter().map(|other| other.scope.name.to_string()).collect(),
            ..answer
        }
    }

    fn why(&self, is_denied: bool) -> String {
        let service = &self.service.name;
        let is_whole = self.question.scopes.is_empty() && self.question.grants.is_none();
        match (is_denied, is_whole, &self.question.agent) {
            (true, ..) => format!("a deny of service {service} forbids it, whatever allows it"),
            (false, true, Some(agent)) => {
                format!("no scope of service {service} that agent {agent} may have allows it")
            }
            (false, true, None) => format!("no scope of service {service} allows it"),
            (false, false, _) => format!("none of these scopes of service {service} allows it"),
        }
    }

    fn why_nothing(&self) -> String {
        let service = &self.service.name;
        match (self.question.scopes.is_empty(), &self.question.agent) {
            (true, Some(agent)) => format!("agent {agent} may have no scope of service {service}"),
            (true, None) => format!("service {service} has no scopes"),
            (false, _) => format!("service {service} has none of these scopes"),
        }
    }

    /// What the nonce holds of this service.
    fn held(&self) -> Vec<ScopeName> {
        if let Some(grants) = &self.question.grants {
            let own = grants.iter().filter(|grant| grant.service == self.service.name);
            return own.flat_map(|grant| &grant.scopes).cloned().collect();
        }
        if self.question.scopes.is_empty() {
            return self.grantable();
        }
        self.all().filter(|scope| self.question.scopes.contains(scope)).collect()
    }

    /// What it could hold at most.
    fn grantable(&self) -> Vec<ScopeName> {
        match &self.question.agent {
            Some(agent) => self.policy.grantable(agent, &self.service.name).to_vec(),
            None => self.all().collect(),
        }
    }

    fn all(&self) -> impl Iterator<Item = ScopeName> {
        self.service.scopes.iter().map(|scope| scope.name.clone())
    }

    /// Scopes that would allow it by themselves.
    fn would(&self) -> Vec<Way> {
        if self.question.scheme == Scheme::Http && !self.service.cleartext {
            return Vec::new();
        }
        let alone = |name: &ScopeName| match self.policy.decide(
            &self.service.name,
            std::slice::from_ref(name),
            &[],
            &self.facts(),
        ) {
            Verdict::Allow { scope, rule, .. } => Some(self.way(scope, rule)),
            Verdict::Deny { .. } | Verdict::Unmet(_) | Verdict::Ambiguous(_) => None,
        };
        let mut ways: Vec<Way> = self.all().filter_map(|scope| alone(&scope)).collect();
        ways.sort_by_key(|way| way.risk);
        ways
    }

    fn way(&self, scope: &Scope, rule: &str) -> Way {
        let may = |agent: &&AgentRule| self.policy.grantable(&agent.name, &self.service.name).contains(&scope.name);
        Way {
            service: self.service.name.to_string(),
            scope: scope.name.to_string(),
            risk: scope.risk,
            rule: rule.to_owned(),
            credential: scope.credential.to_string(),
            max_uses: scope.max_uses,
            agents: self.policy.agent_rules().iter().filter(may).map(|agent| agent.name.to_string()).collect(),
        }
    }
}

fn words(ambiguity: Ambiguity) -> &'static str {
    match ambiguity {
        Ambiguity::DotSegment => "its path has a `.` or `..` segment",
        Ambiguity::EmptySegment => "its path has an empty segment",
        Ambiguity::EncodedSlash => "its path has an encoded slash or a backslash, and no rule says encoded_slash",
        Ambiguity::PathParameter => "its path has a `;` parameter beside dots",
        Ambiguity::PathBytes => "its path or query has bytes or escapes that are not valid there",
        Ambiguity::DoubleEncoding => "its path is percent-encoded twice",
        Ambiguity::MethodOverride => "a query parameter overrides its method",
        Ambiguity::Query => "a query parameter that a rule looks at is repeated or cannot be decoded",
        Ambiguity::Method => "its method is none that a request may have",
        Ambiguity::TargetForm
        | Ambiguity::Host
        | Ambiguity::Framing
        | Ambiguity::ConnectionOption
        | Ambiguity::RepeatedHeader
        | Ambiguity::Handshake => "it is not in a form that can be judged",
    }
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
