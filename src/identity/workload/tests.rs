//! What is kept of the stream, by a clock that is moved by hand. The stream itself is tested from outside.

use super::*;
use crate::clock::ManualClock;

const X: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn update(domain: &str, set: &str) -> Vec<u8> {
    let run = |tag: u8, content: &[u8]| {
        let length = content.len();
        let length = [u8::try_from(length & 0x7f).unwrap() | 0x80, u8::try_from(length >> 7).unwrap()];
        [&[tag], length.as_slice(), content].concat()
    };
    run(0x0a, &[run(0x0a, domain.as_bytes()), run(0x12, set.as_bytes())].concat())
}

fn keys(kid: &str) -> String {
    format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","use":"jwt-svid","kid":"{kid}","x":"{X}"}}]}}"#)
}

fn followed() -> (Followed<KeySet>, Arc<ManualClock>) {
    let clock = ManualClock::new();
    let domain = "spiffe://example.org".to_owned();
    (Followed { name: "x".into(), domain, clock: clock.clone(), kept: Mutex::default() }, clock)
}

impl Followed<KeySet> {
    fn has(&self, kid: &str) -> Result<(), Refused> {
        self.find(kid).map(drop)
    }
}

#[test]
fn addresses_are_spelled_as_the_standard_has_them() {
    let good = "unix:///run/spire/agent.sock";
    assert_eq!(WorkloadApi::parse(good).unwrap().to_string(), good);
    for bad in [
        "",
        "/run/agent.sock",
        "unix:/run/agent.sock",
        "unix://run/agent.sock",
        "unix://",
        "unix:///",
        "unix:///run/agent.sock?x",
        "unix:///run/agent.sock#x",
        "unix:///run/agent%20sock",
        "unix:///run/agent sock",
        "tcp://127.0.0.1:8081",
        "https://a.test/",
    ] {
        assert_eq!(WorkloadApi::parse(bad), None, "{bad}");
    }
    assert_eq!(WorkloadApi::parse(&format!("unix:///{}", "x".repeat(PATH_BYTES_MAX))), None);
}

#[test]
fn an_update_replaces_what_was_known() {
    let (followed, _) = followed();
    assert_eq!(followed.has("a"), Err(Refused::Unavailable), "nothing yet");
    followed.take(&update("spiffe://example.org", &keys("a"))).unwrap();
    assert_eq!((followed.has("a"), followed.has("b")), (Ok(()), Err(Refused::UnknownKey)));
    followed.take(&update("spiffe://example.org", &keys("b"))).unwrap();
    assert_eq!((followed.has("a"), followed.has("b")), (Err(Refused::UnknownKey), Ok(())));
    followed.take(&update("spiffe://other.org", &keys("b"))).unwrap();
    assert_eq!(followed.has("b"), Err(Refused::Unavailable), "the trust domain is gone");
    followed.take(&update("spiffe://example.org", &keys("c").replace("jwt-svid", "x509-svid"))).unwrap();
    assert_eq!(followed.has("c"), Err(Refused::UnknownKey), "a key for certificates");
}

#[test]
fn what_cannot_be_read_replaces_nothing() {
    let (followed, _) = followed();
    followed.take(&update("spiffe://example.org", &keys("a"))).unwrap();
    for bad in [vec![0xff], update("spiffe://example.org", "{}"), update("spiffe://example.org", "<html>")] {
        assert!(followed.take(&bad).is_err());
        assert_eq!(followed.has("a"), Ok(()));
    }
}

#[test]
fn what_was_known_last_holds_for_a_while() {
    let (followed, clock) = followed();
    followed.lose();
    assert_eq!(followed.has("a"), Err(Refused::Unavailable));
    followed.take(&update("spiffe://example.org", &keys("a"))).unwrap();
    clock.advance(STALE_MAX * 2);
    assert_eq!(followed.has("a"), Ok(()), "as long as the stream is open");
    followed.lose();
    clock.advance(STALE_MAX - Duration::from_secs(1));
    followed.lose();
    assert_eq!((followed.has("a"), followed.has("b")), (Ok(()), Err(Refused::Unavailable)));
    clock.advance(Duration::from_secs(1));
    assert_eq!(followed.has("a"), Err(Refused::Unavailable), "failing again makes nothing fresher");
    followed.take(&update("spiffe://example.org", &keys("a"))).unwrap();
    assert_eq!(followed.has("a"), Ok(()));
}

#[test]
fn pauses_grow_and_end() {
    assert_eq!([pause(1), pause(2), pause(99)], [PAUSE_MIN, PAUSE_MIN * 2, PAUSE_MAX]);
    let pause = jittered(PAUSE_MAX);
    assert!(pause >= PAUSE_MAX / 2 && pause <= PAUSE_MAX);
}
