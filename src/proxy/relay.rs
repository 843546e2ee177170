//! The armed request goes upstream; its answer comes back unscrubbed.

mod connector;
mod pool;

use std::error::Error as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use super::Limits;
use super::body::{Meter, Upload};
use super::grant::dead;
use super::inject::{Armed, Tie};
use crate::lease::Reservation;
use crate::model::{Denial, ServiceName};
use crate::net::DialError;

pub use connector::TlsProfiles;
pub use pool::Upstream;

use connector::{ConnectFault, DialledAddress};

/// An upstream's answer, still with whatever it echoes.
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
}

/// Fields that end here on the way back, or that would lead the client around us.
const NOT_RETURNED: [HeaderName; 9] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::ALT_SVC,
    // The session that a credential opened is a credential too; and a cookie would be refused when it comes back.
    header::SET_COOKIE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-status"),
];

/// Sends a request and waits for the head of its answer; a revoked lease ends the wait.
///
/// # Errors
/// [`Denial`] that says whose fault it was.
pub async fn relay(upstream: &Upstream, limits: &Limits, armed: Armed, meter: &Meter) -> Result<Answer, Denial> {
    let Armed { head, body, errand, reservation, tie } = armed;
    let is_head = head.method == Method::HEAD;
    let upload = Upload::new(body, meter.clone(), limits.idle_timeout, tie.clone());
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
            return Err(blame(&error));
        }
        Err(_elapsed) => return Err(Denial::UpstreamTimeout),
    };
    let address = response.extensions_mut().remove::<DialledAddress>().map(|dialled| dialled.0);
    let headers = std::mem::take(response.headers_mut());
    *response.headers_mut() = returned(headers);
    let is_bodyless = is_head || matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    Ok(Answer { response, is_bodyless, service, address, tie, took: begun.elapsed() })
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

/// Takes out what ends here, in a new map, so that the order of the rest is kept.
fn returned(headers: HeaderMap) -> HeaderMap {
    if !NOT_RETURNED.iter().any(|name| headers.contains_key(name)) {
        return headers;
    }
    let kept = headers.iter().filter(|(name, _)| !NOT_RETURNED.contains(name));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Whose fault a failed exchange was. What the libraries say stays here: it could quote the request.
fn blame(error: &hyper_util::client::legacy::Error) -> Denial {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(fault) = cause.downcast_ref::<ConnectFault>() {
            return match fault {
                ConnectFault::Dial(DialError::Forbidden) => Denial::AddressForbidden,
                ConnectFault::Dial(DialError::Timeout) | ConnectFault::Timeout => Denial::UpstreamTimeout,
                ConnectFault::Dial(DialError::Unresolved | DialError::Unreachable) => Denial::UpstreamUnreachable,
                ConnectFault::Tls => Denial::UpstreamTls,
            };
        }
        if let Some(fault) = cause.downcast_ref::<super::body::UploadFault>() {
            return fault.denial();
        }
        source = cause.source();
    }
    Denial::UpstreamUnreachable
}
