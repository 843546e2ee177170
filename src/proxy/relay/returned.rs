//! Which fields of an answer, in its head and in its trailers, go back to the agent.

use http::{HeaderMap, HeaderName, header};

/// The names of our own refusals' fields begin so; from an upstream they would pass its refusals off as ours.
const OWN_PREFIX: &str = "valetkey-";

/// Takes out what ends here, in a new map, so that the order of the rest is kept.
pub(in crate::proxy) fn returned(headers: HeaderMap) -> HeaderMap {
    if headers.keys().all(is_returned) {
        return headers;
    }
    let kept = headers.iter().filter(|(name, _)| is_returned(name) && !is_of_connection(&headers, name));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// True for a field that `Connection` names (RFC 9110, 7.6.1).
fn is_of_connection(headers: &HeaderMap, name: &HeaderName) -> bool {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|option| option.trim().eq_ignore_ascii_case(name.as_str()))
}

/// False for fields that end here on the way back, or that would lead the client around us.
fn is_returned(name: &HeaderName) -> bool {
    // Compared as text: that costs one look at the length where it is another.
    match name.as_str() {
        "connection" | "proxy-authenticate" | "transfer-encoding" | "upgrade" | "alt-svc" => false,
        // The session that a credential opened is a credential too; and a cookie would be refused when it comes back.
        "set-cookie" => false,
        "keep-alive" | "proxy-connection" | "proxy-status" => false,
        name => !name.starts_with(OWN_PREFIX),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_ends_here_ends_here() {
        let ends = [
            "connection",
            "proxy-authenticate",
            "transfer-encoding",
            "upgrade",
            "alt-svc",
            "set-cookie",
            "keep-alive",
            "proxy-connection",
            "proxy-status",
            "valetkey-error",
        ];
        for name in ends {
            assert!(!is_returned(&HeaderName::from_static(name)), "{name}");
        }
        for name in ["content-type", "set-cookie2", "upgrades", "x-valetkey-error", "trailer"] {
            assert!(is_returned(&HeaderName::from_static(name)), "{name}");
        }
    }

    #[test]
    fn the_rest_stays_in_order_and_repeated() {
        let mut headers = HeaderMap::new();
        for name in ["x-b", "set-cookie", "x-a", "valetkey-error", "x-b", "alt-svc", "proxy-status", "x-c"] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static("v"));
        }
        let kept = returned(headers);
        assert_eq!(kept.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["x-b", "x-b", "x-a", "x-c"]);
    }
}
