//! The client's side: CONNECT, TLS, and requests whose answers are checked.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use memchr::memmem;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::Failure;
use crate::plan::Plan;

/// Bytes of an answer's head at most.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// One piece of an upload.
static PIECE: [u8; 64 * 1024] = [b'y'; 64 * 1024];

/// How connections are made.
#[derive(Clone)]
pub struct Client {
    plan: Arc<Plan>,
    tls: TlsConnector,
}

impl Client {
    /// `resumes`: TLS sessions are taken up again where the server offers it.
    pub fn new(plan: &Arc<Plan>, resumes: bool) -> Result<Self, Failure> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&plan.ca)? {
            roots.add(certificate?)?;
        }
        let mut tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        if !resumes {
            tls.resumption = Resumption::disabled();
        }
        tls.alpn_protocols = vec![if plan.h2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        Ok(Self { plan: plan.clone(), tls: TlsConnector::from(Arc::new(tls)) })
    }

    /// A TLS stream to `host`, through the proxy where there is one.
    pub async fn connect(&self, host: &str) -> Result<TlsStream<TcpStream>, Failure> {
        let mut stream = TcpStream::connect(self.plan.proxy.unwrap_or(self.plan.origin)).await?;
        stream.set_nodelay(true)?;
        if self.plan.proxy.is_some() {
            let head = format!("CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            let mut seen = Vec::with_capacity(256);
            while !seen.ends_with(b"\r\n\r\n") {
                if stream.read_buf(&mut seen).await? == 0 || seen.len() > HEAD_BYTES_MAX {
                    return Err("CONNECT was not answered".into());
                }
            }
            if !seen.starts_with(b"HTTP/1.1 200") && !seen.starts_with(b"HTTP/1.0 200") {
                return Err(format!("CONNECT was refused: {}", String::from_utf8_lossy(&seen)).into());
            }
        }
        let name = ServerName::try_from(host.to_owned())?;
        Ok(self.tls.connect(name, stream).await?)
    }

    /// The head of a request in HTTP/1.1.
    pub fn head(&self, host: &str, method: &str, path: &str) -> Vec<u8> {
        let length =
            if method == "POST" { format!("Content-Length: {}\r\n", self.plan.body_bytes) } else { String::new() };
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: load/1\r\nAccept: */*\r\n\
             Authorization: Bearer {}\r\n{length}\r\n",
            self.plan.bearer
        )
        .into_bytes()
    }
}

/// One HTTP/1.1 connection.
pub struct H1<S = TlsStream<TcpStream>> {
    stream: S,
    buffer: Vec<u8>,
}

/// How an answer's body ends.
enum Framing {
    Length(usize),
    Chunked,
}

impl<S: AsyncRead + AsyncWrite + Unpin> H1<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::with_capacity(256 * 1024) }
    }

    /// Sends a request; a body of so many bytes after it. `sent` gets the length of each piece of the body.
    pub async fn send(&mut self, head: &[u8], body_bytes: u64, mut sent: impl FnMut(usize)) -> Result<(), Failure> {
        self.stream.write_all(head).await?;
        let mut left = body_bytes;
        while left > 0 {
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE.len());
            self.stream.write_all(&PIECE[..count]).await?;
            sent(count);
            left -= count as u64;
        }
        Ok(self.stream.flush().await?)
    }

    /// Reads a whole answer that must be 200 or 201; how many bytes its body had. `seen` gets each piece of it.
    pub async fn receive(&mut self, mut seen: impl FnMut(&[u8])) -> Result<u64, Failure> {
        let end = loop {
            if let Some(at) = memmem::find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            if self.buffer.len() > HEAD_BYTES_MAX || self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("no whole head".into());
            }
        };
        let framing = framing(&self.buffer[..end])?;
        self.buffer.drain(..end);
        match framing {
            Framing::Length(length) => self.counted(length, &mut seen).await,
            Framing::Chunked => self.chunked(&mut seen).await,
        }
    }

    async fn counted(&mut self, length: usize, seen: &mut impl FnMut(&[u8])) -> Result<u64, Failure> {
        let mut left = length;
        loop {
            let here = left.min(self.buffer.len());
            seen(&self.buffer[..here]);
            self.buffer.drain(..here);
            left -= here;
            if left == 0 {
                return Ok(length as u64);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("the body broke off".into());
            }
        }
    }

    async fn chunked(&mut self, seen: &mut impl FnMut(&[u8])) -> Result<u64, Failure> {
        let mut total = 0;
        loop {
            let line = loop {
                if let Some(at) = memmem::find(&self.buffer, b"\r\n") {
                    break at;
                }
                if self.stream.read_buf(&mut self.buffer).await? == 0 {
                    return Err("the body broke off".into());
                }
            };
            let size = usize::from_str_radix(std::str::from_utf8(&self.buffer[..line])?.trim(), 16)?;
            self.buffer.drain(..line + 2);
            while self.buffer.len() < size + 2 {
                if self.stream.read_buf(&mut self.buffer).await? == 0 {
                    return Err("the body broke off".into());
                }
            }
            seen(&self.buffer[..size]);
            self.buffer.drain(..size + 2);
            total += size as u64;
            if size == 0 {
                return Ok(total);
            }
        }
    }
}

fn framing(head: &[u8]) -> Result<Framing, Failure> {
    if !head.starts_with(b"HTTP/1.1 200") && !head.starts_with(b"HTTP/1.1 201") {
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        return Err(format!("not 200 or 201: {}", String::from_utf8_lossy(line)).into());
    }
    for line in std::str::from_utf8(head)?.lines().skip(1) {
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("content-length") {
            return Ok(Framing::Length(value.trim().parse()?));
        }
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return Ok(Framing::Chunked);
        }
    }
    Err("an answer without framing".into())
}

/// One HTTP/2 connection; requests on it run at the same time.
#[derive(Clone)]
pub struct H2(h2::client::SendRequest<Bytes>);

impl H2 {
    /// The connection runs until the last clone is gone.
    pub async fn new(stream: TlsStream<TcpStream>) -> Result<Self, Failure> {
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(4 * 1024 * 1024)
            .initial_connection_window_size(8 * 1024 * 1024)
            .handshake(stream)
            .await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// One request and its whole answer, which must be 200; how many bytes its body had.
    pub async fn exchange(
        &self,
        request: http::Request<()>,
        body_bytes: u64,
        mut seen: impl FnMut(&[u8]),
    ) -> Result<u64, Failure> {
        let mut sender = self.0.clone().ready().await?;
        let (answer, mut upload) = sender.send_request(request, body_bytes == 0)?;
        let mut left = body_bytes;
        while left > 0 {
            upload.reserve_capacity(PIECE.len());
            let granted = poll_fn(|context| upload.poll_capacity(context)).await.ok_or("the stream closed")??;
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(granted).min(PIECE.len());
            left -= count as u64;
            upload.send_data(Bytes::from_static(&PIECE[..count]), left == 0)?;
        }
        let answer = answer.await?;
        if answer.status() != 200 {
            return Err(format!("not 200: {}", answer.status()).into());
        }
        let mut body = answer.into_body();
        let mut total = 0;
        while let Some(piece) = body.data().await {
            let piece = piece?;
            total += piece.len() as u64;
            seen(&piece);
            body.flow_control().release_capacity(piece.len())?;
        }
        Ok(total)
    }
}
