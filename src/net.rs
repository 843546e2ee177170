//! Names to addresses, addresses judged, judged addresses dialled.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::model::Destination;

/// Sends one destination elsewhere (`--connect-to HOST:PORT:ADDR:PORT`), and lets that address be private.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectTo {
    /// As named.
    pub from: Destination,
    /// As dialled.
    pub to: SocketAddr,
}

/// What addresses a destination may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Global unicast addresses only.
    Public,
    /// Also loopback, RFC 1918, unique local … (`private = true`); never metadata, never our own listeners.
    Private,
}

/// Why no connection was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// The name has no address.
    #[error("the name does not resolve")]
    Unresolved,
    /// An address that may not be dialled: private, metadata, or a listener of ours.
    #[error("the address is forbidden")]
    Forbidden,
    /// Nobody answered, or refused.
    #[error("the address cannot be reached")]
    Unreachable,
    /// It took longer than allowed.
    #[error("the connection was not made in time")]
    Timeout,
}

/// Resolves, judges and dials.
pub struct Dialer {}

impl Dialer {
    /// `own` are our listeners' addresses (never dialled, by any name or local address); `connect_timeout` bounds one dial.
    #[must_use]
    pub fn new(_overrides: Vec<ConnectTo>, _own: Vec<SocketAddr>, _connect_timeout: Duration) -> Self {
        todo!()
    }

    /// Resolves once, judges every address (one bad one refuses all), dials the judged ones in turn with
    /// `TCP_NODELAY`; returns the stream and the address that answered.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn dial(&self, _to: &Destination, _reach: Reach) -> Result<(TcpStream, SocketAddr), DialError> {
        todo!()
    }
}
