//! Floods of refusals: what is written of them, and what is never left out.

use super::*;

const FLOOD: u64 = 400;

fn count(records: &[Value], is_counted: impl Fn(&Value) -> bool) -> u64 {
    records.iter().filter(|record| is_counted(record)).count() as u64
}

/// What the summaries of a code tell of.
fn summed(records: &[Value], code: &str) -> u64 {
    let told = records.iter().filter(|record| record["type"] == "refused_summary" && record["code"] == code);
    told.map(|record| record["refused"].as_u64().unwrap()).sum()
}

async fn refuse(audit: &Audit, denial: &Denial, facts: DecisionFacts) {
    let mut exchange = audit.open(request("/v1/customers"));
    exchange.deny(denial, facts).await;
    exchange.answered(denial.status());
}

#[tokio::test]
async fn each_refusal_of_a_flood_is_told_once_and_each_allowance_in_full() {
    let place = place();
    let audit = start(&place.path);
    for number in 0..FLOOD {
        refuse(&audit, &Denial::NonceUnknown, facts()).await;
        if number % 10 == 0 {
            recorded(&audit).await.end(Ending::Complete);
        }
    }
    audit.stop("test", SOON).await;
    let records = lines(&place.path);
    let refused = |record: &Value| record["type"] == "decision" && record["decision"] == "deny";
    let in_full = count(&records, refused);
    let ends = count(&records, |record| record["type"] == "end" && record["decision"] == "deny");
    assert!((50..FLOOD).contains(&in_full), "{in_full}");
    assert_eq!(ends, in_full, "a summary tells of the end, too");
    assert_eq!(in_full + summed(&records, "nonce_unknown"), FLOOD);
    for kind in ["decision", "end"] {
        assert_eq!(count(&records, |record| record["type"] == kind && record["decision"] == "allow"), FLOOD / 10);
    }
    let summary = records.iter().find(|record| record["type"] == "refused_summary").unwrap();
    for (name, value) in [("agent", "billing"), ("service", "stripe"), ("of", "decision")] {
        assert_eq!(summary[name], value, "{name}");
    }
    assert_eq!(kinds(&records).last(), Some(&"stop"), "all is told before the stop");
    assert_eq!((audit.state().lost, check(&place.path).unwrap().records), (0, records.len() as u64));
}

#[tokio::test]
async fn what_somebody_should_look_at_is_never_counted_only() {
    let place = place();
    let audit = start(&place.path);
    let alarming = || {
        let alarm = Alarm::new(AlarmKind::CanaryUsed, AlarmOutcome::Refused, "slot");
        DecisionFacts { alarm: Some(Box::new(alarm)), ..facts() }
    };
    for _ in 0..FLOOD {
        refuse(&audit, &Denial::NonceUnknown, alarming()).await;
        refuse(&audit, &Denial::CredentialExposed, facts()).await;
        refuse(&audit, &Denial::UpstreamUnreachable, facts()).await;
        // Allowed and recorded, and refused then.
        let mut exchange = recorded(&audit).await;
        exchange.deny(&Denial::NonceUnknown, facts()).await;
    }
    audit.stop("test", SOON).await;
    let records = lines(&place.path);
    assert_eq!(count(&records, |record| record["type"] == "refused_summary"), 0);
    assert_eq!(count(&records, |record| record["type"] == "decision" && record["decision"] == "deny"), 3 * FLOOD);
    assert_eq!(count(&records, |record| record["type"] == "end"), 4 * FLOOD);
}

#[tokio::test]
async fn connections_that_end_alike_are_counted_by_the_address_that_they_come_from() {
    let place = place();
    let audit = start(&place.path);
    for number in 0..FLOOD {
        let peer = ([10, 0, 0, u8::from(number % 4 == 0)], u16::try_from(number).unwrap()).into();
        audit.note(Event::Connection { connection_id: number, peer, destination: None, code: "host_not_listed" });
    }
    audit.stop("test", SOON).await;
    let records = lines(&place.path);
    let in_full = count(&records, |record| record["type"] == "connection");
    assert!((100..FLOOD).contains(&in_full), "{in_full}");
    assert_eq!(in_full + summed(&records, "host_not_listed"), FLOOD);
    let told = |address: &str| count(&records, |record| record["peer.address"] == address);
    assert_eq!((told("10.0.0.0"), told("10.0.0.1")), (1, 1));
}

/// While nothing can be written it is all one count, and that is in the file as soon as it can.
#[tokio::test]
async fn a_flood_during_an_outage_is_told_after_it() {
    let pipe = Pipe::new();
    let mut reader = pipe.reader();
    let config = Config { wait_max: Duration::from_millis(20), ..config(&pipe.place.path) };
    let audit = try_start(&config).unwrap();
    let mut seen = Vec::new();
    until(|| {
        read_some(&mut reader, &mut seen);
        records(&seen).len() == 1
    })
    .await;
    drop(reader);
    for _ in 0..60 {
        refuse(&audit, &Denial::NonceUnknown, facts()).await;
    }
    let mut reader = pipe.reader();
    let (stopped, ()) = tokio::join!(audit.stop("test", SOON), async {
        until(|| {
            read_some(&mut reader, &mut seen);
            kinds(&records(&seen)).contains(&"stop")
        })
        .await;
    });
    let () = stopped;
    let records = records(&seen);
    let ends = count(&records, |record| record["type"] == "end");
    assert_eq!(ends + summed(&records, "nonce_unknown"), 60, "{records:?}");
    assert!(ends >= 50, "{ends}");
}

#[tokio::test]
async fn refused_calls_are_counted_by_caller_and_call_and_faults_of_ours_never() {
    let place = place();
    let audit = start(&place.path);
    let refused = |call, uid, code| Event::ControlRefused { call, caller: Some(Identity::Uid(uid)), code };
    for number in 0..FLOOD {
        audit.note(refused("mint", 7, "forbidden"));
        audit.note(refused("mint", 8, "audit_unavailable"));
        if number % 50 == 0 {
            audit.note(refused("renew", 7, "forbidden"));
            recorded(&audit).await.end(Ending::Complete);
        }
        // So that all find room in the queue.
        tokio::task::yield_now().await;
    }
    audit.stop("test", SOON).await;
    let records = lines(&place.path);
    let of = |call: &'static str, code: &'static str| {
        move |record: &Value| record["type"] == "control_refused" && record["call"] == call && record["code"] == code
    };
    let in_full = count(&records, of("mint", "forbidden"));
    assert!((50..FLOOD).contains(&in_full), "{in_full}");
    assert_eq!(in_full + summed(&records, "forbidden"), FLOOD);
    assert_eq!(count(&records, of("mint", "audit_unavailable")), FLOOD);
    assert_eq!(count(&records, of("renew", "forbidden")), FLOOD / 50);
    assert_eq!(count(&records, |record| record["decision"] == "allow" && record["type"] == "decision"), FLOOD / 50);
    let summary = records.iter().find(|record| record["type"] == "refused_summary").unwrap();
    for (name, value) in [("of", "control_refused"), ("call", "mint"), ("caller.identity", "uid:7")] {
        assert_eq!(summary[name], value, "{name}");
    }
}
