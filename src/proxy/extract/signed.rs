//! A nonce as the session token of a signature: the slot `aws-sigv4`.

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue, Method, header, request};
use percent_encoding::percent_decode_str;

use super::fields;
use super::lift::{Lifted, Slots};
use crate::model::denial::SignatureFault;
use crate::model::{Ambiguity, Denial, NonceHash};
use crate::policy::{Service, Slot, Target};
use crate::proxy::sigv4::{Line, SCHEME, Signed, TOKEN, names_other_object};

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

/// Lifts the nonce out of a signed request. Both fields stay in their places, empty. `None` where it is not signed.
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
    if is_presigned(target) || (scheme.starts_with(b"AWS4-") && scheme != SCHEME.as_bytes()) {
        return Err(Denial::SignatureRefused(SignatureFault::Unsupported));
    }
    if scheme != SCHEME.as_bytes() {
        return Ok(None);
    }
    if parameters(target).any(|name| names_other_object(&name)) {
        return Err(Denial::SignatureRefused(SignatureFault::CopySource));
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

/// A signature in the query, of version 4 or 2.
fn is_presigned(target: &Target) -> bool {
    const OF_ONE: [&str; 3] = ["x-amz-signature", "x-amz-algorithm", "awsaccesskeyid"];
    parameters(target).any(|name| OF_ONE.iter().any(|known| known.eq_ignore_ascii_case(&name)))
}

/// The names in the query, as a server may read them.
fn parameters(target: &Target) -> impl Iterator<Item = Cow<'_, str>> {
    let name = |piece| percent_decode_str(str::split(piece, '=').next().unwrap_or_default()).decode_utf8_lossy();
    target.query().into_iter().flat_map(|query| query.split(['&', ';'])).map(name)
}
