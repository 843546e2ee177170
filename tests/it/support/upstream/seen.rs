//! What arrived at an upstream.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Version};

use crate::support::watch::Heard;

/// One request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    pub connection: u64,
    pub version: Version,
    pub method: String,
    /// Path and query.
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

/// Where an upstream notes what arrives.
#[derive(Clone, Default)]
pub struct Recorder {
    /// Requests that it could read.
    pub seen: Arc<Mutex<Vec<Seen>>>,
    /// What arrived where connections are played by hand.
    pub heard: Heard,
}

impl Recorder {
    pub(super) fn note(&self, seen: Seen) {
        self.seen.lock().expect("not poisoned").push(seen);
    }
}

impl Seen {
    /// All of it, for looking for what must not be there.
    pub fn everything(&self) -> Vec<u8> {
        let mut all = format!("{} {}\n", self.method, self.target).into_bytes();
        for (name, value) in self.headers.iter().chain(self.trailers.iter().flatten()) {
            all.extend_from_slice(name.as_str().as_bytes());
            all.extend_from_slice(b": ");
            all.extend_from_slice(value.as_bytes());
            all.push(b'\n');
        }
        all.extend_from_slice(&self.body);
        all
    }

    /// From the bytes of an HTTP/1.1 head.
    pub fn of_head(connection: u64, head: &str) -> Self {
        let mut words = head.split(' ').map(str::to_owned);
        let fields = head.lines().skip(1).filter_map(|line| line.split_once(": "));
        let fields = fields.filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)));
        Self {
            connection,
            version: Version::HTTP_11,
            method: words.next().unwrap_or_default(),
            target: words.next().unwrap_or_default(),
            headers: fields.collect::<Vec<(http::HeaderName, http::HeaderValue)>>().into_iter().collect(),
            body: Bytes::new(),
            trailers: None,
        }
    }

    /// A header's value as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("text"))
    }
}
