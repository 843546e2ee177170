//! One attempt to deliver a message: the name resolved once, the address judged, TLS, one POST, no redirects.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::notice::Notice;
use super::{Endpoint, Reach};
use crate::net::Dialer;

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    /// 2xx.
    Taken,
    /// 410: it wants nothing any more.
    Gone,
    /// Anything else; after how long to try again, where the receiver says so.
    Failed {
        /// `Retry-After` in seconds.
        retry_after: Option<Duration>,
    },
}

/// Delivers once; the caller bounds the time.
pub(super) async fn deliver(dialer: &Dialer, endpoint: &Endpoint, notice: &Notice, seconds: u64) -> Attempt {
    match post(dialer, endpoint, notice, seconds).await {
        Some(answer) => judge(&answer),
        None => Attempt::Failed { retry_after: None },
    }
}

fn judge<B>(answer: &Response<B>) -> Attempt {
    if answer.status().is_success() {
        return Attempt::Taken;
    }
    if answer.status() == StatusCode::GONE {
        return Attempt::Gone;
    }
    let seconds = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    Attempt::Failed { retry_after: seconds.map(Duration::from_secs) }
}

/// `None`: there was no answer.
async fn post(dialer: &Dialer, endpoint: &Endpoint, notice: &Notice, seconds: u64) -> Option<Response<()>> {
    let webhook = &endpoint.webhook;
    let reach = if webhook.private { Reach::Private } else { Reach::Public };
    let (stream, _) = dialer.dial(&webhook.destination, reach).await.ok()?;
    let host = webhook.destination.host.to_string();
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).ok()?;
    let stream = TlsConnector::from(endpoint.tls.clone()).connect(name, stream).await.ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    // It ends with this attempt, and with it the body of the answer, which means nothing.
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let answer = sender.send_request(request(endpoint, notice, seconds)?).await.ok()?;
    Some(answer.map(drop))
}

fn request(endpoint: &Endpoint, notice: &Notice, seconds: u64) -> Option<Request<Full<Bytes>>> {
    let webhook = &endpoint.webhook;
    let default_port = webhook.destination.port == 443;
    let host = if default_port { webhook.destination.host.to_string() } else { webhook.destination.to_string() };
    let mut signature = HeaderValue::try_from(endpoint.secret.sign(&notice.id, seconds, &notice.body)).ok()?;
    signature.set_sensitive(true);
    Request::post(webhook.target.as_str())
        .header(header::HOST, host)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, concat!("valetkey/", env!("CARGO_PKG_VERSION")))
        .header("webhook-id", notice.id.as_str())
        .header("webhook-timestamp", seconds)
        .header("webhook-signature", signature)
        .body(Full::new(notice.body.clone().into()))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_hundred_is_taken_and_a_redirect_is_not_followed() {
        let judged = |status: u16, retry_after: Option<&str>| {
            let mut answer = Response::builder().status(status);
            if let Some(value) = retry_after {
                answer = answer.header("retry-after", value);
            }
            judge(&answer.body(()).unwrap())
        };
        let failed = |seconds: Option<u64>| Attempt::Failed { retry_after: seconds.map(Duration::from_secs) };
        for status in [200, 202, 204] {
            assert_eq!(judged(status, None), Attempt::Taken);
        }
        assert_eq!(judged(410, None), Attempt::Gone);
        for status in [301, 307, 400, 401, 404, 500, 502] {
            assert_eq!(judged(status, None), failed(None), "{status}");
        }
        assert_eq!(judged(503, Some("7")), failed(Some(7)));
        assert_eq!(judged(429, Some("soon")), failed(None));
    }
}
