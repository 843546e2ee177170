//! Every denial in every dialect: as files, by rule, and with hostile strings.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::ext::ReasonPhrase;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::model::denial::{Ambiguity, Misplaced, Missing, SignatureFault, TooLarge, Unclear};
use crate::model::{NonceId, ScopeName};

const DIALECTS: [(&str, Dialect); 7] = [
    ("json", Dialect::Json),
    ("git", Dialect::Git),
    ("aws", Dialect::Aws),
    ("slack", Dialect::Slack),
    ("npm", Dialect::Npm),
    ("grpc", Dialect::Grpc),
    ("kubernetes", Dialect::Kubernetes),
];

fn context(dialect: Dialect) -> Context {
    Context {
        dialect,
        exchange_id: "ex_01K9ZZZZZZZZZZZZZZZZZZZZZZ".to_owned(),
        nonce_id: NonceId::parse("nc_01K9ABCDEFGHJKMNPQRSTVWXYZ"),
        method: "POST".to_owned(),
        path: "/v1/refunds".to_owned(),
        host: "api.example.com".to_owned(),
        wants_problem_json: false,
        slots: vec![Slot::Bearer, Slot::BasicUser],
    }
}

/// One of each variant, and of each variant within.
#[expect(clippy::too_many_lines, reason = "a list")]
fn every_denial() -> Vec<Denial> {
    let at = "2026-11-22T10:00:00.123456789Z".parse().unwrap();
    let allowed = vec!["GET /v1/customers".to_owned(), "GET /v1/customers/cus_{id}".to_owned()];
    let required_scope = Some(ScopeName::parse("write:refunds").unwrap());
    let mut denials = vec![
        Denial::NonceMissing(Missing::Nowhere),
        Denial::NonceUnknown,
        Denial::NonceExpired { at },
        Denial::NonceRevoked { at },
        Denial::NonceSpent { at },
        Denial::AgentMismatch,
        Denial::OutOfScope { allowed, required_scope },
        Denial::OutOfScope { allowed: vec![], required_scope: None },
        Denial::ConditionFailed { because: Some("refunds up to 50.00 €".to_owned()) },
        Denial::ConditionFailed { because: None },
        Denial::RiskRestricted { until: at },
        Denial::ForeignCredential,
        Denial::CredentialExposed,
        Denial::HostNotListed,
        Denial::AddressForbidden,
        Denial::RequestMalformed,
        Denial::SlotOccupied,
        Denial::RequestTimeout,
        Denial::ExpectationFailed,
        Denial::CleartextForbidden,
        Denial::AgentUnidentified,
        Denial::IdentityRefused { because: "the token has expired".to_owned() },
        Denial::IdentityStale,
        Denial::IdentityUnavailable,
        Denial::DestinationMismatch,
        Denial::BudgetSpent,
        Denial::RateLimited { retry_after: Duration::from_millis(1500) },
        Denial::TooManyAtOnce,
        Denial::CredentialUnavailable { retry_after: Some(Duration::from_secs(30)) },
        Denial::CredentialUnavailable { retry_after: None },
        Denial::UpstreamUnreachable,
        Denial::UpstreamTls,
        Denial::UpstreamTimeout,
        Denial::UpstreamUnclear(Unclear::Broke),
        Denial::UpstreamUnclear(Unclear::Late),
        Denial::AnswerUnscrubbable,
        Denial::AuditUnavailable,
        Denial::Overloaded,
        Denial::ShuttingDown,
        Denial::Internal,
    ];
    denials.extend(
        [
            SignatureFault::Malformed,
            SignatureFault::Mismatch,
            SignatureFault::NotSigned,
            SignatureFault::Stale,
            SignatureFault::Expired,
            SignatureFault::Scope,
            SignatureFault::OtherBody,
            SignatureFault::UnsignedBody,
            SignatureFault::Unsupported,
            SignatureFault::CopySource,
        ]
        .map(Denial::SignatureRefused),
    );
    let misplaced =
        [Misplaced::Header, Misplaced::Path, Misplaced::Query, Misplaced::Host, Misplaced::Proxy, Misplaced::Body];
    let missing = [Missing::NotAttached, Missing::WebPage, Missing::OtherService];
    denials.extend(missing.map(Denial::NonceMissing));
    denials.extend(misplaced.map(Denial::NonceMisplaced));
    denials.extend([TooLarge::Target, TooLarge::Head, TooLarge::Body].map(Denial::RequestTooLarge));
    denials.extend(
        [
            Ambiguity::DotSegment,
            Ambiguity::EmptySegment,
            Ambiguity::EncodedSlash,
            Ambiguity::PathParameter,
            Ambiguity::PathBytes,
            Ambiguity::DoubleEncoding,
            Ambiguity::TargetForm,
            Ambiguity::Host,
            Ambiguity::Framing,
            Ambiguity::ConnectionOption,
            Ambiguity::MethodOverride,
            Ambiguity::Query,
            Ambiguity::RepeatedHeader,
            Ambiguity::Handshake,
            Ambiguity::Method,
        ]
        .map(Denial::RequestAmbiguous),
    );
    denials
}

fn header<'a>(response: &'a Response<Full<Bytes>>, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

fn body(response: &Response<Full<Bytes>>) -> String {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let mut body = std::pin::pin!(response.body().clone().collect());
    let std::task::Poll::Ready(Ok(whole)) = body.as_mut().poll(&mut context) else { panic!("a full body is ready") };
    String::from_utf8(whole.to_bytes().to_vec()).unwrap()
}

fn reason(response: &Response<Full<Bytes>>) -> Option<String> {
    let phrase = response.extensions().get::<ReasonPhrase>()?;
    Some(String::from_utf8(phrase.as_bytes().to_vec()).unwrap())
}

/// A response as it stands in a file.
fn picture(response: &Response<Full<Bytes>>) -> Value {
    let body = body(response);
    let headers: Vec<Value> =
        response.headers().iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()).into()).collect();
    json!({
        "status": response.status().as_u16(),
        "reason": reason(response),
        "headers": headers,
        "body": serde_json::from_str::<Value>(&body).unwrap_or(Value::String(body)),
    })
}

/// The files under `tests/vectors/denials`; `REGENERATE_VECTORS=1` writes them anew, to be read in review.
#[test]
fn every_refusal_is_as_its_file_says() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/denials");
    let mut pictures = std::collections::BTreeMap::<String, Vec<Value>>::new();
    for denial in every_denial() {
        let mut picture_of_all = serde_json::Map::new();
        picture_of_all.insert("denial".to_owned(), format!("{denial:?}").into());
        for (name, dialect) in DIALECTS {
            picture_of_all.insert(name.to_owned(), picture(&render(&denial, &context(dialect))));
        }
        picture_of_all.insert("connect".to_owned(), picture(&connect(&denial)));
        pictures.entry(denial.code().to_owned()).or_default().push(picture_of_all.into());
    }
    if std::env::var_os("REGENERATE_VECTORS").is_some() {
        std::fs::create_dir_all(&folder).unwrap();
        for (code, cases) in &pictures {
            let text = serde_json::to_string_pretty(cases).unwrap() + "\n";
            std::fs::write(folder.join(format!("{code}.json")), text).unwrap();
        }
    }
    let files: BTreeSet<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(files, pictures.keys().cloned().collect());
    for (code, cases) in pictures {
        let text = std::fs::read_to_string(folder.join(format!("{code}.json"))).unwrap();
        let expected: Vec<Value> = serde_json::from_str(&text).unwrap();
        assert_eq!(cases, expected, "{code}; REGENERATE_VECTORS=1 writes the files anew");
    }
}

#[test]
fn a_refusal_says_by_its_status_and_headers_whether_to_try_again() {
    for denial in every_denial() {
        for (_, dialect) in DIALECTS {
            let response = render(&denial, &context(dialect));
            let retry_after = header(&response, "retry-after").map(|seconds| seconds.parse::<u64>().unwrap());
            if dialect == Dialect::Grpc {
                assert_eq!(response.status(), 200);
                assert_eq!(header(&response, "grpc-retry-pushback-ms") == Some("-1"), !denial.is_retryable());
                continue;
            }
            assert_eq!(response.status().as_u16(), denial.status());
            assert_ne!(response.status(), 407);
            assert_eq!(header(&response, "x-should-retry"), (!denial.is_retryable()).then_some("false"));
            assert!(retry_after.is_none_or(|seconds| seconds >= 1 && denial.is_retryable()), "{denial:?}");
            assert_eq!(response.status() == 429, matches!(denial, Denial::RateLimited { .. } | Denial::TooManyAtOnce));
            assert_eq!(
                response.status() == 401,
                header(&response, "www-authenticate").is_some_and(|c| !c.contains("scope="))
            );
            let text = body(&response).to_ascii_lowercase();
            if response.status() == 403 {
                assert!(!text.contains("rate limit") && !text.contains("rate_limit") && retry_after.is_none());
            }
        }
    }
}

#[test]
fn every_refusal_is_marked_as_ours_and_never_stored() {
    for denial in every_denial() {
        let in_tunnels = DIALECTS.map(|(_, dialect)| render(&denial, &context(dialect)));
        for response in in_tunnels.iter().chain([&connect(&denial)]) {
            let code = denial.code();
            assert_eq!(header(response, "valetkey-error"), Some(code));
            assert_eq!(header(response, "cache-control"), Some("no-store"));
            let status = header(response, "proxy-status").unwrap();
            let error = status.strip_prefix("valetkey; error=").unwrap();
            let error = error.strip_suffix(&format!("; details=\"{code}\"")).unwrap();
            assert!(error.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "a token: {error}");
            let length = header(response, "content-length").map(|length| length.parse().unwrap());
            assert_eq!(length.unwrap_or(0), body(response).len());
        }
        assert!(
            in_tunnels
                .iter()
                .all(|response| header(response, "valetkey-exchange") == Some("ex_01K9ZZZZZZZZZZZZZZZZZZZZZZ"))
        );
    }
}

#[test]
fn the_first_two_hundred_characters_say_what_matters() {
    for denial in every_denial() {
        let mut long = context(Dialect::Json);
        long.path = "/x".repeat(128);
        long.host = "h".repeat(253);
        let words = words::say(&denial, &long);
        let beginning: String = words.detail.chars().take(200).collect();
        assert!(beginning.contains(denial.code()) && beginning.contains(&words.fact), "{beginning}");
        assert!(words.detail.chars().count() <= 600 && words.detail.ends_with('.'));
        if let Denial::OutOfScope { allowed, .. } = &denial {
            assert!(allowed.first().is_none_or(|rule| beginning.contains(rule)), "{beginning}");
        }
        let phrase = reason(&render(&denial, &long)).unwrap();
        assert!(phrase.len() <= 200 && phrase.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{phrase}");
        assert!(phrase.starts_with(denial.code()));
    }
}

#[test]
fn the_json_has_what_sdks_and_programs_look_for() {
    let denial = every_denial().remove(6);
    let response = render(&denial, &context(Dialect::Json));
    assert_eq!(header(&response, "content-type"), Some("application/json; charset=utf-8"));
    assert_eq!(reason(&response).unwrap(), "out_of_scope: allowed GET /v1/customers, GET /v1/customers/cus_{id}");
    let value: Value = serde_json::from_str(&body(&response)).unwrap();
    assert_eq!(value["type"], "urn:valetkey:denial:out_of_scope");
    assert_eq!(value["instance"], "urn:valetkey:exchange:ex_01K9ZZZZZZZZZZZZZZZZZZZZZZ");
    assert_eq!(value["status"], 403);
    assert_eq!(value["origin"], "valetkey");
    assert_eq!(value["retryable"], false);
    assert_eq!(value["nonce_id"], "nc_01K9ABCDEFGHJKMNPQRSTVWXYZ");
    assert_eq!(value["required_scope"], "write:refunds");
    assert_eq!(value["allowed"][0], "GET /v1/customers");
    assert_eq!(value["message"], value["detail"]);
    assert_eq!(value["error"]["message"], value["detail"]);
    assert_eq!(value["error"]["type"], "out_of_scope");
    assert_eq!(value["error"]["code"], "out_of_scope");
    let asked = Context { wants_problem_json: true, ..context(Dialect::Json) };
    assert_eq!(header(&render(&denial, &asked), "content-type"), Some("application/problem+json"));
}

#[test]
fn unknown_and_malformed_nonces_get_one_answer() {
    for (_, dialect) in DIALECTS {
        let nameless = Context { nonce_id: None, ..context(dialect) };
        let answers = [&context(dialect), &nameless].map(|context| picture(&render(&Denial::NonceUnknown, context)));
        assert_eq!(answers[0], answers[1]);
    }
}

#[test]
fn a_missing_nonce_is_asked_for_in_the_form_of_the_slots() {
    let cases: [(&[Slot], &[&str]); 5] = [
        (&[], &["Bearer"]),
        (&[Slot::Bearer], &["Bearer"]),
        (&[Slot::BasicPassword], &["Basic"]),
        (&[Slot::Bearer, Slot::BasicUser], &["Basic", "Bearer"]),
        (&[Slot::Header("x-api-key".to_owned())], &["Bearer"]),
    ];
    for (slots, schemes) in cases {
        let context = Context { slots: slots.to_vec(), ..context(Dialect::Git) };
        let response = render(&Denial::NonceMissing(Missing::Nowhere), &context);
        let challenges = response.headers().get_all("www-authenticate");
        let found: Vec<_> = challenges.iter().map(|value| value.to_str().unwrap().split(' ').next().unwrap()).collect();
        assert_eq!(found, schemes);
    }
}

#[test]
fn a_refused_connect_is_never_a_challenge() {
    for denial in every_denial() {
        let response = connect(&denial);
        assert!(response.status() != 401 && response.status() != 407 && response.status() != 200);
        assert!(header(&response, "www-authenticate").is_none() && body(&response).is_empty());
        assert!(reason(&response).unwrap().starts_with(denial.code()));
    }
}

#[test]
fn only_what_proxy_credentials_can_mend_is_challenged() {
    for denial in every_denial() {
        let response = challenge(&denial);
        let is_challenge = denial.status() == 401;
        assert_eq!(response.status() == 407, is_challenge, "{denial:?}");
        let asked = header(&response, "proxy-authenticate");
        assert_eq!(asked, is_challenge.then_some("Basic realm=\"valetkey\""));
        assert!(response.status() != 401 && body(&response).is_empty());
        assert_eq!(header(&response, "content-length"), Some("0"), "the connection goes on");
    }
}

fn hostile() -> impl Strategy<Value = String> {
    let mark = proptest::sample::select(vec![
        "\r\n",
        "\"",
        "\\",
        "</Message>",
        "<x>",
        "&",
        "'",
        "]]>",
        "\0",
        "\u{202e}",
        "é",
        "%0d%0a",
        "{host}",
        ";",
        ",",
        "\u{1b}[31m",
    ]);
    let piece = prop_oneof![mark.prop_map(str::to_owned), "\\PC{0,8}", "[a-z/]{0,40}"];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_an_agent_chose_stays_inside_its_place(
        method in hostile(), path in hostile(), host in hostile(), rule in hostile(), because in hostile(),
    ) {
        let denials = [
            Denial::OutOfScope { allowed: vec![rule.clone(); 40], required_scope: None },
            Denial::ConditionFailed { because: Some(because) },
            Denial::HostNotListed,
        ];
        for denial in denials {
            for (_, dialect) in DIALECTS {
                let hostile = Context {
                    method: method.clone(), path: path.clone(), host: host.clone(), ..context(dialect)
                };
                let response = render(&denial, &hostile);
                let text = body(&response);
                prop_assert!(text.len() < 64 * 1024);
                let breaks_out = text.contains(['\r', '\0', '\u{202e}', '\u{1b}']);
                prop_assert!(!breaks_out);
                for value in response.headers().values() {
                    prop_assert!(value.as_bytes().iter().all(|byte| (b' '..=b'~').contains(byte)));
                }
                let phrase = reason(&response).unwrap_or_default();
                prop_assert!(phrase.len() <= 200 && phrase.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
                match dialect {
                    Dialect::Json | Dialect::Slack | Dialect::Npm | Dialect::Kubernetes => {
                        prop_assert!(serde_json::from_str::<Value>(&text).is_ok());
                    }
                    Dialect::Git => {
                        let is_ours = |line: &str| line.starts_with("valetkey ") || line.starts_with("  ");
                        prop_assert!(text.lines().all(is_ours));
                    }
                    Dialect::Aws => {
                        prop_assert_eq!(text.matches('<').count(), text.matches('>').count());
                        let tags = if text.contains("<ErrorResponse>") { 13 } else { 9 };
                        prop_assert_eq!(text.matches('<').count(), tags);
                    }
                    Dialect::Grpc => prop_assert!(text.is_empty()),
                }
            }
        }
    }
}
