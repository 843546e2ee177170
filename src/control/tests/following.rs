//! Following the audit.

use super::*;

/// A stream of events of the user with this uid.
async fn follow(plane: &Plane, uid: u32, target: &str) -> events::AnswerBody {
    let request = Request::get(target).header("host", "localhost").body(Full::<bytes::Bytes>::default()).unwrap();
    let answer = plane.control.handle(Some(&crate::model::Identity::Uid(uid)), request).await;
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"]),
        (200, &"text/event-stream".parse().unwrap())
    );
    answer.into_body()
}

/// The next event that is no heartbeat.
async fn event(body: &mut events::AnswerBody) -> String {
    loop {
        let frame = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.expect("an event in time");
        let bytes = frame.expect("an event").unwrap().into_data().unwrap();
        if !bytes.starts_with(b":") {
            return String::from_utf8(bytes.to_vec()).unwrap();
        }
    }
}

fn ended(agent: &str, task: &str) -> crate::audit::Event {
    crate::audit::Event::LeaseEnded {
        nonce_id: crate::model::NonceId::from_parts(1, 1),
        agent: crate::model::AgentName::parse(agent).unwrap(),
        task: crate::model::TaskName::parse(task).unwrap(),
        lineage: None,
        cause: "expired",
        by: None,
    }
}

fn refused() -> crate::audit::Event {
    crate::audit::Event::ControlRefused { call: "mint", caller: None, code: "forbidden" }
}

#[tokio::test]
async fn a_follower_sees_the_records_of_its_own_agents_alone() {
    let plane = Plane::new();
    let mut own = follow(&plane, ORCHESTRATOR_UID, "/v1/events").await;
    let mut all = follow(&plane, own_uid(), "/v1/events").await;
    let mut task = follow(&plane, own_uid(), "/v1/events?task=b").await;
    for record in [ended("research", "a"), refused(), ended("billing", "b"), ended("research", "c")] {
        plane.audit.record(record).await.unwrap();
    }
    let first = event(&mut own).await;
    assert!(first.starts_with("event: lease_end\nid: ") && first.contains("\"billing\""), "{first}");
    let mut kinds = Vec::new();
    for _ in 0..4 {
        kinds.push(event(&mut all).await.split('\n').next().unwrap().to_owned());
    }
    assert_eq!(kinds[1], "event: control_refused");
    assert_eq!(event(&mut task).await, first);
    let auditor = plane.call(AUDITOR_UID, Method::GET, "/v1/events", None).await;
    assert_eq!(auditor.code(), (403, "forbidden".into()), "its `may` has no events");
    let foreign = plane.call(ORCHESTRATOR_UID, Method::GET, "/v1/events?agent=research", None).await;
    assert_eq!(foreign.code(), (403, "forbidden".into()));
}

#[tokio::test]
async fn a_slow_follower_is_told_of_its_gap_and_holds_nobody_back() {
    let plane = Plane::new();
    let mut slow = follow(&plane, own_uid(), "/v1/events").await;
    for _ in 0..1500 {
        plane.audit.record(refused()).await.unwrap();
    }
    let (mut shown, mut lost) = (0, 0);
    while shown + lost < 1500 {
        let text = event(&mut slow).await;
        match text.strip_prefix("event: gap\ndata: {\"type\":\"gap\",\"records\":") {
            Some(rest) => lost += rest.trim_end().trim_end_matches('}').parse::<u64>().unwrap(),
            None => shown += 1,
        }
    }
    assert!(shown + lost == 1500 && lost > 300 && shown >= 1000, "{shown} shown, {lost} lost");
}
