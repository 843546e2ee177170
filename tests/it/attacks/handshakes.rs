//! Handshakes as nobody should make them any more, of agents and of upstreams, and what our own leaves say.

use std::sync::{Arc, Mutex};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::agent::{PATIENCE, breaks, get};
use crate::support::authority::TestAuthority;
use crate::support::upstream::read_head;
use crate::support::{FakeUpstream, Stage};

/// What a hello offers.
struct Hello<'a> {
    record: [u8; 2],
    version: [u8; 2],
    suites: &'a [u16],
    compression: &'a [u8],
    /// Beside the name and what goes with elliptic curves, whole.
    extensions: Vec<u8>,
}

const GOOD: &[u16] = &[0xc02b, 0xc02f];

impl Default for Hello<'_> {
    fn default() -> Self {
        Self { record: [3, 1], version: [3, 3], suites: GOOD, compression: &[0], extensions: Vec::new() }
    }
}

fn short(length: usize) -> [u8; 2] {
    u16::try_from(length).expect("short").to_be_bytes()
}

fn extension(number: u16, content: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes()[..], &short(content.len()), content].concat()
}

impl Hello<'_> {
    /// The handshake message (RFC 8446, 4.1.2).
    fn message(&self) -> Vec<u8> {
        let name = b"api.test";
        let name = [&short(name.len() + 3)[..], &[0], &short(name.len()), name].concat();
        let groups = extension(10, &[0, 4, 0, 29, 0, 23]);
        let signatures = extension(13, &[0, 2, 4, 3]);
        let extensions = [extension(0, &name), groups, signatures, extension(11, &[1, 0]), self.extensions.clone()];
        let extensions = extensions.concat();
        let suites: Vec<u8> = self.suites.iter().flat_map(|suite| suite.to_be_bytes()).collect();
        let compression = u8::try_from(self.compression.len()).expect("few");
        let body = [
            &self.version[..],
            &[7; 32],
            &[0],
            &short(suites.len()),
            &suites,
            &[compression],
            self.compression,
            &short(extensions.len()),
            &extensions,
        ]
        .concat();
        [&[1, 0][..], &short(body.len()), &body].concat()
    }

    /// The message in records of at most so many bytes.
    fn bytes(&self, record_max: usize) -> Vec<u8> {
        let message = self.message();
        let record = |piece: &[u8]| [&[22][..], &self.record, &short(piece.len()), piece].concat();
        message.chunks(record_max).flat_map(record).collect()
    }
}

/// The first byte of what is said to these bytes in a tunnel, if anything is, before it ends: 22 is a handshake that
/// goes on, 21 an alert.
async fn said_to(stage: &Stage, bytes: &[u8]) -> Option<u8> {
    let (answer, mut stream) = stage.sidecar.agent().connect("api.test:443").await;
    assert!(answer.contains(" 200 "), "{answer}");
    for piece in bytes.chunks(16 * 1024) {
        // It may have heard enough already.
        if stream.write_all(piece).await.is_err() {
            break;
        }
    }
    let mut first = [0];
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut first)).await.expect("an end");
    matches!(read, Ok(1)).then_some(first[0])
}

async fn impatient() -> Stage {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    Stage::with(upstream, |builder| builder.flag("--handshake-timeout").flag("1s")).await
}

#[tokio::test]
async fn old_versions_and_weak_suites_are_not_spoken_with_agents() {
    let stage = impatient().await;
    let with = |version: [u8; 2], suites| Hello { version, suites, ..Hello::default() };
    let tls13 = extension(43, &[2, 3, 2]);
    for (what, hello) in [
        ("SSL 3", with([3, 0], GOOD)),
        ("TLS 1.0", with([3, 1], GOOD)),
        ("TLS 1.1", with([3, 2], GOOD)),
        ("TLS 1.1 behind a newer number", Hello { extensions: tls13, ..Hello::default() }),
        ("no encryption", with([3, 3], &[0x0000, 0x0002, 0xc006, 0xc010])),
        ("nobody known", with([3, 3], &[0x0018, 0x006c, 0xc018])),
        ("RC4", with([3, 3], &[0x0005, 0xc007, 0xc011])),
        ("3DES", with([3, 3], &[0x000a, 0xc008, 0xc012])),
        ("CBC", with([3, 3], &[0xc009, 0xc013, 0xc023, 0xc027])),
        ("without forward secrecy", with([3, 3], &[0x002f, 0x009c, 0x009d])),
        ("export", with([3, 3], &[0x0003, 0x0006, 0x0008])),
        ("compression", Hello { compression: &[1], ..Hello::default() }),
    ] {
        assert_ne!(said_to(&stage, &hello.bytes(16_384)).await, Some(22), "{what}");
    }
    // SSL 2 (RFC 6101, E.1).
    assert_ne!(said_to(&stage, b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10\x07\x00\xc0").await, Some(22), "SSL 2");
    assert_eq!(
        said_to(&stage, &Hello::default().bytes(16_384)).await,
        Some(22),
        "so the others are about what they offer"
    );
    assert_eq!(stage.upstream.connections(), 0, "nothing was dialled");
}

#[tokio::test]
async fn hellos_that_are_new_large_or_in_pieces_are_understood() {
    let stage = impatient().await;
    // X25519MLKEM768 and, for whoever does not know that, X25519 (RFC 8446, 4.2.8).
    let hybrid = [&[0x11, 0xec][..], &short(1216), &[9; 1216]].concat();
    let plain = [&[0, 29][..], &short(32), &[9; 32]].concat();
    let shares = [&short(hybrid.len() + plain.len())[..], &hybrid, &plain].concat();
    let tls13 = [extension(43, &[2, 3, 4]), extension(51, &shares)].concat();
    // Encrypted ClientHello, as clients offer it that have no key for it (RFC 9849).
    let encrypted =
        extension(0xfe0d, &[&[0, 0, 1, 0, 1, 5][..], &short(32), &[4; 32], &short(208), &[5; 208]].concat());
    let padding = extension(21, &vec![0; 12_000]);
    let new: &[u16] = &[0x1301, 0x1302, 0xc02b];
    for (what, suites, extensions) in [
        ("a hybrid of curves and lattices", new, tls13.clone()),
        ("encrypted within", new, [tls13.clone(), encrypted.clone()].concat()),
        ("encrypted within, of TLS 1.2", GOOD, encrypted),
        ("long", new, [tls13, padding].concat()),
    ] {
        for record_max in [16_384, 700] {
            let hello = Hello { suites, extensions: extensions.clone(), ..Hello::default() };
            assert_eq!(said_to(&stage, &hello.bytes(record_max)).await, Some(22), "{what}, in records of {record_max}");
        }
    }
    assert_eq!(said_to(&stage, &Hello::default().bytes(32)).await, Some(22), "in small pieces");
}

/// Each ends, whatever comes; then everything works as before.
#[tokio::test]
async fn what_is_no_hello_ends_and_harms_nobody() {
    let stage = impatient().await;
    let whole = Hello::default().bytes(16_384);
    let mut shapes: Vec<Vec<u8>> = (1..whole.len()).step_by(7).map(|length| whole[..length].to_vec()).collect();
    for at in (0..whole.len()).step_by(3) {
        for value in [0, 0xff, whole[at] ^ 0x80] {
            let mut bent = whole.clone();
            bent[at] = value;
            // What is understood all the same is somebody else's matter; it ends too.
            shapes.push(bent);
        }
    }
    shapes.push([&[22, 3, 1, 0xff, 0xff][..], &[1; 65_535]].concat());
    shapes.push([22, 3, 1, 0, 0].repeat(200));
    shapes.push([&[22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff][..], &[0; 16_380]].concat());
    let record = [&[22, 3, 1, 0x40, 0][..], &[0; 16_384]].concat();
    shapes.push([&[22, 3, 1, 0, 4, 1, 1, 0x40, 0][..], &record.repeat(8)].concat());
    shapes.push([21, 3, 1, 0, 2, 1, 0].repeat(100));
    shapes.push([&whole[..], &whole].concat());
    shapes.push(vec![20, 3, 3, 0, 1, 1]);
    let stage = Arc::new(stage);
    let mut asking = tokio::task::JoinSet::new();
    for shape in shapes {
        let stage = stage.clone();
        asking.spawn(async move { said_to(&stage, &shape).await });
        if asking.len() >= 32 {
            asking.join_next().await.expect("one").expect("an end");
        }
    }
    while let Some(ended) = asking.join_next().await {
        ended.expect("an end");
    }
    assert_eq!(stage.sidecar.agent().get("api.test", "/x", &stage.reader().await).await.status, 200);
    let metrics = stage.sidecar.admin_get("/metrics").await.text();
    assert!(metrics.contains("valetkey_panics_total 0"), "{metrics}");
}

#[tokio::test]
async fn nothing_can_be_said_before_the_handshake_is_over() {
    let stage = Stage::new().await;
    let agent = stage.sidecar.agent();
    let mut config = agent.tls_of(&[&rustls::version::TLS13], &[b"http/1.1"]);
    config.enable_early_data = true;
    let config = Arc::new(config);
    let mut tls = agent.tls_tunnel_with("api.test", "api.test", &config).await.expect("TLS");
    tls.write_all(b"GET / HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n").await.expect("writable");
    tls.read_to_end(&mut Vec::new()).await.expect("an end, and a ticket before it");
    let name = ServerName::try_from("api.test").expect("a name");
    let mut again = rustls::ClientConnection::new(config, name).expect("a connection");
    assert!(again.early_data().is_none(), "the ticket allows none");
}

#[tokio::test]
async fn a_certificate_of_the_agents_is_nobodys_business() {
    let stage = Stage::new().await;
    let agent = stage.sidecar.agent();
    let (chain, key) = TestAuthority::new().leaf(&["admin.test"], |_| {});
    let key = rustls::crypto::ring::sign::any_supported_type(&key).expect("a key");
    let mut config = agent.tls(&[b"http/1.1"]);
    let shown = rustls::sign::SingleCertAndKey::from(rustls::sign::CertifiedKey::new(chain, key));
    config.client_auth_cert_resolver = Arc::new(shown);
    let mut tls = agent.tls_tunnel_with("api.test", "api.test", &Arc::new(config)).await.expect("TLS");
    let request = format!(
        "GET /echo HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
        stage.reader().await
    );
    tls.write_all(request.as_bytes()).await.expect("writable");
    let mut answer = Vec::new();
    tls.read_to_end(&mut answer).await.expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    let seen = stage.upstream.only();
    assert!(!String::from_utf8_lossy(&seen.everything()).contains("admin.test"), "{seen:#?}");
}

#[tokio::test]
async fn our_leaves_are_what_strict_clients_want() {
    use x509_parser::extensions::{GeneralName, ParsedExtension};
    let stage = Stage::new().await;
    let agent = stage.sidecar.agent();
    let mut serials = std::collections::HashSet::new();
    for host in ["api.test", "other.test", "192.0.2.1", "xn--bcher-kva.test"] {
        let tls = agent.tls_tunnel(host, host, &[]).await.expect("TLS");
        let chain = tls.get_ref().1.peer_certificates().expect("a chain").to_vec();
        let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).expect("a certificate");
        assert!(serials.insert(leaf.raw_serial().to_vec()), "a serial of its own");
        assert!((8..=20).contains(&leaf.raw_serial().len()) && leaf.raw_serial()[0] < 0x80, "a long positive number");
        assert!(!leaf.subject().to_string().contains(host), "the names are in the SAN alone");
        let names = leaf.subject_alternative_name().expect("one").expect("there").value;
        match names.general_names.as_slice() {
            [GeneralName::DNSName(name)] => assert_eq!(*name, host),
            [GeneralName::IPAddress(bytes)] => assert_eq!((host, *bytes), ("192.0.2.1", &[192, 0, 2, 1][..])),
            others => panic!("{host}: {others:?}"),
        }
        assert!(!leaf.is_ca());
        let usage = leaf.extended_key_usage().expect("one").expect("there").value;
        assert!(usage.server_auth && !usage.client_auth && !usage.any, "{usage:?}");
        let usage = leaf.key_usage().expect("one").expect("there").value;
        assert!(usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign());
        let authority = stage.sidecar.text("public/ca.pem");
        let (_, authority) = x509_parser::pem::parse_x509_pem(authority.as_bytes()).expect("PEM");
        let authority = authority.parse_x509().expect("a certificate");
        let of = |certificate: &x509_parser::certificate::X509Certificate<'_>, is_subject: bool| {
            certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) if is_subject => Some(id.0.to_vec()),
                ParsedExtension::AuthorityKeyIdentifier(id) if !is_subject => {
                    id.key_identifier.as_ref().map(|id| id.0.to_vec())
                }
                _ => None,
            })
        };
        assert!(of(&authority, true).is_some(), "the CA has a name for its key");
        assert_eq!(of(&leaf, false), of(&authority, true), "and the leaf says it");
        assert_eq!(leaf.issuer().as_raw(), authority.subject().as_raw());
        let critical = authority.basic_constraints().expect("one").expect("there");
        assert!(
            critical.critical && critical.value.ca && critical.value.path_len_constraint == Some(0),
            "{critical:?}"
        );
    }
}

/// More hosts than leaves are kept: what was unused for longest makes room, and is made anew when it is asked for.
#[tokio::test]
async fn leaves_of_many_hosts_are_not_all_kept() {
    let stage = Arc::new(Stage::new().await);
    let serial = async || {
        let tls = stage.sidecar.agent().tls_tunnel("first.test", "first.test", &[]).await.expect("TLS");
        let leaf = tls.get_ref().1.peer_certificates().expect("a chain")[0].clone();
        x509_parser::parse_x509_certificate(&leaf).expect("a certificate").1.raw_serial().to_vec()
    };
    let first = serial().await;
    assert_eq!(serial().await, first, "kept");
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..1_100 {
        let stage = stage.clone();
        asking.spawn(async move {
            let host = format!("h{number}.test");
            stage.sidecar.agent().tls_tunnel(&host, &host, &[]).await.map(drop)
        });
        if asking.len() >= 16 {
            asking.join_next().await.expect("one").expect("no panic").expect("TLS");
        }
    }
    while let Some(ended) = asking.join_next().await {
        ended.expect("no panic").expect("TLS");
    }
    assert_ne!(serial().await, first, "it has made room");
}

/// A ServerHello (RFC 5246, 7.4.1.3) in this version with this suite.
fn server_hello(version: [u8; 2], suite: u16) -> Vec<u8> {
    let body = [&version[..], &[7; 32], &[0], &suite.to_be_bytes(), &[0]].concat();
    let message = [&[2, 0][..], &short(body.len()), &body].concat();
    [&[22][..], &version, &short(message.len()), &message].concat()
}

#[tokio::test]
async fn old_versions_and_weak_suites_are_not_spoken_with_upstreams() {
    for (what, version, suite) in [
        ("SSL 3", [3, 0], 0xc02f),
        ("TLS 1.0", [3, 1], 0xc013),
        ("TLS 1.1", [3, 2], 0xc013),
        ("RC4", [3, 3], 0xc011),
        ("3DES", [3, 3], 0xc012),
        ("CBC", [3, 3], 0xc027),
        ("without forward secrecy", [3, 3], 0x009c),
        ("no encryption", [3, 3], 0x0000),
    ] {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let noted = heard.clone();
        let upstream = FakeUpstream::wired(move |mut stream| {
            let noted = noted.clone();
            async move {
                let mut hello = vec![0; 16 * 1024];
                let _ = stream.read(&mut hello).await;
                let _ = stream.write_all(&server_hello(version, suite)).await;
                let mut rest = Vec::new();
                let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
                noted.lock().expect("not poisoned").push(rest);
            }
        })
        .await;
        let stage = Stage::with(upstream, |builder| builder).await;
        let reply = stage.sidecar.agent().get("api.test", "/x", &stage.reader().await).await;
        assert_eq!((reply.status.as_u16(), reply.refusal()), (502, Some("upstream_tls")), "{what}");
        let look = || heard.lock().expect("not poisoned").first().cloned();
        let rest = crate::support::sidecar::eventually("the end of the handshake", look).await;
        assert!(rest.is_empty() || rest.starts_with(&[21]), "{what}: an alert and nothing else, {rest:?}");
    }
}

#[tokio::test]
async fn an_upstream_that_breaks_off_its_handshake_is_no_upstream() {
    let pieces: [&[u8]; 5] =
        [b"", b"\x16\x03\x03\x40", b"\x15\x03\x03\x00\x02\x02\x28", b"HTTP/1.1 400 Bad Request\r\n\r\n", &[0; 64]];
    for piece in pieces {
        let upstream = FakeUpstream::wired(move |mut stream| async move {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(piece).await;
        });
        let stage = Stage::with(upstream.await, |builder| builder).await;
        let reply = stage.sidecar.agent().get("api.test", "/x", &stage.reader().await).await;
        assert!(reply.refusal().is_some_and(|code| code.starts_with("upstream_")), "{piece:?}: {:?}", reply.refusal());
        assert!(matches!(reply.status.as_u16(), 502..=504), "{}", reply.status);
    }
}

/// Without the alert that ends TLS, nobody knows whether the rest was cut off.
#[tokio::test]
async fn an_answer_that_ends_without_a_goodbye_is_not_whole() {
    for is_polite in [true, false] {
        let upstream = FakeUpstream::played(&["api.test"], b"http/1.1", move |mut stream, _| async move {
            read_head(&mut stream).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhalf of it").await;
            let _ = stream.flush().await;
            if is_polite {
                let _ = stream.shutdown().await;
            }
        })
        .await;
        let stage = Stage::with(upstream, |builder| builder).await;
        let mut tunnel = stage.sidecar.agent().tunnel("api.test").await;
        let response = tunnel.start(get("api.test", "/x", &stage.reader().await)).await;
        assert_eq!(breaks(response).await, !is_polite);
    }
}
