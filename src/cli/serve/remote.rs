//! The control listener for callers from elsewhere: its flags, and what it is put together from.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use tokio::net::TcpListener;

use crate::authority::Authority;
use crate::cli::Failure;
use crate::clock::SharedClock;
use crate::control::{Remote, RemoteTls};
use crate::identity::{Identities, Verifier};
use crate::model::Host;
use crate::net::Dialer;
use crate::net::tls::ClientTls;
use crate::policy::Policy;

/// Flags of the control listener over TLS.
#[derive(Debug, Clone, Args)]
pub struct RemoteArguments {
    /// Serve the control API over TLS here too, for orchestrators elsewhere; port 0 takes a free one.
    #[arg(long, env = "VALETKEY_CONTROL_TCP", value_name = "ADDR")]
    pub control_tcp: Option<SocketAddr>,

    /// The certificate chain of --control-tcp, PEM; its names are those by which it may be called.
    #[arg(long, env = "VALETKEY_CONTROL_TLS_CERT", value_name = "FILE")]
    pub control_tls_cert: Option<PathBuf>,

    /// Its private key, PEM; at most 0640.
    #[arg(long, env = "VALETKEY_CONTROL_TLS_KEY", value_name = "FILE")]
    pub control_tls_key: Option<PathBuf>,

    /// CAs whose certificates prove callers of --control-tcp, PEM.
    #[arg(long, env = "VALETKEY_CONTROL_CLIENT_CA", value_name = "FILE")]
    pub control_client_ca: Option<PathBuf>,

    /// The uid of the Kubernetes pod that this sidecar runs in: no token of it may mint.
    #[arg(long, env = "VALETKEY_POD_UID", value_name = "UID")]
    pub pod_uid: Option<String>,
}

impl RemoteArguments {
    /// Flags that do not fit together.
    pub fn check(&self, supervised: bool) -> Result<(), Failure> {
        let files = [&self.control_tls_cert, &self.control_tls_key, &self.control_client_ca];
        match self.control_tcp {
            Some(_) if supervised => Err(Failure::usage(
                "--supervised serves the control API on its channel alone: --control-tcp is too much",
            )),
            Some(_) if self.control_tls_cert.is_none() || self.control_tls_key.is_none() => Err(Failure::usage(
                "--control-tcp is served over TLS alone: name --control-tls-cert FILE and --control-tls-key FILE",
            )),
            None if files.iter().any(|file| file.is_some()) => Err(Failure::usage(
                "--control-tls-… and --control-client-ca are about --control-tcp, which is not there",
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// The certificate and the key, read before anything is bound.
    pub(super) fn tls(&self, policy: &Policy) -> Result<Option<RemoteTls>, Failure> {
        let (Some(certificate), Some(key)) = (&self.control_tls_cert, &self.control_tls_key) else { return Ok(None) };
        let tls = RemoteTls::read(certificate, key, self.control_client_ca.as_deref()).map_err(Failure::authority)?;
        // Behind a name of its own (a service of a cluster) the listener has addresses that nobody here knows.
        let listed = tls.hosts().into_iter().find(|host| Host::parse(host).is_ok_and(|host| policy.lists_host(&host)));
        match listed {
            Some(host) => Err(Failure::usage(format!(
                "the certificate of --control-tcp has the name {host}, which a service of the policy lists: \
                 agents must not reach the control API",
            ))),
            None => Ok(Some(tls)),
        }
    }
}

/// What proves callers from elsewhere, and where they arrive.
pub(super) struct Gate<'a> {
    pub(super) arguments: &'a RemoteArguments,
    pub(super) identities: Identities,
    pub(super) authority: &'a Authority,
    pub(super) dialer: &'a Arc<Dialer>,
    pub(super) clock: SharedClock,
}

impl Gate<'_> {
    /// Puts the listener together, if there is one.
    pub(super) fn open(self, listener: Option<TcpListener>, tls: Option<RemoteTls>) -> Result<Option<Remote>, Failure> {
        let Some((listener, tls)) = listener.zip(tls) else { return Ok(None) };
        // The local CA vouches for no key server.
        let roots = ClientTls::new(self.authority.public_key_sha256());
        let own_pod = self.arguments.pod_uid.clone();
        let verifier = Verifier::new(self.identities, own_pod, self.dialer, &roots, self.clock);
        Ok(Some(Remote { listener, tls: Arc::new(tls), verifier: verifier.map_err(Failure::authority)? }))
    }
}
