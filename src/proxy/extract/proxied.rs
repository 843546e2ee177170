//! A nonce as the proxy's credentials (RFC 9110, 11.7.2): it speaks for a tunnel, or for one request in absolute form.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, header};

use super::lift::whole_nonce;
use crate::model::{Ambiguity, Denial, NonceHash, nonce};
use crate::policy::{Placeholder, Policy};

/// The hash of the nonce in `Proxy-Authorization`: the user or the password of `Basic`, or a `Bearer`, whole, plain or in
/// a placeholder form of any service. `None` for credentials of another kind, which some clients send to every proxy.
///
/// What holds a nonce and is not one is not passed over: its hash is nobody's.
///
/// # Errors
/// [`Denial::RequestAmbiguous`]: the field is there twice.
pub fn proxy_nonce(headers: &HeaderMap, policy: &Policy) -> Result<Option<NonceHash>, Denial> {
    let mut values = headers.get_all(header::PROXY_AUTHORIZATION).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        // Letters that look like a nonce come about by chance in a token, which is judged as a whole.
        (Some(value), None) if policy.proves_by_token() && is_jwt(value) => Ok(None),
        (Some(value), None) => Ok(hash(value, &policy.services().iter().filter_map(|s| s.placeholder.as_ref()))),
        (Some(_), Some(_)) => Err(Denial::RequestAmbiguous(Ambiguity::RepeatedHeader)),
    }
}

/// The token of a `Bearer` in `Proxy-Authorization`, as it is; `None` where something else, or nothing, came.
///
/// # Errors
/// [`Denial::RequestAmbiguous`]: the field is there twice.
pub fn proxy_token(headers: &HeaderMap) -> Result<Option<&str>, Denial> {
    let mut values = headers.get_all(header::PROXY_AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value,
        (Some(_), Some(_)) => return Err(Denial::RequestAmbiguous(Ambiguity::RepeatedHeader)),
    };
    let said = value.to_str().ok().and_then(|text| text.split_once(' '));
    Ok(said.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim()))
}

/// Three parts, of which the first is JSON in base64url: no nonce begins like that.
fn is_jwt(value: &HeaderValue) -> bool {
    match said(value) {
        Said::Token(token) => token.starts_with("eyJ") && token.bytes().filter(|b| *b == b'.').count() == 2,
        Said::Pair(_) | Said::Other(_) => false,
    }
}

fn hash<'p>(value: &HeaderValue, placeholders: &(impl Iterator<Item = &'p Placeholder> + Clone)) -> Option<NonceHash> {
    let text = said(value);
    let nonce_of = |part: &'_ str| whole_nonce(part, placeholders.clone()).map(|whole| NonceHash::of(whole.as_bytes()));
    let whole = match &text {
        Said::Token(token) => nonce_of(token),
        Said::Pair(pair) => match pair.split_once(':').map(|(user, password)| (nonce_of(user), nonce_of(password))) {
            Some((Some(one), Some(other))) => (one == other).then_some(one),
            Some((one, other)) => one.or(other),
            None => None,
        },
        Said::Other(_) => None,
    };
    // The hash of nothing is no nonce's.
    whole.or_else(|| nonce::find_all(text.bytes()).next().map(|_| NonceHash::of(b"")))
}

/// What stands in the field, by scheme.
enum Said {
    Token(String),
    Pair(String),
    Other(Vec<u8>),
}

impl Said {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Token(text) | Self::Pair(text) => text.as_bytes(),
            Self::Other(bytes) => bytes,
        }
    }
}

fn said(value: &HeaderValue) -> Said {
    match value.to_str().ok().and_then(|text| text.split_once(' ')) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => Said::Token(rest.trim().to_owned()),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("basic") => match STANDARD.decode(rest.trim()) {
            Ok(bytes) => String::from_utf8(bytes).map_or_else(|error| Said::Other(error.into_bytes()), Said::Pair),
            Err(_) => Said::Other(rest.as_bytes().to_vec()),
        },
        _ => Said::Other(value.as_bytes().to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "an_0000000000000000000000000000000AAAAAA";
    const NONCE: &str = "an_000000000000000000000000000aaaaaa";
    const OTHER: &str = "an_000000000000000000000000000bbbbbb";

    fn read(value: &str) -> Option<NonceHash> {
        let placeholder = Placeholder::parse("sk_test_{nonce}").unwrap();
        hash(&HeaderValue::from_str(value).unwrap(), &std::iter::once(&placeholder))
    }

    fn basic(pair: &str) -> Option<NonceHash> {
        read(&format!("Basic {}", STANDARD.encode(pair)))
    }

    #[test]
    fn a_whole_nonce_is_found_in_each_form() {
        let expected = Some(NonceHash::of(NONCE.as_bytes()));
        for pair in ["{}:", ":{}", "{}:x", "agent:{}", "{}:{}", "sk_test_{}:", "x:sk_test_{}", "sk_test_{}:{}"] {
            assert_eq!(basic(&pair.replace("{}", NONCE)), expected, "{pair}");
        }
        for field in ["Bearer {}", "bearer {}", "BEARER  {} ", "Bearer sk_test_{}"] {
            assert_eq!(read(&field.replace("{}", NONCE)), expected, "{field}");
        }
        assert_eq!(read(&format!("bAsIc  {}", STANDARD.encode(format!("{NONCE}:")))), expected);
    }

    #[test]
    fn a_token_is_told_from_a_nonce() {
        let is_jwt = |text: &str| super::is_jwt(&HeaderValue::from_str(text).unwrap());
        assert!(is_jwt("Bearer eyJhbGciOiJFUzI1NiJ9.e30.c2ln") && is_jwt(&format!("bearer eyJ.{NONCE}.x")));
        let basic = format!("Basic {}", STANDARD.encode(format!("eyJ.{NONCE}.x:")));
        for other in [&format!("Bearer {NONCE}"), "Bearer eyJ", "Bearer eyJ.a", "Bearer eyJ.a.b.c", "eyJ.a.b", &basic] {
            assert!(!is_jwt(other), "{other}");
        }
    }

    #[test]
    fn other_credentials_are_no_nonce() {
        for field in ["Basic", "Basic ", "Basic !!!", "Negotiate YII", "Bearer", "Bearer eyJ", "Digest username=\"x\""]
        {
            assert_eq!(read(field), None, "{field}");
        }
        assert_eq!((basic("corp\\user:secret"), basic("user"), basic("")), (None, None, None));
    }

    #[test]
    fn what_holds_a_nonce_and_is_none_is_an_unknown_one() {
        let known = NonceHash::of(NONCE.as_bytes());
        let unknown = |found: Option<NonceHash>| found.is_some_and(|found| found != known);
        for pair in ["{}", "x{}:", "user:x-{}", "xx_test_{}:"] {
            assert!(unknown(basic(&pair.replace("{}", NONCE))), "{pair}");
        }
        assert!(unknown(basic(&format!("{NONCE}:{OTHER}"))), "two nonces");
        assert!(
            unknown(read(NONCE))
                && unknown(read(&format!("Basic {NONCE}")))
                && unknown(read(&format!("Digest username=\"{NONCE}\"")))
        );
        assert!(unknown(basic("an_short:")) && unknown(basic(&format!("{A}:"))), "malformed");
    }

    #[test]
    fn bytes_that_are_no_text_do_not_hide_one() {
        let mut bytes = vec![0xff];
        bytes.extend_from_slice(NONCE.as_bytes());
        assert!(read(&format!("Basic {}", STANDARD.encode(&bytes))).is_some());
    }
}
