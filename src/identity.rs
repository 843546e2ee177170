//! Who the caller is, as far as it can be proven.

use std::net::SocketAddr;

use crate::model::Identity;

/// The owner of the other end of a loopback TCP connection; `None` when it cannot be proven (remote peer, other
/// network namespace, the socket is gone). `peer` is the client's end, `local` ours.
#[must_use]
pub fn loopback_owner(_peer: SocketAddr, _local: SocketAddr) -> Option<Identity> {
    todo!()
}

/// The peer of a Unix socket (`SO_PEERCRED`).
#[must_use]
pub fn socket_peer(_stream: &tokio::net::UnixStream) -> Option<Identity> {
    todo!()
}
