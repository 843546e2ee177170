//! Records of every kind against the text that they have always had: the format on disk does not change.

use serde_json::json;

use super::author::Author;
use super::chain::{NO_HASH, Position, seal};
use super::flood::{Kind, Summary, Whose};
use super::record::{Decision, End, Outcome, Request, Verdict};
use super::*;
use crate::model::{
    AgentName, CredentialName, Destination, Identity, Lineage, MinterName, NonceId, Now, Rate, Risk, Scheme, ScopeName,
    ServiceName, TaskName,
};

/// All that JSON, terminals and the chain could trip over.
const NASTY: &str =
    "a\"\\/\n\r\t\u{8}\u{c}\0\u{1b}\u{1f}\u{7f}\u{85}\u{202e}\u{2028}é\u{ffff}\u{1f600}~ \",\"decision\":\"allow";

fn nonce_id() -> NonceId {
    NonceId::from_parts(1_700_000_000_000, 0x1234_5678_9abc_def0_1234)
}

fn agent() -> AgentName {
    AgentName::parse("billing").unwrap()
}

fn task() -> TaskName {
    TaskName::parse("refund-4711").unwrap()
}

fn request(peer: &str, destination: Option<&str>, method: &str, path: &str) -> Arc<Request> {
    let facts = ExchangeFacts {
        connection_id: 18_446_744_073_709_551_615,
        peer: peer.parse().unwrap(),
        destination: destination.map(|text| Destination::parse(text, None).unwrap()),
        scheme: if destination.is_some() { Scheme::Https } else { Scheme::Http },
        method: method.into(),
        path: path.into(),
        version: "HTTP/1.1",
    };
    let opened = Now { boot: Duration::ZERO, wall: jiff::Timestamp::UNIX_EPOCH };
    Arc::new(Request { id: "ex_01M819R7DNR176MPJD5SFKP5SZ".into(), opened, facts })
}

fn full_facts() -> DecisionFacts {
    DecisionFacts {
        nonce_id: Some(nonce_id()),
        agent: Some(agent()),
        task: Some(task()),
        lineage: None,
        minter: Some(MinterName::parse("self").unwrap()),
        on_behalf_of: Some(NASTY.into()),
        presented_by: Some(Identity::Uid(1000)),
        presented_in: Some("proxy"),
        service: Some(ServiceName::parse("stripe").unwrap()),
        scope: Some(ScopeName::parse("read:customers").unwrap()),
        risk: Some(Risk::Medium),
        data: None,
        rule: Some("GET /v1/customers/{id}".into()),
        observed: None,
        inputs: vec![("body.charge".into(), NASTY.into()), ("body.amount".into(), "5000".into())],
        credential: Some(CredentialName::parse("stripe-live").unwrap()),
        client_certificate: Some(CredentialName::parse("stripe-tls").unwrap()),
        policy_digest: Some("b94833a912b9445555e8f77fb9878be3c96ebdff09fdc89f5ae18828d434c3dd".into()),
        alarm: None,
    }
}

fn decision(verdict: Verdict, facts: DecisionFacts) -> Decision {
    Decision { verdict, facts: Arc::new(facts) }
}

const DENY: Verdict = Verdict::Deny { code: "out_of_scope", status: 403 };

fn decisions() -> Vec<Body> {
    let plain = || request("127.0.0.1:5000", Some("api.stripe.com:443"), "GET", "/v1/customers");
    let supervised = DecisionFacts { presented_by: Some(Identity::Supervisor), presented_in: None, ..full_facts() };
    let unproven = DecisionFacts { nonce_id: Some(nonce_id()), risk: Some(Risk::High), ..DecisionFacts::default() };
    vec![
        Body::Decision { request: plain(), decision: decision(Verdict::Allow, full_facts()) },
        Body::Decision { request: plain(), decision: decision(DENY, supervised) },
        Body::Decision { request: plain(), decision: decision(Verdict::Allow, unproven) },
        Body::Decision {
            request: request("[::ffff:10.0.0.1]:1", Some("[2001:db8::1]:8443"), NASTY, NASTY),
            decision: decision(DENY, DecisionFacts::default()),
        },
        Body::Decision {
            request: request("[fe80::1%3]:65535", None, "PROPFIND", "/é"),
            decision: decision(DENY, DecisionFacts::default()),
        },
        Body::Decision {
            request: request("255.100.99.0:65535", Some("10.0.0.9:1"), "", ""),
            decision: decision(DENY, DecisionFacts::default()),
        },
    ]
}

fn end(decision: Option<Decision>, is_decision_recorded: bool, outcome: Outcome, ending: Ending) -> Body {
    let request = request("127.0.0.1:5000", Some("api.stripe.com:443"), "GET", "/v1/customers");
    let duration = Duration::from_micros(1_234_567);
    Body::End(Box::new(End { request, decision, is_decision_recorded, outcome, ending, duration }))
}

fn ends() -> Vec<Body> {
    let full = Outcome {
        address: Some("93.184.216.34:443".parse().unwrap()),
        credential_version: Some(3),
        code: Some("upstream_unreachable"),
        status: Some(502),
        request_bytes: 10,
        response_bytes: u64::MAX,
    };
    let v6 = Outcome { address: Some("[2001:db8::1]:443".parse().unwrap()), ..Outcome::default() };
    let allowed = || Some(decision(Verdict::Allow, full_facts()));
    vec![
        end(allowed(), true, full, Ending::Complete),
        end(allowed(), false, v6, Ending::ClientGone),
        end(Some(decision(DENY, full_facts())), false, full, Ending::Refused),
        end(None, false, Outcome::default(), Ending::Cut),
    ]
}

fn events() -> Vec<Body> {
    let expires_at = jiff::Timestamp::new(1_700_000_000, 922_762_192).unwrap();
    let mint = |labels: &[(&str, &str)], text: Option<&str>| Event::Mint {
        facts: Box::new(full_facts()),
        minted_by: text.map(|_| Identity::Uid(0)),
        grants: vec!["stripe:read".into(), NASTY.into()],
        expires_at,
        max_uses: text.map(|_| 20),
        rate: text.and_then(|_| Rate::parse("10/min")),
        instance: text.map(Into::into),
        reason: text.map(Into::into),
        labels: labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        lines: Vec::new(),
    };
    let (nonce_id, agent, task, minter) = (nonce_id(), agent(), task(), MinterName::parse("ci").unwrap());
    let ended = |by: Option<&str>| Event::LeaseEnded {
        nonce_id,
        agent: agent.clone(),
        task: task.clone(),
        lineage: None,
        cause: "revoked",
        by: by.map(Into::into),
    };
    let connection = |peer: &str, destination: Option<&str>| Event::Connection {
        connection_id: 0,
        peer: peer.parse().unwrap(),
        destination: destination.map(|text| Destination::parse(text, None).unwrap()),
        code: "not_tls",
    };
    let alarm = |kind: AlarmKind| {
        Event::Alarm(Box::new(Alarm {
            exchange_id: Some("ex_01M819R7DNR176MPJD5SFKP5SZ".into()),
            destination: Some(Destination::parse("api.stripe.com:443", None).unwrap()),
            service: Some(ServiceName::parse("stripe").unwrap()),
            nonce_id: Some(nonce_id),
            agent: Some(agent.clone()),
            task: Some(task.clone()),
            ..Alarm::new(kind, AlarmOutcome::Refused, "body")
        }))
    };
    let bare = Alarm::new(AlarmKind::NonceMisplaced, AlarmOutcome::Refused, "header");
    let alarms = [alarm(AlarmKind::NonceInBody), alarm(AlarmKind::CanaryUsed), Event::Alarm(Box::new(bare))];
    let events = [
        mint(&[("team", "x"), (NASTY, NASTY)], Some(NASTY)),
        mint(&[], None),
        ended(Some("operator")),
        ended(None),
        connection("[::1]:9", Some("example.com:80")),
        connection("0.0.0.0:0", None),
        Event::ControlRefused { call: "mint", caller: Some(Identity::Supervisor), code: "unknown_service" },
        Event::Renewed {
            nonce_id,
            agent: agent.clone(),
            task: task.clone(),
            minter: Some(minter),
            renewed_by: Some(Identity::Uid(u32::MAX)),
            expires_at,
        },
    ];
    let many = many(nonce_id, &agent, &task, expires_at);
    events.into_iter().chain(alarms).chain(many).map(|event| Body::Event(Box::new(event))).collect()
}

/// What is about many nonces, or about none.
fn many(nonce_id: NonceId, agent: &AgentName, task: &TaskName, until: jiff::Timestamp) -> Vec<Event> {
    let caller = Identity::Uid(3000);
    let revocation = |agent, task, service, reason, revoked| Event::Revocation {
        call: "revocations",
        agent,
        task,
        service,
        reason,
        caller: caller.clone(),
        revoked,
    };
    let leaked = |task, alarm, source| Event::Leaked {
        nonce_id,
        agent: agent.clone(),
        task,
        alarm,
        caller: caller.clone(),
        source,
    };
    let risk = |agent, task, level: &str, max_risk, until, reason| Event::Risk {
        agent,
        task,
        level: level.into(),
        max_risk,
        until,
        reason,
        caller: caller.clone(),
    };
    vec![
        revocation(Some(agent.clone()), None, None, Some(NASTY.into()), 3),
        revocation(None, Some(task.clone()), Some(ServiceName::parse("stripe").unwrap()), None, 0),
        leaked(Some(task.clone()), "high", Some(NASTY.into())),
        leaked(None, "low", None),
        Event::LeakReport { caller: caller.clone(), source: Some(NASTY.into()), found: 9, live: 1 },
        Event::LeakReport { caller: Identity::Supervisor, source: None, found: 0, live: 0 },
        risk(Some(agent.clone()), None, "elevated", Some("low"), Some(until), Some(NASTY.into())),
        risk(None, Some(task.clone()), "normal", None, None, None),
    ]
}

fn delegated() -> Vec<Body> {
    let parent = NonceId::from_parts(1_699_999_999_999, 0x4321);
    let chain = ["billing", "research/*", "summary"].map(|name| AgentName::parse(name).unwrap()).into();
    let lineage = Some(Arc::new(Lineage { parent, chain }));
    let facts = || DecisionFacts { lineage: lineage.clone(), ..full_facts() };
    let made = Event::Mint {
        facts: Box::new(facts()),
        minted_by: Some(Identity::Uid(0)),
        grants: Vec::new(),
        expires_at: jiff::Timestamp::UNIX_EPOCH,
        max_uses: None,
        rate: None,
        instance: None,
        reason: None,
        labels: Default::default(),
        lines: vec!["GET /v1/customers/{id}".into(), NASTY.into()],
    };
    let lineage = lineage.clone();
    let (nonce_id, agent, task) = (nonce_id(), agent(), task());
    let ended = Event::LeaseEnded { nonce_id, agent, task, lineage, cause: "expired", by: Some("parent nc_x".into()) };
    let allowed = decision(Verdict::Allow, facts());
    vec![
        Body::Event(Box::new(made)),
        Body::Decision { request: request("127.0.0.1:1", None, "GET", "/"), decision: allowed.clone() },
        end(Some(allowed), true, Outcome::default(), Ending::Complete),
        Body::Event(Box::new(ended)),
    ]
}

fn summaries() -> Vec<Body> {
    let at = |second| jiff::Timestamp::new(second, 123_456_789).unwrap();
    let service = ServiceName::parse("stripe").ok();
    let kinds = [
        Kind { whose: Whose::Agent(agent()), service, of: "decision", code: "out_of_scope" },
        Kind { whose: Whose::Peer([10, 0, 0, 1].into()), service: None, of: "connection", code: "host_not_listed" },
        Kind { whose: Whose::Peer("fe80::1".parse().unwrap()), service: None, of: "decision", code: "nonce_unknown" },
    ];
    let summary = |kind| Summary { kind, refused: 1_000_000, first: at(1_700_000_000), last: at(1_700_000_009) };
    kinds.into_iter().map(|kind| Body::Refused(Box::new(summary(kind)))).collect()
}

fn bodies() -> Vec<Body> {
    let mut bodies = vec![
        Body::Start { facts: json!({"version": NASTY, "n": [1, -2.5, true, null], "o": {}}) },
        Body::Stop { reason: "signal" },
        Body::Rotated,
        Body::Checkpoint,
        Body::Outage,
        Body::Lost { records: 1_000 },
    ];
    bodies.extend(decisions());
    bodies.extend(ends());
    bodies.extend(events());
    bodies.extend(delegated());
    bodies.extend(summaries());
    bodies
}

/// Ordinary and extraordinary moments, taken in turn.
fn moments() -> Vec<jiff::Timestamp> {
    let at = |second, nanosecond| jiff::Timestamp::new(second, nanosecond).unwrap();
    let leap_day = at(1_709_251_199, 999_999_999);
    vec![
        at(1_700_000_000, 1_999),
        leap_day,
        at(0, 0),
        at(-1, -1),
        at(-62_135_596_801, 0),
        jiff::Timestamp::MIN,
        jiff::Timestamp::MAX,
    ]
}

#[test]
fn every_kind_of_record_has_the_text_that_it_always_had() {
    let mut out = Vec::new();
    let author = Author::of("a6859a54001264778206a11d97710020".into(), &[7; 32]).unwrap();
    let mut position = Position { seq: 0, head: NO_HASH };
    for (body, time) in bodies().into_iter().zip(moments().into_iter().cycle()) {
        let torn = (position.seq == 2).then(|| {
            out.extend_from_slice(b"{\"v\":1,\"boot_id\":\"half\n");
            22
        });
        let entry = Entry { time, body, acknowledge: None, _place: None };
        position = seal(&mut out, &author, position, &entry, torn);
    }
    let text = String::from_utf8(out).unwrap();
    if std::env::var_os("REGENERATE_VECTORS").is_some() {
        std::fs::write("tests/vectors/audit-records.jsonl", &text).unwrap();
        return;
    }
    let golden = include_str!("../../tests/vectors/audit-records.jsonl");
    for (number, (line, expected)) in text.lines().zip(golden.lines()).enumerate() {
        assert_eq!(line, expected, "record {}", number + 1);
    }
    assert_eq!(text.len(), golden.len());
    assert_eq!(verify(golden.as_bytes(), None).err(), None, "the golden records are a sound chain");
}
