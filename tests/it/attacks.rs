//! Attacks on the data path, as tables of what is sent: bytes no library would send, from either side.

mod addresses;
mod answers;
mod authorities;
mod below;
mod bodies;
mod callers;
mod certificates;
mod codings;
mod confined;
mod crowds;
mod echoes;
mod evidence;
mod fields;
mod floods;
mod frames;
mod framing;
mod halves;
mod handshakes;
mod hosts;
mod interim;
mod leaving;
mod lines;
mod memory;
mod mutations;
mod nonces;
mod paths;
mod places;
mod policies;
mod process;
mod reading;
mod records;
mod resets;
mod shares;
mod sockets;
mod states;
mod trailers;
mod upstreams;
mod worst;

use crate::support::Stage;

/// A request in a tunnel to `api.test`, with `fields` (each ending in CRLF) beside the nonce.
fn request(line: &str, fields: &str, nonce: &str, body: &str) -> Vec<u8> {
    let head = format!("{line} HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\n{fields}");
    format!("{head}Connection: close\r\n\r\n{body}").into_bytes()
}

/// Status and refusal code of the first answer in these bytes.
fn outcome(answer: &str) -> (u16, Option<&str>) {
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let code = answer.lines().find_map(|line| line.strip_prefix("valetkey-error: "));
    (status, code)
}

/// Sends bytes in a tunnel of their own; the answer, which must be clean.
async fn send(stage: &Stage, bytes: &[u8]) -> String {
    let answer = stage.sidecar.agent().raw_inside("api.test", bytes).await;
    stage.assert_clean(answer.as_bytes(), "an answer");
    answer
}
