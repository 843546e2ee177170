//! The same by extended CONNECT (RFC 8441).

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper::ext::Protocol;
use hyper_util::rt::TokioIo;

use super::{Stage, closed, has, nonce, stage};
use crate::support::agent::{Tunnel, get, read};
use crate::support::websocket::{CLOSE, Socket, TEXT};

fn question(path: &str, nonce: &str, protocol: Option<&'static str>) -> Request<Full<Bytes>> {
    let mut request = Request::builder()
        .method("CONNECT")
        .uri(if protocol.is_some() { format!("https://api.test{path}") } else { "api.test:443".to_owned() })
        .header("authorization", format!("Bearer {nonce}"))
        .header("sec-websocket-version", "13")
        .body(Full::default())
        .expect("a request");
    if let Some(protocol) = protocol {
        request.extensions_mut().insert(Protocol::from_static(protocol));
    }
    request
}

/// A tunnel whose settings have arrived: only then may a client ask.
async fn tunnel(stage: &Stage) -> Tunnel {
    let mut tunnel = stage.sidecar.agent().tunnel_h2("api.test").await;
    let reply = tunnel.send(get("api.test", "/", "an_wrong")).await;
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    tunnel
}

async fn open(stage: &Stage, path: &str, nonce: &str) -> Socket {
    let response = tunnel(stage).await.start(question(path, nonce, Some("websocket"))).await;
    assert_eq!(response.status(), StatusCode::OK, "{:?}", response.headers());
    for name in ["sec-websocket-accept", "upgrade", "connection", "content-length"] {
        assert!(!response.headers().contains_key(name), "{name}");
    }
    Socket::client(TokioIo::new(hyper::upgrade::on(response).await.expect("a socket")))
}

/// The closing record of the socket; the question before it has one of its own.
async fn closed_socket(stage: &Stage) -> serde_json::Value {
    stage.sidecar.audited(|record| record["type"] == "end" && record["status"] == 200).await
}

#[tokio::test]
async fn a_socket_over_http2_is_one_over_http1_upstream() {
    let (stage, _) = stage().await;
    let nonce = nonce(&stage).await;
    let mut socket = open(&stage, "/echo", &nonce).await;
    let large = vec![b'x'; 1_200_000];
    for text in [&b"hello"[..], &large] {
        socket.say(TEXT, text).await;
        assert!(socket.hear().await == Some((TEXT, text.to_vec())));
    }
    socket.say(CLOSE, &1000_u16.to_be_bytes()).await;
    assert_eq!(socket.hear().await, Some((CLOSE, vec![3, 0xe8])));
    drop(socket);
    let seen = stage.upstream.only();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", "/echo"));
    assert_eq!(seen.header("authorization"), Some(format!("Bearer {}", stage.secret).as_str()));
    assert_eq!(seen.header("host"), Some("api.test"));
    assert_eq!(closed_socket(&stage).await["ending"], "complete");
}

#[tokio::test]
async fn who_leaves_at_the_close_frame_has_heard_it_all() {
    let (stage, _) = stage().await;
    let nonce = nonce(&stage).await;
    let mut socket = open(&stage, "/farewell", &nonce).await;
    assert_eq!(socket.hear().await, Some((CLOSE, vec![3, 0xe8])));
    drop(socket);
    assert_eq!(closed_socket(&stage).await["ending"], "complete");
}

#[tokio::test]
async fn who_leaves_before_it_has_not() {
    let (stage, _) = stage().await;
    let nonce = nonce(&stage).await;
    drop(open(&stage, "/flood", &nonce).await);
    assert_eq!(closed_socket(&stage).await["ending"], "client_gone");
}

#[tokio::test]
async fn an_echo_over_http2_is_masked() {
    let (stage, _) = stage().await;
    let mut socket = open(&stage, "/tell", &nonce(&stage).await).await;
    let heard = socket.rest().await;
    assert!(heard.len() > 200, "{}", heard.len());
    stage.assert_clean(&heard, "the socket");
}

#[tokio::test]
async fn a_revoked_nonce_cuts_sockets_over_http2() {
    let (stage, sockets) = stage().await;
    let orchestrator = stage.sidecar.orchestrator();
    let minted = orchestrator.mint("worker", "api", "socket").await;
    let mut socket = open(&stage, "/echo", &minted.nonce).await;
    // This one is never read.
    let _flooded = open(&stage, "/flood", &minted.nonce).await;
    orchestrator.revoke(&minted.id).await;
    assert_eq!(socket.hear().await, None);
    has(&sockets, 0).await;
}

#[tokio::test]
async fn what_is_refused_over_http2_is_readable() {
    let (stage, _) = stage().await;
    let nonce = nonce(&stage).await;
    let mut tunnel = tunnel(&stage).await;
    let refused = |reply: crate::support::agent::Reply| (reply.status.as_u16(), reply.json()["code"].clone());
    let reader = stage.reader().await;
    let response = tunnel.start(question("/echo", &reader, Some("websocket"))).await;
    assert_eq!(refused(read(response).await.expect("a body")), (403, "out_of_scope".into()));
    for protocol in [Some("connect-udp"), None] {
        let response = tunnel.start(question("/echo", &nonce, protocol)).await;
        assert_eq!(refused(read(response).await.expect("a body")), (400, "request_ambiguous".into()), "{protocol:?}");
    }
    let mut request = question("/echo", &nonce, Some("websocket"));
    request.headers_mut().remove("sec-websocket-version");
    assert_eq!(refused(read(tunnel.start(request).await).await.expect("a body")), (400, "request_ambiguous".into()));
    // A refusal in the manner of gRPC would be a 200, and that a yes.
    let mut request = question("/echo", &reader, Some("websocket"));
    request.headers_mut().insert("content-type", "application/grpc".parse().expect("a value"));
    assert_eq!(tunnel.start(request).await.status(), StatusCode::FORBIDDEN);
    assert!(stage.upstream.seen().is_empty());
    // Upstream's 200 is no yes, and over HTTP/2 it would be one; its 404 is what it is.
    let response = tunnel.start(question("/no", &nonce, Some("websocket"))).await;
    assert_eq!(refused(read(response).await.expect("a body")), (502, "upstream_unreachable".into()));
    let response = tunnel.start(question("/never", &nonce, Some("websocket"))).await;
    let reply = read(response).await.expect("a body");
    assert_eq!((reply.status, reply.text()), (StatusCode::NOT_FOUND, "*".repeat(stage.secret.len())));
    let _ = closed(&stage).await;
}
