//! A refund, asked for with a nonce that may read customers.

use super::{nothing_arrived, refused, told};
use crate::cli::demo::agent::{Call, Protocol, Reply};
use crate::cli::demo::scene::{Check, Scene};
use crate::cli::demo::stage::Stage;
use crate::cli::demo::trouble::Trouble;
use crate::cli::demo::upstream::{Received, STRIPE};

pub(super) async fn play(stage: &mut Stage, scene: &mut Scene) -> Result<(), Trouble> {
    let nonce = stage.mint("stripe", "read:customers", 300).await?;
    let before = stage.upstream.received_count();
    let call = Call {
        method: "POST",
        host: STRIPE,
        path: "/v1/refunds",
        headers: vec![
            ("authorization", format!("Bearer {}", nonce.placeholder)),
            ("content-type", "application/x-www-form-urlencoded".to_owned()),
        ],
        body: "charge=ch_demo1&amount=5000",
    };
    scene.tell("agent sends", format!("{}   authorization: Bearer {}", call.line(), nonce.shown()));
    let reply = stage.agent.call(call, Protocol::Http1).await?;
    scene.tell("agent gets", told(&reply));
    scene.tell("an LLM reads", reply.member("detail"));
    for step in steps(&reply) {
        scene.tell("and", step);
    }
    scene.checks = judge(&reply, &stage.upstream.received_after(before));
    Ok(())
}

fn steps(reply: &Reply) -> Vec<String> {
    let json = reply.json();
    let steps = json["next_steps"].as_array().into_iter().flatten();
    steps.filter_map(|step| step.as_str().map(str::to_owned)).collect()
}

fn judge(reply: &Reply, received: &[Received]) -> Vec<Check> {
    vec![
        refused("POST /v1/refunds", reply, 403, "out_of_scope"),
        Check::contains("the reason phrase says it too", "out_of_scope", &reply.reason),
        Check::contains("the sentence names what is allowed", "GET /v1/customers", &reply.member("detail")),
        Check::same("and there is a next step", true, !steps(reply).is_empty()),
        nothing_arrived(received),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::scenes::samples::{self, assert_broken, ok, refusal};

    #[test]
    fn what_is_not_as_promised_is_seen() {
        let good = refusal(403, "out_of_scope", "allowed GET /v1/customers");
        assert_broken(&judge(&good, &[]), &[]);
        assert_broken(&judge(&good, &[samples::received("POST", "/v1/refunds")]), &["reaches the upstream"]);
        assert_broken(&judge(&refusal(403, "out_of_scope", "no"), &[]), &["the sentence"]);
        let bare = Reply { reason: String::new(), ..good };
        assert_broken(&judge(&bare, &[]), &["reason phrase"]);
        assert_broken(&judge(&ok("{}"), &[]), &["is refused", "reason phrase", "the sentence", "next step"]);
    }
}
