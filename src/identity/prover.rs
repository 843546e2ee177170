//! Tokens that agents show to the proxy: verified once, then known by their digest for a moment. And their certificates,
//! which are verified each time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::jwt::TOKEN_BYTES_MAX;
use super::standing::Standing;
use super::verifier::Proven;
use super::{Refused, Shown, Verifier};
use crate::clock::SharedClock;
use crate::model::{Deadline, Identity, Now};

/// So long a token is not verified again: clients open tunnels in bursts. A key that is withdrawn, or a pod that is gone,
/// is believed so much longer.
const FRESH_FOR: Duration = Duration::from_secs(30);
/// Tokens that are known at most; what has no place is verified each time.
const KNOWN_MAX: usize = 1024;
/// Tokens that are verified at a time, and certificates.
const AT_A_TIME_MAX: usize = 16;
/// How long one of them waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(5);

/// What proves the agents of a policy by their tokens and certificates.
pub struct Prover {
    verifier: Arc<Verifier>,
    clock: SharedClock,
    known: Mutex<HashMap<[u8; 32], Arc<Proof>>>,
    turns: Semaphore,
    /// Of certificates, for which nobody else is asked: they do not wait behind a slow key server.
    certificate_turns: Arc<Semaphore>,
}

/// An identity that a token or a certificate has proven. It is of use while [`Proof::holds`] says so.
#[derive(Debug)]
pub struct Proof {
    /// Whom it names.
    pub identity: Identity,
    /// When it was verified; of a certificate, when the connection was opened.
    pub at: Now,
    until: Deadline,
    standing: Standing,
}

impl Proof {
    /// True until the token or the certificate expires, or who has vouched for them is no longer what it was in the policy.
    #[must_use]
    pub fn holds(&self, now: &Now) -> bool {
        self.standing.holds() && !self.until.is_over(now)
    }
}

impl Prover {
    /// Proves by the issuers of this verifier.
    #[must_use]
    pub fn new(verifier: Arc<Verifier>, clock: SharedClock) -> Arc<Self> {
        Self::knowing(HashMap::new(), verifier, clock)
    }

    fn knowing(known: HashMap<[u8; 32], Arc<Proof>>, verifier: Arc<Verifier>, clock: SharedClock) -> Arc<Self> {
        Arc::new(Self {
            verifier,
            clock,
            known: Mutex::new(known),
            turns: Semaphore::new(AT_A_TIME_MAX),
            certificate_turns: Arc::new(Semaphore::new(AT_A_TIME_MAX)),
        })
    }

    /// The same prover where nothing has changed. Otherwise another one, with what is known by issuers that are the same;
    /// and nothing that the others have proven holds any longer: an issuer of another policy can have the name of one of
    /// this.
    #[must_use]
    pub fn renewed(self: &Arc<Self>, verifier: Arc<Verifier>) -> Arc<Self> {
        if Arc::ptr_eq(&self.verifier, &verifier) {
            return self.clone();
        }
        self.verifier.yield_to(&verifier);
        let now = self.clock.now();
        let mut known = self.known.lock().clone();
        known.retain(|_, proof| proof.holds(&now));
        Self::knowing(known, verifier, self.clock.clone())
    }

    /// What verifies.
    #[must_use]
    pub fn verifier(&self) -> &Arc<Verifier> {
        &self.verifier
    }

    /// Whom a token proves, in a policy whose shortest `reattest` is this: a new connection always proves enough for that.
    ///
    /// # Errors
    /// [`Refused`]: nobody.
    pub async fn prove(&self, token: &str, reattest_min: Option<Duration>) -> Result<Arc<Proof>, Refused> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refused::TooLong);
        }
        let key = key(token);
        let fresh_for = reattest_min.map_or(FRESH_FOR, |within| FRESH_FOR.min(within / 2));
        if let Some(proof) = self.known(&key, fresh_for) {
            return Ok(proof);
        }
        let _turn = turn(&self.turns).await?;
        // Others with the same token may have waited for the same answer.
        if let Some(proof) = self.known(&key, fresh_for) {
            return Ok(proof);
        }
        // Before it is verified, so that what takes long makes nothing look fresher.
        let at = self.clock.now();
        let Proven { identity, end, standing } = self.verifier.prove(token).await?;
        let until = deadline(&at, end).ok_or(Refused::Expired)?;
        let proof = Arc::new(Proof { identity, at, until, standing });
        self.keep(key, &proof);
        Ok(proof)
    }

    /// Whom a certificate proves that was shown in a handshake. It is judged by the files as they are now.
    ///
    /// # Errors
    /// [`Refused`]: nobody.
    pub async fn certify(&self, shown: &Arc<Shown>) -> Result<Arc<Proof>, Refused> {
        let turn = timeout(TURN_TIMEOUT, self.certificate_turns.clone().acquire_owned());
        let turn = turn.await.ok().and_then(Result::ok).ok_or(Refused::Unavailable)?;
        let Proven { identity, end, standing } = self.verifier.certify(shown, turn).await?;
        let until = deadline(&self.clock.now(), end).ok_or(Refused::CertificateOver)?;
        Ok(Arc::new(Proof { identity, at: shown.at, until, standing }))
    }

    fn known(&self, key: &[u8; 32], fresh_for: Duration) -> Option<Arc<Proof>> {
        let now = self.clock.now();
        self.known.lock().get(key).filter(|proof| is_fresh(proof, fresh_for, &now)).cloned()
    }

    fn keep(&self, key: [u8; 32], proof: &Arc<Proof>) {
        let now = self.clock.now();
        let mut known = self.known.lock();
        if known.len() >= KNOWN_MAX {
            known.retain(|_, proof| is_fresh(proof, FRESH_FOR, &now));
        }
        if known.len() < KNOWN_MAX {
            known.insert(key, proof.clone());
        }
    }
}

async fn turn(turns: &Semaphore) -> Result<SemaphorePermit<'_>, Refused> {
    timeout(TURN_TIMEOUT, turns.acquire()).await.ok().and_then(Result::ok).ok_or(Refused::Unavailable)
}

fn is_fresh(proof: &Proof, fresh_for: Duration, now: &Now) -> bool {
    proof.holds(now) && !proof.at.plus(fresh_for).is_over(now)
}

fn key(token: &str) -> [u8; 32] {
    let mut key = [0; 32];
    key.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    key
}

/// The moment on both clocks at which what ends with this second is over; `None` if it is.
fn deadline(now: &Now, expiry: i64) -> Option<Deadline> {
    let left = Timestamp::from_second(expiry).ok()?.duration_since(now.wall);
    let left = Duration::try_from(left).ok().filter(|left| !left.is_zero())?;
    Some(now.plus(left))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::identity::{CaSource, ClientCa, Identities};
    use crate::net::Dialer;
    use crate::net::tls::ClientTls;

    fn prover(clock: &Arc<ManualClock>) -> Arc<Prover> {
        Prover::new(Arc::new(Verifier::of_nobody(None, clock.clone())), clock.clone())
    }

    fn proof(prover: &Prover, lasts: Duration) -> Arc<Proof> {
        let at = prover.clock.now();
        let identity = Identity::Kubernetes("agents/worker".into());
        Arc::new(Proof { identity, at, until: at.plus(lasts), standing: Standing::default() })
    }

    #[tokio::test]
    async fn a_token_is_known_for_a_moment_and_never_beyond_its_end() {
        let clock = ManualClock::new();
        let prover = prover(&clock);
        assert_eq!(prover.prove("a.b.c", None).await.err(), Some(Refused::Unknown));
        for (lasts, known_for) in
            [(Duration::from_secs(600), FRESH_FOR), (Duration::from_secs(7), Duration::from_secs(7))]
        {
            prover.keep(key("a.b.c"), &proof(&prover, lasts));
            clock.advance(known_for - Duration::from_millis(1));
            assert!(prover.prove("a.b.c", None).await.is_ok());
            assert!(prover.prove("a.b.d", None).await.is_err(), "another token");
            clock.advance(Duration::from_millis(1));
            assert_eq!(prover.prove("a.b.c", None).await.err(), Some(Refused::Unknown), "verified again");
        }
    }

    #[tokio::test]
    async fn a_token_is_known_for_half_of_the_shortest_reattest() {
        let clock = ManualClock::new();
        let prover = prover(&clock);
        prover.keep(key("a.b.c"), &proof(&prover, Duration::from_secs(600)));
        let reattest = Some(Duration::from_secs(10));
        clock.advance(Duration::from_secs(4));
        assert!(prover.prove("a.b.c", reattest).await.is_ok());
        clock.advance(Duration::from_secs(1));
        assert_eq!(prover.prove("a.b.c", reattest).await.err(), Some(Refused::Unknown), "verified again");
        assert!(prover.prove("a.b.c", None).await.is_ok());
    }

    #[test]
    fn what_is_known_is_bounded() {
        let clock = ManualClock::new();
        let prover = prover(&clock);
        for number in 0..2 * KNOWN_MAX {
            prover.keep(key(&number.to_string()), &proof(&prover, Duration::from_secs(600)));
        }
        assert_eq!(prover.known.lock().len(), KNOWN_MAX);
        clock.advance(FRESH_FOR);
        prover.keep(key("new"), &proof(&prover, Duration::from_secs(600)));
        assert_eq!(prover.known.lock().len(), 1, "what is not fresh makes room");
    }

    #[test]
    fn a_proof_ends_with_its_token_by_either_clock_and_with_its_issuers() {
        let clock = ManualClock::new();
        let prover = prover(&clock);
        let now = clock.now();
        let proof = proof(&prover, Duration::from_secs(60));
        assert!(proof.holds(&now));
        let back = Now { boot: now.boot + Duration::from_secs(60), wall: now.wall };
        let ahead = Now { boot: now.boot, wall: now.plus(Duration::from_secs(60)).wall };
        assert!(!proof.holds(&back) && !proof.holds(&ahead));
        let same = prover.renewed(prover.verifier().clone());
        assert!(Arc::ptr_eq(&same, &prover) && proof.holds(&now));
        proof.standing.end();
        assert!(!proof.holds(&now));
    }

    /// CAs of a policy, each of its own trust domain.
    fn by(cas: &[(&str, &str)]) -> Identities {
        let ca = |(name, domain): &(&str, &str)| ClientCa {
            name: (*name).into(),
            trust_domain: Some((*domain).to_owned()),
            source: CaSource::File("/nowhere".into()),
        };
        Identities { client_cas: cas.iter().map(ca).collect(), ..Identities::default() }
    }

    #[test]
    fn another_policy_ends_what_those_have_proven_of_whom_it_says_something_else() {
        let clock = ManualClock::new();
        let dialer = Arc::new(Dialer::new(Vec::new(), Vec::new(), Duration::from_secs(1)));
        let tls = ClientTls::new([0; 32]);
        let nobody = Verifier::of_nobody(None, clock.clone());
        let of = |before: &Verifier, cas: &[(&str, &str)]| Arc::new(before.renewed(by(cas), &dialer, &tls).unwrap());
        let first = of(&nobody, &[("kept", "a.org"), ("changed", "b.org"), ("gone", "c.org")]);
        let prover = Prover::new(first.clone(), clock.clone());
        let proofs: Vec<_> = first.standings().cloned().map(|standing| (standing, prover.clone())).collect();
        for (number, (standing, prover)) in proofs.iter().enumerate() {
            let known = Proof { standing: standing.clone(), ..Arc::into_inner(proof(prover, FRESH_FOR)).unwrap() };
            prover.keep(key(&number.to_string()), &Arc::new(known));
        }
        let second = of(&first, &[("new", "d.org"), ("kept", "a.org"), ("changed", "other.org")]);
        let next = prover.renewed(second);
        assert_eq!(proofs.iter().map(|(standing, _)| standing.holds()).collect::<Vec<_>>(), [true, false, false]);
        assert_eq!(next.known.lock().keys().collect::<Vec<_>>(), [&key("0")], "and is known to the next one");
        assert!(next.verifier().standings().all(Standing::holds));
    }

    #[test]
    fn what_is_over_has_no_deadline() {
        let now = ManualClock::new().now();
        let second = now.wall.as_second();
        assert_eq!(deadline(&now, second - 1), None);
        assert_eq!(deadline(&now, second), None);
        let until = deadline(&now, second + 60).unwrap();
        assert!(!until.is_over(&now) && until.remaining(&now) <= Duration::from_secs(60));
    }
}
