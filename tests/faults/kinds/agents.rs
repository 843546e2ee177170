//! Agents that go away at each stage, or stand still.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Case, Kind, kind, kind_alike};
use crate::client::{Protocol, head};
use crate::scene::Scene;
use crate::support::sidecar::eventually;
use crate::support::sockets::descriptors;
use crate::upstream::{At, Fault, Step};

/// How far an agent gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Tunnel,
    HalfHandshake,
    Handshake,
    HalfHead,
    HalfBody,
    BeforeTheAnswer,
    InTheAnswer,
}

/// So often in each case, so that what is left behind adds up.
const TIMES: usize = 6;

pub fn all() -> Vec<Kind> {
    let stages = [
        ("tunnel", Stage::Tunnel),
        ("half_handshake", Stage::HalfHandshake),
        ("handshake", Stage::Handshake),
        ("half_head", Stage::HalfHead),
        ("half_body", Stage::HalfBody),
        ("before_the_answer", Stage::BeforeTheAnswer),
        ("in_the_answer", Stage::InTheAnswer),
    ];
    let gone = |(name, stage)| kind(&format!("agent_gone_{name}"), move |case| gone(case, stage));
    let mut kinds: Vec<Kind> = stages.into_iter().map(gone).collect();
    kinds.push(kind("agent_reads_nothing", reads_nothing));
    kinds.push(kind_alike("agent_resets_a_body_without_an_error", resets_a_body));
    kinds
}

/// Half of an answer, a while, and the rest.
fn halting() -> Fault {
    Fault::h1(At::Whole, || {
        let begun = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n".to_vec();
        vec![Step::Say(begun), Step::Wait(Duration::from_millis(200)), Step::Say(b"1\r\nk\r\n0\r\n\r\n".to_vec())]
    })
}

async fn gone(case: Case, stage: Stage) {
    let scene = Scene::new(case, halting()).await;
    scene.works("/before").await;
    let before = descriptors(scene.sidecar.pid());
    for time in 0..TIMES {
        scene.upstream.recorder.asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        match case.protocol {
            Protocol::H1 => go_h1(&scene, stage, time).await,
            Protocol::H2 => go_h2(&scene, stage, time).await,
        }
    }
    scene.works("/after").await;
    let is_over = || {
        let records = scene.sidecar.audit();
        let count = |kind: &str| records.iter().filter(|record| record["type"] == kind).count();
        (count("decision") <= count("end")).then_some(())
    };
    eventually("an end of each exchange", is_over).await;
    if let Some(before) = before {
        // Connections to upstream may be kept, one for each that was under way at once.
        let fits = || descriptors(scene.sidecar.pid()).is_none_or(|now| now <= before + TIMES).then_some(());
        eventually("the descriptors to be given back", fits).await;
    }
    scene.finish().await;
}

/// Ends a connection by RST, or in order, by turns.
fn vanish(tcp: &TcpStream, time: usize) {
    if time.is_multiple_of(2) {
        let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
    }
}

async fn go_h1(scene: &Scene, stage: Stage, time: usize) {
    let agent = scene.sidecar.agent();
    if matches!(stage, Stage::Tunnel | Stage::HalfHandshake) {
        let (_, mut tcp) = agent.connect("api.test:443").await;
        if stage == Stage::HalfHandshake {
            let _ = tcp.write_all(&[22, 3, 1, 1, 0, 1, 0, 0, 252, 3, 3]).await;
        }
        return vanish(&tcp, time);
    }
    let mut stream = agent.tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("TLS");
    let ask = scene.request("POST", &format!("/gone/{time}"), "a body that is long enough to be cut in two");
    let (head, body) = (head(&ask), ask.body.clone());
    let sent = match stage {
        Stage::HalfHead => [&head.as_bytes()[..head.len() / 2], b""].concat(),
        Stage::HalfBody => [head.as_bytes(), &body[..10]].concat(),
        Stage::BeforeTheAnswer | Stage::InTheAnswer => [head.as_bytes(), &body].concat(),
        Stage::Tunnel | Stage::HalfHandshake | Stage::Handshake => Vec::new(),
    };
    let _ = stream.write_all(&sent).await;
    let _ = stream.flush().await;
    if stage == Stage::InTheAnswer {
        let _ = stream.read(&mut [0; 20]).await;
    }
    vanish(stream.get_ref().0, time);
}

async fn go_h2(scene: &Scene, stage: Stage, time: usize) {
    if matches!(stage, Stage::Tunnel | Stage::HalfHandshake) {
        return go_h1(scene, stage, time).await;
    }
    let agent = scene.sidecar.agent();
    if matches!(stage, Stage::Handshake | Stage::HalfHead) {
        let mut stream = agent.tls_tunnel("api.test", "api.test", &[b"h2"]).await.expect("TLS");
        if stage == Stage::HalfHead {
            let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x40\x01").await;
            let _ = stream.flush().await;
        }
        return vanish(stream.get_ref().0, time);
    }
    let mut sender = agent.frames("api.test").await;
    let request = Request::post(format!("https://api.test/gone/{time}"));
    let request = request.header("authorization", format!("Bearer {}", scene.writer)).body(()).expect("a request");
    let (response, mut stream) = sender.send_request(request, false).expect("an open connection");
    let is_whole = stage != Stage::HalfBody;
    let _ = stream.send_data(Bytes::from_static(b"a body"), is_whole);
    if stage == Stage::InTheAnswer
        && let Ok(mut response) = response.await
    {
        let _ = response.body_mut().data().await;
    }
    stream.send_reset(h2::Reason::CANCEL);
}

/// Half of a body, and a reset that names no error: upstream must not take it for a whole one.
async fn resets_a_body(case: Case) {
    let scene = Scene::new(Case { protocol: Protocol::H2, ..case }, Fault::none()).await;
    let recorder = &scene.upstream.recorder;
    scene.works("/before").await;
    let whole = recorder.whole.load(Ordering::SeqCst);
    let mut sender = scene.sidecar.agent().frames("api.test").await;
    for time in 0..TIMES {
        recorder.asked.fetch_add(1, Ordering::SeqCst);
        let request = Request::post(format!("https://api.test/half/{time}"));
        let request = request.header("authorization", format!("Bearer {}", scene.writer)).body(()).expect("a request");
        let (response, mut stream) = sender.send_request(request, false).expect("an open connection");
        stream.send_data(Bytes::from_static(b"half"), false).expect("an open stream");
        let arrived = || (recorder.count(time as u64 + 2) > 0).then_some(());
        eventually("the request to arrive", arrived).await;
        stream.send_reset(h2::Reason::NO_ERROR);
        assert!(response.await.is_err(), "it was answered");
    }
    let ends = || scene.sidecar.audit().iter().filter(|record| record["type"] == "end").count();
    eventually("an end of each exchange", || (ends() > TIMES).then_some(())).await;
    assert_eq!(recorder.whole.load(Ordering::SeqCst), whole, "half a body arrived as a whole one");
    scene.finish().await;
}

/// The sidecar gives up an agent that takes nothing, and says that it did.
async fn reads_nothing(case: Case) {
    let endless = Fault::h1(At::Whole, || {
        let piece = [&b"10000\r\n"[..], &[b'x'; 65_536], b"\r\n"].concat();
        vec![
            Step::Say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec()),
            Step::Flood(piece),
            Step::Hold,
        ]
    });
    let scene = Scene::new(case, endless).await;
    let agent = scene.sidecar.agent();
    scene.upstream.recorder.asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    let ended = |record: &serde_json::Value| record["type"] == "end" && record["ending"] == "cut";
    match case.protocol {
        Protocol::H1 => {
            let mut stream = agent.tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("TLS");
            let ask = scene.request("GET", "/endless", "");
            stream.write_all(head(&ask).as_bytes()).await.expect("writable");
            scene.sidecar.audited(ended).await;
        }
        Protocol::H2 => {
            let mut sender = agent.frames("api.test").await;
            let request = Request::get("https://api.test/endless");
            let request = request.header("authorization", format!("Bearer {}", scene.reader)).body(()).expect("one");
            let (_response, _stream) = sender.send_request(request, true).expect("an open connection");
            scene.sidecar.audited(ended).await;
        }
    }
    scene.finish().await;
}
