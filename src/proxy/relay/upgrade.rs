//! A question to switch protocols goes upstream on a connection of its own, over HTTP/1.1.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header, request};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1;

use super::connector::Socket;
use super::failure::blame;
use super::interim::Interims;
use super::{Answer, Upstream, UseTaken};
use crate::model::Denial;
use crate::proxy::Limits;
use crate::proxy::flow::Answering;
use crate::proxy::grant::dead;
use crate::proxy::inject::{Errand, Tie};
use crate::proxy::websocket::{Agreed, Handshake, Switch};

/// A question that carries the real credential.
pub(super) struct Asking {
    pub(super) head: request::Parts,
    pub(super) errand: Errand,
    pub(super) use_taken: UseTaken,
    pub(super) tie: Option<Arc<Tie>>,
    pub(super) handshake: Handshake,
}

impl Asking {
    /// Sends it and waits for the head of the answer; a revoked lease ends the wait. Nothing that the agent has sent
    /// after its question goes with it.
    pub(super) async fn ask(self, upstream: &Upstream, limits: &Limits) -> Result<Answer, Denial> {
        let Self { head, errand, use_taken, tie, handshake } = self;
        let begun = Instant::now();
        let asking = send(upstream, limits, head, &errand, use_taken);
        let asked = match &tie {
            Some(tie) => tokio::select! {
                asked = tokio::time::timeout(limits.upstream_head_timeout, asking) => asked,
                () = tie.membership.cut() => return Err(dead(&tie.lease)),
            },
            None => tokio::time::timeout(limits.upstream_head_timeout, asking).await,
        };
        let (mut response, address) = asked.map_err(|_elapsed| Denial::UpstreamTimeout)??;
        let status = response.status();
        let switch = if status == StatusCode::SWITCHING_PROTOCOLS {
            handshake.check(response.headers())?;
            Switch::Agreed(Box::new(Agreed { handshake, upstream: hyper::upgrade::on(&mut response) }))
        } else if status.is_informational() {
            return Err(Denial::UpstreamUnreachable);
        } else {
            Switch::Declined(handshake)
        };
        let is_bodyless =
            matches!(status, StatusCode::SWITCHING_PROTOCOLS | StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let (service, address) = (errand.service, Some(address));
        let answering = Answering::default();
        Ok(Answer { response, is_bodyless, service, address, tie, answering, took: begun.elapsed(), switch })
    }
}

async fn send(
    upstream: &Upstream,
    limits: &Limits,
    head: request::Parts,
    errand: &Errand,
    use_taken: UseTaken,
) -> Result<(Response<Incoming>, SocketAddr), Denial> {
    let socket = match upstream.connector(errand)?.http1_only().connect().await {
        Ok(socket) => socket,
        Err(fault) => {
            use_taken.give_back();
            return Err(blame(&fault));
        }
    };
    let address = socket.address;
    let mut request = Request::from_parts(origin_form(head, errand)?, Empty::<Bytes>::new());
    let interims = Interims::of(&mut request, None);
    // What the library says of a failure could quote the request.
    match interims.within(exchange(limits, socket, request)).await {
        Some(Ok(response)) => Ok((response, address)),
        Some(Err(_)) | None => Err(Denial::UpstreamUnreachable),
    }
}

/// The client, with every option spelled out.
async fn exchange(
    limits: &Limits,
    socket: Socket,
    request: Request<Empty<Bytes>>,
) -> Result<Response<Incoming>, hyper::Error> {
    let (mut sender, connection) = http1::Builder::new()
        .preserve_header_case(true)
        .max_buf_size(limits.head_bytes_max.max(8192))
        .max_headers(limits.headers_max)
        .handshake(socket)
        .await?;
    // Ends with the answer's body, or when it hands its socket over, or when nobody waits for the answer.
    tokio::spawn(connection.with_upgrades());
    sender.send_request(request).await
}

/// As a request stands on a connection to its origin (RFC 9112, 3.2.1).
fn origin_form(mut head: request::Parts, errand: &Errand) -> Result<request::Parts, Denial> {
    let authority = errand.destination.authority(errand.scheme);
    let mut headers = HeaderMap::with_capacity(head.headers.len() + 1);
    headers.insert(header::HOST, HeaderValue::try_from(authority).map_err(|_| Denial::Internal)?);
    for (name, value) in head.headers.iter().filter(|(name, _)| *name != header::HOST) {
        headers.append(name.clone(), value.clone());
    }
    head.headers = headers;
    head.uri = Uri::from(head.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")));
    Ok(head)
}
