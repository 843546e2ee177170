//! The policy file, read again while the sidecar runs: when it has changed, and on SIGHUP.
//!
//! The file is looked at by its name, so that a link that is swapped (as Kubernetes does with mounted files) counts as a
//! change. A file with mistakes changes nothing: the last good policy stays in force.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::confine::{self, Needs};
use super::remote::Gate;
use super::{Arguments, assembly, listeners, webhooks};
use crate::audit::{Audit, Event};
use crate::config::{self, Loaded};
use crate::control::webhooks::Endpoint;
use crate::identity::Verifier;
use crate::metrics::Metrics;
use crate::net::tls::ClientTls;
use crate::policy::Current;
use crate::process::Confinement;
use crate::proxy::Proxy;
use crate::proxy::relay::TlsProfiles;

/// How often it is looked whether the file has changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A file that is older than this many seconds is told by its stamp from any that takes its place.
const SETTLED: u64 = 2;

/// Everything that a new policy has to reach.
pub(super) struct Reloading {
    pub(super) arguments: Arguments,
    pub(super) proxy: Arc<Proxy>,
    pub(super) current: Current,
    /// The system's roots, as they were last read.
    pub(super) roots: Mutex<ClientTls>,
    pub(super) audit: Audit,
    pub(super) metrics: Arc<Metrics>,
    /// Who is told of events.
    pub(super) webhooks: watch::Sender<Vec<Arc<Endpoint>>>,
    /// Who proves agents and callers from elsewhere.
    pub(super) gate: Gate,
    /// What this process has shut itself off from.
    pub(super) confinement: Confinement,
    /// The file as it was when it was read for the start, if that is certain.
    pub(super) known: Option<Stamp>,
}

/// What is read before anything changes.
struct Read {
    loaded: Loaded,
    tls: TlsProfiles,
    webhooks: Vec<Arc<Endpoint>>,
    verifier: Arc<Verifier>,
}

/// What tells one state of the file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    file: (u64, u64),
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Of a file that is read after this; `None` for one that changed only now, since a change within one tick of the
    /// file system's clock could leave it the same stamp.
    pub(super) fn settled(path: &Path) -> Option<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        let is_settled = |stamp: &Self| {
            [stamp.modified.0, stamp.changed.0].iter().all(|at| u64::try_from(*at).is_ok_and(|at| at + SETTLED < now))
        };
        Self::of(path).filter(is_settled)
    }

    fn of(path: &Path) -> Option<Self> {
        // A pipe is read once, and only when somebody asks.
        let metadata = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
        Some(Self {
            file: (metadata.dev(), metadata.ino()),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

impl Reloading {
    /// Watches until it is aborted.
    pub(super) async fn run(self, asked: Arc<Notify>) {
        let this = Arc::new(self);
        let stamp = || Stamp::of(&this.arguments.policy);
        let (mut known, mut last) = (this.known, stamp());
        loop {
            let is_asked = timeout(LOOK_EVERY, asked.notified()).await.is_ok();
            let now = stamp();
            // A file that is being written has another stamp at each look; one that is gone may be on its way.
            let is_changed = now.is_some() && now == last && now != known;
            last = now;
            if is_asked || is_changed {
                known = now;
                this.reload(is_asked).await;
            }
        }
    }

    async fn reload(self: &Arc<Self>, is_asked: bool) {
        let this = self.clone();
        let outcome = tokio::task::spawn_blocking(move || this.read()).await;
        let read = match outcome {
            Ok(Ok(read)) => read,
            Ok(Err(report)) => return self.refused(&report),
            Err(_panicked) => return self.refused("it could not be read"),
        };
        if read.loaded.policy.digest() == self.current.get().digest() {
            if is_asked {
                tracing::info!("the policy is as it was");
            }
            return;
        }
        self.adopt(read).await;
    }

    /// Everything that can go wrong goes wrong here, before anything has changed.
    fn read(&self) -> Result<Read, String> {
        confine::review(&self.arguments.policy, &self.confinement)?;
        let mut loaded = config::load_policy(&self.arguments.policy, self.arguments.allow_exec)
            .map_err(|mistakes| mistakes.report(config::Look::Plain))?;
        if loaded.policy.digest() != self.current.get().digest() {
            Needs::of(&loaded).review(&self.confinement)?;
        }
        listeners::check(&self.arguments, &loaded.policy).map_err(|failure| failure.sentence().to_owned())?;
        let roots = self.roots.lock().renewed();
        let tls = assembly::tls_profiles(&loaded.policy, &roots).map_err(|failure| failure.sentence().to_owned())?;
        let webhooks = webhooks::endpoints(std::mem::take(&mut loaded.webhooks), &roots)?;
        *self.roots.lock() = roots;
        let identities = std::mem::take(&mut loaded.identities);
        let known = self.proxy.rules().prover.verifier().clone();
        let verifier = self.gate.review(identities, &loaded.policy, &known);
        let verifier = verifier.map_err(|failure| failure.sentence().to_owned())?;
        Ok(Read { loaded, tls, webhooks, verifier })
    }

    async fn adopt(&self, read: Read) {
        let Read { loaded: Loaded { policy, credentials, warnings, .. }, tls, webhooks, verifier } = read;
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        let credentials = Arc::new(self.proxy.rules().credentials.renewed(credentials));
        credentials.probe().await; // says which cannot be had; the rest works
        let policy = Arc::new(policy.reloaded());
        let digest = policy.digest().clone();
        // Requests first: what is minted under the new policy is never judged by the old one.
        let unscrubbed = policy.unscrubbed();
        self.proxy.adopt(policy.clone(), credentials, verifier.clone(), tls);
        self.current.replace(policy.clone());
        self.gate.adopt(verifier, policy);
        self.webhooks.send_replace(webhooks);
        self.metrics.policy_read("adopted");
        tracing::info!(policy.digest = %digest, "the policy has changed and is in force");
        self.audit.note(Event::PolicyRead { digest, outcome: "adopted", unscrubbed });
    }

    fn refused(&self, report: &str) {
        self.metrics.policy_read("refused");
        tracing::error!("the policy file has changed and is not taken; the last good one stays in force: {report}");
        let policy = self.current.get();
        let (digest, unscrubbed) = (policy.digest().clone(), policy.unscrubbed());
        self.audit.note(Event::PolicyRead { digest, outcome: "refused", unscrubbed });
    }
}
