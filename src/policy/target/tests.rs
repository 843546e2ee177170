use std::collections::HashSet;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// The row of the threat catalogue that it belongs to.
    row: String,
    target: String,
    /// `ok`, or the name of the [`Ambiguity`].
    expect: String,
    segments: Option<Vec<String>>,
    query: Option<String>,
    #[serde(default)]
    trailing_slash: bool,
    #[serde(default)]
    encoded_slash: bool,
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("../../../tests/vectors/paths.json")).unwrap()
}

#[test]
fn every_path_vector_is_judged_as_written() {
    let cases = cases();
    assert!(cases.len() > 300, "only {} cases", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let result = Target::parse(&case.target);
        let got = result.as_ref().map_or_else(|ambiguity| format!("{ambiguity:?}"), |_| "ok".to_owned());
        if got != case.expect {
            wrong.push(format!("{} {:?}: {got}, not {}", case.row, case.target, case.expect));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_accepted_is_kept_and_read_as_written() {
    for case in cases().iter().filter(|case| case.expect == "ok") {
        let target = Target::parse(&case.target).unwrap();
        let segments: Vec<&str> = target.segments().collect();
        assert_eq!(Some(segments), case.segments.as_ref().map(|s| s.iter().map(String::as_str).collect()));
        assert_eq!(target.as_str(), case.target);
        assert_eq!(target.query(), case.query.as_deref(), "{}", case.target);
        assert_eq!(target.has_trailing_slash(), case.trailing_slash, "{}", case.target);
        assert_eq!(target.has_encoded_slash(), case.encoded_slash, "{}", case.target);
        assert!(case.target.starts_with(target.path()) && !target.path().contains('?'));
    }
}

#[test]
fn long_targets_are_read_in_one_pass() {
    let many = "/a".repeat(10_000);
    assert_eq!(Target::parse(&many).unwrap().segments().count(), 10_000);
    assert!(Target::parse(&format!("/{}", "%41".repeat(100_000))).is_ok());
    assert_eq!(Target::parse(&format!("/{}", "a".repeat(TARGET_BYTES_MAX))), Err(Ambiguity::PathBytes));
    assert!(Target::parse(&format!("/{}", "a".repeat(TARGET_BYTES_MAX - 1))).is_ok());
}

#[test]
fn a_target_is_not_printed() {
    let target = Target::parse("/bot-secret-1/x?key=secret-2").unwrap();
    let (_, slot) = target.take_query_parameter("key").unwrap().unwrap();
    let parameter = target.query_parameters().next();
    assert!(!format!("{target:?} {slot:?} {parameter:?}").contains("secret"));
}

#[test]
fn a_parameter_is_taken_out_and_put_back_where_it_was() {
    for (text, rest, filled) in [
        ("/p?key=N", "/p", "/p?key=a%2Fb%20%26"),
        ("/p?key=N&b=2", "/p?b=2", "/p?key=a%2Fb%20%26&b=2"),
        ("/p?a=1&key=N", "/p?a=1", "/p?a=1&key=a%2Fb%20%26"),
        ("/p?a=%2e+x&key=N&&b;c=2&", "/p?a=%2e+x&&b;c=2&", "/p?a=%2e+x&key=a%2Fb%20%26&&b;c=2&"),
        ("/p?&key=N", "/p?", "/p?&key=a%2Fb%20%26"),
        ("/p?key=N&", "/p?", "/p?key=a%2Fb%20%26&"),
        ("/p/?%6bey=%4E", "/p/", "/p/?%6bey=a%2Fb%20%26"),
        ("/p?keys=1&key=N&Key=2", "/p?keys=1&Key=2", "/p?keys=1&key=a%2Fb%20%26&Key=2"),
    ] {
        let (value, slot) = Target::parse(text).unwrap().take_query_parameter("key").unwrap().unwrap();
        assert_eq!(&**value, "N");
        assert_eq!(slot.rest().as_str(), rest);
        assert_eq!(&**slot.filled(b"a/b &"), filled);
        assert_eq!(Target::parse(&slot.filled(b"a/b &")).unwrap().path(), slot.rest().path());
    }
}

#[test]
fn a_parameter_that_is_there_twice_or_unreadable_is_not_taken() {
    let take = |text: &str| Target::parse(text).unwrap().take_query_parameter("key").map(|found| found.is_some());
    assert_eq!(take("/p"), Ok(false));
    assert_eq!(take("/p?"), Ok(false));
    assert_eq!(take("/p?akey=1&a=key"), Ok(false));
    assert_eq!(take("/p?key=1&k%65y=2"), Err(Ambiguity::Query));
    assert_eq!(take("/p?key=1&key"), Err(Ambiguity::Query));
    assert_eq!(take("/p?key=%zz"), Err(Ambiguity::Query));
    assert_eq!(take("/p?key=%ff"), Err(Ambiguity::Query));
}

#[test]
fn parameters_are_read_as_forms_are() {
    let target = Target::parse("/p?a=1&b&=c&d=e=f&g%20h=i+j&%zz=1&k=%ff&&").unwrap();
    let read: Vec<_> = target.query_parameters().map(|p| (p.name(), p.value())).collect();
    let text = |text: &'static str| Some(std::borrow::Cow::from(text));
    let expected = [
        (text("a"), text("1")),
        (text("b"), text("")),
        (text(""), text("c")),
        (text("d"), text("e=f")),
        (text("g h"), text("i j")),
        (None, text("1")),
        (text("k"), None),
    ];
    assert_eq!(read, expected);
}

#[test]
fn method_overrides_are_seen_in_every_spelling() {
    for query in [
        "_method=DELETE",
        "a=1&_method=delete",
        "_METHOD=PUT",
        "%5fmethod=PUT",
        "+_method=PUT",
        "%20_method=PUT",
        "a;_method=PUT",
        "_method",
        "_method%00x=PUT",
        "_method[]=PUT",
        ".method=PUT",
        "X-HTTP-Method-Override=PUT",
        "x_http_method_override=PUT",
        "X-HTTP-Method=PUT",
        "X-Method-Override=PUT",
    ] {
        assert!(Target::parse(&format!("/p?{query}")).unwrap().has_method_override(), "{query}");
    }
    for query in [
        "",
        "method=GET",
        "xmethod=PUT",
        "_met-od=PUT",
        "a=_method",
        "payment_method=card",
        "_methods=1",
        "x=1&method=flickr.test.echo",
    ] {
        assert!(!Target::parse(&format!("/p?{query}")).unwrap().has_method_override(), "{query}");
    }
    assert!(!Target::parse("/_method=DELETE").unwrap().has_method_override());
}

/// Decodes as the most lenient server would: bad escapes stay, `%u` is read, bytes are what they are.
fn decode_leniently(bytes: &[u8]) -> Vec<u8> {
    let hex = |range: Option<&[u8]>| {
        let text = std::str::from_utf8(range?).ok()?;
        text.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u32::from_str_radix(text, 16).ok())?
    };
    let (mut out, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let escape = bytes[at] == b'%';
        if let (true, Some(byte)) = (escape, hex(bytes.get(at + 1..at + 3))) {
            out.push(u8::try_from(byte).unwrap());
            at += 3;
        } else if let (true, Some(b'u' | b'U'), Some(point)) =
            (escape, bytes.get(at + 1), hex(bytes.get(at + 2..at + 6)))
        {
            out.extend(char::from_u32(point).unwrap_or('?').to_string().bytes());
            at += 6;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    out
}

/// What some server or other does before it looks for dot segments.
fn fold(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).replace(['\\', '\u{ff0f}', '\u{2215}', '\u{2044}', '\u{ff3c}'], "/");
    text.replace(['\u{ff0e}', '\u{2024}'], ".").replace('\u{2025}', "..").replace('\u{0}', "")
}

fn has_dot_segment(path: &str) -> bool {
    path.split('/').any(|segment| {
        let name = segment.split([';', '?', '#']).next().unwrap_or(segment).trim();
        name == "." || name == ".."
    })
}

fn evil() -> impl Strategy<Value = String> {
    let tokens = prop::sample::select(vec![
        "/",
        "/",
        "/",
        "a",
        "v1",
        ".",
        "..",
        "%2e",
        "%2E",
        "%25",
        "2e",
        "2f",
        "5c",
        "%2f",
        "%2F",
        "%5c",
        "\\",
        ";",
        "%3b",
        "x=1",
        "%00",
        "%20",
        "%c0%ae",
        "%ef%bc%8e",
        "%e2%80%a5",
        "%ef%bc%8f",
        "%e2%80%8b",
        "%u002e",
        "u002e",
        "%",
        "?",
        "#",
        "*",
        "%3f",
        "%c3%a9",
        "+",
    ]);
    prop::collection::vec(tokens, 0..12).prop_map(|tokens| format!("/{}", tokens.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_reader_finds_a_dot_segment_in_what_is_accepted(text in evil()) {
        if let Ok(target) = Target::parse(&text) {
            prop_assert_eq!(target.as_str(), &text, "what is judged is what is sent");
            let once = decode_leniently(target.path().as_bytes());
            let twice = decode_leniently(&once);
            prop_assert_eq!(&once, &twice, "decoding again changes nothing");
            let readings = [target.path().to_owned(), fold(target.path().as_bytes()), fold(&once), fold(&decode_leniently(fold(&once).as_bytes()))];
            for reading in readings {
                prop_assert!(!has_dot_segment(&reading), "{text:?} reads as {reading:?}");
                prop_assert!(!reading.contains("//"), "{text:?} reads as {reading:?}");
            }
            let judged: Vec<&str> = target.segments().collect();
            let slash = if target.has_trailing_slash() && !judged.is_empty() { "/" } else { "" };
            prop_assert_eq!(format!("/{}{slash}", judged.join("/")).into_bytes(), once, "judged is decoded");
        }
    }

    #[test]
    fn any_text_is_parsed_or_refused(text in ".{0,40}") {
        for text in [text.clone(), format!("/{text}")] {
            if let Ok(target) = Target::parse(&text) {
                prop_assert_eq!(target.as_str(), &text);
                prop_assert!(text.bytes().all(|b| b.is_ascii_graphic()));
                let _ = target.has_method_override();
            }
        }
    }

    #[test]
    fn putting_the_same_value_back_restores_the_target(
        before in prop::collection::vec("[a-j=;%+.]{0,5}", 0..4),
        after in prop::collection::vec("[a-j=;%+.]{0,5}", 0..4),
    ) {
        let pieces: Vec<String> = before.into_iter().chain(["key=N".to_owned()]).chain(after).collect();
        let text = format!("/p/x?{}", pieces.join("&"));
        let (value, slot) = Target::parse(&text).unwrap().take_query_parameter("key").unwrap().unwrap();
        prop_assert_eq!(&**slot.filled(value.as_bytes()), &text);
        prop_assert!(!slot.rest().as_str().contains("key"));
    }
}

#[test]
fn a_parameter_that_was_not_there_goes_behind_all_others() {
    for (text, filled) in [
        ("/x", "/x?key=a%2Fb%20%26"),
        ("/x?", "/x?key=a%2Fb%20%26"),
        ("/x?a=1", "/x?a=1&key=a%2Fb%20%26"),
        ("/x/?a=1&", "/x/?a=1&&key=a%2Fb%20%26"),
    ] {
        let slot = Target::parse(text).unwrap().room_for_parameter("key");
        assert_eq!(&**slot.filled(b"a/b &"), filled);
        assert_eq!(slot.rest().as_str(), text, "what is judged");
    }
}

#[test]
fn a_parameter_is_decoded_even_where_it_is_nothing_but_one_escape() {
    let read = |query: &str| {
        let target = Target::parse(&format!("/p?{query}")).unwrap();
        let parameter = target.query_parameters().next().expect("a parameter");
        (parameter.name().map(String::from), parameter.value().map(String::from))
    };
    let words = |name: &str, value: &str| (Some(name.to_owned()), Some(value.to_owned()));
    assert_eq!(read("+=++"), words(" ", "  "));
    assert_eq!(read("%=a"), (None, Some("a".to_owned())), "a bad escape has no reading");
    assert_eq!(read("a=%%"), (Some("a".to_owned()), None));
}

#[test]
fn a_parameter_behind_a_semicolon_is_hidden() {
    let hides = |query: &str| Target::parse(&format!("/p?{query}")).unwrap().hides_parameter("key");
    for query in ["a=1;key=2", "a;key", "a;%6bey=2", "a;+key+=2", "b&a;b;key=1"] {
        assert!(hides(query), "{query}");
    }
    for query in ["key=1", "key", "a;keys=1", "a;b=key", "a=1&key=2", ";a"] {
        assert!(!hides(query), "{query}");
    }
}

#[test]
fn targets_are_the_same_where_their_text_is() {
    let parse = |text: &str| Target::parse(text).unwrap();
    assert_eq!(parse("/a?b=c"), parse("/a?b=c"));
    assert_ne!(parse("/a?b=c"), parse("/a?b=d"));
    assert_ne!(parse("/a"), parse("/%61"), "spelled otherwise, sent otherwise");
}

#[test]
fn a_target_is_shown_without_what_it_says() {
    let target = Target::parse("/users/ann?key=secret").unwrap();
    let shown = "Target { path_bytes: 10, query_bytes: Some(10) }";
    assert_eq!(format!("{target:?}"), shown);
    let parameter = target.query_parameters().next().expect("a parameter");
    assert_eq!(format!("{parameter:?}"), "QueryParameter(…)");
    let (_, slot) = target.take_query_parameter("key").unwrap().expect("a parameter");
    assert_eq!(format!("{slot:?}"), "QuerySlot(Target { path_bytes: 10, query_bytes: None })");
}

#[test]
fn every_row_of_the_catalogue_that_concerns_paths_has_cases() {
    let rows: HashSet<String> = cases().into_iter().map(|case| case.row).collect();
    for row in ["C01", "C02", "C03", "C04", "C05", "C06", "C07", "C08", "C09", "C10", "C11", "C12", "C13", "C14"] {
        assert!(rows.contains(row), "{row}");
    }
}
