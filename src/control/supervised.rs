//! The control API over a socket pair: one connection, one caller, HTTP/2.

use std::convert::Infallible;
use std::io;
use std::os::unix::net::UnixStream as Channel;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::front::Control;
use crate::model::Identity;

/// Calls and streams of events at once.
const STREAMS_MAX: u32 = 64;
/// Bytes of one call's head at most.
const HEAD_BYTES_MAX: u32 = 16 * 1024;
/// How long present calls may take at the end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves until `shutdown`, or until the other end is closed.
pub(super) async fn serve(channel: Channel, control: Arc<Control>, shutdown: CancellationToken) -> io::Result<()> {
    channel.set_nonblocking(true)?;
    let stream = UnixStream::from_std(channel)?;
    let answer = service_fn(move |request| {
        let control = Arc::clone(&control);
        async move { Ok::<_, Infallible>(control.handle(Some(&Identity::Supervisor), request).await) }
    });
    let served = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), answer);
    let mut served = std::pin::pin!(served);
    let closed = tokio::select! {
        closed = served.as_mut() => closed,
        () = shutdown.cancelled() => {
            served.as_mut().graceful_shutdown();
            timeout(DRAIN_TIMEOUT, served).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = closed {
        tracing::debug!(%error, "the supervisor's channel ended badly");
    }
    Ok(())
}
