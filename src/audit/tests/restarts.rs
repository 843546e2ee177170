//! Stopping and starting.

use super::*;

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
