//! Signatures: when they are written, and what they show.

use super::*;
use crate::audit::author::UNSIGNED_RECORDS_MAX;

fn verify_known(text: &[u8], head: Option<&str>, keys: &[&str]) -> Result<Verified, Broken> {
    verify_against(text, &Known { head, keys: keys.iter().map(|key| (*key).to_owned()).collect() })
}

fn flaw(text: &[u8], keys: &[&str]) -> Flaw {
    verify_known(text, None, keys).unwrap_err().what
}

/// A chain of these bodies, as `author` would write it.
fn written(author: &Author, position: Position, bodies: impl IntoIterator<Item = Body>) -> (Vec<u8>, Position) {
    let mut out = Vec::new();
    let position = bodies.into_iter().fold(position, |position, body| {
        let entry = Entry { time: jiff::Timestamp::UNIX_EPOCH, body, acknowledge: None, _place: None };
        seal(&mut out, author, position, &entry, None)
    });
    (out, position)
}

const BEGINNING: Position = Position { seq: 0, head: NO_HASH };

fn author(boot_id: &str, seed: u8) -> Author {
    Author::of(boot_id.into(), &[seed; 32]).unwrap()
}

fn begun() -> Body {
    Body::Start { facts: json!({}) }
}

fn plain(count: u64) -> impl Iterator<Item = Body> {
    (0..count).map(|_| Body::Outage)
}

#[tokio::test]
async fn a_checkpoint_comes_after_a_thousand_records_and_no_allowed_one_waits_for_it() {
    let place = place();
    let audit = start(&place.path);
    for _ in 0..2 * UNSIGNED_RECORDS_MAX + 10 {
        audit.record(event()).await.unwrap();
    }
    audit.stop("test", SOON).await;
    let records = lines(&place.path);
    let at: Vec<_> = records.iter().filter(|record| record["type"] == "checkpoint").map(|r| r["seq"].clone()).collect();
    assert_eq!(at, [1002, 2003], "the start is signed, and so is each checkpoint");
    let verified = check(&place.path).unwrap();
    let signed = (verified.signed.signatures, verified.signed.covered, verified.signed.uncovered);
    assert_eq!(signed, (4, verified.records, 0));
    assert_eq!(verified.gaps, Gaps::default());
}

#[tokio::test]
async fn many_at_once_are_not_written_past_a_checkpoint() {
    let place = place();
    let audit = try_start(&Config { queue_records_max: 4096, ..config(&place.path) }).unwrap();
    for _ in 0..3500 {
        audit.note(event());
    }
    audit.stop("test", SOON).await;
    let verified = check(&place.path).unwrap();
    assert_eq!((verified.records, verified.signed.signatures), (3505, 5), "start, stop, and three between them");
}

#[tokio::test]
async fn a_checkpoint_comes_in_time_and_none_while_nothing_happens() {
    let place = place();
    let every = Duration::from_millis(20);
    let audit = try_start(&Config { checkpoint_every: every, ..config(&place.path) }).unwrap();
    audit.record(event()).await.unwrap();
    until(|| kinds(&lines(&place.path)).ends_with(&["checkpoint"])).await;
    tokio::time::sleep(every * 4).await;
    assert_eq!(kinds(&lines(&place.path)), ["start", "control_refused", "checkpoint"]);
    audit.record(event()).await.unwrap();
    until(|| lines(&place.path).len() == 5).await;
    let head = audit.head();
    let verified = verify_known(&fs::read(&place.path).unwrap(), head.to_text().as_deref(), &[&head.key]).unwrap();
    assert_eq!((verified.signed.noted_covered, verified.seq), (Some(5), 5));
    assert_eq!(lines(&place.path)[0]["key"], *head.key);
    assert_eq!(lines(&place.path)[0]["boot_id"], *head.boot_id);
}

#[test]
fn what_another_wrote_into_a_boot_shows() {
    let (own, other) = (author("a", 1), author("a", 2));
    let (start, after) = written(&own, BEGINNING, [begun()]);
    let with = |author: &Author, body| [start.clone(), written(author, after, [body]).0].concat();
    verify(with(&own, Body::Checkpoint).as_slice(), None).unwrap();
    assert_eq!(flaw(&with(&other, Body::Checkpoint), &[]), Flaw::Signature);
    assert_eq!(flaw(&with(&other, Body::Stop { reason: "x" }), &[]), Flaw::Signature);
    assert_eq!(flaw(&with(&other, Body::Rotated), &[]), Flaw::KeyChanged);
    let most = [start.clone(), written(&own, after, plain(UNSIGNED_RECORDS_MAX)).0].concat();
    assert_eq!(verify(most.as_slice(), None).unwrap().signed.uncovered, UNSIGNED_RECORDS_MAX);
    let more = [start.clone(), written(&own, after, plain(UNSIGNED_RECORDS_MAX + 1)).0].concat();
    assert_eq!(flaw(&more, &[]), Flaw::CheckpointMissing);
}

/// The chain's hashes are made right again, as anybody can who may write the file.
fn rehashed(text: &str) -> String {
    let mut head = "0".repeat(64);
    let mut out = String::new();
    for line in text.lines() {
        let open = &line[..line.len() - 75];
        let prev = open.find("\"prev\":\"").unwrap() + 8;
        let open = format!("{}{head}{}", &open[..prev], &open[prev + 64..]);
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        context.update(&hex::decode(&head).unwrap());
        context.update(open.as_bytes());
        context.update(b"}");
        head = hex::encode(context.finish());
        out += &format!("{open},\"hash\":\"{head}\"}}\n");
    }
    out
}

#[tokio::test]
async fn a_chain_that_was_made_right_again_shows() {
    let place = place();
    let audit = start(&place.path);
    audit.open(request("/v1/a")).deny(&Denial::NonceUnknown, facts()).await;
    audit.stop("test", SOON).await;
    let text = fs::read_to_string(&place.path).unwrap();
    assert_eq!(rehashed(&text), text, "the tool works");
    let edited = rehashed(&text.replacen("\"status\":", "\"status\":9", 1));
    assert_ne!(edited, text);
    assert_eq!(flaw(edited.as_bytes(), &[]), Flaw::Signature, "the stop was signed over another past");
    let stripped = rehashed(&text.replacen(&format!(",\"key\":\"{}\"", audit.head().key), "", 1));
    let verified = verify(stripped.as_bytes(), None).unwrap();
    assert_eq!(verified.gaps.listed, [(1, Gap::Unsigned)], "without its key nothing can be checked, and that is told");
    assert_eq!(flaw(stripped.as_bytes(), &[&audit.head().key]), Flaw::KeyMissing);
}

#[test]
fn a_key_that_was_noted_covers_what_was_before_and_binds_what_comes_after() {
    let authors = [author("a", 1), author("b", 2), author("c", 3)];
    let keys = authors.each_ref().map(|author| hex::encode(author.public()));
    let [a, b, c] = keys.each_ref().map(String::as_str);
    let (mut text, mut head) = (Vec::new(), NO_HASH);
    for author in &authors {
        let (lines, end) =
            written(author, Position { seq: 0, head }, [begun(), Body::Outage, Body::Stop { reason: "x" }]);
        text.extend_from_slice(&lines);
        head = end.head;
    }
    let covered = |keys: &[&str]| verify_known(&text, None, keys).map(|verified| verified.signed.noted_covered);
    assert_eq!(covered(&[a, b, c]), Ok(Some(9)));
    assert_eq!(covered(&[c]), Ok(Some(9)), "the last start is signed over all before it");
    assert_eq!(covered(&[b, c]), Ok(Some(9)));
    assert_eq!(covered(&[a, b]), Err(Broken { line: 7, what: Flaw::KeyUnknown }));
    assert_eq!(covered(&[a, c]), Err(Broken { line: 4, what: Flaw::KeyUnknown }));
    assert_eq!(covered(&[&"0".repeat(64)]), Err(Broken { line: 9, what: Flaw::KeyMissing }));
    assert_eq!(covered(&["xyz"]), Err(Broken { line: 0, what: Flaw::KeyMalformed }));
}

#[test]
fn what_is_missing_is_told_of() {
    let (a, b) = (author("a", 1), author("b", 2));
    let bodies = [begun(), Body::Lost { records: 7 }, Body::Outage];
    let (first, end) = written(&a, BEGINNING, bodies);
    let (second, _) = written(&b, Position { seq: 0, head: end.head }, [begun()]);
    let verified = verify([first, second].concat().as_slice(), None).unwrap();
    let expected = [(2, Gap::Lost(7)), (3, Gap::Outage), (4, Gap::Killed), (4, Gap::Uncovered(2))];
    assert_eq!(verified.gaps.listed, expected);
    assert_eq!(verified.signed.covered, 4);
}

#[test]
fn a_checkpoint_that_was_late_is_told_of_once() {
    let author = author("a", 1);
    let mut out = Vec::new();
    let mut position = BEGINNING;
    let bodies = [begun(), Body::Outage, Body::Rotated, Body::Outage, Body::Outage, Body::Outage, Body::Outage];
    for (body, at) in bodies.into_iter().zip(0..) {
        let time = jiff::Timestamp::new(at * 240, 0).unwrap();
        let entry = Entry { time, body, acknowledge: None, _place: None };
        position = seal(&mut out, &author, position, &entry, None);
    }
    let late = verify(out.as_slice(), None).unwrap().gaps.listed.iter().filter(|(_, gap)| *gap == Gap::Late).count();
    assert_eq!(late, 1);
}

#[tokio::test]
async fn a_rotated_file_is_checked_by_itself() {
    let place = place();
    let old = place.path.with_extension("1");
    let audit = start(&place.path);
    fs::rename(&place.path, &old).unwrap();
    audit.reopen();
    until(|| place.path.exists() && check(&place.path).is_ok()).await;
    audit.stop("test", SOON).await;
    let key = audit.head().key;
    let alone = verify_known(&fs::read(&place.path).unwrap(), None, &[&key]).unwrap();
    assert_eq!((alone.signed.noted_covered, alone.signed.key.as_deref()), (Some(2), Some(&*key)));
}
