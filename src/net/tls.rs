//! Whom an upstream's certificate is verified against.

use std::sync::Arc;

use ring::digest::{Context, SHA256, digest};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, TrustAnchor, pem::PemObject};
use rustls::{ClientConfig, NoKeyLog, RootCertStore};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::roots;

/// Upstreams whose sessions one configuration remembers.
const SESSIONS_MAX: usize = 256;

/// The protocols that are offered upstream by default, the preferred first.
pub const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why there is no TLS configuration for a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// The service's `upstream_ca` is not PEM, or a block in it is not a certificate.
    #[error("the upstream CA holds something that is not a certificate")]
    Malformed,
    /// The service's `upstream_ca` holds no certificate.
    #[error("the upstream CA holds no certificate")]
    Empty,
    /// The service's `upstream_ca` is our own local CA, which vouches for no upstream.
    #[error("the upstream CA is the local CA of this sidecar")]
    OwnAuthority,
    /// The cryptography was put together wrongly: a fault of ours.
    #[error("no TLS configuration can be made")]
    Configuration,
}

/// What every upstream connection trusts: the system's roots, as they were read here.
#[derive(Clone)]
pub struct ClientTls {
    system: Arc<RootCertStore>,
    /// The system had none: these are Mozilla's.
    is_built_in: bool,
    exclude_spki_sha256: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientTls").field("system_roots", &self.system.len()).finish_non_exhaustive()
    }
}

impl ClientTls {
    /// The system's roots (`SSL_CERT_FILE` and `SSL_CERT_DIR` honoured; Mozilla's where there are none) without the
    /// one whose SubjectPublicKeyInfo has this SHA-256: our own CA, which a system or a variable may well trust, must
    /// never vouch for an upstream.
    #[must_use]
    pub fn new(exclude_spki_sha256: [u8; 32]) -> Self {
        Self::of(&roots::read(), exclude_spki_sha256)
    }

    /// The same of what [`roots::read`] has read.
    #[must_use]
    pub fn of(certificates: &[CertificateDer<'_>], exclude_spki_sha256: [u8; 32]) -> Self {
        let this = Self::with_system(certificates, exclude_spki_sha256);
        if this.is_built_in {
            tracing::info!("the system has no roots that can be read; Mozilla's, as they are built in, are used");
        }
        this
    }

    /// The same with the system's roots as they are now. Where there were some and none can be read any more, those stay:
    /// the system trusted less, or others, than Mozilla's do.
    #[must_use]
    pub fn renewed(&self) -> Self {
        self.renewed_with(&roots::read())
    }

    fn renewed_with(&self, certificates: &[CertificateDer<'_>]) -> Self {
        let next = Self::with_system(certificates, self.exclude_spki_sha256);
        if next.is_built_in && !self.is_built_in {
            tracing::warn!("the system's roots cannot be read any more; the last ones stay, until a restart");
            return self.clone();
        }
        next
    }

    fn with_system(certificates: &[CertificateDer<'_>], exclude_spki_sha256: [u8; 32]) -> Self {
        let mut system = RootCertStore::empty();
        system.add_parsable_certificates(certificates.iter().map(|der| CertificateDer::from(der.as_ref())));
        // Judged by what is verified with, not by what another parser makes of the certificate.
        system.roots.retain(|anchor| spki_sha256_of(anchor) != Some(exclude_spki_sha256));
        let is_built_in = system.is_empty();
        if is_built_in {
            system.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        Self { system: Arc::new(system), is_built_in, exclude_spki_sha256, provider: Arc::new(default_provider()) }
    }

    /// How many of the system's roots are trusted.
    #[must_use]
    pub fn system_roots(&self) -> usize {
        self.system.len()
    }

    /// A configuration for one service: the system's roots, its own `upstream_ca` (PEM) beside them, and these ALPN
    /// names. Sessions are remembered per configuration, so that no service resumes another's (see [`apart`]).
    ///
    /// TLS 1.3 and 1.2; no client certificate, no early data, no key log.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn config(&self, extra_roots_pem: Option<&[u8]>, alpn: &[&[u8]]) -> Result<ClientConfig, TlsError> {
        let roots = match extra_roots_pem {
            None => self.system.clone(),
            Some(pem) => Arc::new(self.system_and(pem)?),
        };
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|_| TlsError::Configuration)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
        config.enable_early_data = false;
        // SSLKEYLOGFILE must not lay open what goes upstream, the credential first of all.
        config.key_log = Arc::new(NoKeyLog {});
        Ok(config)
    }

    fn system_and(&self, pem: &[u8]) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::clone(&self.system);
        for der in CertificateDer::pem_slice_iter(pem) {
            let der = der.map_err(|_| TlsError::Malformed)?;
            match spki_sha256(&der) {
                None => return Err(TlsError::Malformed),
                Some(own) if own == self.exclude_spki_sha256 => return Err(TlsError::OwnAuthority),
                Some(_) => roots.add(der).map_err(|_| TlsError::Malformed)?,
            }
        }
        if roots.len() == self.system.len() { Err(TlsError::Empty) } else { Ok(roots) }
    }
}

/// The same trust for another service, which does not resume the first one's sessions.
#[must_use]
pub fn apart(config: &ClientConfig) -> ClientConfig {
    let mut apart = config.clone();
    apart.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
    apart
}

fn spki_sha256(der: &[u8]) -> Option<[u8; 32]> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    digest(&SHA256, certificate.public_key().raw).as_ref().try_into().ok()
}

/// The same of an anchor, which has the content of the SubjectPublicKeyInfo without its tag and length; `None` for one
/// that is longer than any key.
fn spki_sha256_of(anchor: &TrustAnchor<'_>) -> Option<[u8; 32]> {
    const SEQUENCE: u8 = 0x30;
    let content = anchor.subject_public_key_info.as_ref();
    let [high, low] = u16::try_from(content.len()).ok()?.to_be_bytes();
    let header: &[u8] = match (high, low) {
        (0, 0..=0x7F) => &[SEQUENCE, low],
        (0, _) => &[SEQUENCE, 0x81, low],
        _ => &[SEQUENCE, 0x82, high, low],
    };
    let mut hash = Context::new(&SHA256);
    hash.update(header);
    hash.update(content);
    hash.finish().as_ref().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PublicKeyData};
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
    use rustls::{CertificateError, ClientConnection, Error, ServerConfig, ServerConnection};

    struct Root(CertifiedIssuer<'static, KeyPair>);

    impl Root {
        fn new() -> Self {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().unwrap();
            params.distinguished_name.push(DnType::CommonName, hex::encode(&key.public_key_raw()[1..9]));
            Self(CertifiedIssuer::self_signed(params, key).unwrap())
        }

        fn der(&self) -> CertificateDer<'static> {
            self.0.der().clone()
        }

        fn spki_sha256(&self) -> [u8; 32] {
            digest(&SHA256, &self.0.key().subject_public_key_info()).as_ref().try_into().unwrap()
        }

        fn server(&self, name: &str) -> Arc<ServerConfig> {
            let key = KeyPair::generate().unwrap();
            let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
            let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![leaf.der().clone()], key);
            let mut config = config.unwrap();
            config.alpn_protocols = vec![b"h2".to_vec()];
            Arc::new(config)
        }
    }

    fn handshake(config: ClientConfig, server: Arc<ServerConfig>, name: &'static str) -> Result<Vec<u8>, Error> {
        let name = ServerName::try_from(name).unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name)?;
        let mut server = ServerConnection::new(server)?;
        while client.is_handshaking() {
            let (mut up, mut down) = (Vec::new(), Vec::new());
            while client.wants_write() {
                client.write_tls(&mut up).unwrap();
            }
            server.read_tls(&mut up.as_slice()).unwrap();
            server.process_new_packets()?;
            while server.wants_write() {
                server.write_tls(&mut down).unwrap();
            }
            client.read_tls(&mut down.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok(client.alpn_protocol().unwrap_or_default().to_vec())
    }

    fn is_unknown_issuer(result: &Result<Vec<u8>, Error>) -> bool {
        matches!(result, Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)))
    }

    #[test]
    fn a_services_own_ca_is_trusted_for_that_service_alone() {
        let (system, extra) = (Root::new(), Root::new());
        let tls = ClientTls::with_system(&[system.der()], [0; 32]);
        let pem = extra.0.pem();
        let with = || tls.config(Some(pem.as_bytes()), &ALPN).unwrap();
        let without = || tls.config(None, &ALPN).unwrap();
        assert_eq!(handshake(with(), extra.server("api.test"), "api.test").unwrap(), b"h2");
        assert_eq!(handshake(with(), system.server("api.test"), "api.test").unwrap(), b"h2");
        assert_eq!(handshake(without(), system.server("api.test"), "api.test").unwrap(), b"h2");
        assert!(is_unknown_issuer(&handshake(without(), extra.server("api.test"), "api.test")));
        assert!(handshake(without(), system.server("api.test"), "other.test").is_err());
    }

    #[test]
    fn our_own_ca_never_vouches_for_an_upstream() {
        let (system, ours) = (Root::new(), Root::new());
        let tls = ClientTls::with_system(&[system.der(), ours.der()], ours.spki_sha256());
        assert_eq!(tls.system_roots(), 1);
        let config = tls.config(None, &ALPN).unwrap();
        assert!(is_unknown_issuer(&handshake(config, ours.server("api.test"), "api.test")));
        assert_eq!(tls.config(Some(ours.0.pem().as_bytes()), &ALPN).unwrap_err(), TlsError::OwnAuthority);
    }

    #[test]
    fn a_key_is_the_same_in_a_certificate_and_in_its_anchor() {
        let lengths: std::collections::HashSet<_> = webpki_root_certs::TLS_SERVER_ROOT_CERTS
            .iter()
            .map(|der| {
                let own = spki_sha256(der).unwrap();
                let store = ClientTls::with_system(std::slice::from_ref(der), [0; 32]).system;
                assert_eq!(spki_sha256_of(&store.roots[0]), Some(own));
                assert!(ClientTls::with_system(std::slice::from_ref(der), own).is_built_in);
                store.roots[0].subject_public_key_info.len()
            })
            .collect();
        assert!(lengths.iter().any(|length| *length < 0x80), "one byte of length");
        assert!(lengths.iter().any(|length| *length > 0xFF), "three");
        assert_eq!(
            spki_sha256_of(&TrustAnchor { subject_public_key_info: vec![0; 200].into(), ..anchor() })
                .map(hex::encode)
                .as_deref(),
            Some(hex::encode(digest(&SHA256, &[&[0x30, 0x81, 200][..], &[0; 200]].concat())).as_str()),
            "two"
        );
    }

    fn anchor() -> TrustAnchor<'static> {
        webpki_roots::TLS_SERVER_ROOTS[0].clone()
    }

    #[test]
    fn a_useless_upstream_ca_is_refused() {
        let tls = ClientTls::with_system(&[Root::new().der()], [0; 32]);
        let block = |body: &str| format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
        let key = KeyPair::generate().unwrap().serialize_pem();
        let cut = Root::new().0.pem().replace("-----END", "----END");
        let cases = [
            (String::new(), TlsError::Empty),
            ("no PEM".into(), TlsError::Empty),
            (key, TlsError::Empty),
            (block("AAAA"), TlsError::Malformed),
            (block("!!!!"), TlsError::Malformed),
            (Root::new().0.pem() + &block("AAAA"), TlsError::Malformed),
            (cut, TlsError::Malformed),
        ];
        for (pem, error) in cases {
            assert_eq!(tls.config(Some(pem.as_bytes()), &ALPN).unwrap_err(), error, "{pem}");
        }
    }

    #[test]
    fn without_system_roots_mozillas_stand_in() {
        let ours = Root::new();
        let tls = ClientTls::with_system(&[ours.der()], ours.spki_sha256());
        assert_eq!(tls.system_roots(), webpki_roots::TLS_SERVER_ROOTS.len());
        assert!(ClientTls::new([0; 32]).system_roots() > 0);
    }

    #[test]
    fn mozillas_do_not_take_over_where_there_were_roots() {
        let (first, second) = (Root::new(), Root::new());
        let trusts = |tls: &ClientTls, root: &Root| {
            handshake(tls.config(None, &ALPN).unwrap(), root.server("api.test"), "api.test").is_ok()
        };
        let tls = ClientTls::with_system(&[first.der()], [0; 32]);
        let kept = tls.renewed_with(&[]);
        assert!(trusts(&kept, &first) && kept.system_roots() == 1);
        let next = kept.renewed_with(&[second.der()]);
        assert!(trusts(&next, &second) && !trusts(&next, &first), "others are taken");
        let without = ClientTls::with_system(&[], [0; 32]).renewed_with(&[]);
        assert_eq!(without.system_roots(), webpki_roots::TLS_SERVER_ROOTS.len());
    }

    #[test]
    fn nothing_sent_early_and_nothing_logged() {
        let config = ClientTls::with_system(&[], [0; 32]).config(None, &[b"http/1.1"]).unwrap();
        assert!(!config.enable_early_data && config.enable_sni);
        assert!(!config.key_log.will_log("CLIENT_RANDOM"));
        assert_eq!(config.alpn_protocols, [b"http/1.1"]);
    }
}
