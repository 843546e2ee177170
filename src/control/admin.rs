//! The read-only admin listener: `/livez`, `/readyz`, `/metrics`, for kubelet and Prometheus, and `/audit`, for whoever
//! keeps the audit's head and key elsewhere.
//!
//! Nothing here changes anything, takes a body, or names an agent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Request, StatusCode, header};
use hyper::body::Body;
use tokio::net::TcpStream;

use super::answer::typed;
use super::inbound::Inbound;
use super::serve::{Answer, Limits, Service};
use super::{HeadOf, Readiness};
use crate::metrics::{self, Metrics, Scrape};

/// What the admin listener puts up with.
pub(super) const LIMITS: Limits = Limits {
    connections_max: 64,
    head_timeout: Duration::from_secs(10),
    connection_age_max: Duration::from_secs(600),
    drain_timeout: Duration::from_secs(1),
};

/// What it answers from.
pub(super) struct Admin {
    pub(super) readiness: Readiness,
    pub(super) metrics: Arc<Metrics>,
    pub(super) scrape: Scrape,
    pub(super) head: HeadOf,
}

impl Service<TcpStream> for Admin {
    type Caller = ();
    type Io = TcpStream;

    async fn greet(&self, stream: TcpStream) -> Option<((), TcpStream)> {
        Some(((), stream))
    }

    async fn answer(&self, (): &(), request: Request<Inbound>) -> Answer {
        if !request.body().is_end_stream() {
            return close(text(StatusCode::BAD_REQUEST, "no call here takes a body\n"));
        }
        self.route(request.method(), request.uri().path(), request.uri().query())
    }
}

impl Admin {
    fn route(&self, method: &Method, path: &str, query: Option<&str>) -> Answer {
        let answer: fn(&Self, Option<&str>) -> Answer = match path {
            "/livez" => |_, _| text(StatusCode::OK, "ok\n"),
            "/readyz" => Self::readyz,
            "/metrics" => |admin, _| admin.metrics(),
            "/audit" => |admin, _| admin.audit(),
            _ => return text(StatusCode::NOT_FOUND, "there are /livez, /readyz, /metrics and /audit\n"),
        };
        if *method == Method::GET || *method == Method::HEAD {
            return answer(self, query);
        }
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n");
        refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        refused
    }

    /// 200 or 503, with what is failing; with `?verbose` also what is well.
    fn readyz(&self, query: Option<&str>) -> Answer {
        let checks = (self.readiness)();
        let is_ready = checks.iter().all(|(_, problem)| problem.is_none());
        let is_verbose = query.is_some_and(|query| query.split('&').any(|part| part == "verbose"));
        let shown: BTreeMap<_, _> = checks
            .iter()
            .filter(|(_, problem)| is_verbose || problem.is_some())
            .map(|(name, problem)| (*name, problem.as_deref().unwrap_or("ok")))
            .collect();
        let body = serde_json::json!({ "ready": is_ready, "checks": shown });
        let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        typed(status, "application/json", format!("{body}\n"))
    }

    /// The audit's key, and its last record: as `valetkey audit verify` takes them.
    fn audit(&self) -> Answer {
        let head = (self.head)();
        let body = serde_json::json!({ "boot_id": &*head.boot_id, "key": &*head.key, "head": head.to_text() });
        typed(StatusCode::OK, "application/json", format!("{body}\n"))
    }

    fn metrics(&self) -> Answer {
        match self.metrics.encode(&(self.scrape)()) {
            Ok(body) => typed(StatusCode::OK, metrics::CONTENT_TYPE, body),
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written\n"),
        }
    }
}

fn text(status: StatusCode, body: &'static str) -> Answer {
    typed(status, "text/plain; charset=utf-8", body)
}

fn close(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::audit::Head;
    use crate::metrics::{AuditReading, Readings};

    fn admin(problem: Option<&'static str>) -> Admin {
        let readings = || Readings {
            panics: 1,
            nonces_live: 0,
            audit: AuditReading { is_healthy: true, records: 0, lost: 0 },
            credentials: Vec::new(),
            policy_digest: "d".into(),
        };
        Admin {
            readiness: Arc::new(move || vec![("policy", None), ("audit", problem.map(str::to_owned))]),
            metrics: Metrics::new(),
            scrape: Arc::new(readings),
            head: Arc::new(|| Head { boot_id: "b".into(), key: "k".into(), last: Some((7, "h".into())) }),
        }
    }

    async fn ask(admin: &Admin, method: Method, path: &str, query: Option<&str>) -> (u16, String) {
        let answer = admin.route(&method, path, query);
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_tells_the_truth_and_liveness_does_not_depend_on_it() {
        let (well, ill) = (admin(None), admin(Some("the disk is full")));
        assert_eq!(ask(&well, Method::GET, "/readyz", None).await, (200, "{\"checks\":{},\"ready\":true}\n".into()));
        let (status, body) = ask(&ill, Method::GET, "/readyz", None).await;
        assert_eq!((status, body.as_str()), (503, "{\"checks\":{\"audit\":\"the disk is full\"},\"ready\":false}\n"));
        let (status, body) = ask(&ill, Method::GET, "/readyz", Some("verbose")).await;
        assert_eq!(status, 503);
        assert!(body.contains("\"policy\":\"ok\""), "{body}");
        assert_eq!(ask(&ill, Method::GET, "/livez", None).await, (200, "ok\n".into()));
    }

    #[tokio::test]
    async fn it_is_read_only() {
        let admin = admin(None);
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::TRACE] {
            for path in ["/livez", "/readyz", "/metrics", "/audit"] {
                assert_eq!(ask(&admin, method.clone(), path, None).await.0, 405, "{method} {path}");
            }
            assert_eq!(ask(&admin, method, "/v1/nonces", None).await.0, 404);
        }
        assert_eq!(ask(&admin, Method::HEAD, "/livez", None).await.0, 200);
        assert_eq!(ask(&admin, Method::GET, "/debug/pprof", None).await.0, 404);
    }

    #[tokio::test]
    async fn it_tells_where_the_audit_stands() {
        let answer = ask(&admin(None), Method::GET, "/audit", None).await;
        assert_eq!(answer, (200, "{\"boot_id\":\"b\",\"head\":\"7:h\",\"key\":\"k\"}\n".into()));
    }

    #[tokio::test]
    async fn it_is_served_over_tcp_until_shutdown() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let serving =
            tokio::spawn(crate::control::serve::run(listener, Arc::new(admin(None)), LIMITS, shutdown.clone()));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"# EOF\n") {
            assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0, "closed early");
        }
        let head = String::from_utf8_lossy(&seen).to_lowercase();
        assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
        shutdown.cancel();
        serving.await.unwrap();
        assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0, "an idle connection is closed");
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn a_body_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        tokio::spawn(crate::control::serve::run(listener, Arc::new(admin(None)), LIMITS, shutdown.clone()));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n").await.unwrap();
        let mut seen = String::new();
        stream.read_to_string(&mut seen).await.unwrap();
        assert!(seen.starts_with("HTTP/1.1 400"), "{seen}");
        shutdown.cancel();
    }
}
