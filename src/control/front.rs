//! The front of the control API: is this for us, who calls, which call, and then the call.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body;
use jiff::Timestamp;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Parts;
use super::caller::Caller;
use super::calls;
use super::delegate;
use super::events;
use super::explaining;
use super::idempotency::{KEY_CHARACTERS_MAX, Key, Keys};
use super::inbound::Inbound;
use super::leaks;
use super::mint;
use super::query::{EventsAsked, ListAsked};
use super::quota::{Calls, Kind};
use super::refusal::{Forbidden, Refusal};
use super::remote::Names;
use super::renew;
use super::revoking;
use super::risk;
use super::route::Call;
use super::serve::{Answer, Limits, Service};
use super::types::Mistake;
use crate::audit::Event;
use crate::json::{Json, Malformed};
use crate::lease::Lease;
use crate::model::{Identity, NonceId};
use crate::policy::Policy;

/// What the control socket puts up with.
pub(super) const LIMITS: Limits = Limits {
    connections_max: 256,
    head_timeout: Duration::from_secs(10),
    connection_age_max: Duration::from_secs(300),
    drain_timeout: Duration::from_secs(5),
};
/// A body in bytes at most.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// For a whole body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Revocations of many that go through all leases at once; others wait.
const WALKS_MAX: usize = 4;
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Only browsers send these.
const BROWSER_HEADERS_PREFIX: &str = "sec-fetch-";

/// By which names a request may ask, and who was proven to ask.
pub(super) struct Arrival<'a> {
    pub(super) names: &'a Names,
    pub(super) proven: Result<Option<&'a Identity>, Refusal>,
    /// The policy in which the caller is looked up.
    pub(super) policy: &'a Policy,
    /// When the proof is over, where it has an end of its own.
    pub(super) until: Option<Timestamp>,
}

/// The control plane.
pub(super) struct Control {
    pub(super) parts: Parts,
    /// `None` if the system gave no randomness for their secret.
    pub(super) keys: Option<Keys>,
    peer: fn(&UnixStream) -> Option<Identity>,
    pub(super) own_uid: u32,
    has_warned: AtomicBool,
    calls: Calls,
    /// Ends the streams of events.
    pub(super) stopping: CancellationToken,
    /// Places for those who go through all leases.
    pub(super) walks: Arc<Semaphore>,
}

impl Control {
    /// `peer` proves who is on the other end of a connection; `stopping` ends what would go on otherwise.
    pub(super) fn new(parts: Parts, peer: fn(&UnixStream) -> Option<Identity>, stopping: CancellationToken) -> Self {
        let keys = Keys::new().inspect_err(|error| tracing::error!(%error, "no Idempotency-Key can be taken")).ok();
        let walks = Arc::new(Semaphore::new(WALKS_MAX));
        let own_uid = rustix::process::geteuid().as_raw();
        Self {
            parts,
            keys,
            peer,
            own_uid,
            has_warned: AtomicBool::new(false),
            calls: Calls::default(),
            stopping,
            walks,
        }
    }

    /// The policy in force; one call asks one policy.
    pub(super) fn policy(&self) -> Arc<Policy> {
        self.parts.policy.get()
    }

    /// A lease by its accessor, if it lives.
    pub(super) fn live(&self, id: NonceId) -> Option<Arc<Lease>> {
        self.parts.leases.get(id).filter(|lease| !self.is_over(lease))
    }

    /// True for a lease that the sweeper has not come to yet, too.
    pub(super) fn is_over(&self, lease: &Lease) -> bool {
        lease.ended().is_some() || lease.deadline().is_over(&self.parts.clock.now())
    }

    /// Serves one request of a caller on this machine who was proven to be `proven`.
    pub(super) async fn handle<B>(&self, proven: Option<&Identity>, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.respond(Arrival { names: &Names::Local, proven: Ok(proven), policy: &self.policy(), until: None }, request)
            .await
    }

    /// Serves one request.
    pub(super) async fn respond<B>(&self, arrival: Arrival<'_>, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let call = Call::route(&head.method, head.uri.path());
        let Arrival { names, proven: proof, policy, until } = arrival;
        let proven = proof.as_ref().ok().copied().flatten();
        let answered = async {
            check_addressing(&head, names)?;
            let proven = proof.clone()?;
            let caller = Caller { until, ..Caller::authenticate(policy, self.own_uid, proven)? };
            self.warn_once(&caller);
            let call = call.clone()?;
            self.admit(call, &caller)?;
            self.dispatch(call, &caller, &head, body).await
        };
        answered.await.unwrap_or_else(|refusal| {
            self.note_refusal(call.ok(), proven, &refusal);
            refusal.answer()
        })
    }

    /// Before anything is read of a call, and whatever comes of it.
    fn admit(&self, call: Call<'_>, caller: &Caller) -> Result<(), Refusal> {
        let kind = Kind::of(call);
        let admitted = self.calls.admit(&caller.minters, kind, &self.parts.clock.now());
        admitted.map_err(|wait| Refusal::TooFast { wait, is_making: kind == Kind::Making })
    }

    async fn dispatch<B>(
        &self,
        call: Call<'_>,
        caller: &Caller,
        head: &http::request::Parts,
        body: B,
    ) -> Result<Answer, Refusal>
    where
        B: Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let list = if call == Call::List { Some(ListAsked::parse(head.uri.query())?) } else { None };
        let events = if call == Call::Events { Some(EventsAsked::parse(head.uri.query())?) } else { None };
        if list.is_none() && events.is_none() && head.uri.query().is_some() {
            return Err(Refusal::InvalidRequest(vec![Mistake::in_parameter("", "this call takes no query")]));
        }
        let json = if head.method != Method::POST || may_be_empty(call) && body.is_end_stream() {
            no_body(&body)?
        } else {
            read_json(&head.headers, body).await?
        };
        match call {
            Call::Mint => mint::mint(self, caller, idempotency_key(&head.headers)?, &json).await,
            Call::List => calls::list(self, caller, &list.ok_or(Refusal::Internal)?),
            Call::Read(id) => calls::read(self, caller, id),
            Call::Revoke(id) => calls::revoke(self, caller, id),
            Call::Renew(id) => renew::renew(self, caller, id, &json).await,
            Call::Delegate(id) => delegate::delegate(self, caller, id, idempotency_key(&head.headers)?, &json).await,
            Call::Introspect => calls::introspect(self, caller, &json),
            Call::Services => Ok(calls::services(self, caller)),
            Call::WhoAmI => Ok(calls::whoami(self, caller)),
            Call::Ready => Ok(calls::ready(self)),
            Call::Events => events::events(self, caller, events.ok_or(Refusal::Internal)?),
            Call::CaPem => Ok(calls::ca_pem(self)),
            Call::OpenApi => Ok(calls::openapi_json()),
            Call::Revocations => revoking::revocations(self, caller, &json).await,
            Call::Complete(task) => revoking::complete(self, caller, task, &json).await,
            Call::Leaks => leaks::leaks(self, caller, &json),
            Call::Explain => explaining::explain(self, caller, &json),
            Call::Risk => risk::risk(self, caller, &json).await,
        }
    }

    fn warn_once(&self, caller: &Caller) {
        if let Some(warning) = caller.warning
            && !self.has_warned.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(caller = %caller.identity, "{warning}");
        }
    }

    /// Refused calls that would change something are in the audit, and callers who should not be here at all.
    fn note_refusal(&self, call: Option<Call<'_>>, proven: Option<&Identity>, refusal: &Refusal) {
        let (code, _) = refusal.code();
        let call_name = call.map_or("unknown", Call::name);
        tracing::debug!(call = call_name, code, "a control call was refused");
        self.parts.metrics.call_refused(code);
        if call.is_some_and(changes) || calls::is_about_the_caller(refusal) || is_about_quota(refusal) {
            self.parts.audit.note(Event::ControlRefused { call: call_name, caller: proven.cloned(), code });
        }
    }
}

impl Service<UnixStream> for Control {
    type Caller = Option<Identity>;
    type Io = UnixStream;

    async fn greet(&self, stream: UnixStream) -> Option<(Option<Identity>, UnixStream)> {
        Some(((self.peer)(&stream), stream))
    }

    async fn answer(&self, caller: &Option<Identity>, request: Request<Inbound>) -> Answer {
        self.handle(caller.as_ref(), request).await
    }
}

/// A listener has no web pages, no proxies and no other names: whoever says so took us for something else.
fn check_addressing(head: &http::request::Parts, names: &Names) -> Result<(), Refusal> {
    // HTTP/2 comes over a supervisor's channel only, and always has an authority.
    let is_local = |authority: &http::uri::Authority| Names::Local.hold(authority.as_str());
    let is_fine = match head.version {
        Version::HTTP_11 => head.uri.authority().is_none(),
        Version::HTTP_2 => head.uri.authority().is_none_or(is_local),
        _ => false,
    };
    if !is_fine {
        let mistake = Mistake::in_header(":request-line", "must be HTTP/1.1 with a path");
        return Err(Refusal::InvalidRequest(vec![mistake]));
    }
    let is_browser = |name: &HeaderName| *name == header::ORIGIN || name.as_str().starts_with(BROWSER_HEADERS_PREFIX);
    if head.headers.keys().any(is_browser) {
        return Err(Refusal::Forbidden(Forbidden::Browser));
    }
    let is_ours = |host: &HeaderValue| host.to_str().is_ok_and(|host| names.hold(host));
    let mut hosts = head.headers.get_all(header::HOST).iter();
    if !hosts.next().map_or(names.may_be_absent(), is_ours) || hosts.next().is_some() {
        return Err(Refusal::Forbidden(Forbidden::Host));
    }
    Ok(())
}

/// Calls whose refusal is worth a record.
fn changes(call: Call<'_>) -> bool {
    matches!(call, Call::Mint | Call::Renew(_) | Call::Delegate(_) | Call::Revocations | Call::Complete(_) | Call::Risk)
}

/// Whoever takes more than its share is on record, whatever it called.
fn is_about_quota(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::TooFast { .. })
}

/// Calls whose fields are all optional.
fn may_be_empty(call: Call<'_>) -> bool {
    matches!(call, Call::Renew(_) | Call::Complete(_))
}

/// For calls that take none.
pub(super) fn no_body<B: Body>(body: &B) -> Result<Json, Refusal> {
    if body.is_end_stream() {
        return Ok(Json::Null);
    }
    Err(Refusal::InvalidRequest(vec![Mistake::at("", "this call takes no body")]))
}

/// Reads a body, within its limits.
pub(super) async fn read_json<B>(headers: &HeaderMap, body: B) -> Result<Json, Refusal>
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if !is_json(headers) {
        return Err(Refusal::MediaType);
    }
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(Refusal::TooLarge);
    }
    let collected = timeout(BODY_TIMEOUT, Limited::new(body, BODY_BYTES_MAX).collect());
    let bytes = match collected.await {
        Err(_) => return Err(Refusal::Timeout),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(Refusal::TooLarge),
        Ok(Err(_)) => return Err(Refusal::InvalidRequest(vec![Mistake::at("", "the body was cut short")])),
        Ok(Ok(body)) => body.to_bytes(),
    };
    Json::parse(&bytes).map_err(|Malformed { line, column }| {
        let detail = format!("is not one JSON value: line {line}, column {column}");
        Refusal::InvalidRequest(vec![Mistake::at("", detail)])
    })
}

/// One Content-Type `application/json`, in UTF-8 if it says so, and no encoding.
fn is_json(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(kind), None) = (types.next().and_then(|kind| kind.to_str().ok()), types.next()) else { return false };
    let kind = kind.to_ascii_lowercase();
    let mut parts = kind.split(';').map(str::trim);
    parts.next() == Some("application/json")
        && parts.all(|part| matches!(part, "charset=utf-8" | "charset=\"utf-8\""))
        && !headers.contains_key(header::CONTENT_ENCODING)
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<Key>, Refusal> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let key = Key::parse(value.as_bytes()).filter(|_| values.next().is_none());
    key.map(Some).ok_or_else(|| {
        let detail = format!("must be there once, with 1 to {KEY_CHARACTERS_MAX} printable ASCII characters");
        Refusal::InvalidRequest(vec![Mistake::in_header("Idempotency-Key", detail)])
    })
}
