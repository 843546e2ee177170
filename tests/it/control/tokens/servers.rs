//! Keys from a server, and tokens that an API server judges.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{claims, policy, scene, service_account};
use crate::support::authority::TestAuthority;
use crate::support::remote::{Signer, jwks, write};

/// An HTTPS server that answers every request with the same text.
pub struct Server {
    pub address: SocketAddr,
    pub authority: Arc<TestAuthority>,
    answer: Arc<Mutex<(u16, String)>>,
    asked: Arc<AtomicUsize>,
    /// What it was last asked: method and path, `Authorization` and body.
    last: Arc<Mutex<[String; 3]>>,
    is_away: Arc<AtomicBool>,
}

impl Server {
    pub async fn start(name: &str, answer: &str) -> Self {
        let authority = TestAuthority::new();
        let config = Arc::new(authority.server(&[name], &[b"http/1.1"]));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let server = Self {
            address: listener.local_addr().expect("an address"),
            authority,
            answer: Arc::new(Mutex::new((200, answer.to_owned()))),
            asked: Arc::default(),
            last: Arc::default(),
            is_away: Arc::default(),
        };
        let (answer, asked) = (server.answer.clone(), server.asked.clone());
        let (last, is_away) = (server.last.clone(), server.is_away.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if is_away.load(Ordering::Relaxed) {
                    continue;
                }
                let (answer, asked, last) = (answer.clone(), asked.clone(), last.clone());
                let acceptor = tokio_rustls::TlsAcceptor::from(config.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request: Request<Incoming>| {
                        let (answer, asked, last) = (answer.clone(), asked.clone(), last.clone());
                        async move {
                            asked.fetch_add(1, Ordering::Relaxed);
                            let what = format!("{} {}", request.method(), request.uri());
                            let said = request.headers().get("authorization").map(|value| value.as_bytes().to_vec());
                            let said = String::from_utf8(said.unwrap_or_default()).expect("text");
                            let body = request.into_body().collect().await.expect("a body").to_bytes();
                            let body = String::from_utf8(body.to_vec()).expect("text");
                            *last.lock().expect("no panic") = [what, said, body];
                            let (status, text) = answer.lock().expect("no panic").clone();
                            let answer = Response::builder().status(status).header("location", "https://evil.test/");
                            Ok::<_, Infallible>(answer.body(Full::<bytes::Bytes>::from(text)).expect("an answer"))
                        }
                    });
                    let served = hyper::server::conn::http1::Builder::new();
                    let _ = served.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        server
    }

    pub fn say(&self, status: u16, text: &str) {
        *self.answer.lock().expect("no panic") = (status, text.to_owned());
    }
}

#[tokio::test]
async fn keys_of_a_server_are_kept_renewed_and_never_made_up() {
    let (old, new) = (Signer::es256(), Signer::es256());
    let server = Server::start("keys.test", "").await;
    server.say(500, "");
    let issuer = "\n[issuers.ci]\nkind = \"oidc\"\nissuer = \"https://ci.test\"\naudience = \"valetkey\"\nalgorithms = [\"ES256\"]\njwks = \"https://keys.test/jwks\"\nca = \"{dir}/keys.pem\"\n";
    let policy = policy("[\"any\"]", "[\"oidc:ci:repository=acme/app\"]") + issuer;
    let pem = server.authority.pem.clone();
    let to = format!("keys.test:443:{}", server.address);
    let lay = |directory: &std::path::Path| write(&directory.join("keys.pem"), &pem, 0o644);
    let scene = scene(&policy, lay, |builder| builder.flag("--connect-to").flag(&to)).await;
    let caller = scene.parties.caller(&scene.sidecar);
    let (first, second) = (old.token("k1", &claims()), new.token("k2", &claims()));
    // Nothing is believed while there are no keys, and it says so.
    let answer = caller.get("/v1/whoami", Some(&format!("Bearer {first}"))).await;
    assert_eq!((answer.status.as_u16(), &answer.json["code"]), (503, &"identity_unavailable".into()));
    assert!(answer.headers.contains_key("retry-after"));
    // A redirect is no answer.
    server.say(302, &jwks(&[old.jwk("k1", &[])]));
    assert_eq!(caller.whoami(&first).await.expect_err("a redirect").0, 503);
    server.say(200, &jwks(&[old.jwk("k1", &[])]));
    for _ in 0..3 {
        assert!(caller.whoami(&first).await.is_ok());
    }
    assert_eq!(server.asked.load(Ordering::Relaxed), 3, "an answer is kept");
    // Another policy in which this issuer is the same asks nobody.
    let more = format!("[\"oidc:ci:repository=acme/app\", \"bearer:file:{}\"]", scene.sidecar.path("token").display());
    super::reloading::change(&scene, "[\"oidc:ci:repository=acme/app\"]", &more, "adopted").await;
    assert!(caller.whoami(&first).await.is_ok());
    assert_eq!(server.asked.load(Ordering::Relaxed), 3, "of an issuer that is the same, what is known is known");
    // A new key appears.
    server.say(200, &jwks(&[old.jwk("k1", &[]), new.jwk("k2", &[])]));
    assert!(caller.whoami(&second).await.is_ok());
    assert_eq!(server.asked.load(Ordering::Relaxed), 4);
    // The server goes away: its last keys hold, others are unknown.
    server.is_away.store(true, Ordering::Relaxed);
    assert!(caller.whoami(&first).await.is_ok());
    assert_eq!(caller.whoami(&new.token("k3", &claims())).await.expect_err("unknown").0, 503);
    // Unknown names are no flood.
    server.is_away.store(false, Ordering::Relaxed);
    for _ in 0..20 {
        let status = caller.whoami(&new.token("k4", &claims())).await.expect_err("unknown").0;
        // Until it has been asked again nothing is known of that key.
        assert!([401, 503].contains(&status), "{status}");
    }
    let asked = server.asked.load(Ordering::Relaxed);
    assert!(asked <= 6, "{asked}");
    let [_, _, sent] = server.last.lock().expect("no panic").clone();
    assert_eq!(sent, "", "a key server is told nothing");
}

#[tokio::test]
async fn the_api_server_judges_tokens_of_its_cluster() {
    let key = Signer::es256();
    let server = Server::start("cluster.test", "").await;
    let issuer = "\n[issuers.cluster]\nkind = \"kubernetes\"\nissuer = \"https://cluster.test\"\naudience = \"valetkey\"\nalgorithms = [\"ES256\"]\napi_server = \"https://cluster.test\"\napi_token = \"{dir}/own-token\"\nca = \"{dir}/cluster.pem\"\n";
    let policy = policy("[\"any\"]", "[\"kubernetes:ops/minter\"]") + issuer;
    let pem = server.authority.pem.clone();
    let to = format!("cluster.test:443:{}", server.address);
    let lay = |directory: &std::path::Path| {
        write(&directory.join("cluster.pem"), &pem, 0o644);
        write(&directory.join("own-token"), "the-sidecars-own-token\n", 0o640);
    };
    let edit =
        |builder: crate::support::Builder| builder.flag("--connect-to").flag(&to).flag("--pod-uid").flag("own-pod");
    let scene = scene(&policy, lay, edit).await;
    let caller = scene.parties.caller(&scene.sidecar);
    let review = |authenticated: bool, audience: &str, name: &str, pod: &str| {
        json!({"kind": "TokenReview", "status": {
            "authenticated": authenticated, "audiences": [audience],
            "user": {
                "username": format!("system:serviceaccount:ops:{name}"),
                "extra": {"authentication.kubernetes.io/pod-uid": [pod]},
            },
        }})
        .to_string()
    };
    let token = key.token("c", &service_account("ops", "minter", "p1"));
    server.say(201, &review(true, "valetkey", "minter", "p1"));
    assert_eq!(caller.whoami(&token).await.as_deref(), Ok("kubernetes:ops/minter"));
    let [what, authorization, body] = server.last.lock().expect("no panic").clone();
    assert_eq!(what, "POST /apis/authentication.k8s.io/v1/tokenreviews");
    assert_eq!(authorization, "Bearer the-sidecars-own-token");
    let asked: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(asked["spec"], json!({"token": token, "audiences": ["valetkey"]}));
    for (status, answer, refused) in [
        (201, review(false, "valetkey", "minter", "p1"), 401),
        (201, review(true, "other", "minter", "p1"), 401),
        (201, review(true, "valetkey", "other", "p1"), 401),
        (201, review(true, "valetkey", "minter", "own-pod"), 401),
        (201, "{}".to_owned(), 503),
        (403, review(true, "valetkey", "minter", "p1"), 503),
        (302, review(true, "valetkey", "minter", "p1"), 503),
    ] {
        server.say(status, &answer);
        assert_eq!(caller.whoami(&token).await.expect_err(&answer).0, refused, "{status} {answer}");
    }
    server.say(201, &review(true, "valetkey", "minter", "p1"));
    let before = server.asked.load(Ordering::Relaxed);
    let mut late = service_account("ops", "minter", "p1");
    late["exp"] = 1.into();
    assert_eq!(caller.whoami(&key.token("c", &late)).await.expect_err("expired").0, 401);
    assert_eq!(server.asked.load(Ordering::Relaxed), before, "nobody is asked about what is over");
    assert!(caller.whoami(&token).await.is_ok(), "a verdict is not kept");
    server.is_away.store(true, Ordering::Relaxed);
    assert_eq!(caller.whoami(&token).await.expect_err("away").0, 503);
}
