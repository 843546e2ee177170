//! HTTP/2 read by hand, frame by frame. Windows are never opened beyond what a connection begins with.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Recorder;
use super::script::{After, At, Fault, play};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// `:status: 200` in HPACK.
pub const STATUS_200: &[u8] = &[0x88];

/// A frame as it stands on the wire.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// The head of a 200.
pub fn head(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, STATUS_200)
}

/// The head of a 200 that says how long its body is; one digit.
pub fn head_with_length(stream: u32, length: u8) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &[STATUS_200, &[0x0f, 0x0d, 1, b'0' + length]].concat())
}

pub fn data(stream: u32, flags: u8, bytes: &[u8]) -> Vec<u8> {
    frame(DATA, flags, stream, bytes)
}

pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

pub fn goaway(last: u32, code: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
}

/// Reads requests and plays the script for each.
pub async fn serve(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), fault: &Fault, recorder: &Recorder) -> After {
    if stream.read_exact(&mut [0; 24]).await.is_err() {
        return After::Drop;
    }
    if let Some(settings) = &fault.settings
        && stream.write_all(&frame(SETTINGS, 0, 0, settings)).await.is_err()
    {
        return After::Drop;
    }
    let _ = stream.flush().await;
    loop {
        let Some((kind, flags, id, payload)) = next(stream).await else { return After::Drop };
        let answer = match kind {
            SETTINGS if flags & ACK == 0 && fault.settings.is_some() => frame(SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => frame(PING, ACK, 0, &payload),
            HEADERS => {
                recorder.arrived(None);
                Vec::new()
            }
            _ => Vec::new(),
        };
        if stream.write_all(&answer).await.is_err() || stream.flush().await.is_err() {
            return After::Drop;
        }
        let is_whole = flags & END_STREAM != 0 && matches!(kind, DATA | HEADERS);
        if (fault.at == At::Head && kind == HEADERS) || (fault.at == At::Whole && is_whole) {
            let after = play(stream, (fault.steps)(id)).await;
            if after != After::Next {
                return after;
            }
        }
    }
}

/// The next frame: kind, flags, stream, payload.
async fn next(stream: &mut (impl AsyncRead + Unpin)) -> Option<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await.ok()?;
    Some((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff, payload))
}
