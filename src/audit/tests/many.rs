//! Many at once.

use super::*;

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
    let records = lines(&place.path);
    let checkpoints = records.iter().filter(|record| record["type"] == "checkpoint").count() as u64;
    assert!(checkpoints >= 15);
    assert_eq!(verified.records - checkpoints, 16_002);
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

/// Enough exchanges on record for records to wait for each other.
async fn crowd(audit: &Audit) -> Vec<Exchange> {
    let mut crowd = Vec::new();
    for _ in 0..16 {
        crowd.push(recorded(audit).await);
    }
    crowd
}

#[tokio::test]
async fn decisions_of_a_crowd_are_written_before_anybody_goes_on() {
    let place = place();
    let audit = start(&place.path);
    let crowd = crowd(&audit).await;
    let decisions = (0..16).map(|number| {
        let (audit, path) = (audit.clone(), place.path.clone());
        async move {
            let mine = format!("/mine/{number}");
            let mut exchange = audit.open(request(&mine));
            exchange.record(Allowed).await.unwrap();
            assert!(lines(&path).iter().any(|record| record["path"] == mine), "{mine} goes on after its record");
        }
    });
    futures_util::future::join_all(decisions).await;
    drop(crowd);
    audit.stop("test", SOON).await;
    assert_eq!(check(&place.path).unwrap().records, 2 + 2 * (16 + 16));
}

#[tokio::test]
async fn who_hangs_up_in_a_crowd_is_on_record() {
    let place = place();
    let audit = start(&place.path);
    let crowd = crowd(&audit).await;
    let mut exchange = audit.open(request("/gone"));
    let waiting = futures_util::poll!(std::pin::pin!(exchange.record(Allowed)));
    assert!(waiting.is_pending(), "its record waits for others");
    drop(exchange);
    drop(crowd);
    audit.stop("test", SOON).await;
    let records = lines(&place.path);
    let of_it = |kind| records.iter().find(|r| r["path"] == "/gone" && r["type"] == kind).unwrap();
    assert_eq!(of_it("decision")["decision"], "allow");
    assert_eq!(of_it("end")["ending"], "client_gone");
}
