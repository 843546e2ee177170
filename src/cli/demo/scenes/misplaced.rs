//! A nonce for one service, sent to another.

use super::{nothing_arrived, refused, told};
use crate::cli::demo::agent::{Call, Protocol, Reply};
use crate::cli::demo::scene::{Check, Scene};
use crate::cli::demo::stage::Stage;
use crate::cli::demo::trouble::Trouble;
use crate::cli::demo::upstream::{GITHUB, Received, STRIPE};

pub(super) async fn play(stage: &mut Stage, scene: &mut Scene) -> Result<(), Trouble> {
    let nonce = stage.mint("stripe", "read:customers", 300).await?;
    let before = stage.upstream.received_count();
    let bearer = |text: &str| ("authorization", format!("Bearer {text}"));
    let astray = Call::get(GITHUB, "/user", bearer(&nonce.plain));
    scene.tell("agent sends", format!("{}   with a nonce for {STRIPE}", astray.line()));
    let astray = stage.agent.call(astray, Protocol::Http1).await?;
    scene.tell("agent gets", told(&astray));
    scene.tell("an LLM reads", astray.member("detail"));
    let home = Call::get(STRIPE, "/v1/customers", bearer(&nonce.placeholder));
    scene.tell("agent sends", format!("{}   with the same nonce, where it belongs", home.line()));
    let home = stage.agent.call(home, Protocol::Http1).await?;
    scene.tell("agent gets", told(&home));
    scene.checks = judge(&astray, &home, &stage.upstream.received_after(before));
    Ok(())
}

fn judge(astray: &Reply, home: &Reply, received: &[Received]) -> Vec<Check> {
    vec![
        refused("the nonce at the wrong host", astray, 403, "nonce_misplaced"),
        refused("from then on the nonce at its own host", home, 401, "nonce_revoked"),
        nothing_arrived(received),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::scenes::samples::{self, assert_broken, ok, refusal};

    #[test]
    fn what_is_not_as_promised_is_seen() {
        let astray = refusal(403, "nonce_misplaced", "");
        let home = refusal(401, "nonce_revoked", "");
        assert_broken(&judge(&astray, &home, &[]), &[]);
        assert_broken(&judge(&astray, &ok(""), &[]), &["from then on"]);
        let arrived = [samples::received("GET", "/user")];
        assert_broken(&judge(&ok(""), &home, &arrived), &["the wrong host", "reaches the upstream"]);
    }
}
