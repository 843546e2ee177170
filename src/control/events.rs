//! Following the audit: server-sent events (WHATWG HTML, 9.2) of the records that the caller may see.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::caller::Caller;
use super::front::Control;
use super::query::EventsAsked;
use super::refusal::Refusal;
use super::serve::Answer;
use super::types::Problem;
use crate::audit::{Followed, Follower, Written};
use crate::clock::SharedClock;
use crate::policy::{Current, Permission, Policy};

/// A comment is sent so often, so that either end notices when the other is gone.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Events that wait to be sent; further ones wait in the audit's own bound.
const READY_MAX: usize = 16;

/// The body of an answer: whole, or events until somebody ends them.
pub(super) enum AnswerBody {
    Whole(Full<Bytes>),
    Events(mpsc::Receiver<Bytes>),
}

impl AnswerBody {
    /// What is whole of it.
    pub(super) fn whole(self) -> Full<Bytes> {
        match self {
            Self::Whole(body) => body,
            Self::Events(_) => Full::default(),
        }
    }

    /// True for a body that may go on as long as its connection.
    pub(super) fn is_endless(&self) -> bool {
        matches!(self, Self::Events(_))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(context),
            Self::Events(events) => events.poll_recv(context).map(|event| event.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Events(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Events(_) => SizeHint::default(),
        }
    }
}

/// Follows the audit from now on: an event for each record of one's own agents, `event` its type, `id` its `seq`, `data`
/// the JSON as it is in the file.
///
/// Records that belong to no agent are shown to minters of all agents only. Who reads too slowly gets an event `gap`
/// with the number of records that were passed over. Every 15 seconds there is a comment. It ends with the
/// token that it was asked for with, and where another policy does not let the caller follow any more.
#[utoipa::path(
    get, path = "/v1/events", tag = "operations", operation_id = "events",
    params(
        ("agent" = Option<String>, Query, description = "Of this agent only"),
        ("task" = Option<String>, Query, description = "For this task only"),
    ),
    responses(
        (status = 200, body = String, content_type = "text/event-stream", description = "Events until either side ends them"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "invalid_request"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "unauthenticated"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "rate_limited"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "forbidden"),
        (status = 503, body = Problem, content_type = "application/problem+json",
         description = "overloaded: as many follow as may"),
    )
)]
pub(super) fn events(control: &Control, caller: &Caller, asked: EventsAsked) -> Result<Answer, Refusal> {
    may_follow(caller, &asked)?;
    let follower = control.parts.audit.follow().ok_or(Refusal::TooManyFollowers)?;
    let (sender, receiver) = mpsc::channel(READY_MAX);
    let (current, own_uid) = (control.parts.policy.clone(), control.own_uid);
    let shown = Shown { caller: caller.clone(), asked, current, looked_up: None, own_uid };
    let over = over(control.parts.clock.clone(), caller.until);
    tokio::spawn(pump(follower, shown, sender, (control.stopping.clone(), over)));
    let mut answer = Response::new(AnswerBody::Events(receiver));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(answer)
}

fn may_follow(caller: &Caller, asked: &EventsAsked) -> Result<(), Refusal> {
    match &asked.agent {
        Some(agent) => caller.acting(Permission::Events, agent).map(|_| ()),
        None => caller.require(Permission::Events),
    }
}

/// Which records are shown.
struct Shown {
    caller: Caller,
    asked: EventsAsked,
    current: Current,
    /// The policy in which the caller was looked up last.
    looked_up: Option<Arc<Policy>>,
    own_uid: u32,
}

impl Shown {
    /// Looks the caller up anew where another policy is in force by now; false for one who may not follow any more.
    fn is_still_allowed(&mut self) -> bool {
        let policy = self.current.get();
        if self.looked_up.as_ref().is_some_and(|known| Arc::ptr_eq(known, &policy)) {
            return true;
        }
        let found = Caller::authenticate(&policy, self.own_uid, Some(&self.caller.identity));
        let Ok(caller) = found else { return false };
        self.caller = Caller { until: self.caller.until, ..caller };
        self.looked_up = Some(policy);
        may_follow(&self.caller, &self.asked).is_ok()
    }

    fn shows(&self, record: &Written) -> bool {
        let is_own = match &record.agent {
            Some(agent) => self.caller.has(Permission::Events, agent),
            None => self.caller.has_over_all(Permission::Events),
        };
        is_own
            && self.asked.agent.as_ref().is_none_or(|agent| record.agent.as_ref() == Some(agent))
            && self.asked.task.as_ref().is_none_or(|task| record.task.as_ref() == Some(task))
    }
}

/// Completes when what proved the caller is over; a clock that was set is noticed with the next heartbeat.
async fn over(clock: SharedClock, until: Option<Timestamp>) {
    let Some(until) = until else { return std::future::pending().await };
    loop {
        let left = Duration::try_from(until.duration_since(clock.now().wall)).unwrap_or(Duration::ZERO);
        if left.is_zero() {
            return;
        }
        sleep(left.min(HEARTBEAT)).await;
    }
}

/// Moves records to the connection until the reader is gone or is nobody any more, the audit is over, or we stop.
async fn pump(
    mut follower: Follower,
    mut shown: Shown,
    sender: mpsc::Sender<Bytes>,
    (stopping, over): (CancellationToken, impl Future<Output = ()>),
) {
    let mut over = pin!(over);
    let mut heartbeat = interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let next = tokio::select! {
            () = stopping.cancelled() => return,
            () = &mut over => return,
            () = sender.closed() => return,
            _ = heartbeat.tick() => Some(Bytes::from_static(b": still here\n\n")),
            followed = follower.next() => match followed {
                None => return,
                // What the policy does not let it see any more is not shown, however long it has been following.
                Some(_) if !shown.is_still_allowed() => return,
                Some(followed) => event(&shown, &followed),
            },
        };
        let Some(next) = next else { continue };
        // A reader that stands still holds this task back, not the audit: the follower falls behind.
        tokio::select! {
            () = stopping.cancelled() => return,
            () = &mut over => return,
            sent = sender.send(next) => if sent.is_err() { return },
        }
    }
}

/// The event of a record, where it is shown.
fn event(shown: &Shown, followed: &Followed) -> Option<Bytes> {
    let text = match followed {
        Followed::Gap(records) => format!("event: gap\ndata: {{\"type\":\"gap\",\"records\":{records}}}\n\n"),
        Followed::Record(record) if shown.shows(record) => spell(record),
        Followed::Record(_) => return None,
    };
    Some(text.into())
}

/// A record is one line of printable ASCII, so that nothing in it can end the event.
fn spell(record: &Arc<Written>) -> String {
    let Written { seq, kind, line, .. } = &**record;
    format!("event: {kind}\nid: {seq}\ndata: {line}\n\n")
}
