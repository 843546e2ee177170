use http::HeaderValue;

use super::*;

/// AWS's published test suite and the examples of its documentation, all with their well-known keys.
const SUITE_SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const S3_SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

struct Vector {
    line: (&'static str, &'static str, &'static str),
    fields: &'static [(&'static str, &'static str)],
    body: &'static str,
    scope: (&'static str, &'static str),
    secret: &'static str,
    signature: &'static str,
}

const SUITE_DATE: (&str, &str) = ("x-amz-date", "20150830T123600Z");
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

const VECTORS: [Vector; 6] = [
    Vector {
        line: ("GET", "example.amazonaws.com", "/"),
        fields: &[SUITE_DATE],
        body: "",
        scope: ("us-east-1", "service"),
        secret: SUITE_SECRET,
        signature: "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    },
    Vector {
        line: ("POST", "example.amazonaws.com", "/"),
        fields: &[SUITE_DATE],
        body: "",
        scope: ("us-east-1", "service"),
        secret: SUITE_SECRET,
        signature: "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
    },
    Vector {
        line: ("GET", "example.amazonaws.com", "/?Param2=value2&Param1=value1"),
        fields: &[SUITE_DATE],
        body: "",
        scope: ("us-east-1", "service"),
        secret: SUITE_SECRET,
        signature: "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
    },
    Vector {
        line: ("GET", "iam.amazonaws.com", "/?Action=ListUsers&Version=2010-05-08"),
        fields: &[("content-type", "application/x-www-form-urlencoded; charset=utf-8"), SUITE_DATE],
        body: "",
        scope: ("us-east-1", "iam"),
        secret: SUITE_SECRET,
        signature: "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
    },
    Vector {
        line: ("GET", "examplebucket.s3.amazonaws.com", "/test.txt"),
        fields: &[("range", "bytes=0-9"), ("x-amz-content-sha256", EMPTY), ("x-amz-date", "20130524T000000Z")],
        body: "",
        scope: ("us-east-1", "s3"),
        secret: S3_SECRET,
        signature: "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    },
    Vector {
        line: ("PUT", "examplebucket.s3.amazonaws.com", "/test$file.text"),
        fields: &[
            ("date", "Fri, 24 May 2013 00:00:00 GMT"),
            ("x-amz-content-sha256", "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"),
            ("x-amz-date", "20130524T000000Z"),
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ],
        body: "Welcome to Amazon S3.",
        scope: ("us-east-1", "s3"),
        secret: S3_SECRET,
        signature: "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
    },
];

fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}

#[test]
fn published_signatures_are_made() {
    for vector in &VECTORS {
        let headers = headers(vector.fields);
        let mut names: Vec<String> = headers.keys().map(ToString::to_string).chain(["host".to_owned()]).collect();
        names.sort_unstable();
        let method = Method::from_bytes(vector.line.0.as_bytes()).unwrap();
        let line = Line { method: &method, host: vector.line.1, target: vector.line.2 };
        let date = headers[DATE].to_str().unwrap();
        let said = format!(
            "{SCHEME} Credential=AKIDEXAMPLE/{}/{}/{}/aws4_request, SignedHeaders={}, Signature={EMPTY}",
            &date[..8],
            vector.scope.0,
            vector.scope.1,
            names.join(";")
        );
        let said = Authorization::parse(&said).unwrap();
        let canonical = Canonical::of(line, said.is_s3(), &headers, &names).unwrap();
        let payload = Payload::Named(sha_256(vector.body.as_bytes()));
        let date = date.to_owned();
        let signed = Signed { date, said, canonical, payload, announced: None, verifying: None, query: None };
        let key = signed.said.signing_key(vector.secret);
        let signature = hmac::sign(&key, signed.text_to_sign(&signed.canonical).as_bytes());
        assert_eq!(hex::encode(signature), vector.signature, "{:?}", vector.line);
    }
}

#[test]
fn an_authorization_is_read_in_one_form() {
    let good = format!(
        "{SCHEME} Credential=ASIAEXAMPLE/20150830/us-east-1/iam/aws4_request, SignedHeaders=host;x-amz-date, \
         Signature={EMPTY}"
    );
    assert!(Authorization::parse(&good).is_some());
    assert!(Authorization::parse(&good.replace(", ", ",")).is_some(), "as some clients write it");
    for (from, to) in [
        ("AWS4-HMAC-SHA256", "aws4-hmac-sha256"),
        ("AWS4-HMAC-SHA256 ", "AWS4-HMAC-SHA256"),
        ("Credential=", "credential="),
        ("ASIAEXAMPLE/", "/"),
        ("ASIAEXAMPLE/", "ASIA EXAMPLE/"),
        ("/us-east-1", ""),
        ("/us-east-1", "/"),
        ("/us-east-1", "/*"),
        ("/us-east-1", "/us-east-1/x"),
        ("/iam", "/IAM"),
        ("20150830", "2015083"),
        ("20150830", "2015-0830"),
        ("aws4_request", "aws5_request"),
        ("host;x-amz-date", "x-amz-date;host"),
        ("host;x-amz-date", "host;host;x-amz-date"),
        ("host;x-amz-date", "Host;x-amz-date"),
        ("host;x-amz-date", ""),
        ("host;x-amz-date", "host;;x-amz-date"),
        (EMPTY, ""),
        (EMPTY, &EMPTY[1..]),
        ("e3b0c", "E3B0C"),
        (EMPTY, &format!("{EMPTY}, Signature={EMPTY}")),
    ] {
        let bad = good.replacen(from, to, 1);
        assert!(bad != good && Authorization::parse(&bad).is_none(), "{bad}");
    }
    let many: Vec<String> = (100..165).map(|number| format!("x{number}")).collect();
    assert!(Authorization::parse(&good.replace("host;x-amz-date", &many.join(";"))).is_none(), "65 of them");
}
