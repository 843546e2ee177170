//! A body that a rule looks at is held, judged as a whole, and then sent byte for byte.

use std::sync::Arc;
use std::time::Duration;

use super::Presented;
use crate::model::{AgentName, Denial};
use crate::policy::HeldBody;
use crate::proxy::fair::{Fair, Place};

/// Bytes of bodies that are held at a time, in the whole process.
const HELD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Where bodies are held; what has no room beside those of its own agent is refused.
#[derive(Debug, Clone)]
pub struct Hold(Arc<Fair>);

impl Default for Hold {
    fn default() -> Self {
        Self(Fair::new(HELD_BYTES_MAX))
    }
}

impl Hold {
    /// Reads a body up to `bytes_max`, all within `patience`: like a head, it is what a decision waits for. An agent that
    /// waits to be asked for it is asked by that.
    ///
    /// # Errors
    /// [`Denial`]: there is no room, it did not come in time, or it broke off.
    pub async fn take(
        &self,
        presented: &mut Presented,
        (bytes_max, agent): (usize, &AgentName),
        patience: Duration,
    ) -> Result<(), Denial> {
        let room = self.0.take(Some(agent.clone()), bytes_max).ok_or(Denial::Overloaded)?;
        let reading = tokio::time::timeout(patience, presented.body.hold(bytes_max, room));
        let seen = reading.await.map_err(|_| Denial::RequestTimeout)?.map_err(|_| Denial::RequestMalformed)?;
        presented.seen = Some(Box::new(seen));
        Ok(())
    }

    /// Room for so much of an agent's bodies, until it is dropped; `None` where there is none.
    #[must_use]
    pub(in crate::proxy) fn room(&self, agent: &AgentName, bytes: usize) -> Option<Place> {
        self.0.take(Some(agent.clone()), bytes)
    }
}

/// What conditions see of it.
pub fn held(presented: &Presented) -> Option<HeldBody<'_>> {
    let seen = presented.seen.as_ref()?;
    let headers = &presented.head.headers;
    let mut types = headers.get_all(http::header::CONTENT_TYPE).iter();
    let content_type = match (types.next(), types.next()) {
        (Some(only), None) => only.to_str().ok(),
        (None, _) | (Some(_), Some(_)) => None,
    };
    let signed = presented.lifted.as_ref().and_then(|lifted| lifted.signed.as_ref());
    let is_framed = signed.is_some_and(|signed| signed.frames_body());
    Some(HeldBody {
        bytes: &seen.bytes,
        is_whole: seen.is_whole,
        has_trailers: seen.has_trailers,
        content_type,
        is_encoded: is_framed || headers.contains_key(http::header::CONTENT_ENCODING),
    })
}
