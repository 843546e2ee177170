use http::{HeaderName, HeaderValue, Method};
use jiff::Timestamp;

use super::*;
use crate::lease::StandIn;
use crate::model::Scheme;
use crate::model::key_pair::KeyPair;
use crate::proxy::sigv4::{Again, Placed};

/// The example of AWS's documentation, with its well-known key.
const ID: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const SIGNATURE: &str = "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";
const PUBLISHED: &str = "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256\
    &X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request\
    &X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host\
    &X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";
/// Within its day.
const NOON: &str = "2013-05-24T12:00:00Z";

fn line(target: &str) -> Line<'_> {
    Line { method: &Method::GET, host: "examplebucket.s3.amazonaws.com", target }
}

fn fields(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}

fn read_with(text: &str, headers: &HeaderMap) -> Result<Signed, Denial> {
    let target = Target::parse(text).unwrap();
    Signed::read_query(headers, line(text), &Parameters::find(&target)?.unwrap())
}

fn read(text: &str) -> Result<Signed, Denial> {
    read_with(text, &HeaderMap::new())
}

fn verify(text: &str, now: &str) -> Result<Signed, Denial> {
    let pair = StandIn { access_key_id: ID.to_owned(), secret: Zeroizing::new(SECRET.to_owned()) };
    let now: Timestamp = now.parse().unwrap();
    let mut signed = read(text)?;
    signed.verify(&pair, None, (Scheme::Https, now))?;
    Ok(signed)
}

fn again(signed: &Signed, session_token: Option<&str>, headers: &HeaderMap) -> String {
    let pair = KeyPair { access_key_id: ID, secret: SECRET, session_token };
    let target = signed.rest().unwrap().as_str();
    let Again { placed, signature, chunks } = signed.sign_again(&pair, headers, line(target)).ok().unwrap();
    let Placed::Target(text) = placed else { panic!("in a field") };
    assert!(text.contains(&signature) && chunks.is_none());
    text.to_string()
}

fn fault<T>(result: Result<T, Denial>) -> Option<SignatureFault> {
    if let Denial::SignatureRefused(fault) = result.err()? { Some(fault) } else { None }
}

#[test]
fn the_published_url_is_verified_and_made() {
    let signed = verify(PUBLISHED, NOON).unwrap();
    assert_eq!(signed.rest().unwrap().as_str(), "/test.txt");
    assert_eq!(again(&signed, None, &HeaderMap::new()), PUBLISHED);
}

#[test]
fn it_is_good_for_its_time_and_no_longer() {
    for (now, wanted) in [
        ("2013-05-24T00:00:00Z", None),
        ("2013-05-25T00:00:00Z", None),
        ("2013-05-25T00:00:01Z", Some(SignatureFault::Expired)),
        ("2014-05-25T00:00:00Z", Some(SignatureFault::Expired)),
        ("2013-05-23T23:45:00Z", None),
        ("2013-05-23T23:44:59Z", Some(SignatureFault::Stale)),
    ] {
        assert_eq!(fault(verify(PUBLISHED, now)), wanted, "{now}");
    }
    for (text, is_one) in [("1", true), ("604800", true), ("604801", false), ("0", false), ("", false), ("+1", false)]
        .into_iter()
        .chain([("01", false), ("1 ", false), ("-1", false), ("18446744073709551617", false)])
    {
        assert_eq!(expires(text).is_some(), is_one, "{text}");
    }
}

#[test]
fn everything_else_stays_where_it_is() {
    let text = "/a%2fb?x=1%2f&X-Amz-Signature=S&&X-Amz-Security-Token=an_x&y&X-Amz-SignedHeaders=host%3Brange&\
                X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=A/20130524/r/s3/aws4_request&z=+;&X-Amz-Expires=9&\
                X-Amz-Date=20130524T000000Z";
    let text = text.replace("Signature=S", &format!("Signature={SIGNATURE}"));
    let headers = fields(&[("range", "bytes=0-9")]);
    let signed = read_with(&text, &headers).unwrap();
    assert_eq!(signed.rest().unwrap().as_str(), "/a%2fb?x=1%2f&&y&z=+;");
    let signature = |text: &str| text.split("X-Amz-Signature=").nth(1).unwrap()[..64].to_owned();
    let out = again(&signed, Some("a/token+of=16bytes"), &headers);
    let wanted = text
        .replace("Credential=A/", &format!("Credential={ID}/"))
        .replace(&format!("{ID}/20130524/r/s3/"), &format!("{ID}%2F20130524%2Fr%2Fs3%2F"))
        .replace("an_x", "a%2Ftoken%2Bof%3D16bytes");
    assert_eq!(out, wanted.replace(SIGNATURE, &signature(&out)));
    let without = again(&signed, None, &HeaderMap::new());
    let wanted = out.replace("&X-Amz-Security-Token=a%2Ftoken%2Bof%3D16bytes", "").replace("host%3Brange", "host");
    assert_eq!(without, wanted.replace(&signature(&out), &signature(&without)), "no token, and no field that has gone");
    assert!(verify(&without, "2013-05-24T00:00:05Z").is_ok(), "and what comes out is a signature");
}

#[test]
fn what_others_could_read_otherwise_is_refused() {
    for (from, to) in [
        ("X-Amz-Date=", "x-amz-date="),
        ("X-Amz-Date=", "X-Amz-Dat%65="),
        ("X-Amz-Date=", "X_Amz_Date="),
        ("X-Amz-Date=20130524T000000Z", "X-Amz-Date"),
        ("X-Amz-Date=20130524T000000Z", "a=1"),
        ("X-Amz-Date=", "a=1;X-Amz-Date="),
        ("&X-Amz-Date=", "&X-Amz-Date=20130524T000000Z&X-Amz-Date="),
        ("&X-Amz-Date=", "&+x-amz-date=1&X-Amz-Date="),
        ("&X-Amz-Date=", "&a;X-Amz-Signature=1&X-Amz-Date="),
        ("X-Amz-Date=2013", "X-Amz-Date=2014"),
        ("X-Amz-Date=2013", "X-Amz-Date=%FF2013"),
        ("20130524T0", "20130524t0"),
        ("X-Amz-Expires=86400", "X-Amz-Expires=604801"),
        ("X-Amz-SignedHeaders=host", "X-Amz-SignedHeaders="),
        ("X-Amz-Signature=a", "X-Amz-Signature=A"),
        ("%2Fus-east-1", ""),
        ("%2Fus-east-1", "%252Fus-east-1"),
        ("AKIA", "AKIA+"),
    ] {
        let bad = PUBLISHED.replacen(from, to, 1);
        assert_ne!(bad, PUBLISHED);
        assert_eq!(fault(verify(&bad, NOON)), Some(SignatureFault::Malformed), "{bad}");
    }
    for (from, to, wanted) in [
        ("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256", SignatureFault::Unsupported),
        ("X-Amz-Algorithm=AWS4-HMAC-SHA256", "AWSAccessKeyId=A&X-Amz-Date=1", SignatureFault::Unsupported),
        ("X-Amz-Expires", "X-Amz-Content-Sha256=00&X-Amz-Expires", SignatureFault::Unsupported),
        (
            "X-Amz-Expires",
            "x-amz-content-sha256=UNSIGNED-PAYLOAD&X-Amz-Content-Sha256=0&X-Amz-Expires",
            SignatureFault::Unsupported,
        ),
        ("X-Amz-Expires", "x-amz-copy-source=%2Fb%2Fc&X-Amz-Expires", SignatureFault::CopySource),
        ("X-Amz-Expires", "X-Amz-Copy%2dSource-Range=1&X-Amz-Expires", SignatureFault::CopySource),
        ("SignedHeaders=host", "SignedHeaders=range", SignatureFault::NotSigned),
        ("SignedHeaders=host", "SignedHeaders=host%3Brange", SignatureFault::NotSigned),
        ("test.txt", "tesT.txt", SignatureFault::Mismatch),
        ("86400", "86401", SignatureFault::Mismatch),
        ("X-Amz-Expires", "a=1&X-Amz-Expires", SignatureFault::Mismatch),
        ("X-Amz-Expires", "X-Amz-Content-Sha256=UNSIGNED-PAYLOAD&X-Amz-Expires", SignatureFault::Mismatch),
        ("AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLF", SignatureFault::Mismatch),
        ("aeeed9", "aeeed8", SignatureFault::Mismatch),
    ] {
        let bad = PUBLISHED.replacen(from, to, 1);
        assert_eq!(fault(verify(&bad, NOON)), Some(wanted), "{bad}");
    }
    for present in ["authorization", "x-amz-date", "x-amz-security-token"] {
        let both = read_with(PUBLISHED, &fields(&[(present, "x")]));
        assert_eq!(fault(both), Some(SignatureFault::Malformed), "{present}");
    }
    for (name, value, wanted) in [
        ("x-amz-acl", "public-read", SignatureFault::NotSigned),
        ("x_amz_acl", "public-read", SignatureFault::NotSigned),
        ("x-amz-copy-source", "/b/c", SignatureFault::CopySource),
        ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", SignatureFault::Unsupported),
    ] {
        assert_eq!(fault(read_with(PUBLISHED, &fields(&[(name, value)]))), Some(wanted), "{name}");
    }
}

#[test]
fn the_body_is_signed_where_it_is_not_s3s() {
    assert!(!read(PUBLISHED).unwrap().looks_at_body());
    assert!(read(&PUBLISHED.replace("%2Fs3%2F", "%2Fsts%2F")).unwrap().looks_at_body());
    let headers = fields(&[("x-amz-content-sha256", SIGNATURE)]);
    let named = PUBLISHED.replace("SignedHeaders=host", "SignedHeaders=host%3Bx-amz-content-sha256");
    assert!(read_with(&named, &headers).unwrap().looks_at_body(), "a hash that a field names");
}

#[test]
fn a_query_without_a_signature_is_none() {
    for text in ["/", "/?", "/a?x=1&X-Amz-Meta-A=1&Signature=x&Expires=1", "/X-Amz-Signature=1"] {
        assert!(Parameters::find(&Target::parse(text).unwrap()).unwrap().is_none(), "{text}");
    }
}
