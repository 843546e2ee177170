//! The canonical request (AWS, "Create a signed AWS API request", step 1), hashed while it is written.

use std::borrow::Cow;

use http::{HeaderMap, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use ring::digest;

use super::Line;

/// Everything but the unreserved characters of RFC 3986, 2.3.
pub(super) const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The same, without the slash between segments.
const PATH: &AsciiSet = &QUERY.remove(b'/');

/// All of a canonical request but its last line, the hash of the body.
#[derive(Clone)]
pub(super) struct Canonical(digest::Context);

impl Canonical {
    /// Begins it; `None` where one of the named fields is not there.
    pub(super) fn of(line: Line<'_>, is_s3: bool, headers: &HeaderMap, names: &[String]) -> Option<Self> {
        let (path, query) = line.target.split_once('?').unwrap_or((line.target, ""));
        let mut text = digest::Context::new(&digest::SHA256);
        let mut write = |parts: &[&[u8]]| parts.iter().for_each(|part| text.update(part));
        write(&[line.method.as_str().as_bytes(), b"\n", canonical_path(path, is_s3).as_bytes(), b"\n"]);
        write(&[canonical_query(query).as_bytes(), b"\n"]);
        for name in names {
            write(&[name.as_bytes(), b":"]);
            if name == header::HOST.as_str() {
                write(&[line.host.as_bytes()]);
            } else {
                let mut values = headers.get_all(name.as_str()).iter();
                write(&[&spaced(values.next()?.as_bytes())]);
                for value in values {
                    write(&[b",", &spaced(value.as_bytes())]);
                }
            }
            write(&[b"\n"]);
        }
        write(&[b"\n", names.join(";").as_bytes(), b"\n"]);
        Some(Self(text))
    }

    /// The hash of the whole, in hex.
    pub(super) fn finish(&self, payload: &str) -> String {
        let mut text = self.0.clone();
        text.update(payload.as_bytes());
        hex::encode(text.finish())
    }
}

/// Encoded twice, or once for S3, whatever of it was encoded when it came.
fn canonical_path(path: &str, is_s3: bool) -> String {
    if is_s3 {
        let plain: Cow<'_, [u8]> = percent_decode_str(path).into();
        percent_encode(&plain, PATH).to_string()
    } else {
        percent_encode(path.as_bytes(), PATH).to_string()
    }
}

/// Names and values, encoded once, in the order of their bytes.
fn canonical_query(query: &str) -> String {
    let encoded = |text: &str| {
        let plain: Cow<'_, [u8]> = percent_decode_str(text).into();
        percent_encode(&plain, QUERY).to_string()
    };
    let pieces = query.split('&').filter(|piece| !piece.is_empty());
    let mut pairs: Vec<(String, String)> = pieces
        .map(|piece| piece.split_once('=').unwrap_or((piece, "")))
        .map(|(name, value)| (encoded(name), encoded(value)))
        .collect();
    pairs.sort_unstable();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// Without spaces around it, and with one where there were several.
fn spaced(value: &[u8]) -> Cow<'_, [u8]> {
    let value = value.trim_ascii();
    if !value.windows(2).any(|pair| pair == b"  ") {
        return value.into();
    }
    let mut out = Vec::with_capacity(value.len());
    for &byte in value {
        if byte != b' ' || out.last() != Some(&b' ') {
            out.push(byte);
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_encoded_once_more_but_for_s3() {
        assert_eq!(canonical_path("/", false), "/");
        assert_eq!(canonical_path("/a%20b/c:d", false), "/a%2520b/c%3Ad");
        assert_eq!(canonical_path("/a%20b/c:d~", true), "/a%20b/c%3Ad~");
        assert_eq!(canonical_path("/%E1%88%B4", true), "/%E1%88%B4");
    }

    #[test]
    fn parameters_are_sorted_as_they_are_encoded() {
        assert_eq!(canonical_query(""), "");
        assert_eq!(canonical_query("b=2&a=1&a=0&acl"), "a=0&a=1&acl=&b=2");
        assert_eq!(canonical_query("Param2=v&Param1=x%2fy z"), "Param1=x%2Fy%20z&Param2=v");
    }

    #[test]
    fn values_are_trimmed_within_too() {
        assert_eq!(&*spaced(b"  a   b  c "), b"a b c");
        assert_eq!(&*spaced(b"\"a b\""), b"\"a b\"");
    }
}
