//! The same questions in the same order as the sidecar asks them, answered from the policy alone.

use std::sync::Arc;

use serde::Serialize;

use super::question::{Holding, Question};
use crate::model::denial::{Misplaced, Missing};
use crate::model::{Ambiguity, Denial, Destination, Risk, Scheme, ScopeName};
use crate::policy::{Policy, RequestFacts, Scope, Service, Slot, Target, Unlisted, Verdict};

/// What would happen, and why; also the JSON form.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Answer {
    pub(super) method: String,
    pub(super) scheme: &'static str,
    pub(super) destination: String,
    /// Without the query.
    pub(super) path: String,
    pub(super) allowed: bool,
    /// The code of the refusal.
    pub(super) code: Option<&'static str>,
    /// A sentence.
    pub(super) why: String,
    /// By what it is allowed.
    pub(super) by: Option<Way>,
    /// What else allows it, in the order in which it is tried once the uses of the first are gone.
    pub(super) also: Vec<String>,
    /// The deny that stands against it.
    pub(super) denied_by: Option<String>,
    /// The scope that the refusal names to the agent: it would allow the request, and the agent may have it.
    pub(super) required: Option<String>,
    /// Scopes that would allow it.
    pub(super) would: Vec<Way>,
    /// What the nonce allows instead.
    pub(super) instead: Vec<String>,
}

/// A scope and its rule that allow a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Way {
    pub(super) service: String,
    pub(super) scope: String,
    pub(super) risk: Risk,
    pub(super) rule: String,
    pub(super) credential: String,
    pub(super) max_uses: Option<u32>,
    /// Who may have it.
    pub(super) agents: Vec<String>,
}

impl Answer {
    /// The request, without a verdict.
    pub(super) fn of(method: &str, scheme: Scheme, destination: &Destination, path: &str) -> Self {
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
            required: None,
            would: Vec::new(),
            instead: Vec::new(),
        }
    }

    /// Refused, since two parties could read it differently.
    pub(super) fn ambiguous(self, ambiguity: Ambiguity) -> Self {
        self.refused(&Denial::RequestAmbiguous(ambiguity), words(ambiguity))
    }

    /// Relayed, whatever it is.
    pub(super) fn unread(self) -> Self {
        let why = "no service lists the host: it is relayed unread, without a credential (egress.unlisted)";
        Self { allowed: true, why: why.to_owned(), ..self }
    }

    fn refused(self, denial: &Denial, why: impl Into<String>) -> Self {
        Self { code: Some(denial.code()), why: why.into(), ..self }
    }
}

/// The code of [`Denial::OutOfScope`].
const OUT_OF_SCOPE: &str = "out_of_scope";

/// The code of what no mint gives, so that no sidecar ever has to decide it.
const NOT_GRANTABLE: &str = "scope_not_grantable";

/// Every code that an answer can have.
pub(super) const CODES: [&str; 7] = [
    "cleartext_forbidden",
    "host_not_listed",
    "nonce_misplaced",
    "nonce_missing",
    OUT_OF_SCOPE,
    "request_ambiguous",
    NOT_GRANTABLE,
];

/// Answers it.
pub(super) fn explain(policy: &Policy, question: &Question) -> Answer {
    let answer = Answer::of(&question.method, question.scheme, &question.destination, question.target.path());
    let here = policy.services_at(&question.destination);
    if here.is_empty() {
        return unlisted(policy, question, answer);
    }
    let asked = |service: &&Arc<Service>| question.service.as_ref().is_none_or(|name| service.name == *name);
    let cases: Vec<Case<'_>> = here.iter().filter(asked).map(|service| Case::new(policy, question, service)).collect();
    if cases.is_empty() {
        let names: Vec<&str> = here.iter().map(|service| service.name.as_str()).collect();
        let why = format!("the host is listed by {} and not by that service", names.join(", "));
        return answer.refused(&Denial::NonceMisplaced(Misplaced::Host), why);
    }
    if matches!(question.holding, Holding::Nothing) {
        return without_nonce(&cases, question, answer);
    }
    let given = among(&cases, answer);
    if given.allowed {
        return given;
    }
    Answer { would: cases.iter().flat_map(Case::would).collect(), ..given }
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
pub(super) fn is_unread(policy: &Policy, scheme: Scheme, destination: &Destination) -> bool {
    let is_tunnelled = scheme == Scheme::Https && policy.unlisted() == Unlisted::Tunnel;
    is_tunnelled && destination.port == scheme.default_port() && !policy.lists_host(&destination.host)
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
    /// What the nonce holds of this service.
    held: Vec<ScopeName>,
    /// What it could hold at most.
    grantable: Vec<ScopeName>,
}

impl<'a> Case<'a> {
    fn new(policy: &'a Policy, question: &'a Question, service: &'a Service) -> Self {
        let all = || service.scopes.iter().map(|scope| scope.name.clone());
        let grantable = match &question.agent {
            Some(agent) => policy.grantable(agent, &service.name).to_vec(),
            None => all().collect(),
        };
        let held = match &question.holding {
            Holding::Nothing => Vec::new(),
            Holding::Everything => grantable.clone(),
            Holding::Scopes(scopes) => all().filter(|scope| scopes.contains(scope)).collect(),
            Holding::Grants(grants) => {
                let own = |scope: &ScopeName| {
                    grants.iter().any(|grant| grant.service == service.name && grant.scopes.contains(scope))
                };
                all().filter(own).collect()
            }
        };
        Self { policy, question, service, target: judged(service, &question.target), held, grantable }
    }

    fn facts(&self) -> RequestFacts<'_> {
        RequestFacts {
            method: &self.question.method,
            websocket: self.question.websocket,
            host: &self.question.destination.host,
            target: &self.target,
        }
    }

    fn is_cleartext_forbidden(&self) -> bool {
        self.question.scheme == Scheme::Http && !self.service.cleartext
    }

    fn cleartext_forbidden(&self, answer: Answer) -> Answer {
        let why = format!("service {} is not to be used in clear text: use https://", self.service.name);
        answer.refused(&Denial::CleartextForbidden, why)
    }

    fn decide(&self, answer: Answer) -> Answer {
        if self.is_cleartext_forbidden() {
            return self.cleartext_forbidden(answer);
        }
        if let Some(scope) = self.held.iter().find(|scope| !self.grantable.contains(scope)) {
            let agent = self.question.agent.as_ref().map_or("", |agent| agent.as_str());
            let why = format!("agent {agent} may not have {}:{scope}: such a nonce is never minted", self.service.name);
            return Answer { code: Some(NOT_GRANTABLE), why, ..answer };
        }
        match self.policy.decide(&self.service.name, &self.held, &self.grantable, &self.facts()) {
            Verdict::Allow { scope, rule, next } => Answer {
                allowed: true,
                why: format!("scope {} of service {} allows it", scope.name, self.service.name),
                by: Some(self.way(scope, rule)),
                also: next.iter().map(|other| other.scope.name.to_string()).collect(),
                ..answer
            },
            Verdict::Ambiguous(ambiguity) => answer.ambiguous(ambiguity),
            Verdict::Deny { allowed, required_scope } => {
                let denied_by = self.policy.denying(&self.service.name, &self.held, &self.facts()).map(str::to_owned);
                let required = required_scope.as_ref().map(ToString::to_string);
                let denial = Denial::OutOfScope { allowed: Vec::new(), required_scope };
                let why = self.why(denied_by.is_some());
                Answer { denied_by, required, instead: allowed, ..answer.refused(&denial, why) }
            }
        }
    }

    fn why(&self, is_denied: bool) -> String {
        let service = &self.service.name;
        match (is_denied, self.is_all(), &self.question.agent) {
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
        match (self.is_all(), &self.question.agent) {
            (true, Some(agent)) => format!("agent {agent} may have no scope of service {service}"),
            (true, None) => format!("service {service} has no scopes"),
            (false, _) => format!("service {service} has none of these scopes"),
        }
    }

    /// Nothing was said of what the nonce holds.
    fn is_all(&self) -> bool {
        matches!(self.question.holding, Holding::Everything)
    }

    /// Scopes that would allow it by themselves.
    fn would(&self) -> Vec<Way> {
        if self.is_cleartext_forbidden() {
            return Vec::new();
        }
        let alone = |name: &ScopeName| match self.policy.decide(
            &self.service.name,
            std::slice::from_ref(name),
            &[],
            &self.facts(),
        ) {
            Verdict::Allow { scope, rule, .. } => Some(self.way(scope, rule)),
            Verdict::Deny { .. } | Verdict::Ambiguous(_) => None,
        };
        let mut ways: Vec<Way> = self.service.scopes.iter().filter_map(|scope| alone(&scope.name)).collect();
        ways.sort_by_key(|way| way.risk);
        ways
    }

    fn way(&self, scope: &Scope, rule: &str) -> Way {
        let may = |agent: &&crate::policy::AgentRule| {
            self.policy.grantable(&agent.name, &self.service.name).contains(&scope.name)
        };
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
mod tests;
