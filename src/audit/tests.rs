//! The audit as its users see it: on real files, pipes and devices.

mod checkpoints;
mod exchanges;
mod failing;
mod floods;
mod many;
mod places;
mod restarts;
mod rotation;
mod tampering;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::author::Author;
use super::chain::{NO_HASH, Position, seal};
use super::*;
use crate::clock::SystemClock;
use crate::model::{
    AgentName, Ambiguity, Denial, Destination, Identity, Nonce, NonceId, Scheme, ServiceName, TaskName,
};

const SOON: Duration = Duration::from_secs(10);

struct Place {
    _dir: TempDir,
    path: PathBuf,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    Place { _dir: dir, path }
}

fn config(path: &Path) -> Config {
    Config { queue_records_max: 1024, wait_max: SOON, ..Config::new(Sink::File(path.into())) }
}

fn try_start(config: &Config) -> Result<Audit, StartError> {
    Audit::start(config, Arc::new(SystemClock), json!({"version": "0.1.0"}))
}

fn start(path: &Path) -> Audit {
    try_start(&config(path)).unwrap()
}

fn lines(path: &Path) -> Vec<Value> {
    records(&fs::read(path).unwrap())
}

fn records(bytes: &[u8]) -> Vec<Value> {
    bytes.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

fn kinds(records: &[Value]) -> Vec<&str> {
    records.iter().map(|record| record["type"].as_str().unwrap()).collect()
}

fn check(path: &Path) -> Result<Verified, Broken> {
    verify(fs::read(path).unwrap().as_slice(), None)
}

fn request(path: &str) -> ExchangeFacts {
    ExchangeFacts {
        connection_id: 7,
        peer: "127.0.0.1:5000".parse().unwrap(),
        destination: Some(Destination::parse("api.stripe.com:443", None).unwrap()),
        scheme: Scheme::Https,
        method: "GET".into(),
        path: path.into(),
        version: "HTTP/1.1",
    }
}

fn facts() -> DecisionFacts {
    DecisionFacts {
        nonce_id: Some(NonceId::from_parts(1_700_000_000_000, 1)),
        agent: Some(AgentName::parse("billing").unwrap()),
        task: Some(TaskName::parse("refund-4711").unwrap()),
        service: Some(ServiceName::parse("stripe").unwrap()),
        presented_by: Some(Identity::Uid(1000)),
        ..DecisionFacts::default()
    }
}

#[derive(Debug)]
struct Allowed;

impl Decided for Allowed {
    fn facts(&self) -> Arc<DecisionFacts> {
        Arc::new(facts())
    }
}

/// One that is never counted only, however many there are.
fn event() -> Event {
    Event::ControlRefused { call: "mint", caller: None, code: "internal" }
}

async fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn recorded(audit: &Audit) -> Exchange {
    loop {
        let mut exchange = audit.open(request("/1"));
        if exchange.record(Allowed).await.is_ok() {
            return exchange;
        }
    }
}

/// A FIFO with a reader that can be made to read, to pause, and to go away.
struct Pipe {
    place: Place,
}

impl Pipe {
    fn new() -> Self {
        let place = place();
        assert!(Command::new("mkfifo").arg(&place.path).status().unwrap().success());
        Self { place }
    }

    fn reader(&self) -> File {
        let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap();
        OpenOptions::new().read(true).custom_flags(nonblocking).open(&self.place.path).unwrap()
    }
}

/// Reads what is there.
fn read_some(reader: &mut File, into: &mut Vec<u8>) {
    let mut chunk = [0; 65536];
    while let Ok(count @ 1..) = reader.read(&mut chunk) {
        into.extend_from_slice(&chunk[..count]);
    }
}

fn write_private(path: &Path, content: &[u8]) {
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path).unwrap();
    file.write_all(content).unwrap();
}
