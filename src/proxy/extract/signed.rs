//! A nonce as the session token of a signature: the slot `aws-sigv4`.

use http::{HeaderMap, HeaderValue, Method, header, request};

use super::fields;
use super::lift::{Lifted, Slots};
use crate::model::denial::SignatureFault;
use crate::model::{Ambiguity, Denial, NonceHash};
use crate::policy::{Service, Slot, Target};
use crate::proxy::sigv4::{Line, Parameters, SCHEME, Signed, TOKEN};

/// What else than its fields and its target was signed of a request, as it came.
#[derive(Debug, Clone)]
pub struct Came {
    method: Method,
    host: String,
}

impl Came {
    /// Of a request whose `Host` is still there; `None` where no service signs, and nobody asks.
    pub fn of<'a>(head: &request::Parts, mut services: impl Iterator<Item = &'a Service>) -> Option<Self> {
        if !services.any(Service::signs) {
            return None;
        }
        let said = head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let host = said.or_else(|| head.uri.authority().map(http::uri::Authority::as_str))?.to_owned();
        Some(Self { method: head.method.clone(), host })
    }
}

/// Lifts the nonce out of a signed request. Both fields stay in their places, empty; parameters leave the target that is
/// judged. `None` where it is not signed.
///
/// # Errors
/// [`Denial`]: a signature that is not read, or a token that is no nonce.
pub fn from_signature(
    headers: &mut HeaderMap,
    target: &Target,
    slots: &Slots<'_>,
    came: &Came,
) -> Result<Option<Lifted>, Denial> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (Some(_), Some(_)) => return Err(Denial::RequestAmbiguous(Ambiguity::RepeatedHeader)),
        (value, _) => value.map_or(&b""[..], HeaderValue::as_bytes),
    };
    let scheme = value.split(|byte| *byte == b' ').next().unwrap_or_default();
    if let Some(parameters) = Parameters::find(target)? {
        return from_query(headers, &parameters, target, (slots, came)).map(Some);
    }
    if scheme.starts_with(b"AWS4-") && scheme != SCHEME.as_bytes() {
        return Err(Denial::SignatureRefused(SignatureFault::Unsupported));
    }
    if scheme != SCHEME.as_bytes() {
        return Ok(None);
    }
    let line = Line { method: &came.method, host: &came.host, target: target.as_str() };
    let signed = Signed::read(headers, line)?;
    if headers.keys().any(|other| fields::is_twin(&TOKEN, other)) {
        return Err(Denial::ForeignCredential);
    }
    let token = headers.get(TOKEN).and_then(|token| token.to_str().ok()).ok_or(Denial::ForeignCredential)?;
    let hash = NonceHash::of(slots.nonce(token).ok_or(Denial::ForeignCredential)?.as_bytes());
    headers.insert(TOKEN, HeaderValue::from_static(""));
    headers.insert(header::AUTHORIZATION, HeaderValue::from_static(""));
    let signed = Some(Box::new(signed));
    Ok(Some(Lifted { hash, slot: Slot::AwsSigV4, field: Some(TOKEN), basic: None, parameter: None, signed }))
}

/// The same of a URL that was presigned.
fn from_query(
    headers: &HeaderMap,
    parameters: &Parameters<'_>,
    target: &Target,
    (slots, came): (&Slots<'_>, &Came),
) -> Result<Lifted, Denial> {
    let line = Line { method: &came.method, host: &came.host, target: target.as_str() };
    let signed = Signed::read_query(headers, line, parameters)?;
    let token = parameters.token().ok_or(Denial::SignatureRefused(SignatureFault::NotSigned))?;
    let hash = NonceHash::of(slots.nonce(token).ok_or(Denial::ForeignCredential)?.as_bytes());
    let signed = Some(Box::new(signed));
    Ok(Lifted { hash, slot: Slot::AwsSigV4, field: None, basic: None, parameter: None, signed })
}
