//! The sidecar's own listeners: no name leads there, though a policy lists it and allows private addresses and clear text.

use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt;

use super::*;
use crate::support::agent::PATIENCE;
use crate::support::wire::read_answers;

const OPEN: &str = "private = true\ncleartext = true";

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port()
}

/// The head of a `GET` with the nonce.
fn head(target: &str, authority: &str, nonce: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: {authority}\r\nAuthorization: Bearer {nonce}\r\nConnection: close\r\n\r\n")
}

/// The answer in a tunnel to this place, or to the `CONNECT` where that is refused.
async fn through(agent: &Agent, authority: &str, nonce: &str) -> String {
    let (answer, stream) = agent.connect(authority).await;
    if !answer.contains(" 200 ") {
        return answer;
    }
    let (host, _) = authority.rsplit_once(':').expect("a port");
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).expect("a name");
    let connector = tokio_rustls::TlsConnector::from(Arc::new(agent.tls(&[b"http/1.1"])));
    let mut stream = connector.connect(name, stream).await.expect("TLS");
    let spelled = authority.strip_suffix(":443").unwrap_or(authority);
    stream.write_all(head("/metrics", spelled, nonce).as_bytes()).await.expect("writable");
    read_answers(&mut stream, 1, PATIENCE).await
}

/// Status and refusal of each way to ask for what is there.
async fn asked(agent: &Agent, authority: &str, nonce: &str) -> Vec<(u16, Option<String>)> {
    let mut answers = vec![through(agent, authority, nonce).await];
    for scheme in ["http", "https"] {
        let target = format!("{scheme}://{authority}/metrics");
        answers.push(agent.raw(head(&target, authority, nonce).as_bytes()).await);
    }
    let seen = |answer: &String| {
        let (status, code) = outcome(answer);
        (status, code.map(str::to_owned))
    };
    answers.iter().map(seen).collect()
}

fn forbidden() -> (u16, Option<String>) {
    (403, Some("address_forbidden".to_owned()))
}

#[tokio::test]
async fn no_name_that_the_policy_lists_leads_to_our_own_listeners() {
    let other = FakeUpstream::start(&["localhost"]).await;
    let (data, admin) = (free_port(), free_port());
    let elsewhere = format!("localhost:{}", other.address.port());
    let spelled = |port: &u16| ["localhost", "127.0.0.1", "127.9.9.9", "[::1]"].map(|host| format!("{host}:{port}"));
    let mut names: Vec<String> = [data, admin].iter().flat_map(spelled).collect();
    names.extend(["data.test:443", "admin.test:443"].map(str::to_owned));
    let hosts: Vec<&str> = names.iter().chain([&elsewhere]).map(|name| name.trim_end_matches(":443")).collect();
    let policy = policies::one_api_with(OPEN).replace("[\"api.test\"]", &format!("{hosts:?}"));
    let sidecar = TestSidecar::with_policy(&policy)
        .file("api.pem", &other.authority.pem)
        .environment("API_KEY", &canary())
        .set("--listen", &format!("127.0.0.1:{data}"))
        .set("--admin", &format!("127.0.0.1:{admin}"))
        .flag("--connect-to")
        .flag(&format!("data.test:443:127.0.0.1:{data}"))
        .flag("--connect-to")
        .flag(&format!("admin.test:443:127.0.0.1:{admin}"))
        .start()
        .await;
    let (agent, nonce) = (sidecar.agent(), sidecar.orchestrator().mint("worker", "api", "read").await.nonce);
    for name in &names {
        for (way, answer) in asked(&agent, name, &nonce).await.into_iter().enumerate() {
            assert_eq!(answer, forbidden(), "{name}, {way}");
        }
    }
    // Had our own port been dialled, somebody would have been refused there, too.
    let metrics = sidecar.admin_get("/metrics").await.text().to_owned();
    let counted: Vec<&str> = metrics.lines().filter(|line| line.starts_with("valetkey_exchanges_total{")).collect();
    assert!(!counted.is_empty() && counted.iter().all(|line| line.contains("address_forbidden")), "{counted:?}");
    assert_eq!(other.connections(), 0);
    let answer = through(&agent, &elsewhere, &nonce).await;
    assert_eq!(outcome(&answer), (200, None), "what is not ours is reached: {answer}");
}

#[tokio::test]
async fn no_name_that_is_looked_up_leads_to_our_own_listeners() {
    let hosts = ["own.test".to_owned()];
    for listener in ["--listen", "--admin"] {
        let at_443 = |builder: Builder| builder.set(listener, "127.0.0.5:443");
        let Some(net) = Net::new(&hosts, "private = true", at_443).await else { return };
        for list in [&["127.0.0.5"][..], &["127.0.0.1"], &["::1"], &["::ffff:127.0.0.5"], &[PUBLIC, "127.0.0.5"]] {
            net.names.say("own.test", Reply::Addresses(addresses(list)));
            net.assert_forbidden("own.test", &format!("{listener} at {list:?}")).await;
        }
        net.names.say("own.test", Reply::Addresses(addresses(&[PUBLIC])));
        assert_eq!(net.ask("own.test").await, (200, None));
        net.assert_nobody_reached();
    }
}
