//! From a clean answer, or a refusal, to the response that the agent gets; metrics and the closing record on the way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version};
use hyper::ext::Protocol;

use super::Proxy;
use super::connect::Session;
use super::extract::{is_framing_clear, wants_problem_json};
use super::flow::{Answering, Body, Download, Entire, Flow, Inbound, Meter, Source};
use super::inject::{Search, Tie};
use super::pace::Busy;
use super::refuse;
use super::refused::Refused;
use super::relay::{Answer, returned};
use super::websocket::{self, Opening, Switch};
use crate::audit::{Alarm, Ending, Exchange, ExchangeFacts};
use crate::model::denial::Unclear;
use crate::model::{Denial, Host, ServiceName};
use crate::policy::Dialect;

/// Longest method in the audit and in refusals, in bytes.
const METHOD_BYTES_MAX: usize = 32;
/// Longest path in the audit, in bytes.
const PATH_BYTES_MAX: usize = 1024;

/// Digits of a length that fits into 64 bits whatever they are.
const LENGTH_DIGITS_MAX: usize = 19;

/// What stands in the audit where a credential would.
const WITHHELD: &str = "WITHHELD";

/// An answer without any echo of the credential.
pub struct Cleaned {
    response: Response<Source>,
    service: ServiceName,
    address: Option<SocketAddr>,
    tie: Option<Arc<Tie>>,
    answering: Answering,
    took: Duration,
    /// The sockets behind an answer that switches protocols.
    opening: Option<Opening>,
}

/// Masks every echo of the credential in an answer, as it streams.
///
/// # Errors
/// [`Denial::AnswerUnscrubbable`]: it is withheld. [`Denial::UpstreamUnclear`]: its length is said twice. Others, for an answer that is none to a question to switch protocols.
pub fn scrub(answer: Answer, search: &Search) -> Result<Cleaned, Denial> {
    let Answer { mut response, is_bodyless, service, address, tie, answering, took, switch } = answer;
    if is_framed_twice(response.headers()) || !says_length_once(response.headers_mut()) {
        return Err(Denial::UpstreamUnclear(Unclear::Broke));
    }
    let version = response.version();
    let response = response.map(|body| Entire::new(body, version));
    let response = match &search.needles {
        Some(needles) => super::scrub::scrub(response, needles, is_bodyless)?.map(Source::Scrubbed),
        None => response.map(Source::Plain),
    };
    // What an upstream sends where no body belongs was not searched as its encoding asks, so it ends here.
    let mut response = if is_bodyless { response.map(|_| Source::Nothing) } else { response };
    let headers = std::mem::take(response.headers_mut());
    *response.headers_mut() = returned(headers);
    let opening = match switch {
        Switch::NotAsked => None,
        Switch::Declined(handshake) => {
            handshake.decline(&mut response)?;
            None
        }
        Switch::Agreed(agreed) => {
            agreed.handshake.answer(&mut response)?;
            Some(Opening::new(*agreed, tie.clone(), search.needles.clone()))
        }
    };
    Ok(Cleaned { response, service, address, tie, answering, took, opening })
}

/// Two readers may see two ends of such an answer (RFC 9112, 6.3): it is taken for broken.
fn is_framed_twice(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING) && headers.contains_key(CONTENT_LENGTH)
}

/// Leaves a length that is said several times in one spelling alone (RFC 9110, 8.6): what the libraries make of the others
/// is nothing that agents should have to guess. False where the answer has two lengths, or one that is none.
fn says_length_once(headers: &mut HeaderMap) -> bool {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else { return true };
    if lengths.next().is_none() && is_plainly_spelled(first.as_bytes()) {
        return true; // as nearly always
    }
    let first = first.clone();
    let all = headers.get_all(CONTENT_LENGTH).iter();
    let mut pieces = all.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let number = |piece: &[u8]| {
        let digits = piece.trim_ascii();
        let text = std::str::from_utf8(digits).ok().filter(|_| digits.iter().all(u8::is_ascii_digit));
        text.and_then(|text| text.parse::<u64>().ok())
    };
    let Some(length) = pieces.next().and_then(number) else { return false };
    if !pieces.all(|piece| number(piece) == Some(length)) {
        return false;
    }
    let spelled = HeaderValue::from(length);
    if first != spelled || headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        headers.insert(CONTENT_LENGTH, spelled);
    }
    true
}

/// A number as [`HeaderValue`] itself would write it, and one that fits.
fn is_plainly_spelled(digits: &[u8]) -> bool {
    let is_short = (1..=LENGTH_DIGITS_MAX).contains(&digits.len());
    is_short && digits.iter().all(u8::is_ascii_digit) && (digits.len() == 1 || digits[0] != b'0')
}

/// What refusals and records say of a request, taken before it is taken apart.
pub struct Scene {
    /// As it came.
    method: Method,
    path: String,
    host: Host,
    version: Version,
    wants_problem_json: bool,
    is_grpc: bool,
    is_websocket: bool,
    is_framing_clear: bool,
}

impl Scene {
    /// Looks at a request.
    #[must_use]
    pub fn of(session: &Session, request: &Request<Inbound>) -> Self {
        let protocol = request.extensions().get::<Protocol>();
        let is_websocket = websocket::is_asked_for(request.method(), request.version(), request.headers(), protocol);
        Self {
            method: request.method().clone(),
            path: clip(request.uri().path(), PATH_BYTES_MAX),
            host: session.destination.host.clone(),
            version: request.version(),
            wants_problem_json: wants_problem_json(request.headers()),
            is_grpc: is_grpc(request.headers()),
            is_websocket,
            is_framing_clear: is_framing_clear(request.headers(), request.version()),
        }
    }

    /// Says nothing more of what may hold a credential, which must not be on record; `place` is the first where one is.
    pub(super) fn withhold(&mut self, place: &str) {
        if place == "method" {
            self.method = Method::from_bytes(WITHHELD.as_bytes()).unwrap_or_default();
        }
        // The path is looked at after these two.
        if matches!(place, "method" | "host" | "path") {
            self.path = format!("/{WITHHELD}");
        }
    }

    /// What the audit knows when the exchange begins.
    #[must_use]
    pub fn facts(&self, session: &Session) -> ExchangeFacts {
        ExchangeFacts {
            connection_id: session.connection.id,
            peer: session.connection.peer,
            destination: Some(session.destination.clone()),
            scheme: session.scheme,
            method: self.method(),
            path: self.path.clone(),
            version: version(self.version),
        }
    }

    /// The method as the rules call it, however it was asked for.
    fn method(&self) -> String {
        clip(if self.is_websocket { "WEBSOCKET" } else { self.method.as_str() }, METHOD_BYTES_MAX)
    }

    /// git's own paths are answered in git's way, gRPC in gRPC's, the rest as the service is spelled.
    fn dialect(&self, service: Dialect) -> Dialect {
        let is_git = self.path.ends_with("/info/refs")
            || self.path.ends_with("/git-upload-pack")
            || self.path.ends_with("/git-receive-pack");
        match service {
            // Its 200 would open a socket over HTTP/2.
            Dialect::Grpc if self.is_websocket => Dialect::Json,
            _ if self.is_grpc && !self.is_websocket => Dialect::Grpc,
            Dialect::Json if is_git => Dialect::Git,
            other => other,
        }
    }
}

fn clip(text: &str, max: usize) -> String {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(http::header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

impl Proxy {
    /// Hands an answer on; the exchange rides in its body.
    pub(super) fn deliver(
        &self,
        begun: Instant,
        mut exchange: Exchange,
        meter: Meter,
        busy: Busy,
        cleaned: Cleaned,
    ) -> Response<Body> {
        let Cleaned { response, service, address, tie, answering, took, opening } = cleaned;
        let (mut head, source) = response.into_parts();
        head.version = Version::HTTP_11;
        exchange.dialled(address, None);
        exchange.answered(head.status.as_u16());
        self.metrics.passed(&service);
        self.metrics.overhead(begun.elapsed().saturating_sub(took));
        let idle_timeout = self.limits.idle_timeout;
        if let Some(opening) = opening {
            busy.switches();
            self.tasks.spawn(websocket::pass(opening, exchange, busy, idle_timeout, self.cutting.clone()));
            return Response::from_parts(head, Body::empty());
        }
        let flow = Flow::new(source, exchange, meter, idle_timeout, tie, (busy, answering));
        Response::from_parts(head, Body::Answer(Download::new(flow, idle_timeout, &self.watch)))
    }

    /// Turns a refusal into an answer; the only way from an error to HTTP.
    pub(super) async fn refuse(&self, scene: &Scene, mut exchange: Exchange, refused: Refused) -> Response<Body> {
        let Refused { denial, facts, service } = refused;
        if let Some(alarm) = facts.alarm.clone() {
            let service = service.as_ref().map(|service| service.name.clone());
            self.alarm(Alarm { service, ..*alarm }, &exchange);
        }
        self.count(&denial, service.as_ref().map(|service| &service.name));
        exchange.deny(&denial, *facts.clone()).await;
        let context = refuse::Context {
            dialect: scene.dialect(service.as_ref().map_or(Dialect::Json, |service| service.dialect)),
            exchange_id: exchange.id().to_owned(),
            nonce_id: facts.nonce_id,
            method: scene.method(),
            path: scene.path.clone(),
            host: scene.host.to_string(),
            wants_problem_json: scene.wants_problem_json,
            slots: service.as_ref().map(|service| service.slots.clone()).unwrap_or_default(),
        };
        let mut response = refuse::render(&denial, &context);
        if scene.version != Version::HTTP_2 && (scene.is_websocket || !scene.is_framing_clear) {
            // What the agent may have sent after its question, or where another reader sees an end, is not to be read
            // as a request.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        exchange.answered(response.status().as_u16());
        exchange.end(Ending::Refused);
        // hyper leaves the body out by itself on HTTP/1.1 alone; on HTTP/2 it would break the stream.
        let is_head = scene.method == Method::HEAD && !scene.is_websocket;
        response.map(|body| if is_head { Body::empty() } else { Body::refusal(body) })
    }

    fn count(&self, denial: &Denial, service: Option<&ServiceName>) {
        self.metrics.exchange(service, denial.code());
        let outcome = match denial {
            Denial::UpstreamUnreachable | Denial::UpstreamUnclear(Unclear::Broke) => "unreachable",
            Denial::UpstreamTls => "tls",
            Denial::UpstreamTimeout | Denial::UpstreamUnclear(Unclear::Late) => "timeout",
            _ => return,
        };
        if let Some(service) = service {
            self.metrics.upstream(service, outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_comes_out_in_one_spelling() {
        let said = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_LENGTH, HeaderValue::from_static(value));
            }
            let is_said = says_length_once(&mut headers);
            let left: Vec<_> = headers.get_all(CONTENT_LENGTH).iter().map(|value| value.to_str().unwrap()).collect();
            is_said.then(|| left.join("|"))
        };
        let largest = u64::MAX.to_string();
        for plain in ["0", "7", "10", "1024", "9999999999999999999", largest.leak()] {
            assert_eq!(said(&[plain]).as_deref(), Some(plain));
        }
        assert_eq!(said(&[]).as_deref(), Some(""));
        for several in [&["007"][..], &["7, 7"], &["7", "7"], &["7", "07"], &[" 7"], &["7,07", "7"]] {
            assert_eq!(said(several).as_deref(), Some("7"), "{several:?}");
        }
        let none: [&[&str]; 8] =
            [&[""], &["7", "8"], &["7,8"], &["-7"], &["+7"], &["7x"], &["18446744073709551616"], &["7", ""]];
        for none in none {
            assert_eq!(said(none), None, "{none:?}");
        }
    }
}
