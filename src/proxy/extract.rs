//! Parse; lift the nonce out. After this the request holds no credential of any kind.

pub(super) mod body;
mod fields;
mod lift;
mod own;
mod proxied;
mod signed;
mod strays;
mod trailers;

use std::sync::Arc;

use http::{HeaderMap, Method, Request, Version, header, request};
use http_body::Body as _;

use super::Limits;
use super::connect::{Form, Session};
use super::flow::{Inbound, Seen};
use super::websocket::Handshake;
use crate::model::denial::TooLarge;
use crate::model::{Ambiguity, Denial, Destination};
use crate::policy::{Policy, Service, Target};

pub use fields::is_framing_clear;
pub use lift::{Basic, Lifted};
pub use own::{OwnCall, extract_own};
pub use proxied::{proxy_nonce, proxy_token};
pub use strays::{Stray, find_in_fields};
pub use trailers::check_trailers;

/// A request with its nonce lifted out.
#[derive(Debug)]
pub struct Presented {
    /// Method, version and extensions as they came; headers filtered, the slot's header still in its place, empty.
    pub head: request::Parts,
    /// The body; not yet read, but for what was held of it.
    pub body: Inbound,
    /// What was read of the body, where a rule looks at it.
    pub seen: Option<Box<Seen>>,
    /// Path and query, canonical, without the slot's parameter.
    pub target: Target,
    /// The nonce and where it was; `None` if no slot was filled.
    pub lifted: Option<Lifted>,
    /// Texts with the shape of a nonce in other places.
    pub strays: Vec<Stray>,
    /// The services that list the destination.
    pub services: Arc<[Arc<Service>]>,
    /// What it asks if it wants to switch to WebSocket.
    pub websocket: Option<Handshake>,
}

impl Presented {
    /// The same request, if it has no body and wants no switch of protocols.
    pub fn without_body(&self) -> Option<Self> {
        (self.body.is_end_stream() && self.websocket.is_none()).then(|| Self {
            head: self.head.clone(),
            body: Inbound::none(),
            seen: self.seen.clone(),
            target: self.target.clone(),
            lifted: self.lifted.clone(),
            strays: self.strays.clone(),
            services: self.services.clone(),
            websocket: None,
        })
    }
}

/// Takes a request apart, strictly; nothing is repaired.
///
/// # Errors
/// [`Denial`]: everything that two parties could read differently, everything too large, every credential that is not ours.
pub fn extract(
    session: &Session,
    policy: &Policy,
    limits: &Limits,
    request: Request<Inbound>,
) -> Result<Presented, Denial> {
    let (mut head, body) = request.into_parts();
    check_count(limits, &head)?;
    let websocket = Handshake::take(session, &mut head)?;
    if websocket.is_none() {
        check_method(&head.method)?;
    }
    let whole = judge(session, limits, &head)?;
    let services = policy.services_at(&session.destination).clone();
    let came = signed::Came::of(&head, services.iter().map(|service| &**service));
    head.headers = fields::strip(std::mem::take(&mut head.headers), session.authority.host(session))?;
    if services.is_empty() {
        let strays = strays::find(&head.headers, &whole, None);
        return Ok(Presented { head, body, seen: None, target: whole, lifted: None, strays, services, websocket });
    }
    let (lifted, target) = lift::lift(&mut head.headers, whole, &lift::Slots::of(&services), came.as_ref())?;
    fields::refuse_foreign(&head.headers, &target, lifted.as_ref())?;
    let strays = strays::find(&head.headers, &target, lifted.as_ref());
    Ok(Presented { head, body, seen: None, target, lifted, strays, services, websocket })
}

/// The HTTP/1 parser has counted already; over HTTP/2 only bytes are.
fn check_count(limits: &Limits, head: &request::Parts) -> Result<(), Denial> {
    if head.headers.len() > limits.headers_max { Err(Denial::RequestTooLarge(TooLarge::Head)) } else { Ok(()) }
}

/// What is judged of every head, with the target that it names.
fn judge(session: &Session, limits: &Limits, head: &request::Parts) -> Result<Target, Denial> {
    check_authority(session, head)?;
    fields::check_framing(head)?;
    fields::check_expectation(&head.headers)?;
    let text = head.uri.path_and_query().ok_or(Denial::RequestAmbiguous(Ambiguity::TargetForm))?.as_str();
    if text.len() > limits.target_bytes_max {
        return Err(Denial::RequestTooLarge(TooLarge::Target));
    }
    Target::parse(text).map_err(Denial::RequestAmbiguous)
}

fn check_method(method: &Method) -> Result<(), Denial> {
    match method.as_str() {
        "CONNECT" | "TRACE" | "TRACK" => Err(Denial::RequestAmbiguous(Ambiguity::Method)),
        _ => Ok(()),
    }
}

/// SNI, `Host` and `:authority` are the tunnel's destination, or the request is refused (RFC 9110, 7.4).
fn check_authority(session: &Session, head: &request::Parts) -> Result<(), Denial> {
    if session.form == Form::TunnelWithoutName {
        return Err(Denial::DestinationMismatch);
    }
    if let Some(scheme) = head.uri.scheme_str()
        && scheme != session.scheme.as_str()
    {
        return Err(Denial::DestinationMismatch);
    }
    if let Some(authority) = head.uri.authority() {
        must_agree(session, authority.as_str())?;
    }
    let mut hosts = head.headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => Err(Denial::RequestAmbiguous(Ambiguity::Host)),
        (Some(host), None) => {
            let host = host.to_str().map_err(|_| Denial::RequestAmbiguous(Ambiguity::Host))?;
            must_agree(session, host)
        }
        (None, _) if head.uri.authority().is_some() || head.version == Version::HTTP_10 => Ok(()),
        (None, _) => Err(Denial::RequestAmbiguous(Ambiguity::Host)),
    }
}

fn must_agree(session: &Session, authority: &str) -> Result<(), Denial> {
    let default_port = session.scheme.default_port();
    if session.destination.is_spelled(authority, default_port) {
        return Ok(());
    }
    let named =
        Destination::parse(authority, Some(default_port)).map_err(|_| Denial::RequestAmbiguous(Ambiguity::Host))?;
    if named == session.destination { Ok(()) } else { Err(Denial::DestinationMismatch) }
}

/// The client asked for errors as RFC 9457 spells them.
#[must_use]
pub fn wants_problem_json(headers: &HeaderMap) -> bool {
    const PROBLEM_JSON: &str = "application/problem+json";
    let values = headers.get_all(header::ACCEPT).iter().filter(|value| value.len() >= PROBLEM_JSON.len());
    values.filter_map(|value| value.to_str().ok()).any(|value| value.contains(PROBLEM_JSON))
}
