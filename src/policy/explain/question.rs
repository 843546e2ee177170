//! What was typed → one request, and what the nonce holds that it comes with.

use jiff::Timestamp;

use super::{Answer, Supposed, is_unread};
use crate::model::{AgentName, Destination, Grant, RiskCap, Scheme, ScopeName, ServiceName};
use crate::policy::{Policy, RISK_NORMAL, Target};

/// What was typed.
#[derive(Debug)]
pub struct Asked<'a> {
    /// `GET`, `POST`, …; `WEBSOCKET` for an upgrade.
    pub method: &'a str,
    /// `https://HOST[:PORT]/PATH[?QUERY]`
    pub url: &'a str,
    /// For a nonce of this agent.
    pub agent: Option<&'a str>,
    /// For a nonce of this service.
    pub service: Option<&'a str>,
    /// For a nonce that holds this.
    pub holds: Holds<'a>,
    /// When it is made: a service is observed until a moment.
    pub now: Timestamp,
    /// What conditions look at; else they are not judged.
    pub supposed: Option<&'a Supposed>,
}

/// What the nonce was said to hold.
#[derive(Debug, Clone, Copy)]
pub enum Holds<'a> {
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
pub struct Question {
    /// The method, exact.
    pub method: String,
    /// True for an upgrade to WebSocket.
    pub websocket: bool,
    /// Over TLS or in clear text.
    pub scheme: Scheme,
    /// Where it goes.
    pub destination: Destination,
    /// Path and query.
    pub target: Target,
    /// Whose nonce; nobody's in particular where it was not said.
    pub agent: Option<AgentName>,
    /// The service that the nonce is for; all where it was not said.
    pub service: Option<ServiceName>,
    /// What the nonce holds.
    pub holding: Holding,
    /// When it is made.
    pub now: Timestamp,
    /// No use of the nonce is left, whatever its scopes have.
    pub is_spent: bool,
    /// The most that a level of risk allows.
    pub cap: Option<RiskCap>,
    /// What conditions look at, where it is about no nonce that there is; else they are not judged.
    pub supposed: Option<Box<Supposed>>,
}

impl Question {
    /// The same request, whoever makes it. What no sidecar would hear of is a sentence; a target that it would refuse is
    /// an answer.
    ///
    /// # Errors
    /// What is wrong with the URL, without a word of it.
    pub fn of(policy: &Policy, method: &str, url: &str, now: Timestamp) -> Result<Result<Self, Answer>, String> {
        Ok(parse(url)?.question(policy, method, now))
    }
}

/// What the nonce holds.
#[derive(Debug, Clone)]
pub enum Holding {
    /// There is no nonce.
    Nothing,
    /// All that the agent may have; without an agent every scope.
    Everything,
    /// These scopes, of whatever service has them.
    Scopes(Vec<ScopeName>),
    /// These and no others.
    Grants(Vec<Grant>),
    /// What a nonce that there is holds, whatever could be minted now.
    Minted(Vec<Grant>),
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
///
/// # Errors
/// What is wrong with the URL, or which name the policy does not have.
pub fn read(policy: &Policy, asked: &Asked<'_>) -> Result<Result<Question, Answer>, String> {
    let url = parse(asked.url)?;
    let (agent, service) = (agent(policy, asked.agent)?, service(policy, asked.service)?);
    let holding = match asked.holds {
        Holds::Nothing => Holding::Nothing,
        Holds::Unsaid => Holding::Everything,
        Holds::Scopes(names) => Holding::Scopes(scopes(policy, &url.destination, service.as_ref(), names)?),
        Holds::Grants(named) => {
            Holding::Grants(named.iter().map(|named| grant(policy, named)).collect::<Result<_, _>>()?)
        }
    };
    let (supposed, cap) = match asked.supposed {
        Some(supposed) => (Some(Box::new(supposed.clone())), cap(policy, supposed.risk.as_deref())?),
        None => (None, None),
    };
    let question = url.question(policy, asked.method, asked.now);
    Ok(question.map(|question| Question { agent, service, holding, supposed, cap, ..question }))
}

impl Url<'_> {
    #[expect(clippy::result_large_err, reason = "the error is the answer, and there is one to a question")]
    fn question(self, policy: &Policy, method: &str, now: Timestamp) -> Result<Question, Answer> {
        let websocket = self.websocket || method == "WEBSOCKET";
        let method = if websocket && method == "WEBSOCKET" { "GET" } else { method }.to_owned();
        let (scheme, destination) = (self.scheme, self.destination);
        match Target::parse(&self.target) {
            Ok(target) => Ok(Question {
                method,
                websocket,
                scheme,
                destination,
                target,
                agent: None,
                service: None,
                holding: Holding::Everything,
                now,
                is_spent: false,
                cap: None,
                supposed: None,
            }),
            Err(ambiguity) => {
                let answer = Answer::of(&method, scheme, &destination, self.path);
                let is_unread = is_unread(policy, scheme, &destination);
                Err(if is_unread { answer.unread() } else { answer.ambiguous(ambiguity) })
            }
        }
    }
}

fn parse(text: &str) -> Result<Url<'_>, String> {
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

/// The most that a level of risk allows.
fn cap(policy: &Policy, name: Option<&str>) -> Result<Option<RiskCap>, String> {
    let Some(name) = name.filter(|name| *name != RISK_NORMAL) else { return Ok(None) };
    let levels = policy.risk_levels();
    let known = levels.iter().find(|level| level.name.as_str() == name);
    let names = || std::iter::once(RISK_NORMAL).chain(levels.iter().map(|level| level.name.as_str()));
    known.map(|level| Some(level.cap)).ok_or_else(|| unknown("level of risk", name, names()))
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
    format!("there is no {what} {} here; there are: {known}", name.escape_debug())
}
