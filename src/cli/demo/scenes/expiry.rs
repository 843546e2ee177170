//! A nonce for one second.

use std::time::Duration;

use super::{answered, nothing_arrived, refused, told};
use crate::cli::demo::agent::{Call, Protocol, Reply};
use crate::cli::demo::scene::{Check, Scene};
use crate::cli::demo::stage::Stage;
use crate::cli::demo::trouble::Trouble;
use crate::cli::demo::upstream::{Received, STRIPE};

const TTL_SECONDS: u32 = 1;
/// The nonce's life, and a little more.
const OVER: Duration = Duration::from_millis(1050);

pub(super) async fn play(stage: &mut Stage, scene: &mut Scene) -> Result<(), Trouble> {
    // The tunnel first, so that the second is for the call alone.
    let mut tunnel = stage.agent.tunnel(STRIPE, Protocol::Http1).await?;
    let nonce = stage.mint("stripe", "read:customers", TTL_SECONDS).await?;
    let call = Call::get(STRIPE, "/v1/customers", ("authorization", format!("Bearer {}", nonce.placeholder)));
    scene.tell("agent sends", format!("{}   authorization: Bearer {}", call.line(), nonce.shown()));
    let alive = tunnel.call(call.clone()).await?;
    scene.tell("agent gets", told(&alive));
    tokio::time::sleep(OVER).await;
    let before = stage.upstream.received_count();
    scene.tell("a second later", "the same request on the same connection");
    let dead = tunnel.call(call).await?;
    scene.tell("agent gets", told(&dead));
    scene.tell("an LLM reads", dead.member("detail"));
    scene.checks = judge(&alive, &dead, &stage.upstream.received_after(before), &nonce.id);
    Ok(())
}

fn judge(alive: &Reply, dead: &Reply, received: &[Received], id: &str) -> Vec<Check> {
    vec![
        answered("the call within the second", alive),
        refused("the call after it", dead, 401, "nonce_expired"),
        Check::same("the refusal names the nonce by its id", id, dead.member("nonce_id")),
        nothing_arrived(received),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::scenes::samples::{self, assert_broken, ok, refusal};

    fn expired(id: &str) -> Reply {
        let body = serde_json::json!({ "code": "nonce_expired", "origin": "valetkey", "nonce_id": id }).to_string();
        Reply { plain: body.into(), ..refusal(401, "nonce_expired", "") }
    }

    #[test]
    fn what_is_not_as_promised_is_seen() {
        assert_broken(&judge(&ok(""), &expired("nc_1"), &[], "nc_1"), &[]);
        assert_broken(&judge(&expired("nc_1"), &expired("nc_1"), &[], "nc_1"), &["within the second"]);
        assert_broken(&judge(&ok(""), &expired("nc_2"), &[], "nc_1"), &["by its id"]);
        let late = [samples::received("GET", "/v1/customers")];
        assert_broken(&judge(&ok(""), &ok(""), &late, "nc_1"), &["after it", "by its id", "reaches the upstream"]);
    }
}
