//! The slots: exactly one is filled, its whole value is the nonce (or its placeholder form), and it is taken out.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue};
use smallvec::SmallVec;

use super::fields;
use super::signed::{Came, from_signature};
use crate::model::denial::Misplaced;
use crate::model::{Ambiguity, Denial, NonceHash, nonce};
use crate::policy::{Placeholder, QuerySlot, Service, Slot, Target};
use crate::proxy::sigv4::Signed;

/// Longest user name beside a nonce in the password's place; longer ones could be keys.
const BASIC_USER_BYTES_MAX: usize = 39;
/// Longest password beside a nonce in the user's place: `x-oauth-basic`, `x`, or nothing.
const BASIC_PASSWORD_BYTES_MAX: usize = 16;

/// Slots of a destination that are gathered without an allocation.
const SLOTS_INLINE: usize = 4;

/// A nonce that was lifted out of a request, or that is attached to it.
#[derive(Debug, Clone)]
pub struct Lifted {
    /// The hash of what was presented.
    pub hash: NonceHash,
    /// The slot that it filled.
    pub slot: Slot,
    /// The header field that it filled, if it was one; still there, empty.
    pub field: Option<HeaderName>,
    /// The other half of Basic credentials.
    pub basic: Option<Basic>,
    /// The place of the query parameter that it filled.
    pub parameter: Option<QuerySlot>,
    /// The signature that it came with, where it was one.
    pub signed: Option<Box<Signed>>,
}

impl Lifted {
    /// True for the fields that it filled: a signature has one beside the nonce's.
    pub fn fills(&self, name: &HeaderName) -> bool {
        let Some(field) = &self.field else { return false };
        field == name || (self.signed.is_some() && name == header::AUTHORIZATION)
    }

    /// What rules judge: the target without what filled the slot; `None` where it is as it came.
    fn rest(&self) -> Option<&Target> {
        let signed = self.signed.as_ref().and_then(|signed| signed.rest());
        self.parameter.as_ref().map(QuerySlot::rest).or(signed)
    }
}

/// The half of `user:password` that is not the nonce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Basic {
    /// The other half.
    pub other: String,
}

/// All slots of the services at one destination.
pub struct Slots<'a> {
    slots: SmallVec<[&'a Slot; SLOTS_INLINE]>,
    placeholders: SmallVec<[&'a Placeholder; SLOTS_INLINE]>,
}

impl<'a> Slots<'a> {
    /// Gathers them.
    pub fn of(services: &'a [Arc<Service>]) -> Self {
        let mut slots = SmallVec::new();
        for slot in services.iter().flat_map(|service| &service.slots) {
            if !slots.contains(&slot) {
                slots.push(slot);
            }
        }
        Self { slots, placeholders: services.iter().filter_map(|service| service.placeholder.as_ref()).collect() }
    }

    /// `Authorization: Bearer` alone, in no placeholder form.
    pub fn bearer() -> Slots<'static> {
        Slots { slots: std::iter::once(&Slot::Bearer).collect(), placeholders: SmallVec::new() }
    }

    fn has(&self, slot: &Slot) -> bool {
        self.slots.contains(&slot)
    }

    /// The nonce in a slot's whole value: in its placeholder form, or as it is.
    pub(super) fn nonce<'v>(&self, value: &'v str) -> Option<&'v str> {
        whole_nonce(value, self.placeholders.iter().copied())
    }
}

/// The nonce that is the whole of a value, in one of these placeholder forms or as it is; any text that begins like one.
pub fn whole_nonce<'v, 'p>(value: &'v str, placeholders: impl Iterator<Item = &'p Placeholder>) -> Option<&'v str> {
    let mut placeholders = placeholders;
    let inner = placeholders.find_map(|placeholder| {
        value
            .strip_prefix(placeholder.prefix.as_str())
            .and_then(|rest| rest.strip_suffix(placeholder.suffix.as_str()))
            .filter(|inner| inner.starts_with(nonce::NONCE_PREFIX))
    });
    inner.or_else(|| value.starts_with(nonce::NONCE_PREFIX).then_some(value))
}

/// Lifts the one nonce out; the slot's header stays in its place with an empty value, its parameter leaves the target.
pub fn lift(
    headers: &mut HeaderMap,
    target: Target,
    slots: &Slots<'_>,
    came: Option<&Came>,
) -> Result<(Option<Lifted>, Target), Denial> {
    let mut found: Option<Lifted> = None;
    let mut take = |lifted: Lifted| match found.replace(lifted) {
        None => Ok(()),
        Some(_) => Err(Denial::ForeignCredential),
    };
    let signed = match came {
        Some(came) => from_signature(headers, &target, slots, came)?,
        None => None,
    };
    match signed {
        Some(lifted) => take(lifted)?,
        None => from_authorization(headers, slots)?.map_or(Ok(()), &mut take)?,
    }
    for slot in &slots.slots {
        match slot {
            Slot::Header(name) => {
                if let Some(lifted) = from_header(headers, name, slots)? {
                    take(lifted)?;
                }
            }
            Slot::Query(name) => {
                if let Some(lifted) = from_query(&target, name, slots)? {
                    take(lifted)?;
                }
            }
            Slot::Bearer | Slot::Token | Slot::Raw | Slot::BasicUser | Slot::BasicPassword | Slot::AwsSigV4 => {}
        }
    }
    // What the rules judge is the target without the slot's own parameter.
    let rest = found.as_ref().and_then(Lifted::rest).cloned();
    Ok((found, rest.unwrap_or(target)))
}

/// The single value of a field that may be there once.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Denial> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Denial::RequestAmbiguous(Ambiguity::RepeatedHeader));
    }
    value.to_str().map(Some).map_err(|_| Denial::NonceUnknown)
}

fn from_authorization(headers: &mut HeaderMap, slots: &Slots<'_>) -> Result<Option<Lifted>, Denial> {
    let Some(value) = single(headers, &header::AUTHORIZATION)? else { return Ok(None) };
    let (slot, text) = match value.split_once(' ') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => (Slot::Bearer, rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("token") => (Slot::Token, rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("basic") => {
            let blob = rest.to_owned();
            return from_basic(headers, &blob, slots);
        }
        Some(_) => return Err(not_ours(value)),
        None => (Slot::Raw, value),
    };
    let nonce = slots.nonce(text).ok_or(Denial::ForeignCredential)?;
    if !slots.has(&slot) {
        return Err(Denial::NonceMisplaced(Misplaced::Header));
    }
    let hash = NonceHash::of(nonce.as_bytes());
    headers.insert(header::AUTHORIZATION, HeaderValue::from_static(""));
    Ok(Some(Lifted { hash, slot, field: Some(header::AUTHORIZATION), basic: None, parameter: None, signed: None }))
}

fn from_basic(headers: &mut HeaderMap, blob: &str, slots: &Slots<'_>) -> Result<Option<Lifted>, Denial> {
    let bytes = STANDARD.decode(blob.trim()).map_err(|_| Denial::NonceUnknown)?;
    let text = String::from_utf8(bytes).map_err(|_| Denial::NonceUnknown)?;
    let (user, password) = text.split_once(':').ok_or(Denial::NonceUnknown)?;
    let (slot, nonce, other, other_max) = match (slots.nonce(user), slots.nonce(password)) {
        (Some(nonce), None) => (Slot::BasicUser, nonce, password, BASIC_PASSWORD_BYTES_MAX),
        (None, Some(nonce)) => (Slot::BasicPassword, nonce, user, BASIC_USER_BYTES_MAX),
        (Some(_), Some(_)) | (None, None) => return Err(Denial::ForeignCredential),
    };
    if !slots.has(&slot) {
        return Err(Denial::NonceMisplaced(Misplaced::Header));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.@+".contains(&b);
    if other.len() > other_max || !other.bytes().all(plain) {
        return Err(Denial::ForeignCredential);
    }
    let hash = NonceHash::of(nonce.as_bytes());
    let basic = Some(Basic { other: other.to_owned() });
    headers.insert(header::AUTHORIZATION, HeaderValue::from_static(""));
    Ok(Some(Lifted { hash, slot, field: Some(header::AUTHORIZATION), basic, parameter: None, signed: None }))
}

/// A value that no slot reads: a nonce in the wrong form, or somebody else's credential.
fn not_ours(value: &str) -> Denial {
    if nonce::find_all(value.as_bytes()).next().is_some() {
        Denial::NonceMisplaced(Misplaced::Header)
    } else {
        Denial::ForeignCredential
    }
}

fn from_header(headers: &mut HeaderMap, name: &str, slots: &Slots<'_>) -> Result<Option<Lifted>, Denial> {
    let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else { return Ok(None) };
    if headers.keys().any(|other| fields::is_twin(&name, other)) {
        return Err(Denial::ForeignCredential);
    }
    let Some(value) = single(headers, &name)? else { return Ok(None) };
    let nonce = slots.nonce(value).ok_or_else(|| not_ours(value))?;
    let hash = NonceHash::of(nonce.as_bytes());
    let slot = Slot::Header(name.as_str().to_owned());
    headers.insert(name.clone(), HeaderValue::from_static(""));
    Ok(Some(Lifted { hash, slot, field: Some(name), basic: None, parameter: None, signed: None }))
}

fn from_query(target: &Target, name: &str, slots: &Slots<'_>) -> Result<Option<Lifted>, Denial> {
    if target.hides_parameter(name) {
        return Err(Denial::RequestAmbiguous(Ambiguity::Query));
    }
    let Some((value, place)) = target.take_query_parameter(name).map_err(Denial::RequestAmbiguous)? else {
        return Ok(None);
    };
    let nonce = slots.nonce(&value).ok_or(Denial::ForeignCredential)?;
    let hash = NonceHash::of(nonce.as_bytes());
    Ok(Some(Lifted {
        hash,
        slot: Slot::Query(name.to_owned()),
        field: None,
        basic: None,
        parameter: Some(place),
        signed: None,
    }))
}
