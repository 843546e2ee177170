//! Clients of the proxy's TLS listener. A port of their own leads there over TLS, so that every other client can be sent
//! through it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyUsagePurpose, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::authority::TestAuthority;
use super::remote::{pem, write};
use super::{Agent, Builder, TestSidecar};

/// The name in the listener's certificate.
pub const NAME: &str = "proxy.test";

/// A certificate with its chain, and its key.
pub type Certificate = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Whoever vouches for the listener.
pub struct Entry {
    pub server: Arc<TestAuthority>,
}

impl Entry {
    pub fn new() -> Self {
        Self { server: TestAuthority::new() }
    }

    /// Certificate and key of the listener, in a directory.
    pub fn lay(&self, directory: &Path) {
        let leaf = self.server.leaf(&[NAME, "127.0.0.1"], |_| {});
        lay(directory, "proxy", &leaf);
    }

    /// Flags that open the listener.
    pub fn open(builder: Builder) -> Builder {
        let (certificate, key) = ("{dir}/proxy.pem", "{dir}/proxy.key");
        ["--listen-tls", "127.0.0.1:0", "--listen-tls-cert", certificate, "--listen-tls-key", key]
            .into_iter()
            .fold(builder, Builder::flag)
    }

    /// What trusts the listener, and shows this.
    pub fn config(&self, certificate: Option<Certificate>) -> rustls::ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.server.pem.as_bytes()).expect("PEM")).expect("a root");
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        match certificate {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).expect("a certificate"),
            None => builder.with_no_client_auth(),
        }
    }

    /// The agent of a sidecar, behind the listener with this certificate.
    pub async fn agent(&self, sidecar: &TestSidecar, certificate: Option<Certificate>) -> Agent {
        self.agent_of(sidecar, self.config(certificate)).await
    }

    /// The same with a configuration of one's own.
    pub async fn agent_of(&self, sidecar: &TestSidecar, config: rustls::ClientConfig) -> Agent {
        let (there, config) = (address(sidecar), Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let here = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                client.set_nodelay(true).expect("an option");
                let config = config.clone();
                tokio::spawn(async move {
                    let Ok(mut proxy) = dial(there, config).await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut proxy).await;
                });
            }
        });
        sidecar.agent().at(here)
    }
}

/// Where the listener is.
pub fn address(sidecar: &TestSidecar) -> SocketAddr {
    let ready: serde_json::Value = serde_json::from_str(&sidecar.text("ready.json")).expect("JSON");
    ready["proxy_tls"].as_str().expect("an address").parse().expect("an address")
}

/// A TLS connection to the listener.
pub async fn dial(there: SocketAddr, config: Arc<rustls::ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(there).await?;
    stream.set_nodelay(true)?;
    TlsConnector::from(config).connect(ServerName::try_from(NAME).expect("a name"), stream).await
}

/// Puts a certificate and its key into a directory, as `NAME.pem` and `NAME.key`.
pub fn lay(directory: &Path, name: &str, (chain, key): &Certificate) {
    let chain: String = chain.iter().map(|der| pem("CERTIFICATE", der)).collect();
    write(&directory.join(format!("{name}.pem")), &chain, 0o644);
    write(&directory.join(format!("{name}.key")), &pem("PRIVATE KEY", key.secret_der()), 0o600);
}

/// An X.509-SVID, changed by `edit`.
pub fn svid(by: &TestAuthority, ids: &[&str], edit: impl FnOnce(&mut CertificateParams)) -> Certificate {
    by.leaf(&[], |params| {
        params.subject_alt_names = ids.iter().map(|id| SanType::URI((*id).try_into().expect("a URI"))).collect();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        edit(params);
    })
}

/// Lets a certificate end so many seconds from now.
pub fn end_in(params: &mut CertificateParams, seconds: i64) {
    let end = u64::try_from(super::remote::seconds_from_now(seconds)).expect("after 1970");
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(end);
}
