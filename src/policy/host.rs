//! The hosts of a service.

use std::fmt;

use super::rule::BadSyntax;
use super::suffix;
use crate::model::{Destination, Host};

/// The port of a host that is written without one.
const DEFAULT_PORT: u16 = 443;

/// A host of a service: exact, or `*.example.com` for one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern {
    /// True for `*.`: then `host` is what stands behind it.
    pub wildcard: bool,
    /// The host.
    pub host: Host,
    /// The port.
    pub port: u16,
}

impl HostPattern {
    /// Parses `api.stripe.com`, `*.example.com`, `internal.test:8443`; refuses a wildcard directly under a public suffix.
    ///
    /// # Errors
    /// [`BadSyntax`].
    pub fn parse(text: &str) -> Result<Self, BadSyntax> {
        if text.contains('/') {
            return Err(BadSyntax(
                "a host has no scheme and no path: `api.example.com`, `api.example.com:8443`".to_owned(),
            ));
        }
        let (wildcard, rest) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if rest.contains('*') {
            return Err(BadSyntax("a wildcard is one whole label at the beginning: `*.example.com`".to_owned()));
        }
        let Destination { host, port } =
            Destination::parse(rest, Some(DEFAULT_PORT)).map_err(|error| BadSyntax(format!("not a host: {error}")))?;
        if wildcard {
            check_wildcard(&host)?;
        }
        Ok(Self { wildcard, host, port })
    }

    /// True when it covers this destination.
    #[must_use]
    pub fn covers(&self, destination: &Destination) -> bool {
        self.port == destination.port && self.covers_host(&destination.host)
    }

    /// True when it covers this host, whatever the port.
    #[must_use]
    pub fn covers_host(&self, host: &Host) -> bool {
        if self.wildcard { parent(host) == Some(self.host.as_str()) } else { self.host == *host }
    }
}

/// What stands behind the first label of a name.
pub(super) fn parent(host: &Host) -> Option<&str> {
    host.as_str().split_once('.').map(|(_, parent)| parent)
}

fn check_wildcard(host: &Host) -> Result<(), BadSyntax> {
    if host.ip().is_some() {
        return Err(BadSyntax("an address has no wildcard".to_owned()));
    }
    if suffix::is_public(host.as_str()) {
        return Err(BadSyntax(format!(
            "`*.{host}` would cover names of strangers: `{host}` is a public suffix; name the hosts, or a domain below it"
        )));
    }
    Ok(())
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = if self.wildcard { "*." } else { "" };
        write!(f, "{star}{}", self.host)?;
        if self.port == DEFAULT_PORT { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_parsed_and_spelled() {
        for (text, spelled) in [
            ("api.stripe.com", "api.stripe.com"),
            ("API.Stripe.com.:443", "api.stripe.com"),
            ("*.example.com", "*.example.com"),
            ("*.example.co.uk:8443", "*.example.co.uk:8443"),
            ("internal.test:8443", "internal.test:8443"),
            ("[::1]:8080", "[::1]:8080"),
            ("127.0.0.1", "127.0.0.1"),
            ("localhost:80", "localhost:80"),
        ] {
            assert_eq!(HostPattern::parse(text).map(|p| p.to_string()).as_deref(), Ok(spelled));
        }
    }

    #[test]
    fn bad_hosts_are_refused() {
        for text in [
            "",
            "*",
            "*.",
            "*.com",
            "*.co.uk",
            "*.github.io",
            "*.s3.amazonaws.com",
            "*.test",
            "*.*.example.com",
            "a*.example.com",
            "a.*.com",
            "*example.com",
            "https://api.test",
            "api.test/v1",
            "api.test:0",
            "api.test:65537",
            "user@api.test",
            "api.test:",
            "*.127.0.0.1",
            "*.[::1]",
            "\u{430}pi.test",
            "a..b",
            "a b",
        ] {
            assert!(HostPattern::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_wildcard_covers_one_label_and_not_the_apex() {
        let covers = |pattern: &str, destination: &str| {
            HostPattern::parse(pattern).unwrap().covers(&Destination::parse(destination, Some(443)).unwrap())
        };
        assert!(covers("*.example.com", "a.example.com"));
        assert!(covers("*.example.com", "A.EXAMPLE.com."));
        assert!(covers("a.example.com", "a.example.com"));
        for other in ["example.com", "a.b.example.com", "aexample.com", "a.example.com:8443", "a.example.com.evil.test"]
        {
            assert!(!covers("*.example.com", other), "{other}");
        }
        for other in ["evila.example.com", "a.example.com.evil.test", "example.com", "a.example.com:8443"] {
            assert!(!covers("a.example.com", other), "{other}");
        }
    }
}
