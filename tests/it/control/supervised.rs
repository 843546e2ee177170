//! A sidecar of one's own, over a socket pair.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use valetkey::control::client::{Client, ClientError};
use valetkey::control::types::{NewNonce, ScopeList};

use crate::support::authority::TestAuthority;
use crate::support::{canary, policies};

struct Private {
    child: Child,
    directory: tempfile::TempDir,
}

impl Private {
    /// Starts one with this standard output.
    fn start(output: impl Into<Stdio>, audit: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let place = |name: &str| directory.path().join(name);
        let policy = policies::ONE_API.replace("{dir}", directory.path().to_str().expect("a path"));
        std::fs::write(place("policy.toml"), policy).expect("a file");
        std::fs::write(place("api.pem"), &TestAuthority::new().pem).expect("a file");
        let log = std::fs::File::create(place("stderr.log")).expect("a file");
        let child = Command::new(crate::support::binary())
            .args(["serve", "--supervised", "--ca-in-memory", "--policy", "policy.toml", "--audit", audit])
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--control", "control.sock"])
            .env("API_KEY", canary())
            .env_remove("SSLKEYLOGFILE")
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        Self { child, directory }
    }

    /// One whose channel we hold.
    async fn with_client() -> (Self, Client) {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let private = Self::start(OwnedFd::from(theirs), "audit.jsonl");
        (private, Client::over(ours).await.expect("a client"))
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.directory.path().join(name)).expect("a file")
    }

    /// Waits without blocking: the client's end is closed by the runtime.
    async fn wait(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "it did not end: {}", self.text("stderr.log"));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn reading() -> NewNonce {
    NewNonce {
        agent: "worker".into(),
        task: "run".into(),
        service: Some("api".into()),
        scope: Some(ScopeList::One("read".into())),
        ..NewNonce::default()
    }
}

#[tokio::test]
async fn whoever_holds_the_channel_mints_renews_and_follows_and_ends_it_by_closing() {
    let (mut private, client) = Private::with_client().await;
    let ready = client.ready().await.expect("ready");
    assert!(ready.proxy.ip().is_loopback() && ready.proxy.port() != 0 && ready.admin.port() != 0);
    assert!(!private.directory.path().join("control.sock").exists(), "no path leads there");
    let whoami = client.whoami().await.expect("an answer");
    assert_eq!((whoami.identity.as_str(), whoami.minters[0].name.as_str()), ("supervisor", "run"));
    assert_eq!((whoami.warning, whoami.proxy), (None, format!("http://{}", ready.proxy)));
    let mut events = client.events(Some("worker"), None).await.expect("events");
    let minted = client.mint(&reading(), None).await.expect("a nonce");
    // Calls share the channel with the stream of events.
    let renewed = client.renew(&minted.id, Some(900)).await.expect("a renewal");
    assert!(renewed.expires_at > minted.expires_at && renewed.minter == "run");
    client.revoke(&minted.id).await.expect("an end");
    for (kind, proof) in [("mint", "minted_by.proof"), ("renew", "renewed_by.proof"), ("lease_end", "")] {
        let record = events.next().await.expect("an event").expect("a record");
        assert_eq!((&record["type"], &record["nonce.id"]), (&kind.into(), &minted.id.as_str().into()));
        assert!(proof.is_empty() || record[proof] == "channel", "{record:#}");
    }
    let refused = client.renew(&minted.id, None).await;
    assert!(matches!(refused, Err(ClientError::Refused(problem)) if problem.code == "not_renewable"));
    drop((client, events));
    assert_eq!(private.wait().await.code(), Some(0), "{}", private.text("stderr.log"));
    assert!(private.text("audit.jsonl").contains("\"reason\":\"supervisor gone\""));
}

#[tokio::test]
async fn without_a_socket_pair_it_does_not_start() {
    let named = tempfile::tempdir().expect("a directory");
    let path = named.path().join("s");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    let _caller = UnixStream::connect(&path).expect("a connection");
    let (accepted, _) = listener.accept().expect("a connection");
    let (datagram, _other) = std::os::unix::net::UnixDatagram::pair().expect("a pair");
    let (pair, _peer) = UnixStream::pair().expect("a pair");
    for (output, audit, said) in [
        (Stdio::null(), "audit.jsonl", "no socket pair"),
        (Stdio::piped(), "audit.jsonl", "no socket pair"),
        (OwnedFd::from(datagram).into(), "audit.jsonl", "no socket pair"),
        (OwnedFd::from(accepted).into(), "audit.jsonl", "has a path"),
        (OwnedFd::from(pair).into(), "-", "--audit FILE"),
    ] {
        let mut private = Private::start(output, audit);
        assert_eq!(private.wait().await.code(), Some(2), "{said}");
        assert!(private.text("stderr.log").contains(said), "{said}: {}", private.text("stderr.log"));
    }
}

#[tokio::test]
async fn it_ends_with_a_signal_too_and_the_channel_says_so() {
    let (mut private, client) = Private::with_client().await;
    client.ready().await.expect("ready");
    let mut events = client.events(None, None).await.expect("events");
    let pid = private.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
    while let Ok(Some(_)) = events.next().await {}
    assert_eq!(private.wait().await.code(), Some(0), "{}", private.text("stderr.log"));
    assert!(client.whoami().await.is_err());
}
