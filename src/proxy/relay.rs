//! The armed request goes upstream; its answer comes back unscrubbed.

mod certified;
mod connector;
mod failure;
mod heads;
mod interim;
mod lines;
mod parent;
mod pool;
mod redirect;
mod returned;
mod upgrade;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, Request, Response, StatusCode, header};
use http_body::Body as _;
use hyper::body::Incoming;

use super::Limits;
use super::flow::{Answering, Meter, Upload, Want, Wanted};
use super::grant::dead;
use super::inject::{Armed, Tie};
use super::websocket::Switch;
use crate::lease::{Lease, Reservation};
use crate::model::ServiceName;
use crate::model::denial::Unclear;

pub use connector::TlsProfiles;
pub(super) use failure::Setback;
pub use parent::Parent;
pub use pool::Upstream;
pub(super) use returned::returned;

use failure::{Repeat, Sent};
use interim::Interims;
use lines::NotAnswered;

/// An upstream's answer as it came, with whatever it echoes.
pub struct Answer {
    pub(super) response: Response<Incoming>,
    /// No body belongs to it: an answer to HEAD, 204, 304.
    pub(super) is_bodyless: bool,
    pub(super) service: ServiceName,
    /// Which address was dialled.
    pub(super) address: Option<SocketAddr>,
    pub(super) tie: Option<Arc<Tie>>,
    /// Tells the upload when the answer is over.
    pub(super) answering: Answering,
    /// How long upstream took to its head, connecting included.
    pub(super) took: Duration,
    /// What became of a question to switch protocols.
    pub(super) switch: Switch,
}

/// Sends a request and waits for the head of its answer; a revoked lease ends the wait.
///
/// # Errors
/// [`Setback`]: a denial that says whose fault it was, or that nothing was done and it may be tried again.
pub(super) async fn relay(
    upstream: &Upstream,
    limits: &Limits,
    armed: Armed,
    meter: &Meter,
) -> Result<Answer, Setback> {
    let Armed { head, body, errand, reservation, tie, websocket, tap, chunks } = armed;
    if let Some(handshake) = websocket {
        let asking = upgrade::Asking { head, errand, use_taken: UseTaken(reservation), tie, handshake };
        return Ok(Box::pin(asking.ask(upstream, limits)).await?);
    }
    let is_head = head.method == Method::HEAD;
    let repeat = Repeat::of(&head.method);
    let wanted = if head.headers.contains_key(header::EXPECT) { Wanted::NotYet } else { Wanted::Yes };
    let want = (!body.is_end_stream()).then(|| Want::new(wanted, body));
    let upload = want.clone().map_or_else(Upload::none, |want| {
        Upload::new(want, meter.clone(), limits.idle_timeout, tie.clone(), (tap, chunks))
    });
    let upload_fault = upload.fault();
    let lines = upstream.lines(&errand)?;
    let service = errand.service;
    let use_taken = UseTaken(reservation);
    let begun = Instant::now();
    let mut request = Box::new(Request::from_parts(head, upload)); // what waits for the answer had better be small
    let interims = Interims::of(&mut request, want.clone().filter(|_| wanted == Wanted::NotYet));
    let whose = tie.as_deref().map(|tie| tie.lease.terms().agent.clone());
    let sending = pin!(lines.send(&whose, request)); // in one place, and not moved with what waits for it
    let sent = tokio::select! {
        sent = tokio::time::timeout(limits.upstream_head_timeout, interims.within(sending)) => sent,
        lease = cut(tie.as_deref()) => return Err(dead(lease).into()),
    };
    let (response, address) = match sent {
        Ok(Some(Ok(answered))) => answered,
        Ok(None) => return Err(repeat.after(Unclear::Broke).into()),
        Ok(Some(Err(error))) => {
            if matches!(error, NotAnswered::Unconnected(_)) {
                use_taken.give_back();
            }
            // Over HTTP/2 the library forgets why it gave up on a body.
            return Err(match upload_fault.as_ref().and_then(|fault| fault.get()) {
                Some(fault) => fault.denial().into(),
                None => Sent::of(&error).setback(repeat),
            });
        }
        Err(_elapsed) => return Err(repeat.after(Unclear::Late).into()),
    };
    if response.status().is_informational() {
        // Nobody has asked to switch protocols; what follows such a head is no HTTP.
        return Err(repeat.after(Unclear::Broke).into());
    }
    if response.headers().len() > limits.headers_max {
        // As over HTTP/1, where the parser counts.
        return Err(repeat.after(Unclear::Broke).into());
    }
    if let Some(want) = &want {
        want.answered(response.status());
    }
    if let Some(tie) = &tie {
        redirect::note(&response, errand.scheme, &errand.destination, &tie.lease);
    }
    let is_bodyless = is_head || matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let answering = Answering { want, upload_fault };
    let took = begun.elapsed();
    let address = Some(address);
    Ok(Answer { response, is_bodyless, service, address, tie, answering, took, switch: Switch::NotAsked })
}

/// Waits for the end of the lease, where there is one.
async fn cut(tie: Option<&Tie>) -> &Lease {
    match tie {
        Some(tie) => {
            tie.membership.cut().await;
            &tie.lease
        }
        None => std::future::pending().await,
    }
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
