//! A Workload API: gRPC over HTTP/2 on a real Unix socket, which says what the test wants and never ends a stream by itself.

use std::convert::Infallible;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};

const SERVICE: &str = "/SpiffeWorkloadAPI/";
const INVALID_ARGUMENT: u32 = 3;
const UNIMPLEMENTED: u32 = 12;

type Body = StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

/// What is answered.
#[derive(Clone)]
pub enum Answer {
    /// These bytes on every open stream, as they are.
    Bytes(Bytes),
    /// No stream, but this status.
    Status(u32),
    /// Something that is no gRPC.
    Http(u16),
}

pub struct WorkloadApi {
    answer: watch::Sender<Answer>,
    calls: Arc<AtomicUsize>,
    open: Arc<Mutex<Vec<AbortHandle>>>,
    accepting: JoinHandle<()>,
}

impl Drop for WorkloadApi {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

impl WorkloadApi {
    /// Listens there for `FetchJWTBundles`, where whatever was there before goes.
    pub fn start(path: &Path, answer: Answer) -> Self {
        Self::start_for("FetchJWTBundles", path, answer)
    }

    /// The same for `FetchX509Bundles`.
    pub fn start_x509(path: &Path, answer: Answer) -> Self {
        Self::start_for("FetchX509Bundles", path, answer)
    }

    fn start_for(call: &'static str, path: &Path, answer: Answer) -> Self {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).expect("a socket");
        let (answer, said) = watch::channel(answer);
        let calls = Arc::<AtomicUsize>::default();
        let open = Arc::<Mutex<Vec<AbortHandle>>>::default();
        let (counted, opened) = (calls.clone(), open.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (said, calls) = (said.clone(), counted.clone());
                let service = service_fn(move |request| respond(call, request, said.clone(), calls.clone()));
                let serving = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
                let task = tokio::spawn(async move { drop(serving.await) });
                opened.lock().expect("no panic").push(task.abort_handle());
            }
        });
        Self { answer, calls, open, accepting }
    }

    /// From now on this is so, on open streams too.
    pub fn say(&self, answer: Answer) {
        self.answer.send_replace(answer);
    }

    /// Cuts every connection.
    pub fn cut(&self) {
        for task in self.open.lock().expect("no panic").drain(..) {
            task.abort();
        }
    }

    /// Calls so far that were as they have to be.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// Connections whose client is still there.
    pub fn open(&self) -> usize {
        self.open.lock().expect("no panic").iter().filter(|task| !task.is_finished()).count()
    }
}

async fn respond(
    call: &'static str,
    request: Request<Incoming>,
    mut said: watch::Receiver<Answer>,
    calls: Arc<AtomicUsize>,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let is = |name: &str, value: &str| head.headers.get(name).is_some_and(|found| found == value);
    if !is("workload.spiffe.io", "true") {
        return Ok(status(INVALID_ARGUMENT));
    }
    let is_call = head.method == Method::POST && head.uri.path().strip_prefix(SERVICE) == Some(call);
    if !is_call || !is("content-type", "application/grpc") || !is("te", "trailers") {
        return Ok(status(UNIMPLEMENTED));
    }
    let sent = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    if *sent != [0; 5] {
        return Ok(status(INVALID_ARGUMENT));
    }
    calls.fetch_add(1, Ordering::Relaxed);
    let first = said.borrow_and_update().clone();
    let first = match first {
        Answer::Bytes(bytes) => bytes,
        Answer::Status(code) => return Ok(status(code)),
        Answer::Http(code) => {
            let empty = StreamBody::new(stream::empty().boxed());
            return Ok(Response::builder()
                .status(code)
                .header("content-type", "text/html")
                .body(empty)
                .expect("an answer"));
        }
    };
    let updates = stream::unfold(said, async |mut said| {
        said.changed().await.ok()?;
        let answer = said.borrow_and_update().clone();
        let Answer::Bytes(bytes) = answer else { return None };
        Some((bytes, said))
    });
    let body = stream::iter([first]).chain(updates).map(|bytes| Ok(Frame::data(bytes)));
    let answer = Response::builder().header("content-type", "application/grpc");
    Ok(answer.body(StreamBody::new(body.boxed())).expect("an answer"))
}

/// No stream at all: the status stands in the head.
fn status(code: u32) -> Response<Body> {
    let answer = Response::builder().header("content-type", "application/grpc").header("grpc-status", code);
    answer.body(StreamBody::new(stream::empty().boxed())).expect("an answer")
}

/// A message with its prefix.
pub fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("a short message").to_be_bytes();
    [&[0], length.as_slice(), message].concat().into()
}

/// `JWTBundlesResponse`: `map<string, bytes> bundles = 1`.
pub fn bundles(of: &[(&str, &str)]) -> Answer {
    let entries = of.iter().map(|(domain, set)| run(1, &[run(1, domain.as_bytes()), run(2, set.as_bytes())].concat()));
    Answer::Bytes(framed(&entries.collect::<Vec<_>>().concat()))
}

/// `X509BundlesResponse`: lists of revoked certificates, and `map<string, bytes> bundles = 2`.
pub fn certificates(of: &[(&str, &[&[u8]])]) -> Answer {
    let entry = |(domain, set): &(&str, &[&[u8]])| run(2, &[run(1, domain.as_bytes()), run(2, &set.concat())].concat());
    let entries: Vec<Vec<u8>> = of.iter().map(entry).collect();
    Answer::Bytes(framed(&[run(1, b"a list"), entries.concat()].concat()))
}

/// A field of protobuf that is a run of bytes.
fn run(field: u8, content: &[u8]) -> Vec<u8> {
    let mut written = vec![field << 3 | 2];
    let mut left = content.len();
    while left > 0x7f {
        written.push(u8::try_from(left & 0x7f).expect("seven bits") | 0x80);
        left >>= 7;
    }
    written.push(u8::try_from(left).expect("seven bits"));
    written.extend_from_slice(content);
    written
}
