//! JWT-SVIDs whose keys come from the Workload API.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;

use super::reloading::change;
use super::{policy, scene};
use crate::control::tcp::Scene;
use crate::support::remote::{Caller, Signer, jwks, seconds_from_now as soon};
use crate::support::workload::{Answer, WorkloadApi, bundles, framed};

const MINTER: &str = "spiffe://example.org/minter";
const DOMAIN: &str = "spiffe://example.org";
/// A wait for one thing, in steps of 50 ms.
const STEPS_MAX: usize = 600;

fn mesh() -> String {
    let issuer = "\n[issuers.mesh]\nkind = \"spiffe\"\ntrust_domain = \"example.org\"\naudience = \"valetkey\"\nalgorithms = [\"ES256\"]\nworkload_api = \"unix://{dir}/agent.sock\"\n";
    policy("[\"any\"]", &format!("[\"{MINTER}\"]")) + issuer
}

fn svid(key: &Signer, kid: &str, id: &str) -> String {
    key.token(kid, &json!({"sub": id, "aud": ["valetkey"], "exp": soon(300)}))
}

fn set(keys: &[(&Signer, &str)]) -> String {
    jwks(&keys.iter().map(|(key, kid)| key.jwk(kid, &[("use", "jwt-svid")])).collect::<Vec<_>>())
}

fn of_domain(keys: &[(&Signer, &str)]) -> Answer {
    bundles(&[(DOMAIN, &set(keys))])
}

async fn of_api(answer: Answer) -> (Scene, WorkloadApi) {
    let mut api = None;
    let lay = |directory: &Path| api = Some(WorkloadApi::start(&directory.join("agent.sock"), answer));
    let scene = scene(&mesh(), lay, |builder| builder).await;
    (scene, api.expect("it was laid"))
}

/// Waits until this token comes to this status.
async fn settles(caller: &Caller, token: &str, status: u16) {
    let mut last = 0;
    for _ in 0..STEPS_MAX {
        last = caller.whoami(token).await.map_or_else(|(status, _)| status, |_| 200);
        if last == status {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it stays at {last}");
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..STEPS_MAX {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn a_token_is_verified_with_the_bundle_of_its_own_trust_domain() {
    let (key, other) = (Signer::es256(), Signer::es256());
    let for_certificates = Signer::es256();
    let mut own = vec![key.jwk("k1", &[("use", "jwt-svid")])];
    own.push(for_certificates.jwk("x1", &[("use", "x509-svid")]));
    let answer = bundles(&[("spiffe://other.org", &set(&[(&other, "k2")])), (DOMAIN, &jwks(&own))]);
    let (scene, api) = of_api(answer).await;
    let caller = scene.parties.caller(&scene.sidecar);
    let good = svid(&key, "k1", MINTER);
    settles(&caller, &good, 200).await;
    assert_eq!(caller.whoami(&good).await.as_deref(), Ok(MINTER));
    assert_eq!(caller.mint(&good).await.status, 201);
    for (what, token) in [
        ("a key of another trust domain", svid(&other, "k2", MINTER)),
        ("its name", svid(&other, "k1", MINTER)),
        ("a key for certificates", svid(&for_certificates, "x1", MINTER)),
        ("another trust domain", svid(&other, "k2", "spiffe://other.org/minter")),
        ("another workload", svid(&key, "k1", "spiffe://example.org/other")),
    ] {
        assert_eq!(caller.whoami(&token).await.expect_err(what).0, 401, "{what}");
    }
    assert_eq!(api.calls(), 1, "one stream, whoever asks");
}

#[tokio::test]
async fn an_update_of_the_stream_replaces_the_bundle() {
    let (old, new) = (Signer::es256(), Signer::es256());
    let (scene, api) = of_api(of_domain(&[(&old, "k1")])).await;
    let caller = scene.parties.caller(&scene.sidecar);
    let (first, second) = (svid(&old, "k1", MINTER), svid(&new, "k2", MINTER));
    settles(&caller, &first, 200).await;
    assert_eq!(caller.whoami(&second).await.expect_err("not yet").0, 401);
    api.say(of_domain(&[(&old, "k1"), (&new, "k2")]));
    settles(&caller, &second, 200).await;
    assert!(caller.whoami(&first).await.is_ok(), "both for a while");
    api.say(of_domain(&[(&new, "k2")]));
    settles(&caller, &first, 401).await;
    assert!(caller.whoami(&second).await.is_ok());
    api.say(bundles(&[("spiffe://other.org", &set(&[(&new, "k2")]))]));
    settles(&caller, &second, 503).await;
    assert_eq!(api.calls(), 1, "all on one stream");
}

#[tokio::test]
async fn nothing_is_believed_before_the_workload_api_is_there() {
    let key = Signer::es256();
    let scene = scene(&mesh(), |_| {}, |builder| builder).await;
    let caller = scene.parties.caller(&scene.sidecar);
    let token = svid(&key, "k1", MINTER);
    let answer = caller.get("/v1/whoami", Some(&format!("Bearer {token}"))).await;
    assert_eq!((answer.status.as_u16(), &answer.json["code"]), (503, &"identity_unavailable".into()));
    let _api = WorkloadApi::start(&scene.sidecar.path("agent.sock"), of_domain(&[(&key, "k1")]));
    settles(&caller, &token, 200).await;
}

#[tokio::test]
async fn the_last_bundle_holds_while_the_stream_is_gone() {
    let (old, new) = (Signer::es256(), Signer::es256());
    let (scene, api) = of_api(of_domain(&[(&old, "k1")])).await;
    let caller = scene.parties.caller(&scene.sidecar);
    let (first, second) = (svid(&old, "k1", MINTER), svid(&new, "k2", MINTER));
    settles(&caller, &first, 200).await;
    drop(api);
    settles(&caller, &second, 503).await;
    assert!(caller.whoami(&first).await.is_ok(), "known");
    let api = WorkloadApi::start(&scene.sidecar.path("agent.sock"), of_domain(&[(&new, "k2")]));
    settles(&caller, &second, 200).await;
    assert_eq!(caller.whoami(&first).await.expect_err("withdrawn meanwhile").0, 401);
    // A stream that is cut is opened again, and brings what has changed.
    api.cut();
    until("a second call", || api.calls() == 2).await;
    api.say(of_domain(&[(&old, "k1")]));
    settles(&caller, &first, 200).await;
}

#[tokio::test]
async fn garbage_replaces_nothing() {
    let key = Signer::es256();
    let (scene, api) = of_api(of_domain(&[(&key, "k0")])).await;
    let caller = scene.parties.caller(&scene.sidecar);
    settles(&caller, &svid(&key, "k0", MINTER), 200).await;
    let bytes = |bytes: &[u8]| Answer::Bytes(Bytes::copy_from_slice(bytes));
    let twice = set(&[(&key, "k"), (&key, "k")]);
    let long = " ".repeat(300 * 1024);
    let garbage = [
        ("no protobuf", Answer::Bytes(framed(b"\xff\xff\xff"))),
        ("no gRPC message", bytes(b"<html>")),
        ("a compressed message", bytes(&[1, 0, 0, 0, 0])),
        ("a message without end", bytes(&[0, 0xff, 0xff, 0xff, 0xff, 0])),
        ("a bundle that is no key set", bundles(&[(DOMAIN, "{}")])),
        ("a key twice", bundles(&[(DOMAIN, &twice)])),
        ("a bundle twice", bundles(&[(DOMAIN, &set(&[(&key, "a")])), (DOMAIN, &set(&[(&key, "b")]))])),
        ("a long bundle", bundles(&[(DOMAIN, &long)])),
        ("permission denied", Answer::Status(7)),
        ("no gRPC", Answer::Http(404)),
        ("a page", Answer::Http(200)),
    ];
    for (turn, (what, answer)) in garbage.into_iter().enumerate() {
        let before = api.calls();
        api.say(answer);
        api.cut();
        until(what, || api.calls() >= before + 2).await;
        let known = svid(&key, &format!("k{turn}"), MINTER);
        assert!(caller.whoami(&known).await.is_ok(), "{what}");
        let next = format!("k{}", turn + 1);
        api.say(of_domain(&[(&key, &next)]));
        settles(&caller, &svid(&key, &next, MINTER), 200).await;
    }
}

#[tokio::test]
async fn a_new_policy_follows_anew_and_leaves_the_old_stream() {
    let key = Signer::es256();
    let (scene, api) = of_api(of_domain(&[(&key, "k1")])).await;
    let caller = scene.parties.caller(&scene.sidecar);
    settles(&caller, &svid(&key, "k1", MINTER), 200).await;
    change(&scene, "audience = \"valetkey\"", "audience = \"other\"", "adopted").await;
    let token = key.token("k1", &json!({"sub": MINTER, "aud": "other", "exp": soon(300)}));
    settles(&caller, &token, 200).await;
    assert_eq!(api.calls(), 2);
    until("the first connection ends", || api.open() == 1).await;
}

#[tokio::test]
async fn another_issuer_leaves_the_stream_as_it_is() {
    let key = Signer::es256();
    let (scene, api) = of_api(of_domain(&[(&key, "k1")])).await;
    let caller = scene.parties.caller(&scene.sidecar);
    let token = svid(&key, "k1", MINTER);
    settles(&caller, &token, 200).await;
    let other = "[issuers.ci]\nkind = \"oidc\"\nissuer = \"https://ci.test\"\naudience = \"valetkey\"\nalgorithms = [\"ES256\"]\njwks = \"/nowhere.json\"\n[issuers.mesh]";
    // Of a directory that was not there at the start, no file can be read.
    let keys = scene.sidecar.path("keys.json");
    let other = other.replace("/nowhere.json", keys.to_str().expect("text"));
    change(&scene, "[issuers.mesh]", &other, "adopted").await;
    assert_eq!(caller.whoami(&token).await.as_deref(), Ok(MINTER), "at once");
    assert_eq!((api.calls(), api.open()), (1, 1));
}

/// The fake itself: a client that forgets the header gets nothing.
#[tokio::test]
async fn the_workload_api_answers_nobody_without_its_header() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("agent.sock");
    let api = WorkloadApi::start(&path, of_domain(&[]));
    for (header, status) in [(None, Some("3")), (Some("false"), Some("3")), (Some("true"), None)] {
        let socket = tokio::net::UnixStream::connect(&path).await.expect("a socket");
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.expect("HTTP/2");
        let connection = tokio::spawn(connection);
        let mut request = Request::post("http://localhost/SpiffeWorkloadAPI/FetchJWTBundles")
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if let Some(value) = header {
            request = request.header("workload.spiffe.io", value);
        }
        let request = request.body(Full::<Bytes>::from(vec![0; 5])).expect("a request");
        let mut answer = sender.send_request(request).await.expect("an answer");
        assert_eq!(
            answer.headers().get("grpc-status").map(|status| status.to_str().expect("text")),
            status,
            "{header:?}"
        );
        let frame = answer.body_mut().frame().await.and_then(Result::ok);
        let has_message = frame.is_some_and(|frame| frame.data_ref().is_some_and(|data| !data.is_empty()));
        assert_eq!(has_message, status.is_none());
        connection.abort();
    }
    assert_eq!(api.calls(), 1);
}
