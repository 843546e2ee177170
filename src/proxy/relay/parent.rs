//! The way through a parent proxy (`egress.upstream_proxy`): a tunnel by `CONNECT`, and TLS to the upstream inside it.
//!
//! The name goes to the parent as it is: what it resolves to is the parent's business, which is why only names that a
//! service lists go this way, and addresses never.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::connector::ConnectFault;
use crate::credential::Credentials;
use crate::model::Destination;
use crate::net::{Dialer, Reach};
use crate::policy::ParentProxy;
use crate::proxy::inject::proxy_authorization;

/// Bytes of the parent's answer to `CONNECT` at most.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// A proxy that stands between us and the upstreams.
pub struct Parent {
    proxy: ParentProxy,
    credentials: Arc<Credentials>,
}

impl Parent {
    /// Nothing is dialled yet.
    #[must_use]
    pub fn new(proxy: ParentProxy, credentials: Arc<Credentials>) -> Self {
        Self { proxy, credentials }
    }

    /// A tunnel to `to`, and the parent's address that answered.
    pub(super) async fn tunnel(
        &self,
        dialer: &Dialer,
        to: &Destination,
    ) -> Result<(TcpStream, SocketAddr), ConnectFault> {
        let request = self.request(to).await?;
        // The policy names it, and corporate proxies have private addresses.
        let (stream, address) = dialer.dial(&self.proxy.proxy, Reach::Private).await?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(ANSWER_BYTES_MAX)
            .handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
            .await
            .map_err(|_| ConnectFault::Parent)?;
        // It ends with the tunnel that it makes, or with `sender`.
        tokio::spawn(connection.with_upgrades());
        let answer = sender.send_request(request).await.map_err(|_| ConnectFault::Parent)?;
        if !answer.status().is_success() {
            tracing::warn!(
                upstream_proxy = %self.proxy.proxy,
                destination = %to,
                status = answer.status().as_u16(),
                "the upstream proxy refused a tunnel"
            );
            return Err(ConnectFault::Parent);
        }
        let upgraded = hyper::upgrade::on(answer).await.map_err(|_| ConnectFault::Parent)?;
        let parts = upgraded.downcast::<TokioIo<TcpStream>>().map_err(|_| ConnectFault::Parent)?;
        // An upstream speaks only when it is spoken to: bytes before that are the parent's own.
        if parts.read_buf.is_empty() { Ok((parts.io.into_inner(), address)) } else { Err(ConnectFault::Parent) }
    }

    async fn request(&self, to: &Destination) -> Result<Request<Empty<Bytes>>, ConnectFault> {
        let authority = to.to_string();
        let mut request = Request::builder().method(Method::CONNECT).uri(&authority).header(header::HOST, &authority);
        if let Some(name) = &self.proxy.credential {
            let credential = self.credentials.fetch(name).await.map_err(|_| ConnectFault::Credential)?;
            let value = proxy_authorization(&credential).map_err(|_| ConnectFault::Credential)?;
            request = request.header(header::PROXY_AUTHORIZATION, value);
        }
        request.body(Empty::new()).map_err(|_| ConnectFault::Parent)
    }
}
