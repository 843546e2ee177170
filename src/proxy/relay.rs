//! The armed request goes upstream; its answer comes back unscrubbed.

mod connector;
mod pool;
mod returned;
mod upgrade;

use std::error::Error as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use super::Limits;
use super::body::{Meter, Upload};
use super::grant::dead;
use super::inject::{Armed, Tie};
use super::websocket::Switch;
use crate::lease::Reservation;
use crate::model::{Denial, ServiceName};
use crate::net::DialError;

pub use connector::TlsProfiles;
pub use pool::Upstream;
pub(super) use returned::returned;

use connector::{ConnectFault, DialledAddress};

/// An upstream's answer as it came, with whatever it echoes.
pub struct Answer {
    pub(super) response: Response<Incoming>,
    /// No body belongs to it: an answer to HEAD, 204, 304.
    pub(super) is_bodyless: bool,
    pub(super) service: ServiceName,
    /// Which address was dialled.
    pub(super) address: Option<SocketAddr>,
    pub(super) tie: Option<Arc<Tie>>,
    /// How long upstream took to its head, connecting included.
    pub(super) took: Duration,
    /// What became of a question to switch protocols.
    pub(super) switch: Switch,
}

/// Sends a request and waits for the head of its answer; a revoked lease ends the wait.
///
/// # Errors
/// [`Denial`] that says whose fault it was.
pub async fn relay(upstream: &Upstream, limits: &Limits, armed: Armed, meter: &Meter) -> Result<Answer, Denial> {
    let Armed { head, body, errand, reservation, tie, websocket } = armed;
    if let Some(handshake) = websocket {
        let asking = upgrade::Asking { head, errand, use_taken: UseTaken(reservation), tie, handshake };
        return asking.ask(upstream, limits).await;
    }
    let is_head = head.method == Method::HEAD;
    let upload = Upload::new(body, meter.clone(), limits.idle_timeout, tie.clone());
    let upload_fault = upload.fault();
    let client = upstream.client(&errand)?;
    let service = errand.service;
    let use_taken = UseTaken(reservation);
    let begun = Instant::now();
    let sending = client.request(Request::from_parts(head, upload));
    let sent = match &tie {
        Some(tie) => tokio::select! {
            sent = tokio::time::timeout(limits.upstream_head_timeout, sending) => sent,
            () = tie.membership.cut() => return Err(dead(&tie.lease)),
        },
        None => tokio::time::timeout(limits.upstream_head_timeout, sending).await,
    };
    let mut response = match sent {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            if error.is_connect() {
                use_taken.give_back();
            }
            // Over HTTP/2 the library forgets why it gave up on a body.
            return Err(upload_fault.get().map_or_else(|| blame(&error), |fault| fault.denial()));
        }
        Err(_elapsed) => return Err(Denial::UpstreamTimeout),
    };
    let address = response.extensions_mut().remove::<DialledAddress>().map(|dialled| dialled.0);
    if response.status().is_informational() {
        // Nobody has asked to switch protocols; what follows such a head is no HTTP.
        return Err(Denial::UpstreamUnreachable);
    }
    let is_bodyless = is_head || matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    Ok(Answer { response, is_bodyless, service, address, tie, took: begun.elapsed(), switch: Switch::NotAsked })
}

/// A use is spent unless it is shown that no byte was sent: a client that hangs up at the right moment gains nothing.
struct UseTaken(Option<Reservation>);

impl UseTaken {
    fn give_back(mut self) {
        // Dropped unspent.
        drop(self.0.take());
    }
}

impl Drop for UseTaken {
    fn drop(&mut self) {
        if let Some(reservation) = &mut self.0 {
            reservation.spend();
        }
    }
}

/// Whose fault a failed exchange was. What the libraries say stays here: it could quote the request.
fn blame(error: &hyper_util::client::legacy::Error) -> Denial {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(fault) = cause.downcast_ref::<ConnectFault>() {
            return unconnected(fault);
        }
        source = cause.source();
    }
    Denial::UpstreamUnreachable
}

fn unconnected(fault: &ConnectFault) -> Denial {
    match fault {
        ConnectFault::Dial(DialError::Forbidden) => Denial::AddressForbidden,
        ConnectFault::Dial(DialError::Timeout) | ConnectFault::Timeout => Denial::UpstreamTimeout,
        ConnectFault::Dial(DialError::Unresolved | DialError::Unreachable) => Denial::UpstreamUnreachable,
        ConnectFault::Tls => Denial::UpstreamTls,
    }
}
