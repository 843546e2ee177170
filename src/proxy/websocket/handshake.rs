//! The question and the answer, on both sides.

use std::sync::Arc;

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, request};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;

use super::key::Key;
use crate::model::{Ambiguity, Denial};
use crate::proxy::accept::Connection;
use crate::proxy::connect::Session;

const WEBSOCKET: &str = "websocket";

/// The fields of the question that are written anew for upstream.
const ASKED_ANEW: [HeaderName; 6] = [
    header::CONNECTION,
    header::UPGRADE,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::SEC_WEBSOCKET_ACCEPT,
    // There is no body to expect anything of.
    header::EXPECT,
];

/// The fields of the answer that are written anew for the agent, or have no place in it (RFC 9110, 8.6).
const ANSWERED_ANEW: [HeaderName; 4] =
    [header::CONNECTION, header::UPGRADE, header::SEC_WEBSOCKET_ACCEPT, header::CONTENT_LENGTH];

/// An agent's question, judged: everything in it is as it must be.
#[derive(Debug)]
pub struct Handshake {
    /// Whose place among the connections the socket keeps.
    pub(super) connection: Arc<Connection>,
    /// The agent's side, once it has its answer.
    pub(super) client: OnUpgrade,
    way: Way,
    /// What upstream is asked with.
    key: Key,
    /// No extension was offered, so that frames can be read.
    is_searched: bool,
}

/// How the agent asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// `Upgrade` in HTTP/1.1: the agent checks the answer to its own key.
    Upgrade,
    /// An extended `CONNECT` in HTTP/2: it has no key.
    Connect,
}

/// True for a request to switch to WebSocket. Other protocols, and `Upgrade` where it has no meaning, are as if nobody
/// had asked (RFC 9110, 7.8).
pub fn is_asked_for(method: &Method, version: Version, headers: &HeaderMap, protocol: Option<&Protocol>) -> bool {
    match version {
        Version::HTTP_11 => {
            has_token(headers, &header::UPGRADE, WEBSOCKET) && has_token(headers, &header::CONNECTION, "upgrade")
        }
        Version::HTTP_2 => method == Method::CONNECT && protocol.is_some_and(|name| name.as_str() == WEBSOCKET),
        _ => false,
    }
}

impl Handshake {
    /// Takes the question out of a request, if there is one.
    ///
    /// # Errors
    /// [`Ambiguity::Handshake`]: it is not as RFC 6455, 4.1 or RFC 8441, 5 wants it. Nothing is repaired.
    pub fn take(session: &Session, head: &mut request::Parts) -> Result<Option<Self>, Denial> {
        if !is_asked_for(&head.method, head.version, &head.headers, head.extensions.get::<Protocol>()) {
            return Ok(None);
        }
        let judged = Self::judge(session, head);
        judged.map(Some).ok_or(Denial::RequestAmbiguous(Ambiguity::Handshake))
    }

    fn judge(session: &Session, head: &mut request::Parts) -> Option<Self> {
        let headers = &head.headers;
        let has_body = headers.contains_key(header::CONTENT_LENGTH) || headers.contains_key(header::TRANSFER_ENCODING);
        if has_body || single(headers, &header::SEC_WEBSOCKET_VERSION)?.as_bytes() != b"13" {
            return None;
        }
        let (way, key) = if head.version == Version::HTTP_2 {
            (Way::Connect, Key::random()?)
        } else {
            (Way::Upgrade, Key::parse(single(headers, &header::SEC_WEBSOCKET_KEY)?)?)
        };
        if way == Way::Upgrade && head.method != Method::GET {
            return None;
        }
        head.extensions.remove::<Protocol>();
        let client = head.extensions.remove::<OnUpgrade>()?;
        Some(Self { connection: session.connection.clone(), client, way, key, is_searched: false })
    }

    /// Makes a request out of it that asks upstream. What `is_searched` must be readable: no extensions then.
    ///
    /// # Errors
    /// [`Denial::Internal`], which a key that was parsed cannot lead to.
    pub(in crate::proxy) fn ask(&mut self, head: &mut request::Parts, is_searched: bool) -> Result<(), Denial> {
        self.is_searched = is_searched;
        let keeps = |name: &HeaderName| {
            !(ASKED_ANEW.contains(name) || is_searched && *name == header::SEC_WEBSOCKET_EXTENSIONS)
        };
        let mut headers = only(&head.headers, keeps);
        put_upgrade(&mut headers);
        headers.insert(header::SEC_WEBSOCKET_KEY, self.key.value().ok_or(Denial::Internal)?);
        headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        head.headers = headers;
        head.method = Method::GET;
        Ok(())
    }

    /// Judges what upstream's 101 says (RFC 6455, 4.1).
    ///
    /// # Errors
    /// [`Denial::UpstreamUnreachable`]: it is no answer to what was asked. [`Denial::AnswerUnscrubbable`]: upstream uses
    /// an extension that it was not offered.
    pub(in crate::proxy) fn check(&self, headers: &HeaderMap) -> Result<(), Denial> {
        let accept = self.key.accept().ok_or(Denial::Internal)?;
        let is_answer = has_token(headers, &header::CONNECTION, "upgrade")
            && single(headers, &header::UPGRADE).is_some_and(|name| is(name.as_bytes(), WEBSOCKET))
            && single(headers, &header::SEC_WEBSOCKET_ACCEPT) == Some(&accept);
        if !is_answer {
            return Err(Denial::UpstreamUnreachable);
        }
        if self.is_searched && headers.contains_key(header::SEC_WEBSOCKET_EXTENSIONS) {
            return Err(Denial::AnswerUnscrubbable);
        }
        Ok(())
    }

    /// Makes upstream's 101 the agent's answer.
    ///
    /// # Errors
    /// [`Denial::Internal`], which a key that was parsed cannot lead to.
    pub(in crate::proxy) fn answer<B>(&self, response: &mut Response<B>) -> Result<(), Denial> {
        let mut headers = only(response.headers(), |name| !ANSWERED_ANEW.contains(name));
        match self.way {
            Way::Upgrade => {
                put_upgrade(&mut headers);
                headers.insert(header::SEC_WEBSOCKET_ACCEPT, self.key.accept().ok_or(Denial::Internal)?);
            }
            Way::Connect => *response.status_mut() = StatusCode::OK,
        }
        *response.headers_mut() = headers;
        Ok(())
    }

    /// Judges another answer than 101, and makes it the agent's.
    ///
    /// # Errors
    /// [`Denial::UpstreamUnreachable`]: the agent would take it for a yes (RFC 8441, 5).
    pub(in crate::proxy) fn decline<B>(&self, response: &mut Response<B>) -> Result<(), Denial> {
        match self.way {
            // What the agent may have sent after its question is not to be read as a request.
            Way::Upgrade => {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                Ok(())
            }
            Way::Connect if response.status().is_success() => Err(Denial::UpstreamUnreachable),
            Way::Connect => Ok(()),
        }
    }
}

fn put_upgrade(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(WEBSOCKET));
}

/// A new map, so that the order of what stays is kept.
fn only(headers: &HeaderMap, keeps: impl Fn(&HeaderName) -> bool) -> HeaderMap {
    headers.iter().filter(|(name, _)| keeps(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The value of a field that is there once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

fn has_token(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    headers.get_all(name).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).any(|t| is(t, wanted))
}

fn is(token: &[u8], wanted: &str) -> bool {
    token.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes())
}
