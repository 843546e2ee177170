//! What upstream is told that we can read.

use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderValue};

use super::Coding;
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

/// The `Accept-Encoding` to send upstream: of the codings that the client names, those that can be opened, in its order and
/// with its weights. `*` stands for gzip alone: who writes it has named nothing that it would rather have. Where nothing is
/// left it is `identity`: a client that sends no field is not known to decode anything (RFC 9110, 12.5.3).
fn narrow_accept_encoding(request: &HeaderMap) -> HeaderValue {
    let mut fields = request.get_all(ACCEPT_ENCODING).iter();
    let (first, is_alone) = (fields.next(), fields.next().is_none());
    let Some(first) = first else { return HeaderValue::from_static("identity") };
    if is_alone && items(first).all(is_opened) {
        // What nearly everybody sends.
        return first.clone();
    }
    let all = || request.get_all(ACCEPT_ENCODING).iter().flat_map(items);
    let names_gzip = all().any(|item| Coding::named(name(item)) == Some(Coding::Gzip));
    let takes_any = !names_gzip && all().any(|item| name(item) == b"*" && is_accepted(item));
    let gzip = takes_any.then_some(&b"gzip"[..]);
    let kept: Vec<&[u8]> = all().filter(|item| is_opened(item)).chain(gzip).collect();
    // Pieces of values with commas between them are a value.
    let joined = HeaderValue::from_bytes(&kept.join(&b", "[..])).ok().filter(|value| !value.is_empty());
    joined.unwrap_or(const { HeaderValue::from_static("identity") })
}

fn items(field: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    field.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}

fn name(item: &[u8]) -> &[u8] {
    item.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii()
}

/// A coding that can be opened, and that the client takes.
fn is_opened(item: &[u8]) -> bool {
    Coding::named(name(item)).is_some() && is_accepted(item)
}

/// Nothing, or one weight above zero, follows the name (RFC 9110, 12.4.2); anything else could be read in two ways.
fn is_accepted(item: &[u8]) -> bool {
    let mut parts = item.split(|&byte| byte == b';').skip(1).map(<[u8]>::trim_ascii);
    let weight = match (parts.next(), parts.next()) {
        (None, _) => return true,
        (Some(one), None) => one.strip_prefix(b"q=").or_else(|| one.strip_prefix(b"Q=")),
        (Some(_), Some(_)) => None,
    };
    match weight {
        Some([b'1']) => true,
        Some([b'1', b'.', digits @ ..]) => digits.len() <= 3 && digits.iter().all(|digit| *digit == b'0'),
        Some([b'0', b'.', digits @ ..]) => {
            digits.len() <= 3 && digits.iter().all(u8::is_ascii_digit) && digits.iter().any(|digit| *digit != b'0')
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstream_is_asked_for_what_the_client_takes_and_we_can_open() {
        let cases: [(&[&str], &str); 23] = [
            (&[], "identity"),
            (&[""], "identity"),
            (&["gzip"], "gzip"),
            (&["GZip"], "GZip"),
            (&["x-gzip"], "x-gzip"),
            (&["gzip, deflate, br, zstd"], "gzip, deflate, br, zstd"),
            (&["gzip,deflate,  br"], "gzip,deflate,  br"),
            (&["br;q=1.0, gzip;q=0.8, *;q=0.1"], "br;q=1.0, gzip;q=0.8"),
            (&["deflate, compress, br"], "deflate, br"),
            (&["compress, dcb, dcz"], "identity"),
            (&["*"], "gzip"),
            (&["*;q=0"], "identity"),
            (&["br, *;q=0"], "br"),
            (&["br, *"], "br, gzip"),
            (&["gzip;q=0, *"], "identity"),
            (&["gzip ; q=0.000"], "identity"),
            (&["gzip;q=0.001 , br;q=0.0"], "gzip;q=0.001"),
            (&["identity;q=0, *;Q=0.5"], "gzip"),
            (&["identity;q=0.5, zstd"], "zstd"),
            (&["br", "gzip"], "br, gzip"),
            (&["br;q=1;x=y, gzip;q=2, zstd;level=3, deflate;q="], "identity"),
            (&["br;q=0.5555, gzip;q=1.000, zstd;q=1.001"], "gzip;q=1.000"),
            (&["gzip, br\u{e9}, zstd x"], "gzip"),
        ];
        for (values, expected) in cases {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(ACCEPT_ENCODING, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            assert_eq!(narrow_accept_encoding(&headers), *expected, "{values:?}");
        }
    }

    #[test]
    fn messages_are_asked_for_as_they_are_and_fields_keep_their_places() {
        let mut headers = HeaderMap::new();
        let fields = ["x-a", "grpc-accept-encoding", "accept-encoding", "connect-accept-encoding", "x-b"];
        for name in fields.iter().chain(&["grpc-accept-encoding"]) {
            headers.append(*name, HeaderValue::from_static("br, snappy"));
        }
        narrow_accepted(&mut headers);
        let narrowed: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        let expected = ["br, snappy", "identity", "br", "identity", "br, snappy"];
        assert_eq!(narrowed, fields.into_iter().zip(expected).collect::<Vec<_>>());
        let mut bare = HeaderMap::new();
        narrow_accepted(&mut bare);
        assert_eq!(bare.len(), 1, "what was not there is not added");
    }
}
