//! What one side was told, conversation by conversation, and the search in it.

use std::io;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::opened::opened;
use super::streams;
use crate::support::leak::Needles;
use crate::support::wire::answers;

/// What is kept of one conversation; no test says a credential only after so much else.
const KEPT_MAX: usize = 1024 * 1024;

/// What was heard, conversation by conversation.
#[derive(Clone, Default)]
pub struct Heard(Arc<Mutex<Vec<Conversation>>>);

type Conversation = Arc<Mutex<Vec<u8>>>;

impl Heard {
    /// A conversation of its own.
    pub(super) fn conversation(&self) -> Conversation {
        let conversation = Conversation::default();
        self.0.lock().expect("not poisoned").push(conversation.clone());
        conversation
    }

    /// Something that was said at once.
    pub fn hear(&self, bytes: &[u8]) {
        keep(&self.conversation(), bytes);
    }

    /// All that was said.
    #[cfg(test)]
    pub(super) fn all(&self) -> Vec<u8> {
        let conversations = self.0.lock().expect("not poisoned");
        conversations.iter().flat_map(|one| one.lock().expect("not poisoned").clone()).collect()
    }

    /// Forgets what was said.
    pub fn forget(&self) {
        self.0.lock().expect("not poisoned").clear();
    }

    /// Fails if a credential is in anything that was said to `whom`.
    pub(super) fn sweep(&self, needles: &Needles, whom: &str) {
        for conversation in self.0.lock().expect("not poisoned").iter() {
            let bytes = conversation.lock().expect("not poisoned");
            sweep_text(&bytes, needles, &format!("what {whom} received"));
            if bytes.starts_with(b"HTTP/1.") {
                for answer in answers(&bytes, true) {
                    sweep_text(&answer.body, needles, &format!("a body that {whom} received"));
                }
            }
            for stream in streams::of(&bytes) {
                needles.assert_clean(&stream.fields, &format!("a header that {whom} received"));
                needles.assert_not_packed(&stream.fields, &format!("a header that {whom} received"));
                sweep_text(&stream.data, needles, &format!("a body that {whom} received"));
            }
        }
    }
}

fn sweep_text(bytes: &[u8], needles: &Needles, what: &str) {
    needles.assert_clean(bytes, what);
    needles.assert_clean(&opened(bytes), &format!("{what}, compressed"));
}

pub(super) fn keep(conversation: &Conversation, bytes: &[u8]) {
    let mut kept = conversation.lock().expect("not poisoned");
    let room = KEPT_MAX - kept.len();
    kept.extend_from_slice(&bytes[..room.min(bytes.len())]);
}

/// One end of a connection: all that it reads is heard.
pub struct Overheard<S> {
    stream: S,
    heard: Heard,
    conversation: Conversation,
}

impl<S> Overheard<S> {
    pub fn new(stream: S, heard: &Heard) -> Self {
        Self { stream, heard: heard.clone(), conversation: heard.conversation() }
    }

    /// Where it is noted; what is unpacked of it, as from TLS, belongs there too.
    pub fn heard(&self) -> Heard {
        self.heard.clone()
    }
}

impl<S> Deref for Overheard<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Overheard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        keep(&self.conversation, &buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Overheard<S> {
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
