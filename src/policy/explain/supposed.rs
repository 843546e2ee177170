//! What conditions look at, of a request that nobody makes and of a nonce that nobody has.

use crate::model::AgentName;
use crate::policy::{Circumstances, HeldBody, NonceFacts, RISK_NORMAL};

/// What is said of them; the rest is as with a request without a body, under a nonce that was minted this moment and of
/// which nothing was said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Supposed {
    /// The body, whole.
    pub body: String,
    /// Its `Content-Type`.
    pub content_type: Option<String>,
    /// Its `Content-Encoding`.
    pub content_encoding: Option<String>,
    /// The task of the nonce.
    pub task: Option<String>,
    /// The run of its agent.
    pub instance: Option<String>,
    /// On whose behalf.
    pub on_behalf_of: Option<String>,
    /// Its labels.
    pub labels: Vec<(String, String)>,
    /// Seconds since it was minted.
    pub age_seconds: u64,
    /// Uses that were taken, where they are counted.
    pub uses: Option<u32>,
    /// The level of risk in force; none is the normal one.
    pub risk: Option<String>,
}

impl Supposed {
    /// As a decision sees it, `now` in seconds since 1970; `data` are the labels of the scopes that the nonce holds.
    pub(super) fn circumstances<'a>(
        &'a self,
        agent: Option<&'a AgentName>,
        data: Vec<&'a str>,
        now: i64,
    ) -> Circumstances<'a> {
        let bytes = self.body.as_bytes();
        let content_type = self.content_type.as_deref();
        let is_encoded = self.content_encoding.is_some();
        Circumstances {
            now,
            size: u64::try_from(bytes.len()).ok(),
            body: Some(HeldBody { bytes, is_whole: true, has_trailers: false, content_type, is_encoded }),
            risk: self.risk.as_deref().unwrap_or(RISK_NORMAL),
            nonce: NonceFacts {
                agent: agent.map_or("", AgentName::as_str),
                task: self.task.as_deref().unwrap_or_default(),
                instance: self.instance.as_deref(),
                on_behalf_of: self.on_behalf_of.as_deref(),
                labels: self.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
                data,
                age_seconds: self.age_seconds,
                uses: self.uses,
            },
        }
    }
}
