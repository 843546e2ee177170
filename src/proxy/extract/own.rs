//! A call at the agent's own door, taken apart as strictly as a request that goes on.

use http::{Request, header, request};

use super::lift::{Slots, lift};
use super::{Stray, check_count, check_method, fields, judge, strays};
use crate::model::denial::Missing;
use crate::model::{Denial, NonceHash};
use crate::proxy::Limits;
use crate::proxy::connect::Session;
use crate::proxy::flow::Inbound;

/// A call with its nonce lifted out: no credential of any kind is left in it.
#[derive(Debug)]
pub struct OwnCall {
    /// As it came, but for the fields that end here and the nonce.
    pub head: request::Parts,
    /// The body, not yet read.
    pub body: Inbound,
    /// The hash of what was presented as `Authorization: Bearer`, in no other form.
    pub nonce: Result<NonceHash, Denial>,
    /// Texts with the shape of a nonce in other places.
    pub strays: Vec<Stray>,
}

/// Takes a call apart.
///
/// # Errors
/// [`Denial`], as of [`super::extract`].
pub fn extract_own(session: &Session, limits: &Limits, request: Request<Inbound>) -> Result<OwnCall, Denial> {
    let (mut head, body) = request.into_parts();
    check_count(limits, &head)?;
    check_method(&head.method)?;
    let target = judge(session, limits, &head)?;
    head.headers = fields::strip(std::mem::take(&mut head.headers), None)?;
    let (lifted, target) = lift(&mut head.headers, target, &Slots::bearer(), None)?;
    fields::refuse_foreign(&head.headers, &target, lifted.as_ref())?;
    let strays = strays::find(&head.headers, &target, lifted.as_ref());
    head.headers.remove(header::AUTHORIZATION); // what the nonce has left there
    let nonce = lifted.map(|lifted| lifted.hash).ok_or(Denial::NonceMissing(Missing::Nowhere));
    Ok(OwnCall { head, body, nonce, strays })
}
