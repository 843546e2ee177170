//! What is written in a condition, at its bounds; and what is read of a body and goes on record.

use super::*;
use crate::model::Host;
use crate::policy::Target;

fn fields() -> BodyRule {
    let fields = [
        ("text", FieldType::Text),
        ("int", FieldType::Int),
        ("number", FieldType::Number),
        ("bool", FieldType::Bool),
        ("texts", FieldType::Texts),
        ("any", FieldType::Any),
        ("with-hyphen", FieldType::Text),
    ];
    let fields = fields.map(|(name, kind)| (name.to_owned(), kind)).to_vec();
    BodyRule { kind: BodyKind::Json, bytes_max: 1024, fields: Some(fields) }
}

/// The sentence of a condition that is refused; empty if it is taken.
fn refused(source: &str) -> String {
    let body = fields();
    Expression::condition(source, &Variables { captures: &["id"], body: Some(&body) })
        .err()
        .map_or_else(String::new, |bad| bad.0)
}

fn input(source: &str) -> Result<Expression, String> {
    let body = fields();
    Expression::input(source, &Variables { captures: &["id"], body: Some(&body) }).map_err(|bad| bad.0)
}

#[test]
fn an_expression_has_as_many_bytes_as_it_may_and_no_more() {
    let long = |bytes: usize| format!("risk == '{}'", "x".repeat(bytes - "risk == ''".len()));
    assert_eq!(refused(&long(EXPRESSION_BYTES_MAX)), "");
    assert_eq!(refused(&long(EXPRESSION_BYTES_MAX + 1)), "an expression has at most 2048 bytes");
}

#[test]
fn an_expression_has_as_many_parts_as_it_may_and_no_more() {
    // The list, what is looked for, and `in`.
    let parts = |count: usize| format!("now in [{}]", vec!["1"; count - 3].join(","));
    assert_eq!(refused(&parts(256)), "");
    assert_eq!(refused(&parts(257)), "an expression has at most 256 parts");
}

#[test]
fn a_pattern_has_as_many_bytes_as_it_may_and_no_more() {
    let pattern = |bytes: usize| format!("risk.matches('{}')", "x".repeat(bytes));
    assert_eq!(refused(&pattern(128)), "");
    assert_eq!(refused(&pattern(129)), "a pattern has at most 128 bytes");
    assert_eq!(refused(&pattern(200)), "a pattern has at most 128 bytes");
}

#[test]
fn what_is_wrong_with_an_expression_is_said() {
    for (source, sentence) in [
        ("risk == 'x' ? true : 1", "`?_:` does not go with a truth value and a truth value and an int"),
        ("risk == 'x' ? true : false", ""),
        ("risk.startsWith(nonce.task)", ""),
        ("risk.matches(nonce.task)", "the pattern of matches() is written out, and never an input"),
        ("risk.matches('(')", "the pattern of matches() is no regular expression"),
        ("risk.matches('((x{99}){99}){9}')", "the pattern of matches() repeats too much"),
        ("risk.reverse('x')", "`reverse` does not go with a string and a string"),
        ("risk + 'x' == 'y'", "strings are not joined in a condition"),
        ("risk - 'x' == 'y'", "`-` does not go with a string and a string"),
        ("now > 5.0", "`>` between an int and a number: write 5.0 where a number is meant"),
        ("5.0 > now", "`>` between an int and a number: write 5.0 where a number is meant"),
        ("body.any == body.any", "`==` does not go with of no declared type and of no declared type"),
        ("now", "gives an int, and a condition gives true or false"),
        ("now.x == 1", "`x` is looked for in what is an int"),
        ("[1, 'x'] == [1]", "a list holds strings, or ints, or numbers, and nothing else beside them"),
        ("1 in ['x']", "`in` does not go with an int and a list"),
        ("1 in [1, 2]", ""),
        ("[] == []", "a list is empty"),
        ("here == 1", "there is no `here`: inputs are request, path, body, nonce, risk and now"),
        ("request.none == 1", "there is no `request.none`: a request has method, path, host, query and size"),
        ("path.none == 'x'", "there is no `path.none`: the rule's path has id"),
        ("body.none == 'x'", "`fields` of the body has no `none`"),
        ("risk.none == 'x'", "`none` is looked for in what is a string"),
        ("has(nonce.instance) && has(nonce.labels.team) && has(body.int) && has(request.query.q)", ""),
        (
            "has(request.query) && request.query.force == '1'",
            "has(…) does not go with `query`: where nobody can tell what it is, the condition is not to be decided",
        ),
        (
            "!has(request.size)",
            "has(…) does not go with `size`: where nobody can tell what it is, the condition is not to be decided",
        ),
        (
            "has(path.id)",
            "has(…) does not go with `id`: where nobody can tell what it is, the condition is not to be decided",
        ),
    ] {
        assert_eq!(refused(source), sentence, "{source}");
    }
    let bare = Expression::condition("path.id == 'x'", &Variables { captures: &[], body: None });
    assert_eq!(bare.err().unwrap().0, "there is no `path.id`: the rule's path has no placeholder");
    // Where, and what: not that nothing more was tried.
    let unread = refused("risk ==\n 'a' 'b'");
    assert!(unread.starts_with("is no CEL expression: column 6: Syntax error"), "{unread}");
    assert!(!refused("risk == \u{7}").contains('\u{7}'));
}

#[test]
fn what_is_recorded_is_one_input_by_its_name() {
    let no_name = "is not the name of an input, as in `body.amount`";
    for (source, sentence) in [
        ("risk", ""),
        ("body.int", ""),
        ("body['with-hyphen']", ""),
        ("nonce.labels.team", ""),
        ("nonce.labels['team']", ""),
        ("path.id", ""),
        ("nonce.data[0]", ""),
        ("nonce.data[nonce.uses]", no_name),
        ("['a'][0]", no_name),
        ("nonce.uses + 1", no_name),
        ("risk == 'x'", no_name),
        ("has(body.int)", no_name),
        ("'x'", no_name),
        ("nonce.data", "is a list; what is recorded is one text, number or truth value"),
        ("nonce.labels", "is a map of strings; what is recorded is one text, number or truth value"),
        ("body", "is a group of inputs; what is recorded is one text, number or truth value"),
        ("body.any", "is of no declared type; what is recorded is one text, number or truth value"),
    ] {
        assert_eq!(input(source).err().unwrap_or_default(), sentence, "{source}");
    }
}

/// Reads a body of the rule above, and tells what is recorded of it.
fn recorded(body: &str, inputs: &[&str]) -> Vec<(String, String)> {
    let (host, target) = (Host::parse("s.test").unwrap(), Target::parse("/x").unwrap());
    let facts = RequestFacts { method: "POST", websocket: false, host: &host, target: &target };
    let record = inputs.iter().map(|source| input(source).unwrap()).collect();
    let condition = Condition { body: Some(Arc::new(fields())), when: None, because: None, record };
    condition.recorded(&facts, &[("id".into(), "seven".to_owned())], &circumstances(body))
}

fn circumstances(body: &str) -> Circumstances<'_> {
    let content_type = Some("application/json");
    let held =
        HeldBody { bytes: body.as_bytes(), is_whole: true, has_trailers: false, content_type, is_encoded: false };
    let nonce = NonceFacts {
        agent: "a",
        task: "t",
        instance: None,
        on_behalf_of: None,
        labels: vec![("team", "red")],
        data: vec!["pii"],
        age_seconds: 9,
        uses: Some(2),
    };
    Circumstances { now: 7, size: Some(5), body: Some(held), risk: "normal", nonce }
}

#[test]
fn texts_numbers_and_truth_values_go_on_record_and_what_is_not_there_does_not() {
    let body = r#"{"text": "a b", "int": -5, "number": 1.5, "bool": false, "with-hyphen": "h"}"#;
    let inputs = [
        ("body.text", "a b"),
        ("body.int", "-5"),
        ("body.number", "1.5"),
        ("body.bool", "false"),
        ("body['with-hyphen']", "h"),
        ("nonce.labels['team']", "red"),
        ("nonce.data[0]", "pii"),
        ("nonce.uses", "2"),
        ("path.id", "seven"),
        ("now", "7"),
    ];
    let wanted: Vec<(String, String)> =
        inputs.iter().map(|(source, value)| ((*source).to_owned(), (*value).to_owned())).collect();
    assert_eq!(recorded(body, &inputs.map(|(source, _)| source)), wanted);
    assert_eq!(recorded("{}", &["body.text", "nonce.instance", "risk"]), [("risk".to_owned(), "normal".to_owned())]);
    let two = recorded(body, &["body.text", "body.int"]);
    assert_eq!(two.len(), 2, "two inputs with one root: {two:?}");
}

#[test]
fn what_is_looked_at_is_this_request_and_this_nonce() {
    let body = fields();
    let (host, target) = (Host::parse("s.test").unwrap(), Target::parse("/a%20b/c?q=1&r=%41").unwrap());
    let facts = RequestFacts { method: "POST", websocket: false, host: &host, target: &target };
    let (slash, root) = (Target::parse("/a/").unwrap(), Target::parse("/").unwrap());
    let upgrade = RequestFacts { method: "GET", websocket: true, ..facts };
    for (when, facts, wanted) in [
        ("request.path == '/a b/c'", facts, Outcome::Holds),
        ("request.path == '/'", facts, Outcome::Fails),
        ("request.path == '/a/'", RequestFacts { target: &slash, ..facts }, Outcome::Holds),
        ("request.path == '/'", RequestFacts { target: &root, ..facts }, Outcome::Holds),
        ("request.method == 'POST'", facts, Outcome::Holds),
        ("request.method == 'WEBSOCKET'", upgrade, Outcome::Holds),
        ("request.host == 's.test'", facts, Outcome::Holds),
        ("request.query['r'] == 'A'", facts, Outcome::Holds),
        ("request.query.q == '2'", facts, Outcome::Fails),
        ("request.query.none == '2'", facts, Outcome::Unknown(None)),
        ("'q' in request.query", facts, Outcome::Holds),
        ("'s' in request.query", facts, Outcome::Fails),
        ("request.size == 5", facts, Outcome::Holds),
        ("path.id == 'seven'", facts, Outcome::Holds),
        ("nonce.age_seconds == 9 && nonce.uses == 2", facts, Outcome::Holds),
        ("nonce.agent == 'a' && nonce.task == 't'", facts, Outcome::Holds),
        ("nonce.instance == 'i'", facts, Outcome::Unknown(None)),
        ("has(nonce.on_behalf_of)", facts, Outcome::Fails),
        ("'pii' in nonce.data", facts, Outcome::Holds),
        ("size(nonce.labels) == 1", facts, Outcome::Holds),
        ("now % 4 == 3 && -now < 0 && !(now >= 8)", facts, Outcome::Holds),
        ("risk.matches('^n.*l$') && nonce.agent.matches('^[a-z]$')", facts, Outcome::Holds),
        ("risk.matches('^n') && risk.matches('^b')", facts, Outcome::Fails),
        ("risk.matches('^b') || risk.matches('^n') && !risk.matches('^b')", facts, Outcome::Holds),
        ("risk.matches('(?i)^NORMAL$') && risk.matches('^\\\\p{L}+$')", facts, Outcome::Holds),
        ("risk.matches('\\\\p{Greek}|\\\\d|\\\\s')", facts, Outcome::Fails),
        ("nonce.instance.matches('^i')", facts, Outcome::Unknown(None)),
        ("body.int == 5", facts, Outcome::Holds),
        ("body.int == 5 ? risk == 'normal' : false", facts, Outcome::Holds),
    ] {
        let expression = Expression::condition(when, &Variables { captures: &["id"], body: Some(&body) }).unwrap();
        let condition =
            Condition { body: Some(Arc::new(fields())), when: Some(expression), because: None, record: Vec::new() };
        let path = [("id".into(), "seven".to_owned())];
        let judged = condition.judge(&facts, &path, Some(&circumstances("{\"int\": 5}")), Readings::One);
        assert_eq!(judged, wanted, "{when}");
    }
}

#[test]
fn an_expression_is_not_for_logs() {
    let expression = input("body.int").unwrap();
    assert_eq!((format!("{expression:?}"), expression.source()), ("Expression(8 bytes)".to_owned(), "body.int"));
}

#[test]
fn a_field_is_of_its_type_or_the_body_is_refused() {
    let target = Target::parse("/x").unwrap();
    let read = |kind: BodyKind, content_type: &'static str, body: &str| {
        let rule = BodyRule { kind, ..fields() };
        let given = HeldBody { content_type: Some(content_type), ..circumstances(body).body.unwrap() };
        rule.read(&given, &target).map(|fields| fields.len())
    };
    let json = |body: &str| read(BodyKind::Json, "application/json", body);
    let form = |body: &str| read(BodyKind::Form, "application/x-www-form-urlencoded", body);
    for (body, wanted) in [
        ("{\"number\": 9007199254740992}", Ok(1)),
        ("{\"number\": -9007199254740992}", Ok(1)),
        ("{\"number\": 9007199254740993}", Err(BodyFault::WrongType)),
        ("{\"number\": \"1\"}", Err(BodyFault::WrongType)),
        ("{\"int\": 1.0}", Err(BodyFault::WrongType)),
        ("{\"texts\": [\"a\", 1]}", Err(BodyFault::WrongType)),
        ("{\"any\": {\"deep\": [null]}}", Ok(1)),
        ("{\"other\": 1}", Err(BodyFault::Undeclared)),
        // To whoever keeps texts as C does, it ends at NUL.
        ("{\"text\": \"a\\u0000b\"}", Err(BodyFault::Malformed)),
        ("{\"text\\u0000\": \"a\"}", Err(BodyFault::Malformed)),
        ("{\"any\": [\"a\\u0000\"]}", Err(BodyFault::Malformed)),
    ] {
        assert_eq!(json(body), wanted, "{body}");
    }
    for (body, wanted) in [
        ("bool=true", Ok(1)),
        ("bool=false", Ok(1)),
        ("bool=1", Err(BodyFault::WrongType)),
        ("int=-5&number=-0.5&text=", Ok(3)),
        ("int=-0", Err(BodyFault::WrongType)),
        ("number=.5", Err(BodyFault::WrongType)),
        ("texts=a", Err(BodyFault::WrongType)),
        ("", Ok(0)),
    ] {
        assert_eq!(form(body), wanted, "{body}");
    }
}

#[test]
fn a_body_is_read_under_its_own_type_and_beside_its_query() {
    let form = BodyRule { kind: BodyKind::Form, ..fields() };
    for (rule, content_type, target, body, wanted) in [
        (fields(), "application/json", "/x", "{}", Ok(0)),
        (fields(), "Application/JSON ; charset=UTF-8", "/x", "{}", Ok(0)),
        (fields(), "application/json; charset=\"utf-8\"", "/x", "{}", Ok(0)),
        (fields(), "application/json; charset=latin1", "/x", "{}", Err(BodyFault::ContentType)),
        (fields(), "text/plain; charset=utf-8", "/x", "{}", Err(BodyFault::ContentType)),
        (fields(), "text/plain", "/x", "{}", Err(BodyFault::ContentType)),
        (form.clone(), "application/json", "/x", "", Err(BodyFault::ContentType)),
        (fields(), "application/json", "/x?int=1", "{\"int\": 5}", Err(BodyFault::InQueryToo)),
        (fields(), "application/json", "/x?other&int", "{\"int\": 5}", Err(BodyFault::InQueryToo)),
        (fields(), "application/json", "/x?i%6Et=1", "{\"int\": 5}", Err(BodyFault::InQueryToo)),
        (fields(), "application/json", "/x?text=1", "{\"int\": 5}", Ok(1)),
        (form.clone(), "application/x-www-form-urlencoded", "/x?int=1", "int=5", Err(BodyFault::InQueryToo)),
        (form.clone(), "application/x-www-form-urlencoded", "/x", "text=a%4", Err(BodyFault::Malformed)),
        (form.clone(), "application/x-www-form-urlencoded", "/x", "text=%zz", Err(BodyFault::Malformed)),
        (form.clone(), "application/x-www-form-urlencoded", "/x", "text=a;b", Err(BodyFault::Malformed)),
        (form.clone(), "application/x-www-form-urlencoded", "/x", "text=a b", Err(BodyFault::Malformed)),
        (form.clone(), "application/x-www-form-urlencoded", "/x", "text=a%4z", Err(BodyFault::Malformed)),
        (form.clone(), "application/x-www-form-urlencoded", "/x", "text=%41+b", Ok(1)),
        (form.clone(), "application/x-www-form-urlencoded", "/x", "text=%00", Err(BodyFault::Malformed)),
        (form, "application/x-www-form-urlencoded", "/x", "text=a&text=b", Err(BodyFault::Repeated)),
    ] {
        let given = HeldBody { content_type: Some(content_type), ..circumstances(body).body.unwrap() };
        let read = rule.read(&given, &Target::parse(target).unwrap());
        assert_eq!(read.map(|fields| fields.len()), wanted, "{content_type} {target} {body}");
    }
}

#[test]
fn a_body_is_as_large_as_it_may_be_and_no_larger() {
    let target = Target::parse("/x").unwrap();
    for (bytes, wanted) in [(1024, Ok(1)), (1025, Err(BodyFault::TooLarge))] {
        let body = format!("{{\"text\": \"{}\"}}", "x".repeat(bytes - "{\"text\": \"\"}".len()));
        let read = fields().read(&circumstances(&body).body.unwrap(), &target);
        assert_eq!(read.map(|fields| fields.len()), wanted, "{bytes}");
    }
}

#[test]
fn every_fault_of_a_body_has_a_sentence_of_its_own() {
    for (fault, word) in [
        (BodyFault::TooLarge, "too large"),
        (BodyFault::ContentType, "Content-Type"),
        (BodyFault::Encoded, "Content-Encoding"),
        (BodyFault::Trailers, "trailers"),
        (BodyFault::Malformed, "one way only"),
        (BodyFault::Repeated, "a key twice"),
        (BodyFault::InQueryToo, "in the query too"),
        (BodyFault::Undeclared, "not allowed"),
        (BodyFault::WrongType, "another type"),
    ] {
        assert!(fault.sentence().contains(word), "{fault:?}");
    }
}
