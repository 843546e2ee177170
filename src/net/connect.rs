//! The race of a destination's addresses (RFC 8305).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::DialError;

/// How many of a name's addresses are tried.
const ADDRESSES_MAX: usize = 16;
/// When the next address joins in while the others have not answered (RFC 8305, 5).
const STAGGER: Duration = Duration::from_millis(250);

/// The first of the addresses to answer. Dropping this ends all attempts; the caller bounds the time.
pub(super) async fn race(addresses: &[SocketAddr]) -> Result<(TcpStream, SocketAddr), DialError> {
    if let [only] = addresses {
        // Nobody to race with: no task and no alarm.
        return connect(*only).await.map_err(|_| DialError::Unreachable);
    }
    race_with(addresses, connect).await
}

async fn race_with<T, F>(addresses: &[SocketAddr], attempt: impl Fn(SocketAddr) -> F) -> Result<T, DialError>
where
    T: Send + 'static,
    F: Future<Output = io::Result<T>> + Send + 'static,
{
    let mut waiting = interleaved(addresses).into_iter().take(ADDRESSES_MAX);
    let mut running = JoinSet::new();
    let mut next_at = Instant::now();
    let mut more = true;
    loop {
        tokio::select! {
            biased;
            Some(done) = running.join_next() => {
                if let Ok(Ok(connected)) = done {
                    return Ok(connected);
                }
                // One has failed: no reason to let the next one wait.
                next_at = Instant::now();
            }
            () = sleep_until(next_at), if more => {
                match waiting.next() {
                    Some(address) => { running.spawn(attempt(address)); }
                    None => more = false,
                }
                next_at = Instant::now() + STAGGER;
            }
            else => return Err(DialError::Unreachable),
        }
    }
}

async fn connect(address: SocketAddr) -> io::Result<(TcpStream, SocketAddr)> {
    let stream = TcpStream::connect(address).await?;
    let (peer, local) = (stream.peer_addr()?, stream.local_addr()?);
    // Whom we are connected to must be whom we judged. A socket on this machine can also meet itself (RFC 9293, 3.5).
    if peer.ip() != address.ip() || peer.port() != address.port() || peer == local {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    stream.set_nodelay(true)?;
    Ok((stream, address))
}

/// Families in turn, beginning with that of the first address; within a family the order stays.
fn interleaved(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (ours, others): (Vec<_>, Vec<_>) = addresses.iter().partition(|address| address.is_ipv6() == first_is_v6);
    let mut others = others.into_iter();
    let mut out = Vec::with_capacity(addresses.len());
    for address in ours {
        out.push(address);
        out.extend(others.next());
    }
    out.extend(others);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// A port of loopback at which nobody listens (as far as one can know).
    async fn deserted() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
    }

    #[test]
    fn families_take_turns() {
        let mixed = addresses(&["1.0.0.1:1", "1.0.0.2:1", "1.0.0.3:1", "[::1]:1", "[::2]:1"]);
        let turns = addresses(&["1.0.0.1:1", "[::1]:1", "1.0.0.2:1", "[::2]:1", "1.0.0.3:1"]);
        assert_eq!(interleaved(&mixed), turns);
        let mixed = addresses(&["[::1]:1", "1.0.0.1:1", "1.0.0.2:1"]);
        assert_eq!(interleaved(&mixed), mixed);
        assert!(interleaved(&[]).is_empty());
    }

    #[tokio::test]
    async fn the_next_address_is_tried_when_one_refuses() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        let (stream, address) = race(&[deserted().await, good]).await.unwrap();
        assert_eq!((address, stream.peer_addr().unwrap()), (good, good));
        assert!(stream.nodelay().unwrap());
    }

    #[tokio::test]
    async fn nobody_there_is_unreachable() {
        assert_eq!(race(&[deserted().await]).await.unwrap_err(), DialError::Unreachable);
        assert_eq!(race(&[]).await.unwrap_err(), DialError::Unreachable);
    }

    #[tokio::test]
    async fn no_more_than_the_limit_is_tried() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut many = vec![deserted().await; ADDRESSES_MAX];
        many.push(listener.local_addr().unwrap());
        assert_eq!(race(&many).await.unwrap_err(), DialError::Unreachable);
        many.remove(0);
        race(&many).await.unwrap();
    }

    #[tokio::test]
    async fn a_silent_address_does_not_hold_up_the_next() {
        let list = addresses(&["1.0.0.1:1", "1.0.0.2:1"]);
        let silent = list[0];
        let attempt =
            move |address| async move { if address == silent { std::future::pending().await } else { Ok(address) } };
        assert_eq!(race_with(&list, attempt).await, Ok(list[1]));
    }

    #[tokio::test]
    async fn who_answers_at_once_keeps_the_others_from_being_asked() {
        let list = addresses(&["1.0.0.1:1", "1.0.0.2:1"]);
        let other = list[1];
        let attempt = move |address| async move {
            assert_ne!(address, other);
            Ok(address)
        };
        assert_eq!(race_with(&list, attempt).await, Ok(list[0]));
    }
}
