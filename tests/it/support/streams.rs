//! HTTP/2 streams as both sides hold them: pieces in, pieces out, and the fields behind them.

use std::task::Poll;

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::HeaderMap;

use super::agent::PATIENCE;

/// The next piece of a body; `None` at its end, or where it broke.
pub async fn next(body: &mut RecvStream) -> Option<Bytes> {
    let data = tokio::time::timeout(PATIENCE, body.data()).await.expect("in time")?.ok()?;
    let _ = body.flow_control().release_capacity(data.len());
    Some(data)
}

/// All of a body, and its trailers; what came before it broke, if it did.
pub async fn whole(mut body: RecvStream) -> (Vec<u8>, Option<HeaderMap>) {
    let mut all = Vec::new();
    while let Some(data) = next(&mut body).await {
        all.extend_from_slice(&data);
    }
    let trailers = tokio::time::timeout(PATIENCE, body.trailers()).await.expect("in time");
    (all, trailers.ok().flatten())
}

/// Sends a piece as far as the other side takes it; false once it takes no more.
pub async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes) -> bool {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = std::future::poll_fn(|cx| match stream.poll_reset(cx) {
            Poll::Ready(_) => Poll::Ready(None),
            Poll::Pending if stream.capacity() > 0 => Poll::Ready(Some(Ok(stream.capacity()))),
            Poll::Pending => stream.poll_capacity(cx),
        });
        let Some(Ok(room)) = room.await else { return false };
        if stream.send_data(data.split_to(room.min(data.len())), false).is_err() {
            return false;
        }
    }
    true
}
