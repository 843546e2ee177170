//! Floods of refusals: of those that are alike, so many a second are written in full, the others counted in a summary.
//!
//! What is alike is judged by what an agent cannot choose freely: whose it is, the service, the code. Hosts and paths
//! are left out, or each request would be unlike all others. Nothing that was allowed comes here, and no alarm.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;

use super::fields::{Fields, key};
use super::proof::{CALLER, write_identity};
use crate::model::denial::Fault;
use crate::model::{AgentName, Denial, Identity, ServiceName};

/// Refusals of one kind that are written in full within a second.
const IN_FULL_PER_SECOND: u32 = 50;
/// From the first refusal that is only counted to the record that tells of it.
const SUMMARY_AFTER: Duration = Duration::from_secs(10);
/// Kinds that are counted at once; of more than these, everything is written in full.
const KINDS_MAX: usize = 1024;
/// Of those, subjects of one issuer that are refused the same call for the same reason; further ones count together.
const SUBJECTS_MAX: usize = 16;
const SECOND: Duration = Duration::from_secs(1);

/// Whether a refusal may be one among many. What may have been allowed or sent, what somebody should look at, and what
/// is our own fault never is.
pub(super) fn may_be_counted(denial: &Denial) -> bool {
    match denial {
        Denial::NonceMisplaced(_) | Denial::CredentialExposed => false,
        // The usual answer to too many at once.
        Denial::Overloaded => true,
        other => other.fault() == Fault::Agent,
    }
}

/// As [`may_be_counted`], of a connection that ended without an exchange: its code may be no refusal's at all.
pub(super) fn may_be_counted_by(code: &str) -> bool {
    code != "nonce_misplaced" && code != "credential_exposed"
}

/// The same of a refused call of the control API: what is our own fault is told each time.
pub(super) fn may_be_counted_of_a_call(code: &str) -> bool {
    !["internal", "audit_unavailable", "identity_unavailable"].contains(&code)
}

/// Whose refusals they are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Whose {
    /// Those of this agent's nonces.
    Agent(AgentName),
    /// Without a nonce that says more: those from this address.
    Peer(IpAddr),
    /// Those of this call of the control API, by this caller, where one was proven; see [`Whose::caller`].
    Caller(&'static str, Option<Identity>),
    /// Those of this call by all other subjects of this issuer.
    Issuer(&'static str, Box<str>),
}

impl Whose {
    /// Of a call, by this caller. Of what an issuer's token says only the subject counts: its other claims are new in each
    /// token, and so would each refusal be.
    pub(super) fn caller(call: &'static str, caller: Option<&Identity>) -> Self {
        let caller = caller.map(|caller| match caller {
            Identity::Oidc(subject) => Identity::Oidc(Arc::new(subject.bare())),
            Identity::Uid(_)
            | Identity::Supervisor
            | Identity::Bearer(_)
            | Identity::Kubernetes(_)
            | Identity::Spiffe(_)
            | Identity::Mtls(_)
            | Identity::Anybody
            | Identity::Scanner(_) => caller.clone(),
        });
        Self::Caller(call, caller)
    }

    /// Whose token it was that proved a caller, and for which call.
    fn issuer(&self) -> Option<(&'static str, &str)> {
        match self {
            Self::Caller(call, Some(Identity::Oidc(subject))) => Some((call, &subject.issuer)),
            Self::Issuer(call, issuer) => Some((call, issuer)),
            Self::Caller(..) | Self::Agent(_) | Self::Peer(_) => None,
        }
    }
}

/// What is alike.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    pub(super) whose: Whose,
    pub(super) service: Option<ServiceName>,
    /// The `type` of the records that it stands for.
    pub(super) of: &'static str,
    pub(super) code: &'static str,
}

/// The refusals of one kind that have no record of their own.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) kind: Kind,
    pub(super) refused: u64,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
}

impl Summary {
    /// Whose they are, where an agent is known.
    pub(super) fn agent(&self) -> Option<&AgentName> {
        match &self.kind.whose {
            Whose::Agent(agent) => Some(agent),
            Whose::Peer(_) | Whose::Caller(..) | Whose::Issuer(..) => None,
        }
    }

    /// Writes the members of its record.
    pub(super) fn write(&self, fields: &mut Fields<'_>) {
        fields.text(key!("of"), self.kind.of);
        match &self.kind.whose {
            Whose::Agent(agent) => fields.text(key!("agent"), agent.as_str()),
            Whose::Peer(address) => fields.show(key!("peer.address"), address),
            Whose::Caller(call, caller) => {
                fields.text(key!("call"), call);
                write_identity(fields, CALLER, caller.as_ref());
            }
            Whose::Issuer(call, issuer) => {
                fields.text(key!("call"), call);
                fields.show(CALLER.0, &format_args!("oidc:{issuer}"));
                fields.text(CALLER.1, "token");
            }
        }
        fields.text_some(key!("service"), self.kind.service.as_ref().map(|name| name.as_str()));
        fields.text(key!("code"), self.kind.code);
        fields.number(key!("refused"), self.refused);
        fields.time(key!("first"), self.first);
        fields.time(key!("last"), self.last);
    }
}

/// How a refusal is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// By records of its own.
    Full,
    /// By a summary that was begun before.
    Summed,
    /// By a summary that begins with it: the writer has to know when that is due.
    NewSummary,
}

/// One kind's refusals of late.
struct Count {
    second: Instant,
    in_full: u32,
    more: Option<More>,
}

/// Those that are only counted.
struct More {
    due: Instant,
    refused: u64,
    first: Timestamp,
    last: Timestamp,
}

impl Count {
    /// Takes one more; true where it is to be written in full.
    fn takes_in_full(&mut self, now: Instant) -> bool {
        if self.is_past(now) {
            (self.second, self.in_full) = (now, 0);
        }
        let has_room = self.in_full < IN_FULL_PER_SECOND;
        self.in_full += u32::from(has_room);
        has_room
    }

    fn is_past(&self, now: Instant) -> bool {
        now.duration_since(self.second) >= SECOND
    }
}

/// All kinds of late.
#[derive(Default)]
pub(super) struct Floods(Mutex<State>);

#[derive(Default)]
struct State {
    counts: HashMap<Kind, Count>,
    /// When the first summary is due.
    due: Option<Instant>,
    tidied: Option<Instant>,
    /// No summary is written any more.
    is_over: bool,
}

impl Floods {
    /// Takes one more refusal, and says how it is told.
    pub(super) fn take(&self, kind: Kind, now: Instant, time: Timestamp) -> Told {
        let mut state = self.0.lock();
        let kind = state.grouped(kind, now);
        if state.is_over || !state.has_room_for(&kind, now) {
            return Told::Full;
        }
        let count = state.counts.entry(kind).or_insert(Count { second: now, in_full: 0, more: None });
        if count.takes_in_full(now) {
            return Told::Full;
        }
        if let Some(more) = &mut count.more {
            (more.refused, more.last) = (more.refused + 1, time);
            return Told::Summed;
        }
        let due = now + SUMMARY_AFTER;
        count.more = Some(More { due, refused: 1, first: time, last: time });
        state.due.get_or_insert(due);
        Told::NewSummary
    }

    /// When the writer has to look again.
    pub(super) fn due(&self) -> Option<Instant> {
        self.0.lock().due
    }

    /// The summaries that are due.
    pub(super) fn summaries(&self, now: Instant) -> Vec<Summary> {
        let mut state = self.0.lock();
        if state.due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        state.summaries(|more| more.due <= now)
    }

    /// All that there are; whatever is refused from here on is told in full.
    pub(super) fn finish(&self) -> Vec<Summary> {
        let mut state = self.0.lock();
        state.is_over = true;
        state.summaries(|_| true)
    }
}

impl State {
    fn has_room_for(&mut self, kind: &Kind, now: Instant) -> bool {
        if self.counts.len() < KINDS_MAX || self.counts.contains_key(kind) {
            return true;
        }
        self.tidy(now);
        self.counts.len() < KINDS_MAX
    }

    /// The kind as which it counts: whoever can have a token of any subject is one of all that the issuer knows.
    fn grouped(&mut self, kind: Kind, now: Instant) -> Kind {
        let Some((call, issuer)) = kind.whose.issuer().filter(|_| !self.counts.contains_key(&kind)) else {
            return kind;
        };
        let is_like = |known: &Kind| known.whose.issuer() == Some((call, issuer)) && known.code == kind.code;
        if self.counts.keys().filter(|known| is_like(known)).count() >= SUBJECTS_MAX {
            self.tidy(now);
        }
        if self.counts.keys().filter(|known| is_like(known)).count() < SUBJECTS_MAX {
            return kind;
        }
        let whose = Whose::Issuer(call, issuer.into());
        Kind { whose, ..kind }
    }

    /// Forgets those of which nothing is to be told; not for each of a flood.
    fn tidy(&mut self, now: Instant) {
        if self.tidied.is_none_or(|tidied| now.duration_since(tidied) >= SECOND) {
            self.tidied = Some(now);
            self.counts.retain(|_, count| count.more.is_some() || !count.is_past(now));
        }
    }

    fn summaries(&mut self, is_due: impl Fn(&More) -> bool) -> Vec<Summary> {
        let mut summaries = Vec::new();
        for (kind, count) in &mut self.counts {
            if let Some(More { refused, first, last, .. }) = count.more.take_if(|more| is_due(more)) {
                summaries.push(Summary { kind: kind.clone(), refused, first, last });
            }
        }
        self.due = self.counts.values().filter_map(|count| count.more.as_ref()).map(|more| more.due).min();
        summaries.sort_by_key(|summary| summary.first);
        summaries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Subject;

    fn kind(last: u32) -> Kind {
        Kind {
            whose: Whose::Peer(IpAddr::from(last.to_be_bytes())),
            service: None,
            of: "decision",
            code: "out_of_scope",
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn so_many_a_second_are_told_in_full_and_all_others_are_counted() {
        let floods = Floods::default();
        let begin = Instant::now();
        let mut in_full = 0;
        for number in 0..1_000_u32 {
            // Two and a half seconds: three times the number in full.
            let now = begin + Duration::from_micros(2_500) * number;
            in_full += u64::from(floods.take(kind(1), now, at(number.into())) == Told::Full);
        }
        assert_eq!(in_full, 150);
        assert_eq!(floods.take(kind(2), begin, at(0)), Told::Full, "others have a count of their own");
        let due = floods.due().unwrap();
        assert_eq!(due, begin + Duration::from_micros(2_500) * 50 + SUMMARY_AFTER);
        assert_eq!(floods.summaries(due - Duration::from_nanos(1)), []);
        let told = floods.summaries(due);
        assert_eq!(told, [Summary { kind: kind(1), refused: 850, first: at(50), last: at(999) }]);
        assert_eq!((floods.due(), floods.summaries(due).len()), (None, 0), "nothing twice");
    }

    #[test]
    fn of_too_many_kinds_everything_is_told_in_full_until_some_are_over() {
        let floods = Floods::default();
        let begin = Instant::now();
        let kinds = u32::try_from(KINDS_MAX).unwrap();
        for number in 0..kinds {
            floods.take(kind(number), begin, at(0));
        }
        for _ in 0..200 {
            assert_eq!(floods.take(kind(kinds), begin, at(0)), Told::Full);
            floods.take(kind(0), begin, at(0));
        }
        assert_eq!(floods.0.lock().counts.len(), KINDS_MAX);
        let later = begin + SECOND;
        floods.take(kind(kinds), later, at(1));
        let state = floods.0.lock();
        assert_eq!(state.counts.len(), 2, "what is not yet told stays");
        assert!(state.counts.contains_key(&kind(0)));
    }

    #[test]
    fn at_the_end_all_is_told_and_nothing_is_counted_any_more() {
        let floods = Floods::default();
        let now = Instant::now();
        let told: Vec<_> = (0..52).map(|_| floods.take(kind(1), now, at(1))).collect();
        assert_eq!((told[49], told[50], told[51]), (Told::Full, Told::NewSummary, Told::Summed));
        assert_eq!(floods.finish().iter().map(|summary| summary.refused).sum::<u64>(), 2);
        assert_eq!(floods.take(kind(1), now, at(1)), Told::Full);
    }

    #[test]
    fn callers_and_calls_are_apart() {
        let floods = Floods::default();
        let now = Instant::now();
        let kind = |call, uid| {
            let whose = Whose::Caller(call, Some(Identity::Uid(uid)));
            Kind { whose, service: None, of: "control_refused", code: "forbidden" }
        };
        for _ in 0..2 * IN_FULL_PER_SECOND {
            floods.take(kind("mint", 1), now, at(1));
        }
        assert_eq!(floods.take(kind("mint", 1), now, at(1)), Told::Summed);
        assert_eq!(floods.take(kind("mint", 2), now, at(1)), Told::Full);
        assert_eq!(floods.take(kind("renew", 1), now, at(1)), Told::Full);
        assert!(may_be_counted_of_a_call("rate_limited") && !may_be_counted_of_a_call("audit_unavailable"));
    }

    /// A refused mint of whoever has a token of this subject, with another claim in each.
    fn by_token(sub: u32, number: u32) -> Kind {
        let claims = [("sub".into(), sub.to_string().into()), ("jti".into(), number.to_string().into())];
        let caller = Identity::Oidc(Arc::new(Subject { issuer: "ci".into(), claims: claims.into() }));
        Kind { whose: Whose::caller("mint", Some(&caller)), service: None, of: "control_refused", code: "forbidden" }
    }

    #[test]
    fn a_fresh_token_for_each_call_makes_no_kind_of_its_own() {
        let (floods, now) = (Floods::default(), Instant::now());
        let told = |kind| floods.take(kind, now, at(1));
        let in_full = (0..1_000).filter(|number| told(by_token(1, *number)) == Told::Full).count();
        assert_eq!(in_full, 50);
        assert_eq!(told(by_token(2, 0)), Told::Full, "another subject");
        let in_full = (3..5_000).filter(|subject| told(by_token(*subject, *subject)) == Told::Full).count();
        assert_eq!(in_full, SUBJECTS_MAX - 2 + 50, "so many subjects, and all others together");
        assert_eq!(floods.0.lock().counts.len(), SUBJECTS_MAX + 1);
        let summed: Vec<_> = floods.finish();
        let mut written = Vec::new();
        for summary in &summed {
            summary.write(&mut Fields::after_first(&mut written));
        }
        let written = String::from_utf8(written).unwrap();
        assert_eq!(summed.len(), 2);
        assert!(written.contains(r#""caller.identity":"oidc:ci:sub=1","caller.proof":"token""#), "{written}");
        assert!(written.contains(r#""caller.identity":"oidc:ci","caller.proof":"token""#), "{written}");
    }

    #[test]
    fn what_was_sent_what_is_an_alarm_and_what_is_our_fault_is_never_one_among_many() {
        use crate::model::denial::{Misplaced, Unclear};
        for denial in [
            Denial::NonceMisplaced(Misplaced::Header),
            Denial::CredentialExposed,
            Denial::UpstreamUnreachable,
            Denial::UpstreamUnclear(Unclear::Broke),
            Denial::AnswerUnscrubbable,
            Denial::AuditUnavailable,
            Denial::Internal,
        ] {
            assert!(!may_be_counted(&denial), "{denial:?}");
        }
        assert!(may_be_counted(&Denial::NonceUnknown) && may_be_counted(&Denial::Overloaded));
        assert!(may_be_counted_by("host_not_listed") && !may_be_counted_by(Denial::CredentialExposed.code()));
        assert!(!may_be_counted_by(Denial::NonceMisplaced(Misplaced::Proxy).code()));
    }
}
