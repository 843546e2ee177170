//! What measuring kept connections hides: what each new one costs. Nothing here is timed; it is all counted.
//!
//! - `sockets`: nothing waits for an acknowledgement
//! - `shared`: an upstream is dialled once for many tunnels, and never for two credentials
//! - `resumed`: TLS with agents and upstreams takes up where it was

mod resumed;
mod shared;
mod sockets;

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::sidecar::eventually;
use crate::support::{FakeUpstream, Stage, sockets as seen};

/// Every one of them stands in its tunnel before the first asks for the leaf.
#[tokio::test]
async fn one_leaf_is_made_for_many_who_meet_a_new_host() {
    let stage = Stage::new().await;
    let agent = stage.sidecar.agent();
    let config = Arc::new(agent.tls(&[]));
    for host in ["new.test", "192.0.2.7"] {
        let mut tunnels = Vec::new();
        for _ in 0..64 {
            let (answer, stream) = agent.connect(&format!("{host}:443")).await;
            assert!(answer.contains(" 200 "), "{answer}");
            tunnels.push(stream);
        }
        let asking: Vec<_> =
            tunnels.into_iter().map(|stream| tokio::spawn(leaf(config.clone(), host, stream))).collect();
        let mut serials = std::collections::HashSet::new();
        for leaf in asking {
            let leaf = leaf.await.expect("a leaf");
            let (_, leaf) = x509_parser::parse_x509_certificate(&leaf).expect("a certificate");
            serials.insert(leaf.raw_serial().to_vec());
        }
        assert_eq!(serials.len(), 1, "{host}");
    }
}

async fn leaf(config: Arc<rustls::ClientConfig>, host: &'static str, stream: TcpStream) -> CertificateDer<'static> {
    let name = ServerName::try_from(host).expect("a name");
    let stream = TlsConnector::from(config).connect(name, stream).await.expect("TLS");
    stream.get_ref().1.peer_certificates().expect("a chain")[0].clone()
}

#[tokio::test]
async fn nothing_is_left_of_many_short_connections() {
    // Each connection upstream ends with its answer, too.
    let upstream = FakeUpstream::raw(&["api.test"], |_| {
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok".to_vec()
    })
    .await;
    let stage = Stage::with(upstream, |builder| builder).await;
    let nonce = stage.reader().await;
    let agent = stage.sidecar.agent();
    // The first makes what stays: the files that are opened on demand, the threads that ask for them.
    assert_eq!(agent.get("api.test", "/x", &nonce).await.status, 200);
    let Some(before) = settled(&stage).await else { return };
    for _ in 0..50 {
        assert_eq!(agent.get("api.test", "/x", &nonce).await.status, 200);
        assert_eq!(agent.send_h2(crate::support::agent::get("api.test", "/x", &nonce)).await.status, 200);
    }
    assert_eq!(stage.upstream.connections(), 101);
    assert_eq!(settled(&stage).await, Some(before), "descriptors");
}

/// The descriptors of a sidecar on which nothing goes on any more; `None` where nobody may look.
async fn settled(stage: &Stage) -> Option<usize> {
    let pid = stage.sidecar.pid();
    seen::connected(pid)?;
    eventually("the end of all connections", || seen::connected(pid)?.is_empty().then_some(())).await;
    seen::descriptors(pid)
}
