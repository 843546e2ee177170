//! What the three imitated APIs answer.

use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use serde_json::{Value, json};
use tokio::time::Interval;

use super::{Canaries, Received};

/// Plays Stripe.
pub(in crate::cli::demo) const STRIPE: &str = "api.stripe.com";
/// Plays GitHub.
pub(in crate::cli::demo) const GITHUB: &str = "api.github.com";
/// Plays an API of one's own.
pub(in crate::cli::demo) const INTERNAL: &str = "echo.internal.test";
/// All names.
pub(super) const HOSTS: [&str; 3] = [STRIPE, GITHUB, INTERNAL];

/// The header in which the internal API repeats its key.
pub(in crate::cli::demo) const ECHO_HEADER: HeaderName = HeaderName::from_static("x-debug-key");
/// Between two events of the stream.
const TICK: Duration = Duration::from_millis(20);
/// Events of one stream: it goes on for a minute, longer than anybody waits.
const TICKS: u32 = 3000;

/// A body on its way out.
pub(super) type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// An answer before it is sent.
pub(super) struct Answer {
    status: StatusCode,
    /// The body, before it is compressed; empty for the stream.
    pub(super) plain: Bytes,
    shape: Shape,
    echo: Option<HeaderValue>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Plain,
    Gzip,
    Stream,
}

/// The answer of whichever API is asked.
pub(super) fn answer(received: &Received, path: &str, canaries: &Canaries) -> Answer {
    match received.host.as_str() {
        STRIPE => stripe(received, path, canaries),
        GITHUB => github(received, path, canaries),
        INTERNAL => internal(received, path, canaries),
        _ => Answer::json(421, &json!({ "error": "this server does not play that name" })),
    }
}

fn stripe(received: &Received, path: &str, canaries: &Canaries) -> Answer {
    if received.header("authorization") != format!("Bearer {}", canaries.stripe) {
        let message = "Invalid API Key provided";
        return Answer::json(401, &json!({ "error": { "type": "invalid_request_error", "message": message } }));
    }
    match (received.method.as_str(), path) {
        ("GET", "/v1/customers") => {
            let ada = json!({ "id": "cus_demo1", "object": "customer", "email": "ada@example.com" });
            Answer::json(200, &json!({ "object": "list", "data": [ada] }))
        }
        ("POST", "/v1/refunds") => Answer::json(200, &json!({ "id": "re_demo1", "object": "refund" })),
        _ => Answer::json(404, &json!({ "error": { "type": "invalid_request_error" } })),
    }
}

fn github(received: &Received, path: &str, canaries: &Canaries) -> Answer {
    let given = received.header("authorization");
    if ["token", "Bearer"].iter().all(|scheme| given != format!("{scheme} {}", canaries.github)) {
        return Answer::json(401, &json!({ "message": "Bad credentials" }));
    }
    match (received.method.as_str(), path) {
        ("GET", "/user") => Answer::json(200, &json!({ "login": "octo-demo", "id": 1 })),
        _ => Answer::json(404, &json!({ "message": "Not Found" })),
    }
}

/// Tells too much, as debugging endpoints do.
fn internal(received: &Received, path: &str, canaries: &Canaries) -> Answer {
    let key = received.header("x-api-key");
    if key != canaries.internal {
        return Answer::json(401, &json!({ "error": "unknown key" }));
    }
    let told = json!({ "note": "thank you", "you_sent": { "x-api-key": key } });
    match path {
        "/v1/echo" => Answer { echo: HeaderValue::from_str(&key).ok(), ..Answer::json(200, &told) },
        "/v1/echo/base64" => Answer::json(200, &json!({ "note": "thank you", "key": STANDARD.encode(&key) })),
        "/v1/echo/gzip" => Answer { shape: Shape::Gzip, ..Answer::json(200, &told) },
        "/v1/events" => Answer { shape: Shape::Stream, plain: Bytes::new(), ..Answer::json(200, &told) },
        _ => Answer::json(404, &json!({ "error": "no such path" })),
    }
}

impl Answer {
    fn json(status: u16, body: &Value) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or_default();
        Self { status, plain: Bytes::from(body.to_string()), shape: Shape::Plain, echo: None }
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let whole = |bytes: Bytes| Full::new(bytes).boxed_unsync();
        let body = match self.shape {
            Shape::Plain => whole(self.plain),
            Shape::Gzip => whole(gzip(&self.plain)),
            Shape::Stream => Ticks { interval: tokio::time::interval(TICK), left: TICKS }.boxed_unsync(),
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let content_type = if self.shape == Shape::Stream { "text/event-stream" } else { "application/json" };
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if self.shape == Shape::Gzip {
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        if let Some(echo) = self.echo {
            response.headers_mut().insert(ECHO_HEADER, echo);
        }
        response
    }
}

fn gzip(bytes: &[u8]) -> Bytes {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    // Writing into memory does not fail.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default().into()
}

/// Server-sent events that keep coming.
struct Ticks {
    interval: Interval,
    left: u32,
}

impl http_body::Body for Ticks {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        ready!(self.interval.poll_tick(cx));
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"data: tick\n\n")))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_api_wants_its_own_credential() {
        let canaries = Canaries::new().unwrap();
        let ask = |host: &str, path: &str, name: &'static str, value: &str| {
            let mut received = Received { host: host.into(), method: "GET".into(), ..Received::default() };
            received.headers.insert(name, value.parse().unwrap());
            answer(&received, path, &canaries).status
        };
        let bearer = format!("Bearer {}", canaries.stripe);
        assert_eq!(ask(STRIPE, "/v1/customers", "authorization", &bearer), 200);
        assert_eq!(ask(STRIPE, "/v1/customers", "authorization", "Bearer an_x"), 401);
        assert_eq!(ask(GITHUB, "/user", "authorization", &bearer), 401);
        assert_eq!(ask(GITHUB, "/user", "authorization", &format!("token {}", canaries.github)), 200);
        assert_eq!(ask(INTERNAL, "/v1/echo", "x-api-key", &canaries.internal), 200);
        assert_eq!(ask(INTERNAL, "/v1/echo", "authorization", &bearer), 401);
        assert_eq!(ask("example.com", "/", "authorization", &bearer), 421);
    }

    #[test]
    fn the_internal_api_does_echo() {
        let canaries = Canaries::new().unwrap();
        let mut received = Received { host: INTERNAL.into(), ..Received::default() };
        received.headers.insert("x-api-key", canaries.internal.parse().unwrap());
        for path in ["/v1/echo", "/v1/echo/base64", "/v1/echo/gzip"] {
            assert!(canaries.find_in(&answer(&received, path, &canaries).plain).is_some(), "{path}");
        }
    }
}
