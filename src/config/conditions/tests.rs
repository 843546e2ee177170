//! The vectors of tests/vectors/conditions.toml, and what the reader says of the keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use crate::config::{Loaded, check_policy, effective};
use crate::model::{Host, ScopeName, ServiceName};
use crate::policy::{BodyFault, Circumstances, HeldBody, NonceFacts, RequestFacts, Target, Verdict};

const VECTORS: &str = include_str!("../../../tests/vectors/conditions.toml");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vectors {
    policy: String,
    request: Vec<Case>,
    expression: Vec<Written>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    send: String,
    form: Option<String>,
    json: Option<String>,
    raw: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    encoding: Option<String>,
    #[serde(default)]
    trailers: bool,
    #[serde(default)]
    part: bool,
    /// What stands where the body says HEX.
    hex: Option<String>,
    holds: Option<Vec<String>>,
    labels: Option<BTreeMap<String, String>>,
    data: Option<Vec<String>>,
    age: Option<u64>,
    uses: Option<i64>,
    then: String,
    recorded: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    when: String,
    then: String,
}

fn loaded(text: &str) -> Loaded {
    check_policy(&Arc::from("policy.toml"), text.as_bytes().to_vec(), false).unwrap_or_else(|wrong| panic!("{wrong}"))
}

fn refused(text: &str) -> String {
    let wrong = check_policy(&Arc::from("policy.toml"), text.as_bytes().to_vec(), false).err();
    wrong
        .unwrap_or_else(|| panic!("must be refused: {text}"))
        .items()
        .iter()
        .map(|wrong| format!("{wrong}\n"))
        .collect()
}

impl Case {
    fn body(&self) -> Option<Vec<u8>> {
        let text = self.form.as_ref().or(self.json.as_ref()).or(self.raw.as_ref())?;
        let mut bytes = text.clone().into_bytes();
        if let Some(hex) = &self.hex {
            let at = text.find("HEX").expect("a place");
            bytes.splice(at..at + 3, hex::decode(hex).expect("hex"));
        }
        Some(bytes)
    }

    fn content_type(&self) -> Option<&str> {
        let form = self.form.as_ref().map(|_| "application/x-www-form-urlencoded");
        self.kind.as_deref().or(form).or(self.json.as_ref().map(|_| "application/json"))
    }

    fn nonce<'a>(&'a self, defaults: &'a BTreeMap<String, String>) -> NonceFacts<'a> {
        let labels = self.labels.as_ref().unwrap_or(defaults);
        NonceFacts {
            agent: "billing",
            task: "month-end",
            instance: Some("run-9"),
            on_behalf_of: Some("user:ana"),
            labels: labels.iter().map(|(name, value)| (&**name, &**value)).collect(),
            data: self.data.iter().flatten().map(String::as_str).collect(),
            age_seconds: self.age.unwrap_or(60),
            uses: u32::try_from(self.uses.unwrap_or(3)).ok(),
        }
    }

    /// What becomes of it, and what goes on record.
    fn run(&self, loaded: &Loaded) -> (String, BTreeMap<String, String>) {
        let service = loaded.policy.service(&ServiceName::parse("s").unwrap()).unwrap();
        let all = service.scopes.iter().map(|scope| scope.name.clone());
        let is_held =
            |scope: &ScopeName| self.holds.as_ref().is_none_or(|held| held.iter().any(|name| *name == scope.as_str()));
        let held: Vec<ScopeName> = all.filter(is_held).collect();
        let (method, target) = self.send.split_once(' ').expect("a method and a target");
        let (host, target) = (Host::parse("api.test.example").unwrap(), Target::parse(target).unwrap());
        let facts = RequestFacts { method, websocket: false, host: &host, target: &target };
        let defaults = BTreeMap::from([("team".to_owned(), "finance".to_owned())]);
        let body = self.body();
        let given = || Circumstances {
            now: 1_800_000_000,
            size: Some(body.as_ref().map_or(0, |body| body.len() as u64)),
            body: body.as_ref().map(|bytes| HeldBody {
                bytes,
                is_whole: !self.part,
                has_trailers: self.trailers,
                content_type: self.content_type(),
                is_encoded: self.encoding.is_some(),
            }),
            risk: "elevated",
            nonce: self.nonce(&defaults),
        };
        let (then, recording) = match loaded.policy.decide_given(&service.name, &held, &[], &facts, Some(&given)) {
            Verdict::Allow { scope, recording, .. } => (format!("allow {}", scope.name), recording),
            Verdict::Unmet(unmet) => match unmet.fault {
                Some(fault) => (format!("fault {}", word(fault)), unmet.recording),
                None => (format!("unmet {}", unmet.because.map_or("-", |text| text)), unmet.recording),
            },
            Verdict::Deny { .. } => ("deny".to_owned(), None),
            Verdict::Ambiguous(_) => ("ambiguous".to_owned(), None),
        };
        (then, recording.map(|recording| recording.inputs(&facts, &given)).unwrap_or_default().into_iter().collect())
    }
}

fn word(fault: BodyFault) -> &'static str {
    match fault {
        BodyFault::TooLarge => "too_large",
        BodyFault::ContentType => "content_type",
        BodyFault::Encoded => "encoded",
        BodyFault::Trailers => "trailers",
        BodyFault::Malformed => "malformed",
        BodyFault::Repeated => "repeated",
        BodyFault::InQueryToo => "in_query_too",
        BodyFault::Undeclared => "undeclared",
        BodyFault::WrongType => "wrong_type",
    }
}

#[test]
fn every_vector_becomes_what_it_says() {
    let vectors: Vectors = toml::from_str(VECTORS).expect("vectors");
    // The policy as it is printed means the same.
    let printed = effective(&loaded(&vectors.policy)).to_string();
    let mut wrong = Vec::new();
    for policy in [&vectors.policy, &printed] {
        let loaded = loaded(policy);
        for case in &vectors.request {
            let (then, recorded) = case.run(&loaded);
            if then != case.then || case.recorded.as_ref().is_some_and(|wanted| *wanted != recorded) {
                wrong.push(format!("{}: {then} {recorded:?}, not {}", case.name, case.then));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(vectors.request.len() >= 60, "vectors are missing");
}

/// A policy with one rule, `POST /x/{id}`, and this behind it.
fn one_rule(keys: &str) -> String {
    format!(
        "version = 1\n[credentials.c]\nsource = \"env\"\nname = \"KEY\"\nhosts = [\"api.test.example\"]\n[services.s]\n\
         hosts = [\"api.test.example\"]\ncredential = \"c\"\nslots = [\"bearer\"]\n[[services.s.scopes]]\nname = \"x\"\n\
         risk = \"low\"\n[[services.s.scopes.rules]]\n{keys}\n"
    )
}

#[test]
fn every_expression_is_taken_or_refused_with_its_place() {
    let vectors: Vectors = toml::from_str(VECTORS).expect("vectors");
    let fields = r#"{ text = "string", count = "int", price = "number", list = "string[]", any = "any" }"#;
    for Written { when, then } in &vectors.expression {
        let text = one_rule(&format!(
            "allow = \"POST /x/{{id}}\"\nbody = {{ type = \"json\", fields = {fields} }}\nwhen = \"{when}\""
        ));
        if then == "ok" {
            loaded(&text);
        } else {
            let found = refused(&text);
            assert!(found.contains(then.as_str()) && found.contains(":16:8: "), "{when}: {found}");
        }
    }
}

#[test]
fn keys_that_do_not_fit_their_rule_are_mistakes() {
    let body = "body = { type = \"json\" }";
    let cases = [
        ("allow = \"POST /x\"\nbecause = \"why\"", "there is none"),
        ("allow = \"POST /x\"\nwhen = 5", "is of type integer"),
        ("allow = \"POST /x\"\nwhen = \"body.a == 'x'\"", "declares none"),
        (&format!("allow = \"POST /x\"\n{body}\nwhen = \"body.a == 'x'\""), "is not declared"),
        (&format!("allow = \"WEBSOCKET /x\"\n{body}"), "has no body"),
        (&format!("deny = \"POST /x\"\n{body}"), "does not look at it"),
        ("allow = \"POST /x\"\nbody = { type = \"xml\" }", "is not a word"),
        ("allow = \"POST /x\"\nbody = { type = \"json\", max = \"2MiB\" }", "is no size"),
        ("allow = \"POST /x\"\nbody = { type = \"json\", max = \"16 KB\" }", "is no size"),
        ("allow = \"POST /x\"\nbody = { type = \"json\", max = \"0B\" }", "is no size"),
        ("allow = \"POST /x\"\nbody = { type = \"form\", fields = { a = \"int[]\" } }", "is a list"),
        ("allow = \"POST /x\"\nbody = { type = \"form\", fields = { a = \"integer\" } }", "is not a word"),
        ("allow = \"POST /x\"\nbody = { type = \"form\", encoding = \"gzip\" }", "there is no key"),
        ("allow = \"POST /x\"\nrecord = [\"nonce.labels\"]", "what is recorded is one"),
        ("allow = \"POST /x\"\nrecord = [\"1 + 1\"]", "not the name of an input"),
        ("allow = \"POST /x\"\nrecord = [\"nonce.value\"]", "there is no"),
        ("allow = \"POST /x\"\nwhen = \"true\"\nbecause = \"\"", "is empty"),
    ];
    for (keys, sentence) in cases {
        let found = refused(&one_rule(keys));
        assert!(found.contains(sentence), "{keys}: {found}");
    }
    let twice =
        one_rule(&format!("allow = \"POST /x\"\n{body}")).replace("risk = \"low\"", &format!("risk = \"low\"\n{body}"));
    assert!(refused(&twice).contains("has a body already"));
}

#[test]
fn a_condition_makes_no_other_rule_superfluous() {
    let rules = "allow = \"POST /x\"\nwhen = \"nonce.agent == 'a'\"\n[[services.s.scopes.rules]]\nallow = \"POST /x\"\n\
                 when = \"nonce.agent == 'b'\"\n[[services.s.scopes.rules]]\ndeny = \"POST /{*rest}\"\n\
                 when = \"nonce.agent == 'c'\"";
    assert_eq!(loaded(&one_rule(rules)).warnings, Vec::<String>::new());
}

#[test]
fn what_is_too_long_or_has_too_many_parts_is_refused() {
    let long = format!("allow = \"POST /x\"\nwhen = \"nonce.agent != '{}'\"", "x".repeat(2048));
    assert!(refused(&one_rule(&long)).contains("at most 2048 bytes"));
    let parts = format!("allow = \"POST /x\"\nwhen = \"{}\"", vec!["1 == 1"; 100].join(" && "));
    refused(&one_rule(&parts));
}

#[test]
fn no_nesting_is_too_deep_for_the_reader() {
    for piece in [
        "!",
        "-",
        "(",
        "[",
        "{1:",
        "a?b:",
        "a?",
        "a.",
        "a[",
        "f(",
        "1+",
        "a&&",
        "a||",
        "has(",
        "a.all(x,",
        "'\\u0041'+",
    ] {
        let text = format!("{}true", piece.repeat(2000 / piece.len()));
        // The parser folds pairs of `!` and `-` away; the others are refused.
        let policy = one_rule(&format!("allow = \"POST /x\"\nwhen = \"\"\"{text}\"\"\""));
        let read = check_policy(&Arc::from("policy.toml"), policy.into_bytes(), false);
        assert_eq!(read.is_ok(), ["!", "-"].contains(&piece), "{piece}");
    }
}
