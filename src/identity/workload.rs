//! The keys of a SPIFFE trust domain, and the CAs of its certificates, as the Workload API streams them.
//!
//! The stream is followed for as long as the policy names it: each update replaces what was known. When it breaks it is
//! opened again, after pauses that grow; what was known last holds for an hour. Nothing is believed before the first
//! update.
//!
//! | file | holds |
//! | --- | --- |
//! | `stream` | the call: gRPC over the socket |
//! | `message` | the one message that comes of it |

mod message;
mod stream;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;

use super::Refused;
use super::jwks::{Key, KeySet, SET_BYTES_MAX, Use};
use super::keys::STALE_MAX;
use crate::clock::SharedClock;
use stream::{Broken, Stream};

/// After the first failure; doubled with each more in a row.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// Between two tries at most.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Longest path of a Unix socket, in bytes (`sun_path` less its NUL).
const PATH_BYTES_MAX: usize = 107;

/// Where the Workload API is, as `SPIFFE_ENDPOINT_SOCKET` spells it: `unix:///run/spire/agent.sock`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadApi(PathBuf);

impl WorkloadApi {
    /// `unix://` and an absolute path, with no part of a URI after it and nothing escaped.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let path = text.strip_prefix("unix://")?;
        let is_plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'%' | b'?' | b'#');
        let is_fine = path.starts_with('/') && !path.ends_with('/') && path.len() <= PATH_BYTES_MAX;
        (is_fine && path.bytes().all(is_plain)).then(|| Self(PathBuf::from(path)))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl std::fmt::Display for WorkloadApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "unix://{}", self.0.display())
    }
}

/// What a bundle can hold.
pub(super) trait Content: Send + Sync + Sized + 'static {
    /// The call that brings it.
    const CALL: &'static str;
    /// The field of the answer that holds the bundles.
    const FIELD: u64;

    /// Reads it; `None` where it is not well-formed.
    fn parse(bytes: &[u8]) -> Option<Self>;
}

impl Content for KeySet {
    const CALL: &'static str = "FetchJWTBundles";
    const FIELD: u64 = 1;

    fn parse(bytes: &[u8]) -> Option<Self> {
        Self::parse(bytes, Use::JwtSvid)
    }
}

/// The bundle of one trust domain. It is followed until this is dropped.
pub(super) struct Bundle<C> {
    followed: Arc<Followed<C>>,
    _following: AbortOnDropHandle<Infallible>,
}

struct Followed<C> {
    /// The table's name in the policy, for the log.
    name: Arc<str>,
    /// The trust domain, as the answers name it.
    domain: String,
    clock: SharedClock,
    kept: Mutex<Kept<C>>,
}

struct Kept<C> {
    /// Of the last good update; none before the first, and where that had nothing of this trust domain.
    content: Option<Arc<C>>,
    /// Since when nobody tells of updates, since boot; `None` while the stream is open.
    lost: Option<Duration>,
}

impl<C> Default for Kept<C> {
    fn default() -> Self {
        Self { content: None, lost: None }
    }
}

/// What a bundle holds now.
struct Present<C> {
    content: Arc<C>,
    /// Nobody tells of updates at the moment.
    is_lost: bool,
}

impl<C: Content> Bundle<C> {
    /// Begins to follow; wants to be called within a runtime.
    pub(super) fn follow(api: WorkloadApi, trust_domain: &str, name: Arc<str>, clock: SharedClock) -> Self {
        let domain = format!("spiffe://{trust_domain}");
        let followed = Arc::new(Followed { name, domain, clock, kept: Mutex::default() });
        let following = tokio::spawn(Arc::clone(&followed).follow(api));
        Self { followed, _following: AbortOnDropHandle::new(following) }
    }

    /// What it holds now.
    pub(super) fn content(&self) -> Result<Arc<C>, Refused> {
        self.followed.present().map(|present| present.content)
    }
}

impl Bundle<KeySet> {
    /// The key of this name.
    pub(super) fn find(&self, kid: &str) -> Result<Key, Refused> {
        self.followed.find(kid)
    }
}

impl<C: Content> Followed<C> {
    async fn follow(self: Arc<Self>, api: WorkloadApi) -> Infallible {
        let mut failures = 0;
        loop {
            let Err(broken) = self.watch(&api, &mut failures).await;
            self.lose();
            tracing::warn!(bundle = %self.name, call = C::CALL, problem = %broken, "the Workload API cannot be followed");
            failures += 1;
            tokio::time::sleep(jittered(pause(failures))).await;
        }
    }

    /// Takes one update after the other until something is wrong.
    async fn watch(&self, api: &WorkloadApi, failures: &mut u32) -> Result<Infallible, Broken> {
        let mut stream = Stream::open(api.path(), C::CALL).await?;
        loop {
            self.take(&stream.next().await?)?;
            *failures = 0;
        }
    }

    /// What cannot be read replaces nothing: whoever sends it is as good as away.
    fn take(&self, update: &[u8]) -> Result<(), Broken> {
        let found = message::bundle(update, C::FIELD, &self.domain).ok_or(Broken::Malformed)?;
        let content = match found {
            Some(bytes) if bytes.len() > SET_BYTES_MAX => return Err(Broken::Long),
            Some(bytes) => Some(Arc::new(C::parse(bytes).ok_or(Broken::Bundle)?)),
            None => None,
        };
        if content.is_none() {
            tracing::warn!(bundle = %self.name, call = C::CALL, "the Workload API has no bundle of this trust domain");
        }
        *self.kept.lock() = Kept { content, lost: None };
        Ok(())
    }

    fn lose(&self) {
        let now = self.clock.now().boot;
        self.kept.lock().lost.get_or_insert(now);
    }

    fn present(&self) -> Result<Present<C>, Refused> {
        let now = self.clock.now().boot;
        let kept = self.kept.lock();
        let is_over = kept.lost.is_some_and(|lost| now.saturating_sub(lost) >= STALE_MAX);
        let content = kept.content.clone().filter(|_| !is_over).ok_or(Refused::Unavailable)?;
        Ok(Present { content, is_lost: kept.lost.is_some() })
    }
}

impl Followed<KeySet> {
    fn find(&self, kid: &str) -> Result<Key, Refused> {
        let Present { content, is_lost } = self.present()?;
        match content.find(kid) {
            Some(key) => Ok(key.clone()),
            // It may have come since, and nobody could tell us.
            None if is_lost => Err(Refused::Unavailable),
            None => Err(Refused::UnknownKey),
        }
    }
}

/// The pause after the given number of failures in a row.
fn pause(failures: u32) -> Duration {
    PAUSE_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(PAUSE_MAX)
}

/// Half of the pause to all of it: the sidecars of a machine lose its agent together.
fn jittered(pause: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX);
    pause.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX))
}
