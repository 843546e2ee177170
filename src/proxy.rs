//! The life of a request, stage by stage:
//! accept, connect, decrypt, extract, grant, inject, (refuse), relay, scrub.
//!
//! The types make the order a law: [`inject()`] takes a recorded permit, a permit is made only in [`mod@grant`], [`mod@relay`]
//! takes what `inject` armed, and what is searched for in the answer is made only in `inject`.

pub mod accept;
pub mod connect;
mod crowd;
pub mod decrypt;
mod deliver;
mod door;
pub mod extract;
mod fair;
pub mod flow;
#[doc(hidden)]
pub mod fuzzing;
mod gate;
pub mod grant;
pub mod inject;
mod lanes;
mod leaks;
pub mod outer;
pub mod pace;
pub mod refuse;
pub mod refused;
pub mod relay;
mod rules;
pub mod scrub;
mod sigv4;
mod socket;
mod transparent;
mod unneeded;
mod unread;
mod websocket;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::{Audit, Exchange, Recorded};
use crate::authority::Authority;
use crate::credential::Credentials;
use crate::door::SelfService;
use crate::identity::{Prover, Verifier};
use crate::lease::Lookup;
use crate::metrics::Metrics;
use crate::model::Denial;
use crate::net::Dialer;
use crate::policy::Policy;
use accept::Entrance;
use connect::Session;
use crowd::Crowd;
use deliver::{Cleaned, Scene, scrub};
use door::Door;
use extract::body::Hold;
use extract::{Presented, extract, find_in_fields};
use flow::{Body, Inbound, Meter, Watch};
use grant::{Permit, Wanted, body_wanted, grant};
use inject::{Carried, Search, inject};
use leaks::{Leaks, Tap};
use pace::Busy;
use refused::Refused;
use relay::{Answer, Setback, TlsProfiles, relay};
pub use rules::Rules;

/// Fields of an HTTP/1 head that hyper takes where no other number is set. To set this one, too, would cost two arrays
/// for each head, filled before they are used.
const HYPER_HEADERS_MAX: usize = 100;

/// Every limit and timeout of the data path, each a named setting with a default.
#[derive(Debug, Clone)]
pub struct Limits {
    /// A whole request head must arrive within this.
    pub head_timeout: Duration,
    /// The TLS handshake with the client must end within this.
    pub handshake_timeout: Duration,
    /// Connecting upstream (TCP and TLS) must end within this.
    pub connect_timeout: Duration,
    /// The upstream's response head must arrive within this: models think long.
    pub upstream_head_timeout: Duration,
    /// A connection or stream on which nothing moves is closed after this.
    pub idle_timeout: Duration,
    /// At shutdown, exchanges under way get this long.
    pub drain_timeout: Duration,
    /// Header fields in a request or answer at most.
    pub headers_max: usize,
    /// Bytes in a request or answer head at most.
    pub head_bytes_max: usize,
    /// Bytes in a request target at most.
    pub target_bytes_max: usize,
    /// Client connections at most.
    pub connections_max: usize,
    /// Client connections of one agent at most: those on which a nonce of it was the first.
    pub agent_connections_max: usize,
    /// Requests under way at most.
    pub requests_max: usize,
    /// Requests of one agent under way at most.
    pub agent_requests_max: usize,
    /// Concurrent HTTP/2 streams on one client connection at most.
    pub streams_max: u32,
    /// Idle upstream connections kept per pool at most.
    pub pool_idle_max: usize,
    /// Threads that serve agents.
    pub threads: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            upstream_head_timeout: Duration::from_secs(600),
            idle_timeout: Duration::from_secs(300),
            drain_timeout: Duration::from_secs(5),
            headers_max: 100,
            head_bytes_max: 64 * 1024,
            target_bytes_max: 16 * 1024,
            connections_max: 4096,
            agent_connections_max: 2048,
            requests_max: 8192,
            agent_requests_max: 4096,
            streams_max: 128,
            pool_idle_max: 256,
            threads: 1,
        }
    }
}

/// What the proxy is put together from.
pub struct Parts {
    /// The audit.
    pub audit: Audit,
    /// The lease store, for looking up.
    pub leases: Lookup,
    /// What agents may do to their own leases.
    pub own: Arc<dyn SelfService>,
    /// The policy.
    pub policy: Arc<Policy>,
    /// The real credentials.
    pub credentials: Arc<Credentials>,
    /// What proves agents by their tokens.
    pub prover: Arc<Prover>,
    /// The local CA.
    pub authority: Arc<Authority>,
    /// The way out.
    pub dialer: Arc<Dialer>,
    /// How upstreams are verified.
    pub tls: TlsProfiles,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Limits.
    pub limits: Limits,
}

/// The data plane of one process.
pub struct Proxy {
    audit: Audit,
    leases: Lookup,
    door: Door,
    rules: ArcSwap<Rules>,
    authority: Arc<Authority>,
    dialer: Arc<Dialer>,
    metrics: Arc<Metrics>,
    limits: Limits,
    crowd: Arc<Crowd>,
    hold: Hold,
    watch: Arc<Watch>,
    leaks: Leaks,
    tasks: TaskTracker,
    draining: CancellationToken,
    cutting: CancellationToken,
}

impl Proxy {
    /// Puts the proxy together; nothing is bound or sent yet.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { audit, leases, own, policy, credentials, prover, authority, dialer, tls, metrics, limits } = parts;
        let rules = Rules::new(policy, credentials, prover, tls, dialer.clone(), limits.clone());
        Arc::new(Self {
            audit,
            leases,
            door: Door::new(own),
            rules: ArcSwap::from_pointee(rules),
            authority,
            dialer,
            metrics,
            crowd: Crowd::new(&limits),
            limits,
            hold: Hold::default(),
            watch: Arc::default(),
            leaks: Leaks::default(),
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
            cutting: CancellationToken::new(),
        })
    }

    /// What is in force now.
    #[must_use]
    pub fn rules(&self) -> Arc<Rules> {
        self.rules.load_full()
    }

    /// Puts another policy in force, from the next request on. Requests under way finish with what they began with.
    pub fn adopt(&self, policy: Arc<Policy>, credentials: Arc<Credentials>, verifier: Arc<Verifier>, tls: TlsProfiles) {
        // Before the policy: what other issuers have proven is never held against it.
        let prover = self.rules().prover.renewed(verifier);
        let rules = Rules::new(policy, credentials, prover, tls, self.dialer.clone(), self.limits.clone());
        self.rules.store(Arc::new(rules));
    }

    /// Accepts connections on all listeners until `shutdown`, then drains within the limit: tunnels included.
    ///
    /// # Errors
    /// A thread cannot be started; nothing is served then.
    pub async fn run(
        self: Arc<Self>,
        listeners: Vec<(TcpListener, Entrance)>,
        shutdown: CancellationToken,
    ) -> std::io::Result<()> {
        lanes::run(self, listeners, shutdown).await
    }

    /// One request and its answer.
    async fn serve(&self, session: &Session, request: Request<Incoming>, busy: Busy) -> Response<Body> {
        let begun = Instant::now();
        let request = Inbound::of(request, &busy); // what nobody wants of its body is drained
        let mut scene = Scene::of(session, &request);
        let rules = self.rules(); // from here on the policy is one and the same
        let exposed = rules.exposed_in(&request);
        if let Some(place) = exposed {
            scene.withhold(place);
        }
        let mut exchange = self.audit.open(scene.facts(session));
        if let Some(place) = exposed {
            return Box::pin(self.exposed(&rules, session, &scene, (request, place), exchange)).await;
        }
        if crate::door::is_reserved(&session.destination.host) {
            // Boxed, since it is seldom.
            return Box::pin(self.at_the_door(session, &scene, request, exchange)).await;
        }
        let meter = Meter::default();
        match self.journey(&rules, session, request, &mut exchange, &meter).await {
            Ok(cleaned) => self.deliver(begun, exchange, meter, busy, cleaned),
            Err(refused) => self.refuse(&scene, exchange, refused).await, // the one map from error to HTTP
        }
    }

    /// The journey. Each stage takes what the stage before it has made.
    async fn journey(
        &self,
        rules: &Rules,
        session: &Session,
        request: Request<Inbound>,
        exchange: &mut Exchange,
        meter: &Meter,
    ) -> Result<Cleaned, Refused> {
        let presented = extract(session, &rules.policy, &self.limits, request) // the nonce leaves the request here
            .map_err(|denial| match denial {
                // Who signs reads the dialect of the service alone.
                Denial::SignatureRefused(_) => Refused::from(denial).at(rules.policy.services_at(&session.destination)),
                denial => Refused::from(denial),
            })?;
        let (presented, newer) = match body_wanted(&self.leases, &rules.policy, session, presented) {
            Ok(presented) => (presented, None),
            Err(wanted) => Box::pin(self.hold(rules, session, wanted)).await?, // a rule looks at it: few do
        };
        let rules = newer.as_deref().unwrap_or(rules);
        let permit = grant(&self.leases, &rules.policy, session, presented)?; // a use is reserved, the lease is joined
        let permit = Box::new(permit); // what waits is moved with its futures, so it had better be small
        let story = permit.story(); // what a refusal from here on may say
        self.fulfil(rules, session, permit, exchange, meter).await.map_err(|denial| story.refused(denial))
    }

    /// The refusal of a request with a real credential in its head, whatever else it is.
    async fn exposed(
        &self,
        rules: &Rules,
        session: &Session,
        scene: &Scene,
        (request, place): (Request<Inbound>, &'static str),
        exchange: Exchange,
    ) -> Response<Body> {
        // Whose it is: of the nonce in its slot; where the request cannot be taken apart, of the first one in its head.
        let strays = find_in_fields(request.headers(), None);
        let presented = extract(session, &rules.policy, &self.limits, request).ok();
        let hash = presented.and_then(|presented| presented.lifted).map(|lifted| lifted.hash);
        let hash = hash.or(session.voucher).or(strays.first().map(|stray| stray.hash));
        let refused = grant::exposed(&self.leases, &rules.policy, session, hash, place);
        self.refuse(scene, exchange, refused).await
    }

    /// The same request with its body held, since a rule looks at it.
    ///
    /// That takes as long as its agent likes, within limits: what is in force by then decides, and comes back with it where
    /// that is another policy. A service that is not there any more is refused, as at the next request.
    async fn hold(
        &self,
        rules: &Rules,
        session: &Session,
        wanted: Box<(Presented, Wanted)>,
    ) -> Result<(Presented, Option<Arc<Rules>>), Refused> {
        let (mut presented, wanted) = *wanted;
        if let Err(denial) = self.hold.take(&mut presented, wanted.share(), self.limits.head_timeout).await {
            return Err(wanted.refused(denial));
        }
        let present = self.rules();
        if Arc::ptr_eq(&present.policy, &rules.policy) {
            return Ok((presented, None));
        }
        presented.services = present.policy.services_at(&session.destination).clone();
        if presented.services.is_empty() {
            return Err(wanted.refused(Denial::HostNotListed));
        }
        Ok((presented, Some(present)))
    }

    /// From a permit to a clean answer.
    async fn fulfil(
        &self,
        rules: &Rules,
        session: &Session,
        mut permit: Box<Permit>,
        exchange: &mut Exchange,
        meter: &Meter,
    ) -> Result<Cleaned, Denial> {
        if let Some(place) = permit.take_place() {
            meter.holds(place); // until its bodies are over
        }
        let tap = self.judge_body(rules, &mut permit, exchange).await?; // a nonce in it is a leak
        let recorded = exchange.record(permit).await?; // on record before any secret moves
        let may_come_back = session.spoken.may_come_back();
        let spare = if may_come_back { recorded.copied(|permit| permit.spare().map(Box::new)) } else { None }; // what has no body can go once more
        let answered = match (self.send(rules, session, recorded, exchange, (meter, tap)).await, spare) {
            (Err(Setback::Untouched), Some(spare)) => {
                Box::pin(self.send(rules, session, spare, exchange, (meter, None))).await
            }
            (answered, _) => answered,
        };
        let (answer, search) = answered.map_err(Setback::denial)?;
        session.spoken.heard(answer.response.version());
        scrub(answer, &search) // streams, never buffers
    }

    /// From a recorded permit to an answer as it came.
    async fn send(
        &self,
        rules: &Rules,
        session: &Session,
        recorded: Recorded<Box<Permit>>,
        exchange: &mut Exchange,
        (meter, tap): (&Meter, Option<Box<Tap>>),
    ) -> Result<(Answer, Search), Setback> {
        let mut carried = Carried::default(); // an anonymous request carries nothing
        if let Some(name) = recorded.credential() {
            carried.credential = Some(rules.credentials.fetch(name).await.map_err(Denial::from)?);
        }
        if let Some(name) = recorded.certificate() {
            // Boxed, since it is seldom.
            carried.certificate = Some(Box::pin(rules.credentials.fetch(name)).await.map_err(Denial::from)?);
        }
        exchange.dialled(None, carried.credential.as_ref().map(|credential| credential.version));
        let (mut armed, search) = inject(session, &rules.searches, recorded, &carried)?; // the lease still lives
        armed.tap = tap;
        if let (Some(chunks), Some(tie)) = (&mut armed.chunks, &armed.tie) {
            chunks.hold_in(self.hold.clone(), tie.lease.terms().agent.clone());
        }
        Ok((relay(&rules.upstream, &self.limits, armed, meter).await?, search))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn future_bytes<A, B, C, D, F: Future>(_: impl FnOnce(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn what_is_moved_for_every_request_is_small() {
        // Libraries move it several times. What is rare (a second sending, a WebSocket) is boxed for that.
        assert!(future_bytes(Proxy::serve) <= 5 * 1024, "{} bytes", future_bytes(Proxy::serve));
    }

    #[test]
    fn what_is_kept_for_every_open_tunnel_is_small() {
        // Its handshake and what is served in it have their own memory, as long as they last.
        assert!(future_bytes(decrypt::run) <= 1024, "{} bytes", future_bytes(decrypt::run));
    }
}
