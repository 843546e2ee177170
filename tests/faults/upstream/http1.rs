//! HTTP/1.1 read by hand.

use std::sync::atomic::Ordering;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::Recorder;
use super::script::{After, At, Fault, play};
use crate::support::upstream::read_head;

/// Reads requests and plays the script for each.
pub async fn serve(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), fault: &Fault, recorder: &Recorder) -> After {
    loop {
        let head = read_head(stream).await;
        if !head.ends_with("\r\n\r\n") {
            return After::Drop;
        }
        recorder.arrived(Some(&head));
        if fault.at != At::Head && !read_body(stream, &head).await {
            return After::Drop;
        }
        if fault.at != At::Head {
            recorder.whole.fetch_add(1, Ordering::SeqCst);
        }
        let after = play(stream, (fault.steps)(0)).await;
        if after != After::Next {
            return after;
        }
        if fault.at == At::Head && !read_body(stream, &head).await {
            return After::Drop;
        }
    }
}

/// Reads a body to its end; false where it has none.
async fn read_body(stream: &mut (impl AsyncRead + Unpin), head: &str) -> bool {
    let head = head.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    if let Some(length) = length {
        return stream.read_exact(&mut vec![0; length]).await.is_ok();
    }
    if !head.contains("transfer-encoding: chunked") {
        return true;
    }
    let mut body = Vec::new();
    while !body.ends_with(b"0\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => body.push(byte),
            Err(_) => return false,
        }
    }
    true
}
