//! Whoever mints: HTTP over the control socket.

use std::path::PathBuf;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixStream;

use super::watch::Heard;

/// An orchestrator on a control socket.
pub struct Orchestrator {
    socket: PathBuf,
    heard: Heard,
}

/// A minted nonce, as the API gave it.
#[derive(Debug, Clone)]
pub struct Minted {
    pub nonce: String,
    pub id: String,
    pub answer: Value,
}

/// `GET` on the control socket.
pub fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).header("host", "valetkey").body(Full::default()).expect("a request")
}

/// `POST` on the control socket; no `Content-Type` where `kind` is empty.
pub fn post(path: &str, kind: &str, body: &str) -> Request<Full<Bytes>> {
    let mut request = Request::post(path).header("host", "valetkey");
    if !kind.is_empty() {
        request = request.header("content-type", kind);
    }
    request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).expect("a request")
}

impl Orchestrator {
    pub fn new(socket: PathBuf) -> Self {
        Self { socket, heard: Heard::default() }
    }

    /// The same, whose answers are heard.
    pub fn heard_by(self, heard: &Heard) -> Self {
        Self { heard: heard.clone(), ..self }
    }

    /// One call; status and body (null if there is none).
    pub async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let mut request = Request::builder().method(method).uri(path).header("host", "valetkey");
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let (status, body) = self.send(request.body(Full::new(Bytes::from(body))).expect("a request")).await;
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// One request as it is; status and body.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> (StatusCode, Bytes) {
        let (status, _, body) = self.exchange(request).await;
        (status, body)
    }

    /// One request as it is; the whole answer.
    pub async fn exchange(&self, request: Request<Full<Bytes>>) -> (StatusCode, HeaderMap, Bytes) {
        let stream = UnixStream::connect(&self.socket).await.expect("the control socket");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request).await.expect("an answer");
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        connection.abort();
        self.heard.hear(&[format!("{:?}\n", head.headers).as_bytes(), &body].concat());
        (head.status, head.headers, body)
    }

    /// Mints with this body and expects it to work.
    pub async fn mint_with(&self, body: Value) -> Minted {
        let (status, answer) = self.call("POST", "/v1/nonces", Some(body)).await;
        assert_eq!(status, StatusCode::CREATED, "{answer:#}");
        let text = |name: &str| answer[name].as_str().expect("a text").to_owned();
        Minted { nonce: text("nonce"), id: text("id"), answer }
    }

    /// Mints for one service and scope.
    pub async fn mint(&self, agent: &str, service: &str, scope: &str) -> Minted {
        self.mint_with(json!({"agent": agent, "task": "task-1", "service": service, "scope": scope})).await
    }

    pub async fn revoke(&self, id: &str) {
        let (status, answer) = self.call("DELETE", &format!("/v1/nonces/{id}"), None).await;
        assert!(status.is_success(), "{status} {answer:#}");
    }
}
