//! What somebody tries with a presigned URL who holds the key that signs it: the signature is right over whatever is sent.

use super::*;
use crate::support::sigv4::decoded;

type Parameters = Vec<(String, String)>;

/// The same parameters, with another value for one of them.
fn with_value(parameters: &Parameters, name: &str, value: &str) -> Parameters {
    let of = |known: &String, own: &String| if known == name { value.to_owned() } else { own.clone() };
    parameters.iter().map(|(known, own)| (known.clone(), of(known, own))).collect()
}

/// The answers to a request over both protocols.
async fn answers(stage: &Signing, method: &str, url: &str, fields: &[(&str, &str)]) -> [Reply; 2] {
    let request = || with(method, "api.test", url, fields, "");
    [stage.sidecar.agent().send(request()).await, stage.sidecar.agent().send_h2(request()).await]
}

/// Fails unless it is refused over both protocols, with nothing sent on and nothing of the real key in the answer.
async fn assert_refused(stage: &Signing, url: &str, fields: &[(&str, &str)], code: &str) {
    for reply in answers(stage, "GET", url, fields).await {
        stage.assert_refused(&reply, code, url);
        let all = String::from_utf8_lossy(&reply.everything()).into_owned();
        let token = stage.real.token.as_deref().expect("a token");
        assert!(!all.contains(&stage.real.id) && !all.contains(token), "{url}: {all}");
    }
}

/// What stands in a URL for one of its parameters.
fn value_of(url: &str, name: &str) -> String {
    let query = url.split_once('?').expect("a query").1;
    let found = query.split('&').find_map(|piece| piece.strip_prefix(name)?.strip_prefix('='));
    decoded(found.unwrap_or_else(|| panic!("no {name} in {url}")))
}

/// Fails unless AWS would take what has arrived: the real key has signed it, and all but what is the key's is what was sent.
fn assert_taken(stage: &Signing, seen: &Seen, sent: &str) {
    let is_of_key = |piece: &&str| {
        ["X-Amz-Credential=", "X-Amz-Security-Token=", "X-Amz-Signature="].iter().any(|name| piece.starts_with(name))
    };
    let others =
        |url: &str| url.split(['?', '&']).filter(|piece| !is_of_key(piece)).map(str::to_owned).collect::<Vec<_>>();
    let [arrived, wanted] = [others(&seen.target), others(sent)];
    let said = |pieces: &[String]| pieces.iter().any(|piece| piece.starts_with("X-Amz-SignedHeaders="));
    assert!(said(&arrived) && arrived == wanted, "{} of {sent}", seen.target);
    let names = value_of(&seen.target, "X-Amz-SignedHeaders");
    let date = value_of(&seen.target, "X-Amz-Date");
    let real = Signer { date, ..stage.real.clone() };
    assert_eq!(value_of(&seen.target, "X-Amz-Credential"), format!("{}/{}", real.id, real.scope()));
    assert_eq!(Some(value_of(&seen.target, "X-Amz-Security-Token")), real.token);
    let pieces: Vec<&str> = seen.target.split_inclusive(['?', '&']).collect();
    let unsigned: String = pieces.into_iter().filter(|piece| !piece.starts_with("X-Amz-Signature=")).collect();
    let fields: Vec<(&str, &str)> =
        seen.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("text"))).collect();
    let signature = real.of_query((&seen.method, "api.test", unsigned.trim_end_matches('&')), &names, &fields);
    assert_eq!(value_of(&seen.target, "X-Amz-Signature"), signature, "{}", seen.target);
}

/// Fails unless AWS would take what goes on of it, over both protocols.
async fn assert_goes_on(stage: &Signing, method: &str, url: &str, fields: &[(&str, &str)]) {
    for reply in answers(stage, method, url, fields).await {
        assert_eq!(reply.status, 200, "{url}: {}", reply.text());
    }
    let seen = stage.upstream.seen();
    assert_eq!(seen.len(), 2, "{url}");
    seen.iter().for_each(|seen| assert_taken(stage, seen, url));
    stage.upstream.forget();
}

#[tokio::test]
async fn each_parameter_is_there_once_and_spelled_as_aws_does() {
    let stage = Signing::new().await;
    let signer = stage.signer().await;
    let good = signer.parameters("60");
    let url = |parameters: &Parameters| signer.presign_with(("GET", "api.test", "/a"), parameters, &[]);
    assert_eq!(answers(&stage, "GET", &url(&good), &[]).await.map(|reply| reply.status), [200, 200]);
    stage.upstream.forget();
    for (index, (name, value)) in good.iter().enumerate() {
        let inserted = |at: usize, name: &str, value: &str| {
            let mut more = good.clone();
            more.insert(at, (name.to_owned(), value.to_owned()));
            url(&more)
        };
        let renamed = |other: &str| {
            let mut renamed = good.clone();
            renamed[index].0 = other.to_owned();
            url(&renamed)
        };
        let mut without = good.clone();
        without.remove(index);
        for bad in [
            inserted(index + 1, name, value),
            inserted(0, name, "x"),
            inserted(index + 1, name, ""),
            inserted(good.len(), &name.to_lowercase(), value),
            inserted(good.len(), &name.to_uppercase(), value),
            inserted(good.len(), &name.replace('-', "_"), value),
            inserted(good.len(), &name.replace('-', "%2D"), value),
            inserted(good.len(), &format!("{name}%20"), value),
            inserted(good.len(), &format!("+{name}"), value),
            inserted(good.len(), &format!("a=1;{name}"), value),
            renamed(&name.to_lowercase()),
            renamed(&name.replace("Amz", "%41mz")),
            url(&without),
        ] {
            assert_refused(&stage, &bad, &[], "signature_refused").await;
        }
    }
}

#[tokio::test]
async fn what_a_parameter_says_is_read_in_one_form() {
    let stage = Signing::new().await;
    let (signer, other) = (stage.signer().await, stage.signer().await);
    let (scope, nonce) = (signer.scope(), signer.token.clone().expect("a nonce"));
    let good = signer.parameters("60");
    let credentials = [
        format!("{}/{scope}", other.id),
        format!("{nonce}/{scope}"),
        format!("{}/{scope}/x", signer.id),
        format!("{}//{scope}", signer.id),
        format!("{}/{scope}%2F", signer.id),
        format!("{}%252F{scope}", signer.id),
        format!("%20{}/{scope}", signer.id),
        scope.clone(),
        "%FF".to_owned(),
    ];
    let credentials = credentials.iter().map(|text| ("X-Amz-Credential", &**text, "signature_refused"));
    let others = other.token.as_deref().expect("a nonce");
    for (name, value, code) in credentials.chain([
        ("X-Amz-Expires", "0", "signature_refused"),
        ("X-Amz-Expires", "-1", "signature_refused"),
        ("X-Amz-Expires", "604801", "signature_refused"),
        ("X-Amz-Expires", "99999999999999999999", "signature_refused"),
        ("X-Amz-Expires", "", "signature_refused"),
        ("X-Amz-Expires", "%2060", "signature_refused"),
        ("X-Amz-Expires", "60%20", "signature_refused"),
        ("X-Amz-Expires", "%2B60", "signature_refused"),
        ("X-Amz-Expires", "+60", "signature_refused"),
        ("X-Amz-Expires", "060", "signature_refused"),
        ("X-Amz-Expires", "6e1", "signature_refused"),
        ("X-Amz-Expires", "60.0", "signature_refused"),
        ("X-Amz-Algorithm", "", "signature_refused"),
        ("X-Amz-Algorithm", "aws4-hmac-sha256", "signature_refused"),
        ("X-Amz-Algorithm", "AWS4-HMAC-SHA256%20", "signature_refused"),
        ("X-Amz-Algorithm", "AWS4-HMAC-SHA1", "signature_refused"),
        ("X-Amz-Algorithm", "AWS4-ECDSA-P256-SHA256", "signature_refused"),
        ("X-Amz-SignedHeaders", "", "signature_refused"),
        ("X-Amz-SignedHeaders", "x-amz-date", "signature_refused"),
        ("X-Amz-SignedHeaders", "range", "signature_refused"),
        ("X-Amz-SignedHeaders", "Host", "signature_refused"),
        ("X-Amz-SignedHeaders", "host%3Bhost", "signature_refused"),
        ("X-Amz-SignedHeaders", "host%3B", "signature_refused"),
        ("X-Amz-SignedHeaders", "%3Bhost", "signature_refused"),
        ("X-Amz-SignedHeaders", "host%2Crange", "signature_refused"),
        ("X-Amz-SignedHeaders", "host%3Bx-amz-acl", "signature_refused"),
        ("X-Amz-SignedHeaders", "range%3Bhost", "signature_refused"),
        ("X-Amz-Security-Token", others, "signature_refused"),
        ("X-Amz-Security-Token", "", "foreign_credential"),
        ("X-Amz-Security-Token", "FwoGZXIvYXdzEBYaDA", "foreign_credential"),
    ]) {
        let url =
            signer.presign_with(("GET", "api.test", "/a"), &with_value(&good, name, value), &[("range", "bytes=0-1")]);
        assert_refused(&stage, &url, &[("range", "bytes=0-1")], code).await;
    }
    let url = signer.presign("GET", "api.test", "/a", 60);
    let (unsigned, signature) = url.rsplit_once('=').expect("a signature");
    for bad in
        [String::new(), signature.to_uppercase(), signature[1..].to_owned(), format!("{signature}0")].into_iter().chain(
            [format!("{signature}%20"), format!("%20{signature}"), format!("{signature},{signature}"), "0".repeat(64)],
        )
    {
        assert_refused(&stage, &format!("{unsigned}={bad}"), &[], "signature_refused").await;
    }
}

#[tokio::test]
async fn a_url_of_another_time_region_or_service_is_refused() {
    let stage = Signing::new().await;
    let signer = stage.signer().await;
    for (seconds, expires) in [(-70, "60"), (-604_900, "604800"), (960, "60"), (86_400, "604800"), (-86_500, "86400")] {
        let of_then = Signer { date: moment(seconds), ..signer.clone() };
        let url = of_then.presign_with(("GET", "api.test", "/a"), &of_then.parameters(expires), &[]);
        assert_refused(&stage, &url, &[], "signature_refused").await;
    }
    let now = moment(0);
    for date in [
        now.trim_end_matches('Z').to_owned(),
        now.to_lowercase(),
        now.replace('T', " "),
        format!("{now} "),
        format!("{now}0"),
        format!("{}T240000Z", &now[..8]),
        format!("{}T235960Z", &now[..8]),
        "20260230T000000Z".to_owned(),
        "99991231T235959Z".to_owned(),
        "00000000T000000Z".to_owned(),
        "Mon, 23 Nov 2026 08:00:00 GMT".to_owned(),
    ] {
        let of_then = Signer { date, ..signer.clone() };
        let url = of_then.presign_with(("GET", "api.test", "/a"), &of_then.parameters("604800"), &[]);
        assert_refused(&stage, &url, &[], "signature_refused").await;
    }
    for (region, service) in
        [("us-east-1", "s3"), ("eu-west-1", "sts"), ("eu-west-1", "S3"), ("eu-west-1", ""), ("*", "s3"), ("", "s3")]
    {
        let elsewhere = Signer { region: region.to_owned(), service: service.to_owned(), ..signer.clone() };
        let url = elsewhere.presign("GET", "api.test", "/a", 60);
        assert_refused(&stage, &url, &[], "signature_refused").await;
    }
    for host in ["other.test", "api.test.", "", "api.test:8443"] {
        assert_refused(&stage, &signer.presign("GET", host, "/a", 60), &[], "signature_refused").await;
    }
}

#[tokio::test]
async fn nothing_is_added_to_a_url_after_it_was_signed() {
    let stage = Signing::new().await;
    let signer = stage.signer().await;
    let url = signer.presign("GET", "api.test", "/a?x=a%20b&y=1%262", 60);
    for (from, to) in [
        ("/a?", "/a?acl&"),
        ("&X-Amz-Signature", "&x-amz-acl=public-read&X-Amz-Signature"),
        ("x=a%20b", "x=a+b"),
        ("x=a%20b", "x=a%2520b"),
        ("x=a%20b", "x=a%00b"),
        ("x=a%20b", "X=a%20b"),
        ("x=a%20b&", ""),
        ("x=a%20b", "x=a%20b&x=a%20b"),
        ("y=1%262", "y=1&2"),
        ("y=1%262", "y=1%2526"),
        ("/a?", "/A?"),
        ("/a?", "/%2561?"),
        ("/a?", "/a/?"),
        ("/a?", "//a?"),
        ("/a?", "/b/../a?"),
    ] {
        let bad = url.replacen(from, to, 1);
        assert_ne!(bad, url);
        for reply in answers(&stage, "GET", &bad, &[]).await {
            assert!(reply.refusal().is_some() && stage.upstream.seen().is_empty(), "{bad}: {}", reply.status);
        }
    }
    let token = signer.token.as_deref().expect("a nonce");
    for (name, value) in [
        ("x-amz-acl", "public-read"),
        ("x_amz_acl", "public-read"),
        ("x-amz-security-token", token),
        ("x-amz-security_token", token),
        ("x-amz-date", &signer.date),
        ("authorization", &format!("Bearer {token}")),
        ("authorization", ""),
        ("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
        ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
    ] {
        for reply in answers(&stage, "GET", &url, &[(name, value)]).await {
            assert!(reply.refusal().is_some() && stage.upstream.seen().is_empty(), "{name}: {}", reply.status);
        }
    }
    // Both forms, and both signed right.
    for (name, value) in [("x-amz-date", &*signer.date), ("x-amz-security-token", token)] {
        let names = format!("host%3B{name}");
        let parameters = with_value(&signer.parameters("60"), "X-Amz-SignedHeaders", &names);
        let url = signer.presign_with(("GET", "api.test", "/a"), &parameters, &[(name, value)]);
        for reply in answers(&stage, "GET", &url, &[(name, value)]).await {
            assert!(reply.refusal().is_some() && stage.upstream.seen().is_empty(), "{name}: {}", reply.status);
        }
    }
}

#[tokio::test]
async fn a_query_in_any_spelling_goes_on_as_it_came_and_is_signed_as_aws_reads_it() {
    let stage = Signing::new().await;
    let signer = stage.signer().await;
    let good = signer.parameters("604800");
    for target in [
        "/a",
        "/a%20b/~c%e1%88%b4",
        "/a:b@c/",
        "/a?b=2&a=1",
        "/a?acl&b=&=c",
        "/a?a=2&a=1&a=10&a-b=1",
        "/a?B=1&a=2&A=3",
        "/a?&&x=1&&",
        "/a?x=%7e%2f%2F%20%25",
        "/a?x=%2520%2500",
        "/a?x=a=b=c",
        "/a?x-amz-acl=private&X-Amz-Meta-A=1",
        "/a?x=X-Amz-Date%3D1",
    ] {
        let url = signer.presign_with(("GET", "api.test", target), &good, &[]);
        let signature = url.rsplit_once('&').expect("a signature").1;
        let behind = url.replacen("X-Amz-Algorithm", &format!("{signature}&X-Amz-Algorithm"), 1);
        let (behind, _) = behind.rsplit_once('&').expect("a signature");
        for url in [&*url, behind] {
            assert_goes_on(&stage, "GET", url, &[]).await;
        }
    }
    let plain = with_value(&good, "X-Amz-Credential", &format!("{}/{}", signer.id, signer.scope()));
    let named = with_value(&good, "X-Amz-SignedHeaders", "host%3Bif-match%3Bx-amz-acl");
    let fields = [("if-match", "\"e\""), ("x-amz-acl", "private")];
    for (parameters, fields) in [(plain, &[][..]), (named, &fields[..])] {
        let url = signer.presign_with(("PUT", "api.test", "/a"), &parameters, fields);
        assert_goes_on(&stage, "PUT", &url, fields).await;
    }
}
