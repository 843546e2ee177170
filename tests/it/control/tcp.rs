//! The control API over TLS: who gets in, and who does not.

use std::net::SocketAddr;
use std::sync::Arc;

use http::Request;
use http_body_util::Full;
use rcgen::{DnType, SanType};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use crate::support::agent::PATIENCE;
use crate::support::namespace::{can_have_namespaces, can_redirect};
use crate::support::remote::{NAME, Parties, write};
use crate::support::stranger::{STRANGER, acting, can_be_others};
use crate::support::wire::read_answers;
use crate::support::{Agent, Builder, FakeUpstream, Namespace, TestSidecar, canary, policies, skip};

/// The minter `remote` for those who come from elsewhere.
pub fn policy(agent: &str, identities: &str) -> String {
    let one = policies::ONE_API.replace("[\"any\"]", agent);
    format!(
        "{one}\n[minters.remote]\nidentity = {identities}\nagents = [\"worker\"]\nmay = [\"mint\", \"read\", \"revoke\"]\n"
    )
}

pub struct Scene {
    pub parties: Parties,
    pub sidecar: TestSidecar,
    _upstream: FakeUpstream,
}

/// A sidecar with the listener open; `lay` puts more files into its directory.
pub async fn scene(policy: &str, lay: impl FnOnce(&std::path::Path), edit: impl FnOnce(Builder) -> Builder) -> Scene {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let parties = Parties::new();
    parties.lay(directory.path());
    lay(directory.path());
    let builder = TestSidecar::with_policy(policy).within(&directory).environment("API_KEY", &canary());
    let builder = Parties::open(builder.upstream(&["api.test"], "api", &upstream));
    let sidecar = edit(builder).start().await;
    Scene { parties, sidecar, _upstream: upstream }
}

const BEARER: &str = "[\"bearer:file:{dir}/mint-token\"]";

fn token(letter: &str) -> String {
    letter.repeat(40)
}

#[tokio::test]
async fn the_token_of_a_file_mints_and_nothing_else_does() {
    let lay = |directory: &std::path::Path| write(&directory.join("mint-token"), &format!("{}\n", token("a")), 0o600);
    let scene = scene(&policy("[\"any\"]", BEARER), lay, |builder| builder).await;
    let caller = scene.parties.caller(&scene.sidecar);
    let minted = caller.mint(&token("a")).await;
    assert_eq!(minted.status, 201, "{:#}", minted.json);
    let path = scene.sidecar.path("mint-token");
    let identity = format!("bearer:file:{}", path.display());
    assert_eq!(caller.whoami(&token("a")).await, Ok(identity.clone()));
    let record = scene.sidecar.audited(|record| record["type"] == "mint").await;
    assert_eq!((&record["minted_by.identity"], &record["minted_by.proof"]), (&identity.into(), &"bearer".into()));

    let answer = caller.get("/v1/whoami", None).await;
    assert_eq!((answer.status.as_u16(), &answer.json["code"]), (401, &"unauthenticated".into()));
    assert_eq!(answer.headers["www-authenticate"], "Bearer realm=\"valetkey\"");
    for bad in [
        format!("Bearer {}", token("b")),
        format!("Bearer {}b", token("a")),
        format!("Bearer {}", &token("a")[1..]),
        format!("Bearer  {}", token("a")),
        format!("Bearer {} x", token("a")),
        format!("Basic {}", token("a")),
        token("a"),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
    ] {
        let answer = caller.get("/v1/whoami", Some(&bad)).await;
        assert_eq!((answer.status.as_u16(), &answer.json["code"]), (401, &"unauthenticated".into()), "{bad}");
        assert_eq!(answer.headers["www-authenticate"], "Bearer realm=\"valetkey\", error=\"invalid_token\"");
    }
    let twice = Request::get("/v1/whoami").header("host", NAME);
    let twice = twice.header("authorization", format!("Bearer {}", token("a")));
    let twice = twice.header("authorization", format!("Bearer {}", token("a"))).body(Full::default());
    assert_eq!(caller.send(twice.expect("a request")).await.expect("an answer").status, 401);
    scene.sidecar.audited(|record| record["type"] == "control_refused" && record["code"] == "unauthenticated").await;

    // Another content holds at once; a file that others may read holds nothing.
    write(&path, &token("c"), 0o600);
    assert_eq!(caller.mint(&token("a")).await.status, 401);
    assert_eq!(caller.mint(&token("c")).await.status, 201);
    write(&path, &token("c"), 0o644);
    assert_eq!(caller.mint(&token("c")).await.status, 401);
    std::fs::remove_file(&path).expect("a file");
    assert_eq!(caller.mint(&token("c")).await.status, 401);
    for text in [scene.sidecar.audit_text(), scene.sidecar.log()] {
        assert!(!text.contains(&token("a")) && !text.contains(&token("c")), "{text}");
    }
}

#[tokio::test]
async fn a_certificate_of_the_callers_ca_proves_its_one_name() {
    let identities = "[\"mtls:orchestrator.test\", \"mtls:minter 7\", \"spiffe://example.org/minter\"]";
    let scene = scene(&policy("[\"any\"]", identities), |_| {}, |builder| builder).await;
    let callers = &scene.parties.callers;
    let uri = |text: &str| SanType::URI(text.try_into().expect("a URI"));
    let named = |names: &[&str], uris: &[&str], common: &str| {
        let uris: Vec<_> = uris.iter().map(|text| uri(text)).collect();
        callers.leaf(names, |params| {
            params.subject_alt_names.extend(uris);
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, common);
        })
    };
    let who = async |certificate| {
        let answer = scene.parties.caller_with(&scene.sidecar, Some(certificate)).get("/v1/whoami", None).await;
        (answer.status.as_u16(), answer.json["identity"].as_str().map(str::to_owned))
    };
    let svid = "spiffe://example.org/minter";
    for (names, uris, common, identity) in [
        (vec!["orchestrator.test"], vec![], "x", "mtls:orchestrator.test"),
        (vec![], vec![], "minter 7", "mtls:minter 7"),
        (vec![], vec![svid], "x", svid),
        (vec!["x.test"], vec![svid], "x", svid),
    ] {
        assert_eq!(who(named(&names, &uris, common)).await, (200, Some(identity.to_owned())));
    }
    for (names, uris, common) in [
        (vec!["other.test"], vec![], "minter 7"),
        (vec!["orchestrator.test", "other.test"], vec![], "x"),
        (vec![], vec![svid, "spiffe://example.org/other"], "x"),
        (vec!["orchestrator.test"], vec!["spiffe://example.org/other"], "minter 7"),
        (vec!["orchestrator.test"], vec!["https://example.org/minter"], "x"),
        (vec![], vec!["spiffe://example.org/minter/x"], "x"),
    ] {
        assert_eq!(who(named(&names, &uris, common)).await.0, 401, "{names:?} {uris:?}");
    }
    // The listener's own CA, or any other, vouches for no caller.
    let foreign = scene.parties.server.leaf(&["orchestrator.test"], |_| {});
    let caller = scene.parties.caller_with(&scene.sidecar, Some(foreign));
    let request = Request::get("/v1/whoami").header("host", NAME).body(Full::default()).expect("a request");
    assert!(caller.send(request).await.is_err(), "the handshake fails");
}

#[tokio::test]
async fn a_limited_ca_below_the_callers_ca_proves_nobody_by_a_common_name() {
    let identities = "[\"mtls:minter 7\", \"mtls:minter.team-a.test\"]";
    let scene = scene(&policy("[\"any\"]", identities), |_| {}, |builder| builder).await;
    let limits = || rcgen::NameConstraints {
        permitted_subtrees: vec![rcgen::GeneralSubtree::DnsName("team-a.test".into())],
        excluded_subtrees: Vec::new(),
    };
    for (limits, names, status) in
        [(None, vec![], 200), (Some(limits()), vec![], 401), (Some(limits()), vec!["minter.team-a.test"], 200)]
    {
        let (team, above) = scene.parties.callers.below("a team", |params| params.name_constraints = limits);
        let (mut chain, key) = team.leaf(&names, |params| {
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, "minter 7");
        });
        chain.push(above);
        let caller = scene.parties.caller_with(&scene.sidecar, Some((chain, key)));
        assert_eq!(caller.get("/v1/whoami", None).await.status.as_u16(), status, "{names:?}");
    }
}

#[tokio::test]
async fn only_tls_and_only_the_certificates_names() {
    let lay = |directory: &std::path::Path| write(&directory.join("mint-token"), &token("a"), 0o600);
    let scene = scene(&policy("[\"any\"]", BEARER), lay, |builder| builder).await;
    let caller = scene.parties.caller(&scene.sidecar);
    let ask = async |headers: &[(&str, &str)]| {
        let bearer = format!("Bearer {}", token("a"));
        let request = Request::get("/v1/whoami").header("authorization", bearer);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        caller.send(request.body(Full::default()).expect("a request")).await.expect("an answer").status.as_u16()
    };
    for host in [NAME, "CONTROL.test", "control.test:8443"] {
        assert_eq!(ask(&[("host", host)]).await, 200, "{host}");
    }
    for host in ["evil.test", "localhost", "valetkey", "127.0.0.1", "", "x.control.test", "control.test:x"] {
        assert_eq!(ask(&[("host", host)]).await, 403, "{host}");
    }
    assert_eq!(ask(&[]).await, 403, "no name at all");
    assert_eq!(ask(&[("host", NAME), ("origin", "https://evil.test")]).await, 403);
    assert_eq!(ask(&[("host", NAME), ("sec-fetch-site", "same-origin")]).await, 403);
    let mut plain = tokio::net::TcpStream::connect(caller.address).await.expect("the listener");
    plain.write_all(b"GET /v1/whoami HTTP/1.1\r\nHost: control.test\r\n\r\n").await.expect("writable");
    let mut said = Vec::new();
    let _ = plain.read_to_end(&mut said).await;
    assert!(!said.windows(4).any(|four| four == b"HTTP"), "{said:?}");
}

#[tokio::test]
async fn an_agent_never_mints_whatever_it_shows() {
    if !can_be_others() {
        return;
    }
    let lay = |directory: &std::path::Path| write(&directory.join("mint-token"), &token("a"), 0o600);
    let identities = "[\"bearer:file:{dir}/mint-token\", \"mtls:orchestrator.test\"]";
    let agent = format!("[\"uid:{STRANGER}\", \"mtls:agent.test\"]");
    let scene = scene(&policy(&agent, identities), lay, |builder| builder).await;
    let caller = scene.parties.caller(&scene.sidecar);
    assert_eq!(caller.mint(&token("a")).await.status, 201, "from a uid that is no agent's");
    let of_agent = {
        let caller = caller.clone();
        acting(STRANGER, STRANGER, move || async move {
            let answer = caller.mint(&token("a")).await;
            (answer.status.as_u16(), answer.json)
        })
        .await
    };
    assert_eq!((of_agent.0, &of_agent.1["code"]), (403, &"forbidden".into()), "{:#}", of_agent.1);
    let record = scene.sidecar.audited(|record| record["type"] == "control_refused").await;
    assert_eq!(record["caller.identity"], format!("uid:{STRANGER}"));
    // An agent's certificate is not made better by a token either.
    let certificate = scene.parties.callers.leaf(&["agent.test"], |_| {});
    let caller = scene.parties.caller_with(&scene.sidecar, Some(certificate));
    assert_eq!(caller.mint(&token("a")).await.status, 403);
}

#[tokio::test]
async fn an_agent_that_goes_from_one_address_of_this_machine_to_another_is_still_an_agent() {
    if !can_be_others() || !can_have_namespaces() {
        return;
    }
    let namespace = Arc::new(Namespace::new());
    namespace
        .shell("ip addr add 10.9.9.1/32 dev lo\nip addr add 10.9.9.2/32 dev lo\nip addr add fd99::1/128 dev lo nodad");
    let lay = |directory: &std::path::Path| write(&directory.join("mint-token"), &token("a"), 0o600);
    let inside = |builder: Builder| builder.inside(&namespace).set_flag("--control-tcp", "[::]:8443");
    let scene = scene(&policy(&format!("[\"uid:{STRANGER}\"]"), BEARER), lay, inside).await;
    for (from, to) in [
        ("127.0.0.1", "127.0.0.1:8443"),
        ("127.0.0.1", "10.9.9.1:8443"),
        ("10.9.9.1", "127.0.0.1:8443"),
        ("10.9.9.2", "10.9.9.1:8443"),
        ("10.9.9.1", "10.9.9.1:8443"),
        ("::1", "[fd99::1]:8443"),
    ] {
        let mut caller = scene.parties.caller(&scene.sidecar);
        (caller.from, caller.address) = (from.parse().ok(), to.parse().expect("an address"));
        let as_user = |uid: u32| {
            namespace.inside(uid, || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(caller.mint(&token("a"))).status.as_u16()
            })
        };
        assert_eq!((as_user(STRANGER), as_user(0)), (403, 201), "from {from} to {to}");
    }
}

#[tokio::test]
async fn where_users_are_agents_a_caller_from_this_machine_whose_user_does_not_show_is_refused() {
    if !can_be_others() || !can_redirect() {
        return;
    }
    let namespace = Arc::new(Namespace::new());
    // The caller's socket has an address in the kernel's table that is not the one that the listener sees.
    namespace.shell("ip addr add 10.9.9.1/32 dev lo\nip route add 192.0.2.7/32 dev lo src 10.9.9.1");
    let redirect = "table ip test { chain out { type nat hook output priority -100; \
                    ip daddr 192.0.2.7 tcp dport 8443 redirect to :8443; }; }";
    if let Err(error) = namespace.rules(redirect) {
        return skip(format!("this kernel does not redirect: {error}"));
    }
    for (agent, expected) in [(format!("[\"uid:{STRANGER}\"]"), 401), ("[\"any\"]".to_owned(), 201)] {
        let lay = |directory: &std::path::Path| write(&directory.join("mint-token"), &token("a"), 0o600);
        let inside = |builder: Builder| builder.inside(&namespace).set_flag("--control-tcp", "[::]:8443");
        let scene = scene(&policy(&agent, BEARER), lay, inside).await;
        let mut caller = scene.parties.caller(&scene.sidecar);
        caller.address = "192.0.2.7:8443".parse().expect("an address");
        for uid in [STRANGER, 0] {
            let answer = namespace.inside(uid, || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(caller.mint(&token("a")))
            });
            assert_eq!(answer.status, expected, "{agent}, uid {uid}: {:#}", answer.json);
        }
    }
}

#[tokio::test]
async fn no_name_leads_through_the_proxy_to_the_listener() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let address: SocketAddr = ([127, 0, 0, 1], port).into();
    let hosts = format!("[\"localhost:{port}\", \"127.0.0.1:{port}\", \"api.test\"]");
    let policy = policies::one_api_with("private = true").replace("[\"api.test\"]", &hosts);
    let parties = Parties::new();
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    parties.lay(directory.path());
    let builder = TestSidecar::with_policy(&policy).within(&directory).environment("API_KEY", &canary());
    let builder = Parties::open(builder.file("api.pem", &parties.server.pem));
    let builder = builder.set_flag("--control-tcp", &address.to_string());
    let sidecar = builder.flag("--connect-to").flag(&format!("api.test:443:{address}")).start().await;
    let nonce = sidecar.orchestrator().mint("worker", "api", "read").await.nonce;
    for (host, port) in [("localhost", port), ("127.0.0.1", port), ("api.test", 443)] {
        let answer = asked_through(&sidecar.agent(), host, port, &nonce).await;
        let refused = "valetkey-error: address_forbidden";
        assert!(answer.to_ascii_lowercase().contains(refused), "{host}: {answer}");
    }
}

/// The answer to `GET /v1/whoami` in a tunnel to this host and port, or to the CONNECT where that is refused.
async fn asked_through(agent: &Agent, host: &str, port: u16, nonce: &str) -> String {
    let (answer, stream) = agent.connect(&format!("{host}:{port}")).await;
    if !answer.contains(" 200 ") {
        return answer;
    }
    let name = ServerName::try_from(host.to_owned()).expect("a name");
    let connector = TlsConnector::from(Arc::new(agent.tls(&[b"http/1.1"])));
    let mut stream = connector.connect(name, stream).await.expect("TLS");
    let authority = if port == 443 { host.to_owned() } else { format!("{host}:{port}") };
    let head = format!("GET /v1/whoami HTTP/1.1\r\nHost: {authority}\r\nAuthorization: Bearer {nonce}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("writable");
    read_answers(&mut stream, 1, PATIENCE).await
}

#[tokio::test]
async fn what_does_not_fit_together_does_not_start() {
    let parties = Parties::new();
    let start = |edit: &dyn Fn(&std::path::Path), policy: &str, flags: &[&str]| {
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        parties.lay(directory.path());
        edit(directory.path());
        let builder = TestSidecar::with_policy(policy).within(&directory).environment("API_KEY", "k");
        let builder = builder.file("api.pem", &parties.server.pem);
        flags.iter().fold(builder, |builder, flag| builder.flag(flag)).fails()
    };
    let tcp = ["--control-tcp", "127.0.0.1:0"];
    let pair = ["--control-tls-cert", "{dir}/tls/control.pem", "--control-tls-key", "{dir}/tls/control.key"];
    let whole = [&tcp[..], &pair[..]].concat();
    let one = policies::ONE_API;
    assert_eq!(start(&|_| {}, one, &tcp).0, Some(2));
    assert_eq!(start(&|_| {}, one, &pair).0, Some(2));
    let open_key = |directory: &std::path::Path| {
        let key = std::fs::read_to_string(directory.join("tls/control.key")).expect("a key");
        write(&directory.join("tls/control.key"), &key, 0o644);
    };
    let (code, log) = start(&open_key, one, &whole);
    assert!(code == Some(4) && log.contains("mode"), "{code:?} {log}");
    let none = |directory: &std::path::Path| write(&directory.join("tls/control.pem"), "", 0o644);
    assert_eq!(start(&none, one, &whole).0, Some(4));
    let listed = one.replace("[\"api.test\"]", &format!("[\"api.test\", \"{NAME}\"]"));
    let (code, log) = start(&|_| {}, &listed, &whole);
    assert!(code == Some(2) && log.contains(NAME), "{code:?} {log}");
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_while_it_runs() {
    let lay = |directory: &std::path::Path| write(&directory.join("mint-token"), &token("a"), 0o600);
    let mut scene = scene(&policy("[\"any\"]", BEARER), lay, |builder| builder).await;
    let address = scene.parties.caller(&scene.sidecar).address;
    let old = scene.parties.caller(&scene.sidecar);
    assert!(old.whoami(&token("a")).await.is_ok());
    scene.parties = Parties::new();
    scene.parties.lay(scene.sidecar.directory.path());
    let new = scene.parties.caller(&scene.sidecar);
    assert_eq!(new.address, address);
    for _ in 0..100 {
        let request = Request::get("/v1/ready").header("host", NAME).body(Full::default()).expect("a request");
        if new.send(request).await.is_ok() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the new certificate was not taken");
}
