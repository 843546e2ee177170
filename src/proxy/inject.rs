//! The real credential takes the nonce's place. The only file that reads one.
//!
//! - `shown`: the client certificate of a connection
//! - `watched`: the search for all of them in what agents send

mod shown;
mod watched;

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::uri::{self, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header, request};
use http_body::Body as _;
use zeroize::Zeroizing;

use super::connect::Session;
use super::extract::Lifted;
use super::fair::Place;
use super::flow::Inbound;
use super::grant::{Licence, Permit, dead};
use super::leaks::Tap;
use super::scrub::{Needles, narrow_accepted};
use super::sigv4::{Again, Chunks, Line, Placed, TOKEN};
use super::websocket::Handshake;
use crate::audit::Recorded;
use crate::credential::Versioned;
use crate::lease::{EndCause, Lease, Membership, Reservation};
use crate::model::key_pair::KeyPair;
use crate::model::{Credential, CredentialName, Denial, Destination, Scheme, ServiceName, Table};
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
    /// Verifies the body on its way and signs it again, where it is signed chunk by chunk.
    pub(super) chunks: Option<Box<Chunks>>,
}

/// Where the request goes and which connections it may share.
#[derive(Clone, PartialEq, Eq)]
pub struct Errand {
    /// Scheme of the upstream leg.
    pub scheme: Scheme,
    /// Host and port.
    pub destination: Destination,
    /// Which version of which credential; connections are never shared across them.
    pub credential: Option<(CredentialName, u64)>,
    /// The client certificate that is shown upstream; neither connections nor sessions are shared across them.
    pub certificate: Option<Shown>,
    /// The service's name: its own roots and its reach.
    pub service: ServiceName,
}

/// Of what an agent can choose or time brings along. Only what the policy says is left out: what is alike but for that is
/// few, and told apart by comparing.
impl Hash for Errand {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let version = self.credential.as_ref().map_or(0, |(_, version)| *version);
        state.write(self.destination.host.as_str().as_bytes());
        state.write_u64(version.rotate_left(u16::BITS) ^ u64::from(self.destination.port));
    }
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

pub(super) use shown::Shown;
pub(super) use watched::Watched;

/// What a permit lets out, loaded.
#[derive(Default)]
pub struct Carried {
    /// The credential that takes the nonce's place; a certificate leaves that empty.
    pub(super) credential: Option<Arc<Versioned>>,
    /// The client certificate of the service; it may be the same.
    pub(super) certificate: Option<Arc<Versioned>>,
}

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
        let needles = echoes(versioned);
        self.0.rcu(|known| {
            let mut known = Table::clone(known);
            known.insert(versioned.name.clone(), (versioned.version, needles.clone()));
            known
        });
        needles
    }

    /// Drops the searches for these; true if there was one.
    pub(super) fn forget(&self, may_go: &dyn Fn(&CredentialName) -> bool) -> bool {
        let any = self.0.load().keys().any(may_go);
        if any {
            self.0.rcu(|known| {
                let kept = known.iter().filter(|(name, _)| !may_go(name));
                kept.map(|(name, search)| (name.clone(), search.clone())).collect::<Table<_, _>>()
            });
        }
        any
    }
}

/// The search for a credential in answers; of a key pair for its id, too, without which no signature is of use.
fn echoes(versioned: &Versioned) -> Needles {
    let all = secrets(versioned).map(|secret| Needles::new(secret, &[]));
    let id = key_pair(versioned).map(|pair| Needles::new(pair.access_key_id.as_bytes(), &[]));
    one_search(&all.into_iter().chain(id).collect::<Vec<_>>())
}

/// The search for a credential in what agents send.
fn plain_needles(versioned: &Versioned, searches: &Searches) -> Needles {
    let full = searches.of(versioned);
    one_search(&secrets(versioned).map(|secret| full.plainly(secret)).collect::<Vec<_>>())
}

fn one_search(each: &[Needles]) -> Needles {
    match each {
        [only] => only.clone(),
        several => Needles::any_of(several.iter()),
    }
}

/// The texts that nobody else may see.
fn secrets(versioned: &Versioned) -> impl Iterator<Item = &[u8]> {
    #[expect(clippy::disallowed_methods, reason = "needles are made of the credential, here and nowhere else")]
    let whole = versioned.text().map(Credential::expose);
    let pair = key_pair(versioned);
    let parts = pair.into_iter().flat_map(|pair| [Some(pair.secret), pair.session_token]).flatten();
    whole.into_iter().chain(parts.map(str::as_bytes))
}

fn key_pair(versioned: &Versioned) -> Option<KeyPair<'_>> {
    #[expect(clippy::disallowed_methods, reason = "a key pair is one text, and is read here and nowhere else")]
    versioned.key_pair().map(Credential::expose).and_then(KeyPair::split)
}

/// Puts the credential into the slot, and checks last that the lease is still alive.
///
/// # Errors
/// [`Denial`]: the lease has ended meanwhile, or the credential does not fit its slot.
pub fn inject(
    session: &Session,
    searches: &Searches,
    recorded: Recorded<Box<Permit>>,
    carried: &Carried,
) -> Result<(Armed, Search), Denial> {
    let Permit { presented, service, licence, .. } = *recorded.into_inner();
    let (mut head, mut websocket) = (presented.head, presented.websocket);
    let (mut filled, mut needles, mut chunks) = (None, None, None);
    let credential = carried.credential.as_deref();
    let (reservation, tie) = match (licence, credential, presented.lifted) {
        (Licence::Anonymous, _, _) => (None, None),
        (Licence::Credential { tie, reservation, .. }, Some(versioned), Some(lifted)) => {
            let goes_out = versioned.text().or(versioned.key_pair());
            if service.scrub && goes_out.is_some() {
                make_searchable(&mut head.headers);
                needles = Some(searches.of(versioned));
            }
            match (&lifted.signed, versioned.text(), &carried.certificate) {
                (Some(_), _, _) => {
                    let again = sign(session, &mut head, presented.target.as_str(), (&lifted, versioned))?;
                    if let Placed::Target(target) = again.placed {
                        // In a URL it may come back by itself, as in a redirection.
                        needles = needles.map(|needles| needles_with(&needles, &again.signature));
                        filled = Some(target);
                    }
                    chunks = again.chunks;
                }
                (None, Some(text), _) => filled = fill(&mut head.headers, &lifted, text)?,
                (None, None, Some(_)) => leave_empty(&mut head.headers, &lifted),
                (None, None, None) => return Err(Denial::Internal),
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
    let errand = errand(session, &service, carried)?;
    let armed = Armed { head, body: presented.body, errand, reservation, tie, websocket, tap: None, chunks };
    Ok((armed, Search { needles }))
}

fn errand(session: &Session, service: &Service, carried: &Carried) -> Result<Errand, Denial> {
    let certificate = match &carried.certificate {
        // In clear text nothing could be shown, and the policy has refused that.
        Some(versioned) if session.scheme == Scheme::Https => Some(Shown::of(versioned).ok_or(Denial::Internal)?),
        Some(_) => return Err(Denial::Internal),
        None => None,
    };
    Ok(Errand {
        scheme: session.scheme,
        destination: session.destination.clone(),
        credential: carried.credential.as_ref().map(|versioned| (versioned.name.clone(), versioned.version)),
        certificate,
        service: service.name.clone(),
    })
}

/// Takes the slot out where nothing stands in the nonce's place: the certificate says it all.
fn leave_empty(headers: &mut HeaderMap, lifted: &Lifted) {
    if let Some(field) = &lifted.field {
        // Not `remove`: it would change the order of the rest.
        *headers = headers.iter().filter(|(name, _)| *name != field).map(|(n, v)| (n.clone(), v.clone())).collect();
    }
}

/// Answers must be searchable: only encodings that can be, no parts of a body, and none made otherwise of one (RFC 3229).
fn make_searchable(headers: &mut HeaderMap) {
    let asks_for_other = |name: &HeaderName| matches!(name.as_str(), "range" | "if-range" | "a-im");
    narrow_accepted(headers);
    if headers.keys().any(asks_for_other) {
        // Not `remove`: it would change the order of the rest.
        let kept = headers.iter().filter(|(name, _)| !asks_for_other(name));
        *headers = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
    }
}

/// The same search, and one for a signature beside it.
fn needles_with(needles: &Needles, signature: &str) -> Needles {
    Needles::any_of([needles, &Needles::new(signature.as_bytes(), &[])].into_iter())
}

/// Signs again what goes out, with the real key and over the fields that are still there: after everything else. What came
/// in fields goes into them.
fn sign(
    session: &Session,
    head: &mut request::Parts,
    target: &str,
    (lifted, versioned): (&Lifted, &Versioned),
) -> Result<Again, Denial> {
    const UNUSABLE: Denial = Denial::CredentialUnavailable { retry_after: None };
    let signed = lifted.signed.as_ref().ok_or(Denial::Internal)?;
    let pair = key_pair(versioned).ok_or(UNUSABLE)?;
    let secret = |text: Bytes| {
        let mut value = HeaderValue::from_maybe_shared(text).map_err(|_| UNUSABLE)?;
        value.set_sensitive(true);
        Ok::<_, Denial>(value)
    };
    match pair.session_token.filter(|_| lifted.fills(&TOKEN)) {
        Some(token) => {
            head.headers.insert(TOKEN, secret(joined("", token))?);
        }
        None => {
            // Not `remove`: it would change the order of the rest.
            let kept = head.headers.iter().filter(|(name, _)| **name != TOKEN);
            head.headers = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
        }
    }
    let authority = session.authority.of(session).ok_or(Denial::Internal)?;
    let line = Line { method: &head.method, host: authority.as_str(), target };
    let again = signed.sign_again(&pair, &head.headers, line)?;
    if let Placed::Field(field) = &again.placed {
        head.headers.insert(header::AUTHORIZATION, secret(joined("", field))?);
    }
    Ok(again)
}

/// Writes the credential into its slot; for a slot in the query the result is the target that holds it.
fn fill(
    headers: &mut HeaderMap,
    lifted: &Lifted,
    credential: &Credential,
) -> Result<Option<Zeroizing<String>>, Denial> {
    #[expect(clippy::disallowed_methods, reason = "this is the one place where a credential goes into a request")]
    let secret = credential.expose();
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
        // It signs, and never goes out.
        Slot::AwsSigV4 => return Err(Denial::Internal),
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
    let credential = versioned.text().ok_or(UNUSABLE)?;
    #[expect(clippy::disallowed_methods, reason = "a proxy's credential goes into the request to that proxy")]
    let secret = std::str::from_utf8(credential.expose()).map_err(|_| UNUSABLE)?;
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
