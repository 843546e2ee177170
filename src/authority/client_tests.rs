//! Our leaves before real clients: rustls in memory, then OpenSSL, Python, curl and Node where they are installed.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConnection};
use rustls::{ProtocolVersion, StreamOwned, SupportedProtocolVersion};

use super::{Authority, Home};
use crate::clock::{ManualClock, SystemClock};
use crate::model::Host;
use crate::skips::skip;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

fn authority() -> Authority {
    Authority::open(&Home::Memory, ManualClock::new()).unwrap()
}

fn client(authority: &Authority, version: &'static SupportedProtocolVersion, alpn: &[&str]) -> ClientConfig {
    client_with(default_provider(), authority, version, alpn)
}

fn client_with(
    provider: CryptoProvider,
    authority: &Authority,
    version: &'static SupportedProtocolVersion,
    alpn: &[&str],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.certificate_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(provider);
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_webpki_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// Shakes hands in memory; the connections afterwards.
fn handshake(
    authority: &Authority,
    host: &str,
    client: &Arc<ClientConfig>,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let parsed = host.parse().map_or_else(|_| Host::parse(host).unwrap(), Host::from_ip);
    let config = authority.server_config(&parsed).unwrap();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let (mut client, mut server) = (ClientConnection::new(client.clone(), name)?, ServerConnection::new(config)?);
    let mut bytes = Vec::new();
    for _ in 0..8 {
        bytes.clear();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        server.read_tls(&mut bytes.as_slice()).unwrap();
        server.process_new_packets()?;
        bytes.clear();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        client.read_tls(&mut bytes.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}

#[test]
fn names_and_addresses_verify_in_both_versions_of_tls() {
    let authority = authority();
    let long = [["a"; 63].concat(), ["b"; 63].concat(), ["c"; 63].concat(), ["d"; 61].concat()].join(".");
    for host in ["api.test", "127.0.0.1", "::1", "xn--bcher-kva.test", "a_b.test", long.as_str()] {
        for version in VERSIONS {
            let config = Arc::new(client(&authority, version, &["h2"]));
            handshake(&authority, host, &config).unwrap_or_else(|error| panic!("{host}: {error}"));
        }
    }
}

#[test]
fn another_hosts_leaf_and_another_ca_do_not_verify() {
    let (ours, theirs) = (authority(), authority());
    let config = Arc::new(client(&ours, &rustls::version::TLS13, &[]));
    assert!(handshake(&theirs, "api.test", &config).is_err());
    let leaf = ours.server_config(&Host::parse("api.test").unwrap()).unwrap();
    let mut server = ServerConnection::new(leaf).unwrap();
    let mut client = ClientConnection::new(config, ServerName::try_from("other.test").unwrap()).unwrap();
    let (mut up, mut down) = (Vec::new(), Vec::new());
    client.write_tls(&mut up).unwrap();
    server.read_tls(&mut up.as_slice()).unwrap();
    server.process_new_packets().unwrap();
    while server.wants_write() {
        server.write_tls(&mut down).unwrap();
    }
    client.read_tls(&mut down.as_slice()).unwrap();
    assert!(client.process_new_packets().is_err());
}

#[test]
fn alpn_is_chosen_and_may_be_absent() {
    let authority = authority();
    let cases: [(&[&str], Option<&[u8]>); 4] =
        [(&["h2", "http/1.1"], Some(b"h2")), (&["http/1.1"], Some(b"http/1.1")), (&["h2"], Some(b"h2")), (&[], None)];
    for (offered, chosen) in cases {
        let config = Arc::new(client(&authority, &rustls::version::TLS13, offered));
        let (_, server) = handshake(&authority, "api.test", &config).unwrap();
        assert_eq!(server.alpn_protocol(), chosen);
    }
    let config = Arc::new(client(&authority, &rustls::version::TLS13, &["spdy/3"]));
    assert!(handshake(&authority, "api.test", &config).is_err());
}

#[test]
fn the_suite_is_the_cheap_one_unless_a_client_has_others_alone() {
    use rustls::CipherSuite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256};
    let authority = authority();
    let cases = [
        (vec![TLS13_AES_256_GCM_SHA384, TLS13_AES_128_GCM_SHA256], TLS13_AES_128_GCM_SHA256),
        (vec![TLS13_CHACHA20_POLY1305_SHA256, TLS13_AES_256_GCM_SHA384], TLS13_AES_256_GCM_SHA384),
        (vec![TLS13_CHACHA20_POLY1305_SHA256], TLS13_CHACHA20_POLY1305_SHA256),
    ];
    for (offered, chosen) in cases {
        let mut provider = default_provider();
        provider.cipher_suites.retain(|suite| offered.contains(&suite.suite()));
        let config = client_with(provider, &authority, &rustls::version::TLS13, &[]);
        let (_, server) = handshake(&authority, "api.test", &Arc::new(config)).unwrap();
        assert_eq!(server.negotiated_cipher_suite().map(|suite| suite.suite()), Some(chosen));
    }
}

#[test]
fn the_second_connection_to_a_host_is_resumed_without_early_data() {
    let authority = authority();
    for version in VERSIONS {
        let mut config = client(&authority, version, &["h2"]);
        config.enable_early_data = true;
        let config = Arc::new(config);
        let kind = |config| handshake(&authority, "api.test", config).unwrap().1.handshake_kind();
        assert_eq!(kind(&config), Some(HandshakeKind::Full));
        let (client, server) = handshake(&authority, "api.test", &config).unwrap();
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Resumed));
        assert!(!client.is_early_data_accepted());
    }
}

/// A server with our leaves that answers each connection with `ok`; the host is fixed.
fn serve(authority: &Authority, host: &str, connections: usize) -> (SocketAddr, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let config = authority.server_config(&Host::parse(host).unwrap()).unwrap();
    let thread = std::thread::spawn(move || {
        for stream in listener.incoming().take(connections) {
            let connection = ServerConnection::new(config.clone()).unwrap();
            let mut stream = StreamOwned::new(connection, stream.unwrap());
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    (address, thread)
}

/// The first of these programs that runs and, given `arguments`, exits with success.
fn find(candidates: impl IntoIterator<Item = PathBuf>, arguments: &[&str]) -> Option<PathBuf> {
    candidates.into_iter().find(|program| {
        let quiet = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
        quiet.is_ok_and(|status| status.success())
    })
}

fn strict_python() -> Option<PathBuf> {
    let mut candidates: Vec<PathBuf> = ["python3.14", "python3.13", "python3"].map(PathBuf::from).to_vec();
    if let Some(home) = std::env::home_dir()
        && let Ok(versions) = std::fs::read_dir(home.join(".pyenv/versions"))
    {
        candidates.extend(versions.flatten().map(|version| version.path().join("bin/python")));
    }
    find(candidates, &["-c", "import sys; sys.exit(sys.version_info < (3, 13))"])
}

fn published(authority: &Authority) -> (tempfile::TempDir, PathBuf, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    authority.publish(directory.path()).unwrap();
    let (ca, bundle) = (directory.path().join("ca.pem"), directory.path().join("ca-bundle.pem"));
    (directory, ca, bundle)
}

fn succeeds(command: &mut Command) -> String {
    // What this machine is set to must not decide.
    for name in ["SSL_CERT_FILE", "SSL_CERT_DIR", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        command.env_remove(name);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {text} {}", String::from_utf8_lossy(&output.stderr));
    text
}

fn real_authority() -> Authority {
    Authority::open(&Home::Memory, Arc::new(SystemClock)).unwrap()
}

const PYTHON: &str = r"
import socket, ssl, sys
ca, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
context = ssl.create_default_context(cafile=ca)
assert context.verify_flags & ssl.VERIFY_X509_STRICT
with socket.create_connection(('127.0.0.1', port), 10) as plain:
    with context.wrap_socket(plain, server_hostname=host) as tls:
        tls.sendall(b'GET / HTTP/1.1\r\n\r\n')
        print(tls.recv(4096).decode().split()[-1])
";

#[test]
fn python_in_strict_mode_accepts_names_and_addresses() {
    let Some(python) = strict_python() else {
        return skip("no Python 3.13 or later");
    };
    let authority = real_authority();
    let (_directory, ca, bundle) = published(&authority);
    for host in ["api.test", "127.0.0.1"] {
        let (address, server) = serve(&authority, host, 2);
        for file in [&ca, &bundle] {
            let port = address.port().to_string();
            let mut command = Command::new(&python);
            assert_eq!(succeeds(command.args(["-c", PYTHON]).arg(file).args([host, &port])).trim(), "ok");
        }
        server.join().unwrap();
    }
}

#[test]
fn curl_accepts_our_leaf() {
    let Some(curl) = find([PathBuf::from("curl")], &["--version"]) else {
        return skip("no curl");
    };
    let authority = real_authority();
    let (_directory, _, bundle) = published(&authority);
    let (address, server) = serve(&authority, "api.test", 1);
    let resolve = format!("api.test:{}:127.0.0.1", address.port());
    let url = format!("https://api.test:{}/", address.port());
    let mut command = Command::new(curl);
    command.args(["-sS", "--http1.1", "--noproxy", "*", "--max-time", "10", "--cacert"]).arg(bundle);
    assert_eq!(succeeds(command.args(["--resolve", &resolve, &url])), "ok");
    server.join().unwrap();
}

#[test]
fn node_accepts_our_leaf() {
    let Some(node) = find([PathBuf::from("node")], &["--version"]) else {
        return skip("no Node");
    };
    let authority = real_authority();
    let (_directory, ca, _) = published(&authority);
    let (address, server) = serve(&authority, "api.test", 1);
    let script = format!(
        "require('https').get({{host:'127.0.0.1',port:{},servername:'api.test'}},r=>r.pipe(process.stdout))",
        address.port()
    );
    let mut command = Command::new(node);
    assert_eq!(succeeds(command.args(["-e", &script]).env("NODE_EXTRA_CA_CERTS", ca)), "ok");
    server.join().unwrap();
}

#[test]
fn openssl_verifies_strictly() {
    let Some(openssl) = find([PathBuf::from("openssl")], &["version"]) else {
        return skip("no openssl");
    };
    let authority = real_authority();
    let (directory, ca, bundle) = published(&authority);
    for (host, check) in [("api.test", "-verify_hostname"), ("127.0.0.1", "-verify_ip")] {
        let leaf = directory.path().join("leaf.pem");
        std::fs::write(&leaf, leaf_pem(&authority, host)).unwrap();
        let verify = |roots: &Path| {
            let mut command = Command::new(&openssl);
            command.args(["verify", "-x509_strict", "-purpose", "sslserver", check, host, "-CAfile"]);
            succeeds(command.arg(roots).arg(&leaf))
        };
        assert!(verify(&ca).ends_with("OK\n"));
        assert!(verify(&bundle).ends_with("OK\n"));
    }
}

fn leaf_pem(authority: &Authority, host: &str) -> String {
    let config = Arc::new(client(authority, &rustls::version::TLS13, &[]));
    let (client, _) = handshake(authority, host, &config).unwrap();
    assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    super::bundle::pem(&client.peer_certificates().unwrap()[0])
}
