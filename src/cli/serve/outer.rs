//! The proxy's listener over TLS: its flags.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use crate::cli::Failure;
use crate::identity::Identities;
use crate::proxy::outer::OuterTls;

/// Flags of the proxy's listener over TLS.
#[derive(Debug, Clone, Args)]
pub struct OuterArguments {
    /// Where agents connect over TLS, beside --listen, for https:// proxy URLs and certificates; port 0 takes a free one.
    #[arg(long, env = "VALETKEY_LISTEN_TLS", value_name = "ADDR")]
    pub listen_tls: Option<SocketAddr>,

    /// The certificate chain of --listen-tls, PEM.
    #[arg(long, env = "VALETKEY_LISTEN_TLS_CERT", value_name = "FILE")]
    pub listen_tls_cert: Option<PathBuf>,

    /// Its private key, PEM; at most 0640.
    #[arg(long, env = "VALETKEY_LISTEN_TLS_KEY", value_name = "FILE")]
    pub listen_tls_key: Option<PathBuf>,
}

impl OuterArguments {
    /// Flags that do not fit together.
    pub fn check(&self) -> Result<(), Failure> {
        let files = [&self.listen_tls_cert, &self.listen_tls_key];
        match self.listen_tls {
            None if files.iter().any(|file| file.is_some()) => {
                Err(Failure::usage("--listen-tls-… are about --listen-tls, which is not there"))
            }
            Some(_) if files.iter().any(|file| file.is_none()) => {
                Err(Failure::usage("--listen-tls needs --listen-tls-cert FILE and --listen-tls-key FILE"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Reads certificate and key, before anything is bound.
    pub(super) fn tls(&self, identities: &Identities) -> Result<Option<Arc<OuterTls>>, Failure> {
        let (Some(certificate), Some(key)) = (&self.listen_tls_cert, &self.listen_tls_key) else {
            if !identities.client_cas.is_empty() {
                tracing::warn!("the policy has [client_cas], and without --listen-tls no agent can show a certificate");
            }
            return Ok(None);
        };
        OuterTls::read(certificate, key).map(Some).map_err(Failure::authority)
    }
}
