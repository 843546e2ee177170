//! An agent that is refused hundreds of times a second: what the audit says of it, and what it never leaves out.

use std::fmt::Write as _;

use serde_json::Value;

use crate::support::Stage;

const ROUNDS: usize = 20;
const REFUSED_A_ROUND: usize = 25;
const REFUSED: u64 = (ROUNDS * REFUSED_A_ROUND) as u64;
const CODE: &str = "out_of_scope";

/// One request is allowed after each so many that are refused; all in one connection, one behind the other.
fn flood(nonce: &str) -> String {
    let mut text = String::new();
    let mut ask = |method: &str, path: String| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{method} {path} HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\n\r\n");
    };
    for round in 0..ROUNDS {
        (0..REFUSED_A_ROUND).for_each(|number| ask("DELETE", format!("/{round}/{number}")));
        ask("GET", format!("/allowed/{round}"));
    }
    text
}

fn of<'a>(records: &'a [Value], kind: &str, decision: &str) -> Vec<&'a Value> {
    records.iter().filter(|record| record["type"] == kind && record["decision"] == decision).collect()
}

#[tokio::test]
async fn a_flood_of_refusals_is_summed_up_and_no_allowance_is_left_out() {
    let mut stage = Stage::new().await;
    let nonce = stage.reader().await;
    let answers = stage.sidecar.agent().pipelined("api.test", flood(&nonce).as_bytes(), 26 * ROUNDS).await;
    assert_eq!(answers.matches("HTTP/1.1 403 ").count() as u64, REFUSED, "each was refused, summed up or not");
    stage.sidecar.signal("TERM");
    assert_eq!(stage.sidecar.wait(), Some(0));

    let records = stage.sidecar.audit();
    let refused = of(&records, "decision", "deny");
    assert!((50..REFUSED).contains(&(refused.len() as u64)), "{} in full", refused.len());
    let first: Vec<_> = refused.iter().take(50).map(|record| record["path"].as_str().expect("a path")).collect();
    let expected: Vec<_> = (0..50).map(|n| format!("/{}/{}", n / REFUSED_A_ROUND, n % REFUSED_A_ROUND)).collect();
    assert_eq!(first, expected, "the first of them in full");

    let summaries: Vec<_> = records.iter().filter(|record| record["type"] == "refused_summary").collect();
    assert!(summaries.iter().all(|record| record["agent"] == "worker" && record["code"] == CODE), "{summaries:?}");
    let summed: u64 = summaries.iter().filter_map(|record| record["refused"].as_u64()).sum();
    assert_eq!(refused.len() as u64 + summed, REFUSED);

    for kind in ["decision", "end"] {
        assert_eq!(of(&records, kind, "allow").len(), ROUNDS, "{kind}");
    }
    let verified = std::process::Command::new(crate::support::binary())
        .args(["audit", "verify"])
        .arg(stage.sidecar.path("audit.jsonl"))
        .output()
        .expect("the binary runs");
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    stage.assert_silent(&[&nonce]);
}
