//! The catalogue of attacks and faults in `tests/attacks/rows`: every row is there, and what it says is so.

mod rows;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use rows::{Row, State};

/// Each class with the number of its last row.
const CLASSES: [(char, usize); 15] = [
    ('A', 30),
    ('B', 32),
    ('C', 28),
    ('D', 29),
    ('E', 24),
    ('F', 20),
    ('G', 16),
    ('H', 12),
    ('I', 16),
    ('J', 13),
    ('K', 11),
    ('L', 18),
    ('M', 12),
    ('N', 21),
    ('O', 16),
];

/// Where the list begins and ends in docs/SECURITY-MODEL.md.
const MARKS: [&str; 2] = ["<!-- rows outside: begin -->\n", "<!-- rows outside: end -->\n"];

#[test]
fn every_row_is_there_once() {
    for (class, last) in CLASSES {
        let ids: Vec<String> = rows::of(class).into_iter().map(|row| row.id).collect();
        let wanted: Vec<String> = (1..=last).map(|number| format!("{class}{number:02}")).collect();
        assert_eq!(ids, wanted, "class {class}: every row once, in order");
    }
}

#[test]
fn every_row_says_one_thing_about_itself() {
    for row in all() {
        assert!(!row.what.trim().is_empty(), "{} says what it is about", row.id);
        if let Err(mistake) = row.state() {
            panic!("{}: {mistake}", row.id);
        }
    }
}

#[test]
fn every_test_that_a_row_names_is_there() {
    let tests = names_of_tests();
    for row in all() {
        let State::Tests(names) = state(&row) else { continue };
        let named: BTreeSet<&String> = names.iter().collect();
        assert_eq!(named.len(), names.len(), "{} names a test twice", row.id);
        for name in names {
            // What is there of those, their own program checks.
            let is_known = name.starts_with("faults::") || tests.contains(name);
            assert!(is_known, "{}: there is no test {name}", row.id);
        }
    }
}

/// Written anew with `VALETKEY_BLESS=1 cargo test --test it catalogue`.
#[test]
fn what_is_outside_is_in_the_security_model() {
    let path = root().join("docs/SECURITY-MODEL.md");
    let document = std::fs::read_to_string(&path).expect("docs/SECURITY-MODEL.md");
    let (before, rest) = document.split_once(MARKS[0]).expect("the list's beginning");
    let (committed, after) = rest.split_once(MARKS[1]).expect("the list's end");
    let current = outside();
    if std::env::var_os("VALETKEY_BLESS").is_some() {
        let [begin, end] = MARKS;
        return std::fs::write(path, format!("{before}{begin}{current}{end}{after}")).expect("writable");
    }
    assert!(committed == current, "the list is stale; run VALETKEY_BLESS=1 cargo test --test it catalogue");
}

/// A check that finds nothing is worth nothing: each is shown a mistake.
#[test]
fn mistakes_in_rows_are_found() {
    let one = |text: &str| {
        rows::parse(&format!("[[row]]\nid = \"A01\"\nwhat = \"x\"\n{text}")).map(|mut rows| rows.remove(0))
    };
    for text in [
        "",
        "tests = []",
        "outside = \" \"",
        "tests = [\"a\"]\noutside = \"b\"",
        "waiting = \"a\"\noutside = \"b\"",
        "outside = \"a\"\nlimits = \"b\"",
        "tests = [\"a\"]\nlimits = \"\"",
    ] {
        assert!(one(text).expect("a row").state().is_err(), "{text}");
    }
    for text in ["tests = [\"a\"]", "tests = [\"a\"]\nlimits = \"b\"", "outside = \"a\"", "waiting = \"a\""] {
        assert!(one(text).expect("a row").state().is_ok(), "{text}");
    }
    assert!(one("tets = [\"a\"]").is_err(), "an unknown key");
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn all() -> Vec<Row> {
    CLASSES.iter().flat_map(|(class, _)| rows::of(*class)).collect()
}

fn state(row: &Row) -> State<'_> {
    row.state().unwrap_or_else(|mistake| panic!("{}: {mistake}", row.id))
}

/// What this very program can run.
fn names_of_tests() -> BTreeSet<String> {
    let program = std::env::current_exe().expect("this program");
    let output = Command::new(program).args(["--list", "--format", "terse"]).output().expect("a list");
    let text = String::from_utf8(output.stdout).expect("text");
    let names: BTreeSet<String> =
        text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect();
    assert!(names.len() > 100, "the list was read");
    names
}

/// The list for people: what no test shows, or only in part, and why.
fn outside() -> String {
    let mut text = String::from("| row | attack or fault | |\n| --- | --- | --- |\n");
    for row in all() {
        let why = match state(&row) {
            State::Outside(why) => format!("outside: {why}"),
            State::Waiting(why) => format!("waiting: {why}"),
            State::Tests(_) => match &row.limits {
                Some(limits) => format!("in part: {limits}"),
                None => continue,
            },
        };
        let cell = |text: &str| text.replace('|', "\\|");
        writeln!(text, "| {} | {} | {} |", row.id, cell(&row.what), cell(&why)).expect("memory");
    }
    text
}
