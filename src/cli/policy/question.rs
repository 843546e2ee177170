//! What was typed → one request, and what the nonce holds that it comes with.

use super::explain::{Answer, is_unread};
use crate::cli::print;
use crate::model::{AgentName, Destination, Grant, Scheme, ScopeName, ServiceName};
use crate::policy::{Policy, Target};

/// What was typed.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) method: &'a str,
    pub(super) url: &'a str,
    pub(super) agent: Option<&'a str>,
    pub(super) service: Option<&'a str>,
    pub(super) holds: Holds<'a>,
}

/// What the nonce was said to hold.
#[derive(Debug, Clone, Copy)]
pub(super) enum Holds<'a> {
    /// There is no nonce.
    Nothing,
    /// Nothing was said.
    Unsaid,
    /// Scopes, of whatever service has them.
    Scopes(&'a [String]),
    /// Services, each with scopes.
    Grants(&'a [(String, Vec<String>)]),
}

/// What it means.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) method: String,
    pub(super) websocket: bool,
    pub(super) scheme: Scheme,
    pub(super) destination: Destination,
    pub(super) target: Target,
    pub(super) agent: Option<AgentName>,
    pub(super) service: Option<ServiceName>,
    pub(super) holding: Holding,
}

/// What the nonce holds.
#[derive(Debug)]
pub(super) enum Holding {
    /// There is no nonce.
    Nothing,
    /// All that the agent may have; without an agent every scope.
    Everything,
    /// These scopes, of whatever service has them.
    Scopes(Vec<ScopeName>),
    /// These and no others.
    Grants(Vec<Grant>),
}

/// A URL in its parts; the target is not judged yet.
struct Url<'a> {
    scheme: Scheme,
    websocket: bool,
    destination: Destination,
    target: String,
    /// For the answer, where the target cannot be read.
    path: &'a str,
}

/// Reads it. What no sidecar would hear of is a sentence; a target that it would refuse is an answer.
pub(super) fn read(policy: &Policy, asked: &Asked<'_>) -> Result<Result<Question, Answer>, String> {
    let url = url(asked.url)?;
    let (agent, service) = (agent(policy, asked.agent)?, service(policy, asked.service)?);
    let holding = match asked.holds {
        Holds::Nothing => Holding::Nothing,
        Holds::Unsaid => Holding::Everything,
        Holds::Scopes(names) => Holding::Scopes(scopes(policy, &url.destination, service.as_ref(), names)?),
        Holds::Grants(named) => {
            Holding::Grants(named.iter().map(|named| grant(policy, named)).collect::<Result<_, _>>()?)
        }
    };
    let websocket = url.websocket || asked.method == "WEBSOCKET";
    let method = if websocket && asked.method == "WEBSOCKET" { "GET" } else { asked.method }.to_owned();
    let (scheme, destination) = (url.scheme, url.destination);
    Ok(match Target::parse(&url.target) {
        Ok(target) => Ok(Question { method, websocket, scheme, destination, target, agent, service, holding }),
        Err(ambiguity) => {
            let answer = Answer::of(&method, scheme, &destination, url.path);
            let is_unread = is_unread(policy, scheme, &destination);
            Err(if is_unread { answer.unread() } else { answer.ambiguous(ambiguity) })
        }
    })
}

fn url(text: &str) -> Result<Url<'_>, String> {
    let (scheme, rest) = text.split_once("://").ok_or_else(|| expected("a URL with its scheme"))?;
    let (scheme, websocket) = match scheme.to_ascii_lowercase().as_str() {
        "https" => (Scheme::Https, false),
        "http" => (Scheme::Http, false),
        "wss" => (Scheme::Https, true),
        "ws" => (Scheme::Http, true),
        _ => return Err(expected("the scheme https, http, wss or ws")),
    };
    // A fragment never leaves the client.
    let rest = rest.split('#').next().unwrap_or(rest);
    let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err("the URL has a user or password in it; leave them out".to_owned());
    }
    let destination = Destination::parse(authority, Some(scheme.default_port()))
        .map_err(|error| format!("the URL has no host that can be read: {error}"))?;
    let path = target.split('?').next().unwrap_or(target);
    // RFC 9112, 3.2.1: an empty path is sent as `/`.
    let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
    Ok(Url { scheme, websocket, destination, target, path })
}

fn expected(what: &str) -> String {
    format!("expected {what}, such as https://api.stripe.com/v1/customers")
}

fn agent(policy: &Policy, name: Option<&str>) -> Result<Option<AgentName>, String> {
    let Some(name) = name else { return Ok(None) };
    let known = policy.agent_rules().iter().find(|agent| agent.name.as_str() == name);
    known
        .map(|agent| Some(agent.name.clone()))
        .ok_or_else(|| unknown("agent", name, policy.agent_rules().iter().map(|agent| agent.name.as_str())))
}

fn service(policy: &Policy, name: Option<&str>) -> Result<Option<ServiceName>, String> {
    let Some(name) = name else { return Ok(None) };
    let known = policy.services().iter().find(|service| service.name.as_str() == name);
    known
        .map(|service| Some(service.name.clone()))
        .ok_or_else(|| unknown("service", name, policy.services().iter().map(|service| service.name.as_str())))
}

/// Each must be a scope of a service that is asked about; where no service lists the host, none can be checked.
fn scopes(
    policy: &Policy,
    destination: &Destination,
    service: Option<&ServiceName>,
    names: &[String],
) -> Result<Vec<ScopeName>, String> {
    let services: Vec<_> = match service {
        Some(name) => policy.service(name).into_iter().collect(),
        None => policy.services_at(destination).iter().collect(),
    };
    let known = || services.iter().flat_map(|service| &service.scopes).map(|scope| &scope.name);
    let read = |name: &String| match known().find(|scope| scope.as_str() == name) {
        Some(scope) => Ok(Some(scope.clone())),
        None if services.is_empty() => Ok(None),
        None => Err(unknown("scope", name, known().map(ScopeName::as_str))),
    };
    names.iter().filter_map(|name| read(name).transpose()).collect()
}

fn grant(policy: &Policy, (name, scopes): &(String, Vec<String>)) -> Result<Grant, String> {
    let known = policy
        .services()
        .iter()
        .find(|service| service.name.as_str() == name)
        .ok_or_else(|| unknown("service", name, policy.services().iter().map(|service| service.name.as_str())))?;
    let scope = |name: &String| {
        let found = known.scopes.iter().find(|scope| scope.name.as_str() == name).map(|scope| scope.name.clone());
        found.ok_or_else(|| unknown("scope", name, known.scopes.iter().map(|scope| scope.name.as_str())))
    };
    Ok(Grant { service: known.name.clone(), scopes: scopes.iter().map(scope).collect::<Result<_, _>>()? })
}

fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<_> = known.collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    format!("there is no {what} {} here; there are: {known}", print::visible(name))
}
