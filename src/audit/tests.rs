//! The audit as its users see it: on real files, pipes and devices.

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
    Config { sink: Sink::File(path.into()), sync: false, queue_records_max: 1024, wait_max: SOON }
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
    fn facts(&self) -> DecisionFacts {
        facts()
    }
}

fn event() -> Event {
    Event::ControlRefused { call: "mint", caller: None, code: "unknown_service" }
}

async fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

// ---- one exchange ----

#[tokio::test]
async fn an_acknowledged_record_is_in_the_file() {
    let place = place();
    let audit = start(&place.path);
    for n in 0..50 {
        let mut exchange = audit.open(request("/v1/customers"));
        exchange.record(Allowed).await.unwrap();
        let id = exchange.id().to_owned();
        let found = lines(&place.path).iter().any(|r| r["type"] == "decision" && r["exchange.id"] == *id);
        assert!(found, "exchange {n}");
    }
}

#[tokio::test]
async fn an_allowed_exchange_has_a_decision_and_an_end() {
    let place = place();
    let audit = start(&place.path);
    let mut exchange = audit.open(request("/v1/customers?key=secret"));
    let recorded = exchange.record(Allowed).await.unwrap();
    let Allowed = recorded.into_inner();
    exchange.dialled(Some("93.184.216.34:443".parse().unwrap()), Some(3));
    exchange.answered(200);
    exchange.count_request(10);
    exchange.count_response(20);
    exchange.count_response(2);
    exchange.end(Ending::Cut);
    exchange.end(Ending::Complete);
    let id = exchange.id().to_owned();
    drop(exchange);
    audit.stop("test", SOON).await;
    let records = lines(&place.path);
    assert_eq!(kinds(&records), ["start", "decision", "end", "stop"]);
    let (decision, end) = (&records[1], &records[2]);
    for (key, value) in [
        ("exchange.id", json!(id)),
        ("connection.id", json!(7)),
        ("peer", json!("127.0.0.1:5000")),
        ("destination", json!("api.stripe.com:443")),
        ("scheme", json!("https")),
        ("method", json!("GET")),
        ("path", json!("/v1/customers")),
        ("agent", json!("billing")),
        ("presented_by.identity", json!("uid:1000")),
        ("presented_by.proof", json!("kernel")),
        ("decision", json!("allow")),
    ] {
        assert_eq!(decision[key], value, "{key}");
    }
    for (key, value) in [
        ("exchange.id", json!(id)),
        ("agent", json!("billing")),
        ("address", json!("93.184.216.34:443")),
        ("credential.version", json!(3)),
        ("status", json!(200)),
        ("request_bytes", json!(10)),
        ("response_bytes", json!(22)),
        ("ending", json!("complete")),
        ("decision", json!("allow")),
    ] {
        assert_eq!(end[key], value, "{key}");
    }
    assert!(end["duration_us"].is_u64() && end.get("path").is_none() && end.get("code").is_none());
    assert_eq!(check(&place.path).unwrap().records, 4);
}

#[tokio::test]
async fn without_a_word_the_client_is_gone() {
    let place = place();
    let audit = start(&place.path);
    drop(audit.open(request("/undecided")));
    let mut exchange = audit.open(request("/decided"));
    exchange.record(Allowed).await.unwrap();
    drop(exchange);
    audit.stop("test", SOON).await;
    let records = lines(&place.path);
    assert_eq!(kinds(&records), ["start", "end", "decision", "end", "stop"]);
    assert!(records.iter().filter(|r| r["type"] == "end").all(|r| r["ending"] == "client_gone"));
    assert_eq!(records[1]["path"], "/undecided", "without a decision's record the end tells it all");
    assert!(records[1].get("decision").is_none());
}

#[tokio::test]
async fn a_refusal_is_one_decision_and_one_end() {
    let place = place();
    let audit = start(&place.path);
    let mut exchange = audit.open(request("/v1/charges"));
    exchange.deny(&Denial::RequestAmbiguous(Ambiguity::DotSegment), facts()).await;
    let decided = lines(&place.path).pop().unwrap();
    assert_eq!(
        (&decided["decision"], &decided["code"], &decided["status"]),
        (&json!("deny"), &json!("request_ambiguous"), &json!(400))
    );
    exchange.answered(200);
    exchange.end(Ending::Complete);
    drop(exchange);
    audit.stop("test", SOON).await;
    let records = lines(&place.path);
    assert_eq!(kinds(&records), ["start", "decision", "end", "stop"]);
    assert_eq!(records[2]["ending"], "refused");
    assert_eq!(records[2]["code"], "request_ambiguous");
    assert_eq!(records[2]["status"], 200, "what the agent really got, as some dialects have it");
}

#[tokio::test]
async fn a_refusal_after_the_decision_is_told_by_the_end() {
    let place = place();
    let audit = start(&place.path);
    let mut exchange = audit.open(request("/v1/charges"));
    exchange.record(Allowed).await.unwrap();
    exchange.dialled(None, Some(1));
    exchange.deny(&Denial::UpstreamUnreachable, facts()).await;
    drop(exchange);
    audit.stop("test", SOON).await;
    let records = lines(&place.path);
    assert_eq!(kinds(&records), ["start", "decision", "end", "stop"]);
    assert_eq!((&records[1]["decision"], &records[2]["decision"]), (&json!("allow"), &json!("allow")));
    assert_eq!((&records[2]["ending"], &records[2]["code"]), (&json!("refused"), &json!("upstream_unreachable")));
}

#[tokio::test]
async fn no_nonce_and_no_query_gets_in() {
    let place = place();
    let audit = start(&place.path);
    let nonce = Nonce::from_entropy(&[5; 32]);
    let text = nonce.as_str();
    let mut facts = facts();
    facts.on_behalf_of = Some(format!("user {text}"));
    facts.rule = Some(format!("GET /{text}"));
    let mut exchange = audit.open(ExchangeFacts { method: text.into(), ..request(&format!("/bot{text}/x?q={text}")) });
    exchange.deny(&Denial::NonceUnknown, facts.clone()).await;
    drop(exchange);
    let minted = Event::Mint {
        facts: Box::new(facts),
        minted_by: Some(Identity::Uid(0)),
        grants: vec![text.into(); 100],
        expires_at: jiff::Timestamp::UNIX_EPOCH,
        max_uses: Some(20),
        instance: Some(text.into()),
        reason: Some(text.into()),
        labels: (0..20).map(|n| (format!("{n:02}{text}"), text.into())).collect(),
    };
    audit.record(minted).await.unwrap();
    let (nonce_id, agent) = (NonceId::from_parts(1, 1), AgentName::parse("a").unwrap());
    let task = TaskName::parse("t").unwrap();
    audit.record(Event::LeaseEnded { nonce_id, agent, task, cause: "revoked", by: Some(text.into()) }).await.unwrap();
    audit.stop("test", SOON).await;
    let content = fs::read_to_string(&place.path).unwrap();
    assert!(!content.contains(&text[..20]), "{content}");
    assert!(!content.contains("q="));
    let records = lines(&place.path);
    assert_eq!(kinds(&records), ["start", "decision", "end", "mint", "lease_end", "stop"]);
    assert_eq!(records[1]["path"], "/botan_…/x");
    assert_eq!(records[3]["grants"].as_array().unwrap().len(), 65);
    assert_eq!(records[3]["minted_by.identity"], "uid:0");
    assert_eq!((&records[3]["max_uses"], &records[3]["instance"]), (&20.into(), &"an_…".into()));
    assert_eq!(records[3]["labels"].as_object().unwrap().len(), 16);
}

#[tokio::test]
async fn an_agent_that_hangs_up_while_its_decision_waits_got_nothing() {
    let pipe = Pipe::new();
    let mut reader = pipe.reader();
    let audit = try_start(&Config { queue_records_max: 2, ..config(&pipe.place.path) }).unwrap();
    let mut first = audit.open(request("/1"));
    first.record(Allowed).await.unwrap();
    let mut second = audit.open(request("/2"));
    let hung_up = tokio::time::timeout(Duration::from_millis(5), second.record(Allowed)).await;
    assert!(hung_up.is_err(), "it waits for the first one's place");
    drop(first);
    drop(second);
    audit.stop("test", SOON).await;
    let mut bytes = Vec::new();
    read_some(&mut reader, &mut bytes);
    let records = records(&bytes);
    let end = records.iter().find(|r| r["type"] == "end" && r["path"] == "/2").unwrap();
    assert_eq!((&end["ending"], end.get("decision")), (&json!("client_gone"), None));
    assert_eq!((&end["agent"], &end["presented_by.identity"]), (&json!("billing"), &json!("uid:1000")));
}

// ---- many ----

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once_make_one_dense_chain() {
    let place = place();
    let audit = start(&place.path);
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let audit = audit.clone();
            tokio::spawn(async move {
                for _ in 0..1000 {
                    let mut exchange = audit.open(request("/v1/customers"));
                    exchange.record(Allowed).await.unwrap();
                    exchange.end(Ending::Complete);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    audit.stop("test", SOON).await;
    let verified = check(&place.path).unwrap();
    assert_eq!(verified.records, 16_002);
    let records = lines(&place.path);
    assert!(records.iter().zip(1_u64..).all(|(record, seq)| record["seq"] == seq));
    let mut ids: Vec<_> = records.iter().filter(|r| r["type"] == "end").map(|r| r["exchange.id"].to_string()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 8000);
    assert_eq!(audit.state().lost, 0);
}

#[tokio::test]
async fn a_full_queue_refuses_and_frees_itself() {
    let place = place();
    let config = Config { queue_records_max: 2, wait_max: Duration::from_millis(30), ..config(&place.path) };
    let audit = try_start(&config).unwrap();
    // More than once only where the machine takes longer than the wait for one write.
    let first = recorded(&audit).await;
    let mut second = audit.open(request("/2"));
    assert_eq!(second.record(Allowed).await.err(), Some(Unavailable), "the first one's end holds a place");
    drop(first);
    drop(second);
    let is_refused = |r: &Value| r["path"] == "/2" && r["type"] == "end";
    until(|| lines(&place.path).iter().any(is_refused)).await;
    let refused = lines(&place.path).into_iter().find(is_refused).unwrap();
    assert_eq!(
        (&refused["ending"], &refused["code"], &refused["decision"]),
        (&json!("refused"), &json!("audit_unavailable"), &json!("deny"))
    );
    recorded(&audit).await;
}

async fn recorded(audit: &Audit) -> Exchange {
    loop {
        let mut exchange = audit.open(request("/1"));
        if exchange.record(Allowed).await.is_ok() {
            return exchange;
        }
    }
}

// ---- stopping and starting ----

#[tokio::test]
async fn after_the_stop_nothing_is_taken() {
    let place = place();
    let audit = start(&place.path);
    audit.stop("signal", SOON).await;
    assert_eq!(audit.record(event()).await, Err(Unavailable));
    assert_eq!(audit.open(request("/")).record(Allowed).await.err(), Some(Unavailable));
    audit.stop("again", SOON).await;
    let records = lines(&place.path);
    assert_eq!(kinds(&records), ["start", "stop"]);
    assert_eq!(records[1]["reason"], "signal");
    assert!(!audit.state().is_healthy && audit.state().lost == 1);
}

#[tokio::test]
async fn the_chain_goes_on_over_restarts() {
    let place = place();
    for boots in 1..=3 {
        let audit = start(&place.path);
        audit.record(event()).await.unwrap();
        audit.stop("test", SOON).await;
        let verified = check(&place.path).unwrap();
        assert_eq!((verified.boots, verified.records), (boots, 3 * boots));
    }
    let records = lines(&place.path);
    assert_eq!(records[3]["prev"], records[2]["hash"]);
    assert_eq!(records[3]["seq"], 1);
    assert_ne!(records[3]["boot_id"], records[2]["boot_id"]);
    assert_eq!(records[0]["facts"]["version"], "0.1.0");
}

#[tokio::test]
async fn the_last_handle_takes_the_writer_along() {
    let place = place();
    let audit = start(&place.path);
    let exchange = audit.open(request("/"));
    drop(audit);
    assert!(matches!(try_start(&config(&place.path)), Err(StartError::Locked { .. })));
    drop(exchange);
    until(|| try_start(&config(&place.path)).is_ok()).await;
    assert_eq!(kinds(&lines(&place.path))[..2], ["start", "end"]);
}

#[tokio::test]
async fn a_torn_line_is_ended_and_told_of() {
    let place = place();
    start(&place.path).stop("test", SOON).await;
    let mut file = OpenOptions::new().append(true).open(&place.path).unwrap();
    file.write_all(b"{\"v\":1,\"boot_id\":\"half").unwrap();
    let torn = check(&place.path).unwrap();
    assert_eq!((torn.torn_tail_bytes, torn.records), (22, 2));
    start(&place.path).stop("test", SOON).await;
    let verified = check(&place.path).unwrap();
    assert_eq!((verified.records, verified.torn_tail_bytes), (4, 0));
    let content = fs::read_to_string(&place.path).unwrap();
    assert!(content.contains("\n{\"v\":1,\"boot_id\":\"half\n"), "nothing is deleted");
    assert_eq!(lines(&place.path)[2]["recovered_torn_bytes"], 22);
}

#[tokio::test]
async fn a_file_of_nothing_but_a_torn_line_is_recovered() {
    let place = place();
    write_private(&place.path, b"{\"v\":1,\"boo");
    start(&place.path).stop("test", SOON).await;
    assert_eq!(lines(&place.path)[0]["recovered_torn_bytes"], 11);
    assert_eq!(check(&place.path).unwrap().records, 2);
}

#[tokio::test]
async fn a_record_that_lacks_only_its_newline_counts() {
    let place = place();
    start(&place.path).stop("test", SOON).await;
    let content = fs::read(&place.path).unwrap();
    write_private(&place.path, content.strip_suffix(b"\n").unwrap());
    start(&place.path).stop("test", SOON).await;
    assert_eq!(check(&place.path).unwrap().records, 4);
    assert!(lines(&place.path)[2].get("recovered_torn_bytes").is_none());
}

// ---- what is refused at the start ----

fn write_private(path: &Path, content: &[u8]) {
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path).unwrap();
    file.write_all(content).unwrap();
}

#[tokio::test]
async fn the_file_is_private() {
    let place = place();
    let _audit = start(&place.path);
    assert_eq!(fs::metadata(&place.path).unwrap().permissions().mode() & 0o7777, 0o600);
}

#[test]
fn links_and_other_things_are_refused() {
    let place = place();
    let link = place.path.with_extension("link");
    symlink(&place.path, &link).unwrap();
    assert!(matches!(try_start(&config(&link)), Err(StartError::Link { .. })));
    assert!(!place.path.exists(), "not even a dangling link is followed");
    let directory = place.path.parent().unwrap();
    assert!(matches!(try_start(&config(directory)), Err(StartError::NotAFile { .. })));
    assert!(matches!(try_start(&config(&directory.join("no/such"))), Err(StartError::Open { .. })));
}

#[test]
fn a_file_that_others_may_write_or_run_is_refused() {
    let place = place();
    write_private(&place.path, b"");
    for mode in [0o620, 0o602] {
        fs::set_permissions(&place.path, Permissions::from_mode(mode)).unwrap();
        assert!(matches!(try_start(&config(&place.path)), Err(StartError::WritableByOthers { .. })));
    }
    for mode in [0o700, 0o610, 0o601] {
        fs::set_permissions(&place.path, Permissions::from_mode(mode)).unwrap();
        assert!(matches!(try_start(&config(&place.path)), Err(StartError::Executable { .. })));
    }
    fs::set_permissions(&place.path, Permissions::from_mode(0o640)).unwrap();
    assert!(try_start(&config(&place.path)).is_ok());
}

#[test]
fn a_file_that_is_no_audit_is_refused_and_left_alone() {
    let long = [b"x".repeat(3 * 1024 * 1024), b"\n".to_vec()].concat();
    for content in [&b"notes\n"[..], b"notes", b"{}\n{\"v\":1", b"\n", long.as_slice()] {
        let place = place();
        write_private(&place.path, content);
        assert!(matches!(try_start(&config(&place.path)), Err(StartError::NotAnAudit { .. })));
        assert_eq!(fs::read(&place.path).unwrap(), content);
    }
}

#[tokio::test]
async fn an_audit_whose_last_record_was_edited_is_refused() {
    let place = place();
    start(&place.path).stop("test", SOON).await;
    let edited = fs::read_to_string(&place.path).unwrap().replace("\"reason\":\"test\"", "\"reason\":\"tent\"");
    write_private(&place.path, edited.as_bytes());
    assert!(matches!(try_start(&config(&place.path)), Err(StartError::NotAnAudit { .. })));
}

#[test]
fn two_sidecars_cannot_share_a_file() {
    let place = place();
    let _first = start(&place.path);
    assert!(matches!(try_start(&config(&place.path)), Err(StartError::Locked { .. })));
}

// ---- sinks that fail ----

#[tokio::test]
async fn a_full_disk_refuses_everything_at_once() {
    let config = Config { queue_records_max: 4, ..config(Path::new("/dev/full")) };
    let audit = try_start(&config).unwrap();
    assert!(!audit.state().is_healthy);
    for _ in 0..10 {
        assert_eq!(audit.record(event()).await, Err(Unavailable));
        let mut exchange = audit.open(request("/"));
        assert_eq!(exchange.record(Allowed).await.err(), Some(Unavailable));
        exchange.deny(&Denial::AuditUnavailable, facts()).await;
    }
    until(|| audit.state().lost >= 6).await;
    let state = audit.state();
    assert_eq!((state.records, state.is_healthy), (0, false));
    audit.stop("test", Duration::from_millis(50)).await;
}

#[tokio::test]
async fn a_group_is_synced_where_that_is_asked_for() {
    let place = place();
    let audit = try_start(&Config { sync: true, ..config(&place.path) }).unwrap();
    audit.record(event()).await.unwrap();
    assert!(audit.state().is_healthy);
    audit.stop("test", SOON).await;
    assert_eq!(check(&place.path).unwrap().records, 3);
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

#[test]
fn a_pipe_without_a_reader_does_not_hang() {
    let pipe = Pipe::new();
    let error = try_start(&config(&pipe.place.path)).unwrap_err();
    assert!(matches!(error, StartError::NoReader { .. }), "{error}");
}

#[tokio::test]
async fn a_closed_pipe_refuses_and_recovers() {
    let pipe = Pipe::new();
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let mut reader = pipe.reader();
    let audit = start(&pipe.place.path);
    let mut under_way = audit.open(request("/under-way"));
    under_way.record(Allowed).await.unwrap();
    read_some(&mut reader, &mut before);
    drop(reader);
    assert_eq!(audit.record(event()).await, Err(Unavailable));
    assert!(!audit.state().is_healthy);
    drop(under_way);
    let mut reader = pipe.reader();
    until(|| audit.state().is_healthy).await;
    audit.record(event()).await.unwrap();
    audit.stop("test", SOON).await;
    read_some(&mut reader, &mut after);
    assert_eq!(kinds(&records(&before)), ["start", "decision"]);
    let mut told = records(&after);
    told.sort_by_key(|record| record["type"] == "end");
    assert_eq!(kinds(&told), ["outage", "control_refused", "stop", "end"]);
    assert_eq!(audit.state().lost, 0);
    let whole = [before, after].concat();
    assert_eq!(verify(whole.as_slice(), None).unwrap().records, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stuck_pipe_holds_nobody_longer_than_agreed() {
    let pipe = Pipe::new();
    let mut reader = pipe.reader();
    let config = Config { wait_max: Duration::from_millis(30), ..config(&pipe.place.path) };
    let audit = try_start(&config).unwrap();
    // Longer than a pipe holds, so that a part of it stays behind.
    let minted = Event::Mint {
        facts: Box::default(),
        minted_by: None,
        grants: vec!["\u{1}".repeat(256); 64],
        expires_at: jiff::Timestamp::UNIX_EPOCH,
        max_uses: None,
        instance: None,
        reason: None,
        labels: std::collections::BTreeMap::new(),
    };
    assert_eq!(audit.record(minted).await, Err(Unavailable));
    let mut exchange = audit.open(request("/"));
    assert_eq!(exchange.record(Allowed).await.err(), Some(Unavailable));
    let refused = exchange.id().to_owned();
    drop(exchange);
    until(|| !audit.state().is_healthy).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let reading = std::thread::spawn({
        let is_over = is_over.clone();
        move || {
            let mut bytes = Vec::new();
            while !is_over.load(Ordering::Acquire) {
                read_some(&mut reader, &mut bytes);
                std::thread::sleep(Duration::from_millis(1));
            }
            read_some(&mut reader, &mut bytes);
            bytes
        }
    });
    until(|| audit.state().is_healthy).await;
    audit.stop("test", SOON).await;
    is_over.store(true, Ordering::Release);
    let bytes = reading.join().unwrap();
    verify(bytes.as_slice(), None).unwrap();
    let records = records(&bytes);
    assert!(records.iter().any(|r| r["recovered_torn_bytes"].is_u64()), "a part of a record was in the pipe");
    let end = records.iter().find(|r| r["type"] == "end" && r["exchange.id"] == *refused).unwrap();
    assert_eq!((&end["ending"], &end["code"]), (&json!("refused"), &json!("audit_unavailable")));
}

#[tokio::test]
async fn losses_are_told_after_the_recovery() {
    let pipe = Pipe::new();
    let reader = pipe.reader();
    let config = Config { queue_records_max: 2, ..config(&pipe.place.path) };
    let audit = try_start(&config).unwrap();
    drop(reader);
    assert_eq!(audit.record(event()).await, Err(Unavailable));
    for _ in 0..50 {
        audit.note(event());
    }
    until(|| audit.state().lost > 0).await;
    let (mut reader, mut bytes) = (pipe.reader(), Vec::new());
    until(|| {
        read_some(&mut reader, &mut bytes);
        records(&bytes).iter().any(|record| record["type"] == "lost")
    })
    .await;
    audit.stop("test", SOON).await;
    read_some(&mut reader, &mut bytes);
    let records = records(&bytes);
    let told: u64 = records.iter().filter_map(|r| r["records"].as_u64()).sum();
    let written = records.iter().filter(|r| r["type"] == "control_refused").count() as u64;
    assert_eq!(told, audit.state().lost);
    assert_eq!(told + written, 50);
}

// ---- rotation ----

#[tokio::test]
async fn a_rotated_file_goes_on_from_the_one_before() {
    let place = place();
    let old = place.path.with_extension("1");
    let audit = start(&place.path);
    audit.record(event()).await.unwrap();
    fs::rename(&place.path, &old).unwrap();
    audit.reopen();
    until(|| place.path.exists() && check(&place.path).is_ok_and(|verified| verified.records > 0)).await;
    audit.record(event()).await.unwrap();
    audit.stop("test", SOON).await;
    let (before, after) = (check(&old).unwrap(), check(&place.path).unwrap());
    assert_eq!(before.continues, hex::encode(NO_HASH));
    assert_eq!(after.continues, before.head);
    assert_eq!(kinds(&lines(&place.path)), ["rotated", "control_refused", "stop"]);
    let both = [fs::read(&old).unwrap(), fs::read(&place.path).unwrap()].concat();
    assert_eq!(verify(both.as_slice(), Some(&before.head)).unwrap().records, 5);
}

#[tokio::test]
async fn reopening_the_same_file_changes_nothing() {
    let place = place();
    let audit = start(&place.path);
    audit.reopen();
    audit.record(event()).await.unwrap();
    audit.reopen();
    audit.record(event()).await.unwrap();
    audit.stop("test", SOON).await;
    assert_eq!(kinds(&lines(&place.path)), ["start", "control_refused", "control_refused", "stop"]);
}

#[tokio::test]
async fn a_removed_file_is_made_anew() {
    let place = place();
    let audit = start(&place.path);
    fs::remove_file(&place.path).unwrap();
    audit.record(event()).await.unwrap();
    assert_eq!(kinds(&lines(&place.path)), ["rotated", "control_refused"]);
    check(&place.path).unwrap();
}

#[tokio::test]
async fn a_file_that_cannot_be_made_anew_refuses_until_it_can() {
    let place = place();
    let directory = place.path.parent().unwrap().join("sub");
    fs::create_dir(&directory).unwrap();
    let path = directory.join("audit.log");
    let audit = start(&path);
    fs::remove_dir_all(&directory).unwrap();
    assert_eq!(audit.record(event()).await, Err(Unavailable));
    assert!(!audit.state().is_healthy);
    fs::create_dir(&directory).unwrap();
    until(|| audit.state().is_healthy).await;
    audit.record(event()).await.unwrap();
    assert_eq!(kinds(&lines(&path)), ["rotated", "outage", "control_refused"]);
}

#[tokio::test]
async fn a_file_emptied_in_place_goes_on() {
    let place = place();
    let audit = start(&place.path);
    OpenOptions::new().write(true).truncate(true).open(&place.path).unwrap();
    audit.record(event()).await.unwrap();
    assert_eq!(kinds(&lines(&place.path)), ["rotated", "control_refused"]);
    check(&place.path).unwrap();
}

#[tokio::test]
async fn a_reopened_path_with_another_chain_is_not_written() {
    let place = place();
    let (old, other) = (place.path.with_extension("1"), place.path.with_extension("2"));
    start(&other).stop("test", SOON).await;
    let foreign = fs::read(&other).unwrap();
    let audit = start(&place.path);
    fs::rename(&place.path, &old).unwrap();
    fs::rename(&other, &place.path).unwrap();
    audit.reopen();
    until(|| !audit.state().is_healthy).await;
    audit.record(event()).await.unwrap();
    assert_eq!(fs::read(&place.path).unwrap(), foreign);
    assert_eq!(kinds(&lines(&old)), ["start", "control_refused"], "the old file is used until the new one can be");
    fs::remove_file(&place.path).unwrap();
    until(|| audit.state().is_healthy).await;
    check(&place.path).unwrap();
}

// ---- tampering ----

async fn sample(place: &Place) -> Vec<String> {
    for _ in 0..2 {
        let audit = start(&place.path);
        audit.open(request("/v1/a")).record(Allowed).await.unwrap();
        audit.open(request("/v1/b")).deny(&Denial::NonceUnknown, facts()).await;
        audit.stop("test", SOON).await;
    }
    fs::read_to_string(&place.path).unwrap().lines().map(str::to_owned).collect()
}

fn verify_lines(lines: &[String], head: Option<&str>) -> Result<Verified, Broken> {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    verify(text.as_bytes(), head)
}

#[tokio::test]
async fn tampering_is_found() {
    let lines = sample(&place()).await;
    let head = verify_lines(&lines, None).unwrap().head;
    assert_eq!(verify_lines(&lines, Some(&head)).unwrap().records, lines.len() as u64);
    let last = lines.len() - 1;
    for at in 0..lines.len() {
        let mut edited = lines.clone();
        edited[at] = edited[at].replacen("\"time\":\"2", "\"time\":\"3", 1);
        assert_eq!(verify_lines(&edited, None), Err(Broken { line: at as u64 + 1, what: Flaw::Edited }));
        let mut relabelled = lines.clone();
        relabelled[at] = relabelled[at].replacen("{\"v\":1,", "{\"v\":2,", 1);
        assert_eq!(verify_lines(&relabelled, None), Err(Broken { line: at as u64 + 1, what: Flaw::Version }));
        let mut garbled = lines.clone();
        garbled[at].truncate(30);
        assert_eq!(
            verify_lines(&garbled, None).unwrap_err().what,
            if at == last {
                Flaw::NotARecord
            } else if at == 0 {
                Flaw::Headless
            } else {
                Flaw::Unlinked
            }
        );
        let mut inserted = lines.clone();
        inserted.insert(at, lines[at].clone());
        assert!(verify_lines(&inserted, None).is_err(), "twice: {at}");
        if at < last {
            let mut deleted = lines.clone();
            deleted.remove(at);
            assert!(verify_lines(&deleted, None).is_err(), "deleted: {at}");
            let mut swapped = lines.clone();
            swapped.swap(at, at + 1);
            assert!(verify_lines(&swapped, None).is_err(), "swapped: {at}");
        }
        let truncated = &lines[..at];
        assert_eq!(verify_lines(truncated, None).is_ok(), at > 0, "a cut end needs the head to show");
        assert_eq!(verify_lines(truncated, Some(&head)).unwrap_err().what, Flaw::HeadMissing);
    }
    assert_eq!(verify_lines(&lines, Some("xyz")).unwrap_err().what, Flaw::HeadMalformed);
    assert_eq!(verify_lines(&lines, Some(&head.to_uppercase())).unwrap_err().what, Flaw::HeadMalformed);
}

#[tokio::test]
async fn a_record_cannot_be_passed_off_as_a_torn_line() {
    let place = place();
    start(&place.path).stop("test", SOON).await;
    let mut file = OpenOptions::new().append(true).open(&place.path).unwrap();
    file.write_all(b"{\"v\":1,").unwrap();
    start(&place.path).stop("test", SOON).await;
    let lines: Vec<_> = fs::read_to_string(&place.path).unwrap().lines().map(str::to_owned).collect();
    verify_lines(&lines, None).unwrap();
    let mut removed = lines.clone();
    removed.remove(2);
    assert_eq!(verify_lines(&removed, None), Err(Broken { line: 3, what: Flaw::TornLine }));
    let mut grown = lines.clone();
    grown.insert(2, "x".into());
    assert_eq!(verify_lines(&grown, None), Err(Broken { line: 5, what: Flaw::TornLine }));
    let mut elsewhere = lines.clone();
    elsewhere.insert(1, "x".into());
    assert_eq!(verify_lines(&elsewhere, None), Err(Broken { line: 2, what: Flaw::NotARecord }));
}

/// A chain with right hashes whatever its records claim: (boot, number, is it a start).
fn forged(records: &[(&str, u64, bool)]) -> Result<Verified, Broken> {
    let (mut out, mut head) = (Vec::new(), NO_HASH);
    for (boot_id, seq, is_start) in records {
        let body = if *is_start { Body::Start { facts: json!({}) } } else { Body::Stop { reason: "x" } };
        let entry = Entry { time: jiff::Timestamp::UNIX_EPOCH, body, acknowledge: None, _place: None };
        head = seal(&mut out, boot_id, Position { seq: seq - 1, head }, &entry, None).head;
    }
    verify(out.as_slice(), None)
}

#[test]
fn right_hashes_do_not_make_wrong_numbers_right() {
    assert_eq!(forged(&[("a", 1, true), ("a", 2, false), ("b", 1, true)]).unwrap().boots, 2);
    let misnumbered = Err(Broken { line: 2, what: Flaw::Misnumbered });
    assert_eq!(forged(&[("a", 1, true), ("a", 3, false)]), misnumbered, "a gap");
    assert_eq!(forged(&[("a", 1, true), ("a", 1, false)]), misnumbered, "a number twice");
    assert_eq!(forged(&[("a", 1, true), ("a", 2, true)]), misnumbered, "two starts of a boot");
    assert_eq!(forged(&[("a", 1, true), ("b", 1, false)]), misnumbered, "a boot without a start");
    assert_eq!(forged(&[("a", 1, true), ("b", 2, true)]), misnumbered, "a start that is not the first");
    let headless = Err(Broken { line: 1, what: Flaw::Headless });
    assert_eq!(forged(&[("a", 1, false)]), headless);
    assert_eq!(forged(&[("a", 2, true)]), headless);
}

#[test]
fn a_line_without_end_is_not_swallowed() {
    let endless = std::io::BufReader::new(std::io::repeat(b'x'));
    assert_eq!(verify(endless, None), Err(Broken { line: 1, what: Flaw::TooLong }));
}

#[test]
fn an_audit_without_a_record_was_emptied() {
    for bytes in [&b""[..], b"{\"v\":1,\"boot_id\":\"", b"no newline"] {
        assert_eq!(verify(bytes, None), Err(Broken { line: 0, what: Flaw::Empty }));
    }
}

#[tokio::test]
async fn the_documented_script_comes_to_the_same_result() {
    let documentation = include_str!("../../docs/AUDIT.md");
    let (_, rest) = documentation.split_once("```python\n").unwrap();
    let (script, _) = rest.split_once("```").unwrap();
    let place = place();
    let lines = sample(&place).await;
    let script_path = place.path.with_extension("py");
    fs::write(&script_path, script).unwrap();
    let run = |file: &Path| Command::new("python3").arg(&script_path).arg(file).output();
    let Ok(good) = run(&place.path) else { return };
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    let said = String::from_utf8(good.stdout).unwrap();
    assert!(said.contains(&check(&place.path).unwrap().head), "{said}");
    let mut torn = fs::read(&place.path).unwrap();
    torn.extend_from_slice(b"{\"v\":1,");
    write_private(&place.path, &torn);
    start(&place.path).stop("test", SOON).await;
    assert!(run(&place.path).unwrap().status.success(), "a torn line that is told of");
    for bad in [
        lines.join("\n").replacen("\"deny\"", "\"allow\"", 1),
        lines
            .iter()
            .enumerate()
            .filter(|(at, _)| *at != 2)
            .map(|(_, line)| line.as_str())
            .collect::<Vec<_>>()
            .join("\n"),
        lines.join("\n").replacen("\n", "\nx\n", 1),
    ] {
        let path = place.path.with_extension("bad");
        fs::write(&path, bad + "\n").unwrap();
        assert!(!run(&path).unwrap().status.success());
    }
}
