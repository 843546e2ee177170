//! What upstream is told that we can read.

use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderValue};

use super::envelopes::ACCEPT_MESSAGE_ENCODING;

/// Leaves in a request only what can be searched in its answer; fields keep their places.
pub fn narrow_accepted(request: &mut HeaderMap) {
    let narrowed = narrow_accept_encoding(request);
    request.insert(ACCEPT_ENCODING, narrowed);
    for name in ACCEPT_MESSAGE_ENCODING {
        // As text, and not as a key: hashing it costs more than a look at the few names' lengths.
        if request.keys().any(|known| known.as_str() == name.as_str()) {
            request.insert(name, HeaderValue::from_static("identity"));
        }
    }
}

/// The `Accept-Encoding` to send upstream: `gzip` if the client accepts it (by name or by `*`, with a weight above
/// zero), else `identity`. A client that sends no field is not known to decode anything (RFC 9110, 12.5.3).
fn narrow_accept_encoding(request: &HeaderMap) -> HeaderValue {
    let mut named = None;
    let mut any = false;
    for value in request.get_all(ACCEPT_ENCODING) {
        for item in value.as_bytes().split(|&byte| byte == b',') {
            let mut parts = item.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
            let coding = parts.next().unwrap_or_default();
            let accepted = !parts.any(is_weight_zero);
            if coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip") {
                named = Some(named.unwrap_or(false) || accepted);
            } else if coding == b"*" {
                any = accepted;
            }
        }
    }
    HeaderValue::from_static(if named.unwrap_or(any) { "gzip" } else { "identity" })
}

/// `q=0`, `q=0.0`, `q=0.00`, `q=0.000` (RFC 9110, 12.4.2).
fn is_weight_zero(parameter: &[u8]) -> bool {
    let Some(weight) = parameter.strip_prefix(b"q=").or_else(|| parameter.strip_prefix(b"Q=")) else { return false };
    !weight.is_empty() && weight.iter().all(|byte| matches!(byte, b'0' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstream_is_asked_for_gzip_or_nothing() {
        let cases: [(&[&str], &str); 14] = [
            (&[], "identity"),
            (&[""], "identity"),
            (&["gzip"], "gzip"),
            (&["GZip"], "gzip"),
            (&["x-gzip"], "gzip"),
            (&["gzip, deflate, br, zstd"], "gzip"),
            (&["br;q=1.0, gzip;q=0.8, *;q=0.1"], "gzip"),
            (&["deflate, br"], "identity"),
            (&["*"], "gzip"),
            (&["*;q=0"], "identity"),
            (&["gzip;q=0, *"], "identity"),
            (&["gzip ; q=0.000"], "identity"),
            (&["identity;q=0, *;Q=0.5"], "gzip"),
            (&["br", "gzip"], "gzip"),
        ];
        for (values, expected) in cases {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(ACCEPT_ENCODING, HeaderValue::from_str(value).unwrap());
            }
            assert_eq!(narrow_accept_encoding(&headers), *expected, "{values:?}");
        }
    }

    #[test]
    fn messages_are_asked_for_as_they_are_and_fields_keep_their_places() {
        let mut headers = HeaderMap::new();
        let fields = ["x-a", "grpc-accept-encoding", "accept-encoding", "connect-accept-encoding", "x-b"];
        for name in fields.iter().chain(&["grpc-accept-encoding"]) {
            headers.append(*name, HeaderValue::from_static("br, gzip"));
        }
        narrow_accepted(&mut headers);
        let narrowed: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        let expected = ["br, gzip", "identity", "gzip", "identity", "br, gzip"];
        assert_eq!(narrowed, fields.into_iter().zip(expected).collect::<Vec<_>>());
        let mut bare = HeaderMap::new();
        narrow_accepted(&mut bare);
        assert_eq!(bare.len(), 1, "what was not there is not added");
    }
}
