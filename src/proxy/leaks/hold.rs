//! The beginning of a body, judged before anything of the request is sent.

use std::time::Duration;

use bytes::BytesMut;
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};

use super::{Leaks, Tap};
use crate::model::{AgentName, Denial};
use crate::proxy::flow::{Inbound, UploadFault};

/// How much of a body is held; what is longer is judged on its way.
const HELD_BYTES_MAX: usize = 64 * 1024;
/// How long it may take to come; who sends in turns with upstream would wait for an answer first.
const HOLD_TIME_MAX: Duration = Duration::from_secs(1);

impl Leaks {
    /// Judges the beginning of a body, which still is in the body after that. Gives the tap back where more may come.
    ///
    /// # Errors
    /// [`Denial`]: a nonce is in it, or the agent broke off.
    pub(in crate::proxy) async fn hold(
        &self,
        body: &mut Inbound,
        agent: Option<AgentName>,
        mut tap: Box<Tap>,
    ) -> Result<Option<Box<Tap>>, Denial> {
        let is_longer = body.size_hint().lower() > HELD_BYTES_MAX as u64;
        let Some(room) = self.room.take(agent, 1) else { return Ok(Some(tap)) };
        if is_longer {
            return Ok(Some(tap));
        }
        let (mut read, mut trailers, mut is_whole) = (BytesMut::new(), None, false);
        let deadline = Instant::now() + HOLD_TIME_MAX;
        while !is_whole && trailers.is_none() && read.len() <= HELD_BYTES_MAX {
            let Ok(frame) = timeout_at(deadline, body.frame()).await else { break };
            let frame = frame.transpose().map_err(|_| UploadFault::Agent.denial())?;
            match frame.map(Frame::into_data) {
                Some(Ok(data)) => read.extend_from_slice(&data),
                Some(Err(other)) => trailers = other.into_trailers().ok(),
                None => is_whole = true,
            }
        }
        let judged = tap.judge(&read);
        is_whole |= trailers.is_some() || body.is_end_stream();
        body.put_back(read.freeze(), trailers, room);
        judged.map_err(UploadFault::denial)?;
        Ok((!is_whole).then_some(tap))
    }
}
