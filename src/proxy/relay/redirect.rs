//! An answer that sends the client elsewhere.

use std::time::Instant;

use http::{Response, Uri, header};

use crate::lease::Lease;
use crate::model::Host;

/// Notes where a redirect (RFC 9110, 15.4) leads to: its nonce may come there by no fault of the client's. What is no
/// absolute URL leads to where the client is already, or nowhere.
pub(super) fn note<B>(response: &Response<B>, lease: &Lease) {
    if let Some(host) = leads_to(response) {
        lease.redirected_to(host, Instant::now());
    }
}

fn leads_to<B>(response: &Response<B>) -> Option<Host> {
    if !response.status().is_redirection() {
        return None;
    }
    let location = response.headers().get(header::LOCATION)?.to_str().ok()?;
    // A URL without a scheme (`//host/path`) has the one of the request (RFC 3986, 5.2.2).
    let rest = location.strip_prefix("//").map(|rest| format!("https://{rest}"));
    let url: Uri = rest.as_deref().unwrap_or(location).parse().ok()?;
    url.scheme()?; // a word alone would be a host
    Host::parse(url.host()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_urls_of_redirects_lead_elsewhere() {
        for (status, location, host) in [
            (302, "https://Other.test/x?y#z", Some("other.test")),
            (307, "//other.test:8443/x", Some("other.test")),
            (301, "http://user@127.0.0.1/", Some("127.0.0.1")),
            (302, "/elsewhere", None),
            (302, "elsewhere", None),
            (302, "https://", None),
            (302, "https://o ther.test/", None),
            (200, "https://other.test/x", None),
            (304, "", None),
        ] {
            let response =
                Response::builder().status(status).header("location", location).body(()).expect("a response");
            assert_eq!(leads_to(&response).as_ref().map(Host::as_str), host, "{status} {location}");
        }
    }
}
