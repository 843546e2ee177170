//! One HTTP/2 connection with a stream open on it, and the nonce revoked meanwhile.

use http::Response;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::{answered, nothing_arrived, refused};
use crate::cli::demo::agent::{Call, PATIENCE, Protocol, Reply, in_time};
use crate::cli::demo::scene::{Check, Scene};
use crate::cli::demo::stage::Stage;
use crate::cli::demo::trouble::{Context, Trouble};
use crate::cli::demo::upstream::{INTERNAL, Received};

/// How the open stream went on after the revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Cut,
    EndedCleanly,
    GoesOn,
}

/// What was seen.
struct Seen {
    first_event: String,
    before: Reply,
    ending: Ending,
    after: Reply,
    received: Vec<Received>,
}

pub(super) async fn play(stage: &mut Stage, scene: &mut Scene) -> Result<(), Trouble> {
    let nonce = stage.mint("internal", "read", 300).await?;
    let call = |path| Call::get(INTERNAL, path, ("x-api-key", nonce.placeholder.clone()));
    let mut tunnel = stage.agent.tunnel(INTERNAL, Protocol::Http2).await?;
    let mut stream = tunnel.start(call("/v1/events")).await?;
    let first_event = in_time("waiting for an event", next_event(&mut stream)).await??;
    scene.tell("agent reads", format!("GET https://{INTERNAL}/v1/events   {}", first_event.trim_end()));
    let before = tunnel.call(call("/v1/echo")).await?;
    scene.tell("agent gets", format!("{} for GET /v1/echo on the same connection", before.status));
    stage.revoke(&nonce).await?;
    scene.tell("orchestrator", format!("revokes {} over the control API", nonce.id));
    let received_count = stage.upstream.received_count();
    let ending = end(&mut stream).await;
    scene.tell("the stream", ending.told());
    let after = tunnel.call(call("/v1/echo")).await?;
    scene.tell("agent gets", format!("{} {}", after.status, after.member("detail")));
    let received = stage.upstream.received_after(received_count);
    scene.checks = judge(&Seen { first_event, before, ending, after, received });
    Ok(())
}

async fn next_event(stream: &mut Response<Incoming>) -> Result<String, Trouble> {
    let frame = stream.body_mut().frame().await.context("the stream ended at once")??;
    Ok(frame.data_ref().map_or_else(String::new, |data| String::from_utf8_lossy(data).into_owned()))
}

/// Reads on until it ends, or until it has gone on for too long.
async fn end(stream: &mut Response<Incoming>) -> Ending {
    let reading = async {
        loop {
            match stream.body_mut().frame().await {
                Some(Ok(_)) => {}
                Some(Err(_)) => return Ending::Cut,
                None => return Ending::EndedCleanly,
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.unwrap_or(Ending::GoesOn)
}

impl Ending {
    fn told(self) -> &'static str {
        match self {
            Self::Cut => "is cut",
            Self::EndedCleanly => "ends as if it were complete",
            Self::GoesOn => "goes on",
        }
    }
}

fn judge(seen: &Seen) -> Vec<Check> {
    vec![
        Check::contains("the stream is open before", "data:", &seen.first_event),
        answered("a request beside it", &seen.before),
        Check::same("revoking ends the open stream, and not as if it were complete", "is cut", seen.ending.told()),
        refused("the next request on the same connection", &seen.after, 401, "nonce_revoked"),
        nothing_arrived(&seen.received),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::scenes::samples::{self, assert_broken, ok, refusal};

    fn seen() -> Seen {
        let after = refusal(401, "nonce_revoked", "");
        Seen { first_event: "data: tick\n\n".into(), before: ok(""), ending: Ending::Cut, after, received: Vec::new() }
    }

    #[test]
    fn what_is_not_as_promised_is_seen() {
        assert_broken(&judge(&seen()), &[]);
        for ending in [Ending::EndedCleanly, Ending::GoesOn] {
            assert_broken(&judge(&Seen { ending, ..seen() }), &["ends the open stream"]);
        }
        let arrived = vec![samples::received("GET", "/v1/echo")];
        assert_broken(
            &judge(&Seen { after: ok(""), received: arrived, ..seen() }),
            &["the next request", "reaches the upstream"],
        );
        assert_broken(&judge(&Seen { before: refusal(403, "out_of_scope", ""), ..seen() }), &["beside it"]);
        assert_broken(&judge(&Seen { first_event: String::new(), ..seen() }), &["open before"]);
    }
}
