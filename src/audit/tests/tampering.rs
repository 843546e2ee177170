//! What a verifier finds.

use super::*;

async fn sample(place: &Place) -> Vec<String> {
    for _ in 0..2 {
        let audit = start(&place.path);
        audit.open(request("/v1/a")).record(Allowed).await.unwrap();
        audit.open(request("/v1/b")).deny(&Denial::NonceUnknown, facts()).await;
        audit.stop("test", SOON).await;
    }
    fs::read_to_string(&place.path).unwrap().lines().map(str::to_owned).collect()
}

fn verify_lines(lines: &[String], head: Option<&str>) -> Result<Verified, Broken> {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    verify(text.as_bytes(), head)
}

#[tokio::test]
async fn tampering_is_found() {
    let lines = sample(&place()).await;
    let head = verify_lines(&lines, None).unwrap().head;
    assert_eq!(verify_lines(&lines, Some(&head)).unwrap().records, lines.len() as u64);
    let last = lines.len() - 1;
    for at in 0..lines.len() {
        let mut edited = lines.clone();
        edited[at] = edited[at].replacen("\"time\":\"2", "\"time\":\"3", 1);
        assert_eq!(verify_lines(&edited, None), Err(Broken { line: at as u64 + 1, what: Flaw::Edited }));
        let mut relabelled = lines.clone();
        relabelled[at] = relabelled[at].replacen("{\"v\":1,", "{\"v\":2,", 1);
        assert_eq!(verify_lines(&relabelled, None), Err(Broken { line: at as u64 + 1, what: Flaw::Version }));
        let mut garbled = lines.clone();
        garbled[at].truncate(30);
        assert_eq!(
            verify_lines(&garbled, None).unwrap_err().what,
            if at == last {
                Flaw::NotARecord
            } else if at == 0 {
                Flaw::Headless
            } else {
                Flaw::Unlinked
            }
        );
        let mut inserted = lines.clone();
        inserted.insert(at, lines[at].clone());
        assert!(verify_lines(&inserted, None).is_err(), "twice: {at}");
        if at < last {
            let mut deleted = lines.clone();
            deleted.remove(at);
            assert!(verify_lines(&deleted, None).is_err(), "deleted: {at}");
            let mut swapped = lines.clone();
            swapped.swap(at, at + 1);
            assert!(verify_lines(&swapped, None).is_err(), "swapped: {at}");
        }
        let truncated = &lines[..at];
        assert_eq!(verify_lines(truncated, None).is_ok(), at > 0, "a cut end needs the head to show");
        assert_eq!(verify_lines(truncated, Some(&head)).unwrap_err().what, Flaw::HeadMissing);
    }
    assert_eq!(verify_lines(&lines, Some("xyz")).unwrap_err().what, Flaw::HeadMalformed);
    assert_eq!(verify_lines(&lines, Some(&head.to_uppercase())).unwrap_err().what, Flaw::HeadMalformed);
}

#[tokio::test]
async fn a_record_cannot_be_passed_off_as_a_torn_line() {
    let place = place();
    start(&place.path).stop("test", SOON).await;
    let mut file = OpenOptions::new().append(true).open(&place.path).unwrap();
    file.write_all(b"{\"v\":1,").unwrap();
    start(&place.path).stop("test", SOON).await;
    let lines: Vec<_> = fs::read_to_string(&place.path).unwrap().lines().map(str::to_owned).collect();
    verify_lines(&lines, None).unwrap();
    let mut removed = lines.clone();
    removed.remove(2);
    assert_eq!(verify_lines(&removed, None), Err(Broken { line: 3, what: Flaw::TornLine }));
    let mut grown = lines.clone();
    grown.insert(2, "x".into());
    assert_eq!(verify_lines(&grown, None), Err(Broken { line: 5, what: Flaw::TornLine }));
    let mut elsewhere = lines.clone();
    elsewhere.insert(1, "x".into());
    assert_eq!(verify_lines(&elsewhere, None), Err(Broken { line: 2, what: Flaw::NotARecord }));
}

/// A chain with right hashes whatever its records claim: (boot, number, is it a start).
fn forged(records: &[(&str, u64, bool)]) -> Result<Verified, Broken> {
    let (mut out, mut head) = (Vec::new(), NO_HASH);
    for (boot_id, seq, is_start) in records {
        let body = if *is_start { Body::Start { facts: json!({}) } } else { Body::Stop { reason: "x" } };
        let entry = Entry { time: jiff::Timestamp::UNIX_EPOCH, body, acknowledge: None, _place: None };
        let author = Author::of((*boot_id).to_owned(), &[7; 32]).unwrap();
        head = seal(&mut out, &author, Position { seq: seq - 1, head }, &entry, None).head;
    }
    verify(out.as_slice(), None)
}

#[test]
fn right_hashes_do_not_make_wrong_numbers_right() {
    assert_eq!(forged(&[("a", 1, true), ("a", 2, false), ("b", 1, true)]).unwrap().boots, 2);
    let misnumbered = Err(Broken { line: 2, what: Flaw::Misnumbered });
    assert_eq!(forged(&[("a", 1, true), ("a", 3, false)]), misnumbered, "a gap");
    assert_eq!(forged(&[("a", 1, true), ("a", 1, false)]), misnumbered, "a number twice");
    assert_eq!(forged(&[("a", 1, true), ("a", 2, true)]), misnumbered, "two starts of a boot");
    assert_eq!(forged(&[("a", 1, true), ("b", 1, false)]), misnumbered, "a boot without a start");
    assert_eq!(forged(&[("a", 1, true), ("b", 2, true)]), misnumbered, "a start that is not the first");
    let headless = Err(Broken { line: 1, what: Flaw::Headless });
    assert_eq!(forged(&[("a", 1, false)]), headless);
    assert_eq!(forged(&[("a", 2, true)]), headless);
}

#[test]
fn a_line_without_end_is_not_swallowed() {
    let endless = std::io::BufReader::new(std::io::repeat(b'x'));
    assert_eq!(verify(endless, None), Err(Broken { line: 1, what: Flaw::TooLong }));
}

#[test]
fn an_audit_without_a_record_was_emptied() {
    for bytes in [&b""[..], b"{\"v\":1,\"boot_id\":\"", b"no newline"] {
        assert_eq!(verify(bytes, None), Err(Broken { line: 0, what: Flaw::Empty }));
    }
}

#[tokio::test]
async fn the_documented_script_comes_to_the_same_result() {
    let documentation = include_str!("../../../docs/AUDIT.md");
    let (_, rest) = documentation.split_once("```python\n").unwrap();
    let (script, _) = rest.split_once("```").unwrap();
    let place = place();
    let lines = sample(&place).await;
    let script_path = place.path.with_extension("py");
    fs::write(&script_path, script).unwrap();
    let run = |file: &Path| Command::new("python3").arg(&script_path).arg(file).output();
    let Ok(good) = run(&place.path) else { return };
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    let said = String::from_utf8(good.stdout).unwrap();
    assert!(said.contains(&check(&place.path).unwrap().head), "{said}");
    let mut torn = fs::read(&place.path).unwrap();
    torn.extend_from_slice(b"{\"v\":1,");
    write_private(&place.path, &torn);
    start(&place.path).stop("test", SOON).await;
    assert!(run(&place.path).unwrap().status.success(), "a torn line that is told of");
    for bad in [
        lines.join("\n").replacen("\"deny\"", "\"allow\"", 1),
        lines
            .iter()
            .enumerate()
            .filter(|(at, _)| *at != 2)
            .map(|(_, line)| line.as_str())
            .collect::<Vec<_>>()
            .join("\n"),
        lines.join("\n").replacen("\n", "\nx\n", 1),
    ] {
        let path = place.path.with_extension("bad");
        fs::write(&path, bad + "\n").unwrap();
        assert!(!run(&path).unwrap().status.success());
    }
}
