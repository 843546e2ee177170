//! One service, asked as the sidecar asks it.

use super::answer::{Answer, Way};
use super::line::Line;
use super::question::{Holding, Question};
use super::{NONCE_SPENT, NOT_GRANTABLE, RISK_RESTRICTED};
use crate::model::{Denial, Grant, Risk, RiskCap, Scheme, ScopeName, ServiceName};
use crate::policy::{AgentRule, Allowing, Policy, RequestFacts, Scope, Service, Slot, Target, Unmet, Verdict};

/// One service, asked.
pub(super) struct Case<'a> {
    policy: &'a Policy,
    question: &'a Question,
    /// The nonce that there is, if it is about one.
    line: Line<'a>,
    pub(super) service: &'a Service,
    target: Target,
    /// What the nonce holds of this service.
    pub(super) held: Vec<ScopeName>,
    /// What it could hold at most.
    grantable: Vec<ScopeName>,
}

impl<'a> Case<'a> {
    pub(super) fn new(policy: &'a Policy, question: &'a Question, service: &'a Service, line: Line<'a>) -> Self {
        let all = || service.scopes.iter().map(|scope| scope.name.clone());
        let grantable = match &question.agent {
            Some(agent) => policy.grantable(agent, &service.name).to_vec(),
            None => all().collect(),
        };
        let held = match &question.holding {
            Holding::Nothing => Vec::new(),
            Holding::Everything => grantable.clone(),
            Holding::Scopes(scopes) => all().filter(|scope| scopes.contains(scope)).collect(),
            Holding::Grants(grants) => all().filter(|scope| is_in(grants, &service.name, scope)).collect(),
            Holding::Minted(grants) => {
                let still = |scope: &ScopeName| {
                    question.agent.as_ref().is_none_or(|agent| policy.still_grants(agent, &service.name, scope))
                };
                all().filter(|scope| is_in(grants, &service.name, scope) && still(scope)).collect()
            }
        };
        Self { policy, question, line, service, target: judged(service, &question.target), held, grantable }
    }

    fn facts(&self) -> RequestFacts<'_> {
        RequestFacts {
            method: &self.question.method,
            websocket: self.question.websocket,
            host: &self.question.destination.host,
            target: &self.target,
        }
    }

    pub(super) fn is_cleartext_forbidden(&self) -> bool {
        self.question.scheme == Scheme::Http && !self.service.cleartext
    }

    pub(super) fn cleartext_forbidden(&self, answer: Answer) -> Answer {
        let why = format!("service {} is not to be used in clear text: use https://", self.service.name);
        answer.refused(&Denial::CleartextForbidden, why)
    }

    pub(super) fn decide(&self, answer: Answer) -> Answer {
        if self.is_cleartext_forbidden() {
            return self.cleartext_forbidden(answer);
        }
        // What a nonce has, it has.
        let is_minted = matches!(self.question.holding, Holding::Minted(_));
        if let Some(scope) = self.held.iter().find(|scope| !is_minted && !self.grantable.contains(scope)) {
            let agent = self.question.agent.as_ref().map_or("", |agent| agent.as_str());
            let why = format!("agent {agent} may not have {}:{scope}: such a nonce is never minted", self.service.name);
            return Answer { code: Some(NOT_GRANTABLE), why, ..answer };
        }
        if let Some(instead) = self.line.unlisted(&self.facts()) {
            let denial = Denial::OutOfScope { allowed: Vec::new(), required_scope: None };
            let why = "the rules that it, or a nonce above it, was delegated with do not have it";
            return Answer { instead, ..answer.refused(&denial, why) };
        }
        match self.verdict() {
            Verdict::Allow { scope, rule, recording, next } => {
                let ways: Vec<_> = std::iter::once(Allowing { scope, rule, recording }).chain(next).collect();
                self.allowed(&ways, answer)
            }
            Verdict::Ambiguous(ambiguity) => answer.ambiguous(ambiguity),
            Verdict::Unmet(unmet) => self.unmet(&unmet, answer),
            Verdict::Deny { allowed, required_scope } => {
                let required = required_scope.as_ref().map(ToString::to_string);
                let denial = Denial::OutOfScope { allowed: Vec::new(), required_scope };
                let answer = Answer { required, instead: allowed, ..answer };
                let observed = self.policy.observed(&self.service.name, &self.held, &self.facts(), self.question.now);
                let is_denied = self.line.is_denied_above(self.policy, &self.service.name, &self.facts());
                if let Some(scope) = observed.filter(|_| !is_denied) {
                    return self.observed(scope, &denial, answer);
                }
                let denied_by = self.policy.denying(&self.service.name, &self.held, &self.facts()).map(str::to_owned);
                let why = self.why(denied_by.is_some());
                Answer { denied_by, ..answer.refused(&denial, why) }
            }
        }
    }

    fn verdict(&self) -> Verdict<'a> {
        let service = &self.service.name;
        let of_line = self.line.decide(self.policy, service, &self.grantable, &self.facts());
        of_line.unwrap_or_else(|| match self.question.supposed.as_deref() {
            None => self.policy.decide(service, &self.held, &self.grantable, &self.facts()),
            Some(supposed) => {
                let given =
                    || supposed.circumstances(self.question.agent.as_ref(), self.data(), self.question.now.as_second());
                self.policy.decide_given(service, &self.held, &self.grantable, &self.facts(), Some(&given))
            }
        })
    }

    /// The data labels of all scopes that the nonce holds, as far as it was said that it holds some elsewhere.
    fn data(&self) -> Vec<&str> {
        let label =
            |service: &ServiceName, scope: &ScopeName| self.policy.service(service)?.scope(scope)?.data.as_deref();
        let elsewhere = match &self.question.holding {
            Holding::Grants(grants) | Holding::Minted(grants) => grants.as_slice(),
            Holding::Nothing | Holding::Everything | Holding::Scopes(_) => &[],
        };
        let elsewhere = elsewhere.iter().filter(|grant| grant.service != self.service.name);
        let elsewhere =
            elsewhere.flat_map(|grant| grant.scopes.iter().filter_map(|scope| label(&grant.service, scope)));
        self.held.iter().filter_map(|scope| label(&self.service.name, scope)).chain(elsewhere).collect()
    }

    /// No rule allows it, and the service's path rules are not enforced yet.
    fn observed(&self, scope: &Scope, denial: &Denial, answer: Answer) -> Answer {
        let given = self.allowed(&[Allowing { scope, rule: "", recording: None }], answer);
        if !given.allowed {
            return given;
        }
        let why = format!(
            "{}; service {} is observed, so it goes on with scope {} and is on record",
            self.why(false),
            self.service.name,
            scope.name
        );
        Answer { observed: Some(denial.code()), why, ..given }
    }

    /// A rule speaks of the request, and what its condition looks at is not there to be looked at.
    fn unmet(&self, unmet: &Unmet<'_>, answer: Answer) -> Answer {
        let denied_by = self.policy.denying(&self.service.name, &self.held, &self.facts()).map(str::to_owned);
        let because = unmet.because.map_or_else(String::new, |because| format!(" ({because})"));
        if !self.line.0.is_empty() || self.question.supposed.is_some() {
            let why = format!("the condition of the rule `{}` stands against it{because}", unmet.rule);
            return Answer { denied_by, ..answer.refused(&Denial::ConditionFailed { because: None }, why) };
        }
        let sentence = if denied_by.is_some() {
            "forbids it unless its condition does not hold"
        } else {
            "allows it if its condition holds"
        };
        let why = format!("the rule `{}` {sentence}{because}, which is judged with the request alone", unmet.rule);
        Answer { denied_by, ..answer.refused(&Denial::ConditionFailed { because: None }, why) }
    }

    /// What the level of risk in force, and the uses that are left, make of what the policy allows.
    fn allowed(&self, ways: &[Allowing<'_>], answer: Answer) -> Answer {
        let service = &self.service.name;
        let cap = self.question.cap.unwrap_or(RiskCap::UpTo(Risk::High));
        let is_allowed = |scope: &Scope| cap.allows(scope.risk) && self.line.allows_risk(scope);
        let is_spent = |scope: &Scope| self.question.is_spent || self.line.is_spent(service, scope);
        let left: Vec<_> = ways.iter().filter(|way| is_allowed(way.scope) && !is_spent(way.scope)).collect();
        let Some((Allowing { scope, rule, recording: _ }, next)) = left.split_first() else {
            let is_restricted = ways.iter().any(|way| !is_allowed(way.scope));
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
        match (is_denied, self.is_all(), &self.question.agent) {
            (true, ..) => format!("a deny of service {service} forbids it, whatever allows it"),
            (false, true, Some(agent)) => {
                format!("no scope of service {service} that agent {agent} may have allows it")
            }
            (false, true, None) => format!("no scope of service {service} allows it"),
            (false, false, _) => format!("none of these scopes of service {service} allows it"),
        }
    }

    pub(super) fn why_nothing(&self) -> String {
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
    pub(super) fn would(&self) -> Vec<Way> {
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
            Verdict::Deny { .. } | Verdict::Ambiguous(_) | Verdict::Unmet(_) => None,
        };
        let mut ways: Vec<Way> = self.service.scopes.iter().filter_map(|scope| alone(&scope.name)).collect();
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

fn is_in(grants: &[Grant], service: &ServiceName, scope: &ScopeName) -> bool {
    grants.iter().any(|grant| grant.service == *service && grant.scopes.contains(scope))
}

/// Where a nonce is a query parameter, it is taken out before the rest is judged.
fn judged(service: &Service, target: &Target) -> Target {
    let parameter = |slot: &Slot| match slot {
        Slot::Query(name) => target.take_query_parameter(name).ok().flatten(),
        Slot::Bearer
        | Slot::Token
        | Slot::Raw
        | Slot::BasicUser
        | Slot::BasicPassword
        | Slot::Header(_)
        | Slot::AwsSigV4 => None,
    };
    let taken = service.slots.iter().find_map(parameter);
    taken.map_or_else(|| target.clone(), |(_, place)| place.rest().clone())
}
