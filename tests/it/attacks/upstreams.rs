//! Upstreams that refuse, and upstreams that take a credential and fail.

use crate::support::agent::with;
use crate::support::{FakeUpstream, Stage};

#[tokio::test]
async fn when_to_come_again_passes_as_upstream_said_it() {
    for status in ["429 Too Many Requests", "503 Service Unavailable", "529 Overloaded"] {
        let upstream = FakeUpstream::raw_kept(&["api.test"], move |_| {
            let fields = "Retry-After: 17\r\nX-RateLimit-Remaining: 0\r\nContent-Length: 9\r\n";
            format!("HTTP/1.1 {status}\r\n{fields}\r\nnot today").into_bytes()
        })
        .await;
        let stage = Stage::with(upstream, |builder| builder).await;
        let bearer = format!("Bearer {}", stage.writer().await);
        for number in 0..3 {
            let request = with("POST", "api.test", &format!("/{number}"), &[("authorization", &bearer)], "a body");
            let reply = stage.sidecar.agent().send(request).await;
            assert_eq!(reply.status.as_str(), &status[..3]);
            assert_eq!(
                (&reply.headers["retry-after"], &reply.headers["x-ratelimit-remaining"]),
                (&"17".parse().expect("a value"), &"0".parse().expect("a value"))
            );
            assert_eq!((reply.text().as_str(), reply.refusal()), ("not today", None), "it is not our refusal");
            assert_eq!(stage.upstream.seen().len(), number + 1, "nothing is tried again for the agent");
        }
    }
}

/// What upstream says once it has the request, and how that is on record.
#[tokio::test]
async fn what_went_out_and_failed_is_on_record_as_both() {
    for (said, status, code, ending) in [
        ("", Some(502), Some("upstream_unreachable"), "refused"),
        ("HTTP/1.1 200 O", Some(502), Some("upstream_unreachable"), "refused"),
        ("garbage\r\n\r\n", Some(502), Some("upstream_unreachable"), "refused"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", None, None, "upstream_broke"),
        ("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", Some(500), None, "complete"),
    ] {
        let upstream = FakeUpstream::raw(&["api.test"], move |_| said.as_bytes().to_vec()).await;
        let stage = Stage::with(upstream, |builder| builder).await;
        let nonce = stage.writer().await;
        let bytes = super::request("POST /x", "Content-Length: 0\r\n", &nonce, "");
        let answer = super::send(&stage, &bytes).await;
        if let Some(status) = status {
            assert_eq!(super::outcome(&answer), (status, code), "{said:?}: {answer}");
        }
        let seen = stage.upstream.only();
        assert_eq!(seen.header("authorization"), Some(format!("Bearer {}", stage.secret).as_str()), "it did go out");
        let decision = stage.sidecar.audited(|record| record["type"] == "decision").await;
        assert_eq!(decision["decision"], "allow", "{said:?}: {decision:#}");
        let end = stage.sidecar.audited(|record| record["type"] == "end").await;
        assert_eq!((end["ending"].as_str(), end["code"].as_str()), (Some(ending), code), "{said:?}: {end:#}");
    }
}
