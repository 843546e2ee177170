//! Who the caller is, as far as it can be proven.
//!
//! On a Unix socket the kernel tells ([`socket_peer`]); on loopback TCP its table of sockets does ([`loopback_owner`],
//! [`redirected_owner`] and [`whence`], which `sockets` reads). Nothing that the caller says is believed.
//!
//! From further away it takes a secret or a signature: a certificate ([`chain_identity`]), the token of a file or
//! a JWT ([`Verifier`]).
//!
//! | file | holds |
//! | --- | --- |
//! | `verifier` | from `Authorization` to an identity |
//! | `prover` | the same for tokens that agents show to the proxy, which are known for a moment |
//! | `bearer`, `files` | the token of a file, and whom its mode lets in |
//! | `jwt` | a token, parsed once and strictly |
//! | `issuer` | whose token it is, and whom it names: a service account, a SPIFFE ID, a subject with claims |
//! | `jwks`, `keys`, `fetch` | public keys, where they come from, and how long they are believed |
//! | `workload` | the keys and the CAs of a SPIFFE trust domain, from the Workload API's streams |
//! | `review` | asking a cluster's API server instead |
//! | `scanning` | the signature of a secret scanner's report |
//! | `standing` | whether who has vouched still may |
//! | `certificate` | whom a client's certificate names |
//! | `client_ca` | certificates that agents show to the proxy, and whose CA may vouch for them |

mod bearer;
mod certificate;
mod client_ca;
mod fetch;
mod files;
#[doc(hidden)]
pub mod fuzzing;
mod issuer;
mod jwks;
mod jwt;
mod keys;
mod prover;
mod refused;
mod review;
mod scanning;
#[cfg(any(target_os = "linux", test))]
mod sockets;
mod standing;
mod verifier;
mod workload;

use std::net::SocketAddr;
use std::sync::Arc;

pub use certificate::{certificate_identity, chain_identity, is_certificate_name};
pub use client_ca::{CaSource, ClientCa, Shown};
pub use fetch::Address;
pub use files::{FileProblem, read_public, read_secret};
pub use issuer::{IssuerSpec, Kind, Proof, is_service_account, is_trust_domain, spiffe_id, trust_domain_of};
pub use jwks::{ALGORITHMS, Algorithm, Family};
pub use jwt::TOKEN_BYTES_MAX;
pub use prover::{Proof as TokenProof, Prover};
pub use refused::Refused;
pub use scanning::{Scanner, ScannerKeys};
pub use verifier::{Verifier, VerifierError};
pub use workload::WorkloadApi;

use crate::model::Identity;

/// What a policy says of proofs that come from further away.
#[derive(Debug, Clone, Default)]
pub struct Identities {
    /// Paths of files with tokens.
    pub bearers: Vec<Arc<str>>,
    /// Whose tokens are believed.
    pub issuers: Vec<IssuerSpec>,
    /// Whose certificates are believed, of agents.
    pub client_cas: Vec<ClientCa>,
}

/// The owner of the other end of a loopback TCP connection; `None` when it cannot be proven (remote peer, other
/// network namespace, the socket is gone, more than 65,536 sockets). `peer` is the client's end, `local` ours.
///
/// Both ends must be loopback addresses, or one and the same address of this machine. The answer comes from
/// `/proc/self/net/tcp` and `tcp6`, and only for a socket that a process still holds: the kernel shows uid 0 for the
/// rest. Ask right after `accept`: once the client has closed, nothing can be proven of it any more.
///
/// Reads a file of some 150 bytes a socket: in async code, call it from `spawn_blocking`. The uid is the one that
/// made the socket, as this user namespace sees it; users that it does not know all look like the overflow uid
/// (65534), which therefore is nobody to trust. Elsewhere than on Linux the answer is always `None`.
#[must_use]
pub fn loopback_owner(peer: SocketAddr, local: SocketAddr) -> Option<Identity> {
    #[cfg(target_os = "linux")]
    return sockets::owner(canonical(peer), canonical(local)).map(Identity::Uid);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (peer, local);
        None
    }
}

/// The owner of the client's end of a redirected TCP connection; `None` when it cannot be proven. `peer` is the client's
/// end as we see it, `original` where the client wanted to go, as the kernel says.
///
/// The client's own socket has exactly these two addresses, if it is in this network namespace and its source was not
/// translated as well; its address must be one of this machine's. Ask at `accept`, before anybody can open another
/// socket with these addresses: where two sockets of one port go to different places, the kernel gives one of them
/// another source port on its way to us, and for that one nothing can be proven. Cost and limits are those of
/// [`loopback_owner`].
#[must_use]
pub fn redirected_owner(peer: SocketAddr, original: SocketAddr) -> Option<Identity> {
    #[cfg(target_os = "linux")]
    return sockets::owner_of_redirected(canonical(peer), canonical(original)).map(Identity::Uid);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (peer, original);
        None
    }
}

/// Where a TCP connection comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whence {
    /// From an address that this machine does not have.
    Elsewhere,
    /// From this machine: by whom, where the kernel tells.
    Here(Option<Identity>),
}

/// Where the client's end of a TCP connection is. `peer` is the client's end, `local` ours.
///
/// Every address to which a socket of ours can be bound counts as this machine's: with `ip_nonlocal_bind` set, that is
/// any. Of a connection that was redirected on its way, or whose source was translated, the kernel's table does not tell
/// the owner. Cost and limits are those of [`loopback_owner`]. Elsewhere than on Linux nobody is known to be here.
#[must_use]
pub fn whence(peer: SocketAddr, local: SocketAddr) -> Whence {
    #[cfg(target_os = "linux")]
    return if sockets::is_of_this_machine(peer) {
        Whence::Here(sockets::lookup(canonical(peer), canonical(local)).map(Identity::Uid))
    } else {
        Whence::Elsewhere
    };
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (peer, local);
        Whence::Elsewhere
    }
}

/// This process, as the functions above would name it.
#[must_use]
pub fn own() -> Identity {
    Identity::Uid(rustix::process::geteuid().as_raw())
}

/// The peer of a Unix socket (`SO_PEERCRED`): the effective uid at the time of its `connect`.
///
/// `None` when the kernel does not say, and elsewhere than on Linux.
#[must_use]
pub fn socket_peer(stream: &tokio::net::UnixStream) -> Option<Identity> {
    #[cfg(target_os = "linux")]
    return stream.peer_cred().ok().map(|peer| Identity::Uid(peer.uid()));
    #[cfg(not(target_os = "linux"))]
    {
        let _ = stream;
        None
    }
}

/// IPv4 in IPv6 is IPv4: a dual-stack listener sees it as the former.
#[cfg(target_os = "linux")]
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::io::{Read, Write};
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};

    use super::*;

    fn me() -> Option<Identity> {
        Some(Identity::Uid(rustix::process::getuid().as_raw()))
    }

    /// A client of this process, and what the listener sees: its stream, the peer, itself.
    fn connect(listen: IpAddr, to: IpAddr) -> (TcpStream, TcpStream, SocketAddr, SocketAddr) {
        let listener = TcpListener::bind((listen, 0)).unwrap();
        let client = TcpStream::connect((to, listener.local_addr().unwrap().port())).unwrap();
        let (server, peer) = listener.accept().unwrap();
        let local = server.local_addr().unwrap();
        (client, server, peer, local)
    }

    #[test]
    fn the_owner_of_a_loopback_connection_is_proven() {
        for address in
            [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv4Addr::new(127, 3, 2, 1).into(), Ipv6Addr::LOCALHOST.into()]
        {
            let (_client, _server, peer, local) = connect(address, address);
            assert_eq!(loopback_owner(peer, local), me(), "{address}");
            assert_eq!(loopback_owner(local, peer), me(), "{address}: our own end is ours as well");
        }
    }

    #[test]
    fn ipv4_is_recognised_in_ipv6_on_either_side() {
        let mapped = IpAddr::from(Ipv4Addr::LOCALHOST.to_ipv6_mapped());
        let (_client, _server, peer, local) = connect(mapped, Ipv4Addr::LOCALHOST.into());
        assert_eq!(loopback_owner(peer, local), me(), "a listener that sees IPv4 as IPv6");
        let (_client, _server, peer, local) = connect(Ipv4Addr::LOCALHOST.into(), mapped);
        assert_eq!(loopback_owner(peer, local), me(), "a client that speaks IPv4 on an IPv6 socket");
    }

    #[test]
    fn a_client_that_only_stopped_sending_is_still_proven() {
        let (client, mut server, peer, local) = connect(Ipv4Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into());
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(server.read(&mut [0; 1]).unwrap(), 0);
        assert_eq!(loopback_owner(peer, local), me());
    }

    #[test]
    fn a_client_that_closed_is_nobody() {
        let (client, mut server, peer, local) = connect(Ipv4Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into());
        drop(client);
        assert_eq!(server.read(&mut [0; 1]).unwrap(), 0);
        assert_eq!(loopback_owner(peer, local), None, "half closed by a process that is gone");
        drop(server);
        assert_eq!(loopback_owner(peer, local), None, "in TIME_WAIT");
    }

    #[test]
    fn the_owner_of_a_redirected_connection_is_looked_up_by_where_it_was_going() {
        // Without redirection, the listener's own address is where it was going.
        let (client, _server, peer, local) = connect(Ipv4Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into());
        assert_eq!(redirected_owner(peer, local), me());
        assert_eq!(redirected_owner(peer, "192.0.2.1:443".parse().unwrap()), None, "another destination");
        assert_eq!(redirected_owner("192.0.2.1:4000".parse().unwrap(), local), None, "another machine's address");
        drop(client);
        assert_eq!(redirected_owner(peer, local), None, "gone");
    }

    #[test]
    fn who_is_here_and_cannot_be_told_is_not_elsewhere() {
        let (client, _server, peer, local) = connect(Ipv4Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into());
        assert_eq!(whence(peer, local), Whence::Here(me()));
        assert_eq!(whence(peer, "192.0.2.1:443".parse().unwrap()), Whence::Here(None), "redirected on its way");
        assert_eq!(whence("192.0.2.1:4000".parse().unwrap(), local), Whence::Elsewhere);
        assert_eq!(whence("[fe80::1]:4000".parse().unwrap(), local), Whence::Here(None), "of which interface?");
        drop(client);
        assert_eq!(whence(peer, local), Whence::Here(None), "gone");
    }

    #[test]
    fn an_unknown_port_is_nobody() {
        let (_client, _server, peer, local) = connect(Ipv4Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into());
        let other = SocketAddr::new(local.ip(), local.port() ^ 1);
        assert_eq!(loopback_owner(peer, other), None);
        assert_eq!(loopback_owner(other, local), None);
    }

    #[tokio::test]
    async fn the_peer_of_a_unix_socket_is_proven() {
        let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
        assert_eq!(socket_peer(&ours), me());
        assert_eq!(socket_peer(&theirs), me());
    }

    #[test]
    fn the_client_may_have_sent_already() {
        let (mut client, _server, peer, local) = connect(Ipv6Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
        client.write_all(b"CONNECT").unwrap();
        assert_eq!(loopback_owner(peer, local), me());
    }
}
