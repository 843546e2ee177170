//! One destination for a tunnel, whoever names it: CONNECT, SNI, `Host`, `:authority`, the policy.

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::{outcome, send};
use crate::support::agent::PATIENCE;
use crate::support::{Builder, FakeUpstream, Stage, policies};

/// A request inside a tunnel to `connect` with this SNI; the answer, empty if there was no handshake.
async fn ask(stage: &Stage, connect: &str, sni: Option<&str>, host: &str, nonce: &str) -> String {
    let agent = stage.sidecar.agent();
    let (answer, stream) = agent.connect(connect).await;
    if !answer.contains(" 200 ") {
        return answer;
    }
    let mut config = agent.tls(&[b"http/1.1"]);
    config.enable_sni = sni.is_some();
    let inner = connect.rsplit_once(':').expect("a port").0.trim_matches(['[', ']']).trim_end_matches('.');
    let name = ServerName::try_from(sni.unwrap_or(inner).to_owned()).expect("a name");
    let connector = TlsConnector::from(std::sync::Arc::new(config));
    let Ok(Ok(mut tls)) = tokio::time::timeout(PATIENCE, connector.connect(name, stream)).await else {
        return String::new();
    };
    let request =
        format!("GET /x HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {nonce}\r\nConnection: close\r\n\r\n");
    tls.write_all(request.as_bytes()).await.expect("writable");
    crate::support::wire::read_answers(&mut tls, 1, PATIENCE).await
}

#[tokio::test]
async fn no_name_inside_makes_another_tunnel_ours() {
    let stage = Stage::new().await;
    for (connect, sni, host) in [
        ("evil.test:443", Some("evil.test"), "api.test"),
        ("evil.test:443", Some("evil.test"), "api.test:443"),
        ("evil.test:443", Some("api.test"), "api.test"),
        ("api.test:443", Some("evil.test"), "api.test"),
        ("127.0.0.1:443", Some("api.test"), "api.test"),
        ("93.184.216.34:443", Some("api.test"), "api.test"),
        ("[::1]:443", Some("api.test"), "api.test"),
        ("[::ffff:127.0.0.1]:443", Some("api.test"), "api.test"),
        ("[fe80::1%25lo]:443", Some("api.test"), "api.test"),
        ("127.0.0.1:443", None, "api.test"),
        ("api.test:443", None, "api.test"),
    ] {
        let nonce = stage.reader().await;
        let answer = ask(&stage, connect, sni, host, &nonce).await;
        assert!(answer.is_empty() || (400..500).contains(&outcome(&answer).0), "{connect} {sni:?} {host}: {answer}");
        stage.assert_clean(answer.as_bytes(), connect);
    }
    assert_eq!((stage.upstream.connections(), stage.upstream.seen().len()), (0, 0), "nothing was dialled");
}

#[tokio::test]
async fn names_that_no_server_can_have_end_the_handshake() {
    let stage = Stage::new().await;
    let long = format!("{}.test", "a".repeat(250));
    for sni in [&b""[..], b"api.test\0.evil.test", b"*.test", b"evil.test", long.as_bytes(), b"a..b"] {
        let (answer, mut stream) = stage.sidecar.agent().connect("api.test:443").await;
        assert!(answer.contains(" 200 "), "{answer}");
        stream.write_all(&hello(&[sni])).await.expect("writable");
        let mut said = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect("an end");
        assert_ne!(said.first(), Some(&22), "no certificate for {:?}", String::from_utf8_lossy(sni));
    }
    let (_, mut stream) = stage.sidecar.agent().connect("api.test:443").await;
    stream.write_all(&hello(&[b"api.test", b"evil.test"])).await.expect("writable");
    let mut said = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect("an end");
    assert_ne!(said.first(), Some(&22), "two names are none");
    assert_eq!(stage.upstream.connections(), 0);
}

/// A ClientHello of TLS 1.2 with these names as its SNI (RFC 8446, 4.1.2; RFC 6066, 3).
fn hello(names: &[&[u8]]) -> Vec<u8> {
    let short = |length: usize| u16::try_from(length).expect("short").to_be_bytes();
    let entry = |name: &&[u8]| [&[0][..], &short(name.len()), name].concat();
    let list: Vec<u8> = names.iter().flat_map(entry).collect();
    let sni = [&[0, 0][..], &short(list.len() + 2), &short(list.len()), &list].concat();
    let groups: &[u8] = &[0, 10, 0, 4, 0, 2, 0, 23];
    let signatures: &[u8] = &[0, 13, 0, 4, 0, 2, 4, 3];
    let points: &[u8] = &[0, 11, 0, 2, 1, 0];
    let extensions = [&sni, groups, signatures, points].concat();
    let body =
        [&[3, 3][..], &[7; 32], &[0], &[0, 4, 0xc0, 0x2b, 0xc0, 0x2f], &[1, 0], &short(extensions.len()), &extensions]
            .concat();
    let message = [&[1, 0][..], &short(body.len()), &body].concat();
    [&[22, 3, 1][..], &short(message.len()), &message].concat()
}

#[tokio::test]
async fn a_hello_that_names_the_tunnels_host_is_answered() {
    let stage = Stage::new().await;
    let (_, mut stream) = stage.sidecar.agent().connect("api.test:443").await;
    stream.write_all(&hello(&[b"api.test"])).await.expect("writable");
    let mut first = [0];
    stream.read_exact(&mut first).await.expect("an answer");
    assert_eq!(first, [22], "so that the refusals above are about the name");
}

#[tokio::test]
async fn one_name_is_one_host_however_it_is_spelled() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    for (connect, host) in [
        ("api.test:443", "api.test"),
        ("api.test:443", "API.TeSt"),
        ("api.test:443", "api.test:443"),
        ("API.TEST:443", "api.test"),
        ("api.test.:443", "api.test"),
        ("api.test:443", "api.test."),
    ] {
        let answer = ask(&stage, connect, Some("api.test"), host, &nonce).await;
        assert_eq!(outcome(&answer).0, 200, "{connect} {host}: {answer}");
        let seen = stage.upstream.seen().pop().expect("a request");
        assert_eq!(seen.header("host").or(Some("api.test")), Some("api.test"), "{host}: one spelling goes out");
    }
}

#[tokio::test]
async fn a_kept_tunnel_does_not_change_its_host() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let one = |host: &str| format!("GET /x HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {nonce}\r\n\r\n");
    let all = [one("api.test"), one("evil.test"), one("api.test")].concat();
    let answer = stage.sidecar.agent().pipelined("api.test", all.as_bytes(), 3).await;
    let statuses: Vec<&str> = answer.split("HTTP/1.1 ").skip(1).map(|text| &text[..3]).collect();
    assert_eq!(statuses, ["200", "421", "200"], "{answer}");
    assert_eq!(stage.upstream.seen().len(), 2);
}

/// Fields of a head over HTTP/2, written by hand: no library lets them through.
fn literal(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).expect("short");
    [&[0, length(name)][..], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
}

/// Sends one head over HTTP/2 and reads until its stream has ended or broken.
pub(super) async fn head_of(stage: &Stage, fields: &[(&str, &str)]) {
    let agent = stage.sidecar.agent();
    let mut stream = agent.tls_tunnel("api.test", "api.test", &[b"h2"]).await.expect("TLS");
    let block: Vec<u8> = fields.iter().flat_map(|(name, value)| literal(name, value)).collect();
    let length = u16::try_from(block.len()).expect("short").to_be_bytes();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let head = [&[0, length[0], length[1], 1, 5, 0, 0, 0, 1][..], &block].concat();
    let all = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..], &head].concat();
    stream.write_all(&all).await.expect("writable");
    let reading = async {
        loop {
            let mut head = [0; 9];
            if stream.read_exact(&mut head).await.is_err() {
                return;
            }
            let length = usize::from(u16::from_be_bytes([head[1], head[2]]));
            if stream.read_exact(&mut vec![0; length]).await.is_err() {
                return;
            }
            // The end of the one stream, RST_STREAM, or GOAWAY.
            let is_end = matches!(head[3], 0 | 1) && head[4] & 1 == 1 && head[8] == 1;
            if is_end || matches!(head[3], 3 | 7) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("an end");
}

#[tokio::test]
async fn heads_over_http_2_that_name_another_place_reach_nobody() {
    let stage = Stage::new().await;
    let bearer = format!("Bearer {}", stage.reader().await);
    let usual = |scheme, authority, host| {
        let mut fields = vec![(":method", "GET"), (":scheme", scheme), (":path", "/x")];
        fields.extend(Option::map(authority, |authority| (":authority", authority)));
        fields.push(("authorization", bearer.as_str()));
        fields.extend(Option::map(host, |host| ("host", host)));
        fields
    };
    for (scheme, authority, host) in [
        ("https", Some("evil.test"), None),
        ("https", Some("api.test"), Some("evil.test")),
        ("https", None, Some("evil.test")),
        ("https", None, None),
        ("https", Some("api.test@evil.test"), None),
        ("https", Some("evil.test@api.test"), None),
        ("https", Some("api.test,evil.test"), None),
        ("https", Some("api.test:444"), None),
        ("https", Some(""), None),
        ("http", Some("api.test"), None),
        ("ftp", Some("api.test"), None),
        ("wss", Some("api.test"), None),
    ] {
        head_of(&stage, &usual(scheme, authority, host)).await;
        assert!(stage.upstream.seen().is_empty(), "{scheme} {authority:?} {host:?}");
    }
    head_of(&stage, &usual("https", Some("api.test"), None)).await;
    assert_eq!(stage.upstream.seen().len(), 1, "so that the others failed for their names");
}

#[tokio::test]
async fn a_policy_gives_no_credential_to_hosts_that_are_not_its_own() {
    let service = "[services.api]\nhosts = [\"api.test\"]";
    for hosts in ["*.com", "*.co.uk", "*", "*.github.io", "a.*.test", "api.test@evil.test", "api.test/x", "127.1"] {
        let policy = policies::ONE_API.replace(service, &format!("[services.api]\nhosts = [\"{hosts}\"]"));
        let (code, said) = bare(&policy).fails();
        assert_eq!(code, Some(3), "{hosts}: {said}");
    }
    for hosts in ["api.test\", \"eu.api.test", "twin.test", "*.api.test"] {
        let policy = policies::ONE_API.replace(service, &format!("[services.api]\nhosts = [\"{hosts}\"]"));
        let (code, said) = bare(&policy).fails();
        assert_eq!(code, Some(3), "the credential is not for {hosts}: {said}");
    }
}

fn bare(policy: &str) -> Builder {
    Builder::new(policy).file("api.pem", "").environment("API_KEY", &crate::support::canary())
}

#[tokio::test]
async fn clear_text_in_a_tunnel_is_not_read_as_a_request() {
    let stage = Stage::with(FakeUpstream::plain().await, |builder| builder).await;
    let nonce = stage.reader().await;
    let (_, mut stream) = stage.sidecar.agent().connect("api.test:443").await;
    let bytes = super::request("GET /x", "", &nonce, "");
    stream.write_all(&bytes).await.expect("writable");
    let mut said = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect("an end");
    assert_eq!(stage.upstream.connections(), 0);
    let answer = send(&stage, &bytes).await;
    assert_eq!(outcome(&answer).1, Some("upstream_tls"), "nor is an upstream asked that speaks no TLS: {answer}");
    assert!(stage.upstream.seen().is_empty());
}
