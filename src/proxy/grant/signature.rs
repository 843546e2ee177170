//! Where a nonce comes under a signature, the signature has to hold, and to be for what the service is.

use http_body::Body as _;

use crate::lease::Lookup;
use crate::model::Denial;
use crate::model::denial::{SignatureFault, TooLarge};
use crate::policy::{Service, is_meant_for};
use crate::proxy::connect::Session;
use crate::proxy::extract::Presented;
use crate::proxy::sigv4::HELD_BYTES_MAX;

/// How much of its body a signature has to be compared with; `None` where that is nothing.
pub fn body_wanted(presented: &Presented) -> Option<usize> {
    let signed = presented.lifted.as_ref()?.signed.as_ref()?;
    let bytes_max = match presented.body.size_hint().exact().map(usize::try_from) {
        // What is known to be less takes less room.
        Some(Ok(bytes)) => bytes.min(HELD_BYTES_MAX),
        Some(Err(_)) | None => HELD_BYTES_MAX,
    };
    (signed.looks_at_body() && !presented.body.is_end_stream()).then_some(bytes_max)
}

/// Verifies the signature over what came, whole; what has none needs none here.
///
/// # Errors
/// [`Denial`].
pub fn verify(leases: &Lookup, session: &Session, presented: &mut Presented) -> Result<(), Denial> {
    let Some(lifted) = &mut presented.lifted else { return Ok(()) };
    let Some(signed) = &mut lifted.signed else { return Ok(()) };
    if presented.websocket.is_some() {
        return Err(Denial::SignatureRefused(SignatureFault::Unsupported));
    }
    if signed.is_in_chunks() && presented.body.is_end_stream() {
        return Err(Denial::SignatureRefused(SignatureFault::Malformed)); // not even the last one is there
    }
    let pair = leases.stand_in(&lifted.hash).ok_or(Denial::Internal)?;
    let seen = presented.seen.as_deref();
    if seen.is_none() && signed.looks_at_body() && !presented.body.is_end_stream() {
        return Err(Denial::RequestTooLarge(TooLarge::Body));
    }
    signed.verify(&pair, seen, (session.scheme, leases.now().wall))
}

/// A signature for one service or region is not turned into one for another.
///
/// # Errors
/// [`Denial::SignatureRefused`].
pub fn check_scope(session: &Session, service: &Service, presented: &Presented) -> Result<(), Denial> {
    let Some(signed) = presented.lifted.as_ref().and_then(|lifted| lifted.signed.as_ref()) else { return Ok(()) };
    let is_meant = is_meant_for(service.signing.as_ref(), &session.destination.host, signed.scope());
    if is_meant { Ok(()) } else { Err(Denial::SignatureRefused(SignatureFault::Scope)) }
}
