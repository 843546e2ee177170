//! Tunnels to hosts that no service lists, where the policy lets them through: relayed unread, never with a credential.

use hyper::upgrade::OnUpgrade;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Proxy;
use super::connect::Tunnel;
use super::decrypt::{Prefixed, reclaim};
use super::flow::{Moved, relay};
use crate::audit::{Ending, ExchangeFacts};
use crate::model::{Denial, Host, Scheme};
use crate::net::{DialError, Reach};

/// Longest ClientHello that is waited for, in bytes (post-quantum key shares need two packets).
const CLIENT_HELLO_BYTES_MAX: usize = 16 * 1024;

/// Relays a tunnel whose SNI equals its destination; anything else is closed.
pub(super) async fn run(proxy: &Proxy, tunnel: Tunnel, upgrade: OnUpgrade) {
    let Ok(upgraded) = upgrade.await else { return };
    let Some(client) = reclaim(upgraded) else { return };
    pass(proxy, tunnel, client).await;
}

/// As [`run`], with the socket in hand.
pub(super) async fn pass(proxy: &Proxy, tunnel: Tunnel, mut client: Prefixed) {
    let mut exchange = proxy.audit.open(ExchangeFacts {
        connection_id: tunnel.connection.id,
        peer: tunnel.connection.peer,
        destination: Some(tunnel.destination.clone()),
        scheme: Scheme::Https,
        method: "CONNECT".to_owned(),
        path: String::new(),
        version: "TLS",
    });
    let hello = tokio::time::timeout(proxy.limits.handshake_timeout, client_hello(&mut client)).await;
    let named = hello.ok().flatten().filter(|(_, name)| name.as_ref() == Some(&tunnel.destination.host));
    let Some((hello, _)) = named else {
        proxy.metrics.exchange(None, Denial::DestinationMismatch.code());
        return exchange.deny(&Denial::DestinationMismatch, Default::default()).await;
    };
    let (mut upstream, address) = match proxy.dialer.dial(&tunnel.destination, Reach::Public).await {
        Ok(dialled) => dialled,
        Err(error) => {
            let denial = match error {
                DialError::Forbidden => Denial::AddressForbidden,
                DialError::Unresolved | DialError::Unreachable => Denial::UpstreamUnreachable,
                DialError::Timeout => Denial::UpstreamTimeout,
            };
            proxy.metrics.exchange(None, denial.code());
            return exchange.deny(&denial, Default::default()).await;
        }
    };
    exchange.dialled(Some(address), None);
    if upstream.write_all(&hello).await.is_err() {
        return exchange.end(Ending::UpstreamBroke);
    }
    proxy.metrics.exchange(None, "ok");
    exchange.answered(200);
    let moved = Moved::default();
    let relayed = relay(&mut client, &mut upstream, proxy.limits.idle_timeout, &moved).await;
    exchange.count_request(moved.sent.into_inner());
    exchange.count_response(moved.received.into_inner());
    exchange.end(if relayed.is_ok() { Ending::Complete } else { Ending::Cut });
}

/// Reads a whole ClientHello, with the name in it if there is one; `None` for anything else, and for one that is too long.
pub(super) async fn client_hello<S: tokio::io::AsyncRead + Unpin>(client: &mut S) -> Option<(Vec<u8>, Option<Host>)> {
    let mut acceptor = rustls::server::Acceptor::default();
    let mut seen = Vec::with_capacity(2048);
    let mut chunk = [0; 2048];
    while seen.len() < CLIENT_HELLO_BYTES_MAX {
        let count = client.read(&mut chunk).await.ok().filter(|count| *count > 0)?;
        seen.extend_from_slice(&chunk[..count]);
        let mut fresh = &chunk[..count];
        while !fresh.is_empty() {
            acceptor.read_tls(&mut fresh).ok()?;
        }
        if let Some(accepted) = acceptor.accept().ok()? {
            let name = accepted.client_hello().server_name().map(Host::parse);
            return Some((seen, name.transpose().ok()?));
        }
    }
    None
}
