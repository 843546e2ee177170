//! Sinks that fail.

use super::*;

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
        rate: None,
        instance: None,
        reason: None,
        labels: std::collections::BTreeMap::new(),
        lines: Vec::new(),
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
