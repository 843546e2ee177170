//! TLS with a client certificate: one configuration for each service, of the certificate's latest version.
//!
//! Upstream takes a resumed session for the client that began it, so that sessions belong to one service and one version of
//! its certificate: nothing that goes without one, or with another, takes them up.

use std::sync::Arc;

use dashmap::DashMap;
use rustls::ClientConfig;
use rustls::client::ResolvesClientCert;
use rustls::sign::SingleCertAndKey;

use crate::model::{CredentialName, ServiceName};
use crate::net::tls::apart;
use crate::proxy::inject::Shown;

/// The configurations with certificates; as many as there are services that have one.
#[derive(Default)]
pub(super) struct Certified(DashMap<ServiceName, Known>);

struct Known {
    name: CredentialName,
    version: u64,
    config: Arc<ClientConfig>,
}

impl Known {
    fn of(plain: &ClientConfig, shown: &Shown) -> Self {
        let (name, version) = shown.version().clone();
        Self { name, version, config: showing(plain, shown) }
    }
}

impl Certified {
    /// That of a service, whose own without a certificate is `plain`. A service has one certificate as long as its policy
    /// is in force.
    pub(super) fn config(&self, service: &ServiceName, plain: &ClientConfig, shown: &Shown) -> Arc<ClientConfig> {
        let version = shown.version().1;
        let mut known = self.0.entry(service.clone()).or_insert_with(|| Known::of(plain, shown));
        if known.version > version {
            // A request that is late: what it makes is remembered by nobody.
            return showing(plain, shown);
        }
        if known.version < version {
            *known = Known::of(plain, shown);
        }
        Arc::clone(&known.config)
    }

    /// Drops those with these certificates.
    pub(super) fn forget(&self, may_go: &dyn Fn(&CredentialName) -> bool) {
        self.0.retain(|_, known| !may_go(&known.name));
    }
}

/// The same trust and a memory of sessions of its own. The certificate is shown once the upstream's own has been verified
/// (RFC 8446, 4.4.2; RFC 5246, 7.4.6), and only where it asks.
fn showing(plain: &ClientConfig, shown: &Shown) -> Arc<ClientConfig> {
    let mut config = apart(plain);
    let resolver: Arc<dyn ResolvesClientCert> = Arc::new(SingleCertAndKey::from(shown.signer()));
    config.client_auth_cert_resolver = resolver;
    Arc::new(config)
}
