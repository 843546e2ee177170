//! An upstream that repeats the key it got: plainly, in a header, as base64, and compressed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::answered;
use crate::cli::demo::agent::{Call, Protocol, Reply};
use crate::cli::demo::canary::{Canaries, shorten};
use crate::cli::demo::scene::{Check, Scene};
use crate::cli::demo::stage::Stage;
use crate::cli::demo::trouble::Trouble;
use crate::cli::demo::upstream::{ECHO_HEADER, INTERNAL, Received};

/// How it is echoed, and where.
const ECHOES: [(&str, &str); 3] =
    [("plain text", "/v1/echo"), ("base64", "/v1/echo/base64"), ("gzip", "/v1/echo/gzip")];
/// How much of an answer is shown.
const SHOWN_CHARACTERS: usize = 160;

pub(super) async fn play(stage: &mut Stage, scene: &mut Scene) -> Result<(), Trouble> {
    let nonce = stage.mint("internal", "read", 300).await?;
    let canaries = stage.canaries.clone();
    for (form, path) in ECHOES {
        let before = stage.upstream.received_count();
        let mut call = Call::get(INTERNAL, path, ("x-api-key", nonce.placeholder.clone()));
        call.headers.push(("accept-encoding", "gzip".to_owned()));
        let reply = stage.agent.call(call, Protocol::Http1).await?;
        let received = stage.upstream.received_after(before);
        let sent =
            received.last().map_or_else(String::new, |last| String::from_utf8_lossy(&last.answered).into_owned());
        scene.tell("upstream sends", format!("{form}: {}", beginning(&shown(&sent, &canaries.internal))));
        scene.tell("agent gets", format!("{form}: {}", beginning(&reply.text())));
        if let Some(value) = reply.headers.get(ECHO_HEADER) {
            scene.tell("and a header", format!("{ECHO_HEADER}: {}", String::from_utf8_lossy(value.as_bytes())));
        }
        scene.checks.extend(judge(form, &reply, &received, &canaries));
    }
    Ok(())
}

/// With the credential shortened in both of the forms that are sent.
fn shown(sent: &str, canary: &str) -> String {
    shorten(sent, &[canary, &STANDARD.encode(canary)])
}

fn beginning(text: &str) -> String {
    let shown: String = text.chars().take(SHOWN_CHARACTERS).collect();
    if shown.len() < text.len() { format!("{shown}…") } else { shown }
}

fn judge(form: &str, reply: &Reply, received: &[Received], canaries: &Canaries) -> Vec<Check> {
    let sent = received.iter().flat_map(|request| request.answered.to_vec()).collect::<Vec<_>>();
    let was_there = canaries.find_in(&sent).map_or("nothing", |_| "the credential");
    vec![
        answered(&format!("the request for {form}"), reply),
        Check::same(format!("{form}: the upstream did send it"), "the credential", was_there),
        Check::without_credential(&format!("what came of {form}"), &reply.everything(), canaries),
        Check::same(
            format!("{form}: nothing else was changed"),
            "the same text with one gap of asterisks",
            difference(&sent, &reply.plain),
        ),
    ]
}

/// How two bodies differ.
fn difference(sent: &[u8], got: &[u8]) -> String {
    if sent.len() != got.len() {
        return format!("{} bytes became {}", sent.len(), got.len());
    }
    let changed: Vec<usize> = (0..sent.len()).filter(|&at| sent[at] != got[at]).collect();
    let (Some(&first), Some(&last)) = (changed.first(), changed.last()) else {
        return "the same text".to_owned();
    };
    if got[first..=last].iter().all(|&byte| byte == b'*') {
        "the same text with one gap of asterisks".to_owned()
    } else {
        format!("other changes between byte {first} and byte {last}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::scenes::samples::{self, assert_broken, ok, refusal};

    fn sent(text: &str) -> Vec<Received> {
        vec![Received { answered: text.to_owned().into(), ..samples::received("GET", "/v1/echo") }]
    }

    #[test]
    fn what_is_not_as_promised_is_seen() {
        let canaries = Canaries::new().unwrap();
        let echo = format!("key={}.", canaries.internal);
        let masked = format!("key={}.", "*".repeat(canaries.internal.len()));
        let judge = |reply: &Reply, sent: &[Received]| judge("plain text", reply, sent, &canaries);
        assert_broken(&judge(&ok(&masked), &sent(&echo)), &[]);
        assert_broken(&judge(&ok(&echo), &sent(&echo)), &["no credential in", "nothing else"]);
        assert_broken(&judge(&ok(&masked), &sent(&masked)), &["did send it", "nothing else"]);
        assert_broken(&judge(&ok("key=***."), &sent(&echo)), &["nothing else"]);
        assert_broken(&judge(&ok(&masked.replace("key", "yek")), &sent(&echo)), &["nothing else"]);
        let withheld = refusal(502, "answer_unscrubbable", "");
        assert_broken(&judge(&withheld, &sent(&echo)), &["is answered", "nothing else"]);
        let mut in_header = ok(&masked);
        in_header.headers.insert("x-debug-key", canaries.internal.parse().unwrap());
        assert_broken(&judge(&in_header, &sent(&echo)), &["no credential in"]);
    }

    #[test]
    fn what_is_shown_of_an_echo_is_short() {
        let canary = Canaries::new().unwrap().internal;
        let text = shown(&format!("{canary} {}", STANDARD.encode(&canary)), &canary);
        assert!(text.len() < 40, "{text}");
        assert_eq!(beginning(&"x".repeat(SHOWN_CHARACTERS + 1)).chars().count(), SHOWN_CHARACTERS + 1);
    }
}
