//! The listener for reports of leaks: its flags, and what it is put together from.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use crate::cli::Failure;
use crate::clock::SharedClock;
use crate::control::RemoteTls;
use crate::identity::{Address, Scanner, ScannerKeys};
use crate::net::Dialer;
use crate::net::tls::ClientTls;

/// Flags of the listener for reports of leaks.
#[derive(Debug, Clone, Args)]
pub struct ReportArguments {
    /// Take reports of leaked nonces here, over TLS, from outside; port 0 takes a free one.
    #[arg(long, env = "VALETKEY_LEAKS_TCP", value_name = "ADDR")]
    pub leaks_tcp: Option<SocketAddr>,

    /// The certificate chain of --leaks-tcp, PEM.
    #[arg(long, env = "VALETKEY_LEAKS_TLS_CERT", value_name = "FILE")]
    pub leaks_tls_cert: Option<PathBuf>,

    /// Its private key, PEM; at most 0640.
    #[arg(long, env = "VALETKEY_LEAKS_TLS_KEY", value_name = "FILE")]
    pub leaks_tls_key: Option<PathBuf>,

    /// Take signed reports in GitHub's format too; the public keys: an https:// URL, or a file.
    #[arg(long, env = "VALETKEY_LEAKS_GITHUB_KEYS", value_name = "URL|FILE", value_parser = keys)]
    pub leaks_github_keys: Option<ScannerKeys>,

    /// More roots for the server of --leaks-github-keys, PEM.
    #[arg(long, env = "VALETKEY_LEAKS_GITHUB_CA", value_name = "FILE")]
    pub leaks_github_ca: Option<PathBuf>,
}

impl ReportArguments {
    /// Flags that do not fit together.
    pub fn check(&self) -> Result<(), Failure> {
        let files = [&self.leaks_tls_cert, &self.leaks_tls_key, &self.leaks_github_ca];
        let is_named = files.iter().any(|file| file.is_some()) || self.leaks_github_keys.is_some();
        let is_served = matches!(self.leaks_github_keys, Some(ScannerKeys::Server(_)));
        match self.leaks_tcp {
            None if is_named => {
                Err(Failure::usage("--leaks-tls-… and --leaks-github-… are about --leaks-tcp, which is not there"))
            }
            Some(_) if self.leaks_tls_cert.is_none() || self.leaks_tls_key.is_none() => Err(Failure::usage(
                "--leaks-tcp is served over TLS alone: name --leaks-tls-cert FILE and --leaks-tls-key FILE",
            )),
            Some(_) if self.leaks_github_ca.is_some() && !is_served => {
                Err(Failure::usage("--leaks-github-ca is about the server of --leaks-github-keys, which is not there"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Reads certificate and key, before anything is bound.
    pub(super) fn tls(&self) -> Result<Option<Arc<RemoteTls>>, Failure> {
        let (Some(certificate), Some(key)) = (&self.leaks_tls_cert, &self.leaks_tls_key) else { return Ok(None) };
        RemoteTls::read(certificate, key, None).map(|tls| Some(Arc::new(tls))).map_err(Failure::authority)
    }

    /// What proves a scanner's reports. Key servers are dialled by `dialer`.
    pub(super) fn scanner(
        &self,
        roots: &ClientTls,
        dialer: Arc<Dialer>,
        clock: SharedClock,
    ) -> Result<Option<Scanner>, Failure> {
        let Some(keys) = self.leaks_github_keys.clone() else { return Ok(None) };
        let ca = match &self.leaks_github_ca {
            None => None,
            Some(path) => Some(
                std::fs::read(path)
                    .map_err(|error| Failure::authority(format!("--leaks-github-ca {}: {error}", path.display())))?,
            ),
        };
        Scanner::new(keys, ca.as_deref(), dialer, roots, clock).map(Some).map_err(Failure::authority)
    }
}

fn keys(text: &str) -> Result<ScannerKeys, String> {
    if text.contains("://") {
        let address = Address::parse(text).ok_or("expected https://HOST[:PORT]/PATH, or a file")?;
        return Ok(ScannerKeys::Server(address));
    }
    Ok(ScannerKeys::File(text.into()))
}
