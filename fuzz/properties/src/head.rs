//! Heads of requests, as they come over the wire: what passes can be read in one way only.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{Future as _, ready};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use valetkey::model::Destination;
use valetkey::policy::Policy;
use valetkey::proxy::extract::Presented;
use valetkey::proxy::fuzzing;

use crate::authorization::{destination, limits};

const POLICY: &str = r#"
version = 1
[credentials.c]
source = "env"
name = "KEY"
hosts = ["api.test"]
[services.s]
hosts = ["api.test"]
credential = "c"
slots = ["bearer", "header:x-api-key"]
[[services.s.scopes]]
name = "all"
risk = "low"
allow = ["GET /{*rest}"]
"#;

/// A head that passes says method, target, host, framing and credential once and in one way, also to readers who take the
/// first of two fields or the last, who end lines at LF alone, or to whom `_` is `-`; and what goes on is what came.
///
/// # Panics
/// Where that does not hold.
pub fn head(data: &[u8]) {
    let Some(request) = first_request(data) else { return };
    let Ok(presented) = fuzzing::present(destination(), policy(), limits(), request) else { return };
    let lines = lines(data);
    let (first, fields) = lines.split_first().expect("a request line");
    judge_line(first, &presented);
    judge_host(first, fields);
    judge_framing(fields, &presented);
    judge_sent(fields, &presented);
}

/// The lines of a head, ended by LF, a CR before it or not; blank lines before it are nobody's.
fn lines(data: &[u8]) -> Vec<&[u8]> {
    let without_cr = |line| <[u8]>::strip_suffix(line, b"\r").unwrap_or(line);
    let lines = data.split(|byte| *byte == b'\n').map(without_cr);
    lines.skip_while(|line| line.is_empty()).take_while(|line| !line.is_empty()).collect()
}

fn judge_line(line: &[u8], presented: &Presented) {
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty()).collect();
    let shown = String::from_utf8_lossy(line);
    assert_eq!(words.len(), 3, "{shown:?} has three words");
    assert_eq!(words[0], presented.head.method.as_str().as_bytes(), "{shown:?}");
    let target = String::from_utf8_lossy(words[1]);
    let target = target.split('#').next().unwrap_or_default();
    let sent = presented.target.as_str();
    let rest = target.strip_suffix(sent).or(if sent == "/" { Some(target) } else { None });
    let rest = rest.or_else(|| sent.strip_prefix('/').and_then(|query| target.strip_suffix(query)));
    let before = rest.unwrap_or_else(|| panic!("{target:?} came, {sent:?} goes on"));
    let authority = before.strip_prefix("https://").or_else(|| before.strip_prefix("HTTPS://")).unwrap_or(before);
    let is_ours = authority.is_empty() || is_ours(authority) || before.to_ascii_lowercase().starts_with("https://");
    assert!(is_ours, "{target:?} names {before:?}");
    let path = sent.split('?').next().unwrap_or_default();
    assert!(!path.contains("/../") && !path.ends_with("/..") && !path.contains("//"), "{sent:?}");
}

/// Every `Host` that any reader finds is the tunnel's destination, and there is one.
fn judge_host(line: &[u8], fields: &[&[u8]]) {
    let hosts = values(fields, "host");
    let is_old = line.ends_with(b"1.0");
    let is_absolute = line.windows(3).any(|part| part == b"://");
    assert!(hosts.len() == 1 || hosts.is_empty() && (is_old || is_absolute), "{} Host fields", hosts.len());
    assert!(hosts.iter().all(|host| is_ours(host)), "{hosts:?}");
}

fn is_ours(authority: &str) -> bool {
    Destination::parse(authority, Some(443)).as_ref() == Ok(destination())
}

/// At most one length, plain; or chunked once. Beside chunked a length means nothing (RFC 9112, 6.3), and does not go on.
/// Neither does what only some servers take for one.
fn judge_framing(fields: &[&[u8]], presented: &Presented) {
    let (lengths, encodings) = (spelled(fields, "content-length"), spelled(fields, "transfer-encoding"));
    assert!(!presented.head.headers.contains_key("content_length"), "another length goes on");
    assert!(encodings.len() <= 1 && encodings.iter().all(|it| it.eq_ignore_ascii_case("chunked")), "{encodings:?}");
    let going: Vec<_> = presented.head.headers.get_all("content-length").iter().collect();
    let is_plain = |text: &str| text.parse::<u64>().is_ok_and(|length| length.to_string() == text);
    if encodings.is_empty() {
        let is_one = lengths.windows(2).all(|pair| pair[0] == pair[1]);
        assert!(is_one && lengths.iter().all(|length| is_plain(length)), "{lengths:?}");
        assert_eq!(going.len(), usize::from(!lengths.is_empty()), "{lengths:?} came, {going:?} goes on");
    } else {
        assert!(going.is_empty(), "a length goes on beside chunked");
    }
    assert!(values(fields, "authorization").len() <= 1 && values(fields, "x-api-key").len() <= 1, "two credentials");
}

/// What goes on came, and ends at no hop, whether by its name or because `Connection` says so; no value breaks out of its
/// line. `Host`, where one came, says what was judged, once.
fn judge_sent(fields: &[&[u8]], presented: &Presented) {
    const HERE: [&str; 10] = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "transfer-encoding",
        "upgrade",
        "trailer",
        "forwarded",
        "via",
        "x-forwarded-for",
    ];
    let hosts: Vec<_> = presented.head.headers.get_all("host").iter().collect();
    assert!(
        hosts.iter().all(|host| *host == "api.test") && hosts.len() == values(fields, "host").len(),
        "{hosts:?} goes on"
    );
    let options = values(fields, "connection").join(",").to_ascii_lowercase();
    for (name, value) in &presented.head.headers {
        let is_named = options.split(',').any(|option| option.trim() == name.as_str());
        // What is said anew is no longer what came.
        assert!(!is_named || name == "te", "{name} goes on, which ends here");
        let dashed = name.as_str().replace('_', "-");
        assert!(!HERE.contains(&dashed.as_str()), "{name} goes on");
        assert!(!value.as_bytes().iter().any(|byte| b"\r\n\0".contains(byte)), "{name} breaks out");
        if name == "host" {
            continue;
        }
        let is_slot = presented.lifted.as_ref().and_then(|lifted| lifted.field.as_ref()) == Some(name);
        let is_credential = ["authorization", "cookie", "x-api-key"].contains(&dashed.as_str());
        assert!(is_slot && value.is_empty() || !is_credential, "{name} goes on");
        let came = values(fields, name.as_str());
        let text = String::from_utf8_lossy(value.as_bytes());
        let has = came.iter().any(|own| *own == text);
        assert!(is_slot || has || dashed == "te" && text == "trailers", "{name}: {text:?} goes on, {came:?} came");
    }
}

/// The values of a field of this very name, in any case.
fn spelled(fields: &[&[u8]], name: &str) -> Vec<String> {
    let is_it = |line: &&&[u8]| line.get(..name.len()).is_some_and(|own| own.eq_ignore_ascii_case(name.as_bytes()));
    let own: Vec<&[u8]> = fields.iter().filter(is_it).copied().collect();
    values(&own, name)
}

/// The values of a field, its name in any case and with `_` for `-`; blanks around name and value do not count.
fn values(fields: &[&[u8]], name: &str) -> Vec<String> {
    let value = |line: &&[u8]| {
        let text = String::from_utf8_lossy(line).into_owned();
        let (own, value) = text.split_once(':')?;
        let own = own.trim().to_ascii_lowercase();
        let same = own == name || own.replace('_', "-") == name.replace('_', "-");
        same.then(|| value.trim_matches([' ', '\t']).to_owned())
    };
    fields.iter().filter_map(value).collect()
}

fn policy() -> &'static Policy {
    static POLICY_READ: OnceLock<Policy> = OnceLock::new();
    POLICY_READ.get_or_init(|| crate::policy::read(POLICY))
}

/// What hyper makes of the first bytes of a connection, with the proxy's settings.
fn first_request(data: &[u8]) -> Option<Request<()>> {
    let seen: Rc<RefCell<Option<Request<()>>>> = Rc::default();
    let service = service_fn(|request: Request<Incoming>| {
        seen.borrow_mut().get_or_insert(request.map(drop));
        ready(Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())))
    });
    let mut builder = http1::Builder::new();
    builder.header_read_timeout(None).keep_alive(false).half_close(true).preserve_header_case(true).max_headers(100);
    let connection = pin!(builder.serve_connection(Wire { rest: data }, service));
    // All bytes are there, so that it never waits; a body that is missing ends it.
    let _ = connection.poll(&mut Context::from_waker(Waker::noop()));
    seen.take()
}

/// A client that has said all that it will.
struct Wire<'a> {
    rest: &'a [u8],
}

impl Read for Wire<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, mut into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let (now, later) = self.rest.split_at(self.rest.len().min(into.remaining()));
        into.put_slice(now);
        self.rest = later;
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
