//! Over the socket.

use super::*;
use crate::control::{bind, serve};

struct Serving {
    plane: Plane,
    path: std::path::PathBuf,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn serving(limits: Limits) -> Serving {
    let plane = Plane::new();
    let path = plane.home.path().join("run/control.sock");
    let listener = bind(&path, None).unwrap();
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(serve::run(listener, Arc::clone(&plane.control), limits, shutdown.clone()));
    Serving { plane, path, shutdown, task }
}

#[tokio::test]
async fn the_client_speaks_with_the_server() {
    let serving = serving(front::LIMITS);
    let client = Client::new(&serving.path);
    let asked = NewNonce {
        agent: "billing".into(),
        task: "t".into(),
        service: Some("stripe".into()),
        scope: Some(ScopeList::Many(vec!["read:customers".into()])),
        ttl: Some(TtlAsked::Text("90s".into())),
        ..NewNonce::default()
    };
    assert_eq!(client.whoami().await.unwrap().identity, format!("uid:{}", own_uid()));
    let minted = client.mint(&asked, Some("key 1")).await.unwrap();
    assert_eq!(client.mint(&asked, Some("key 1")).await.unwrap().nonce, minted.nonce);
    assert_eq!(minted.expires_in, 90);
    assert!(!format!("{minted:?}").contains(minted.nonce.as_str()), "it is not printed");
    assert_eq!(client.show(&minted.id).await.unwrap().task, "t");
    let query = ListQuery { task: Some("t".into()), limit: Some(1), ..ListQuery::default() };
    assert_eq!(client.list(&query).await.unwrap().nonces.len(), 1);
    assert!(client.introspect(&minted.nonce).await.unwrap().active);
    client.revoke(&minted.id).await.unwrap();
    client.revoke(&minted.id).await.unwrap();
    assert!(!client.introspect(&PlainNonce::new(minted.nonce.as_str().into())).await.unwrap().active);
    assert!(matches!(client.show(&minted.id).await, Err(ClientError::Refused(problem)) if problem.code == "not_found"));
    assert!(
        matches!(client.show("../../ca.pem").await, Err(ClientError::Refused(problem)) if problem.code == "not_found")
    );
    assert_eq!(client.services().await.unwrap().services.len(), 2);
    assert!(client.ca_pem().await.unwrap().starts_with("-----BEGIN"));
    serving.shutdown.cancel();
    serving.task.await.unwrap();
    assert!(matches!(client.whoami().await, Err(ClientError::Connect { .. })));
}

#[tokio::test]
async fn serving_removes_its_socket_at_the_end() {
    let plane = Plane::new();
    let path = plane.home.path().join("run/control.sock");
    let listener = bind(&path, None).unwrap();
    let shutdown = CancellationToken::new();
    let Ok(control) = Arc::try_unwrap(plane.control) else { panic!("somebody else holds it") };
    let serving = tokio::spawn(serve(listener, None, control.parts, shutdown.clone()));
    Client::new(&path).whoami().await.unwrap();
    shutdown.cancel();
    serving.await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn http_2_is_not_spoken() {
    let serving = serving(front::LIMITS);
    let mut stream = UnixStream::connect(&serving.path).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut seen = Vec::new();
    stream.read_to_end(&mut seen).await.unwrap();
    assert!(seen.is_empty() || seen.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&seen));
}

#[tokio::test]
async fn stalled_heads_and_bodies_and_old_connections_are_ended() {
    let short = Duration::from_millis(50);
    let serving =
        serving(Limits { head_timeout: short, connection_age_max: short * 4, drain_timeout: short, ..front::LIMITS });
    let stalls: [&[u8]; 3] = [
        b"",
        b"GET /v1/whoami HTTP/1.1\r\nHost: local",
        b"POST /v1/nonces HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
    ];
    for stall in stalls {
        let mut stream = UnixStream::connect(&serving.path).await.unwrap();
        stream.write_all(stall).await.unwrap();
        let mut seen = Vec::new();
        // It ends by itself: the test would hang otherwise.
        let _closed = stream.read_to_end(&mut seen).await;
    }
    assert_eq!(serving.plane.store.live_count(), 0);
}

#[tokio::test]
async fn only_so_many_connections_are_served_at_once() {
    let serving = serving(Limits { connections_max: 1, ..front::LIMITS });
    let request = b"GET /v1/whoami HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut first = UnixStream::connect(&serving.path).await.unwrap();
    first.write_all(request).await.unwrap();
    assert_ne!(first.read(&mut [0; 1024]).await.unwrap(), 0);
    let mut second = UnixStream::connect(&serving.path).await.unwrap();
    second.write_all(request).await.unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(50), second.read(&mut [0; 1024])).await;
    assert!(waited.is_err(), "the second waits");
    drop(first);
    assert_ne!(second.read(&mut [0; 1024]).await.unwrap(), 0, "and is served when there is room");
}
