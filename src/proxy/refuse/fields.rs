//! The status line and the headers.

use http::header::{CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue};
use hyper::ext::ReasonPhrase;

use super::text::{ascii, percent};
use super::words::{Words, seconds};
use crate::model::Denial;
use crate::model::denial::Unclear;
use crate::policy::Slot;

/// Longest reason phrase, in bytes.
const REASON_BYTES_MAX: usize = 200;

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
const VALETKEY_ERROR: HeaderName = HeaderName::from_static("valetkey-error");
const VALETKEY_EXCHANGE: HeaderName = HeaderName::from_static("valetkey-exchange");
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// The reason phrase, for HTTP/1.1: `out_of_scope: allowed GET /v1/customers`. Some clients show nothing else.
pub(super) fn set_reason(extensions: &mut Extensions, denial: &Denial, words: &Words) {
    let phrase = ascii(&format!("{}: {}", denial.code(), words.essence), REASON_BYTES_MAX);
    if let Ok(phrase) = ReasonPhrase::try_from(phrase) {
        extensions.insert(phrase);
    }
}

/// What stands on every refusal.
pub(super) fn add_common(headers: &mut HeaderMap, denial: &Denial, exchange_id: &str) {
    let code = denial.code();
    let error = proxy_error(denial);
    insert(headers, PROXY_STATUS, &format!("valetkey; error={error}; details=\"{code}\""));
    insert(headers, VALETKEY_ERROR, code);
    if !exchange_id.is_empty() {
        insert(headers, VALETKEY_EXCHANGE, exchange_id);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

/// When to try again, or that it is of no use.
pub(super) fn add_retry(headers: &mut HeaderMap, denial: &Denial) {
    if !denial.is_retryable() {
        headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    } else if let Some(wait_seconds) = retry_after_seconds(denial) {
        headers.insert(RETRY_AFTER, HeaderValue::from(wait_seconds));
    }
}

/// Whole seconds, at least one, where a time is known.
pub(super) fn retry_after_seconds(denial: &Denial) -> Option<u64> {
    if let Denial::RateLimited { retry_after } = denial {
        Some(seconds(*retry_after))
    } else if let Denial::CredentialUnavailable { retry_after } = denial {
        retry_after.map(seconds)
    } else {
        let is_short = matches!(
            denial,
            Denial::TooManyAtOnce | Denial::Overloaded | Denial::ShuttingDown | Denial::IdentityUnavailable
        );
        is_short.then_some(1)
    }
}

/// `WWW-Authenticate`: on every 401 (RFC 9110, 15.5.2), and where a scope is lacking (RFC 6750, 3.1).
pub(super) fn add_challenges(headers: &mut HeaderMap, denial: &Denial, slots: &[Slot]) {
    const BEARER: HeaderValue = HeaderValue::from_static("Bearer realm=\"valetkey\"");
    const BASIC: HeaderValue = HeaderValue::from_static("Basic realm=\"valetkey\", charset=\"UTF-8\"");
    const INVALID: HeaderValue = HeaderValue::from_static("Bearer realm=\"valetkey\", error=\"invalid_token\"");
    let is_basic = |slot: &Slot| matches!(slot, Slot::BasicUser | Slot::BasicPassword);
    if let Denial::OutOfScope { required_scope: Some(scope), .. } = denial {
        // A scope's name has neither quotes nor backslashes.
        let value = format!("Bearer realm=\"valetkey\", error=\"insufficient_scope\", scope=\"{scope}\"");
        insert(headers, WWW_AUTHENTICATE, &value);
    }
    if denial.status() != 401 {
        return;
    }
    if !matches!(denial, Denial::NonceMissing(_) | Denial::AgentUnidentified) {
        headers.append(WWW_AUTHENTICATE, INVALID);
        return;
    }
    // git and others send nothing on the first try, and answer a Basic challenge alone.
    if slots.iter().any(is_basic) {
        headers.append(WWW_AUTHENTICATE, BASIC);
    }
    if slots.is_empty() || !slots.iter().all(is_basic) {
        headers.append(WWW_AUTHENTICATE, BEARER);
    }
}

/// The outcome as gRPC says it; a pushback below zero means never (gRPC A6).
pub(super) fn add_grpc(headers: &mut HeaderMap, denial: &Denial, words: &Words) {
    headers.insert(GRPC_STATUS, HeaderValue::from(grpc_status(denial)));
    insert(headers, GRPC_MESSAGE, &percent(&words.detail));
    if !denial.is_retryable() {
        headers.insert(GRPC_PUSHBACK, HeaderValue::from_static("-1"));
    } else if let Some(wait_seconds) = retry_after_seconds(denial) {
        headers.insert(GRPC_PUSHBACK, HeaderValue::from(wait_seconds * 1000));
    }
}

/// Printable text of ours; were it ever not, the field is left out.
pub(super) fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(&ascii(value, 4096)) {
        headers.insert(name, value);
    }
}

/// The proxy error type (RFC 9209, 2.3) that fits best.
fn proxy_error(denial: &Denial) -> &'static str {
    match denial {
        Denial::NonceMissing(_)
        | Denial::NonceUnknown
        | Denial::NonceExpired { .. }
        | Denial::NonceRevoked { .. }
        | Denial::NonceSpent { .. }
        | Denial::AgentMismatch
        | Denial::OutOfScope { .. }
        | Denial::RiskRestricted { .. }
        | Denial::ConditionFailed { .. }
        | Denial::ForeignCredential
        | Denial::CredentialExposed
        | Denial::NonceMisplaced(_)
        | Denial::HostNotListed
        | Denial::CleartextForbidden
        | Denial::SignatureRefused(_)
        | Denial::AgentUnidentified
        | Denial::IdentityRefused { .. }
        | Denial::IdentityStale
        | Denial::BudgetSpent
        | Denial::RateLimited { .. }
        | Denial::TooManyAtOnce => "http_request_denied",
        Denial::AddressForbidden => "destination_ip_prohibited",
        Denial::RequestAmbiguous(_)
        | Denial::RequestMalformed
        | Denial::SlotOccupied
        | Denial::RequestTimeout
        | Denial::RequestTooLarge(_)
        | Denial::ExpectationFailed
        | Denial::DestinationMismatch => "http_request_error",
        Denial::UpstreamUnreachable => "destination_unavailable",
        Denial::UpstreamUnclear(Unclear::Broke) => "http_response_incomplete",
        Denial::UpstreamTls => "tls_certificate_error",
        // Connecting late is one way of answering late.
        Denial::UpstreamTimeout | Denial::UpstreamUnclear(Unclear::Late) => "http_response_timeout",
        Denial::AnswerUnscrubbable => "http_response_content_coding",
        Denial::CredentialUnavailable { .. }
        | Denial::IdentityUnavailable
        | Denial::AuditUnavailable
        | Denial::Internal => "proxy_internal_error",
        Denial::Overloaded | Denial::ShuttingDown => "proxy_internal_response",
    }
}

/// gRPC's status codes: 16 unauthenticated, 7 permission denied, 2 unknown, 3 invalid argument, 4 deadline exceeded, 8 resource
/// exhausted, 9 failed precondition, 13 internal, 14 unavailable, which clients may try again.
fn grpc_status(denial: &Denial) -> u16 {
    match denial.status() {
        401 => 16,
        403 => 7,
        400 | 417 => 3,
        408 | 504 => 4,
        413 | 414 | 429 | 431 => 8,
        421 => 9,
        502 if matches!(denial, Denial::UpstreamUnclear(_)) => 2,
        502 | 503 if denial.is_retryable() => 14,
        _ => 13,
    }
}
