//! The only place where an error becomes HTTP.

use bytes::Bytes;
use http::Response;
use http_body_util::Full;

use crate::model::{Denial, NonceId};
use crate::policy::{Dialect, Slot};

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

/// Spells a refusal: status, reason phrase, headers, body, in the service's dialect.
#[must_use]
pub fn render(_denial: &Denial, _context: &Context) -> Response<Full<Bytes>> {
    todo!()
}

/// Spells a refused `CONNECT`.
#[must_use]
pub fn connect(_denial: &Denial) -> Response<Full<Bytes>> {
    todo!()
}
