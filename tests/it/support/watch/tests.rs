//! An oracle that finds nothing is worth nothing: what is planted is found.

use tokio::io::AsyncReadExt;

use super::*;
use crate::support::codings::{CODINGS, pack};
use crate::support::leak;
use crate::support::upstream::Seen;

const POLICY: &str = r#"
[credentials.a]
source = "env"
name = "A"
hosts = ["a.test"]
[credentials.f]
source = "file"
path = "{dir}/mount/f"
hosts = ["f.test"]
[credentials.e]
source = "exec"
command = ["{dir}/fetch", "argument"]
hosts = ["e.test"]
"#;

/// A sidecar's watch with three credentials, and an upstream at each of these hosts.
struct Planted {
    directory: tempfile::TempDir,
    watch: Watch,
    variable: String,
    file: String,
    command: String,
}

impl Planted {
    fn new(hosts: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let [variable, file, command] = [(); 3].map(|()| crate::support::canary());
        std::fs::create_dir(directory.path().join("mount")).expect("a directory");
        std::fs::write(directory.path().join("mount/f"), &file).expect("a file");
        std::fs::write(directory.path().join("fetch"), format!("#!/bin/sh\necho {command}\n")).expect("a file");
        let mut watch = Watch {
            policy: POLICY.to_owned(),
            environment: vec![("A".to_owned(), variable.clone())],
            upstreams: hosts.iter().map(|host| (vec![(*host).to_owned()], Recorder::default())).collect(),
            ..Watch::default()
        };
        watch.learn(directory.path());
        Self { directory, watch, variable, file, command }
    }

    /// The credential of a host.
    fn secret_of(&self, host: &str) -> &str {
        match host {
            "a.test" => &self.variable,
            "f.test" => &self.file,
            "e.test" => &self.command,
            _ => panic!("{host} has none"),
        }
    }

    fn is_found(&self) -> bool {
        let sweep = std::panic::AssertUnwindSafe(|| self.watch.sweep(self.directory.path(), b""));
        std::panic::catch_unwind(sweep).is_err()
    }
}

/// Whether this is found when an agent receives it.
fn agent_receives(bytes: &dyn Fn(&str) -> Vec<u8>) -> bool {
    let planted = Planted::new(&["b.test"]);
    planted.watch.heard.hear(&bytes(&planted.variable));
    planted.is_found()
}

/// Whether this is found when the upstream at `host` receives it, where it reads bytes.
fn upstream_receives(host: &str, bytes: &dyn Fn(&Planted) -> Vec<u8>) -> bool {
    let planted = Planted::new(&[host]);
    planted.watch.upstreams[0].1.heard.hear(&bytes(&planted));
    planted.is_found()
}

#[test]
fn what_an_agent_may_see_is_no_find() {
    assert!(!Planted::new(&["a.test", "b.test"]).is_found());
    assert!(!agent_receives(&|_| b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec()));
    let planted = Planted::new(&["b.test"]);
    std::fs::write(planted.directory.path().join("key"), &planted.variable).expect("a file");
    assert!(!planted.is_found(), "a test's own file");
}

#[test]
fn a_credential_that_an_agent_receives_is_found() {
    assert!(agent_receives(&|secret| secret.as_bytes().to_vec()));
    assert!(agent_receives(&|secret| {
        let chunks: String = secret.chars().map(|letter| format!("1\r\n{letter}\r\n")).collect();
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n").into_bytes()
    }));
    let planted = Planted::new(&[]);
    let conversation = planted.watch.heard.conversation();
    planted.variable.as_bytes().chunks(7).for_each(|piece| heard::keep(&conversation, piece));
    assert!(planted.is_found(), "in pieces");
    for (form, text) in leak::forms(&crate::support::canary()) {
        assert!(!text.is_empty(), "{form}");
    }
}

#[test]
fn a_credential_in_a_file_is_found() {
    let planted = Planted::new(&[]);
    std::fs::write(planted.directory.path().join("log"), hex::encode_upper(&planted.variable)).expect("a file");
    assert!(planted.is_found());
}

#[test]
fn every_coding_is_opened() {
    // What is short or says nothing is not worth packing.
    let mut noise = [0; 2048];
    getrandom::fill(&mut noise).expect("randomness");
    let noise = hex::encode(noise);
    for coding in CODINGS {
        let body = |secret: &str| {
            let packed = pack(coding, format!("{noise}{secret}{noise}").as_bytes());
            assert!(memchr::memmem::find(&packed, secret.as_bytes()).is_none(), "{coding} leaves it as it is");
            packed
        };
        assert!(agent_receives(&body), "{coding}");
        assert!(agent_receives(&|secret| {
            let body = body(secret);
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: {}\r\n\r\n", body.len());
            [head.as_bytes(), &body].concat()
        }));
        assert!(agent_receives(&|secret| framed(&body(secret))), "{coding} in frames");
    }
}

/// The bytes of a server's HTTP/2 connection with this as the body of its first stream.
fn framed(body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
    for piece in body.chunks(5) {
        let length = u8::try_from(piece.len()).expect("five at most");
        bytes.extend([0, 0, length, 0, 0, 0, 0, 0, 1]);
        bytes.extend(piece);
    }
    bytes
}

#[test]
fn a_credential_that_falls_between_frames_is_found() {
    assert!(agent_receives(&|secret| framed(secret.as_bytes())));
}

/// What each side of an HTTP/2 connection with this field in request and answer receives.
fn conversation(field: &str) -> (Vec<u8>, Vec<u8>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (client, server) = tokio::io::duplex(64 * 1024);
        let (told, asked) = (Heard::default(), Heard::default());
        let (client, server) = (Overheard::new(client, &told), Overheard::new(server, &asked));
        let answered = field.to_owned();
        let serving = tokio::spawn(async move {
            let mut connection = h2::server::handshake(server).await.expect("HTTP/2");
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let answer = http::Response::builder().header("x-echo", &answered).body(()).expect("an answer");
                respond.send_response(answer, true).expect("an open stream");
            }
        });
        let (mut sender, connection) = h2::client::handshake(client).await.expect("HTTP/2");
        let connecting = tokio::spawn(connection);
        let request = http::Request::get("https://b.test/").header("x-key", field).body(()).expect("a request");
        let (answer, _) = sender.send_request(request, true).expect("an open connection");
        assert_eq!(answer.await.expect("an answer").headers()["x-echo"], field);
        drop(sender);
        let _ = (connecting.await, serving.await);
        (told.all(), asked.all())
    })
}

#[test]
fn a_packed_header_is_found_wherever_it_begins() {
    for before in ["", "a", "aa", "aaa", "aaaa", "ab", "abb", "Bearer "] {
        let field = |secret: &str| format!("{before}{secret} after");
        let plain = conversation(&field("")).0;
        assert!(!agent_receives(&|_| plain.clone()));
        assert!(agent_receives(&|secret| conversation(&field(secret)).0), "after {before:?}");
        assert!(upstream_receives("b.test", &|planted| conversation(&field(&planted.variable)).1), "after {before:?}");
    }
}

#[test]
fn a_credential_that_another_upstream_receives_is_found() {
    let planted = Planted::new(&["b.test"]);
    let head = format!("GET / HTTP/1.1\r\nauthorization: Bearer {}\r\n\r\n", planted.variable);
    planted.watch.upstreams[0].1.seen.lock().expect("not poisoned").push(Seen::of_head(1, &head));
    assert!(planted.is_found());
    for own in ["a.test", "e.test", "f.test"] {
        for host in ["a.test", "b.test", "e.test", "f.test"] {
            let is_found = upstream_receives(host, &|planted| planted.secret_of(own).as_bytes().to_vec());
            assert_eq!(is_found, host != own, "that of {own} at {host}");
        }
    }
}

#[test]
fn a_file_that_has_changed_is_remembered() {
    let planted = Planted::new(&["b.test"]);
    std::fs::write(planted.directory.path().join("mount/f"), crate::support::canary()).expect("a file");
    planted.watch.upstreams[0].1.heard.hear(planted.file.as_bytes());
    assert!(planted.is_found());
}

#[tokio::test]
async fn upstreams_that_are_played_hear_what_they_read() {
    use crate::support::FakeUpstream;
    let upstream = FakeUpstream::wired(|mut stream| async move {
        let _ = stream.read(&mut [0; 64]).await;
    })
    .await;
    let mut client = tokio::net::TcpStream::connect(upstream.address).await.expect("the upstream");
    tokio::io::AsyncWriteExt::write_all(&mut client, b"in clear text").await.expect("writable");
    assert_eq!(client.read(&mut [0]).await.expect("an end"), 0);
    assert_eq!(upstream.recorder().heard.all(), b"in clear text");
}
