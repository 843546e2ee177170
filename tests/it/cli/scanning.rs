//! `scan`: what lies about in files.

use std::os::unix::fs::symlink;

use super::{Desk, Done};
use crate::support::{Stage, policies};

/// A nonce that is nobody's, with its checksum.
fn nonce() -> String {
    let entropy = [42; 32];
    valetkey::model::Nonce::from_entropy(&entropy).as_str().to_owned()
}

fn key() -> String {
    ["sk", "_live_", "aB3dE5gH7jK9mN1pQ3sT5vW7"].concat()
}

#[test]
fn nonces_and_keys_are_found_and_not_repeated() {
    let desk = Desk::new();
    let (nonce, key) = (nonce(), key());
    std::fs::create_dir_all(desk.path("logs/old")).unwrap();
    desk.write("logs/a.log", &format!("first\nauthorization: Bearer {nonce}\n"));
    desk.write("logs/old/.env", &format!("STRIPE={key}\n"));
    desk.write("logs/clean.txt", "nothing to see\n");
    let done = desk.run(&["scan", "logs"]).ends(1);
    assert_eq!(done.out, "logs/a.log:2:nonce an_… unknown\n");
    let done = desk.run(&["scan", "--secrets", "logs"]).ends(1).says("2 finds in 3 files");
    assert_eq!(done.out, "logs/a.log:2:nonce an_… unknown\nlogs/old/.env:1:stripe-secret-key sk_live_…\n");
    for text in [&nonce, &key] {
        assert!(!done.out.contains(text) && !done.err.contains(text));
    }
    let done = desk.run(&["scan", "--secrets", "--json", "logs"]).ends(1).json();
    assert_eq!((&done["finds"][1]["kind"], &done["finds"][1]["line"]), (&"stripe-secret-key".into(), &1.into()));
    assert_eq!(done["files"], 3);
    let done = desk.run(&["scan", "--secrets", "logs/clean.txt"]).ends(0).says("0 finds in 1 file");
    assert!(done.out.is_empty());
}

#[test]
fn what_is_no_text_is_passed_over_and_counted() {
    let desk = Desk::new();
    let nonce = nonce();
    std::fs::create_dir(desk.path("x")).unwrap();
    desk.write("outside", &nonce);
    symlink(desk.path("outside"), desk.path("x/link")).unwrap();
    symlink(desk.path("x"), desk.path("x/loop")).unwrap();
    std::fs::write(desk.path("x/binary"), [b"\0".as_slice(), nonce.as_bytes()].concat()).unwrap();
    std::fs::write(desk.path("x/large"), vec![b'a'; (1 << 20) + 1]).unwrap();
    let done = desk.run(&["scan", "x", "--max-mib", "1", "--json"]).ends(0).json();
    for (what, count) in [("links", 2), ("binary", 1), ("too_large", 1), ("files", 0), ("unreadable", 0)] {
        assert_eq!(done[what], count, "{what}: {done}");
    }
    desk.run(&["scan", "nowhere"]).ends(2).says("nowhere");
    desk.run(&["scan"]).ends(2);
}

#[tokio::test]
async fn a_sidecar_says_which_are_alive() {
    let stage = Stage::new().await;
    let desk = Desk::new();
    let live = stage.sidecar.orchestrator().mint("worker", "api", "read").await;
    desk.write("log", &format!("{}\n{}\n", live.nonce, nonce()));
    let control = stage.sidecar.control().to_str().expect("a path").to_owned();
    let scan =
        |control: &str| Done::of(&desk.command(&["scan", "log", "--control", control]).output().expect("it starts"));
    assert_eq!(scan(&control).ends(1).out, format!("log:1:nonce an_… alive {}\nlog:2:nonce an_… not alive\n", live.id));
    scan("/nowhere/control.sock").ends(7);
    stage.assert_silent(&[&live.nonce]);
}

#[tokio::test]
async fn nonces_that_were_made_up_hide_none_of_the_others() {
    let uid = rustix::process::geteuid().as_raw();
    let minter = format!("[minters.slow]\nidentity = [\"uid:{uid}\"]\nagents = [\"worker\"]\n");
    let policy = format!("{}\n{minter}may = [\"mint\", \"read\"]\nrate = \"1/h\"\n", policies::ONE_API);
    let stage = Stage::of_policy(&policy).await;
    let desk = Desk::new();
    let live = stage.sidecar.orchestrator().mint("worker", "api", "read").await;
    desk.write("log", &format!("{}\n{}\n", nonce(), live.nonce));
    let control = stage.sidecar.control().to_str().expect("a path").to_owned();
    let done = Done::of(&desk.command(&["scan", "log", "--control", &control]).output().expect("it starts"));
    assert_eq!(done.ends(7).says("rate_limited").out, "log:1:nonce an_… not alive\nlog:2:nonce an_… unknown\n");
}

/// What the documentation says of the last six characters.
fn fits_as_documented(candidate: &str) -> bool {
    const DIGITS: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let (body, sum) = candidate.split_at(30);
    let mut number = crc32fast::hash(body.as_bytes()) as usize;
    let mut digits = [0; 6];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[number % 62];
        number /= 62;
    }
    digits == sum.as_bytes()
}

#[test]
fn the_documented_pattern_finds_what_scan_finds() {
    let api = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/API.md")).expect("docs/API.md");
    let (_, rest) = api.split_once("the regular expression is `").expect("a pattern");
    let pattern = regex::bytes::Regex::new(rest.split_once('`').expect("its end").0).expect("a regular expression");
    let nonces: Vec<String> =
        (0..40).map(|seed| valetkey::model::Nonce::from_entropy(&[seed; 32]).as_str().to_owned()).collect();
    let mut lines: Vec<String> = nonces
        .iter()
        .enumerate()
        .map(|(at, nonce)| match at % 8 {
            0 => nonce.clone(),
            1 => format!("sk_test_{nonce}"),
            2 => format!("x{nonce}x tail"),
            3 => format!("{{\"key\":\"{nonce}\"}}"),
            4 => format!("an_an_{nonce}_an_"),
            5 => format!("{}{nonce} ünïcode", "a".repeat(at)),
            6 => format!("Bearer {nonce};{nonce}"),
            _ => format!("https://a.test/?k={nonce}&x=1"),
        })
        .collect();
    let whole = &nonces[0];
    lines.extend([
        whole[..35].to_owned(),
        format!("{}!", &whole[..35]),
        whole.replacen("an_", "AN_", 1),
        whole.replacen("an_", "an-", 1),
        format!("an_{}", "0".repeat(33)),
        format!("{}{}", &whole[..35], if whole.ends_with('0') { '1' } else { '0' }),
        format!("{} {}", &whole[..20], &whole[20..]),
        "an_".to_owned(),
        String::new(),
    ]);
    let wanted: Vec<usize> = lines
        .iter()
        .enumerate()
        .flat_map(|(at, line)| {
            let found =
                pattern.find_iter(line.as_bytes()).map(|found| std::str::from_utf8(found.as_bytes()).expect("ASCII"));
            found.filter(|found| fits_as_documented(found)).map(move |_| at + 1)
        })
        .collect();
    assert_eq!(wanted.len(), 45, "each nonce, five of them twice in their line, and none of the rest");
    let desk = Desk::new();
    desk.write("all", &(lines.join("\n") + "\n"));
    let done = desk.run(&["scan", "--json", "all"]).ends(1).json();
    let found = done["finds"].as_array().expect("finds").iter();
    let found: Vec<usize> = found.filter_map(|find| usize::try_from(find["line"].as_u64()?).ok()).collect();
    assert_eq!(found, wanted);
}
