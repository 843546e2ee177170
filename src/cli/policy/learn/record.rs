//! What a record of the audit says of one request. The audit is read as something that anybody may have written.

use serde::Serialize;
use serde_json::Value;

use crate::model::{AgentName, Destination, Host, Risk, ServiceName};
use crate::policy::Target;

/// Which records are wanted.
pub(super) struct Wanted<'a> {
    pub(super) agent: Option<&'a str>,
    pub(super) service: Option<&'a str>,
    pub(super) allowed: bool,
    pub(super) observed: bool,
    pub(super) refused: bool,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A scope allowed it.
    Allowed,
    /// No scope did, and it went on, since its service is only observed.
    Observed,
    /// It was refused as out of scope.
    Refused,
}

/// One request, as it was decided.
pub(super) struct Request {
    pub(super) agent: AgentName,
    pub(super) service: ServiceName,
    pub(super) method: String,
    pub(super) host: Host,
    pub(super) target: Target,
    pub(super) outcome: Outcome,
    /// Of the scope that allowed it.
    pub(super) risk: Option<Risk>,
}

/// Why a request that was asked for is not learned from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unusable {
    /// Its path was cut or masked, or no rule could allow it.
    Path,
    /// Its names are none.
    Names,
    /// No rule can say it.
    Rule,
}

/// How many requests were left out, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(super) struct LeftOut {
    /// The path was cut or masked in the audit, or is one that is always refused.
    pub(super) path: u64,
    /// Agent, service or destination cannot be read.
    pub(super) names: u64,
    /// No rule can be written for them: a method in lower case, too long a path.
    pub(super) rule: u64,
}

impl LeftOut {
    pub(super) fn count(&mut self, why: Unusable) {
        self.add(why, 1);
    }

    pub(super) fn add(&mut self, why: Unusable, requests: u64) {
        match why {
            Unusable::Path => self.path += requests,
            Unusable::Names => self.names += requests,
            Unusable::Rule => self.rule += requests,
        }
    }
}

/// The request of a record; `None` for a record that tells of none, or of one that is not wanted.
pub(super) fn read(record: &Value, wanted: &Wanted<'_>) -> Result<Option<Request>, Unusable> {
    let text = |key: &str| record.get(key).and_then(Value::as_str);
    // An `end` has a path only where its decision has no record of its own.
    let (Some(path), Some(method)) = (text("path"), text("method")) else { return Ok(None) };
    let (outcome, is_wanted) = match (text("decision"), text("code"), text("observed")) {
        (Some("allow"), _, None) => (Outcome::Allowed, wanted.allowed),
        (Some("allow"), _, Some(_)) => (Outcome::Observed, wanted.observed),
        (Some("deny"), Some("out_of_scope"), _) => (Outcome::Refused, wanted.refused),
        _ => return Ok(None),
    };
    if !is_wanted {
        return Ok(None);
    }
    // Without a nonce there is no agent, and with none of a service's there is nothing to widen.
    let (Some(agent), Some(service)) = (text("agent"), text("service")) else { return Ok(None) };
    if wanted.agent.is_some_and(|name| name != agent) || wanted.service.is_some_and(|name| name != service) {
        return Ok(None);
    }
    let names = (AgentName::parse(agent), ServiceName::parse(service), text("destination").map(host));
    let (Ok(agent), Ok(service), Some(Some(host))) = names else { return Err(Unusable::Names) };
    let target = Target::parse(path).ok().filter(|target| target.query().is_none()).ok_or(Unusable::Path)?;
    // The scope under which an observed request went on did not allow it.
    let risk = text("risk")
        .filter(|_| outcome != Outcome::Observed)
        .and_then(|word| [Risk::Low, Risk::Medium, Risk::High].into_iter().find(|risk| risk.as_str() == word));
    Ok(Some(Request { agent, service, method: method.to_owned(), host, target, outcome, risk }))
}

fn host(destination: &str) -> Option<Host> {
    Destination::parse(destination, Some(443)).ok().map(|destination| destination.host)
}
