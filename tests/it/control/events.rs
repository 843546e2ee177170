//! Following the audit over the socket.

use std::time::Duration;

use http::Request;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use valetkey::control::client::{Client, Events};

use crate::support::Stage;

async fn next(events: &mut Events) -> Value {
    let next = tokio::time::timeout(Duration::from_secs(10), events.next()).await.expect("an event in time");
    next.expect("an event").expect("a record")
}

#[tokio::test]
async fn records_come_as_they_are_in_the_file() {
    let stage = Stage::new().await;
    let client = Client::new(&stage.sidecar.control());
    let mut all = client.events(None, None).await.expect("events");
    let mut tasks = client.events(Some("worker"), Some("task-1")).await.expect("events");
    let nonce = stage.reader().await;
    let other = json!({"agent": "worker", "task": "other", "service": "api", "scope": "read"});
    stage.sidecar.orchestrator().mint_with(other).await;
    assert_eq!(stage.sidecar.agent().get("api.test", "/v1/x", &nonce).await.status, 200);
    let (mint, second) = (next(&mut all).await, next(&mut all).await);
    assert_eq!((&mint["type"], &mint["task"], &second["task"]), (&"mint".into(), &"task-1".into(), &"other".into()));
    let mut shown = vec![mint, second];
    while shown.last().expect("one")["type"] != "end" {
        shown.push(next(&mut all).await);
    }
    let written = stage.sidecar.audit();
    assert!(shown.iter().all(|record| written.contains(record)), "{shown:#?}");
    assert_eq!(next(&mut tasks).await, shown[0]);
    let second = next(&mut tasks).await;
    assert_eq!(
        (&second["type"], &second["task"]),
        (&"decision".into(), &"task-1".into()),
        "the other task is not shown"
    );
    stage.assert_silent(&[&nonce]);
}

#[tokio::test]
async fn they_are_server_sent_events_and_end_with_the_sidecar() {
    let mut stage = Stage::new().await;
    let mut stream = UnixStream::connect(stage.sidecar.control()).await.expect("the socket");
    stream.write_all(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("writable");
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(": still here\n\n") {
        assert_ne!(stream.read_buf(&mut seen).await.expect("readable"), 0, "closed early");
    }
    let head = String::from_utf8_lossy(&seen).to_lowercase();
    assert!(head.contains("content-type: text/event-stream") && head.contains("cache-control: no-store"), "{head}");
    let id = stage.sidecar.orchestrator().mint("worker", "api", "read").await.id;
    while !String::from_utf8_lossy(&seen).split(&id).nth(1).is_some_and(|rest| rest.contains("\n\n")) {
        assert_ne!(stream.read_buf(&mut seen).await.expect("readable"), 0, "closed early");
    }
    let text = String::from_utf8_lossy(&seen).into_owned();
    let event = text.split("event: mint\nid: ").nth(1).expect("a mint");
    let (seq, data) = event.split_once("\ndata: ").expect("data");
    let record: Value = serde_json::from_str(data.split("\n\n").next().expect("an end")).expect("JSON");
    assert_eq!(record["seq"].to_string(), seq);
    stage.sidecar.signal("TERM");
    while stream.read_buf(&mut seen).await.expect("readable") > 0 {}
    assert!(seen.ends_with(b"0\r\n\r\n"), "ended in good order");
    assert_eq!(stage.sidecar.wait(), Some(0));
}

#[tokio::test]
async fn what_is_asked_is_read_strictly_and_followers_are_bounded() {
    let stage = Stage::new().await;
    let orchestrator = stage.sidecar.orchestrator();
    for path in ["/v1/events?surprise=1", "/v1/events?agent=a&agent=a", "/v1/events?task=%ff", "/v1/events?after=1"] {
        let (status, problem) = orchestrator.call("GET", path, None).await;
        assert_eq!((status.as_u16(), &problem["code"]), (400, &"invalid_request".into()), "{path}");
    }
    let client = Client::new(&stage.sidecar.control());
    let mut followers = Vec::new();
    for _ in 0..16 {
        followers.push(client.events(None, None).await.expect("a place"));
    }
    let request = Request::get("/v1/events").header("host", "valetkey").body(Default::default()).expect("a request");
    let (status, body) = orchestrator.send(request).await;
    assert_eq!(status, 503, "{body:?}");
    drop(followers);
    let begun = std::time::Instant::now();
    while client.events(None, None).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10), "the places were not given back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
