//! The floor: what a forward proxy of the same crates costs that terminates TLS, swaps one header after one lookup in a
//! map, and does nothing else. No policy, no audit, no search, no limits: never to be used for anything but measuring.
//!
//! `floor LISTEN CA_OUT NONCE CREDENTIAL UPSTREAM_CA ADDR:PORT UPSTREAM_H2_CA H2_HOST ADDR:PORT`: every host but one is
//! at the first address, and that one at the second.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use dashmap::DashMap;
use http::header::{AUTHORIZATION, HOST, HeaderValue};
use http::{Method, Request, Response, Uri, Version};
use http_body_util::{Either, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client};

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Body = Either<Incoming, Empty<Bytes>>;

struct Floor {
    nonces: DashMap<String, HeaderValue>,
    client: Client<Upstream, Incoming>,
    issuer: Issuer<'static, KeyPair>,
    leaf_key: KeyPair,
    leaves: DashMap<String, Arc<ServerConfig>>,
    tickets: Arc<dyn rustls::server::ProducesTickets>,
}

fn main() -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run())
}

async fn run() -> Result<(), Failure> {
    let [listen, ca_out, nonce, credential, ca, to, h2_ca, h2_host, h2_to] =
        std::env::args().skip(1).collect::<Vec<_>>().try_into().map_err(
            |_| "floor LISTEN CA_OUT NONCE CREDENTIAL UPSTREAM_CA ADDR:PORT UPSTREAM_H2_CA H2_HOST ADDR:PORT",
        )?;
    let (issuer, pem) = authority()?;
    std::fs::write(ca_out, pem)?;
    let nonces = DashMap::new();
    nonces.insert(format!("Bearer {nonce}"), HeaderValue::try_from(format!("Bearer {credential}"))?);
    let floor = Arc::new(Floor {
        nonces,
        client: Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).timer(TokioTimer::new()).build(
            Upstream {
                ordinary: (upstream_tls(&ca)?, to.parse()?),
                h2_host: h2_host.into(),
                h2: (upstream_tls(&h2_ca)?, h2_to.parse()?),
            },
        ),
        issuer,
        leaf_key: KeyPair::generate()?,
        leaves: DashMap::new(),
        tickets: rustls::crypto::ring::Ticketer::new()?,
    });
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let floor = floor.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| connect(floor.clone(), request));
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades()
                .await;
        });
    }
}

async fn connect(floor: Arc<Floor>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let mut answer = Response::new(Either::Right(Empty::new()));
    if request.method() != Method::CONNECT {
        *answer.status_mut() = http::StatusCode::BAD_REQUEST;
        return Ok(answer);
    }
    let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
    tokio::spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
        let _ = tunnel(floor, authority, TokioIo::new(upgraded)).await;
    });
    Ok(answer)
}

async fn tunnel(
    floor: Arc<Floor>,
    authority: String,
    stream: TokioIo<hyper::upgrade::Upgraded>,
) -> Result<(), Failure> {
    let host = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host).to_owned();
    let stream = TlsAcceptor::from(floor.leaf(&host)?).accept(stream).await?;
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let authority: Arc<str> = authority.strip_suffix(":443").unwrap_or(&authority).into();
    let service = service_fn(move |request| forward(floor.clone(), authority.clone(), request));
    let io = TokioIo::new(stream);
    if is_h2 {
        hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await?;
    } else {
        hyper::server::conn::http1::Builder::new().serve_connection(io, service).await?;
    }
    Ok(())
}

async fn forward(
    floor: Arc<Floor>,
    authority: Arc<str>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let refused = |status| {
        let mut answer = Response::new(Either::Right(Empty::new()));
        *answer.status_mut() = status;
        Ok(answer)
    };
    let presented = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some(credential) = presented.and_then(|value| floor.nonces.get(value).map(|found| found.clone())) else {
        return refused(http::StatusCode::UNAUTHORIZED);
    };
    request.headers_mut().insert(AUTHORIZATION, credential);
    request.headers_mut().remove(HOST);
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let uri = Uri::builder().scheme("https").authority(&*authority).path_and_query(path).build();
    let Ok(uri) = uri else { return refused(http::StatusCode::BAD_REQUEST) };
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_11;
    match floor.client.request(request).await {
        Ok(mut answer) => {
            *answer.version_mut() = Version::HTTP_11;
            answer.headers_mut().remove(http::header::CONNECTION);
            Ok(answer.map(Either::Left))
        }
        Err(_) => refused(http::StatusCode::BAD_GATEWAY),
    }
}

fn authority() -> Result<(Issuer<'static, KeyPair>, String), Failure> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "floor CA");
    let pem = params.self_signed(&key)?.pem();
    Ok((Issuer::new(params, key), pem))
}

impl Floor {
    fn leaf(&self, host: &str) -> Result<Arc<ServerConfig>, Failure> {
        if let Some(config) = self.leaves.get(host) {
            return Ok(config.clone());
        }
        let params = CertificateParams::new(vec![host.to_owned()])?;
        let certificate = params.signed_by(&self.leaf_key, &self.issuer)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.leaf_key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ticketer = self.tickets.clone();
        let config = Arc::new(config);
        self.leaves.insert(host.to_owned(), config.clone());
        Ok(config)
    }
}

fn upstream_tls(ca: &str) -> Result<TlsConnector, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca)? {
        roots.add(certificate?)?;
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

#[derive(Clone)]
struct Upstream {
    ordinary: (TlsConnector, SocketAddr),
    h2_host: Arc<str>,
    h2: (TlsConnector, SocketAddr),
}

struct Socket(TokioIo<client::TlsStream<TcpStream>>);

impl tower_service::Service<Uri> for Upstream {
    type Response = Socket;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Socket, std::io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), std::io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let host = uri.host().unwrap_or_default();
            let (tls, to) = if host == &*this.h2_host { this.h2 } else { this.ordinary };
            let stream = TcpStream::connect(to).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
            Ok(Socket(TokioIo::new(tls.connect(name, stream).await?)))
        })
    }
}

impl Connection for Socket {
    fn connected(&self) -> Connected {
        let is_h2 = self.0.inner().get_ref().1.alpn_protocol() == Some(b"h2");
        if is_h2 { Connected::new().negotiated_h2() } else { Connected::new() }
    }
}

impl hyper::rt::Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl hyper::rt::Write for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, buffers)
    }
}
