//! A small client of the control API, for our own command line: over its Unix socket, or over the channel of a sidecar
//! that was started with `--supervised`.
//!
//! On the socket there is one connection per call: a call is rare, and a connection costs tens of microseconds.

mod events;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub use self::events::Events;
pub use super::types::Ready;
use super::types::{
    CompletionAsked, Explanation, ExplanationAsked, Introspection, IntrospectionAsked, LeasePage, LeaseView, ListQuery,
    Minted, NewNonce, PlainNonce, Problem, RenewalAsked, RevocationAsked, Revoked, ServiceList, TtlAsked, WhoAmI,
};

/// For a whole call, from connecting to the last byte.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// For a sidecar to be ready, its credentials' commands included.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
/// What a channel is called in errors.
const CHANNEL: &str = "its channel";
/// The scheme and authority that HTTP/2 wants.
const CHANNEL_ORIGIN: &str = "http://localhost";
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
    /// It took longer than 30 seconds (two minutes to be ready).
    #[error("the sidecar did not answer in time")]
    Timeout,
    /// What came is no answer of this API: something else listens there, or another version.
    #[error("the answer (status {0}) is not one of the control API")]
    Unintelligible(StatusCode),
    /// What was asked cannot be sent: an Idempotency-Key that no header may hold.
    #[error("the request cannot be sent: {0}")]
    Unsendable(#[from] http::Error),
}

/// Calls one sidecar.
#[derive(Debug, Clone)]
pub struct Client {
    way: Way,
}

/// How a call gets there.
#[derive(Debug, Clone)]
enum Way {
    /// A connection of its own for each call.
    Path(PathBuf),
    /// All calls share one; it is closed with the last clone.
    Channel(http2::SendRequest<Full<Bytes>>),
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
        Self { way: Way::Path(path.to_owned()) }
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

    /// Ends all live nonces of one's own agents that are of an agent, for a task, of a service, or all.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn revoke_many(&self, asked: &RevocationAsked) -> Result<Revoked, ClientError> {
        self.read(Call::post("/v1/revocations", asked)).await
    }

    /// Ends all nonces of one's own task, and lets none be minted for it for an hour.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn complete(&self, task: &str, asked: &CompletionAsked) -> Result<Revoked, ClientError> {
        self.read(Call::post(&format!("/v1/tasks/{}/complete", escaped(task)), asked)).await
    }

    /// Whether a request would be allowed, and why.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn explain(&self, asked: &ExplanationAsked) -> Result<Explanation, ClientError> {
        self.read(Call::post("/v1/explain", asked)).await
    }

    /// A client of the sidecar at the other end of a socket pair (`valetkey serve --supervised`), over HTTP/2. Clones
    /// share the channel; when the last one and the last [`Events`] are dropped it is closed as soon as the
    /// runtime turns, which ends that sidecar.
    /// Nobody else may hold this end: a child that inherits it could mint. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn over(stream: std::os::unix::net::UnixStream) -> Result<Self, ClientError> {
        let refused = |source| ClientError::Connect { path: CHANNEL.into(), source };
        stream.set_nonblocking(true).map_err(refused)?;
        let stream = UnixStream::from_std(stream).map_err(refused)?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        // How it ends shows in the calls.
        tokio::spawn(connection);
        Ok(Self { way: Way::Channel(sender) })
    }

    /// Waits until the sidecar serves, at most two minutes, and tells where. For a client of [`Client::over`] this is
    /// the first call; when the sidecar ends instead, the channel breaks at once ([`ClientError::Broken`]).
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn ready(&self) -> Result<Ready, ClientError> {
        let (status, body) = self.send_within(READY_TIMEOUT, Call::get("/v1/ready")).await?;
        serde_json::from_slice(&body).map_err(|_| ClientError::Unintelligible(status))
    }

    /// Another period for the same nonce, from now on and within its ceiling and its life; `ttl` in seconds, the
    /// policy's default where `None`. The expiry never moves backwards. What made it shorter than asked is in the answer
    /// (`ttl_capped_by`); once that is `lifetime`, further renewals give nothing more.
    ///
    /// # Errors
    /// [`ClientError`]; refused as `not_renewable` when it is over.
    pub async fn renew(&self, id: &str, ttl: Option<u64>) -> Result<LeaseView, ClientError> {
        // What no `u32` holds is refused by the sidecar, and so is the largest one.
        let ttl = ttl.map(|seconds| TtlAsked::Seconds(u32::try_from(seconds).unwrap_or(u32::MAX)));
        self.read(Call::post(&format!("{}/renew", lease_target(id)), &RenewalAsked { ttl })).await
    }

    /// The audit's records from now on, of this agent and task where they are named.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn events(&self, agent: Option<&str>, task: Option<&str>) -> Result<Events, ClientError> {
        let call = Call::get(with_query("/v1/events", &[("agent", agent), ("task", task)]));
        let (answer, connection) = timeout(CALL_TIMEOUT, self.open(call)).await.map_err(|_| ClientError::Timeout)??;
        if answer.status().is_success() {
            return Ok(Events::new(answer.into_body(), connection));
        }
        let (status, body) = timeout(CALL_TIMEOUT, whole(answer)).await.map_err(|_| ClientError::Timeout)??;
        Err(refused(status, &body))
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
        self.send_within(CALL_TIMEOUT, call).await
    }

    async fn send_within(&self, limit: Duration, call: Call) -> Result<(StatusCode, Bytes), ClientError> {
        let (status, body) = timeout(limit, self.exchange(call)).await.map_err(|_| ClientError::Timeout)??;
        if status.is_success() {
            return Ok((status, body));
        }
        Err(refused(status, &body))
    }

    async fn exchange(&self, call: Call) -> Result<(StatusCode, Bytes), ClientError> {
        // The connection ends with the call.
        let (answer, _connection) = self.open(call).await?;
        whole(answer).await
    }

    /// Sends a call and gives the answer as soon as its head is there.
    async fn open(&self, call: Call) -> Result<(Response<Incoming>, Option<Connection>), ClientError> {
        let path = match &self.way {
            Way::Channel(sender) => {
                let request = call.into_request(CHANNEL_ORIGIN)?;
                return Ok((sender.clone().send_request(request).await?, None));
            }
            Way::Path(path) => path,
        };
        let refused = |source| ClientError::Connect { path: path.clone(), source };
        let stream = UnixStream::connect(path).await.map_err(refused)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = Connection(tokio::spawn(connection));
        let mut request = call.into_request("")?;
        request.headers_mut().insert(header::HOST, HeaderValue::from_static("localhost"));
        Ok((sender.send_request(request).await?, Some(connection)))
    }
}

/// The task that moves a connection's bytes; nothing of it outlives the call.
struct Connection(JoinHandle<hyper::Result<()>>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
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

    /// `origin` stands before the target.
    fn into_request(self, origin: &str) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut request = Request::builder().method(self.method).uri(format!("{origin}{}", self.target));
        if self.body.is_some() {
            request = request.header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(key) = self.idempotency_key {
            request = request.header("idempotency-key", key);
        }
        request.body(Full::new(self.body.unwrap_or_default()))
    }
}

async fn whole(answer: Response<Incoming>) -> Result<(StatusCode, Bytes), ClientError> {
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|_| ClientError::Unintelligible(status))?;
    Ok((status, body.to_bytes()))
}

fn refused(status: StatusCode, body: &[u8]) -> ClientError {
    match serde_json::from_slice(body) {
        Ok(problem) => ClientError::Refused(Box::new(problem)),
        Err(_) => ClientError::Unintelligible(status),
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
    with_query("/v1/nonces", &pairs)
}

/// The path with those parameters that there are.
fn with_query(path: &str, pairs: &[(&str, Option<&str>)]) -> String {
    let pairs: Vec<_> =
        pairs.iter().filter_map(|(name, value)| Some(format!("{name}={}", escaped((*value)?)))).collect();
    if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) }
}

fn escaped(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}
