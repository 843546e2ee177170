//! Webhooks: what others are told of, while it happens (Standard Webhooks 1.0).
//!
//! The audit's records are followed; what a webhook asked for becomes a message, signed and sent by a task of its own,
//! again and again with growing pauses. No request waits for it. What could not be told is on record and counted.
//!
//! | file | holds |
//! | --- | --- |
//! | `notice` | which records are events, and their text |
//! | `signature` | what makes a message believable |
//! | `delivery` | one attempt: dial, TLS, POST |

mod delivery;
mod notice;
mod signature;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::ClientConfig;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::{Audit, Event, Followed};
use crate::metrics::Metrics;
use crate::model::Destination;
use crate::net::{Dialer, Reach};
use delivery::{Attempt, deliver};
use notice::{Notice, Watcher};
pub use signature::{Secret, SecretError};

/// Messages of one topic for one webhook that wait or are under way at most; further ones are lost, and said to be.
const PENDING_MAX: usize = 256;
/// Of all topics of a webhook, under way at once: each has its part of them.
const SENDING_MAX: usize = 8;
/// How often one message is tried.
const ATTEMPTS_MAX: u32 = 8;
/// The first pause; each further one is four times as long.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest, whatever the receiver asks for.
const PAUSE_MAX: Duration = Duration::from_secs(600);
/// For one attempt, connecting included.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// What is under way when the sidecar stops may take this long.
const LAST_ATTEMPTS: Duration = Duration::from_secs(2);

/// What a webhook is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// A nonce was revoked, by whomever.
    Revoked,
    /// A nonce, or a real credential, was seen where it must not be.
    Leaked,
    /// A nonce was presented by somebody else, elsewhere, or beside another's credential.
    Misused,
    /// Many refusals of one agent within a minute.
    Denials,
}

/// The topics and the policy's words for them.
pub const TOPICS: [(&str, Topic); 4] =
    [("revoked", Topic::Revoked), ("leaked", Topic::Leaked), ("misused", Topic::Misused), ("denials", Topic::Denials)];

/// One `[webhooks.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Its name.
    pub name: String,
    /// Where it is, always by TLS.
    pub destination: Destination,
    /// Path and query.
    pub target: String,
    /// The file with its secret.
    pub secret: PathBuf,
    /// What it is told of.
    pub on: Vec<Topic>,
    /// Private addresses are allowed.
    pub private: bool,
    /// Extra roots for it, PEM file.
    pub ca: Option<PathBuf>,
}

/// A webhook that can be sent to.
pub struct Endpoint {
    /// What the policy says of it.
    pub webhook: Webhook,
    /// What signs its messages.
    pub secret: Secret,
    /// Whom its certificate is verified against; HTTP/1.1 alone.
    pub tls: Arc<ClientConfig>,
}

/// What sends them.
pub struct Sending {
    /// Followed, and told of what was lost.
    pub audit: Audit,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The way out.
    pub dialer: Arc<Dialer>,
}

/// Follows the audit and sends until `stopping`; the endpoints may be replaced meanwhile.
pub async fn send(sending: Sending, endpoints: watch::Receiver<Vec<Arc<Endpoint>>>, stopping: CancellationToken) {
    let (sending, mut endpoints) = (Arc::new(sending), endpoints);
    let tasks = TaskTracker::new();
    // Kept over every change of the endpoints: what was written in that moment is told of as well.
    let (mut follower, mut watcher) = (None, Watcher::default());
    let mut posts = Vec::new();
    loop {
        posts = replaced(posts, &endpoints.borrow_and_update(), &sending, &stopping);
        // Without any, nobody follows the audit, and its records are not copied.
        follower = if posts.is_empty() { None } else { follower.or_else(|| sending.audit.follow_ourselves()) };
        let following = async {
            let Some(follower) = &mut follower else { return std::future::pending().await };
            while let Some(followed) = follower.next().await {
                tell(&sending, &mut watcher, &posts, &followed, &tasks);
            }
        };
        tokio::select! {
            () = stopping.cancelled() => break,
            changed = endpoints.changed() => if changed.is_err() { break },
            () = following => break, // the audit is over
        }
    }
    tasks.close();
    // What is still waiting after that is lost with the process, as its queue is.
    let _ = timeout(LAST_ATTEMPTS, tasks.wait()).await;
}

fn tell(sending: &Arc<Sending>, watcher: &mut Watcher, posts: &[Post], followed: &Followed, tasks: &TaskTracker) {
    let record = match followed {
        Followed::Record(record) => record,
        Followed::Gap(records) => {
            tracing::warn!(records, "webhooks could not keep up with the audit, and were not told of these records");
            sending.metrics.webhook("*", "gap");
            sending.audit.note(Event::WebhookGap { records: *records });
            return;
        }
    };
    for notice in watcher.look(record) {
        let notice = Arc::new(notice);
        for post in posts {
            post.take(&notice, tasks);
        }
    }
}

/// The posts of these endpoints. What waits for one of before keeps its places; where that is gone, or somewhere else
/// now, it is sent nowhere.
fn replaced(
    mut before: Vec<Post>,
    endpoints: &[Arc<Endpoint>],
    sending: &Arc<Sending>,
    stopping: &CancellationToken,
) -> Vec<Post> {
    let mut post = |endpoint: &Arc<Endpoint>| {
        let same = before.iter().position(|post| post.endpoint.webhook == endpoint.webhook);
        match same.map(|at| before.swap_remove(at)) {
            Some(post) => Post { endpoint: endpoint.clone(), ..post },
            None => Post::new(endpoint, sending, stopping.child_token()),
        }
    };
    let posts = endpoints.iter().map(&mut post).collect();
    for gone in before {
        gone.over.cancel();
    }
    posts
}

/// One webhook's queues: one for each topic, so that many messages of one sort keep no other away.
struct Post {
    endpoint: Arc<Endpoint>,
    sending: Arc<Sending>,
    lanes: Vec<(Topic, Lane)>,
    /// Nothing is tried again from here on.
    over: CancellationToken,
}

/// The messages of one topic.
#[derive(Clone)]
struct Lane {
    pending: Arc<Semaphore>,
    under_way: Arc<Semaphore>,
}

impl Lane {
    /// One of so many.
    fn of(topics: usize) -> Self {
        let sending = SENDING_MAX.checked_div(topics).unwrap_or(SENDING_MAX).max(1);
        let (pending, under_way) = (Semaphore::new(PENDING_MAX), Semaphore::new(sending));
        Self { pending: Arc::new(pending), under_way: Arc::new(under_way) }
    }
}

impl Post {
    fn new(endpoint: &Arc<Endpoint>, sending: &Arc<Sending>, over: CancellationToken) -> Self {
        let topics = &endpoint.webhook.on;
        let lanes = topics.iter().map(|topic| (*topic, Lane::of(topics.len()))).collect();
        Self { endpoint: endpoint.clone(), sending: sending.clone(), lanes, over }
    }

    /// Sends a notice from a task of its own; one that finds no place is lost.
    fn take(&self, notice: &Arc<Notice>, tasks: &TaskTracker) {
        // Of what it was not asked to be told there is none.
        let Some((_, lane)) = self.lanes.iter().find(|(topic, _)| *topic == notice.topic) else { return };
        let Ok(place) = lane.pending.clone().try_acquire_owned() else { return self.lost(notice, 0) };
        let (this, lane, notice) = (self.shared(), lane.clone(), notice.clone());
        tasks.spawn(async move {
            let _place = place;
            this.persist(&notice, &lane).await;
        });
    }

    fn shared(&self) -> Self {
        let (endpoint, sending, over) = (self.endpoint.clone(), self.sending.clone(), self.over.clone());
        Self { endpoint, sending, lanes: Vec::new(), over }
    }

    /// Tries until it is taken, until it is clear that it never will be, or as often as may be.
    async fn persist(&self, notice: &Notice, lane: &Lane) {
        for attempt in 1..=ATTEMPTS_MAX {
            let outcome = {
                // Who has a turn at once has it even in the end; who waits for one then gets none.
                let _turn = tokio::select! {
                    biased;
                    turn = lane.under_way.acquire() => turn,
                    () = self.over.cancelled() => return self.lost(notice, attempt - 1),
                };
                let attempting = deliver(&self.sending.dialer, &self.endpoint, notice, seconds_now());
                timeout(ATTEMPT_TIMEOUT, attempting).await.unwrap_or(Attempt::Failed { retry_after: None })
            };
            let asked = match outcome {
                Attempt::Taken => return self.sending.metrics.webhook(&self.endpoint.webhook.name, "delivered"),
                Attempt::Gone => return self.lost(notice, attempt),
                Attempt::Failed { retry_after } => retry_after,
            };
            self.sending.metrics.webhook(&self.endpoint.webhook.name, "failed");
            if attempt == ATTEMPTS_MAX {
                break;
            }
            tokio::select! {
                () = sleep(pause(attempt, asked)) => {}
                () = self.over.cancelled() => return self.lost(notice, attempt),
            }
        }
        self.lost(notice, ATTEMPTS_MAX);
    }

    fn lost(&self, notice: &Notice, attempts: u32) {
        let webhook = &self.endpoint.webhook.name;
        self.sending.metrics.webhook(webhook, "lost");
        tracing::warn!(webhook = %webhook, message = %notice.id, attempts, "a webhook was not told of an event");
        self.sending.audit.note(Event::WebhookLost {
            webhook: webhook.clone(),
            message: notice.id.clone(),
            event: notice.kind(),
            attempts,
        });
    }
}

/// Grows fourfold, with half of it by chance, so that many do not come back at the same moment.
fn pause(attempt: u32, asked: Option<Duration>) -> Duration {
    let grown = PAUSE_MIN.saturating_mul(4_u32.saturating_pow(attempt.saturating_sub(1))).min(PAUSE_MAX);
    let mut random = [0; 4];
    // Without randomness they come back together.
    let _ = getrandom::fill(&mut random);
    let share = f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX);
    let jittered = grown.mul_f64(0.5 + share / 2.0);
    asked.map_or(jittered, |asked| asked.max(jittered)).min(PAUSE_MAX)
}

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_bounded() {
        for attempt in 1..=40 {
            let pause = pause(attempt, None);
            let full = PAUSE_MIN.saturating_mul(4_u32.saturating_pow(attempt - 1)).min(PAUSE_MAX);
            assert!(pause >= full / 2 && pause <= full, "{attempt}: {pause:?}");
        }
        assert!(pause(1, Some(Duration::from_secs(30))) >= Duration::from_secs(30), "what is asked for is given");
        assert_eq!(pause(1, Some(Duration::from_secs(86_400))), PAUSE_MAX, "within reason");
    }
}
