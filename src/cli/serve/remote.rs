//! The control listener for callers from elsewhere: its flags, and what it is put together from.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use clap::Args;
use tokio::net::TcpListener;

use crate::cli::Failure;
use crate::clock::SharedClock;
use crate::control::{Remote, RemoteTls, Trust};
use crate::identity::{Identities, Prover, Verifier};
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

    /// The certificate and the key, and the CAs of callers.
    fn tls(&self) -> Result<Option<RemoteTls>, Failure> {
        let (Some(certificate), Some(key)) = (&self.control_tls_cert, &self.control_tls_key) else { return Ok(None) };
        RemoteTls::read(certificate, key, self.control_client_ca.as_deref()).map(Some).map_err(Failure::authority)
    }
}

/// Makes what agents and callers from elsewhere are proven by, at the start and whenever the policy changes.
pub(super) struct Gate {
    tls: Option<Arc<RemoteTls>>,
    /// Without the local CA, which vouches for no key server.
    roots: ClientTls,
    own_pod: Option<String>,
    clock: SharedClock,
    dialer: Arc<Dialer>,
    trust: Option<Arc<ArcSwap<Trust>>>,
}

impl Gate {
    /// Reads the files of the listener, if there is to be one, before anything is bound.
    pub(super) fn tls(arguments: &RemoteArguments, policy: &Policy) -> Result<Option<Arc<RemoteTls>>, Failure> {
        let Some(tls) = arguments.tls()? else { return Ok(None) };
        refuse_listed(&tls, policy)?;
        Ok(Some(Arc::new(tls)))
    }

    /// Key servers are dialled by `dialer` and verified against `roots`.
    pub(super) fn new(
        arguments: &RemoteArguments,
        tls: Option<Arc<RemoteTls>>,
        roots: ClientTls,
        dialer: Arc<Dialer>,
        clock: SharedClock,
    ) -> Self {
        Self { tls, roots, own_pod: arguments.pod_uid.clone(), clock, dialer, trust: None }
    }

    /// What proves agents, and the listener, if there is one.
    pub(super) fn open(
        &mut self,
        listener: Option<TcpListener>,
        identities: Identities,
        policy: Arc<Policy>,
    ) -> Result<(Arc<Prover>, Option<Remote>), Failure> {
        let verifier = self.verifier(identities)?;
        let prover = Prover::new(verifier.clone(), self.clock.clone());
        let remote = listener.zip(self.tls.clone()).map(|(listener, tls)| {
            let trust = Arc::new(ArcSwap::from_pointee(Trust { verifier, policy }));
            self.trust = Some(trust.clone());
            Remote { listener, tls, trust }
        });
        Ok((prover, remote))
    }

    /// What proves the identities of a policy that is to be in force in the place of one whose are proven by `verifier`.
    pub(super) fn review(
        &self,
        identities: Identities,
        policy: &Policy,
        verifier: &Arc<Verifier>,
    ) -> Result<Arc<Verifier>, Failure> {
        if let Some(tls) = &self.tls {
            refuse_listed(tls, policy)?;
        }
        if verifier.is_of(&identities) {
            return Ok(verifier.clone());
        }
        verifier.renewed(identities, &self.dialer, &self.roots).map(Arc::new).map_err(Failure::authority)
    }

    /// Puts a policy and what proves its identities in force for the listener, if there is one.
    pub(super) fn adopt(&self, verifier: Arc<Verifier>, policy: Arc<Policy>) {
        if let Some(trust) = &self.trust {
            trust.store(Arc::new(Trust { verifier, policy }));
        }
    }

    /// What proves the identities of a policy, of agents and of callers from elsewhere.
    fn verifier(&self, identities: Identities) -> Result<Arc<Verifier>, Failure> {
        let verifier = Verifier::new(identities, self.own_pod.clone(), &self.dialer, &self.roots, self.clock.clone());
        verifier.map(Arc::new).map_err(Failure::authority)
    }
}

/// Behind a name of its own (a service of a cluster) the listener has addresses that nobody here knows.
fn refuse_listed(tls: &RemoteTls, policy: &Policy) -> Result<(), Failure> {
    let listed = tls.hosts().into_iter().find(|host| Host::parse(host).is_ok_and(|host| policy.lists_host(&host)));
    match listed {
        Some(host) => Err(Failure::usage(format!(
            "the certificate of --control-tcp has the name {host}, which a service of the policy lists: \
             agents must not reach the control API",
        ))),
        None => Ok(()),
    }
}
