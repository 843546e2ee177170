//! Presigned URLs: what goes on is what came, signed by the other key; and nothing goes on that was not signed.

use http::{HeaderMap, HeaderValue};
use valetkey::policy::Target;
use valetkey::proxy::fuzzing::presigned_again;

use crate::signing::{AGENT, DATE, HOST, REAL, Signer, TOKEN, decoded, encoded, now, sha_256};

/// The parameters of a signature as clients write them; `$C`, `$D`, `$T` and `$S` stand for what is right there.
const PLAIN: &str = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=$C&X-Amz-Date=$D&X-Amz-Expires=60\
                     &X-Amz-Security-Token=$T&X-Amz-SignedHeaders=host&X-Amz-Signature=$S";
/// What is the key's own.
const OF_KEY: [&str; 3] = ["X-Amz-Credential", "X-Amz-Security-Token", "X-Amz-Signature"];
/// Longest time that a URL is good for, in seconds.
const EXPIRES_MAX: u64 = 7 * 24 * 60 * 60;

/// An input is a byte (service, fields) and a target in which `$P` stands for all that a client writes, or its parts for
/// themselves; the signature is right over whatever becomes of it.
///
/// # Panics
/// Where that does not hold.
pub fn presigned(data: &[u8]) {
    let Some((&choice, text)) = data.split_first() else { return };
    let Ok(template) = std::str::from_utf8(text) else { return };
    let service = if choice & 1 == 0 { "s3" } else { "es" };
    let headers = if choice & 2 == 0 { HeaderMap::new() } else { fields() };
    let template = template.replacen("$P", PLAIN, 1);
    let credential = encoded(format!("{}/{}", AGENT.id, Signer::scope(service)).as_bytes());
    let said = template.replace("$C", &credential).replace("$D", DATE).replace("$T", TOKEN);
    let sent = said.replacen("$S", &signature(AGENT, service, &said, &headers), 1);
    let keys = (&AGENT.stand_in(), &REAL.pair(), now());
    match presigned_again(HOST, &sent, &headers, keys) {
        Ok(Some(out)) => judge(&sent, &out, service, &headers),
        Ok(None) => assert!(!is_plain(&template), "{sent:?} has a signature"),
        Err(denial) => assert!(!is_plain(&template) || choice & 2 != 0, "{sent:?}: {denial:?}"),
    }
}

/// True for a template that has to go through: the parameters as they should be, and nothing that could be one beside them.
fn is_plain(template: &str) -> bool {
    let (Some((before, after)), Ok(_)) = (template.split_once(PLAIN), Target::parse(template)) else { return false };
    let others = [decoded(before), b" ".to_vec(), decoded(after)].concat().to_ascii_lowercase();
    let is_of_aws = |name: &[u8]| others.windows(name.len()).any(|window| window == name);
    let begins = before.ends_with('&') || before.find('?') == before.len().checked_sub(1);
    let stands_alone = begins && (after.is_empty() || after.starts_with('&'));
    stands_alone && before.contains('?') && !others.contains(&b'$') && !is_of_aws(b"amz") && !is_of_aws(b"aws")
}

fn judge(sent: &str, out: &str, service: &str, headers: &HeaderMap) {
    let is_of_key = |piece: &&str| OF_KEY.iter().any(|name| name_of(piece) == *name);
    let others = |url: &'_ str| pieces(url).filter(|piece| !is_of_key(piece)).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(path(out), path(sent), "the path goes on as it came");
    assert_eq!(others(out), others(sent), "all but the key's own goes on as it came");
    for name in ["X-Amz-Algorithm", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders"].iter().chain(&OF_KEY) {
        let is_it = |piece: &&str| decoded(name_of(piece)).eq_ignore_ascii_case(name.as_bytes());
        assert_eq!(pieces(sent).filter(is_it).count(), 1, "{name} of {sent:?}");
        assert_eq!(value(sent, name).is_some(), value(out, name).is_some(), "{name} of {out:?}");
    }
    let expires = value(sent, "X-Amz-Expires").and_then(|text| String::from_utf8(text).ok()?.parse().ok());
    assert!(expires.is_some_and(|seconds: u64| (1..=EXPIRES_MAX).contains(&seconds)), "{sent:?}");
    let scope = Signer::scope(service);
    let is_signed = |url: &str, by: Signer| {
        assert_eq!(value(url, "X-Amz-Credential"), Some(format!("{}/{scope}", by.id).into_bytes()), "{url:?}");
        // Which nonce it is, is looked at elsewhere.
        let token = value(url, "X-Amz-Security-Token");
        assert!(by.id == AGENT.id || token.as_deref() == by.token.map(str::as_bytes), "{url:?}");
        let signature = signature(by, service, url, headers);
        assert_eq!(value(url, "X-Amz-Signature"), Some(signature.into_bytes()), "{url:?} is not signed by {}", by.id);
    };
    is_signed(sent, AGENT);
    is_signed(out, REAL);
    let back = presigned_again(HOST, out, headers, (&REAL.stand_in(), &AGENT.pair(), now()));
    assert!(matches!(back, Ok(Some(_))), "{out:?} is no signed URL: {back:?}");
}

/// Field and value, or nothing, of which a signature may be.
fn fields() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("x-amz-acl", HeaderValue::from_static("private"));
    headers.insert("if-match", HeaderValue::from_static("\"e\""));
    headers
}

fn path(url: &str) -> &str {
    url.split('?').next().unwrap_or_default()
}

fn pieces(url: &str) -> impl Iterator<Item = &str> {
    url.split_once('?').map_or("", |(_, query)| query).split('&')
}

fn name_of(piece: &str) -> &str {
    piece.split('=').next().unwrap_or_default()
}

/// What a parameter says.
fn value(url: &str, name: &str) -> Option<Vec<u8>> {
    pieces(url).find_map(|piece| piece.strip_prefix(name)?.strip_prefix('=')).map(decoded)
}

/// The signature over a URL, whatever stands for it there.
fn signature(by: Signer, service: &str, url: &str, headers: &HeaderMap) -> String {
    let names = value(url, "X-Amz-SignedHeaders").and_then(|names| String::from_utf8(names).ok()).unwrap_or_default();
    let field = |name: &str| match name {
        "host" => HOST,
        _ => headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default(),
    };
    let lines: String = names.split(';').map(|name| format!("{name}:{}\n", field(name))).collect();
    let signed = pieces(url).filter(|piece| name_of(piece) != "X-Amz-Signature" && !piece.is_empty());
    let mut pairs: Vec<(String, String)> = signed
        .map(|piece| piece.split_once('=').unwrap_or((piece, "")))
        .map(|(name, value)| (encoded(&decoded(name)), encoded(&decoded(value))))
        .collect();
    pairs.sort_unstable();
    let query: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    // S3 takes a slash in escapes for a slash.
    let plain = if service == "s3" { decoded(path(url)) } else { path(url).as_bytes().to_vec() };
    let path: Vec<String> = plain.split(|byte| *byte == b'/').map(encoded).collect();
    let payload = if service == "s3" { "UNSIGNED-PAYLOAD".to_owned() } else { sha_256(b"") };
    let canonical = format!("GET\n{}\n{}\n{lines}\n{names}\n{payload}", path.join("/"), query.join("&"));
    by.sign_request(service, &canonical)
}
