//! A small HTTPS client for key sets and token reviews: one request on one connection, no redirect, all of it bounded.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::model::Destination;
use crate::net::{Dialer, Reach};

/// For one question, from the name to the last byte of the answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Fields and bytes of an answer's head at most.
const HEADERS_MAX: usize = 100;
/// Bytes of it at most.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Longest path, in bytes.
const PATH_BYTES_MAX: usize = 1024;

/// An `https://` address; the host is verified by its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Where it is.
    pub destination: Destination,
    /// The path, with a query if there is one.
    pub path: String,
}

impl Address {
    /// `https://HOST[:PORT][/PATH]`, without user, password and fragment.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("https://")?;
        let end = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let destination = Destination::parse(authority, Some(443)).ok()?;
        let is_fine = path.len() <= PATH_BYTES_MAX && path.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
        let path = if path.is_empty() { "/" } else { path };
        is_fine.then(|| Self { destination, path: path.to_owned() })
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "https://{}{}", self.destination, self.path)
    }
}

/// What asks.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) dialer: Arc<Dialer>,
    pub(super) tls: Arc<ClientConfig>,
}

impl Client {
    /// `GET`, or `POST` of JSON; the body of a 200 or 201, at most this long.
    pub(super) async fn ask(&self, to: &Address, post: Option<Post>, bytes_max: usize) -> Result<Vec<u8>, String> {
        let asked = timeout(TIMEOUT, self.exchange(to, post, bytes_max)).await;
        asked.unwrap_or_else(|_| Err(format!("no answer within {} seconds", TIMEOUT.as_secs())))
    }

    async fn exchange(&self, to: &Address, post: Option<Post>, bytes_max: usize) -> Result<Vec<u8>, String> {
        // A cluster's API server is at a private address. Metadata and our own listeners are refused all the same.
        let (stream, _) = self.dialer.dial(&to.destination, Reach::Private).await.map_err(|error| error.to_string())?;
        let host = to.destination.host.as_str().to_owned();
        let name = ServerName::try_from(host).map_err(|_| "the host has no name to verify".to_owned())?;
        let tls = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream);
        let stream = tls.await.map_err(|error| format!("TLS: {error}"))?;
        let (mut sender, connection) = http1::Builder::new()
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|_| "HTTP cannot be spoken".to_owned())?;
        let request = request(to, post)?;
        let answer = async {
            let answer = sender.send_request(request).await.map_err(|_| "the answer is no HTTP".to_owned())?;
            if !matches!(answer.status(), StatusCode::OK | StatusCode::CREATED) {
                return Err(format!("the server answered {}", answer.status().as_u16()));
            }
            let body = Limited::new(answer.into_body(), bytes_max).collect().await;
            let body = body.map_err(|_| "the answer was cut, or is too long".to_owned())?;
            Ok(body.to_bytes().to_vec())
        };
        // The connection lives and ends with its one exchange: no task is left behind.
        let mut connection = std::pin::pin!(connection);
        let mut answer = std::pin::pin!(answer);
        tokio::select! {
            biased;
            answer = answer.as_mut() => answer,
            _ = connection.as_mut() => answer.await,
        }
    }
}

/// What is sent with a `POST`.
pub(super) struct Post {
    pub(super) authorization: HeaderValue,
    pub(super) json: String,
}

fn request(to: &Address, post: Option<Post>) -> Result<Request<Full<Bytes>>, String> {
    let port = if to.destination.port == 443 { String::new() } else { format!(":{}", to.destination.port) };
    let host = to.destination.host.as_str();
    let host = if host.contains(':') { format!("[{host}]{port}") } else { format!("{host}{port}") };
    let request =
        Request::builder().uri(&to.path).header(header::HOST, host).header(header::ACCEPT, "application/json");
    let request = match post {
        None => request.method("GET").body(Full::default()),
        Some(post) => request
            .method("POST")
            .header(header::AUTHORIZATION, post.authorization)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(post.json)),
    };
    request.map_err(|_| "the address cannot be asked".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_https_and_nothing_odd() {
        let shown = |text: &str| Address::parse(text).map(|address| (address.destination.port, address.path));
        assert_eq!(shown("https://a.test"), Some((443, "/".into())));
        assert_eq!(shown("https://a.test:8443/x/jwks?y=1"), Some((8443, "/x/jwks?y=1".into())));
        assert_eq!(shown("https://[::1]:1/k"), Some((1, "/k".into())));
        for bad in [
            "http://a.test",
            "a.test",
            "https://",
            "https://u@a.test/",
            "https://a.test/#x",
            "https://a.test/ x",
            "https:///x",
        ] {
            assert_eq!(Address::parse(bad), None, "{bad}");
        }
    }
}
