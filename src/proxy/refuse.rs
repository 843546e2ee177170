//! The only place where an error becomes HTTP.
//!
//! A refusal is read by three kinds of reader: a program (status, `code`, headers), an SDK (the body in the shape that it
//! parses, a status that makes it stop or try again) and a language model (one sentence that says what happened, and
//! what to do next). Nothing secret is in it: it is made of the [`Denial`] and the [`Context`] alone.
//!
//! - `words`: what is said, for each denial
//! - `text`: bounding and cleaning of what others chose
//! - `fields`: the status line and the headers
//! - `json`, `xml`, `plain`, `kubernetes`: the body, by dialect

mod fields;
mod json;
mod kubernetes;
mod plain;
mod text;
mod words;
mod xml;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, PROXY_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use hyper::ext::ReasonPhrase;

use crate::model::{Denial, NonceId};
use crate::policy::{Dialect, Slot};

use words::Words;

/// What a refusal may say beside its code.
#[derive(Debug, Clone)]
pub struct Context {
    /// How it is spelled.
    pub dialect: Dialect,
    /// The exchange.
    pub exchange_id: String,
    /// The lease, where a whole nonce was presented.
    pub nonce_id: Option<NonceId>,
    /// The request's method, for HEAD and for the sentence.
    pub method: String,
    /// The request's path without query, at most 256 bytes, for the sentence.
    pub path: String,
    /// The host, for the sentence.
    pub host: String,
    /// The client asked for `application/problem+json`.
    pub wants_problem_json: bool,
    /// The slots of the service, so that `nonce_missing` can challenge (`WWW-Authenticate`).
    pub slots: Vec<Slot>,
}

/// A body and what it is.
struct Spelled {
    content_type: &'static str,
    body: String,
}

/// Spells a refusal: status, reason phrase, headers, body, in the service's dialect.
///
/// The answer to HEAD is the same, with the `Content-Length` of the body that the server then leaves out.
#[must_use]
pub fn render(denial: &Denial, context: &Context) -> Response<Full<Bytes>> {
    let words = words::say(denial, context);
    let spelled = match context.dialect {
        Dialect::Json => json::spell(denial, context, &words),
        Dialect::Slack => json::spell_slack(denial, context, &words),
        Dialect::Npm => json::spell_npm(denial, context, &words),
        Dialect::Git => plain::spell(denial, context, &words),
        Dialect::Aws => xml::spell(denial, context, &words),
        Dialect::Kubernetes => kubernetes::spell(denial, context, &words),
        Dialect::Grpc => return render_grpc(denial, context, &words),
    };
    let body = Bytes::from(spelled.body);
    let body_bytes = body.len();
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status(denial.status());
    fields::set_reason(response.extensions_mut(), denial, &words);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(spelled.content_type));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body_bytes));
    fields::add_common(headers, denial, &context.exchange_id);
    fields::add_retry(headers, denial);
    fields::add_challenges(headers, denial, &context.slots);
    if context.dialect == Dialect::Aws {
        xml::add_fields(headers, denial, context);
    }
    response
}

/// Refuses a `CONNECT`: nobody shows its body, so that there is none, and the reason phrase says it all.
///
/// What is 401 inside a tunnel is 403 here: a client that took it for the origin's own challenge would send what is meant
/// for the origin, and 407 is only for what [`challenge`] asks for.
#[must_use]
pub fn connect(denial: &Denial) -> Response<Full<Bytes>> {
    let words = words::say_without_request(denial);
    let mut response = Response::new(Full::default());
    *response.status_mut() = match status(denial.status()) {
        StatusCode::UNAUTHORIZED => StatusCode::FORBIDDEN,
        other => other,
    };
    fields::set_reason(response.extensions_mut(), denial, &words);
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    fields::add_common(headers, denial, "");
    fields::add_retry(headers, denial);
    response
}

/// The head of a refusal as HTTP/1.1 spells it, for a connection that is closed with it before anything was read.
#[must_use]
pub fn head<B>(response: &Response<B>) -> Vec<u8> {
    let status = response.status();
    let reason = response.extensions().get::<ReasonPhrase>();
    let mut head = format!("HTTP/1.1 {} ", status.as_u16()).into_bytes();
    head.extend_from_slice(reason.map_or(b"", ReasonPhrase::as_bytes));
    for (name, value) in response.headers() {
        for piece in [b"\r\n", name.as_str().as_bytes(), b": ", value.as_bytes()] {
            head.extend_from_slice(piece);
        }
    }
    head.extend_from_slice(b"\r\nconnection: close\r\n\r\n");
    head
}

/// Refuses for want of proxy credentials that are required: 407 with its challenge (RFC 9110, 15.5.8) where others would
/// do, on a connection that can go on. `Basic` alone, which is what all clients can answer.
#[must_use]
pub fn challenge(denial: &Denial) -> Response<Full<Bytes>> {
    let mut response = connect(denial);
    if status(denial.status()) == StatusCode::UNAUTHORIZED {
        *response.status_mut() = StatusCode::PROXY_AUTHENTICATION_REQUIRED;
        response.headers_mut().insert(PROXY_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"valetkey\""));
    }
    response
}

/// gRPC in its trailers-only form: HTTP 200, no body, the outcome in the header block.
fn render_grpc(denial: &Denial, context: &Context, words: &Words) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    fields::add_common(headers, denial, &context.exchange_id);
    fields::add_grpc(headers, denial, words);
    response
}

/// A denial's status; one that HTTP does not have would be a fault of ours.
fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

#[cfg(test)]
mod tests;
