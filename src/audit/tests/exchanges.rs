//! One exchange: what its records say.

use super::*;
use crate::model::Rate;

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
        rate: Rate::parse("10/min"),
        instance: Some(text.into()),
        reason: Some(text.into()),
        labels: (0..20).map(|n| (format!("{n:02}{text}"), text.into())).collect(),
        lines: Vec::new(),
    };
    audit.record(minted).await.unwrap();
    let (nonce_id, agent) = (NonceId::from_parts(1, 1), AgentName::parse("a").unwrap());
    let task = TaskName::parse("t").unwrap();
    audit
        .record(Event::LeaseEnded { nonce_id, agent, task, lineage: None, cause: "revoked", by: Some(text.into()) })
        .await
        .unwrap();
    audit.stop("test", SOON).await;
    let content = fs::read_to_string(&place.path).unwrap();
    assert!(!content.contains(&text[..20]), "{content}");
    assert!(!content.contains("q="));
    let records = lines(&place.path);
    assert_eq!(kinds(&records), ["start", "decision", "end", "mint", "lease_end", "stop"]);
    assert_eq!(records[1]["path"], "/botan_…/x");
    assert_eq!(records[3]["grants"].as_array().unwrap().len(), 65);
    assert_eq!(records[3]["minted_by.identity"], "uid:0");
    assert_eq!(records[3]["rate"], "10/min");
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
