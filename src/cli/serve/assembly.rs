//! The parts, put together; started in an order in which nothing is promised before it holds, stopped in reverse.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::confine::Needs;
use super::listeners::{self, Bound, ControlSocket, Listeners};
use super::ready::{remove_stale, replace};
use super::record::open_audit;
use super::reload::{Reloading, Stamp};
use super::remote::Gate;
use super::webhooks;
use super::{AUDIT_CLOSE, Arguments};
use crate::audit::{self, Audit};
use crate::authority::{self, Authority, AuthorityError, Home};
use crate::cli::Failure;
use crate::clock::{SharedClock, SystemClock};
use crate::config::Loaded;
use crate::control;
use crate::control::webhooks::{Endpoint, Sending};
use crate::credential::Credentials;
use crate::lease;
use crate::metrics::{self, Metrics};
use crate::net::tls::ClientTls;
use crate::net::{self, Dialer};
use crate::policy::{Current, Policy};
use crate::process::Locked;
use crate::proxy::accept::Entrance;
use crate::proxy::outer::OuterTls;
use crate::proxy::relay::TlsProfiles;
use crate::proxy::{self, Proxy};
use crate::{roots, telemetry};

/// Values that were taken out of the environment, by variable.
pub type Secrets = HashMap<String, Zeroizing<String>>;

/// A running sidecar.
pub struct Sidecar {
    /// Where agents connect.
    pub proxy: SocketAddr,
    /// Where they connect over TLS.
    pub proxy_tls: Option<SocketAddr>,
    /// Where redirected connections arrive.
    pub transparent: Vec<SocketAddr>,
    /// Where probes connect.
    pub admin: SocketAddr,
    /// Where orchestrators connect; `None` where there is a supervisor's channel instead.
    pub control: Option<std::path::PathBuf>,
    /// Where orchestrators elsewhere connect, over TLS.
    pub control_tcp: Option<SocketAddr>,
    /// Where reports of leaks arrive, over TLS.
    pub leaks_tcp: Option<SocketAddr>,
    audit: Audit,
    leases: Arc<lease::Store>,
    is_stopping: Arc<AtomicBool>,
    shutdown: Shutdown,
    /// Cancelled when the supervisor has closed its channel; never where there is none.
    left_alone: CancellationToken,
    reload: Arc<Notify>,
}

/// What is stopped, in this order.
struct Shutdown {
    proxy: (CancellationToken, JoinHandle<()>),
    planes: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    /// Goes on until the very end.
    helpers: [JoinHandle<()>; 3],
}

impl Sidecar {
    /// Starts everything; when it returns, requests are served. With a channel the control API is served there alone.
    #[expect(clippy::too_many_lines, reason = "the order in which things begin, read from top to bottom")]
    pub async fn start(
        arguments: &Arguments,
        loaded: Loaded,
        secrets: Secrets,
        (channel, locked, known): (Option<std::os::unix::net::UnixStream>, Locked, Option<Stamp>),
    ) -> Result<Self, Failure> {
        let clock: SharedClock = Arc::new(SystemClock);
        let needs = Needs::of(&loaded);
        let Loaded { policy, credentials, identities, webhooks, warnings, .. } = loaded;
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        listeners::check(arguments, &policy)?;
        let policy = Arc::new(policy);
        let current = Current::new(policy.clone());
        let authority = Arc::new(open_authority(arguments, &clock)?);
        // Without the local CA, which vouches for nobody but this sidecar.
        let system = roots::read_and_follow();
        let roots = ClientTls::of(&system.certificates, authority.public_key_sha256());
        let tls = tls_profiles(&policy, &roots)?;
        let (webhooks, endpoints) = watch::channel(webhooks::endpoints(webhooks, &roots).map_err(Failure::policy)?);
        let control_tls = Gate::tls(&arguments.remote, &policy)?;
        let outer_tls = arguments.outer.tls(&identities)?;
        let report_tls = arguments.reports.tls()?;
        let mut listeners = listeners::bind(arguments, channel).await?;
        let bound = Bound::of(&listeners)?;
        // Once confined, none can be made.
        arguments.ca_publish.as_deref().map_or(Ok(()), authority::prepare).map_err(unusable)?;
        let confinement = needs.confine(arguments, &system)?; // before there are other threads
        let dialer = Arc::new(Dialer::new(arguments.connect_to.clone(), bound.own(), arguments.limits.connect_timeout));
        let mut gate = Gate::new(&arguments.remote, control_tls, roots.clone(), dialer.clone(), clock.clone());
        let (prover, remote) = gate.open(listeners.remote.take(), identities, policy.clone())?;
        let scanner = arguments.reports.scanner(&roots, dialer.clone(), clock.clone())?;
        let audit = open_audit(arguments, &clock, (&policy, &bound), (&confinement, locked))?;
        // Only now: a start that fails must not replace what a running sidecar has published.
        publish(arguments, &authority, &system.certificates)?;
        drop(system);
        remove_stale(arguments);
        let credentials = Arc::new(Credentials::new(credentials, secrets, clock.clone()));
        credentials.probe().await; // says which cannot be had; the rest works
        let metrics = Metrics::new();
        let leases = lease::Store::new(lease::Config::default(), clock.clone());
        let proxy = Proxy::new(proxy::Parts {
            audit: audit.clone(),
            leases: leases.lookup(),
            own: control::own_door(current.clone(), leases.minter(), (&audit, &metrics, &clock), bound.proxy),
            policy,
            credentials,
            prover,
            authority: authority.clone(),
            dialer: dialer.clone(),
            tls,
            metrics: metrics.clone(),
            limits: arguments.limits(),
        });
        report_ends(&leases, &audit, &metrics);
        let reports = listeners.reports.take().zip(report_tls).map(|(listener, tls)| {
            let (leases, audit, clock) = (leases.minter(), audit.clone(), clock.clone());
            control::Reports { listener, tls, scanner, leases, audit, clock }
        });
        let is_stopping = Arc::new(AtomicBool::new(false));
        let left_alone = CancellationToken::new();
        let reload = Arc::new(Notify::new());
        let reloading = Reloading {
            arguments: arguments.clone(),
            proxy: proxy.clone(),
            current: current.clone(),
            roots: Mutex::new(roots),
            audit: audit.clone(),
            metrics: metrics.clone(),
            webhooks,
            gate,
            confinement,
            known,
        };
        let sending = Sending { audit: audit.clone(), metrics: metrics.clone(), dialer };
        let shutdown = start_planes(Planes {
            proxy,
            reloading: (reloading, reload.clone()),
            sending: (sending, endpoints),
            outer: listeners.outer.take().zip(outer_tls),
            listeners,
            remote,
            reports,
            leases: leases.clone(),
            audit: audit.clone(),
            policy: current,
            authority,
            metrics,
            clock,
            is_stopping: is_stopping.clone(),
            addresses: control::Addresses { proxy: bound.proxy, admin: bound.admin },
            left_alone: left_alone.clone(),
        });
        let Bound { proxy, outer: proxy_tls, transparent, admin, remote: control_tcp, reports: leaks_tcp } = bound;
        let control = (!arguments.supervised).then(|| arguments.control.clone());
        Ok(Self {
            proxy,
            proxy_tls,
            transparent,
            admin,
            control,
            control_tcp,
            leaks_tcp,
            audit,
            leases,
            is_stopping,
            shutdown,
            left_alone,
            reload,
        })
    }

    /// Says where everything is, on standard error and in the ready file.
    pub fn announce(&self, ready_file: Option<&Path>) -> Result<(), Failure> {
        let control = self.control.as_ref().map(|path| path.display());
        tracing::info!(proxy = %self.proxy, admin = %self.admin, control = control.map(tracing::field::display), "ready");
        if let Some(address) = self.proxy_tls {
            tracing::info!(%address, "agents connect here over TLS");
        }
        for address in &self.transparent {
            tracing::info!(%address, "redirected connections are taken here");
        }
        if let Some(address) = self.control_tcp {
            tracing::info!(%address, "orchestrators elsewhere connect here");
        }
        if let Some(address) = self.leaks_tcp {
            tracing::info!(%address, "reports of leaks are taken here");
        }
        let Some(path) = ready_file else { return Ok(()) };
        let ready = json!({
            "proxy": self.proxy.to_string(),
            "proxy_tls": self.proxy_tls.map(|address| address.to_string()),
            "transparent": listeners::texts(&self.transparent),
            "admin": self.admin.to_string(),
            "control": self.control,
            "control_tcp": self.control_tcp.map(|address| address.to_string()),
            "leaks_tcp": self.leaks_tcp.map(|address| address.to_string()),
            "pid": std::process::id(),
            "audit_key": &*self.audit.head().key,
        });
        replace(path, &format!("{ready}\n"))
            .map_err(|error| Failure::other(format!("cannot write --ready-file {}: {error}", path.display())))
    }

    /// Opens the audit's file anew.
    pub fn reopen_audit(&self) {
        self.audit.reopen();
    }

    /// Reads the policy file again.
    pub fn reload_policy(&self) {
        self.reload.notify_one();
    }

    /// Completes when the supervisor has closed its channel, if there is one.
    pub async fn left_alone(&self) {
        self.left_alone.cancelled().await;
    }

    /// Drains, revokes, flushes.
    pub async fn stop(self, reason: &'static str) {
        self.is_stopping.store(true, Ordering::Release);
        let Shutdown { proxy: (stop, task), planes, tasks, helpers } = self.shutdown;
        stop.cancel();
        let _ = task.await;
        self.leases.minter().revoke_all("shutdown");
        planes.cancel();
        helpers.iter().for_each(JoinHandle::abort);
        for task in tasks {
            // The listeners have a second for what they are saying.
            let abort = task.abort_handle();
            if tokio::time::timeout(Duration::from_secs(1), task).await.is_err() {
                abort.abort();
            }
        }
        self.audit.stop(reason, AUDIT_CLOSE).await;
    }
}

fn open_authority(arguments: &Arguments, clock: &SharedClock) -> Result<Authority, Failure> {
    let home = if arguments.ca_in_memory { Home::Memory } else { Home::Directory(arguments.ca_dir.clone()) };
    Authority::open(&home, clock.clone()).map_err(unusable)
}

fn publish(arguments: &Arguments, authority: &Authority, system: &[CertificateDer<'static>]) -> Result<(), Failure> {
    let Some(directory) = &arguments.ca_publish else { return Ok(()) };
    authority.publish_with(system, directory).map_err(unusable)
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn unusable(error: AuthorityError) -> Failure {
    Failure::authority(format!("{error}\n  {}", error.hint()))
}

/// A profile for each service: with its `upstream_ca`, or of the system's roots, which are read once for all.
pub(super) fn tls_profiles(policy: &Policy, tls: &ClientTls) -> Result<TlsProfiles, Failure> {
    const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];
    let common = tls.config(None, &ALPN).map_err(Failure::authority)?;
    let mut own = HashMap::new();
    for service in policy.services() {
        let config = match &service.upstream_ca {
            None => net::tls::apart(&common),
            Some(path) => {
                let fail = |error: &dyn std::fmt::Display| {
                    Failure::authority(format!("upstream_ca of service {}: {}: {error}", service.name, path.display()))
                };
                let pem = std::fs::read(path).map_err(|error| fail(&error))?;
                tls.config(Some(&pem), &ALPN).map_err(|error| fail(&error))?
            }
        };
        own.insert(service.name.clone(), Arc::new(config));
    }
    Ok(TlsProfiles { own })
}

/// Every end of a lease is on record and counted.
fn report_ends(leases: &lease::Store, audit: &Audit, metrics: &Arc<Metrics>) {
    let (audit, metrics) = (audit.clone(), metrics.clone());
    leases.on_end(Box::new(move |lease, cause, by| {
        metrics.ended(cause.as_str());
        audit.note(audit::Event::LeaseEnded {
            nonce_id: lease.id(),
            agent: lease.terms().agent.clone(),
            task: lease.terms().task.clone(),
            lineage: lease.lineage().cloned(),
            cause: cause.as_str(),
            by: by.map(str::to_owned),
        });
    }));
}

/// What the planes are made of.
struct Planes {
    proxy: Arc<Proxy>,
    reloading: (Reloading, Arc<Notify>),
    sending: (Sending, watch::Receiver<Vec<Arc<Endpoint>>>),
    outer: Option<(TcpListener, Arc<OuterTls>)>,
    listeners: Listeners,
    remote: Option<control::Remote>,
    reports: Option<control::Reports>,
    leases: Arc<lease::Store>,
    audit: Audit,
    policy: Current,
    authority: Arc<Authority>,
    metrics: Arc<Metrics>,
    clock: SharedClock,
    is_stopping: Arc<AtomicBool>,
    addresses: control::Addresses,
    left_alone: CancellationToken,
}

fn start_planes(planes: Planes) -> Shutdown {
    let stop_proxy = CancellationToken::new();
    let stop_planes = CancellationToken::new();
    let health: Arc<dyn Fn() -> Vec<control::CredentialHealth> + Send + Sync> = {
        let proxy = planes.proxy.clone();
        Arc::new(move || proxy.rules().credentials.health().into_iter().map(control_health).collect())
    };
    let asking = (scrape(&planes, health.clone()), control::head_of(planes.audit.clone()));
    let (audit, authority) = (planes.audit.clone(), planes.authority.clone());
    let tending = planes.proxy.clone().tend_credentials();
    let mut listeners = planes.listeners.transparent;
    listeners.push((planes.listeners.proxy, Entrance::Proxy));
    listeners.extend(planes.outer.map(|(listener, tls)| (listener, Entrance::Tls(tls))));
    let proxy = tokio::spawn(listeners::serve_agents(planes.proxy, listeners, stop_proxy.clone()));
    let sweeper = tokio::spawn(planes.leases.clone().sweep());
    let tender = tokio::spawn(tending);
    let (sending, endpoints) = planes.sending;
    let sender = tokio::spawn(control::webhooks::send(sending, endpoints, stop_planes.clone()));
    let (reloading, asked) = planes.reloading;
    let reloader = tokio::spawn(reloading.run(asked));
    let parts = control::Parts {
        policy: planes.policy,
        leases: planes.leases.minter(),
        audit: planes.audit,
        metrics: planes.metrics.clone(),
        clock: planes.clock,
        ca_pem: planes.authority.certificate_pem().to_owned(),
        proxy_url: format!("http://{}", planes.addresses.proxy),
        addresses: planes.addresses,
        credentials: health,
    };
    let control = start_control(planes.listeners.control, planes.remote, parts, stop_planes.clone(), planes.left_alone);
    let listeners = [("proxy", proxy.abort_handle()), ("control", control.abort_handle())];
    let readiness = readiness(audit, authority, planes.is_stopping, listeners);
    let admin = control::serve_admin(planes.listeners.admin, readiness, planes.metrics, asking, stop_planes.clone());
    let mut tasks = vec![control, tokio::spawn(admin), sender];
    tasks.extend(planes.reports.map(|reports| tokio::spawn(control::serve_reports(reports, stop_planes.clone()))));
    Shutdown { proxy: (stop_proxy, proxy), planes: stop_planes, tasks, helpers: [sweeper, tender, reloader] }
}

fn start_control(
    socket: ControlSocket,
    remote: Option<control::Remote>,
    parts: control::Parts,
    stop: CancellationToken,
    left_alone: CancellationToken,
) -> JoinHandle<()> {
    match socket {
        ControlSocket::Path(listener) => tokio::spawn(control::serve(listener, remote, parts, stop)),
        ControlSocket::Channel(channel) => tokio::spawn(async move {
            if let Err(error) = control::serve_supervised(channel, parts, stop).await {
                tracing::error!(%error, "the supervisor's channel cannot be served");
            }
            // In whatever way it ended: without it nobody can reach us.
            left_alone.cancel();
        }),
    }
}

/// What the metrics ask for at each scrape.
fn scrape(planes: &Planes, health: Arc<dyn Fn() -> Vec<control::CredentialHealth> + Send + Sync>) -> metrics::Scrape {
    let (leases, audit) = (planes.leases.clone(), planes.audit.clone());
    let policy = planes.policy.clone();
    Arc::new(move || {
        let state = audit.state();
        metrics::Readings {
            nonces_live: leases.live_count() as u64,
            audit: metrics::AuditReading { is_healthy: state.is_healthy, records: state.records, lost: state.lost },
            credentials: health().into_iter().map(|health| (health.name, health.problem.is_none())).collect(),
            policy_digest: policy.get().digest().clone(),
            panics: telemetry::panics_count(),
        }
    })
}

fn control_health(health: crate::credential::Health) -> control::CredentialHealth {
    control::CredentialHealth {
        name: health.name.to_string(),
        source: health.source,
        problem: health.problem,
        version: health.version,
    }
}

/// The truth about readiness. A policy is there, or there would be no admin listener to ask.
fn readiness(
    audit: Audit,
    authority: Arc<Authority>,
    is_stopping: Arc<AtomicBool>,
    listeners: [(&'static str, AbortHandle); 2],
) -> control::Readiness {
    Arc::new(move || {
        let ended = listeners.iter().find(|(_, task)| task.is_finished());
        let ended = ended.map(|(name, _)| format!("the {name} listener has ended"));
        let is_over = authority.describe().not_after <= jiff::Timestamp::now();
        let authority = is_over.then(|| "the CA has expired; make a new one and start again".to_owned());
        let audit = (!audit.state().is_healthy).then(|| "the audit cannot be written".to_owned());
        let stopping = is_stopping.load(Ordering::Acquire).then(|| "draining".to_owned());
        vec![("authority", authority), ("policy", None), ("listeners", ended), ("audit", audit), ("serving", stopping)]
    })
}
