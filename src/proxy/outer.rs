//! The proxy's own port over TLS: who we are to clients, and the certificates that they show.
//!
//! The handshake proves that a client holds the key of what it shows, and no more. Whose it is, and whether that counts, is
//! judged for each tunnel by the policy of that moment (`gate`), where a refusal can be read.

mod asking;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{Acceptor, NoServerSessionStorage};
use rustls::{NoKeyLog, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::Proxy;
use super::accept::{Connection, explicit};
use super::socket::Socket;
use crate::audit::Event;
use crate::identity::{FileProblem, Shown, read_public, read_secret};
use asking::Asking;

/// Longest file, in bytes.
const BYTES_MAX: usize = 1024 * 1024;
/// How often the files are looked at again, while somebody connects.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why the listener has no TLS.
#[derive(Debug, thiserror::Error)]
pub enum OuterTlsError {
    /// A file is not used.
    #[error("{0}: {1}")]
    File(PathBuf, FileProblem),
    /// A file is not what it should be.
    #[error("{0}: {1}")]
    Content(PathBuf, &'static str),
    /// Certificate and key do not belong together, or are of no use.
    #[error("the proxy's certificate and key cannot be used: {0}")]
    Pair(rustls::Error),
}

/// Certificate and key of the listener: files, read again when they change.
pub struct OuterTls {
    certificate: PathBuf,
    key: PathBuf,
    current: ArcSwap<ServerConfig>,
    looked: Mutex<Looked>,
}

struct Looked {
    at: Instant,
    digest: Vec<u8>,
}

impl OuterTls {
    /// Reads the files: PEM with the chain, PEM with its key (closed to others).
    ///
    /// # Errors
    /// [`OuterTlsError`].
    pub fn read(certificate: &Path, key: &Path) -> Result<Arc<Self>, OuterTlsError> {
        let (config, digest) = read(certificate, key)?;
        Ok(Arc::new(Self {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            current: ArcSwap::from_pointee(config),
            looked: Mutex::new(Looked { at: Instant::now(), digest }),
        }))
    }

    /// What is in force now. What cannot be read leaves the last in force, and is told of.
    async fn config(self: &Arc<Self>) -> Arc<ServerConfig> {
        if self.is_due() {
            let this = self.clone();
            // Whoever looks waits for the files; the others go on with what there is.
            let _ = tokio::task::spawn_blocking(move || this.look()).await;
        }
        self.current.load_full()
    }

    fn is_due(&self) -> bool {
        let mut looked = self.looked.lock();
        let is_due = looked.at.elapsed() >= LOOK_EVERY;
        if is_due {
            looked.at = Instant::now();
        }
        is_due
    }

    fn look(&self) {
        match read(&self.certificate, &self.key) {
            Ok((config, digest)) => {
                let mut looked = self.looked.lock();
                if looked.digest != digest {
                    looked.digest = digest;
                    self.current.store(Arc::new(config));
                    tracing::info!("the proxy's TLS listener has a new certificate");
                }
            }
            Err(error) => tracing::warn!(%error, "the proxy's TLS listener keeps its certificate"),
        }
    }
}

impl std::fmt::Debug for OuterTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OuterTls").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// The configuration that the files amount to, and their digest.
fn read(certificate: &Path, key: &Path) -> Result<(ServerConfig, Vec<u8>), OuterTlsError> {
    let at = |path: &Path, problem| OuterTlsError::File(path.to_owned(), problem);
    let chain = read_public(certificate, BYTES_MAX).map_err(|problem| at(certificate, problem))?;
    let secret = read_secret(key, BYTES_MAX).map_err(|problem| at(key, problem))?;
    let mut both = digest(&SHA256, &chain).as_ref().to_vec();
    both.extend_from_slice(digest(&SHA256, &secret).as_ref());
    let content = |path: &Path, what| OuterTlsError::Content(path.to_owned(), what);
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&chain)
        .collect::<Result<_, _>>()
        .map_err(|_| content(certificate, "it is not PEM"))?;
    if chain.is_empty() {
        return Err(content(certificate, "it holds no certificate"));
    }
    let secret = PrivateKeyDer::from_pem_slice(&secret).map_err(|_| content(key, "it holds no private key"))?;
    Ok((server(chain, secret)?, both))
}

fn server(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<ServerConfig, OuterTlsError> {
    let provider = Arc::new(default_provider());
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(OuterTlsError::Pair)?
        .with_client_cert_verifier(Arc::new(Asking::new(&provider)))
        .with_single_cert(chain, key)
        .map_err(OuterTlsError::Pair)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // In a resumed session nobody proves anew that he has the key.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.key_log = Arc::new(NoKeyLog {});
    Ok(config)
}

/// Shakes hands, and serves what comes in it as on the listener in clear text.
pub(super) async fn run(proxy: Arc<Proxy>, stream: TcpStream, connection: Arc<Connection>, tls: Arc<OuterTls>) {
    let handshake = tokio::time::timeout(proxy.limits.handshake_timeout, handshake(&tls, stream));
    let outcome = tokio::select! {
        outcome = handshake => outcome,
        // Nothing was asked for yet.
        () = proxy.draining.cancelled() => return,
    };
    let stream = match outcome {
        Ok(Ok(stream)) => stream,
        Ok(Err(code)) => return note(&proxy, &connection, code),
        Err(_elapsed) => return note(&proxy, &connection, "tls_handshake_timeout"),
    };
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let shown = (!chain.is_empty()).then(|| Arc::new(Shown { chain: chain.to_vec(), at: connection.opened }));
    connection.encrypted(shown);
    explicit(proxy, Socket::Tls(Box::new(stream)), connection).await;
}

async fn handshake(tls: &Arc<OuterTls>, stream: TcpStream) -> Result<TlsStream<TcpStream>, &'static str> {
    let start = match LazyConfigAcceptor::new(Acceptor::default(), stream).await {
        Ok(start) => start,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err("client_gone"),
        Err(_) => return Err("not_tls"),
    };
    start.into_stream(tls.config().await).await.map_err(|_| "tls_handshake_failed")
}

fn note(proxy: &Proxy, connection: &Connection, code: &'static str) {
    tracing::debug!(connection.id = connection.id, code, "a client's TLS handshake with the proxy failed");
    proxy.metrics.exchange(None, code);
    let (connection_id, peer) = (connection.id, connection.peer);
    proxy.audit.note(Event::Connection { connection_id, peer, destination: None, code });
}
