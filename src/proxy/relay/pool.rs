//! Upstream connections, pooled per destination and credential version, shared across tunnels; over HTTP/2 not across agents.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use rustls::ClientConfig;

use super::certified::Certified;
use super::connector::{Connector, TlsProfiles};
use super::lines::Lines;
use super::parent::Parent;
use crate::model::{CredentialName, Denial, Destination};
use crate::net::{Dialer, Reach};
use crate::policy::Policy;
use crate::proxy::Limits;
use crate::proxy::inject::{Errand, Shown};

/// Pools at most: services × hosts × credentials stay far below; a wildcard host can name many.
const POOLS_MAX: usize = 1024;
/// When there is no room, one pool in so many goes at once, those unused for longest: looking for them has its price, and
/// so has closing their connections, which keeps everybody else waiting.
const LEAVING_SHARE: usize = 64;

/// All upstream connections of the process.
pub struct Upstream {
    pools: DashMap<Errand, Pool>,
    uses: AtomicU64,
    newest: Newest,
    dialer: Arc<Dialer>,
    parent: Option<Arc<Parent>>,
    policy: Arc<Policy>,
    tls: TlsProfiles,
    certified: Certified,
    limits: Limits,
}

/// The connections for one errand.
struct Pool {
    lines: Arc<Lines>,
    /// The number of its latest use; no two pools have the same.
    used: AtomicU64,
}

impl Upstream {
    /// No connections yet.
    #[must_use]
    pub fn new(
        dialer: Arc<Dialer>,
        parent: Option<Parent>,
        policy: Arc<Policy>,
        tls: TlsProfiles,
        limits: Limits,
    ) -> Self {
        Self {
            pools: DashMap::new(),
            uses: AtomicU64::default(),
            newest: Newest::default(),
            dialer,
            parent: parent.map(Arc::new),
            policy,
            tls,
            certified: Certified::default(),
            limits,
        }
    }

    /// The pool for an errand; a credential's older versions lose theirs.
    pub(super) fn lines(&self, errand: &Errand) -> Result<Arc<Lines>, Denial> {
        let used = self.uses.fetch_add(1, Ordering::Relaxed);
        if let Some(pool) = self.pools.get(errand) {
            pool.used.store(used, Ordering::Relaxed);
            return Ok(pool.lines.clone());
        }
        if self.newest.is_raised_by(errand) {
            self.pools.retain(|other, _| !is_outdated(other, errand));
        }
        self.make_room();
        let lines = Arc::new(Lines::new(self.connector(errand)?, &self.limits)?);
        let pool = Pool { lines, used: AtomicU64::new(used) };
        let lines = self.pools.entry(errand.clone()).or_insert(pool).lines.clone();
        // Asked only now: whoever brings a newer version later finds this one among the pools.
        if self.newest.is_above(errand) {
            self.pools.remove(errand);
        }
        Ok(lines)
    }

    /// Some pools go where there are too many. Connections under way live on with their exchanges.
    fn make_room(&self) {
        if self.pools.len() < POOLS_MAX {
            return;
        }
        let mut uses: Vec<u64> = self.pools.iter().map(|pool| pool.used.load(Ordering::Relaxed)).collect();
        // Others take pools out, too.
        let Some(last) = (POOLS_MAX / LEAVING_SHARE).min(uses.len()).checked_sub(1) else { return };
        let (_, until, _) = uses.select_nth_unstable(last);
        self.pools.retain(|_, pool| pool.used.load(Ordering::Relaxed) > *until);
    }

    /// Drops the pools on which these credentials went out; true if there was one. Connections under way end with their
    /// exchanges.
    pub fn forget(&self, may_go: &dyn Fn(&CredentialName) -> bool) -> bool {
        let mut any = false;
        self.pools.retain(|errand, _| {
            let goes = versions(errand).any(|(name, _)| may_go(name));
            any |= goes;
            !goes
        });
        self.certified.forget(may_go);
        any
    }

    /// The way to where an errand goes.
    pub(super) fn connector(&self, errand: &Errand) -> Result<Connector, Denial> {
        let service = self.policy.service(&errand.service).ok_or(Denial::Internal)?;
        Ok(Connector {
            dialer: self.dialer.clone(),
            parent: self.parent_to(&errand.destination, service.private),
            destination: errand.destination.clone(),
            scheme: errand.scheme,
            reach: if service.private { Reach::Private } else { Reach::Public },
            tls: self.tls(errand)?,
            timeout: self.limits.connect_timeout,
            idle_timeout: self.limits.idle_timeout,
        })
    }
}

impl Upstream {
    /// How the upstream is verified, and what it is shown.
    fn tls(&self, errand: &Errand) -> Result<Arc<ClientConfig>, Denial> {
        let plain = self.tls.of(&errand.service).ok_or(Denial::Internal)?;
        Ok(match &errand.certificate {
            Some(shown) => self.certified.config(&errand.service, &plain, shown),
            None => plain,
        })
    }

    /// Names of public services go through the parent; addresses, private services and what `--connect-to` sends
    /// elsewhere are dialled, so that they are judged by us.
    fn parent_to(&self, destination: &Destination, is_private: bool) -> Option<Arc<Parent>> {
        let is_direct = is_private || destination.host.ip().is_some() || self.dialer.sends_elsewhere(destination);
        self.parent.clone().filter(|_| !is_direct)
    }
}

/// The latest version of each credential that has gone out.
#[derive(Default)]
struct Newest(DashMap<CredentialName, u64>);

impl Newest {
    /// Takes note of an errand's version; true if an older one had gone out before it.
    fn is_raised_by(&self, errand: &Errand) -> bool {
        // Each of them is noted.
        versions(errand).fold(false, |is_raised, (name, version)| {
            let mut newest = self.0.entry(name.clone()).or_insert(*version);
            let is_newer = *newest < *version;
            *newest = (*newest).max(*version);
            is_raised || is_newer
        })
    }

    /// Whether a newer version than the errand's has gone out.
    fn is_above(&self, errand: &Errand) -> bool {
        versions(errand).any(|(name, version)| self.0.get(name).is_some_and(|newest| *newest > *version))
    }
}

/// What an errand carries: its credential, its client certificate.
fn versions(errand: &Errand) -> impl Iterator<Item = &(CredentialName, u64)> {
    errand.credential.iter().chain(errand.certificate.iter().map(Shown::version))
}

/// The same errand with a version of a credential that is over.
fn is_outdated(known: &Errand, fresh: &Errand) -> bool {
    let is_over = |(name, version): &(CredentialName, u64)| {
        versions(fresh).any(|(fresh_name, fresh_version)| name == fresh_name && version < fresh_version)
    };
    versions(known).any(is_over)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Scheme;

    fn errand(credential: Option<(&str, u64)>) -> Errand {
        Errand {
            scheme: Scheme::Https,
            destination: Destination::parse("api.test:443", None).unwrap(),
            credential: credential.map(|(name, version)| (name.parse().unwrap(), version)),
            certificate: None,
            service: "api".parse().unwrap(),
        }
    }

    #[test]
    fn a_newer_version_is_noticed_once_and_puts_the_older_ones_behind() {
        let newest = Newest::default();
        let (first, second, other) = (errand(Some(("a", 1))), errand(Some(("a", 2))), errand(Some(("b", 1))));
        assert!(!newest.is_raised_by(&first), "nothing older went out");
        assert!(!newest.is_raised_by(&first) && !newest.is_above(&first));
        assert!(newest.is_raised_by(&second));
        assert!(!newest.is_raised_by(&second), "once");
        assert!(!newest.is_raised_by(&first), "an older one raises nothing");
        assert!(newest.is_above(&first) && !newest.is_above(&second));
        assert!(!newest.is_raised_by(&other) && !newest.is_above(&other), "each credential by itself");
        assert!(!newest.is_raised_by(&errand(None)) && !newest.is_above(&errand(None)));
    }
}
