//! Reading server-sent events (WHATWG HTML, 9.2), as far as this API sends them.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::{ClientError, Connection};

/// One event in bytes at most: the longest record, and what stands around it.
const EVENT_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Three heartbeats: with less than one in this time, nobody is there.
const SILENCE_MAX: Duration = Duration::from_secs(45);

/// The audit's events, as they come.
pub struct Events {
    body: Incoming,
    /// What came and was not read.
    rest: BytesMut,
    _connection: Option<Connection>,
}

impl Events {
    pub(super) fn new(body: Incoming, connection: Option<Connection>) -> Self {
        Self { body, rest: BytesMut::new(), _connection: connection }
    }

    /// The next record, as the audit has it; `None` once the sidecar has ended the stream in good order.
    ///
    /// Who reads too slowly gets a value `{"type": "gap", "records": N}` in the place of the N records that were passed
    /// over, whether or not they would have been shown.
    ///
    /// # Errors
    /// [`ClientError`]: the sidecar is gone, or silent for 45 seconds. Nothing comes after that.
    pub async fn next(&mut self) -> Result<Option<serde_json::Value>, ClientError> {
        loop {
            while let Some(event) = self.take_event() {
                if let Some(data) = data_of(&event) {
                    return serde_json::from_slice(&data).map(Some).map_err(|_| unintelligible());
                }
            }
            if self.rest.len() > EVENT_BYTES_MAX {
                return Err(unintelligible());
            }
            let frame = timeout(SILENCE_MAX, self.body.frame()).await.map_err(|_| ClientError::Timeout)?;
            match frame.transpose()? {
                Some(frame) => self.rest.extend(frame.into_data().ok()),
                None => return Ok(None),
            }
        }
    }

    /// The lines up to the next empty one.
    fn take_event(&mut self) -> Option<BytesMut> {
        let end = self.rest.windows(2).position(|pair| pair == b"\n\n")?;
        let event = self.rest.split_to(end);
        self.rest.advance(2);
        Some(event)
    }
}

fn unintelligible() -> ClientError {
    ClientError::Unintelligible(StatusCode::OK)
}

/// The data of an event; `None` where it has none, as a heartbeat does.
fn data_of(event: &[u8]) -> Option<Vec<u8>> {
    let lines = event.split(|byte| *byte == b'\n').filter_map(|line| line.strip_prefix(b"data: "));
    let data: Vec<&[u8]> = lines.collect();
    (!data.is_empty()).then(|| data.join(&b'\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_data_and_a_heartbeat_has_none() {
        assert_eq!(data_of(b"event: mint\nid: 4\ndata: {\"seq\":4}"), Some(b"{\"seq\":4}".to_vec()));
        assert_eq!(data_of(b": still here"), None);
        assert_eq!(data_of(b""), None);
    }
}
