//! Everything that was written or said, searched for what must not be there.

use crate::cli::demo::scene::{Check, Scene};
use crate::cli::demo::stage::Remains;
use crate::cli::demo::upstream::Received;

const PROMISE: &str = "No credential and no nonce is in an answer, in the audit or in a log";

pub(super) fn look(remains: &Remains) -> Scene {
    let mut scene = Scene::new(PROMISE);
    let received: Vec<u8> = remains.received.iter().flat_map(Received::everything).collect();
    let kept = [
        ("what the agent got", &remains.answers),
        ("the audit", &remains.audit),
        ("the log", &remains.log),
        ("the standard output", &remains.output),
    ];
    let searched: usize = kept.iter().map(|(_, bytes)| bytes.len()).sum();
    let (credentials, nonces) = (remains.canaries.all().len(), remains.nonces.len());
    let wanted = format!("{nonces} nonces and {credentials} credentials, these in encoded forms too");
    scene.tell("searched", format!("{searched} bytes for {wanted}"));
    // A search through nothing, or for nothing, would find nothing.
    scene.checks.push(Check::worked("there is something to search", "answers, records and nonces", wealth(remains)));
    for (what, bytes) in kept {
        scene.checks.push(Check::without_credential(what, bytes, &remains.canaries));
        scene.checks.push(without_nonce(what, bytes, remains));
    }
    scene.checks.push(without_nonce("what the upstream received", &received, remains));
    scene
}

fn wealth(remains: &Remains) -> Result<String, String> {
    let counts = [remains.answers.len(), remains.audit.len(), remains.log.len(), remains.nonces.len()];
    let [answers, audit, log, nonces] = counts;
    let told = format!("{answers} bytes of answers, {audit} of audit, {log} of log, {nonces} nonces");
    if counts.contains(&0) { Err(told) } else { Ok(told) }
}

fn without_nonce(what: &str, bytes: &[u8], remains: &Remains) -> Check {
    let found = remains.nonces.iter().find(|nonce| memchr::memmem::find(bytes, nonce.plain.as_bytes()).is_some());
    let found = found.map_or_else(|| "none".to_owned(), |nonce| format!("the nonce of {}", nonce.id));
    Check::same(format!("no nonce in {what}"), "none", found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::scenes::samples::{assert_broken, received, remains};

    #[test]
    fn whatever_is_found_anywhere_is_seen() {
        let broken = |edit: fn(&mut Remains, Vec<u8>), claims: &[&str]| {
            let mut remains = remains(b"{}".to_vec());
            let text = format!("{} {}", remains.canaries.github, remains.nonces[0].plain);
            edit(&mut remains, text.into_bytes());
            assert_broken(&look(&remains).checks, claims);
        };
        broken(|_, _| {}, &[]);
        broken(|remains, text| remains.answers = text, &["no credential in what the", "no nonce in what the agent"]);
        broken(|remains, text| remains.audit = text, &["no credential in the audit", "no nonce in the audit"]);
        broken(|remains, text| remains.log = text, &["no credential in the log", "no nonce in the log"]);
        broken(|remains, text| remains.output = text, &["no credential in the standard", "no nonce in the standard"]);
        let upstream = |remains: &mut Remains, text: Vec<u8>| {
            remains.received.push(Received { body: text.into(), ..received("POST", "/") });
        };
        broken(upstream, &["no nonce in what the upstream"]);
    }

    #[test]
    fn an_empty_search_proves_nothing() {
        for empty in [
            |remains: &mut Remains| remains.audit.clear(),
            |remains: &mut Remains| remains.answers.clear(),
            |remains: &mut Remains| remains.log.clear(),
            |remains: &mut Remains| remains.nonces.clear(),
        ] {
            let mut remains = remains(b"{}".to_vec());
            empty(&mut remains);
            assert_broken(&look(&remains).checks, &["something to search"]);
        }
    }
}
