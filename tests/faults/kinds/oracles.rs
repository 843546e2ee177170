//! Planted breaches: an oracle that does not see its own would not see a real one.

use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use super::processes::never_twice;
use super::{Case, Kind, kind, kind_alike};
use crate::client::{Outcome, Protocol, judged};
use crate::runner;
use crate::scene::{Expect, Scene, check, verify};
use crate::soak;
use crate::support::leak::forms;
use crate::upstream::{At, Fault, Recorder, Step};

/// Stands for a credential that the sidecar does not know, and so does not mask.
const UNKNOWN: &str = "sk_planted_Vq3mW8xLr2TzK7nB";

pub fn all() -> Vec<Kind> {
    vec![
        kind("oracle_sees_a_leak_to_an_agent", leak_to_an_agent),
        kind_alike("oracle_sees_leaks_in_files", leaks_in_files),
        kind_alike("oracle_sees_a_send_without_a_record", send_without_a_record),
        kind_alike("oracle_sees_a_second_send", second_send),
        kind("oracle_sees_a_cut_answer_that_looks_whole", cut_that_looks_whole),
        kind_alike("oracle_knows_the_end_of_an_answer", ends),
        kind_alike("oracle_sees_a_broken_audit", broken_audit),
        kind_alike("oracle_sees_a_panic_and_a_death", panic_and_death),
        kind_alike("oracle_sees_cases_that_fail", runner::tells_cases_apart),
        kind_alike("oracle_sees_breaches_in_a_soak", |_| async { soak::sees_breaches() }),
    ]
}

/// Runs a check over what was planted: it must fail, and say this.
async fn sees(saying: &str, checking: impl Future<Output = ()> + Send + 'static) {
    let Err(error) = tokio::spawn(checking).await else { panic!("it was not seen: {saying}") };
    let why = runner::message(error);
    assert!(why.contains(saying), "something else was seen than {saying}: {why}");
}

async fn scene(case: Case) -> Scene {
    Scene::new(case, Fault::none()).await
}

/// In the body of an answer, in its head, and in its trailers: all that an agent gets is searched.
async fn leak_to_an_agent(case: Case) {
    let whole =
        |fields: &str, body: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{fields}\r\n{body}", body.len());
    let trailing =
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-A: {UNKNOWN}\r\n\r\n");
    let mut answers = vec![whole("", UNKNOWN), whole(&format!("X-A: {UNKNOWN}\r\n"), "ok")];
    // Over HTTP/1.1 an agent gets none that it has not asked for.
    answers.extend((case.protocol == Protocol::H2).then_some(trailing));
    for answer in answers {
        let fault = Fault::h1(At::Whole, move || vec![Step::Say(answer.clone().into_bytes())]);
        let mut scene = Scene::new(case, fault).await;
        let outcome = scene.ask(&scene.request("GET", "/echo", "")).await;
        assert!(matches!(outcome, Outcome::Whole(200, _)), "{outcome:?}");
        scene.after();
        scene.secret = UNKNOWN.to_owned();
        sees("the credential is in what agents got, as plain text", async move { scene.after() }).await;
    }
}

/// In each form, and nonces too.
async fn leaks_in_files(case: Case) {
    let scene = std::sync::Arc::new(scene(case).await);
    scene.works("/before").await;
    scene.after();
    let planted = scene.sidecar.path("planted");
    let plant = |text: &str| std::fs::write(&planted, format!("something {text} else")).expect("a file");
    for (_, text) in forms(&scene.secret) {
        plant(&text);
        let scene = scene.clone();
        sees("the credential is in planted", async move { scene.after() }).await;
    }
    plant(&scene.reader);
    let again = scene.clone();
    sees("a nonce is in planted", async move { again.after() }).await;
}

/// Requests that arrive before, or without, their decision.
async fn send_without_a_record(case: Case) {
    let scene = scene(case).await;
    scene.works("/before").await;
    scene.after();
    let recorder = scene.upstream.recorder.clone();
    recorder.asked.fetch_add(1, Ordering::SeqCst);
    // Over HTTP/2 the recorder reads no heads, and counts.
    recorder.arrived(None);
    sees("sent without a record", async move { scene.after() }).await;

    let directory = tempfile::tempdir().expect("a directory");
    let on_record = |path: &str| format!("{{\"type\":\"decision\",\"decision\":\"allow\",\"path\":\"{path}\"}}\n");
    let arrives = |name: &str, record: &str| {
        let audit: PathBuf = directory.path().join(name);
        std::fs::write(&audit, record).expect("a file");
        let recorder = Recorder::default();
        recorder.audit.set(audit).expect("once");
        recorder.arrived(Some("POST /x HTTP/1.1\r\n\r\n"));
        recorder
    };
    arrives("known", &on_record("/x")).assert_recorded();
    let denied = on_record("/x").replace("allow", "deny");
    for (name, record) in [("empty", String::new()), ("another", on_record("/y")), ("denied", denied)] {
        let recorder = arrives(name, &record);
        sees("sent without a record", async move { recorder.assert_recorded() }).await;
    }
}

async fn second_send(case: Case) {
    let recorder = Recorder::default();
    recorder.asked.store(1, Ordering::SeqCst);
    recorder.arrived(None);
    recorder.assert_sent(1, 1, "a request");
    recorder.arrived(None);
    recorder.assert_sent(1, 2, "a request");
    sees("was sent 2 times", async move { recorder.assert_sent(1, 1, "a request") }).await;

    let scene = scene(case).await;
    scene.ask(&scene.request("POST", "/once", "a body")).await;
    never_twice(&scene, &[]);
    let first = scene.upstream.recorder.sends().remove(0).head;
    scene.upstream.recorder.arrived(first.as_deref());
    sees("sent twice", async move { never_twice(&scene, &[]) }).await;
}

/// What an upstream really ended stands for what a sidecar would end by itself.
async fn cut_that_looks_whole(case: Case) {
    let half = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n\r\n";
    let scene = Scene::new(case, Fault::h1(At::Whole, move || vec![Step::Say(half.into())])).await;
    let scene = std::sync::Arc::new(scene);
    for (saying, expected) in
        [("was to come to Cut", Expect::Cut), ("was to come to WholeOrNot", Expect::WholeOrNot("ok"))]
    {
        let scene = scene.clone();
        sees(saying, async move { scene.expect(expected, false, &"a body".into()).await }).await;
    }
    let cut = Outcome::Cut(200);
    check(&cut, Expect::Cut, "a cut answer");
    sees("was to come to Whole", async move { check(&cut, Expect::Whole("half"), "a cut answer") }).await;
}

/// What an agent over HTTP/1.1 takes for whole.
async fn ends(_: Case) {
    let judge = |rest: &str, ended_well| judged(format!("HTTP/1.1 200 OK\r\n{rest}").as_bytes(), ended_well);
    let half = Outcome::Whole(200, b"half".to_vec());
    let chunked = |rest: &str| format!("Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n{rest}");
    assert_eq!(judge("Content-Length: 4\r\n\r\nhalf", false), half);
    assert_eq!(judge(&chunked("0\r\n\r\n"), false), half);
    assert_eq!(judge("\r\nhalf", true), half);
    assert_eq!(judge("\r\nhalf", false), Outcome::Cut(200));
    for ended_well in [false, true] {
        assert_eq!(judge("Content-Length: 20\r\n\r\nhalf", ended_well), Outcome::Cut(200));
        for rest in ["", "0\r\n", "0\r\nX-A: b\r\n", "9\r\nhalf"] {
            assert_eq!(judge(&chunked(rest), ended_well), Outcome::Cut(200), "{rest:?}");
        }
        assert_eq!(judge("Content-Le", ended_well), Outcome::Cut(200));
    }
    assert_eq!(judged(b"", true), Outcome::Nothing);
}

async fn broken_audit(case: Case) {
    let scene = scene(case).await;
    scene.works("/before").await;
    let audit = scene.sidecar.path("audit.jsonl");
    verify(&audit);
    let text = std::fs::read_to_string(&audit).expect("an audit");
    let changed = text.replacen("/before", "/befort", 1);
    assert_ne!(text, changed, "the request is on record");
    std::fs::write(&audit, changed).expect("a file");
    sees("the audit does not verify", async move { verify(&audit) }).await;
}

async fn panic_and_death(case: Case) {
    let first = scene(case).await;
    let log = first.sidecar.path("stderr.log");
    let mut text = std::fs::read(&log).expect("a log");
    text.extend_from_slice(b"thread 'planted' panicked\n");
    std::fs::write(&log, text).expect("a file");
    sees("it panicked", first.finish()).await;
    let mut second = scene(case).await;
    second.sidecar.signal("KILL");
    assert_eq!(second.sidecar.wait(), None);
    sees("refused", second.finish()).await;
}
