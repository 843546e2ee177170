//! Requests whose framing is bent in every way that we know of, by the hundreds: each reaches the upstream as the one
//! reading says, or not at all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::reading::{self, Manner, Message, Next};
use crate::support::{FakeUpstream, Stage};

/// How many are made; with the same seed always the same.
const MUTATIONS: usize = 800;
const SEED: u64 = 0x5eed_0001;
/// How many are under way at once.
const AT_ONCE: usize = 16;
/// How long nothing may come before a sidecar is taken to wait for more.
const SILENCE: Duration = Duration::from_millis(300);

const VERSIONS: [&str; 7] = ["HTTP/1.1", "HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "HTTP/1.1 ", "http/1.1", "HTTP/1.1\t"];
const ENDS: [&str; 6] = ["\r\n", "\n", "\r", "\r\r\n", "\n\r", "\0\r\n"];
const BEFORE: [&str; 7] = ["", "\r\n", "\n", "\r\n\r\n\r\n", "\r", " ", "\0"];
const SEPARATORS: [&str; 8] = [": ", ":", ":\t", " : ", "\t:", ":\r\n ", ": \x0b", ":\x0c"];
const NAMES: [&str; 12] = ["@", "@", "@", "@", " @", "\t@", "@\0", "\x0b@", "X\n@", "X: y\r@", "X: y\n@", "X: y\r\n @"];
const CODINGS: [&str; 30] = [
    "chunked",
    "Chunked",
    "CHUNKED",
    " chunked ",
    "chunked, chunked",
    ",chunked",
    "chunked,",
    "identity",
    "xchunked",
    "chunkedx",
    "\tchunked",
    "chunked\t",
    "\x0bchunked",
    "chunked\x0b",
    "chunked\x0c",
    "chunked\0",
    "chunked;q=1",
    "chunked ;",
    "gzip, chunked",
    "chunked, gzip",
    "chunked, identity",
    "identity, chunked",
    "\"chunked\"",
    "'chunked'",
    "chunk",
    "",
    " ",
    "trailers",
    "cow",
    "\u{17f}chunked",
];
/// `#` is the true length of what follows.
const LENGTHS: [&str; 24] = [
    "#",
    "#",
    "#",
    "0",
    "3",
    "+#",
    "-#",
    "-0",
    "0#",
    "00",
    "0x#",
    "# ",
    "\t#",
    "#,#",
    "#, #",
    "#;",
    "#.0",
    "1e1",
    "",
    "99999999999999999999",
    "18446744073709551617",
    "4294967297",
    "# 3",
    "\x0b#",
];
/// `#` is the size of what is hidden, and `@` is that.
const CHUNKS: [&str; 22] = [
    "#\r\n@\r\n0\r\n\r\n",
    "#\r\n@\r\n0\r\n\r\n",
    "#;a=b\r\n@\r\n0\r\n\r\n",
    "#;a\n@\r\n0\r\n\r\n",
    "#;a\r@\r\n0\r\n\r\n",
    "#\n@\r\n0\r\n\r\n",
    "#\r@\r\n0\r\n\r\n",
    "0x#\r\n@\r\n0\r\n\r\n",
    "+#\r\n@\r\n0\r\n\r\n",
    "0#\r\n@\r\n0\r\n\r\n",
    "0000000000000000#\r\n@\r\n0\r\n\r\n",
    "#_0\r\n@\r\n0\r\n\r\n",
    "# \r\n@\r\n0\r\n\r\n",
    " #\r\n@\r\n0\r\n\r\n",
    "#\r\n@0\r\n\r\n",
    "#\r\n@\n0\r\n\r\n",
    "#\r\n@\r\n\r\n0\r\n\r\n",
    "0\r\n\r\n@",
    "0\n\r\n@",
    "0\r\n\n@",
    "#\r\n@\r\n0\r\nX: 1\r\n\r\n",
    "#\r\n@\r\n0\r\nContent-Length: 5\r\nX : 1\r\n\r\n",
];

/// A generator that is its own (SplitMix64), so that its numbers stay.
struct Dice(u64);

impl Dice {
    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.number() % count as u64).expect("small")
    }

    /// True once in so many times.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }

    /// The first one, which is as it should be, but now and then another.
    fn seldom<'a>(&mut self, choices: &[&'a str], times: usize) -> &'a str {
        if self.once_in(times) { self.of(choices) } else { choices[0] }
    }

    fn field(&mut self, name: &str, value: &str) -> String {
        let (shape, separator) = (self.seldom(&NAMES, 8), self.seldom(&SEPARATORS, 10));
        let end = self.seldom(&ENDS, 24);
        format!("{}{separator}{value}{end}", shape.replace('@', name))
    }
}

/// A request that must not be taken for one where it stands in another's body.
fn hidden(case: usize, nonce: &str) -> String {
    format!("POST /{case}/hidden HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\n\r\n")
}

/// The bytes of a case: a bent request that holds another, and a third that ends the connection.
fn mutation(case: usize, nonce: &str, dice: &mut Dice) -> Vec<u8> {
    let inside = hidden(case, nonce);
    let chunks = dice.of(&CHUNKS).replace('#', &format!("{:x}", inside.len())).replace('@', &inside);
    let body = if dice.once_in(3) { inside } else { chunks };
    let kinds: &[char] = [&['t'][..], &['l'], &['t', 'l'], &['l', 't'], &['t', 't'], &['l', 'l']][dice.below(6)];
    let mut framing = String::new();
    for kind in kinds {
        let (name, value) = match kind {
            't' => ("Transfer-Encoding", if dice.once_in(2) { "chunked" } else { dice.of(&CODINGS) }.to_owned()),
            _ => ("Content-Length", dice.seldom(&LENGTHS, 2).replace('#', &body.len().to_string())),
        };
        framing += &dice.field(name, &value);
    }
    let method = dice.of(&["POST", "PUT"]);
    let (version, before) = (dice.seldom(&VERSIONS, 24), dice.seldom(&BEFORE, 12));
    let (line_end, head_end) = (dice.seldom(&ENDS, 24), dice.seldom(&ENDS, 24));
    let head = format!("{before}{method} /{case}/first {version}{line_end}Host: api.test\r\n");
    let last = format!("POST /{case}/last HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\n");
    let last = format!("{last}Content-Length: 0\r\nConnection: close\r\n\r\n");
    format!("{head}Authorization: Bearer {nonce}\r\n{framing}{head_end}{body}{last}").into_bytes()
}

/// What arrived, and what of it was not right in the letter.
#[derive(Default)]
pub(super) struct Arrived {
    pub messages: Vec<Message>,
    pub wrong: Vec<String>,
}

pub(super) type Notes = Arc<Mutex<Arrived>>;

/// An upstream that takes nothing but what is right, over HTTP/1.1, and notes what was whole.
pub(super) async fn strict() -> (FakeUpstream, Notes) {
    let notes = Notes::default();
    let noted = notes.clone();
    let upstream = FakeUpstream::played(&["api.test"], b"http/1.1", move |mut stream, _| {
        let notes = noted.clone();
        async move {
            let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
            loop {
                match reading::next(&bytes, Manner::Strict) {
                    Next::Whole(message, used, _) => {
                        bytes.drain(..used);
                        notes.lock().expect("not poisoned").messages.push(message);
                        if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.is_err() {
                            return;
                        }
                    }
                    Next::Wrong(why) => {
                        let shown = String::from_utf8_lossy(&bytes).into_owned();
                        return notes.lock().expect("not poisoned").wrong.push(format!("{why}: {shown:?}"));
                    }
                    Next::Unfinished => match stream.read(&mut piece).await {
                        Ok(count) if count > 0 => bytes.extend_from_slice(&piece[..count]),
                        _ => return,
                    },
                }
            }
        }
    })
    .await;
    (upstream, notes)
}

/// Sends bytes in a tunnel of their own, and reads until it closes or nothing comes.
pub(super) async fn pour(stage: &Stage, bytes: &[u8]) -> Vec<u8> {
    let agent = stage.sidecar.agent();
    let mut stream = agent.tls_tunnel("api.test", "api.test", &[b"http/1.1"]).await.expect("TLS");
    let _ = stream.write_all(bytes).await;
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(Ok(count)) = tokio::time::timeout(SILENCE, stream.read(&mut piece)).await {
        if count == 0 {
            break;
        }
        answer.extend_from_slice(&piece[..count]);
    }
    answer
}

/// The number of a case in a target.
fn case_of(target: &str) -> usize {
    target.split('/').nth(1).and_then(|case| case.parse().ok()).unwrap_or_else(|| panic!("whose is {target}?"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_bent_framing_arrives_in_another_reading() {
    let (upstream, notes) = strict().await;
    let stage = Stage::with(upstream, |builder| builder).await;
    let nonce = stage.writer().await;
    let mut dice = Dice(SEED);
    let cases: Vec<Vec<u8>> = (0..MUTATIONS).map(|case| mutation(case, &nonce, &mut dice)).collect();
    let stage = &stage;
    futures_util::stream::iter(&cases)
        .for_each_concurrent(AT_ONCE, |bytes| async move {
            let answer = pour(stage, bytes).await;
            stage.assert_clean(&answer, "an answer");
        })
        .await;
    let arrived = notes.lock().expect("not poisoned");
    assert!(arrived.wrong.is_empty(), "{:#?}", arrived.wrong);
    let mut by_case: BTreeMap<usize, Vec<&Message>> = BTreeMap::new();
    for message in &arrived.messages {
        by_case.entry(case_of(&message.target)).or_default().push(message);
    }
    let mut hidden = 0;
    for (case, bytes) in cases.iter().enumerate() {
        let (mut read, seen) = (reading::all(bytes), by_case.remove(&case).unwrap_or_default());
        // Where a body's end is taken for a request, its method may be one that no rule allows.
        read.retain(|message| matches!(message.method.as_str(), "POST" | "PUT"));
        let shown = String::from_utf8_lossy(bytes);
        let is_so = seen.len() <= read.len() && seen.iter().zip(&read).all(|(seen, read)| *seen == read);
        assert!(is_so, "{case}: {shown:?}\nread as {read:#?}\narrived {seen:#?}");
        hidden += usize::from(read.iter().any(|message| message.body.starts_with(b"POST")));
    }
    // Of a check that lets nothing through, nothing would be learned.
    assert!(arrived.messages.len() > MUTATIONS / 10, "{} arrived", arrived.messages.len());
    assert!(hidden > MUTATIONS / 20, "{hidden} were hidden in a body");
}
