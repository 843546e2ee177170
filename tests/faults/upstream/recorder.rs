//! What reached an upstream, and whether the audit knew of it by then.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

/// One upstream's notes.
#[derive(Default)]
pub struct Recorder {
    /// The audit, once there is a sidecar.
    pub audit: OnceLock<PathBuf>,
    /// How many requests agents have begun, where they are sent one after another; else 0.
    pub asked: AtomicU64,
    /// Requests of which the whole body arrived, over HTTP/1.1.
    pub whole: AtomicU64,
    sends: Mutex<Vec<Send>>,
    unrecorded: Mutex<Vec<String>>,
}

/// One request that arrived.
#[derive(Debug, Clone)]
pub struct Send {
    /// [`Recorder::asked`] when it did.
    pub during: u64,
    /// The head, where it could be read.
    pub head: Option<String>,
}

impl Recorder {
    /// Notes a request, and looks into the audit for the decision that must be there already.
    pub fn arrived(&self, head: Option<&str>) {
        let during = self.asked.load(Ordering::SeqCst);
        let arrived = {
            let mut sends = self.sends.lock().expect("not poisoned");
            sends.push(Send { during, head: head.map(str::to_owned) });
            sends.len() as u64
        };
        let Some(audit) = self.audit.get() else { return };
        let text = std::fs::read_to_string(audit).unwrap_or_default();
        let is_allowed = |line: &&str| line.contains(r#""type":"decision""#) && line.contains(r#""decision":"allow""#);
        let allowed: Vec<&str> = text.lines().filter(is_allowed).collect();
        // A request that was refused by upstream may come twice over one decision, and never over none.
        let needed = if during == 0 { arrived } else { self.distinct() };
        if (allowed.len() as u64) < needed {
            self.breach(format!("request {arrived} arrived, and {} decisions were on record", allowed.len()));
        }
        let path = head.and_then(|head| head.split(' ').nth(1));
        if let Some(path) = path
            && !allowed.iter().any(|line| line.contains(&format!(r#""path":"{path}""#)))
        {
            self.breach(format!("{path} arrived, and no decision on it was on record"));
        }
    }

    fn breach(&self, what: String) {
        self.unrecorded.lock().expect("not poisoned").push(what);
    }

    /// Everything that arrived.
    pub fn sends(&self) -> Vec<Send> {
        self.sends.lock().expect("not poisoned").clone()
    }

    /// How often the request that is the `asked`th arrived.
    pub fn count(&self, asked: u64) -> usize {
        self.sends().iter().filter(|send| send.during == asked).count()
    }

    /// Fails if the request that is the `asked`th arrived more than so often.
    pub fn assert_sent(&self, asked: u64, most: usize, what: &str) {
        let sent = self.count(asked);
        assert!(sent <= most, "{what} was sent {sent} times");
    }

    fn distinct(&self) -> u64 {
        let mut during: Vec<u64> = self.sends().iter().map(|send| send.during).collect();
        during.sort_unstable();
        during.dedup();
        during.len() as u64
    }

    /// Fails if a request arrived before its decision was on record.
    pub fn assert_recorded(&self) {
        let unrecorded = self.unrecorded.lock().expect("not poisoned");
        assert!(unrecorded.is_empty(), "sent without a record: {unrecorded:#?}");
    }
}
