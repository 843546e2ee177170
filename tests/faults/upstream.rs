//! An upstream that breaks as a script says, and notes what reached it.
//!
//! - `script`: what a connection goes through
//! - `http1`, `http2`: reading requests, by hand
//! - `recorder`: what arrived, and whether the audit knew of it by then

pub mod http1;
pub mod http2;
pub mod recorder;
pub mod script;

use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{CertificateParams, date_time_ymd};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

pub use recorder::Recorder;
pub use script::{After, At, Fault, Step, Tls};

use crate::support::authority::{TestAuthority, server_config};

/// An upstream on loopback for `api.test`.
pub struct Upstream {
    pub address: SocketAddr,
    pub authority: Arc<TestAuthority>,
    pub recorder: Arc<Recorder>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Upstream {
    pub async fn start(fault: Fault) -> Self {
        let authority = TestAuthority::new();
        let recorder = Arc::new(Recorder::default());
        let any = "127.0.0.1:0".parse().expect("an address");
        if fault.at == At::Connect {
            // Bound and never listening: nobody else gets the port, and nobody gets in.
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.bind(any).expect("a port");
            let address = socket.local_addr().expect("an address");
            let task = tokio::spawn(async move {
                std::future::pending::<()>().await;
                drop(socket);
            });
            return Self { address, authority, recorder, task };
        }
        let listener = TcpListener::bind(any).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let acceptor = TlsAcceptor::from(Arc::new(config(&fault, &authority)));
        let task = tokio::spawn(accept(listener, acceptor, Arc::new(fault), recorder.clone()));
        Self { address, authority, recorder, task }
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, fault: Arc<Fault>, recorder: Arc<Recorder>) {
    // Connections end with the upstream.
    let mut open = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while open.try_join_next().is_some() {}
        open.spawn(connection(stream, acceptor.clone(), fault.clone(), recorder.clone()));
    }
}

async fn connection(mut stream: TcpStream, acceptor: TlsAcceptor, fault: Arc<Fault>, recorder: Arc<Recorder>) {
    let _ = stream.set_nodelay(true);
    if fault.at == At::Hello {
        let _ = script::read_some(&mut stream).await;
    }
    if matches!(fault.at, At::Accepted | At::Hello) {
        let after = script::play(&mut stream, (fault.steps)(0)).await;
        return script::end_plain(stream, after).await;
    }
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    let after = serve(&mut stream, &fault, &recorder).await;
    script::end_tls(stream, after).await;
}

async fn serve(stream: &mut TlsStream<TcpStream>, fault: &Fault, recorder: &Recorder) -> After {
    if fault.at == At::Secured {
        return script::play(stream, (fault.steps)(0)).await;
    }
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        http2::serve(stream, fault, recorder).await
    } else {
        http1::serve(stream, fault, recorder).await
    }
}

fn config(fault: &Fault, authority: &TestAuthority) -> ServerConfig {
    let alpn: &[&[u8]] = if fault.is_h2 { &[b"h2"] } else { &[b"http/1.1"] };
    let (chain, key) = match fault.tls {
        Tls::Good => authority.leaf(&["api.test"], |_| {}),
        Tls::OtherName => authority.leaf(&["other.test"], |_| {}),
        Tls::Expired => authority.leaf(&["api.test"], |params| between(params, 2020, 2021)),
        Tls::NotYet => authority.leaf(&["api.test"], |params| between(params, 2090, 2091)),
        Tls::OtherAuthority => TestAuthority::new().leaf(&["api.test"], |_| {}),
    };
    server_config(chain, key, alpn)
}

fn between(params: &mut CertificateParams, from: i32, to: i32) {
    (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
}
