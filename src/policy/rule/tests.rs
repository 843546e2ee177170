use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vectors {
    good: Vec<String>,
    bad: Vec<Bad>,
    covers: Vec<Cover>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bad {
    rule: String,
    /// What the sentence says.
    says: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cover {
    rule: String,
    covers: Vec<String>,
    not: Vec<String>,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../../../tests/vectors/rules-syntax.json")).unwrap()
}

fn rule(text: &str) -> Rule {
    Rule::parse(text, QueryRule::Any, false).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn queried(query: QueryRule) -> Rule {
    Rule::parse("GET /x", query, false).unwrap()
}

#[test]
fn good_rules_are_parsed_and_spelled_as_written() {
    for text in vectors().good {
        assert_eq!(rule(&text).text(), text);
    }
}

#[test]
fn bad_rules_are_refused_with_a_sentence() {
    for Bad { rule, says } in vectors().bad {
        match Rule::parse(&rule, QueryRule::Any, false) {
            Ok(_) => panic!("{rule:?} was accepted"),
            Err(BadSyntax(sentence)) => assert!(sentence.contains(&says), "{rule:?}: {sentence}"),
        }
    }
    assert!(Rule::parse(&format!("GET /{}", "a".repeat(RULE_BYTES_MAX)), QueryRule::Any, false).is_err());
    assert!(Rule::parse(&format!("GET {}", "/a".repeat(RULE_SEGMENTS_MAX + 1)), QueryRule::Any, false).is_err());
    assert!(Rule::parse(&format!("GET {}", "/a".repeat(RULE_SEGMENTS_MAX)), QueryRule::Any, false).is_ok());
}

#[test]
fn an_encoded_slash_in_a_rule_needs_its_flag() {
    assert!(Rule::parse("GET /group%2Fproject", QueryRule::Any, true).is_ok());
    assert!(Rule::parse("GET /group%2Fproject", QueryRule::Any, false).is_err());
    assert!(Rule::parse("GET /a%2F..%2Fb", QueryRule::Any, true).is_err());
}

#[test]
fn one_rule_covers_another() {
    for Cover { rule: own, covers, not } in vectors().covers {
        let own = rule(&own);
        for text in covers {
            assert!(own.covers(&rule(&text)), "{} covers {text}", own.text());
        }
        for text in not {
            assert!(!own.covers(&rule(&text)), "{} does not cover {text}", own.text());
        }
    }
}

#[test]
fn query_and_slash_conditions_narrow_what_is_covered() {
    let only = |names: &[&str]| queried(QueryRule::Only(names.iter().map(ToString::to_string).collect()));
    let exactly = |value: &str| queried(QueryRule::Exactly(vec![("a".to_owned(), value.to_owned())]));
    let any = queried(QueryRule::Any);
    assert!(any.covers(&only(&["a"])) && any.covers(&exactly("1")));
    assert!(!only(&["a"]).covers(&any) && !exactly("1").covers(&any));
    assert!(only(&["a", "b"]).covers(&only(&["b"])) && !only(&["b"]).covers(&only(&["a", "b"])));
    assert!(only(&["a"]).covers(&exactly("1")) && !only(&["b"]).covers(&exactly("1")));
    assert!(exactly("1").covers(&exactly("1")) && !exactly("1").covers(&exactly("2")));
    assert!(!exactly("1").covers(&only(&[])) && !exactly("1").covers(&only(&["a"])));
    let slashes = Rule::parse("GET /x", QueryRule::Any, true).unwrap();
    assert!(slashes.covers(&any) && !any.covers(&slashes));
}

#[test]
fn query_conditions_name_each_parameter_once() {
    let names = |names: &[&str]| QueryRule::Only(names.iter().map(ToString::to_string).collect());
    assert!(Rule::parse("GET /x", names(&["a", "b"]), false).is_ok());
    for bad in
        [names(&["a", "a"]), names(&[""]), QueryRule::Exactly(vec![("a".into(), "1".into()), ("a".into(), "2".into())])]
    {
        assert!(Rule::parse("GET /x", bad, false).is_err());
    }
}

#[test]
fn a_rule_has_as_many_bytes_as_it_may_and_no_more() {
    let refused = |text: &str| Rule::parse(text, QueryRule::Any, false).err().map_or_else(String::new, |bad| bad.0);
    let whole = |bytes: usize| format!("GET /{}", "a".repeat(bytes - "GET /".len()));
    assert_eq!(refused(&whole(RULE_BYTES_MAX)), "");
    assert_eq!(refused(&whole(RULE_BYTES_MAX + 1)), "a rule has at most 2048 bytes");
    let method = |bytes: usize| format!("{} /a", "M".repeat(bytes));
    assert_eq!(refused(&method(32)), "");
    assert_eq!(refused(&method(33)), "a method has at most 32 bytes");
}

#[test]
fn a_rule_says_whether_it_is_for_every_method_or_for_upgrades() {
    for (text, any, websocket) in [
        ("* /a", true, false),
        ("WEBSOCKET /a", false, true),
        ("GET /a", false, false),
        ("GET /WEBSOCKET", false, false),
    ] {
        assert_eq!((rule(text).is_any_method(), rule(text).is_websocket()), (any, websocket), "{text}");
    }
}
