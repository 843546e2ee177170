//! The listeners: what may be served on them, and their sockets, bound before anything is started.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

use super::Arguments;
use crate::cli::Failure;
use crate::control;
use crate::model::IdentityRule;
use crate::net::intercept::{self, Interception};
use crate::policy::{Policy, ProxyAuth};
use crate::proxy::Proxy;
use crate::proxy::accept::Entrance;

/// Refuses what the policy does not allow on these listeners.
pub(super) fn check(arguments: &Arguments, policy: &Policy) -> Result<(), Failure> {
    refuse_any_beyond_loopback(arguments, policy)?;
    refuse_clients_that_cannot_authenticate(arguments, policy)
}

/// Who is redirected knows of no proxy, and sends it no credentials.
fn refuse_clients_that_cannot_authenticate(arguments: &Arguments, policy: &Policy) -> Result<(), Failure> {
    if policy.proxy_auth() == ProxyAuth::Required && !arguments.transparent.is_empty() {
        return Err(Failure::usage(
            "egress.proxy_auth = \"required\" and --transparent do not go together: redirected clients send a proxy no credentials",
        ));
    }
    Ok(())
}

fn refuse_any_beyond_loopback(arguments: &Arguments, policy: &Policy) -> Result<(), Failure> {
    let is_open = policy.agent_rules().iter().any(|agent| agent.identities.contains(&IdentityRule::Any));
    match arguments.beyond_loopback() {
        Some(what) if is_open => Err(Failure::address(format!(
            "an agent with identity = [\"any\"] is only allowed on loopback, and {what} is beyond it; name who may present its nonces",
        ))),
        Some(_) | None => Ok(()),
    }
}

/// The listeners, bound before anything is started.
pub(super) struct Listeners {
    pub(super) proxy: TcpListener,
    pub(super) outer: Option<TcpListener>,
    pub(super) transparent: Vec<(TcpListener, Entrance)>,
    pub(super) admin: TcpListener,
    pub(super) control: ControlSocket,
    pub(super) remote: Option<TcpListener>,
    pub(super) reports: Option<TcpListener>,
}

/// Where the control API is served.
pub(super) enum ControlSocket {
    Path(UnixListener),
    Channel(UnixStream),
}

/// Addresses that were bound; none of them may be dialled.
pub(super) struct Bound {
    pub(super) proxy: SocketAddr,
    pub(super) outer: Option<SocketAddr>,
    pub(super) transparent: Vec<SocketAddr>,
    pub(super) admin: SocketAddr,
    pub(super) remote: Option<SocketAddr>,
    pub(super) reports: Option<SocketAddr>,
}

impl Bound {
    pub(super) fn of(listeners: &Listeners) -> Result<Self, Failure> {
        let address = |listener: &TcpListener| listener.local_addr().map_err(Failure::address);
        let transparent = listeners.transparent.iter().map(|(listener, _)| address(listener));
        Ok(Self {
            proxy: address(&listeners.proxy)?,
            outer: listeners.outer.as_ref().map(address).transpose()?,
            transparent: transparent.collect::<Result<_, _>>()?,
            admin: address(&listeners.admin)?,
            remote: listeners.remote.as_ref().map(address).transpose()?,
            reports: listeners.reports.as_ref().map(address).transpose()?,
        })
    }

    pub(super) fn own(&self) -> Vec<SocketAddr> {
        let optional = [self.outer, self.remote, self.reports].into_iter().flatten();
        [self.proxy, self.admin].into_iter().chain(optional).chain(self.transparent.iter().copied()).collect()
    }
}

pub(super) async fn bind(arguments: &Arguments, channel: Option<UnixStream>) -> Result<Listeners, Failure> {
    let proxy = bind_tcp(arguments.listen, "--listen").await?;
    let outer = match arguments.outer.listen_tls {
        Some(address) => Some(bind_tcp(address, "--listen-tls").await?),
        None => None,
    };
    let transparent = arguments.transparent.iter().map(|address| bind_transparent(*address, arguments.interception()));
    let transparent = transparent.collect::<Result<_, _>>()?;
    let admin = bind_tcp(arguments.admin, "--admin").await?;
    let remote = match arguments.remote.control_tcp {
        Some(address) => Some(bind_tcp(address, "--control-tcp").await?),
        None => None,
    };
    let reports = match arguments.reports.leaks_tcp {
        Some(address) => Some(bind_tcp(address, "--leaks-tcp").await?),
        None => None,
    };
    let control = match channel {
        Some(channel) => ControlSocket::Channel(channel),
        None => {
            let bound = control::bind(&arguments.control, arguments.control_group);
            ControlSocket::Path(bound.map_err(Failure::address)?)
        }
    };
    Ok(Listeners { proxy, outer, transparent, admin, control, remote, reports })
}

async fn bind_tcp(address: SocketAddr, flag: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::address(format!("cannot listen on {flag} {address}: {error} (is it in use? port 0 takes a free one)"))
    })
}

fn bind_transparent(address: SocketAddr, interception: Interception) -> Result<(TcpListener, Entrance), Failure> {
    let listener = intercept::listen(address, interception).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied if interception == Interception::Tproxy => "--tproxy needs CAP_NET_ADMIN",
            io::ErrorKind::Unsupported => "only Linux redirects connections",
            _ => "is it in use? port 0 takes a free one",
        };
        Failure::address(format!("cannot listen on --transparent {address}: {error} ({hint})"))
    })?;
    Ok((listener, Entrance::Transparent(interception)))
}

pub(super) fn texts(addresses: &[SocketAddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

/// Until it is stopped; the readiness probe tells of one that could not begin.
pub(super) async fn serve_agents(proxy: Arc<Proxy>, listeners: Vec<(TcpListener, Entrance)>, stop: CancellationToken) {
    let sockets = listeners.into_iter().map(|(listener, entrance)| Ok((listener.into_std()?, entrance)));
    let outcome = match sockets.collect() {
        Ok(sockets) => proxy.run(sockets, stop).await,
        Err(error) => Err(error),
    };
    if let Err(error) = outcome {
        tracing::error!(%error, "cannot serve agents");
    }
}
