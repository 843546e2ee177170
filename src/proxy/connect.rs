//! `CONNECT host:port` and absolute-form requests → where they go.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use http::HeaderValue;
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;

use super::accept::Connection;
use super::flow::Body;
use super::gate::{self, Admitted};
use super::grant::Presenter;
use super::pace::Busy;
use super::{Proxy, decrypt, refuse, unread};
use crate::audit::Event;
use crate::door;
use crate::identity::TokenProof;
use crate::model::{Ambiguity, Denial, Destination, NonceHash, Scheme};
use crate::policy::{ProxyAuth, Unlisted};

/// How an exchange reached us, settled before its first byte is judged.
#[derive(Debug, Clone)]
pub struct Session {
    /// The client connection.
    pub connection: Arc<Connection>,
    /// The one destination of everything in it.
    pub destination: Destination,
    /// Over TLS or in clear text, as the request says.
    pub scheme: Scheme,
    /// Inside a tunnel, in absolute form on the proxy's own port, or redirected to us in clear text.
    pub form: Form,
    /// The nonce that came as the proxy's credentials with the `CONNECT`, or with this request in absolute form.
    pub voucher: Option<NonceHash>,
    /// Whom a token proved that came there in the nonce's place, or the client's certificate.
    pub proof: Option<Arc<TokenProof>>,
    /// What its upstream speaks, as far as its answers have told.
    pub spoken: Spoken,
    /// The destination as upstream is asked for it.
    pub authority: AskedFor,
}

impl Session {
    /// Who presents what comes in it.
    #[must_use]
    pub fn presenter(&self) -> Presenter<'_> {
        Presenter { connection: &self.connection, proof: self.proof.as_deref() }
    }
}

/// A destination as a URI and `Host` spell it, parsed by the first request that needs it.
#[derive(Debug, Clone, Default)]
pub struct AskedFor(OnceLock<Option<(Authority, HeaderValue)>>);

impl AskedFor {
    /// That of a session; none if it could not be spelled.
    pub(super) fn of(&self, session: &Session) -> Option<Authority> {
        self.spelled(session).map(|(authority, _)| authority.clone())
    }

    /// The same, as a field.
    pub(super) fn host(&self, session: &Session) -> Option<&HeaderValue> {
        self.spelled(session).map(|(_, host)| host)
    }

    fn spelled(&self, session: &Session) -> Option<&(Authority, HeaderValue)> {
        let spell = || {
            let authority = session.destination.authority(session.scheme);
            let host = HeaderValue::try_from(&authority).ok()?;
            Some((authority.try_into().ok()?, host))
        };
        self.0.get_or_init(spell).as_ref()
    }
}

/// Whether an upstream last spoke HTTP/1, in which no request can be refused unseen; hyper itself sends again there what
/// it has not written.
#[derive(Debug, Clone, Default)]
pub struct Spoken(Arc<AtomicBool>);

impl Spoken {
    /// True where a request may come back untouched: over HTTP/2, and as long as nothing is known.
    pub(super) fn may_come_back(&self) -> bool {
        !self.0.load(Ordering::Relaxed)
    }

    /// An answer came.
    pub(super) fn heard(&self, version: Version) {
        self.0.store(version != Version::HTTP_2, Ordering::Relaxed);
    }
}

/// The form in which a request may come here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// In a tunnel, after TLS; the client named the destination by SNI too.
    Tunnel,
    /// In a tunnel, after TLS, to a name that SNI did not repeat: nothing is served there.
    TunnelWithoutName,
    /// On the proxy's port: `GET https://host/path`.
    Absolute,
    /// On a connection in clear text that was redirected to us: `GET /path`, with `Host`.
    Origin,
}

/// A `CONNECT` that was accepted.
pub struct Tunnel {
    /// The client connection.
    pub connection: Arc<Connection>,
    /// Where to.
    pub destination: Destination,
    /// The nonce that came with it as the proxy's credentials.
    pub voucher: Option<NonceHash>,
    /// Whom a token proved that came in the nonce's place, or the client's certificate.
    pub proof: Option<Arc<TokenProof>>,
}

impl Tunnel {
    /// One that nothing came with.
    pub(super) fn unvouched(connection: Arc<Connection>, destination: Destination) -> Self {
        Self { connection, destination, voucher: None, proof: None }
    }
}

/// Whatever arrives on the proxy's own port.
pub(super) async fn front(
    proxy: Arc<Proxy>,
    connection: Arc<Connection>,
    request: Request<Incoming>,
    busy: Busy,
) -> Response<Body> {
    let admitted = gate::admit(&proxy, &connection, request.headers()).await;
    if request.method() == Method::CONNECT {
        return tunnel(&proxy, connection, request, admitted);
    }
    match absolute(&connection, &request, admitted) {
        // Boxed, so that a `CONNECT` does not carry its size.
        Ok(session) => Box::pin(proxy.serve(&session, request, busy)).await,
        Err(denial) => refused(&proxy, &connection, None, &denial),
    }
}

fn absolute(
    connection: &Arc<Connection>,
    request: &Request<Incoming>,
    admitted: Result<Admitted, Denial>,
) -> Result<Session, Denial> {
    let scheme = match request.uri().scheme_str() {
        Some("https") => Scheme::Https,
        Some("http") => Scheme::Http,
        _ => return Err(Denial::RequestAmbiguous(Ambiguity::TargetForm)),
    };
    let authority = request.uri().authority().ok_or(Denial::RequestAmbiguous(Ambiguity::TargetForm))?;
    let destination = Destination::parse(authority.as_str(), Some(scheme.default_port()))
        .map_err(|_| Denial::RequestAmbiguous(Ambiguity::Host))?;
    let Admitted { voucher, proof } = admitted?;
    Ok(Session {
        connection: connection.clone(),
        destination,
        scheme,
        form: Form::Absolute,
        voucher,
        proof,
        spoken: Spoken::default(),
        authority: AskedFor::default(),
    })
}

fn tunnel(
    proxy: &Arc<Proxy>,
    connection: Arc<Connection>,
    mut request: Request<Incoming>,
    admitted: Result<Admitted, Denial>,
) -> Response<Body> {
    let destination = match destination(&request) {
        Ok(destination) => destination,
        Err(denial) => return refused(proxy, &connection, None, &denial),
    };
    let (way, Admitted { voucher, proof }) = match admitted.and_then(|it| Ok((way(proxy, &destination)?, it))) {
        Ok(admitted) => admitted,
        Err(denial) => return refused(proxy, &connection, Some(&destination), &denial),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let tunnel = Tunnel { connection, destination, voucher, proof };
    let task = {
        let proxy = proxy.clone();
        async move {
            let cut = proxy.cutting.clone();
            let passage = async {
                match way {
                    Way::Read(config) => decrypt::run(&proxy, tunnel, upgrade, config).await,
                    Way::Unread => Box::pin(unread::run(&proxy, tunnel, upgrade)).await,
                }
            };
            tokio::select! {
                biased; // at each turn of a connection: drawing lots has its price
                () = passage => {}
                () = cut.cancelled() => {}
            }
        }
    };
    // Boxed, because what a task is made of is copied several times while it is spawned.
    proxy.tasks.spawn(Box::pin(task));
    Response::new(Body::empty())
}

/// What becomes of a tunnel.
pub(super) enum Way {
    /// It is opened and every request in it judged.
    Read(Arc<rustls::ServerConfig>),
    /// It is relayed as it is.
    Unread,
}

/// Authority form and no other (RFC 9112, 3.2.3).
fn destination(request: &Request<Incoming>) -> Result<Destination, Denial> {
    let uri = request.uri();
    let authority = uri.authority().filter(|_| uri.scheme().is_none() && uri.path_and_query().is_none());
    let authority = authority.ok_or(Denial::RequestAmbiguous(Ambiguity::TargetForm))?;
    Destination::parse(authority.as_str(), None).map_err(|_| Denial::RequestAmbiguous(Ambiguity::Host))
}

fn way(proxy: &Proxy, destination: &Destination) -> Result<Way, Denial> {
    if proxy.draining.is_cancelled() {
        return Err(Denial::ShuttingDown);
    }
    let is_listed = !proxy.rules().policy.services_at(destination).is_empty();
    if !is_listed && destination.port != 443 {
        return Err(Denial::HostNotListed);
    }
    passage(proxy, destination)
}

/// Read, unless the policy lets unlisted hosts through and nobody lists this one. Our own host is nobody else's.
pub(super) fn passage(proxy: &Proxy, destination: &Destination) -> Result<Way, Denial> {
    let rules = proxy.rules();
    let is_open = destination.port == 443 && rules.policy.unlisted() == Unlisted::Tunnel;
    let may_pass = is_open && !rules.policy.lists_host(&destination.host) && !door::is_reserved(&destination.host);
    if may_pass {
        return Ok(Way::Unread);
    }
    proxy.authority.server_config(&destination.host).map(Way::Read).map_err(|_| Denial::Overloaded)
}

/// Refuses before there is an exchange: the sentence goes into the reason phrase, since no client shows a body here.
pub(super) fn refused(
    proxy: &Proxy,
    connection: &Connection,
    destination: Option<&Destination>,
    denial: &Denial,
) -> Response<Body> {
    proxy.metrics.exchange(None, denial.code());
    proxy.audit.note(Event::Connection {
        connection_id: connection.id,
        peer: connection.peer,
        destination: destination.cloned(),
        code: denial.code(),
    });
    let response = match proxy.rules().policy.proxy_auth() {
        ProxyAuth::None => refuse::connect(denial),
        ProxyAuth::Required => refuse::challenge(denial),
    };
    let mut response = response.map(Body::refusal);
    if denial.status() == StatusCode::BAD_REQUEST.as_u16() {
        // The rest of such a connection cannot be trusted to be in step.
        response.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_kept_for_once_more_unless_http1_was_last_spoken() {
        let spoken = Spoken::default();
        assert!(spoken.may_come_back(), "nothing is known");
        for (version, may_come_back) in [(Version::HTTP_11, false), (Version::HTTP_2, true), (Version::HTTP_10, false)]
        {
            spoken.heard(version);
            assert_eq!(spoken.clone().may_come_back(), may_come_back, "{version:?}");
        }
    }
}
