//! Reports of leaks from outside, over TLS, on a listener that does nothing else.
//!
//! - `POST /v1/leaks`, `text/plain`: from anybody. Whoever has a nonce has shown that it is known, so ending it needs no
//!   proof. The answer is the same whatever was in the text: it tells nobody which nonces there are.
//! - `POST /v1/leaks/github`: from a secret scanner, in the format of GitHub's partner programme, signed. Only who is
//!   proven to be that scanner is told which of the texts were nonces of ours.

mod github;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header, request};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::answer;
use super::inbound::Inbound;
use super::leaks::{self, Ended, Finding};
use super::remote::RemoteTls;
use super::serve::{Answer, Limits, Service};
use crate::audit::{Audit, Event};
use crate::clock::SharedClock;
use crate::identity::{Refused, Scanner};
use crate::lease::Minter;
use crate::model::Identity;

/// What the listener puts up with.
pub(super) const LIMITS: Limits = Limits {
    connections_max: 32,
    head_timeout: Duration::from_secs(10),
    connection_age_max: Duration::from_secs(60),
    drain_timeout: Duration::from_secs(2),
};
/// For a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// For a whole body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a text at most.
const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a scanner's report at most.
const GITHUB_BYTES_MAX: usize = 1024 * 1024;
/// Reports of one kind in a row at most, then one in each of the periods below.
const REPORTS_MAX: u32 = 30;
/// When one more report may come.
const REPORT_EVERY: Duration = Duration::from_millis(200);
/// The call's name in the audit.
const CALL: &str = "leaks";

/// What reports are taken with.
pub struct Reports {
    /// Where they arrive.
    pub listener: tokio::net::TcpListener,
    /// Who we are to those who report.
    pub tls: Arc<RemoteTls>,
    /// What proves a scanner's reports; without it none is taken.
    pub scanner: Option<Scanner>,
    /// The lease store.
    pub leases: Minter,
    /// The audit.
    pub audit: Audit,
    /// The clock.
    pub clock: SharedClock,
}

/// Where reports are taken.
pub(super) struct Desk {
    tls: Arc<RemoteTls>,
    scanner: Option<Scanner>,
    leases: Minter,
    audit: Audit,
    clock: SharedClock,
    texts: Mutex<Pace>,
    /// Reports that are proven to be a scanner's: nobody else uses these up.
    scans: Mutex<Pace>,
    /// Records of those that are not.
    doubts: Mutex<Pace>,
}

/// How many more may come now.
struct Pace {
    left: u32,
    counted_at: Duration,
}

/// Why a report is not taken.
enum Unwanted {
    NoCall,
    Method,
    MediaType,
    TooLarge,
    Late,
    Broken,
    TooMany,
    Malformed,
    Unproven(Refused),
}

impl Desk {
    pub(super) fn new(reports: Reports) -> (tokio::net::TcpListener, Self) {
        let Reports { listener, tls, scanner, leases, audit, clock } = reports;
        let pace = || Mutex::new(Pace { left: REPORTS_MAX, counted_at: clock.now().boot });
        let (texts, scans, doubts) = (pace(), pace(), pace());
        (listener, Self { tls, scanner, leases, audit, clock, texts, scans, doubts })
    }

    async fn take(&self, head: &request::Parts, body: Inbound) -> Result<Answer, Unwanted> {
        let is_text = match (head.uri.path(), &self.scanner) {
            ("/v1/leaks", _) => true,
            ("/v1/leaks/github", Some(_)) => false,
            (_, _) => return Err(Unwanted::NoCall),
        };
        if head.method != Method::POST {
            return Err(Unwanted::Method);
        }
        if !is_of(&head.headers, if is_text { "text/plain" } else { "application/json" }) {
            return Err(Unwanted::MediaType);
        }
        match &self.scanner {
            Some(scanner) if !is_text => self.take_scan(scanner, &head.headers, body).await,
            Some(_) | None => self.take_text(body).await,
        }
    }

    /// Ends what is alive in a text of anybody's.
    async fn take_text(&self, body: Inbound) -> Result<Answer, Unwanted> {
        self.keep_pace(&self.texts)?;
        let bytes = read(body, TEXT_BYTES_MAX).await?;
        let caller = Identity::Anybody;
        let found = leaks::nonces(&String::from_utf8_lossy(&bytes));
        let live = found.iter().filter(|hash| self.end(&caller, None, hash) == Ended::Live).count();
        // What nobody has signed and nothing is in fills no record.
        if !found.is_empty() {
            self.note(&caller, found.len(), live);
        }
        Ok(answer::silent(StatusCode::ACCEPTED))
    }

    /// Ends what is alive in a scanner's report, and tells it what was ours.
    async fn take_scan(&self, scanner: &Scanner, headers: &HeaderMap, body: Inbound) -> Result<Answer, Unwanted> {
        Scanner::check(headers).map_err(Unwanted::Unproven)?;
        let bytes = read(body, GITHUB_BYTES_MAX).await?;
        // Of what is not proven nothing is read.
        let caller = scanner.verify(headers, &bytes).await.map_err(Unwanted::Unproven)?;
        self.keep_pace(&self.scans)?;
        let matches = github::parse(&bytes).ok_or(Unwanted::Malformed)?;
        let (mut found, mut live, mut labels) = (0, 0, Vec::with_capacity(matches.len()));
        for seen in &matches {
            let ended: Vec<_> =
                leaks::nonces(&seen.token).iter().map(|hash| self.end(&caller, Some(seen.place()), hash)).collect();
            found += ended.len();
            live += ended.iter().filter(|ended| **ended == Ended::Live).count();
            labels.push(seen.label(ended.iter().any(|ended| *ended != Ended::Unknown)));
        }
        self.note(&caller, found, live);
        Ok(answer::json(StatusCode::OK, &labels))
    }

    fn keep_pace(&self, pace: &Mutex<Pace>) -> Result<(), Unwanted> {
        if pace.lock().may_come(self.clock.now().boot) { Ok(()) } else { Err(Unwanted::TooMany) }
    }

    fn end(&self, caller: &Identity, source: Option<&str>, hash: &crate::model::NonceHash) -> Ended {
        leaks::end(&Finding { leases: &self.leases, audit: &self.audit, caller, source }, hash)
    }

    fn note(&self, caller: &Identity, found: usize, live: usize) {
        if live > 0 {
            tracing::warn!(%caller, live, "live nonces were reported as leaked, and are revoked");
        }
        self.audit.note(Event::LeakReport {
            caller: caller.clone(),
            source: None,
            found: u64::try_from(found).unwrap_or(u64::MAX),
            live: u64::try_from(live).unwrap_or(u64::MAX),
        });
    }

    fn refuse(&self, unwanted: &Unwanted) -> Answer {
        let (status, text) = match unwanted {
            Unwanted::NoCall => (StatusCode::NOT_FOUND, "reports of leaks go to /v1/leaks\n"),
            Unwanted::Method => (StatusCode::METHOD_NOT_ALLOWED, "POST only\n"),
            Unwanted::MediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "this call takes another Content-Type\n"),
            Unwanted::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "the report is too long\n"),
            Unwanted::Late => (StatusCode::REQUEST_TIMEOUT, "the report took too long\n"),
            Unwanted::Broken => (StatusCode::BAD_REQUEST, "the report was cut short\n"),
            Unwanted::TooMany => (StatusCode::TOO_MANY_REQUESTS, "too many reports\n"),
            Unwanted::Malformed => (StatusCode::BAD_REQUEST, "the report has another form\n"),
            Unwanted::Unproven(refused) if refused.is_ours() => {
                (StatusCode::SERVICE_UNAVAILABLE, "the signature cannot be verified just now\n")
            }
            Unwanted::Unproven(_) => (StatusCode::UNAUTHORIZED, "the report is not signed by a key that is believed\n"),
        };
        if let Unwanted::Unproven(refused) = unwanted
            && self.keep_pace(&self.doubts).is_ok()
        {
            tracing::warn!(reason = %refused, "a scanner's report of leaks was refused");
            self.audit.note(Event::ControlRefused { call: CALL, caller: None, code: "unauthenticated" });
        }
        let mut answer = answer::typed(status, "text/plain; charset=utf-8", text);
        let fields = answer.headers_mut();
        // What is left of a body is not waited for.
        fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
        if matches!(unwanted, Unwanted::TooMany) {
            fields.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        answer
    }
}

impl Service<TcpStream> for Desk {
    type Caller = ();
    type Io = TlsStream<TcpStream>;

    async fn greet(&self, stream: TcpStream) -> Option<((), TlsStream<TcpStream>)> {
        let tls = Arc::clone(&self.tls);
        // It may read files.
        let serving = tokio::task::spawn_blocking(move || tls.serving()).await.ok()?;
        let acceptor = TlsAcceptor::from(serving.config.clone());
        let stream = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await.ok()?.ok()?;
        Some(((), stream))
    }

    async fn answer(&self, (): &(), request: Request<Inbound>) -> Answer {
        let (head, body) = request.into_parts();
        self.take(&head, body).await.unwrap_or_else(|unwanted| self.refuse(&unwanted))
    }
}

impl Pace {
    fn may_come(&mut self, now: Duration) -> bool {
        let periods = now.saturating_sub(self.counted_at).as_millis() / REPORT_EVERY.as_millis();
        if periods > 0 {
            let periods = u32::try_from(periods).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(periods).min(REPORTS_MAX);
            self.counted_at = now;
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

/// One Content-Type, this one, with whatever parameters, and no encoding.
fn is_of(headers: &HeaderMap, wanted: &str) -> bool {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(kind), None) = (types.next().and_then(|kind| kind.to_str().ok()), types.next()) else { return false };
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case(wanted) && !headers.contains_key(header::CONTENT_ENCODING)
}

async fn read(body: Inbound, bytes_max: usize) -> Result<Bytes, Unwanted> {
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(Unwanted::TooLarge);
    }
    match timeout(BODY_TIMEOUT, Limited::new(body, bytes_max).collect()).await {
        Err(_) => Err(Unwanted::Late),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Unwanted::TooLarge),
        Ok(Err(_)) => Err(Unwanted::Broken),
        Ok(Ok(body)) => Ok(body.to_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_come_at_a_pace() {
        let mut pace = Pace { left: REPORTS_MAX, counted_at: Duration::ZERO };
        let mut come = |now| (0..100).filter(|_| pace.may_come(now)).count();
        assert_eq!(come(Duration::ZERO), 30);
        assert_eq!(come(Duration::from_millis(199)), 0);
        assert_eq!(come(Duration::from_millis(650)), 3);
        assert_eq!(come(Duration::from_secs(3600)), 30);
    }
}
