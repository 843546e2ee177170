//! A forward proxy as a user of the hudsucker library would write it: terminates TLS, swaps one header, and sends each
//! host to a fixed address. Never to be used for anything but measuring.
//!
//! `hudsucker-peer LISTEN CA_OUT NONCE CREDENTIAL UPSTREAM_CA ADDR:PORT UPSTREAM_H2_CA H2_HOST ADDR:PORT`: `H2_HOST` goes
//! to the second address, over HTTP/2 if it is offered there, and every other host to the first, over HTTP/1.1.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use http::header::{AUTHORIZATION, HeaderValue};
use hudsucker::certificate_authority::RcgenAuthority;
use hudsucker::{Body, HttpContext, HttpHandler, Proxy, RequestOrResponse};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tower_service::Service;

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Connecting<S> = Pin<Box<dyn Future<Output = Result<S, Failure>> + Send>>;

/// As many leaves as the library's own example keeps.
const LEAVES: u64 = 1000;

fn main() -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run())
}

async fn run() -> Result<(), Failure> {
    let [listen, ca_out, nonce, credential, ca, address, h2_ca, h2_host, h2_address] =
        std::env::args().skip(1).collect::<Vec<_>>().try_into().map_err(
            |_| "hudsucker-peer LISTEN CA_OUT NONCE CREDENTIAL UPSTREAM_CA ADDR:PORT UPSTREAM_H2_CA H2_HOST ADDR:PORT",
        )?;
    let (issuer, pem) = authority()?;
    std::fs::write(ca_out, pem)?;
    let swap = Swap {
        nonce: HeaderValue::try_from(format!("Bearer {nonce}"))?,
        credential: HeaderValue::try_from(format!("Bearer {credential}"))?,
    };
    let origins = Origins {
        h1: HttpsConnectorBuilder::new()
            .with_tls_config(trusting(&ca)?)
            .https_only()
            .enable_http1()
            .wrap_connector(Fixed(address.parse()?)),
        h2: HttpsConnectorBuilder::new()
            .with_tls_config(trusting(&h2_ca)?)
            .https_only()
            .enable_all_versions()
            .wrap_connector(Fixed(h2_address.parse()?)),
        h2_host: h2_host.into(),
    };
    let proxy = Proxy::builder()
        .with_listener(listener(listen.parse()?)?)
        .with_ca(RcgenAuthority::new(issuer, LEAVES, rustls::crypto::ring::default_provider()))
        .with_http_connector(origins)
        .with_http_handler(swap)
        .build()?;
    Ok(proxy.start().await?)
}

/// The library has no setting for it, and Nagle's algorithm would cost each new connection 40 ms: on Linux a connection
/// has the option from the listener.
fn listener(address: SocketAddr) -> Result<TcpListener, Failure> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_nodelay(true)?;
    socket.bind(address)?;
    Ok(socket.listen(1024)?)
}

fn authority() -> Result<(Issuer<'static, KeyPair>, String), Failure> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "hudsucker CA");
    let pem = params.self_signed(&key)?.pem();
    Ok((Issuer::new(params, key), pem))
}

fn trusting(ca: &str) -> Result<ClientConfig, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca)? {
        roots.add(certificate?)?;
    }
    Ok(ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// Puts the credential where the nonce is.
#[derive(Clone)]
struct Swap {
    nonce: HeaderValue,
    credential: HeaderValue,
}

impl HttpHandler for Swap {
    async fn handle_request(&mut self, _: &HttpContext, mut request: http::Request<Body>) -> RequestOrResponse {
        if let Some(value) = request.headers_mut().get_mut(AUTHORIZATION)
            && *value == self.nonce
        {
            *value = self.credential.clone();
        }
        request.into()
    }
}

/// TLS to the origin that a host belongs to.
#[derive(Clone)]
struct Origins {
    h1: HttpsConnector<Fixed>,
    h2: HttpsConnector<Fixed>,
    h2_host: Arc<str>,
}

impl Service<Uri> for Origins {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = Failure;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        // Both are always ready, because `Fixed` is.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let origin = if uri.host() == Some(&*self.h2_host) { &mut self.h2 } else { &mut self.h1 };
        Box::pin(origin.call(uri))
    }
}

/// One address, whatever the host.
#[derive(Clone, Copy)]
struct Fixed(SocketAddr);

impl Service<Uri> for Fixed {
    type Response = TokioIo<TcpStream>;
    type Error = Failure;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self(address) = *self;
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(stream))
        })
    }
}
