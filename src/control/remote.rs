//! The control API over TCP, for orchestrators elsewhere: TLS always, and nothing is answered to who proves nothing.
//!
//! Who calls is proven by `Authorization: Bearer`, or, where there is none, by the certificate of the connection. An
//! agent is refused by whichever of its identities shows: its certificate's, and its uid where it calls from this machine.
//! Where agents are known by their uid, a caller from this machine whose user the kernel does not tell is refused too.

mod names;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use jiff::Timestamp;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::front::{Arrival, Control};
use super::inbound::Inbound;
use super::refusal::Refusal;
use super::serve::{Answer, Service};
use crate::identity::{Refused, Verifier, Whence, chain_identity, whence};
use crate::model::Identity;
use crate::policy::Policy;

pub(super) use names::Names;
pub use tls::{RemoteTls, RemoteTlsError};

/// For a caller's TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a stream lasts that was opened with a proof without an end; its reader opens another, as for any end.
const STREAM_MAX: Duration = Duration::from_secs(15 * 60);
/// What is asked of a caller who has proven nothing (RFC 6750, 3).
const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"valetkey\"");
/// And of one whose token proves nothing.
const CHALLENGE_INVALID: HeaderValue = HeaderValue::from_static("Bearer realm=\"valetkey\", error=\"invalid_token\"");

/// The listener for callers from elsewhere.
pub struct Remote {
    /// Where they connect.
    pub listener: tokio::net::TcpListener,
    /// Who we are to them, and whose certificates of theirs are believed.
    pub tls: Arc<RemoteTls>,
    /// What is believed of them.
    pub trust: Arc<ArcSwap<Trust>>,
}

/// What proves a token, and the policy that it was made of: replaced together, so that whom the issuers of one policy
/// prove is never looked up in another.
pub struct Trust {
    /// What proves callers' tokens.
    pub verifier: Arc<Verifier>,
    /// The policy with its issuers.
    pub policy: Arc<Policy>,
}

/// What is known of a connection.
#[derive(Debug)]
pub(super) struct Greeted {
    certificate: Option<Identity>,
    /// Where it comes from.
    whence: Whence,
}

/// The control plane as callers from elsewhere meet it.
pub(super) struct Plane {
    pub(super) control: Arc<Control>,
    pub(super) tls: Arc<RemoteTls>,
    pub(super) trust: Arc<ArcSwap<Trust>>,
}

impl Service<TcpStream> for Plane {
    type Caller = Greeted;
    type Io = TlsStream<TcpStream>;

    async fn greet(&self, stream: TcpStream) -> Option<(Greeted, TlsStream<TcpStream>)> {
        let (peer, local) = (stream.peer_addr().ok()?, stream.local_addr().ok()?);
        // By whichever of this machine's addresses it comes: to go from one to another proves nobody to be elsewhere.
        let whence = whence(peer, local);
        let tls = Arc::clone(&self.tls);
        // It may read files.
        let serving = tokio::task::spawn_blocking(move || tls.serving()).await.ok()?;
        let acceptor = TlsAcceptor::from(serving.config.clone());
        let stream = match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%peer, %error, "a caller's TLS handshake failed");
                return None;
            }
            Err(_) => return None,
        };
        let chain = stream.get_ref().1.peer_certificates();
        let certificate = chain.and_then(|chain| chain_identity(chain, &serving.client_roots));
        Some((Greeted { certificate, whence }, stream))
    }

    async fn answer(&self, caller: &Greeted, request: Request<Inbound>) -> Answer {
        let has_token = request.headers().contains_key(header::AUTHORIZATION);
        let trust = self.trust.load_full();
        let proven = trust.prove(caller, &request).await;
        let proven = proven.as_ref().map(Option::as_ref).map_err(Clone::clone);
        let arrival = Arrival {
            names: self.tls.names(),
            proven,
            policy: &trust.policy,
            until: Some(self.proven_until(request.headers())),
        };
        let mut answer = self.control.respond(arrival, request).await;
        if answer.status() == StatusCode::UNAUTHORIZED {
            let challenge = if has_token { CHALLENGE_INVALID } else { CHALLENGE };
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        answer
    }
}

impl Plane {
    /// Until when a stream that this request opens may go on: as long as its token is good, and for a time where what
    /// proves the caller does not say, as the token of a file and a certificate, which can be withdrawn meanwhile.
    fn proven_until(&self, headers: &HeaderMap) -> Timestamp {
        let soon = self.control.parts.clock.now().wall + STREAM_MAX;
        Verifier::token_ends(headers).unwrap_or(soon)
    }
}

impl Trust {
    /// Who calls. An agent's own identity goes first, so that no token of somebody else's helps it.
    async fn prove(&self, caller: &Greeted, request: &Request<Inbound>) -> Result<Option<Identity>, Refusal> {
        let owner = match &caller.whence {
            Whence::Elsewhere => None,
            Whence::Here(Some(owner)) => Some(owner),
            Whence::Here(None) if self.policy.has_local_agents() => return refused(Refused::User),
            Whence::Here(None) => None,
        };
        let shown = [owner, caller.certificate.as_ref()].into_iter().flatten();
        if let Some(agent) = shown.into_iter().find(|identity| self.policy.is_agent(identity)) {
            return Ok(Some(agent.clone()));
        }
        match self.verifier.authorize(request.headers()).await {
            Ok(Some(identity)) => Ok(Some(identity)),
            Ok(None) => Ok(caller.certificate.clone()),
            Err(reason) => refused(reason),
        }
    }
}

fn refused<T>(reason: Refused) -> Result<T, Refusal> {
    tracing::info!(%reason, "a caller has not proven who it is");
    Err(Refusal::Unproven(reason))
}
