//! Names to addresses, addresses judged, judged addresses dialled.
//!
//! - `resolve`: a name to its addresses, without search lists
//! - [`judge`]: which addresses may be dialled at all, and which are our own listeners
//! - `connect`: the race of the judged ones
//! - [`intercept`]: where redirected connections were going
//! - [`tls`]: whom an upstream's certificate is verified against

mod connect;
pub mod intercept;
pub mod judge;
mod resolve;
pub mod tls;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::model::Destination;
use crate::model::destination::DestinationError;

use judge::Own;
use resolve::Resolver;

/// Sends one destination, or every host at one port, elsewhere (`--connect-to HOST:PORT:ADDR:PORT`), and lets that
/// address be private. It is written `HOST:PORT -> ADDR:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectTo {
    from: Named,
    to: SocketAddr,
}

/// What is sent elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Named {
    One(Destination),
    /// Any host, at this port.
    Port(u16),
}

impl std::fmt::Display for ConnectTo {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.from {
            Named::One(destination) => write!(formatter, "{destination} -> {}", self.to),
            Named::Port(port) => write!(formatter, "*:{port} -> {}", self.to),
        }
    }
}

/// Why a `HOST:PORT:ADDR:PORT` was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConnectToError {
    /// There are not four parts.
    #[error("it is not HOST:PORT:ADDR:PORT, IPv6 addresses in brackets")]
    Form,
    /// `HOST:PORT` is not a destination.
    #[error("the destination is not valid: {0}")]
    From(DestinationError),
    /// `ADDR:PORT` is not an address and a port; names are not resolved here.
    #[error("the second half is not an IP address and a port")]
    To,
}

impl ConnectTo {
    /// Parses `HOST:PORT:ADDR:PORT`, as in curl; IPv6 addresses stand in brackets. An empty `HOST` is any host; the
    /// other three parts must be there.
    ///
    /// # Errors
    /// [`ConnectToError`].
    pub fn parse(text: &str) -> Result<Self, ConnectToError> {
        let (rest, port) = text.rsplit_once(':').ok_or(ConnectToError::Form)?;
        let (from, address) = match rest.strip_suffix(']') {
            Some(inner) => inner.rsplit_once(":[").ok_or(ConnectToError::Form)?,
            None => rest.rsplit_once(':').ok_or(ConnectToError::Form)?,
        };
        let ip: IpAddr = if rest.ends_with(']') {
            address.parse::<Ipv6Addr>().map_err(|_| ConnectToError::To)?.into()
        } else {
            address.parse().map_err(|_| ConnectToError::To)?
        };
        // The same strict rules for the port as everywhere else.
        let to = Destination::parse(&format!("{}:{port}", bracketed(ip)), None).map_err(|_| ConnectToError::To)?;
        let from = match from.strip_prefix(':') {
            // Whatever stands before the port; a name makes its rules those of any other destination.
            Some(port) => Named::Port(parse_from(&format!("any.invalid:{port}"))?.port),
            None => Named::One(parse_from(from)?),
        };
        Ok(Self { from, to: SocketAddr::new(ip, to.port) })
    }

    fn applies_to(&self, destination: &Destination) -> bool {
        match &self.from {
            Named::One(one) => one == destination,
            Named::Port(port) => *port == destination.port,
        }
    }
}

fn parse_from(text: &str) -> Result<Destination, ConnectToError> {
    Destination::parse(text, None).map_err(ConnectToError::From)
}

fn bracketed(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
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
#[derive(Debug)]
pub struct Dialer {
    overrides: Vec<ConnectTo>,
    own: Own,
    connect_timeout: Duration,
    resolver: Resolver,
}

impl Dialer {
    /// `own` are our listeners' addresses as bound, port 0 no more (never dialled, by any name or local address);
    /// `connect_timeout` bounds one dial, resolution included. Of two `overrides` for a destination the first holds.
    #[must_use]
    pub fn new(overrides: Vec<ConnectTo>, own: Vec<SocketAddr>, connect_timeout: Duration) -> Self {
        Self { overrides, own: Own::new(own), connect_timeout, resolver: Resolver::system() }
    }

    /// Whether a connection to `address` would end at one of our own listeners.
    #[must_use]
    pub fn is_own(&self, address: SocketAddr) -> bool {
        self.own.is_ours(address)
    }

    /// Resolves once, judges every address (one bad one refuses all), dials the judged ones in turn with
    /// `TCP_NODELAY`; returns the stream and the address that answered.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn dial(&self, to: &Destination, reach: Reach) -> Result<(TcpStream, SocketAddr), DialError> {
        let dialled = timeout(self.connect_timeout, async {
            let addresses = self.vetted(to, reach).await?;
            connect::race(&addresses).await
        });
        dialled.await.unwrap_or(Err(DialError::Timeout))
    }

    /// True where an override sends this destination elsewhere.
    #[must_use]
    pub fn sends_elsewhere(&self, destination: &Destination) -> bool {
        self.overrides.iter().any(|other| other.applies_to(destination))
    }

    /// The addresses of a destination, all of which may be dialled.
    async fn vetted(&self, to: &Destination, reach: Reach) -> Result<Vec<SocketAddr>, DialError> {
        if let Some(other) = self.overrides.iter().find(|other| other.applies_to(to)) {
            return judge::vet(vec![other.to], Reach::Private, &self.own);
        }
        let addresses = self.resolver.resolve(&to.host).await?;
        let addresses = addresses.into_iter().map(|ip| SocketAddr::new(ip, to.port)).collect();
        judge::vet(addresses, reach, &self.own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    const LONG: Duration = Duration::from_secs(10);

    fn destination(text: &str) -> Destination {
        Destination::parse(text, None).unwrap()
    }

    async fn listener(address: &str) -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// Those of the addresses that this machine can bind to: some containers have no IPv6.
    async fn bindable(addresses: &[&'static str]) -> Vec<&'static str> {
        let mut out = Vec::new();
        for address in addresses {
            match TcpListener::bind(address).await {
                Ok(_) => out.push(*address),
                Err(error) => crate::skips::skip(format!("{address}: {error}")),
            }
        }
        out
    }

    fn dialer(overrides: &[String], own: &[SocketAddr], hosts: &str) -> (tempfile::NamedTempFile, Dialer) {
        let overrides = overrides.iter().map(|text| ConnectTo::parse(text).unwrap()).collect();
        let mut dialer = Dialer::new(overrides, own.to_vec(), LONG);
        let (file, resolver) = resolve::tests::with(hosts);
        dialer.resolver = resolver;
        (file, dialer)
    }

    #[test]
    fn connect_to_is_read_as_curl_reads_it() {
        let parse = |text| ConnectTo::parse(text).map(|other| other.to_string());
        let good = [
            ("api.test:443:127.0.0.1:8443", "api.test:443", "127.0.0.1:8443"),
            ("API.test.:443:[::1]:8443", "api.test:443", "[::1]:8443"),
            ("[::1]:443:10.0.0.1:1", "[::1]:443", "10.0.0.1:1"),
            ("[2001:db8::1]:443:[fd00::2]:65535", "[2001:db8::1]:443", "[fd00::2]:65535"),
            ("1.2.3.4:80:[::ffff:127.0.0.1]:8080", "1.2.3.4:80", "[::ffff:127.0.0.1]:8080"),
            (":443:127.0.0.1:8443", "*:443", "127.0.0.1:8443"),
        ];
        for (text, from, to) in good {
            assert_eq!(parse(text), Ok(format!("{from} -> {to}")), "{text}");
        }
        let bad = [
            "",
            ":",
            ":::",
            "api.test",
            "api.test:443",
            "api.test:443:127.0.0.1",
            "api.test:443:127.0.0.1:",
            "api.test:443:127.0.0.1:0",
            "api.test:443:127.0.0.1:65536",
            "api.test:443:127.0.0.1:08443",
            "api.test:443:127.1:80",
            "api.test:443:host.test:80",
            "api.test:443:::1:80",
            "api.test:443:[127.0.0.1]:80",
            "api.test:443:[::1:80",
            "api.test:443:::1]:80",
            "api.test:443[::1]:80",
            "api.test::127.0.0.1:80",
            "::127.0.0.1:80",
            ":0:127.0.0.1:80",
            ":0443:127.0.0.1:80",
            "a/b:443:127.0.0.1:80",
            "u@api.test:443:127.0.0.1:80",
            "api.test:0:127.0.0.1:80",
            "api.test:443:127.0.0.1:80:90",
            "api.test:443:[fe80::1%lo]:80",
            "[]:443:[]:80",
        ];
        for text in bad {
            assert!(ConnectTo::parse(text).is_err(), "{text:?} must be refused");
        }
    }

    #[tokio::test]
    async fn private_addresses_are_dialled_where_they_are_allowed_alone() {
        for bind in bindable(&["127.0.0.1:0", "[::1]:0"]).await {
            let (_listener, address) = listener(bind).await;
            let (_file, dialer) = dialer(&[], &[], "");
            let to = destination(&address.to_string());
            let (stream, answered) = dialer.dial(&to, Reach::Private).await.unwrap();
            assert_eq!(answered, address);
            assert_eq!(stream.peer_addr().unwrap(), address);
            assert!(stream.nodelay().unwrap());
            assert_eq!(dialer.dial(&to, Reach::Public).await.unwrap_err(), DialError::Forbidden);
        }
    }

    #[tokio::test]
    async fn metadata_is_forbidden_even_where_private_is_allowed_or_connected_to() {
        let overrides = ["api.test:443:169.254.169.254:80".to_owned()];
        let (_file, dialer) = dialer(&overrides, &[], "169.254.169.254 metadata.google.internal\n");
        for to in ["169.254.169.254:80", "[fd00:ec2::254]:80", "metadata.google.internal:80", "api.test:443"] {
            assert_eq!(dialer.dial(&destination(to), Reach::Private).await.unwrap_err(), DialError::Forbidden, "{to}");
        }
    }

    #[tokio::test]
    async fn one_private_address_of_a_name_refuses_the_name() {
        let (_listener, address) = listener("127.0.0.1:0").await;
        let (_file, dialer) = dialer(&[], &[], "9.9.9.9 both.test\n127.0.0.1 both.test one.test\n");
        let to = |name: &str| destination(&format!("{name}:{}", address.port()));
        assert_eq!(dialer.dial(&to("both.test"), Reach::Public).await.unwrap_err(), DialError::Forbidden);
        assert_eq!(dialer.dial(&to("one.test"), Reach::Private).await.unwrap().1, address);
    }

    #[tokio::test]
    async fn the_second_address_answers_where_the_first_refuses() {
        let (_listener, address) = listener("127.0.0.1:0").await;
        let (_file, dialer) = dialer(&[], &[], "::1 both.test\n127.0.0.1 both.test\n");
        let to = destination(&format!("both.test:{}", address.port()));
        assert_eq!(dialer.dial(&to, Reach::Private).await.unwrap().1, address);
    }

    #[tokio::test]
    async fn connect_to_lets_one_destination_be_private() {
        let (_listener, address) = listener("127.0.0.1:0").await;
        let (_file, dialer) = dialer(&[format!("api.test:443:{address}")], &[], "127.0.0.1 api.test\n");
        assert_eq!(dialer.dial(&destination("api.test:443"), Reach::Public).await.unwrap().1, address);
        // Another port is another destination.
        let other = destination("api.test:444");
        assert_eq!(dialer.dial(&other, Reach::Public).await.unwrap_err(), DialError::Forbidden);
        // An empty host is any host; the first that fits holds.
        let (_other_listener, elsewhere) = listener("127.0.0.1:0").await;
        let overrides = [format!("api.test:443:{address}"), format!(":443:{elsewhere}")];
        let (_file, dialer) = self::dialer(&overrides, &[], "127.0.0.1 local.test\n");
        for (name, to) in [("api.test:443", address), ("nowhere.invalid:443", elsewhere), ("9.9.9.9:443", elsewhere)] {
            assert_eq!(dialer.dial(&destination(name), Reach::Public).await.unwrap().1, to, "{name}");
        }
        let other = destination("local.test:444");
        assert_eq!(dialer.dial(&other, Reach::Public).await.unwrap_err(), DialError::Forbidden);
    }

    #[tokio::test]
    async fn our_own_listeners_are_never_dialled() {
        for bind in bindable(&["127.0.0.1:0", "0.0.0.0:0", "[::]:0"]).await {
            let (_listener, address) = listener(bind).await;
            let port = address.port();
            let overrides = [format!("api.test:443:127.0.0.1:{port}"), format!("api.test:444:[::1]:{port}")];
            let (_file, dialer) = dialer(&overrides, &[address], "127.0.0.1 us.test\n");
            let names = ["127.0.0.1", "127.0.0.2", "[::1]", "[::ffff:127.0.0.1]", "us.test", "localhost"];
            let mut destinations: Vec<_> = names.iter().map(|name| format!("{name}:{port}")).collect();
            destinations.extend(["api.test:443".to_owned(), "api.test:444".to_owned()]);
            for to in destinations {
                let dialled = dialer.dial(&destination(&to), Reach::Private).await;
                assert_eq!(dialled.unwrap_err(), DialError::Forbidden, "{bind} by {to}");
            }
        }
    }

    #[tokio::test]
    async fn failures_are_told_apart() {
        let (gone, address) = listener("127.0.0.1:0").await;
        drop(gone);
        let (_file, dialer) = dialer(&[], &[], "");
        let dead = destination(&address.to_string());
        assert_eq!(dialer.dial(&dead, Reach::Private).await.unwrap_err(), DialError::Unreachable);
        let nowhere = destination("nowhere.invalid:443");
        assert_eq!(dialer.dial(&nowhere, Reach::Private).await.unwrap_err(), DialError::Unresolved);
    }
}
