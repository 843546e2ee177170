//! TLS with a minted leaf → a session in which requests can be judged.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use hyper::service::Service as _;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::Proxy;
use super::accept::{serve_h1, serve_h2};
use super::connect::{AskedFor, Form, Session, Spoken, Tunnel};
use super::pace::{Paced, Protocol};
use super::socket::Socket;
use crate::audit::Event;
use crate::model::{Host, Scheme};

/// Opens a tunnel and serves what is in it.
pub(super) async fn run(proxy: &Arc<Proxy>, tunnel: Tunnel, upgrade: OnUpgrade, config: Arc<ServerConfig>) {
    let Ok(upgraded) = upgrade.await else { return };
    let Some(stream) = reclaim(upgraded) else { return };
    open(proxy, tunnel, stream, config).await;
}

/// TLS with the client, and what comes after it.
pub(super) async fn open(proxy: &Arc<Proxy>, tunnel: Tunnel, stream: Prefixed, config: Arc<ServerConfig>) {
    // Boxed, so that a tunnel does not carry the size of its handshake as long as it is open.
    let handshake = Box::pin(handshake(&tunnel, stream, config));
    let handshake = tokio::time::timeout(proxy.limits.handshake_timeout, handshake);
    let outcome = tokio::select! {
        outcome = handshake => outcome,
        // Nothing was asked for in this tunnel yet.
        () = proxy.draining.cancelled() => return,
    };
    let (stream, form) = match outcome {
        Ok(Ok(done)) => done,
        Ok(Err(code)) => return note(proxy, &tunnel, code),
        Err(_elapsed) => return note(proxy, &tunnel, "tls_handshake_timeout"),
    };
    let session = Session {
        connection: tunnel.connection.clone(),
        destination: tunnel.destination.clone(),
        scheme: Scheme::Https,
        form,
        voucher: tunnel.voucher,
        proof: tunnel.proof.clone(),
        spoken: Spoken::default(),
        authority: AskedFor::default(),
    };
    // Boxed, so that the handshake does not carry the size of what comes after it.
    Box::pin(serve(proxy, session, stream)).await;
}

/// The stream is boxed, because what hands it on keeps its room.
async fn serve(proxy: &Arc<Proxy>, session: Session, stream: Box<TlsStream<Prefixed>>) {
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let pace = proxy.pace(if is_h2 { Protocol::Http2 } else { Protocol::Http1 });
    let io = TokioIo::new(Paced::new(stream, pace.clone()));
    let (connection, destination) = (session.connection.clone(), session.destination.clone());
    let session = Arc::new(session);
    let service = {
        let proxy = proxy.clone();
        hyper::service::service_fn(move |request| {
            let (proxy, session, busy) = (proxy.clone(), session.clone(), pace.begin());
            async move { Ok::<_, Infallible>(proxy.serve(&session, request, busy).await) }
        })
    };
    if is_h2 {
        // Each exchange is a task here, and moved ten times until it is one and no more: boxed, since it is large.
        let service = hyper::service::service_fn(move |request| Box::pin(service.call(request)));
        // Boxed: its state is large, and HTTP/1.1 has no use for it.
        Box::pin(serve_h2(proxy, &connection, Some(&destination), io, service)).await;
    } else {
        serve_h1(proxy, &connection, Some(&destination), io, service).await;
    }
}

/// Takes the socket back from hyper, with what it had read too much.
pub(super) fn reclaim(upgraded: Upgraded) -> Option<Prefixed> {
    let parts = upgraded.downcast::<TokioIo<Paced<Socket>>>().ok()?;
    Some(Prefixed { prefix: parts.read_buf, stream: parts.io.into_inner().into_inner() })
}

async fn handshake(
    tunnel: &Tunnel,
    stream: Prefixed,
    config: Arc<ServerConfig>,
) -> Result<(Box<TlsStream<Prefixed>>, Form), &'static str> {
    let start = match LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await {
        Ok(start) => start,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err("client_gone"),
        Err(_) => return Err("not_tls"),
    };
    let form = match start.client_hello().server_name().map(Host::parse) {
        Some(Ok(name)) if name == tunnel.destination.host => Form::Tunnel,
        Some(_) => return Err("destination_mismatch"),
        None if tunnel.destination.host.ip().is_some() => Form::Tunnel,
        None => Form::TunnelWithoutName,
    };
    // A client that does not trust our CA ends the handshake here, mostly with an alert.
    let stream = start.into_stream(config).await.map_err(|_| "tls_handshake_failed")?;
    Ok((Box::new(stream), form))
}

fn note(proxy: &Proxy, tunnel: &Tunnel, code: &'static str) {
    tracing::debug!(
        connection.id = tunnel.connection.id,
        destination = %tunnel.destination,
        code,
        "a tunnel was closed before its first request"
    );
    proxy.metrics.exchange(None, code);
    proxy.audit.note(Event::Connection {
        connection_id: tunnel.connection.id,
        peer: tunnel.connection.peer,
        destination: Some(tunnel.destination.clone()),
        code,
    });
}

/// A socket with bytes that were read from it before.
#[derive(Debug)]
pub struct Prefixed {
    pub(super) prefix: Bytes,
    pub(super) stream: Socket,
}

impl AsyncRead for Prefixed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let count = self.prefix.len().min(buf.remaining());
        buf.put_slice(&self.prefix[..count]);
        self.prefix.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
