//! The cache of leaves: bounded, each made once, new ones on a budget.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rcgen::{Issuer, KeyPair};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::ring::{Ticketer, default_provider, sign::any_ecdsa_type};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls::{NoKeyLog, ServerConfig};

use crate::model::{Host, Now};

use super::certificate::{self, LEAF_RENEW_SECONDS, Validity};
use super::{AuthorityError, Limits};

/// What the proxy offers to clients; one that offers no ALPN at all is served as HTTP/1.1.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// Session tickets sent after a TLS 1.3 handshake: whoever resumes by one gets the next. Most clients keep only one.
const TICKETS_PER_HANDSHAKE: usize = 1;
/// When there is no room, one host in so many goes at once, those unused for longest: looking for them has its price.
const LEAVING_SHARE: usize = 64;

/// A leaf and the configuration that serves it.
#[derive(Debug)]
pub(super) struct Leaf {
    config: Arc<ServerConfig>,
    validity: Validity,
}

impl Leaf {
    /// The configuration, shared.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Whether it can be served without another being made: it holds, and has a day left or could not have more.
    fn is_fresh(&self, now: i64, authority: Validity) -> bool {
        let lasts = self.validity.until - now >= LEAF_RENEW_SECONDS || self.validity.until == authority.until;
        self.validity.holds(now) && lasts
    }
}

/// A place for one host's leaf, filled by whoever comes first; `None` inside when it could not be made.
pub(super) type Slot = Arc<OnceLock<Option<Leaf>>>;

struct Entry {
    slot: Slot,
    used: u64,
}

/// The places by host, under one short lock: nothing is signed while it is held.
pub(super) struct Leaves {
    entries: HashMap<Host, Entry>,
    hosts_max: usize,
    uses: u64,
    budget: Budget,
}

impl Leaves {
    pub(super) fn new(limits: Limits, boot: Duration) -> Self {
        Self { entries: HashMap::new(), hosts_max: limits.hosts_max.max(1), uses: 0, budget: Budget::new(limits, boot) }
    }

    /// The place for a host's leaf; `None` when a new leaf is needed and the budget is spent.
    ///
    /// A leaf that is due for renewal is still served, as long as it holds, while there is no budget for another.
    pub(super) fn slot(&mut self, host: &Host, now: Now, authority: Validity) -> Option<Slot> {
        let wall = now.wall.as_second();
        self.uses += 1;
        if let Some(entry) = self.entries.get_mut(host) {
            entry.used = self.uses;
            let made = entry.slot.get().and_then(Option::as_ref);
            let fresh = made.is_none_or(|leaf| leaf.is_fresh(wall, authority));
            if !fresh && self.budget.take(now.boot) {
                entry.slot = Slot::default();
            } else if made.is_some_and(|leaf| !leaf.validity.holds(wall)) {
                return None;
            }
            return Some(Arc::clone(&entry.slot));
        }
        // Before anything is evicted: a flood of names must not push out the hosts in use.
        if !self.budget.take(now.boot) {
            return None;
        }
        self.make_room();
        let slot = Slot::default();
        self.entries.insert(host.clone(), Entry { slot: Arc::clone(&slot), used: self.uses });
        Some(slot)
    }

    /// Takes out a place that could not be filled, unless it has been replaced already.
    pub(super) fn forget(&mut self, host: &Host, slot: &Slot) {
        if self.entries.get(host).is_some_and(|entry| Arc::ptr_eq(&entry.slot, slot)) {
            self.entries.remove(host);
        }
    }

    /// Looks at every host, but seldom: several leave at a time. No two have the same number of use.
    fn make_room(&mut self) {
        if self.entries.len() < self.hosts_max {
            return;
        }
        let mut uses: Vec<u64> = self.entries.values().map(|entry| entry.used).collect();
        let leaving = self.entries.len() - self.hosts_max + 1 + self.hosts_max / LEAVING_SHARE;
        let last = leaving.min(uses.len()) - 1;
        let (_, until, _) = uses.select_nth_unstable(last);
        self.entries.retain(|_, entry| entry.used > *until);
    }
}

/// A token bucket, kept as the time at which it will be full again (GCRA).
struct Budget {
    full_at: Duration,
    interval: Duration,
    depth: Duration,
}

impl Budget {
    fn new(limits: Limits, boot: Duration) -> Self {
        let interval = Duration::from_secs(1) / limits.leaves_per_second.max(1);
        Self { full_at: boot, interval, depth: interval * limits.leaves_burst.max(1) }
    }

    fn take(&mut self, boot: Duration) -> bool {
        let full_at = self.full_at.max(boot) + self.interval;
        let taken = full_at - boot <= self.depth;
        if taken {
            self.full_at = full_at;
        }
        taken
    }
}

/// Makes leaves: the CA's key, and the one key that all leaves of this process share.
pub(super) struct Mint {
    issuer: Issuer<'static, KeyPair>,
    authority: Validity,
    leaf_key: KeyPair,
    signing_key: Arc<dyn SigningKey>,
    provider: Arc<CryptoProvider>,
}

impl Mint {
    pub(super) fn new(issuer: Issuer<'static, KeyPair>, authority: Validity) -> Result<Self, AuthorityError> {
        let leaf_key = certificate::new_key()?;
        let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(leaf_key.serialized_der()));
        let signing_key = any_ecdsa_type(&der).map_err(|_| AuthorityError::Generation)?;
        Ok(Self { issuer, authority, leaf_key, signing_key, provider: Arc::new(provider()) })
    }

    /// A leaf for a host, or `None` if it cannot be signed.
    pub(super) fn leaf(&self, host: &Host, now: i64) -> Option<Leaf> {
        let validity = self.authority.of_leaf(now);
        if !validity.holds(now) {
            return None;
        }
        let certificate = certificate::new_leaf(host, validity, &self.leaf_key, &self.issuer).ok()?;
        Some(Leaf { config: Arc::new(self.config(certificate).ok()?), validity })
    }

    fn config(&self, leaf: CertificateDer<'static>) -> Result<ServerConfig, rustls::Error> {
        let certified = CertifiedKey::new(vec![leaf], Arc::clone(&self.signing_key));
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = ALPN.iter().map(|name| name.to_vec()).collect();
        // A ticketer for each host: rustls binds a ticket to the SNI, but hosts that are addresses have none.
        config.ticketer = Ticketer::new()?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = TICKETS_PER_HANDSHAKE;
        config.max_early_data_size = 0;
        config.ignore_client_order = true;
        // SSLKEYLOGFILE must not lay open what agents send.
        config.key_log = Arc::new(NoKeyLog {});
        Ok(config)
    }
}

/// What the library recommends, with the suite first that every TLS 1.3 must have. Key exchange and leaf are of 128 bits
/// too; processors have instructions for SHA-256 that they lack for SHA-384, which is half of a handshake's hashing.
fn provider() -> CryptoProvider {
    let mut provider = default_provider();
    // Stable: the others stay in their order.
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != TLS13_AES_128_GCM_SHA256.suite());
    provider
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::{Authority, Home, LeafRefused};
    use crate::clock::{Clock, ManualClock};

    const SECOND: Duration = Duration::from_secs(1);
    const DAY: Duration = Duration::from_secs(86_400);

    fn host(text: &str) -> Host {
        Host::parse(text).unwrap()
    }

    fn small(hosts_max: usize, leaves_burst: u32) -> (Authority, Arc<ManualClock>) {
        let clock = ManualClock::new();
        let limits = Limits { hosts_max, leaves_per_second: 2, leaves_burst };
        (Authority::open_with(&Home::Memory, clock.clone(), limits).unwrap(), clock)
    }

    fn cached(authority: &Authority, name: &str) -> bool {
        authority.leaves.lock().entries.contains_key(&host(name))
    }

    #[test]
    fn a_leaf_is_made_once_and_handed_out_again() {
        let (authority, _) = small(8, 8);
        let first = authority.server_config(&host("api.test")).unwrap();
        assert!(Arc::ptr_eq(&first, &authority.server_config(&host("API.test.")).unwrap()));
        assert!(!Arc::ptr_eq(&first, &authority.server_config(&host("other.test")).unwrap()));
    }

    #[test]
    fn a_leaf_is_made_once_under_concurrency() {
        // The budget of one shows it: a second signature would be refused.
        let (authority, _) = small(8, 1);
        let configs: Vec<_> = std::thread::scope(|scope| {
            let each = || authority.server_config(&host("api.test")).unwrap();
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(each)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(configs.iter().all(|config| Arc::ptr_eq(config, &configs[0])));
    }

    #[test]
    fn the_host_unused_for_longest_makes_room() {
        let (authority, _) = small(2, 8);
        authority.server_config(&host("a.test")).unwrap();
        authority.server_config(&host("b.test")).unwrap();
        authority.server_config(&host("a.test")).unwrap();
        authority.server_config(&host("c.test")).unwrap();
        assert_eq!(["a.test", "b.test", "c.test"].map(|name| cached(&authority, name)), [true, false, true]);
    }

    #[test]
    fn where_there_is_room_for_many_several_leave_at_once() {
        let (authority, _) = small(128, 129);
        let name = |number: usize| format!("h{number}.test");
        for number in 0..128 {
            authority.server_config(&host(&name(number))).unwrap();
        }
        assert_eq!(authority.leaves.lock().entries.len(), 128, "no sooner than needed");
        authority.server_config(&host(&name(128))).unwrap();
        let gone: Vec<_> = (0..129).filter(|number| !cached(&authority, &name(*number))).collect();
        assert_eq!(gone, [0, 1, 2]);
    }

    #[test]
    fn a_spent_budget_refuses_new_hosts_keeps_the_known_and_refills() {
        let (authority, clock) = small(8, 2);
        authority.server_config(&host("a.test")).unwrap();
        authority.server_config(&host("b.test")).unwrap();
        assert_eq!(authority.server_config(&host("c.test")).unwrap_err(), LeafRefused);
        authority.server_config(&host("a.test")).unwrap();
        assert!(cached(&authority, "b.test") && !cached(&authority, "c.test"));
        clock.advance(SECOND / 2);
        authority.server_config(&host("c.test")).unwrap();
        assert!(authority.server_config(&host("d.test")).is_err());
        clock.advance(SECOND * 3600);
        authority.server_config(&host("d.test")).unwrap();
        authority.server_config(&host("e.test")).unwrap();
        assert!(authority.server_config(&host("f.test")).is_err(), "time saves up no more than the burst");
    }

    #[test]
    fn a_leaf_is_renewed_on_its_last_day_and_ends_with_the_ca() {
        let directory = tempfile::tempdir().unwrap();
        let clock = ManualClock::new();
        let authority = Authority::open(&Home::Directory(directory.path().join("ca")), clock.clone()).unwrap();
        let first = authority.server_config(&host("api.test")).unwrap();
        clock.advance(DAY * 197);
        assert!(Arc::ptr_eq(&first, &authority.server_config(&host("api.test")).unwrap()));
        clock.advance(DAY + SECOND * 3601);
        let second = authority.server_config(&host("api.test")).unwrap();
        assert!(!Arc::ptr_eq(&first, &second), "a day and less is left");
        // The second ends with the CA, so that another would not last longer.
        clock.advance(DAY * 166);
        assert!(Arc::ptr_eq(&second, &authority.server_config(&host("api.test")).unwrap()));
        clock.advance(DAY);
        assert_eq!(authority.server_config(&host("api.test")).unwrap_err(), LeafRefused);
    }

    #[test]
    fn renewal_waits_for_the_budget_while_the_leaf_holds() {
        let authority = Validity { from: 0, until: i64::MAX };
        let (of, clock) = small(8, 1);
        let now = clock.now();
        let wall = now.wall.as_second();
        let limits = Limits { hosts_max: 8, leaves_per_second: 1, leaves_burst: 1 };
        let mut leaves = Leaves::new(limits, now.boot);
        let slot = leaves.slot(&host("api.test"), now, authority).unwrap();
        let config = of.server_config(&host("api.test")).unwrap();
        let due = Validity { from: wall - 10, until: wall + 10 };
        slot.set(Some(Leaf { config, validity: due })).unwrap();
        let still = leaves.slot(&host("api.test"), now, authority).unwrap();
        assert!(Arc::ptr_eq(&slot, &still), "no budget, still valid");
        let over = Now { boot: now.boot, wall: certificate::timestamp(wall + 10) };
        assert!(leaves.slot(&host("api.test"), over, authority).is_none(), "no budget, not valid");
        let later = now.plus(SECOND);
        let later = Now { boot: later.boot, wall: later.wall };
        let renewed = leaves.slot(&host("api.test"), later, authority).unwrap();
        assert!(!Arc::ptr_eq(&slot, &renewed));
    }

    #[test]
    fn what_could_not_be_made_is_not_kept() {
        let (_, clock) = small(8, 8);
        let mut leaves = Leaves::new(Limits::default(), clock.now().boot);
        let authority = Validity { from: 0, until: i64::MAX };
        let slot = leaves.slot(&host("api.test"), clock.now(), authority).unwrap();
        leaves.forget(&host("api.test"), &Slot::default());
        assert_eq!(leaves.entries.len(), 1, "another's place stays");
        leaves.forget(&host("api.test"), &slot);
        assert!(leaves.entries.is_empty());
    }
}
