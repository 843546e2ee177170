//! A small client of the control API over its Unix socket, for our own command line.
//!
//! One connection per call: a call is rare, and a connection costs tens of microseconds.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::types::{
    Introspection, IntrospectionAsked, LeasePage, LeaseView, ListQuery, Minted, NewNonce, PlainNonce, Problem,
    ServiceList, WhoAmI,
};

/// For a whole call, from connecting to the last byte.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// An answer in bytes at most.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// All but the unreserved characters of RFC 3986, 2.3.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Why a call did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket cannot be reached: no sidecar, or no permission.
    #[error("cannot reach the sidecar at {path}: {source}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The sidecar refused.
    #[error("{}: {}", .0.code, .0.detail)]
    Refused(Box<Problem>),
    /// The connection broke.
    #[error("the connection to the sidecar broke: {0}")]
    Broken(#[from] hyper::Error),
    /// It took longer than 30 seconds.
    #[error("the sidecar did not answer within 30 seconds")]
    Timeout,
    /// What came is no answer of this API: something else listens there, or another version.
    #[error("the answer (status {0}) is not one of the control API")]
    Unintelligible(StatusCode),
    /// What was asked cannot be sent: an Idempotency-Key that no header may hold.
    #[error("the request cannot be sent: {0}")]
    Unsendable(#[from] http::Error),
}

/// Calls one control socket.
#[derive(Debug, Clone)]
pub struct Client {
    path: PathBuf,
}

/// A call before it is sent.
struct Call {
    method: Method,
    target: String,
    body: Option<Bytes>,
    idempotency_key: Option<String>,
}

impl Client {
    /// A client of the socket at `path`; nothing is opened yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Mints a nonce; with a key a retry gets the same one.
    ///
    /// # Errors
    /// [`ClientError`], as in all calls.
    pub async fn mint(&self, asked: &NewNonce, idempotency_key: Option<&str>) -> Result<Minted, ClientError> {
        let mut call = Call::post("/v1/nonces", asked);
        call.idempotency_key = idempotency_key.map(str::to_owned);
        self.read(call).await
    }

    /// One page of leases.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list(&self, query: &ListQuery) -> Result<LeasePage, ClientError> {
        self.read(Call::get(list_target(query))).await
    }

    /// One lease.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn show(&self, id: &str) -> Result<LeaseView, ClientError> {
        self.read(Call::get(lease_target(id))).await
    }

    /// Ends a lease; one that is over already is no error.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn revoke(&self, id: &str) -> Result<(), ClientError> {
        let call = Call { method: Method::DELETE, ..Call::get(lease_target(id)) };
        self.send(call).await.map(|_| ())
    }

    /// A client of the sidecar at the other end of an inherited socket pair (`valetkey serve --supervised`), over HTTP/2.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn over(_stream: std::os::unix::net::UnixStream) -> Result<Self, ClientError> {
        todo!()
    }

    /// x
    pub async fn ready(&self) -> Result<(), ClientError> {
        todo!()
    }
    /// A later expiry of the same nonce, within its ceilings; `ttl` in seconds, the policy's own where `None`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn renew(&self, _id: &str, _ttl: Option<u64>) -> Result<LeaseView, ClientError> {
        todo!()
    }

    /// The audit's events from now on, of this agent and task where they are named.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn events(&self, _agent: Option<&str>, _task: Option<&str>) -> Result<Events, ClientError> {
        todo!()
    }

    /// What a plain nonce is.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn introspect(&self, nonce: &PlainNonce) -> Result<Introspection, ClientError> {
        let asked = IntrospectionAsked { nonce: Some(nonce.clone()), token: None };
        self.read(Call::post("/v1/introspect", &asked)).await
    }

    /// What may be minted.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn services(&self) -> Result<ServiceList, ClientError> {
        self.read(Call::get("/v1/services")).await
    }

    /// Who we are to the sidecar; also the simplest proof that it is there.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn whoami(&self) -> Result<WhoAmI, ClientError> {
        self.read(Call::get("/v1/whoami")).await
    }

    /// The CA certificate, PEM.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn ca_pem(&self) -> Result<String, ClientError> {
        let (status, body) = self.send(Call::get("/ca.pem")).await?;
        String::from_utf8(body.into()).map_err(|_| ClientError::Unintelligible(status))
    }

    async fn read<T: DeserializeOwned>(&self, call: Call) -> Result<T, ClientError> {
        let (status, body) = self.send(call).await?;
        serde_json::from_slice(&body).map_err(|_| ClientError::Unintelligible(status))
    }

    async fn send(&self, call: Call) -> Result<(StatusCode, Bytes), ClientError> {
        let (status, body) = timeout(CALL_TIMEOUT, self.exchange(call)).await.map_err(|_| ClientError::Timeout)??;
        if status.is_success() {
            return Ok((status, body));
        }
        match serde_json::from_slice(&body) {
            Ok(problem) => Err(ClientError::Refused(Box::new(problem))),
            Err(_) => Err(ClientError::Unintelligible(status)),
        }
    }

    async fn exchange(&self, call: Call) -> Result<(StatusCode, Bytes), ClientError> {
        let refused = |source| ClientError::Connect { path: self.path.clone(), source };
        let stream = UnixStream::connect(&self.path).await.map_err(refused)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let answered = async {
            let answer = sender.send_request(call.into_request()?).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|_| ClientError::Unintelligible(status))?;
            Ok((status, body.to_bytes()))
        };
        let mut answered = std::pin::pin!(answered);
        // The connection is driven here, so that nothing outlives the call.
        tokio::select! {
            answer = answered.as_mut() => answer,
            ended = connection => match ended {
                Ok(()) => answered.await,
                Err(error) => Err(error.into()),
            },
        }
    }
}

/// The audit's events, as they come.
pub struct Events(());

impl Events {
    /// The next record, as the audit has it; `None` once the sidecar is gone.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn next(&mut self) -> Result<Option<serde_json::Value>, ClientError> {
        todo!()
    }
}

impl Call {
    fn get(target: impl Into<String>) -> Self {
        Self { method: Method::GET, target: target.into(), body: None, idempotency_key: None }
    }

    fn post<T: Serialize>(target: &str, body: &T) -> Self {
        // Our own types have text keys and no failing serializers; an empty body would be refused anyway.
        let body = serde_json::to_vec(body).unwrap_or_default();
        Self { method: Method::POST, body: Some(body.into()), ..Self::get(target) }
    }

    fn into_request(self) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut request = Request::builder().method(self.method).uri(self.target).header(header::HOST, "localhost");
        if self.body.is_some() {
            request = request.header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(key) = self.idempotency_key {
            request = request.header("idempotency-key", key);
        }
        request.body(Full::new(self.body.unwrap_or_default()))
    }
}

fn lease_target(id: &str) -> String {
    format!("/v1/nonces/{}", escaped(id))
}

fn list_target(query: &ListQuery) -> String {
    let limit = query.limit.map(|limit| limit.to_string());
    let pairs = [
        ("agent", query.agent.as_deref()),
        ("task", query.task.as_deref()),
        ("service", query.service.as_deref()),
        ("after", query.after.as_deref()),
        ("limit", limit.as_deref()),
    ];
    let pairs: Vec<_> =
        pairs.iter().filter_map(|(name, value)| Some(format!("{name}={}", escaped((*value)?)))).collect();
    if pairs.is_empty() { "/v1/nonces".to_owned() } else { format!("/v1/nonces?{}", pairs.join("&")) }
}

fn escaped(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}
