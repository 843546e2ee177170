//! An issuer's keys: from a file that is read at every use, from a server, whose answer is kept for a while, or from the
//! Workload API, whose updates are followed.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::Refused;
use super::files;
use super::jwks::{Key, KeySet, SET_BYTES_MAX, Use};
use super::workload::Bundle;
use crate::clock::SharedClock;

/// After this the server is asked again, so that a key that it withdrew is not believed for long.
const FRESH_FOR: Duration = Duration::from_secs(300);
/// The last good answer is believed no longer than this, whatever the server says or does not say.
pub(super) const STALE_MAX: Duration = Duration::from_secs(3600);
/// Questions in a row at most, then one in each of the periods below: unknown key names must not become a flood.
const ASKS_MAX: u32 = 5;
/// When one more question may be asked.
const ASK_EVERY: Duration = Duration::from_secs(10);

/// What fetches a key set.
pub(super) type Fetch = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send>> + Send + Sync>;

/// Where keys come from.
pub(super) enum Origin {
    File(PathBuf),
    Server(Fetch),
    Workload(Bundle<KeySet>),
}

/// The keys of one issuer.
pub(super) struct Keys {
    /// The issuer's name in the policy, for the log.
    name: Arc<str>,
    origin: Origin,
    wanted: Use,
    clock: SharedClock,
    kept: Mutex<Kept>,
    /// One question at a time.
    asking: tokio::sync::Mutex<()>,
}

struct Kept {
    set: Arc<KeySet>,
    /// When it was had, since boot; `None` before the first.
    at: Option<Duration>,
    /// The last question had no answer.
    has_failed: bool,
    asks_left: u32,
    asks_counted_at: Duration,
}

impl Keys {
    pub(super) fn new(name: Arc<str>, origin: Origin, wanted: Use, clock: SharedClock) -> Self {
        let kept = Kept {
            set: Arc::default(),
            at: None,
            has_failed: false,
            asks_left: ASKS_MAX,
            asks_counted_at: clock.now().boot,
        };
        Self { name, origin, wanted, clock, kept: Mutex::new(kept), asking: tokio::sync::Mutex::default() }
    }

    /// The key of this name.
    pub(super) async fn find(&self, kid: &str) -> Result<Key, Refused> {
        match &self.origin {
            Origin::File(path) => {
                let set = self.read(path.clone()).await?;
                set.find(kid).cloned().ok_or(Refused::UnknownKey)
            }
            Origin::Server(fetch) => self.ask(fetch, kid).await,
            Origin::Workload(bundle) => bundle.find(kid),
        }
    }

    async fn read(&self, path: PathBuf) -> Result<KeySet, Refused> {
        let reading = tokio::task::spawn_blocking(move || files::read_public(&path, SET_BYTES_MAX));
        let bytes = match reading.await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(problem)) => return Err(self.unavailable(&problem.to_string())),
            Err(_) => return Err(self.unavailable("reading was broken off")),
        };
        KeySet::parse(&bytes, self.wanted).ok_or_else(|| self.unavailable("it is no well-formed key set"))
    }

    fn unavailable(&self, problem: &str) -> Refused {
        tracing::warn!(issuer = %self.name, problem, "the issuer's keys cannot be had");
        Refused::Unavailable
    }

    async fn ask(&self, fetch: &Fetch, kid: &str) -> Result<Key, Refused> {
        if let Some(key) = self.known(kid, FRESH_FOR) {
            return Ok(key);
        }
        let asking = self.asking.lock().await;
        // Somebody may have asked while we waited.
        if let Some(key) = self.known(kid, FRESH_FOR) {
            return Ok(key);
        }
        let answered = if self.may_ask() { Some(self.fetch(fetch).await) } else { None };
        drop(asking);
        match (self.known(kid, STALE_MAX), answered) {
            (Some(key), _) => Ok(key),
            (None, Some(Err(()))) => Err(Refused::Unavailable),
            // It was away when it was last asked, and it is too early to ask again.
            (None, None) if self.kept.lock().has_failed => Err(Refused::Unavailable),
            // Without any answer so far nothing can be said of a key.
            (None, _) if self.kept.lock().at.is_none_or(|at| self.age(at) >= STALE_MAX) => Err(Refused::Unavailable),
            (None, _) => Err(Refused::UnknownKey),
        }
    }

    async fn fetch(&self, fetch: &Fetch) -> Result<(), ()> {
        let set = match fetch().await {
            Ok(bytes) => KeySet::parse(&bytes, self.wanted).ok_or_else(|| "it is no well-formed key set".to_owned()),
            Err(problem) => Err(problem),
        };
        match set {
            Ok(set) => {
                let mut kept = self.kept.lock();
                kept.set = Arc::new(set);
                kept.at = Some(self.clock.now().boot);
                kept.has_failed = false;
                Ok(())
            }
            Err(problem) => {
                self.kept.lock().has_failed = true;
                self.unavailable(&problem);
                Err(())
            }
        }
    }

    /// A key of an answer that is not older than this.
    fn known(&self, kid: &str, age_max: Duration) -> Option<Key> {
        let kept = self.kept.lock();
        if self.age(kept.at?) >= age_max {
            return None;
        }
        kept.set.find(kid).cloned()
    }

    fn age(&self, at: Duration) -> Duration {
        self.clock.now().boot.saturating_sub(at)
    }

    fn may_ask(&self) -> bool {
        let now = self.clock.now().boot;
        let mut kept = self.kept.lock();
        let periods = now.saturating_sub(kept.asks_counted_at).as_secs() / ASK_EVERY.as_secs();
        let periods = u32::try_from(periods).unwrap_or(u32::MAX);
        if periods > 0 {
            kept.asks_left = kept.asks_left.saturating_add(periods).min(ASKS_MAX);
            kept.asks_counted_at = now;
        }
        let may = kept.asks_left > 0;
        kept.asks_left = kept.asks_left.saturating_sub(1);
        may
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::clock::ManualClock;

    struct Server {
        answer: Arc<Mutex<Result<Vec<u8>, String>>>,
        asked: Arc<AtomicU32>,
        clock: Arc<ManualClock>,
        keys: Keys,
    }

    fn set(kid: &str) -> Result<Vec<u8>, String> {
        let x = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        Ok(format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"{kid}","x":"{x}"}}]}}"#).into_bytes())
    }

    fn server() -> Server {
        let (answer, asked) = (Arc::new(Mutex::new(set("a"))), Arc::new(AtomicU32::new(0)));
        let clock = ManualClock::new();
        let fetch: Fetch = {
            let (answer, asked) = (answer.clone(), asked.clone());
            Arc::new(move || {
                asked.fetch_add(1, Ordering::Relaxed);
                let answer = answer.lock().clone();
                Box::pin(async move { answer })
            })
        };
        let keys = Keys::new("x".into(), Origin::Server(fetch), Use::Signatures, clock.clone());
        Server { answer, asked, clock, keys }
    }

    impl Server {
        async fn find(&self, kid: &str) -> Result<(), Refused> {
            self.keys.find(kid).await.map(|_| ())
        }
        fn asked(&self) -> u32 {
            self.asked.load(Ordering::Relaxed)
        }
    }

    #[tokio::test]
    async fn an_answer_is_kept_and_a_new_key_is_asked_for() {
        let server = server();
        for _ in 0..3 {
            assert_eq!(server.find("a").await, Ok(()));
        }
        assert_eq!(server.asked(), 1);
        *server.answer.lock() = set("b");
        assert_eq!((server.find("b").await, server.asked()), (Ok(()), 2));
        assert_eq!(server.find("a").await, Err(Refused::UnknownKey), "withdrawn");
    }

    #[tokio::test]
    async fn a_withdrawn_key_is_not_believed_for_long() {
        let server = server();
        assert_eq!(server.find("a").await, Ok(()));
        *server.answer.lock() = set("b");
        server.clock.advance(FRESH_FOR);
        assert_eq!(server.find("a").await, Err(Refused::UnknownKey));
    }

    #[tokio::test]
    async fn unknown_keys_are_no_flood() {
        let server = server();
        for _ in 0..100 {
            assert_eq!(server.find("z").await, Err(Refused::UnknownKey));
        }
        assert_eq!(server.asked(), ASKS_MAX);
        server.clock.advance(ASK_EVERY);
        for _ in 0..10 {
            assert_eq!(server.find("z").await, Err(Refused::UnknownKey));
        }
        assert_eq!(server.asked(), ASKS_MAX + 1);
    }

    #[tokio::test]
    async fn nothing_is_said_of_a_key_while_it_is_too_early_to_ask_again_a_server_that_was_away() {
        let server = server();
        assert_eq!(server.find("a").await, Ok(()));
        *server.answer.lock() = Err("nobody there".into());
        for _ in 0..2 * ASKS_MAX {
            assert_eq!(server.find("b").await, Err(Refused::Unavailable));
        }
        *server.answer.lock() = set("b");
        assert_eq!(server.find("b").await, Err(Refused::Unavailable), "it has not been asked");
        server.clock.advance(ASK_EVERY);
        assert_eq!((server.find("b").await, server.asked()), (Ok(()), ASKS_MAX + 1));
        assert_eq!(server.find("c").await, Err(Refused::UnknownKey), "it has answered");
    }

    #[tokio::test]
    async fn the_last_good_answer_stands_in_for_a_while() {
        let server = server();
        *server.answer.lock() = Err("nobody there".into());
        assert_eq!(server.find("a").await, Err(Refused::Unavailable), "before the first answer");
        *server.answer.lock() = set("a");
        assert_eq!(server.find("a").await, Ok(()));
        for bad in [Err("nobody there".to_owned()), Ok(b"<html>".to_vec())] {
            *server.answer.lock() = bad;
            server.clock.advance(FRESH_FOR);
            assert_eq!(server.find("a").await, Ok(()), "stale");
            assert_eq!(server.find("b").await, Err(Refused::Unavailable), "nobody knows of this one");
        }
        server.clock.advance(STALE_MAX - FRESH_FOR * 2);
        assert_eq!(server.find("a").await, Err(Refused::Unavailable), "too old");
    }
}
