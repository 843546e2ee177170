//! What everybody got to see of a sidecar, searched for the credentials of the test when the sidecar is over.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream as StdTcpStream};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::leak::{self, Needles};
use super::upstream::Recorder;
use super::wire::answers;

/// What is kept of one conversation; no test says a credential only after so much else.
const KEPT_MAX: usize = 1024 * 1024;
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

/// What was heard, conversation by conversation.
#[derive(Clone, Default)]
pub struct Heard(Arc<Mutex<Vec<Conversation>>>);

type Conversation = Arc<Mutex<Vec<u8>>>;

impl Heard {
    /// A conversation of its own.
    fn conversation(&self) -> Conversation {
        let conversation = Conversation::default();
        self.0.lock().expect("not poisoned").push(conversation.clone());
        conversation
    }

    /// Something that was said at once.
    pub fn hear(&self, bytes: &[u8]) {
        keep(&self.conversation(), bytes);
    }

    fn sweep(&self, needles: &Needles) {
        for conversation in self.0.lock().expect("not poisoned").iter() {
            let bytes = conversation.lock().expect("not poisoned");
            needles.assert_clean(&bytes, "what an agent or a caller received");
            if bytes.starts_with(b"HTTP/1.") {
                for answer in answers(&bytes, true) {
                    needles.assert_clean(&answer.body, "a body that an agent received");
                    needles.assert_clean(&opened(&answer.body), "a compressed body that an agent received");
                }
            }
            needles.assert_clean(&opened(&bytes), "something compressed that an agent received");
        }
    }
}

fn keep(conversation: &Conversation, bytes: &[u8]) {
    let mut kept = conversation.lock().expect("not poisoned");
    let room = KEPT_MAX - kept.len();
    kept.extend_from_slice(&bytes[..room.min(bytes.len())]);
}

/// Whatever gzip can be found, and deflate if it is that, opened as far as it goes.
fn opened(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    if let Some(at) = memchr::memmem::find(bytes, b"\x1f\x8b\x08") {
        let _ = flate2::read::MultiGzDecoder::new(&bytes[at..]).take(KEPT_MAX as u64).read_to_end(&mut text);
    }
    // The binary sends Brotli and zstd as they are read.
    if bytes.first() == Some(&0x78) {
        let _ = flate2::read::ZlibDecoder::new(bytes).take(KEPT_MAX as u64).read_to_end(&mut text);
    }
    text
}

/// An agent's end of a tunnel: all that it reads is heard.
pub struct Listening {
    stream: TlsStream<TcpStream>,
    conversation: Conversation,
}

impl Listening {
    pub fn new(stream: TlsStream<TcpStream>, heard: &Heard) -> Self {
        Self { stream, conversation: heard.conversation() }
    }

    /// The socket and the TLS session.
    pub fn get_ref(&self) -> (&TcpStream, &rustls::ClientConnection) {
        self.stream.get_ref()
    }
}

impl AsyncRead for Listening {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        keep(&self.conversation, &buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Listening {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
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
}

impl Watch {
    /// Fails if a credential is anywhere that it may not be.
    pub fn sweep(&self, directory: &Path, metrics: &[u8]) {
        let canaries = CANARIES.with_borrow(Clone::clone);
        let needles = Needles::of(&canaries);
        needles.assert_clean(metrics, "the metrics");
        // Where a policy says so, answers pass as they are.
        if !self.policy.contains("scrub = false") {
            self.heard.sweep(&needles);
        }
        self.sweep_files(directory, directory, &needles);
        self.sweep_upstreams();
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

    /// No upstream got a credential that is not for it.
    fn sweep_upstreams(&self) {
        let Ok(policy) = self.policy.parse::<toml::Table>() else { return };
        let credentials = policy.get("credentials").and_then(toml::Value::as_table);
        for (_, credential) in credentials.into_iter().flatten() {
            let name = credential.get("name").and_then(toml::Value::as_str).unwrap_or_default();
            let Some((_, value)) = self.environment.iter().find(|(known, _)| known == name) else { continue };
            let hosts = credential.get("hosts").and_then(toml::Value::as_array).cloned().unwrap_or_default();
            let is_for = |host: &String| hosts.iter().any(|own| own.as_str() == Some(host));
            for (names, recorder) in self.upstreams.iter().filter(|(names, _)| !names.iter().any(is_for)) {
                let needles = Needles::of(std::slice::from_ref(value));
                for seen in recorder.lock().expect("not poisoned").iter() {
                    needles.assert_clean(&seen.everything(), &format!("what {names:?} received"));
                }
            }
        }
    }
}

/// The metrics, if they can still be had.
pub fn metrics(admin: SocketAddr) -> Vec<u8> {
    let mut text = Vec::new();
    let mut ask = || -> io::Result<()> {
        let mut stream = StdTcpStream::connect_timeout(&admin, METRICS_PATIENCE)?;
        stream.set_read_timeout(Some(METRICS_PATIENCE))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        stream.read_to_end(&mut text).map(drop)
    };
    // One that has ended has none.
    let _ = ask();
    text
}

/// An oracle that finds nothing is worth nothing.
#[test]
fn a_credential_that_gets_out_is_found() {
    let finds = |leak: &dyn Fn(&str, &Watch, &Path)| {
        let directory = tempfile::tempdir().expect("a directory");
        let secret = super::canary();
        let mut watch = Watch {
            policy: "[credentials.a]\nname = \"A\"\nhosts = [\"a.test\"]".to_owned(),
            environment: vec![("A".to_owned(), secret.clone())],
            ..Watch::default()
        };
        watch.upstreams.push((vec!["b.test".to_owned()], Recorder::default()));
        leak(&secret, &watch, directory.path());
        let sweep = std::panic::AssertUnwindSafe(|| watch.sweep(directory.path(), b""));
        std::panic::catch_unwind(sweep).is_err()
    };
    assert!(!finds(&|_, _, _| {}), "nothing to be found");
    assert!(
        !finds(&|secret, _, place| std::fs::write(place.join("key"), secret).expect("a file")),
        "a test's own file"
    );
    assert!(finds(&|secret, watch, _| watch.heard.hear(secret.as_bytes())));
    assert!(finds(&|secret, watch, _| watch.heard.hear(&super::upstream::gzip(secret.as_bytes()))));
    assert!(finds(&|secret, watch, _| {
        let chunks: String = secret.chars().map(|letter| format!("1\r\n{letter}\r\n")).collect();
        watch.heard.hear(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n").as_bytes());
    }));
    assert!(finds(&|secret, watch, _| {
        let conversation = watch.heard.conversation();
        secret.as_bytes().chunks(7).for_each(|piece| keep(&conversation, piece));
    }));
    for (form, text) in leak::forms(&super::canary()) {
        assert!(!text.is_empty(), "{form}");
    }
    assert!(finds(&|secret, _, place| std::fs::write(place.join("log"), hex::encode_upper(secret)).expect("a file")));
    assert!(finds(&|secret, watch, _| {
        let head = format!("GET / HTTP/1.1\r\nauthorization: Bearer {secret}\r\n\r\n");
        watch.upstreams[0].1.lock().expect("not poisoned").push(super::upstream::Seen::of_head(1, &head));
    }));
}
