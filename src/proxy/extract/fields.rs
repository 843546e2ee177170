//! Header fields: what ends at a proxy, what may not pass it, what two parties could read differently.

use std::borrow::Cow;

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Version, request};
use percent_encoding::percent_decode_str;

use super::lift::Lifted;
use crate::model::{Ambiguity, Denial};
use crate::policy::Target;

/// Fields that end at each hop (RFC 9110, 7.6.1), and what is said to proxies alone.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authorization"
            | "proxy-authenticate"
            | "te"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
            | "trailer"
    )
}

/// What proxies add and origins believe; an agent has no business saying it.
fn is_forwarding(name: &str) -> bool {
    matches!(
        name,
        "forwarded"
            | "via"
            | "proxy"
            | "x-host"
            | "x-http-host-override"
            | "x-real-ip"
            | "x-client-ip"
            | "x-cluster-client-ip"
            | "x-proxyuser-ip"
            | "x-remote-user"
            | "x-remote-addr"
            | "x-envoy-original-path"
            | "client-ip"
            | "true-client-ip"
            | "cf-connecting-ip"
            | "remote-user"
            | "front-end-https"
    ) || FORWARDING_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// How whole families of those begin.
const FORWARDING_PREFIXES: [&str; 4] = ["proxy-", "x-forwarded", "x-original-", "x-rewrite-"];

/// Fields that say how a message is to be read or routed, which nothing after a body may (RFC 9110, 6.5.1).
const OF_A_HEAD: [&str; 10] = [
    "host",
    "content-length",
    "content-encoding",
    "content-type",
    "content-range",
    "expect",
    "range",
    "if-range",
    "set-cookie",
    "max-forwards",
];

/// Fields that turn one method into another behind our back.
fn is_method_override(name: &str) -> bool {
    matches!(name, "x-http-method-override" | "x-http-method" | "x-method-override")
}

/// Fields in which credentials travel; beside or instead of a nonce they are somebody else's. True for their names.
pub fn is_credential(name: &str) -> bool {
    matches!(
        &*with_dashes(name),
        "authorization"
            | "cookie"
            | "x-api-key"
            | "api-key"
            | "apikey"
            | "x-access-token"
            | "x-auth-token"
            | "x-amz-security-token"
            | "x-goog-api-key"
            | "x-goog-iam-authorization-token"
            | "x-csrf-token"
            | "private-token"
            | "job-token"
            | "x-vault-token"
    )
}

/// Fields that are added to a request on its way, about: room for them, so that its map is made once.
const FIELDS_ADDED: usize = 2;

/// Query parameters in which credentials and signatures travel, in lower case.
const CREDENTIAL_PARAMETERS: [&str; 14] = [
    "access_token",
    "api_key",
    "apikey",
    "api-key",
    "auth_token",
    "awsaccesskeyid",
    "client_secret",
    "private_token",
    "sig",
    "token",
    "x-amz-credential",
    "x-amz-security-token",
    "x-amz-signature",
    "x-goog-signature",
];

/// How subprotocols begin in which credentials travel: a web page can say nothing else in a WebSocket's handshake.
const CREDENTIAL_PROTOCOLS: [&str; 5] =
    ["base64url.bearer.", "bearer.", "openai-insecure-api-key.", "openai-ephemeral-user-api-key.", "header-"];

/// One unambiguous framing (RFC 9112, 6): hyper has refused or dropped the worst, the rest is refused here.
pub fn check_framing(head: &request::Parts) -> Result<(), Denial> {
    let is_clear = is_framing_clear(&head.headers, head.version);
    if is_clear { Ok(()) } else { Err(Denial::RequestAmbiguous(Ambiguity::Framing)) }
}

/// Whether every reader sees the same end of the body.
pub fn is_framing_clear(headers: &HeaderMap, version: Version) -> bool {
    let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let encoding = encodings.next();
    if let Some(value) = encoding {
        let is_chunked = value.as_bytes().eq_ignore_ascii_case(b"chunked");
        if !is_chunked || encodings.next().is_some() || version == Version::HTTP_10 {
            return false;
        }
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(value) = lengths.next() else { return true };
    let digits = value.as_bytes();
    let is_plain = !digits.is_empty()
        && digits.iter().all(u8::is_ascii_digit)
        && (digits == b"0" || digits[0] != b'0')
        && digits.len() <= 19;
    is_plain && lengths.next().is_none() && encoding.is_none()
}

/// `Expect` may say `100-continue`, once (RFC 9110, 10.1.1); what else it could say, nobody defines.
pub fn check_expectation(headers: &HeaderMap) -> Result<(), Denial> {
    let mut values = headers.get_all(header::EXPECT).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(()),
        (Some(value), None) if value.as_bytes().eq_ignore_ascii_case(b"100-continue") => Ok(()),
        (Some(_), _) => Err(Denial::ExpectationFailed),
    }
}

/// Takes out what ends here, in a new map, so that the order of the rest is kept.
///
/// `Host` says what was judged from here on, in its place: `host`, or nothing.
pub fn strip(mut headers: HeaderMap, host: Option<&HeaderValue>) -> Result<HeaderMap, Denial> {
    check_connection_options(&headers)?;
    let goes_on = |name: &HeaderName| if name == header::HOST { host.is_some() } else { goes_on(name) };
    if let (Some(host), Some(said)) = (host, headers.get_mut(header::HOST)) {
        *said = host.clone();
    }
    // As nearly always.
    if headers.keys().all(goes_on) {
        return Ok(headers);
    }
    // Said anew for the next leg: trailers go through.
    let wants_trailers =
        headers.get_all(header::TE).iter().any(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers"));
    let mut kept = HeaderMap::with_capacity(headers.len() + FIELDS_ADDED);
    let mut last = None;
    for (name, value) in headers {
        // A repeated name comes only once out of the map.
        let name = match (name, &last) {
            (Some(name), _) => name,
            (None, Some(last)) => HeaderName::clone(last),
            (None, None) => continue,
        };
        last = Some(name.clone());
        if is_method_override(&with_dashes(name.as_str())) {
            return Err(Denial::RequestAmbiguous(Ambiguity::MethodOverride));
        }
        if goes_on(&name) {
            kept.append(name, value);
        }
    }
    if wants_trailers {
        kept.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    Ok(kept)
}

/// True for a field that is neither taken out nor refused.
fn goes_on(name: &HeaderName) -> bool {
    let dashed = with_dashes(name.as_str());
    !is_method_override(&dashed) && !is_stripped(name.as_str(), &dashed)
}

/// A field's name as servers see it that hand fields on as CGI does (RFC 3875, 4.1.18), where `_` and `-` are one.
fn with_dashes(name: &str) -> Cow<'_, str> {
    // Names are too short for a search by leaps to pay.
    if name.as_bytes().contains(&b'_') { name.replace('_', "-").into() } else { name.into() }
}

/// Two names that are one field to such a server.
pub fn is_twin(name: &HeaderName, other: &HeaderName) -> bool {
    name != other && with_dashes(name.as_str()) == with_dashes(other.as_str())
}

/// `dashed` is the name as [`with_dashes`] gives it.
fn is_stripped(name: &str, dashed: &str) -> bool {
    let says_how_to_read = || dashed == header::CONTENT_LENGTH.as_str() || dashed.starts_with("sec-websocket-");
    is_hop_by_hop(dashed) || is_forwarding(dashed) || (name != dashed && says_how_to_read())
}

fn is_credential_protocol(protocol: &[u8]) -> bool {
    let protocol = protocol.trim_ascii().to_ascii_lowercase();
    CREDENTIAL_PROTOCOLS.iter().any(|start| protocol.starts_with(start.as_bytes()))
}

/// True for a field that may stand after a body.
pub fn may_trail(name: &str) -> bool {
    let dashed = with_dashes(name);
    !is_stripped(name, &dashed) && !OF_A_HEAD.contains(&&*dashed) && !is_method_override(&dashed)
}

/// `Connection` may name hop-by-hop fields only: `Connection: authorization` is an attack.
fn check_connection_options(headers: &HeaderMap) -> Result<(), Denial> {
    let bad = Denial::RequestAmbiguous(Ambiguity::ConnectionOption);
    for value in headers.get_all(header::CONNECTION) {
        let Ok(value) = value.to_str() else { return Err(bad) };
        for option in value.split(',').map(str::trim).filter(|option| !option.is_empty()) {
            let option = option.to_ascii_lowercase();
            let is_known = option == "close" || is_hop_by_hop(&option) || option.starts_with("proxy-");
            if !is_known {
                return Err(bad);
            }
        }
    }
    Ok(())
}

/// On a listed host nothing credential-like goes out but ours, so that nobody's own key can carry our data away.
pub fn refuse_foreign(headers: &HeaderMap, target: &Target, lifted: Option<&Lifted>) -> Result<(), Denial> {
    let is_own = |name: &HeaderName| lifted.is_some_and(|lifted| lifted.fills(name));
    if headers.keys().any(|name| is_credential(name.as_str()) && !is_own(name)) {
        return Err(Denial::ForeignCredential);
    }
    let protocols = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    if protocols.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).any(is_credential_protocol) {
        return Err(Denial::ForeignCredential);
    }
    // Some frameworks separate parameters by `;` too, and all read `+` as a space.
    let Some(query) = target.query() else { return Ok(()) };
    if query.split(['&', ';']).any(is_credential_parameter) { Err(Denial::ForeignCredential) } else { Ok(()) }
}

fn is_credential_parameter(piece: &str) -> bool {
    let Some((name, value)) = piece.split_once('=') else { return false };
    let name = if name.contains('+') { Cow::Owned(name.replace('+', " ")) } else { Cow::Borrowed(name) };
    let name = percent_decode_str(&name).decode_utf8_lossy();
    let name = name.trim();
    !value.is_empty() && CREDENTIAL_PARAMETERS.iter().any(|known| known.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left_of(names: &[&'static str]) -> Result<Vec<String>, Denial> {
        let value = || HeaderValue::from_static("close");
        let headers = names.iter().map(|name| (HeaderName::from_static(name), value())).collect();
        Ok(strip(headers, None)?.keys().map(|name| name.as_str().to_owned()).collect())
    }

    #[test]
    fn the_host_that_was_judged_stands_where_one_was_said() {
        let judged = HeaderValue::from_static("api.test");
        for ends in [&[][..], &["via"]] {
            let names = [&["x-a", "host", "x-b"], ends].concat();
            let said = |name: &'static str| (HeaderName::from_static(name), HeaderValue::from_static("API.TEST:443"));
            let kept = strip(names.iter().copied().map(said).collect(), Some(&judged)).unwrap();
            assert_eq!(kept.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-a", "host", "x-b"]);
            assert_eq!(kept[header::HOST], judged);
        }
        let none = strip(HeaderMap::new(), Some(&judged)).unwrap();
        assert!(none.is_empty(), "HTTP/2 says it elsewhere");
    }

    #[test]
    fn one_field_that_ends_here_is_enough_to_be_taken_out() {
        let ends = ["host", "connection", "te", "upgrade", "via", "x-forwarded-for", "proxy_x", "content_length"];
        for name in ends {
            for names in [[name, "x-b", "x-a"], ["x-b", name, "x-a"], ["x-b", "x-a", name]] {
                assert_eq!(left_of(&names).unwrap(), ["x-b", "x-a"], "{names:?}");
            }
        }
        for name in ["x-http-method-override", "x_http_method"] {
            assert_eq!(left_of(&["x-b", name]), Err(Denial::RequestAmbiguous(Ambiguity::MethodOverride)), "{name}");
        }
        assert_eq!(left_of(&["x-b", "content-length", "accept"]).unwrap(), ["x-b", "content-length", "accept"]);
    }
}
