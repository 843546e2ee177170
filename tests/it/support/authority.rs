//! A CA made at run time, for the fake upstreams.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// A CA that only these tests know.
pub struct TestAuthority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

impl TestAuthority {
    pub fn new() -> Arc<Self> {
        let (key, params) = Self::parts("test upstream CA");
        let certificate = params.self_signed(&key).expect("a certificate");
        Arc::new(Self { issuer: Issuer::new(params, key), pem: certificate.pem() })
    }

    /// Its certificate.
    pub fn der(&self) -> CertificateDer<'static> {
        use rustls::pki_types::pem::PemObject;
        CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("a certificate")
    }

    /// Another CA that this one vouches for, changed by `edit`, and its certificate.
    pub fn below(&self, name: &str, edit: impl FnOnce(&mut CertificateParams)) -> (Self, CertificateDer<'static>) {
        let (key, mut params) = Self::parts(name);
        edit(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (Self { issuer: Issuer::new(params, key), pem: certificate.pem() }, certificate.der().clone())
    }

    fn parts(name: &str) -> (KeyPair, CertificateParams) {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        (KeyPair::generate().expect("a key"), params)
    }

    /// A certificate for these names, changed by `edit`.
    pub fn leaf(
        &self,
        names: &[&str],
        edit: impl FnOnce(&mut CertificateParams),
    ) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("parameters");
        edit(&mut params);
        let leaf = params.signed_by(&key, &self.issuer).expect("a leaf");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        (vec![leaf.der().clone()], key)
    }

    /// A TLS server configuration for these names.
    pub fn server(&self, names: &[&str], alpn: &[&[u8]]) -> rustls::ServerConfig {
        let (chain, key) = self.leaf(names, |_| {});
        server_config(chain, key, alpn)
    }
}

/// A server configuration, with the ring provider.
pub fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    alpn: &[&[u8]],
) -> rustls::ServerConfig {
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate");
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}
