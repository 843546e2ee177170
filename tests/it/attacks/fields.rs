//! Header fields and parameters that say to one reader what they do not say to another.

use super::{outcome, request, send};
use crate::support::Stage;

#[tokio::test]
async fn credentials_and_methods_are_refused_in_every_spelling() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let cases = [
        ("x_api_key: mine", "foreign_credential"),
        ("X_Api_Key: mine", "foreign_credential"),
        ("Api_Key: mine", "foreign_credential"),
        ("X_Auth_Token: mine", "foreign_credential"),
        ("Private_Token: mine", "foreign_credential"),
        ("X-Api-Key: ", "foreign_credential"),
        ("Cookie: a=b", "foreign_credential"),
        ("X-HTTP-Method-Override: DELETE", "request_ambiguous"),
        ("x_http_method_override: DELETE", "request_ambiguous"),
        ("X_HTTP_Method: DELETE", "request_ambiguous"),
        ("Connection: authorization", "request_ambiguous"),
        ("Connection: x-api-key, keep-alive", "request_ambiguous"),
    ];
    for (field, code) in cases {
        let answer = send(&stage, &request("GET /x", &format!("{field}\r\n"), &nonce, "")).await;
        assert_eq!(outcome(&answer).1, Some(code), "{field}: {answer}");
    }
    assert!(stage.upstream.seen().is_empty(), "nothing arrived");
}

#[tokio::test]
async fn what_proxies_say_to_origins_is_not_said_by_agents() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let names = "Forwarded Via X-Forwarded-For X-Forwarded-Host X-Forwarded-Uri X-Forwarded-Path X-Forwarded-User \
                 X-Forwarded-Client-Cert X_Forwarded_Host X-Original-URL X-Original-Uri X-Original-Method \
                 X-Rewrite-URL X_Rewrite_Url X-HTTP-Host-Override X-Client-IP X-Remote-User X-Envoy-Original-Path \
                 X-Real-IP Client-IP Front-End-Https Proxy Proxy-Foo Proxy_Connection Transfer_Encoding Content_Length";
    for name in names.split_ascii_whitespace() {
        let answer = send(&stage, &request("GET /x", &format!("{name}: mark\r\n"), &nonce, "")).await;
        assert_eq!(outcome(&answer).0, 200, "{name}: {answer}");
    }
    for seen in stage.upstream.seen() {
        let has_mark = seen.headers.values().any(|value| value.as_bytes() == b"mark");
        assert!(!has_mark, "{:?}", seen.headers.keys().collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_nonce_is_found_where_it_does_not_belong() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let escaped = format!("%61n%5F{}", &nonce[3..]);
    let twice = escaped.replace('%', "%25");
    for name in ["User-Agent", "Referer", "Origin", "X-Request-Id", "Accept", "If-None-Match"] {
        for value in [&nonce, &escaped, &twice] {
            let answer = send(&stage, &request("GET /x", &format!("{name}: a{value}b\r\n"), &nonce, "")).await;
            assert_eq!(outcome(&answer).1, Some("nonce_misplaced"), "{name}: {value}: {answer}");
        }
    }
    let as_name = send(&stage, &request("GET /x", &format!("{nonce}: 1\r\n"), &nonce, "")).await;
    assert_eq!(outcome(&as_name).1, Some("nonce_misplaced"), "{as_name}");
    for target in [format!("/{nonce}"), format!("/{escaped}"), format!("/x?u={escaped}"), format!("/x?u={twice}")] {
        let answer = send(&stage, &request(&format!("GET {target}"), "", &nonce, "")).await;
        assert_eq!(outcome(&answer).1, Some("nonce_misplaced"), "{target}: {answer}");
    }
    assert!(stage.upstream.seen().is_empty(), "nothing arrived");
    stage.assert_silent(&[&nonce]);
}

#[tokio::test]
async fn a_parameter_beside_the_nonce_is_no_credential_in_any_spelling() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let queries = "key=mine a=b;key=mine a=b;k%65y=mine a=b;+key=mine token=mine +token=mine tok%65n=mine a=1;token=mine \
                   TOKEN=mine sig=mine X-Amz-Signature=1 access_token=mine";
    for query in queries.split_ascii_whitespace() {
        let answer = send(&stage, &request(&format!("GET /x?{query}"), "", &nonce, "")).await;
        assert!(matches!(outcome(&answer).1, Some("foreign_credential" | "request_ambiguous")), "{query}: {answer}");
    }
    assert!(stage.upstream.seen().is_empty(), "nothing arrived");
}
