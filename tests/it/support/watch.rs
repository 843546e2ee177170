//! What everybody got to see of a sidecar, searched for the credentials of the test when the sidecar is over.

mod heard;
mod opened;
mod sources;
mod streams;

use std::cell::RefCell;
use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use heard::{Heard, Overheard};
pub use sources::Source;

use super::leak::Needles;
use super::upstream::Recorder;

/// What the tests themselves write in a sidecar's directory, credentials among it.
const OUR_OWN: [&str; 4] = ["policy.toml", "key", "mount", "fetch"];
/// How long the admin listener may take to tell its metrics.
const METRICS_PATIENCE: Duration = Duration::from_secs(1);

thread_local! {
    /// The credentials made by the test that runs on this thread.
    static CANARIES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Notes a credential that nobody but its own upstream may see.
pub fn guard(canary: &str) {
    CANARIES.with_borrow_mut(|canaries| canaries.push(canary.to_owned()));
}

/// What is searched when a sidecar is over.
#[derive(Default)]
pub struct Watch {
    pub heard: Heard,
    /// The policy as it was given; it says whose a credential is, and whether answers are searched at all.
    pub policy: String,
    /// Variables and their values.
    pub environment: Vec<(String, String)>,
    /// Files that the test has written, by their names in the directory.
    pub inputs: HashSet<PathBuf>,
    /// Upstreams with their hosts.
    pub upstreams: Vec<(Vec<String>, Recorder)>,
    /// What the credentials have said so far.
    pub sources: Vec<Source>,
}

impl Watch {
    /// Fails if a credential is anywhere that it may not be.
    pub fn sweep(&self, directory: &Path, metrics: &[u8]) {
        let canaries = CANARIES.with_borrow(Clone::clone);
        let needles = Needles::of(&canaries);
        needles.assert_clean(metrics, "the metrics");
        // Where a policy says so, answers pass as they are.
        if !self.policy.contains("scrub = false") {
            self.heard.sweep(&needles, "an agent or a caller");
        }
        self.sweep_files(directory, directory, &needles);
        self.sweep_upstreams(directory, &canaries);
    }

    fn sweep_files(&self, root: &Path, directory: &Path, needles: &Needles) {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = path.strip_prefix(root).expect("within");
            let is_ours = OUR_OWN.iter().any(|own| name.starts_with(own)) || self.inputs.contains(name);
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() && !is_ours {
                self.sweep_files(root, &path, needles);
            } else if kind.is_file() && !is_ours {
                needles
                    .assert_clean(&std::fs::read(&path).unwrap_or_default(), &format!("the file {}", name.display()));
            }
        }
    }

    /// Notes what the credentials say now: a file may say something else later.
    pub fn learn(&mut self, directory: &Path) {
        self.sources.extend(sources::read(&self.policy, &self.environment, directory));
    }

    /// No upstream got a credential that is not for it.
    fn sweep_upstreams(&self, directory: &Path, canaries: &[String]) {
        let now = sources::read(&self.policy, &self.environment, directory);
        let sources: Vec<&Source> = self.sources.iter().chain(&now).collect();
        for (names, recorder) in &self.upstreams {
            let needles = Needles::of(&sources::foreign(&sources, canaries, names));
            for seen in recorder.seen.lock().expect("not poisoned").iter() {
                needles.assert_clean(&seen.everything(), &format!("what {names:?} received"));
            }
            recorder.heard.sweep(&needles, &format!("{names:?}"));
        }
    }
}

/// The metrics, if they can still be had.
pub fn metrics(admin: SocketAddr) -> Vec<u8> {
    let mut text = Vec::new();
    let mut ask = || -> io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&admin, METRICS_PATIENCE)?;
        stream.set_read_timeout(Some(METRICS_PATIENCE))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        stream.read_to_end(&mut text).map(drop)
    };
    // One that has ended has none.
    let _ = ask();
    text
}

#[cfg(test)]
mod tests;
