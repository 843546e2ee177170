//! Nonces in the bodies of requests: found while the body streams, and reported or refused as the service says.
//!
//! - `exposed`: real credentials, in heads and bodies
//! - `finder`: the search over any split into chunks
//! - `tap`: what is done about a find, on the way upstream
//! - `hold`: the beginning of a body, judged before anything of the request is sent
//!
//! What is looked at is the body as it is sent: a body in another content coding than identity, and what goes over a
//! WebSocket, is not. A nonce is found as it is, and with any of its characters percent-encoded; in base64, JSON escapes
//! and whatever else can be undone it is not found: this finds what was spilled, not what is being hidden.

mod exposed;
mod finder;
mod hold;
mod tap;

use std::sync::Arc;

use http::{HeaderMap, header};

use super::fair::Fair;
use super::grant::Permit;
use super::{Proxy, Rules};
use crate::audit::{Alarm, Event, Exchange};
use crate::model::Denial;
use crate::policy::LeakScan;

pub(super) use exposed::place_in_head;
pub(super) use tap::Tap;

/// Bodies of which something is held at a time; further ones are judged on their way instead.
const HELD_MAX: usize = 1024;

/// What is held for all requests together.
pub(super) struct Leaks {
    room: Arc<Fair>,
}

impl Default for Leaks {
    fn default() -> Self {
        Self { room: Fair::new(HELD_MAX) }
    }
}

/// Codings in which a body stands as it is; with AWS's there are only lines between its chunks.
const PLAIN: [&[u8]; 2] = [b"identity", b"aws-chunked"];

/// Whether a body can be looked at: what is encoded is not.
fn is_plain(headers: &HeaderMap) -> bool {
    let is_plain = |value: &http::HeaderValue| {
        PLAIN.iter().any(|coding| value.as_bytes().trim_ascii().eq_ignore_ascii_case(coding))
    };
    headers.get_all(header::CONTENT_ENCODING).iter().all(is_plain)
}

impl Proxy {
    /// Who looks at the body of a permitted request; nobody where there is none, or where it is not to be looked at.
    fn tap(&self, rules: &Rules, permit: &Permit, exchange: &Exchange) -> Option<Box<Tap>> {
        let presented = &permit.presented;
        let scan = permit.service.leak_scan;
        let has_body = !http_body::Body::is_end_stream(&presented.body) && presented.websocket.is_none();
        if scan == LeakScan::Off || !has_body || !is_plain(&presented.head.headers) {
            return None;
        }
        let scene = tap::Scene {
            audit: self.audit.clone(),
            metrics: self.metrics.clone(),
            leases: self.leases.clone(),
            exchange_id: exchange.id().to_owned(),
            destination: exchange.destination().cloned(),
            service: permit.service.name.clone(),
            sender: permit.lease().cloned(),
        };
        let sieve = rules.watched().map(exposed::Sieve::new);
        Some(Box::new(Tap::new(scan, scene, sieve)))
    }

    /// Judges the beginning of a body where a find is refused; gives who looks at the rest, or at all of it.
    pub(super) async fn judge_body(
        &self,
        rules: &Rules,
        permit: &mut Permit,
        exchange: &Exchange,
    ) -> Result<Option<Box<Tap>>, Denial> {
        match self.tap(rules, permit, exchange) {
            // Boxed: few services want it, and every request would carry its size.
            Some(tap) if tap.is_strict() => {
                let agent = permit.lease().map(|lease| lease.terms().agent.clone());
                Box::pin(self.leaks.hold(&mut permit.presented.body, agent, tap)).await
            }
            tap => Ok(tap),
        }
    }

    /// Raises an alarm about an exchange.
    pub(super) fn alarm(&self, alarm: Alarm, exchange: &Exchange) {
        let (exchange_id, destination) = (Some(exchange.id().to_owned()), exchange.destination().cloned());
        self.raise(Alarm { exchange_id, destination, ..alarm });
    }

    /// Raises an alarm.
    pub(super) fn raise(&self, alarm: Alarm) {
        self.metrics.alarm(alarm.kind.as_str());
        self.audit.note(Event::Alarm(Box::new(alarm)));
    }
}
