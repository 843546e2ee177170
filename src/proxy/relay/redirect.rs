//! An answer that sends the client elsewhere.

use std::time::Instant;

use http::{Response, Uri, header};

use crate::lease::Lease;
use crate::model::{Destination, Scheme};

/// Notes where a redirect (RFC 9110, 15.4) leads to: its nonce may come there by no fault of the client's. What leads
/// back to where the request `went` is not noted, since it would take the place of one that leads elsewhere.
pub(super) fn note<B>(response: &Response<B>, scheme: Scheme, went: &Destination, lease: &Lease) {
    if let Some(destination) = leads_to(response, scheme)
        && destination != *went
    {
        lease.redirected_to(destination, Instant::now());
    }
}

/// What is no absolute URL leads to where the client is already, or nowhere.
fn leads_to<B>(response: &Response<B>, scheme: Scheme) -> Option<Destination> {
    if !response.status().is_redirection() {
        return None;
    }
    let location = response.headers().get(header::LOCATION)?.to_str().ok()?;
    // A URL without a scheme (`//host/path`) has the one of the request (RFC 3986, 5.2.2).
    let whole = location.starts_with("//").then(|| format!("{}:{location}", scheme.as_str()));
    let url: Uri = whole.as_deref().unwrap_or(location).parse().ok()?;
    // A word alone would be an authority without a scheme.
    let scheme = [Scheme::Https, Scheme::Http].into_iter().find(|known| url.scheme_str() == Some(known.as_str()))?;
    let authority = url.authority()?.as_str();
    let named = authority.rsplit_once('@').map_or(authority, |(_user, named)| named);
    Destination::parse(named, Some(scheme.default_port())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_urls_of_redirects_lead_elsewhere() {
        for (status, location, destination) in [
            (302, "https://Other.test/x?y#z", Some("other.test:443")),
            (302, "HTTPS://other.test:8443", Some("other.test:8443")),
            (307, "//other.test:8443/x", Some("other.test:8443")),
            (308, "//other.test/x", Some("other.test:443")),
            (301, "http://user:word@127.0.0.1/", Some("127.0.0.1:80")),
            (301, "http://[::1]:8080/", Some("[::1]:8080")),
            (302, "ftp://other.test/x", None),
            (302, "https://other.test:0/x", None),
            (302, "/elsewhere", None),
            (302, "elsewhere", None),
            (302, "https://", None),
            (302, "https://o ther.test/", None),
            (200, "https://other.test/x", None),
            (304, "", None),
        ] {
            let response =
                Response::builder().status(status).header("location", location).body(()).expect("a response");
            let led = leads_to(&response, Scheme::Https).map(|destination| destination.to_string());
            assert_eq!(led.as_deref(), destination, "{status} {location}");
        }
    }

    #[test]
    fn what_names_no_scheme_has_that_of_the_request() {
        let response =
            Response::builder().status(302).header("location", "//other.test/x").body(()).expect("a response");
        for (scheme, destination) in [(Scheme::Https, "other.test:443"), (Scheme::Http, "other.test:80")] {
            let led = leads_to(&response, scheme).map(|destination| destination.to_string());
            assert_eq!(led.as_deref(), Some(destination));
        }
    }
}
