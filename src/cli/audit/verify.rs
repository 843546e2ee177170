//! `valetkey audit verify`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use serde_json::json;

use super::Verify;
use crate::audit::{self, Broken, Flaw, Gaps, Known, Verified};
use crate::cli::{Failure, print};

/// Digits of a key.
const KEY_DIGITS: usize = 64;
/// A file of keys in bytes at most.
const KEYS_BYTES_MAX: u64 = 1024 * 1024;
/// Gaps that are told of one by one.
const GAPS_TOLD_MAX: usize = 20;

/// Says whether it is whole, how far it is signed, and what is missing.
pub(super) fn run(arguments: &Verify) -> Result<(), Failure> {
    let name = arguments.file.display();
    let reader: Box<dyn BufRead> = if arguments.file.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        // An audit that is gone does not verify either.
        let file = File::open(&arguments.file).map_err(|error| Failure::audit(format!("{name}: {error}")))?;
        Box::new(BufReader::new(file))
    };
    let known = Known { head: arguments.head.as_deref(), keys: read_keys(&arguments.key)? };
    match audit::verify_against(reader, &known) {
        Ok(verified) => whole(arguments, &verified),
        Err(Broken { what: Flaw::HeadMalformed, .. }) => {
            Err(Failure::usage(format!("--head: {}", Flaw::HeadMalformed)))
        }
        Err(Broken { what: Flaw::KeyMalformed, .. }) => Err(Failure::usage(format!("--key: {}", Flaw::KeyMalformed))),
        Err(broken) => {
            if arguments.json {
                print::json(&json!({
                    "ok": false, "line": broken.line, "code": code(broken.what), "what": broken.what.to_string(),
                }))?;
            }
            Err(Failure::audit(format!("{name}: {broken}\n  {}", hint(broken.what))))
        }
    }
}

/// Keys as they were given, or from a file.
fn read_keys(given: &[String]) -> Result<Vec<String>, Failure> {
    let mut keys = Vec::new();
    for key in given {
        if key.len() == KEY_DIGITS && key.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            keys.push(key.clone());
            continue;
        }
        let file = File::open(key).map_err(|error| {
            Failure::usage(format!("--key: {key}: neither 64 hexadecimal digits nor a file: {error}"))
        })?;
        let mut text = String::new();
        file.take(KEYS_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(|error| Failure::usage(format!("--key: {key}: {error}")))?;
        let before = keys.len();
        keys.extend(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned));
        if keys.len() == before {
            return Err(Failure::usage(format!("--key: {key} has no key in it")));
        }
    }
    Ok(keys)
}

fn whole(arguments: &Verify, verified: &Verified) -> Result<(), Failure> {
    let is_continued = verified.continues.bytes().any(|digit| digit != b'0');
    let signed = &verified.signed;
    if arguments.json {
        let gaps = verified.gaps.listed.iter().map(
            |(line, gap)| json!({ "line": line, "code": gap.as_str(), "count": gap.size(), "what": gap.to_string() }),
        );
        return print::json(&json!({
            "ok": true,
            "records": verified.records,
            "boots": verified.boots,
            "seq": verified.seq,
            "head": verified.head,
            "continues": is_continued.then_some(&verified.continues),
            "torn_tail_bytes": verified.torn_tail_bytes,
            "key": signed.key,
            "signatures": signed.signatures,
            "signed_records": signed.covered,
            "unsigned_records": signed.uncovered,
            "signed_by_given_keys": signed.noted_covered,
            "gaps": gaps.collect::<Vec<_>>(),
            "gaps_count": verified.gaps.count,
        }));
    }
    let mut block = print::Block::default();
    block
        .fact("  records", verified.records)
        .fact("  starts", verified.boots)
        .fact("  head", format!("{}:{}", verified.seq, verified.head))
        .maybe("  continues", is_continued.then_some(&verified.continues))
        .maybe("  key", signed.key.as_ref())
        .fact("  signed", format!("{} of {}", signed.covered, verified.records))
        .maybe("  by given keys", signed.noted_covered);
    print::text(&format!("{} is whole\n{}", print::visible(&arguments.file.to_string_lossy()), block.render()))?;
    tell_gaps(&verified.gaps);
    if verified.torn_tail_bytes > 0 {
        print::note(format_args!(
            "{} after the last record: one that is being written, or that a crash cut off; the next start says so",
            print::count(usize::try_from(verified.torn_tail_bytes).unwrap_or(usize::MAX), "byte", "bytes")
        ));
    }
    Ok(())
}

fn tell_gaps(gaps: &Gaps) {
    for (line, gap) in gaps.listed.iter().take(GAPS_TOLD_MAX) {
        print::note(format_args!("line {line}: {gap}"));
    }
    let more = gaps.count.saturating_sub(GAPS_TOLD_MAX as u64);
    if more > 0 {
        print::note(format_args!("and {more} more; --json lists a thousand"));
    }
}

/// For programs.
fn code(flaw: Flaw) -> &'static str {
    match flaw {
        Flaw::Edited => "edited",
        Flaw::Unlinked => "unlinked",
        Flaw::Misnumbered => "misnumbered",
        Flaw::Headless => "headless",
        Flaw::Empty => "empty",
        Flaw::NotARecord => "not_a_record",
        Flaw::TornLine => "torn_line",
        Flaw::Version => "version",
        Flaw::TooLong => "too_long",
        Flaw::HeadMissing => "head_missing",
        Flaw::HeadMalformed => "head_malformed",
        Flaw::Signature => "signature",
        Flaw::CheckpointMissing => "checkpoint_missing",
        Flaw::KeyChanged => "key_changed",
        Flaw::KeyUnknown => "key_unknown",
        Flaw::KeyMissing => "key_missing",
        Flaw::KeyMalformed => "key_malformed",
        Flaw::Unreadable(_) => "unreadable",
    }
}

fn hint(flaw: Flaw) -> &'static str {
    match flaw {
        Flaw::Edited
        | Flaw::Unlinked
        | Flaw::Misnumbered
        | Flaw::TornLine
        | Flaw::Signature
        | Flaw::CheckpointMissing
        | Flaw::KeyChanged => "keep this file as evidence, and compare it with a copy that was shipped elsewhere",
        Flaw::Headless => "look for the file before it; if it was never rotated, its beginning was removed",
        Flaw::Empty | Flaw::NotARecord | Flaw::TooLong => "is it an audit of valetkey, and nothing else in it?",
        Flaw::Version => "verify it with the version of valetkey that wrote it",
        Flaw::HeadMissing | Flaw::HeadMalformed => {
            "give the head of this file, or of the file that follows it, as `audit verify` printed it"
        }
        Flaw::KeyUnknown | Flaw::KeyMissing | Flaw::KeyMalformed => {
            "give the key of each start, as `valetkey audit head --key` or the log of that start said it"
        }
        Flaw::Unreadable(_) => "name a file that this user may read, or - for standard input",
    }
}
