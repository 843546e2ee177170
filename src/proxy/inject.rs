//! The real credential takes the nonce's place. The only file that reads one.
//!
//! - `watched`: the search for all of them in what agents send

mod watched;

use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::uri::{self, PathAndQuery};
use http::{HeaderMap, HeaderValue, Method, Uri, Version, header, request};
use http_body::Body as _;
use zeroize::Zeroizing;

use super::connect::Session;
use super::extract::Lifted;
use super::fair::Place;
use super::flow::Inbound;
use super::grant::{Licence, Permit, dead};
use super::leaks::Tap;
use super::scrub::{Needles, narrow_accepted};
use super::websocket::Handshake;
use crate::audit::Recorded;
use crate::credential::Versioned;
use crate::lease::{EndCause, Lease, Membership, Reservation};
use crate::model::{CredentialName, Denial, Destination, Scheme, ServiceName, Table};
use crate::policy::{Service, Slot};

/// A request that carries the real credential. No `Debug`, no `Clone`: it goes to `relay` and nowhere else.
pub struct Armed {
    pub(super) head: request::Parts,
    pub(super) body: Inbound,
    pub(super) errand: Errand,
    /// The use that this request takes; `None` when it carries no credential.
    pub(super) reservation: Option<Reservation>,
    pub(super) tie: Option<Arc<Tie>>,
    /// What it asks if it wants to switch to WebSocket; its fields are in the head.
    pub(super) websocket: Option<Handshake>,
    /// Looks at the body on its way.
    pub(super) tap: Option<Box<Tap>>,
}

/// Where the request goes and which connections it may share.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Errand {
    /// Scheme of the upstream leg.
    pub scheme: Scheme,
    /// Host and port.
    pub destination: Destination,
    /// Which version of which credential; connections are never shared across them.
    pub credential: Option<(CredentialName, u64)>,
    /// The service's name: its own roots and its reach.
    pub service: ServiceName,
}

/// What ties an exchange to its lease, for as long as its bodies flow.
pub struct Tie {
    pub(super) lease: Arc<Lease>,
    pub(super) membership: Membership,
    /// Its place among the requests that are under way.
    pub(super) _place: Place,
}

/// What the answer is searched for.
pub struct Search {
    /// The echoes, or nothing where the service says `scrub = false` or no credential went out.
    pub(super) needles: Option<Needles>,
}

pub(super) use watched::Watched;

/// The compiled searches, one for each credential's present version.
#[derive(Default)]
pub struct Searches(ArcSwap<Table<CredentialName, (u64, Needles)>>);

impl Searches {
    fn of(&self, versioned: &Versioned) -> Needles {
        if let Some((version, needles)) = self.0.load().get(&versioned.name)
            && *version == versioned.version
        {
            return needles.clone();
        }
        #[expect(clippy::disallowed_methods, reason = "needles are made of the credential, here and nowhere else")]
        let needles = Needles::new(versioned.credential.expose(), &[]);
        self.0.rcu(|known| {
            let mut known = Table::clone(known);
            known.insert(versioned.name.clone(), (versioned.version, needles.clone()));
            known
        });
        needles
    }
}

/// The search for a credential in what agents send.
fn plain_needles(versioned: &Versioned) -> Needles {
    #[expect(clippy::disallowed_methods, reason = "needles are made of the credential, here and nowhere else")]
    Needles::plain(versioned.credential.expose())
}

/// Puts the credential into the slot, and checks last that the lease is still alive.
///
/// # Errors
/// [`Denial`]: the lease has ended meanwhile, or the credential does not fit its slot.
pub fn inject(
    session: &Session,
    searches: &Searches,
    recorded: Recorded<Box<Permit>>,
    credential: Option<&Versioned>,
) -> Result<(Armed, Search), Denial> {
    let Permit { presented, service, licence, .. } = *recorded.into_inner();
    let (mut head, mut websocket) = (presented.head, presented.websocket);
    let mut filled = None;
    let mut needles = None;
    let (reservation, tie) = match (licence, credential, presented.lifted) {
        (Licence::Anonymous, _, _) => (None, None),
        (Licence::Credential { tie, reservation, .. }, Some(versioned), Some(lifted)) => {
            filled = fill(&mut head.headers, &lifted, versioned)?;
            if service.scrub {
                make_searchable(&mut head.headers);
                needles = Some(searches.of(versioned));
            }
            if tie.membership.is_cut() || tie.lease.ended().is_some_and(|cause| cause != EndCause::Spent) {
                return Err(dead(&tie.lease));
            }
            (reservation, Some(tie))
        }
        (Licence::Credential { .. }, _, _) => return Err(Denial::Internal),
    };
    let target = filled.as_ref().map_or(presented.target.as_str(), |filled| filled.as_str());
    head.uri = uri(session, target, head.uri.path_and_query())?;
    head.version = Version::HTTP_11;
    if let Some(handshake) = &mut websocket {
        handshake.ask(&mut head, needles.is_some())?;
    } else if matches!(head.method, Method::GET | Method::HEAD) && presented.body.size_hint().exact().is_none() {
        // Without it, the client library sends these without their body. On HTTP/2 it is left out again.
        head.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let errand = errand(session, &service, credential);
    Ok((Armed { head, body: presented.body, errand, reservation, tie, websocket, tap: None }, Search { needles }))
}

fn errand(session: &Session, service: &Service, credential: Option<&Versioned>) -> Errand {
    Errand {
        scheme: session.scheme,
        destination: session.destination.clone(),
        credential: credential.map(|versioned| (versioned.name.clone(), versioned.version)),
        service: service.name.clone(),
    }
}

/// Answers must be searchable: only encodings that can be, and no parts of a body.
fn make_searchable(headers: &mut HeaderMap) {
    narrow_accepted(headers);
    if headers.keys().any(|name| matches!(name.as_str(), "range" | "if-range")) {
        // Not `remove`: it would change the order of the rest.
        let kept = headers.iter().filter(|(name, _)| **name != header::RANGE && **name != header::IF_RANGE);
        *headers = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
    }
}

/// Writes the credential into its slot; for a slot in the query the result is the target that holds it.
fn fill(headers: &mut HeaderMap, lifted: &Lifted, versioned: &Versioned) -> Result<Option<Zeroizing<String>>, Denial> {
    #[expect(clippy::disallowed_methods, reason = "this is the one place where a credential goes into a request")]
    let secret = versioned.credential.expose();
    let secret = std::str::from_utf8(secret).map_err(|_| Denial::Internal)?;
    let other = lifted.basic.as_ref().map_or("", |basic| basic.other.as_str());
    let value = match &lifted.slot {
        Slot::Bearer => joined("Bearer ", secret),
        Slot::Token => joined("token ", secret),
        Slot::Raw | Slot::Header(_) => joined("", secret),
        Slot::BasicUser => joined("", &basic(secret, other)),
        Slot::BasicPassword => joined("", &basic(other, secret)),
        Slot::Query(_) => {
            let place = lifted.parameter.as_ref().ok_or(Denial::Internal)?;
            return Ok(Some(place.filled(secret.as_bytes())));
        }
    };
    let field = lifted.field.clone().ok_or(Denial::Internal)?;
    let mut value =
        HeaderValue::from_maybe_shared(value).map_err(|_| Denial::CredentialUnavailable { retry_after: None })?;
    value.set_sensitive(true);
    headers.insert(field, value);
    Ok(None)
}

/// Two texts as one, written once where it stays: no copy of it is left behind.
fn joined(beginning: &str, rest: &str) -> Bytes {
    let mut text = Vec::with_capacity(beginning.len() + rest.len());
    text.extend_from_slice(beginning.as_bytes());
    text.extend_from_slice(rest.as_bytes());
    text.into()
}

/// What a parent proxy asks for (RFC 9110, 11.7.2): its credential is `user:password`.
///
/// # Errors
/// [`Denial::CredentialUnavailable`]: it is something else.
pub(super) fn proxy_authorization(versioned: &Versioned) -> Result<HeaderValue, Denial> {
    const UNUSABLE: Denial = Denial::CredentialUnavailable { retry_after: None };
    #[expect(clippy::disallowed_methods, reason = "a proxy's credential goes into the request to that proxy")]
    let secret = std::str::from_utf8(versioned.credential.expose()).map_err(|_| UNUSABLE)?;
    let (user, password) = secret.split_once(':').ok_or(UNUSABLE)?;
    let value = basic(user, password);
    let mut value = HeaderValue::from_str(&value).map_err(|_| UNUSABLE)?;
    value.set_sensitive(true);
    Ok(value)
}

fn basic(user: &str, password: &str) -> Zeroizing<String> {
    let pair = Zeroizing::new(format!("{user}:{password}"));
    let blob = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
    Zeroizing::new(format!("Basic {}", blob.as_str()))
}

/// The URI that is sent: the destination that was judged, and the target that was judged with the slot's parameter in it.
/// What `came` is taken as it is where it is the same text.
fn uri(session: &Session, target: &str, came: Option<&PathAndQuery>) -> Result<Uri, Denial> {
    let mut parts = uri::Parts::default();
    parts.scheme = Some(match session.scheme {
        Scheme::Https => uri::Scheme::HTTPS,
        Scheme::Http => uri::Scheme::HTTP,
    });
    parts.authority = Some(session.authority.of(session).ok_or(Denial::Internal)?);
    parts.path_and_query = Some(match came {
        Some(came) if came.as_str() == target => came.clone(),
        Some(_) | None => PathAndQuery::try_from(target).map_err(|_| Denial::Internal)?,
    });
    Uri::from_parts(parts).map_err(|_| Denial::Internal)
}
