//! Connections that were redirected here: the first bytes say what they are and where they belong.
//!
//! Of where the client was going only the port is believed. The host is what the client itself names, by SNI or `Host`;
//! it is resolved anew, so that a false address leads nowhere. The one exception is a service that lists an IP address.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{Method, Request, Response, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::accept::{Connection, serve_h1};
use super::connect::{AskedFor, Form, Session, Spoken, Tunnel, Way, passage, refused};
use super::decrypt::Prefixed;
use super::flow::Body;
use super::pace::{Busy, Paced, Protocol};
use super::socket::Socket;
use super::{Proxy, decrypt, unread};
use crate::audit::Event;
use crate::identity;
use crate::model::{Ambiguity, Denial, Destination, Host, Scheme};
use crate::net::intercept::{self, Interception};

/// The content type of TLS's handshake records (RFC 8446, 5.1).
const TLS_HANDSHAKE: u8 = 22;
/// How much is read to tell protocols apart, in bytes.
const FIRST_BYTES_MAX: usize = 2048;

/// Where a connection was going; `None` if to us.
pub(super) fn original(
    proxy: &Proxy,
    stream: &TcpStream,
    local: SocketAddr,
    interception: Interception,
) -> Option<SocketAddr> {
    intercept::original(stream, local, interception).filter(|original| !proxy.dialer.is_own(*original))
}

/// Serves a connection until it ends.
pub(super) async fn run(
    proxy: Arc<Proxy>,
    stream: TcpStream,
    connection: Arc<Connection>,
    original: Option<SocketAddr>,
) {
    // Also what we ourselves have dialled, where the ruleset forgot to leave us out: it would come back for ever.
    let is_loop = connection.known_owner() == Some(&identity::own());
    let Some(original) = original.filter(|_| !is_loop) else {
        return note(&proxy, &connection, None, "transparent_loop");
    };
    let opened = tokio::select! {
        opened = first(&proxy, stream) => opened,
        // Nothing was asked for yet.
        () = proxy.draining.cancelled() => return,
    };
    match opened {
        Ok((First::Tls, client)) => tls(&proxy, connection, client, original).await,
        Ok((First::Clear, client)) => clear(&proxy, connection, client, original.port()).await,
        Err(code) => note(&proxy, &connection, Some(address(original)), code),
    }
}

/// What a connection begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    /// TLS.
    Tls,
    /// What may be HTTP/1.
    Clear,
}

/// Judges the first byte; everything that was read is still to be read.
async fn first(proxy: &Proxy, mut stream: TcpStream) -> Result<(First, Prefixed), &'static str> {
    let mut chunk = [0; FIRST_BYTES_MAX];
    let read = timeout(proxy.limits.head_timeout, stream.read(&mut chunk)).await;
    let count = read.map_err(|_elapsed| "request_timeout")?.map_err(|_| "client_gone")?;
    let first = match chunk[..count].first() {
        None => return Err("client_gone"),
        Some(&TLS_HANDSHAKE) => First::Tls,
        // A method is a token (RFC 9110, 5.6.2). What only looks like one is left to the parser.
        Some(byte) if byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte) => First::Clear,
        Some(_) => return Err("protocol_unknown"),
    };
    Ok((first, Prefixed { prefix: Bytes::copy_from_slice(&chunk[..count]), stream: Socket::Clear(stream) }))
}

/// As a tunnel, opened to the host that SNI names and to the port that was wanted.
async fn tls(proxy: &Arc<Proxy>, connection: Arc<Connection>, mut client: Prefixed, original: SocketAddr) {
    let hello = tokio::select! {
        hello = timeout(proxy.limits.handshake_timeout, unread::client_hello(&mut client)) => hello,
        () = proxy.draining.cancelled() => return,
    };
    let (mut seen, name) = match hello {
        Ok(Some(hello)) => hello,
        Ok(None) => return note(proxy, &connection, Some(address(original)), "not_tls"),
        Err(_elapsed) => return note(proxy, &connection, Some(address(original)), "tls_handshake_timeout"),
    };
    let Some(destination) = named(proxy, name, original) else {
        return note(proxy, &connection, Some(address(original)), "sni_missing");
    };
    seen.extend_from_slice(&client.prefix);
    let client = Prefixed { prefix: seen.into(), stream: client.stream };
    match passage(proxy, &destination) {
        Ok(Way::Read(config)) => decrypt::open(proxy, Tunnel::unvouched(connection, destination), client, config).await,
        Ok(Way::Unread) => unread::pass(proxy, Tunnel::unvouched(connection, destination), client).await,
        Err(denial) => note(proxy, &connection, Some(destination), denial.code()),
    }
}

/// Without a name it can only be a service that lists the address itself.
fn named(proxy: &Proxy, name: Option<Host>, original: SocketAddr) -> Option<Destination> {
    match name {
        Some(host) => Some(Destination { host, port: original.port() }),
        None => Some(address(original)).filter(|address| !proxy.rules().policy.services_at(address).is_empty()),
    }
}

/// HTTP/1 in clear text. The first request's host is the host of the whole connection.
async fn clear(proxy: &Arc<Proxy>, connection: Arc<Connection>, client: Prefixed, port: u16) {
    let pace = proxy.pace(Protocol::Http1);
    let io = TokioIo::new(Paced::new(client, pace.clone()));
    let front = Arc::new(Front { proxy: proxy.clone(), connection: connection.clone(), port, first: OnceLock::new() });
    let service = hyper::service::service_fn(move |request| {
        let (front, busy) = (front.clone(), pace.begin());
        async move { Ok::<_, Infallible>(front.serve(request, busy).await) }
    });
    serve_h1(proxy, &connection, None, io, service).await;
}

/// A connection in clear text.
struct Front {
    proxy: Arc<Proxy>,
    connection: Arc<Connection>,
    /// The port that was wanted.
    port: u16,
    /// What its first request has settled.
    first: OnceLock<Session>,
}

impl Front {
    async fn serve(&self, request: Request<Incoming>, busy: Busy) -> Response<Body> {
        match origin(&request, self.port) {
            Ok(destination) => {
                // Another host than the first one's is refused where `Host` is held against the session.
                let session = self.first.get_or_init(|| Session {
                    connection: self.connection.clone(),
                    destination,
                    scheme: Scheme::Http,
                    form: Form::Origin,
                    voucher: None,
                    proof: None,
                    spoken: Spoken::default(),
                    authority: AskedFor::default(),
                });
                self.proxy.serve(session, request, busy).await
            }
            Err(denial) => refused(&self.proxy, &self.connection, None, &denial),
        }
    }
}

/// Where a request in clear text belongs: its one `Host`, which has to name the port that was wanted.
fn origin<B>(request: &Request<B>, port: u16) -> Result<Destination, Denial> {
    if request.method() == Method::CONNECT {
        // Who asks this takes us for a proxy, which is on another port.
        return Err(Denial::RequestAmbiguous(Ambiguity::Method));
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(Denial::RequestAmbiguous(Ambiguity::Host));
    };
    let named = host.to_str().ok().and_then(|text| Destination::parse(text, Some(Scheme::Http.default_port())).ok());
    match named {
        Some(named) if named.port == port => Ok(named),
        Some(_) => Err(Denial::DestinationMismatch),
        None => Err(Denial::RequestAmbiguous(Ambiguity::Host)),
    }
}

fn address(original: SocketAddr) -> Destination {
    Destination { host: Host::from_ip(original.ip()), port: original.port() }
}

fn note(proxy: &Proxy, connection: &Connection, destination: Option<Destination>, code: &'static str) {
    tracing::debug!(connection.id = connection.id, code, "a redirected connection was closed before its first request");
    proxy.metrics.exchange(None, code);
    proxy.audit.note(Event::Connection { connection_id: connection.id, peer: connection.peer, destination, code });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16, method: &str, uri: &str, hosts: &[&str]) -> Result<String, Denial> {
        let mut request = Request::builder().method(method).uri(uri);
        for host in hosts {
            request = request.header("host", *host);
        }
        origin(&request.body(()).unwrap(), port).map(|destination| destination.to_string())
    }

    #[test]
    fn the_one_host_field_and_the_wanted_port_name_the_destination() {
        assert_eq!(at(80, "GET", "/", &["api.test"]), Ok("api.test:80".to_owned()));
        assert_eq!(at(80, "GET", "/", &["API.test:80"]), Ok("api.test:80".to_owned()));
        assert_eq!(at(8080, "GET", "/", &["api.test:8080"]), Ok("api.test:8080".to_owned()));
        assert_eq!(at(80, "GET", "/", &["[2001:db8::1]"]), Ok("[2001:db8::1]:80".to_owned()));
    }

    #[test]
    fn nothing_else_names_one() {
        let ambiguous = Err(Denial::RequestAmbiguous(Ambiguity::Host));
        for hosts in [&[][..], &["api.test", "api.test"], &["a@api.test"], &[""], &["api.test:"], &["a b"]] {
            assert_eq!(at(80, "GET", "/", hosts), ambiguous, "{hosts:?}");
        }
        assert_eq!(at(80, "GET", "/", &["api.test:8080"]), Err(Denial::DestinationMismatch));
        assert_eq!(at(8080, "GET", "/", &["api.test"]), Err(Denial::DestinationMismatch));
        let method = Err(Denial::RequestAmbiguous(Ambiguity::Method));
        assert_eq!(at(443, "CONNECT", "api.test:443", &["api.test:443"]), method);
    }
}
