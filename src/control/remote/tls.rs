//! Who we are to callers from elsewhere, and whose certificates of theirs are believed: files, read again when they change.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{NoKeyLog, RootCertStore, ServerConfig};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::names::Names;
use crate::identity::{FileProblem, read_public, read_secret};

/// Longest file, in bytes.
const BYTES_MAX: usize = 1024 * 1024;
/// How often the files are looked at again, while somebody connects.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why the listener for callers from elsewhere has no TLS.
#[derive(Debug, thiserror::Error)]
pub enum RemoteTlsError {
    /// A file is not used.
    #[error("{0}: {1}")]
    File(PathBuf, FileProblem),
    /// A file is not what it should be.
    #[error("{0}: {1}")]
    Content(PathBuf, &'static str),
    /// Certificate and key do not belong together, or are of no use.
    #[error("the control listener's certificate and key cannot be used: {0}")]
    Pair(rustls::Error),
    /// The file with the callers' CAs is of no use.
    #[error("the CAs of callers cannot be used")]
    ClientCa,
}

/// The files.
#[derive(Debug, Clone)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

/// Certificate, key and callers' CAs of the listener.
pub struct RemoteTls {
    files: Files,
    current: ArcSwap<Serving>,
    names: Names,
    looked: Mutex<Looked>,
}

/// What is in force for one connection.
pub(in crate::control) struct Serving {
    pub(in crate::control) config: Arc<ServerConfig>,
    /// Against which callers' certificates are verified.
    pub(in crate::control) client_roots: RootCertStore,
}

struct Looked {
    at: Instant,
    digest: Vec<u8>,
}

impl RemoteTls {
    /// Reads the files: PEM with the chain, PEM with its key (closed to others), PEM with CAs whose certificates prove
    /// callers. Without the last nobody is asked for a certificate.
    ///
    /// # Errors
    /// [`RemoteTlsError`].
    pub fn read(certificate: &Path, key: &Path, client_ca: Option<&Path>) -> Result<Self, RemoteTlsError> {
        let files = Files {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            client_ca: client_ca.map(Path::to_owned),
        };
        let (serving, names, digest) = files.read()?;
        let looked = Mutex::new(Looked { at: Instant::now(), digest });
        Ok(Self { files, current: ArcSwap::from_pointee(serving), names, looked })
    }

    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    /// The host names of the certificate, wildcards left out: no upstream is one of them.
    #[must_use]
    pub fn hosts(&self) -> Vec<&str> {
        match &self.names {
            Names::Local => Vec::new(),
            Names::Certificate { hosts, .. } => {
                hosts.iter().map(String::as_str).filter(|host| !host.starts_with("*.")).collect()
            }
        }
    }

    /// What is in force now. What cannot be read leaves the last in force, and is told of.
    pub(in crate::control) fn serving(&self) -> Arc<Serving> {
        let mut looked = self.looked.lock();
        if looked.at.elapsed() >= LOOK_EVERY {
            looked.at = Instant::now();
            match self.files.read() {
                Ok((_, _, digest)) if digest == looked.digest => {}
                Ok((_, names, _)) if names != self.names => {
                    tracing::warn!(
                        "the control listener's new certificate has other names; it is taken at the next start"
                    );
                }
                Ok((serving, _, digest)) => {
                    looked.digest = digest;
                    self.current.store(Arc::new(serving));
                    tracing::info!("the control listener has a new certificate");
                }
                Err(error) => tracing::warn!(%error, "the control listener keeps its certificate"),
            }
        }
        drop(looked);
        self.current.load_full()
    }
}

impl Files {
    fn read(&self) -> Result<(Serving, Names, Vec<u8>), RemoteTlsError> {
        let at = |path: &Path, problem| RemoteTlsError::File(path.to_owned(), problem);
        let chain = read_public(&self.certificate, BYTES_MAX).map_err(|problem| at(&self.certificate, problem))?;
        let key = read_secret(&self.key, BYTES_MAX).map_err(|problem| at(&self.key, problem))?;
        let roots = match &self.client_ca {
            Some(path) => Some(read_public(path, BYTES_MAX).map_err(|problem| at(path, problem))?),
            None => None,
        };
        let mut all = digest(&SHA256, &chain).as_ref().to_vec();
        all.extend_from_slice(digest(&SHA256, &key).as_ref());
        all.extend_from_slice(digest(&SHA256, roots.as_deref().map_or(&[], Vec::as_slice)).as_ref());
        let content = |path: &Path, what| RemoteTlsError::Content(path.to_owned(), what);
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&chain)
            .collect::<Result<_, _>>()
            .map_err(|_| content(&self.certificate, "it is not PEM"))?;
        let leaf = chain.first().ok_or_else(|| content(&self.certificate, "it holds no certificate"))?;
        let names = names(leaf).ok_or_else(|| content(&self.certificate, "its first certificate has no names"))?;
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| content(&self.key, "it holds no private key"))?;
        let serving = server(chain, key, roots.as_deref().map(Vec::as_slice))?;
        Ok((serving, names, all))
    }
}

fn server(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Option<&[u8]>,
) -> Result<Serving, RemoteTlsError> {
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(RemoteTlsError::Pair)?;
    let mut client_roots = RootCertStore::empty();
    let builder = match roots {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            for der in CertificateDer::pem_slice_iter(pem) {
                let der = der.map_err(|_| RemoteTlsError::ClientCa)?;
                client_roots.add(der).map_err(|_| RemoteTlsError::ClientCa)?;
            }
            // Who has none may still show a token.
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(client_roots.clone()), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|_| RemoteTlsError::ClientCa)?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(RemoteTlsError::Pair)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A resumed session would not look at the caller's certificate again.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.key_log = Arc::new(NoKeyLog {});
    Ok(Serving { config: Arc::new(config), client_roots })
}

/// The names of a certificate, of which it must have one.
fn names(der: &[u8]) -> Option<Names> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let (mut hosts, mut addresses) = (Vec::new(), Vec::new());
    for name in &certificate.subject_alternative_name().ok()??.value.general_names {
        match name {
            GeneralName::DNSName(host) => hosts.push(host.to_ascii_lowercase()),
            GeneralName::IPAddress(bytes) => addresses.extend(address(bytes)),
            _ => {}
        }
    }
    (!hosts.is_empty() || !addresses.is_empty()).then_some(Names::Certificate { hosts, addresses })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}
