//! Connections that clients meant for somebody else, and the kernel gave to us: where they were going.
//!
//! Redirected by nftables or iptables (`REDIRECT`), the connection's entry in conntrack remembers it; by `TPROXY` the
//! accepted socket has the original destination as its own address.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};

/// Connections that wait to be accepted at most.
const BACKLOG: i32 = 1024;

/// What a transparent listener takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interception {
    /// Connections redirected by address translation.
    Redirect,
    /// Also those that `TPROXY` assigned to the listener; that needs `CAP_NET_ADMIN`.
    Tproxy,
}

/// Listens for redirected connections.
///
/// # Errors
/// As `bind`; `PermissionDenied` for [`Interception::Tproxy`] without `CAP_NET_ADMIN`; `Unsupported` elsewhere than on
/// Linux.
#[cfg(target_os = "linux")]
pub fn listen(address: SocketAddr, interception: Interception) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    match interception {
        Interception::Redirect => {}
        Interception::Tproxy if address.is_ipv4() => socket.set_ip_transparent_v4(true)?,
        Interception::Tproxy => socket.set_ip_transparent_v6(true)?,
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Elsewhere nobody could say where a connection was going.
///
/// # Errors
/// Always `Unsupported`.
#[cfg(not(target_os = "linux"))]
pub fn listen(_address: SocketAddr, _interception: Interception) -> io::Result<TcpListener> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Where a connection was going (`SO_ORIGINAL_DST`, `IP6T_SO_ORIGINAL_DST`), IPv4 in IPv6 as IPv4; `local` is the
/// accepted socket's own address.
///
/// `None` for a connection that came straight to us, as far as the kernel knows: its entry in conntrack, if there is
/// one, names the address at which it arrived. With [`Interception::Tproxy`] that address is the answer, and the caller
/// has to tell our own listeners' from others'.
#[must_use]
pub fn original(stream: &TcpStream, local: SocketAddr, interception: Interception) -> Option<SocketAddr> {
    let local = canonical(local);
    match translated(stream, local).filter(|original| *original != local) {
        Some(original) => Some(original),
        None => match interception {
            Interception::Redirect => None,
            Interception::Tproxy => Some(local),
        },
    }
}

#[cfg(target_os = "linux")]
fn translated(stream: &TcpStream, local: SocketAddr) -> Option<SocketAddr> {
    let socket = socket2::SockRef::from(stream);
    let original = if local.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    original.ok()?.as_socket().map(canonical)
}

#[cfg(not(target_os = "linux"))]
fn translated(_stream: &TcpStream, _local: SocketAddr) -> Option<SocketAddr> {
    None
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_that_came_straight_to_us_was_going_nowhere_else() {
        let listener = listen("127.0.0.1:0".parse().unwrap(), Interception::Redirect).unwrap();
        let address = listener.local_addr().unwrap();
        let (_client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (stream, _) = accepted.unwrap();
        let local = stream.local_addr().unwrap();
        assert_eq!(original(&stream, local, Interception::Redirect), None);
        assert_eq!(original(&stream, local, Interception::Tproxy), Some(address), "the caller knows it as its own");
    }
}
