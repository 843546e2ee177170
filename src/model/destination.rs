//! Where a request goes: scheme, host and port, each in one canonical form.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// Longest DNS name in its text form, in bytes (RFC 1035, 2.3.4).
pub const HOST_BYTES_MAX: usize = 253;
/// Longest label of a DNS name, in bytes (RFC 1035, 2.3.4).
pub const LABEL_BYTES_MAX: usize = 63;

/// Why a host, a port or an authority was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DestinationError {
    /// There is no host.
    #[error("there is no host")]
    Empty,
    /// The host, or one of its labels, is too long.
    #[error("the host or one of its labels is too long")]
    TooLong,
    /// A character that no A-label host may hold; user information, lists and encodings end here.
    #[error("the host holds a character that a host may not have")]
    Character,
    /// Something that resolvers take for an IPv4 address, though it is not written as one: `127.1`, `0x7f.1`.
    #[error("the host looks like an IPv4 address and is not written as one")]
    NotAnAddress,
    /// Brackets around something other than an IPv6 address, or an IPv6 address without them.
    #[error("the host is not a bracketed IPv6 address")]
    Brackets,
    /// No port where one is needed, or one that is not 1 to 65535 in plain decimal.
    #[error("the port is not a number from 1 to 65535")]
    Port,
}

/// A host in its one canonical form: lower-case A-labels without a trailing dot, or an IP literal.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host(Arc<str>);

impl Host {
    /// Parses a host as it stands in an authority (RFC 3986, 3.2.2), strictly: case is folded and one
    /// trailing dot dropped; nothing else is repaired.
    ///
    /// # Errors
    /// [`DestinationError`] for whatever two parsers could read differently.
    pub fn parse(text: &str) -> Result<Self, DestinationError> {
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or(DestinationError::Brackets)?;
            let address: Ipv6Addr = inner.parse().map_err(|_| DestinationError::Brackets)?;
            return Ok(Self::from_ip(IpAddr::V6(address)));
        }
        Self::parse_name(text)
    }

    fn parse_name(text: &str) -> Result<Self, DestinationError> {
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() {
            return Err(DestinationError::Empty);
        }
        if name.len() > HOST_BYTES_MAX {
            return Err(DestinationError::TooLong);
        }
        if name.contains(':') {
            return Err(DestinationError::Brackets);
        }
        for label in name.split('.') {
            check_label(label)?;
        }
        let name = name.to_ascii_lowercase();
        if ends_in_a_number(&name) {
            let address: Ipv4Addr = name.parse().map_err(|_| DestinationError::NotAnAddress)?;
            return Ok(Self::from_ip(IpAddr::V4(address)));
        }
        Ok(Self(name.into()))
    }

    /// The host of an IP address; an IPv4-mapped IPv6 address stays what it is.
    #[must_use]
    pub fn from_ip(address: IpAddr) -> Self {
        Self(address.to_string().into())
    }

    /// The canonical text, without brackets.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address, if the host is an IP literal.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.0.parse().ok()
    }
}

fn check_label(label: &str) -> Result<(), DestinationError> {
    if label.is_empty() {
        return Err(DestinationError::Character);
    }
    if label.len() > LABEL_BYTES_MAX {
        return Err(DestinationError::TooLong);
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if !label.bytes().all(allowed) || label.starts_with('-') || label.ends_with('-') {
        return Err(DestinationError::Character);
    }
    Ok(())
}

/// The WHATWG URL rule: a last label that is a number makes the whole an IPv4 address, or nothing.
fn ends_in_a_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    let hex = last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
    hex || last.bytes().all(|b| b.is_ascii_digit())
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.contains(':') { write!(f, "[{}]", self.0) } else { f.write_str(&self.0) }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// How a request travels to its destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Over TLS.
    Https,
    /// In clear text.
    Http,
}

impl Scheme {
    /// `https` or `http`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
        }
    }

    /// 443 or 80.
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Https => 443,
            Self::Http => 80,
        }
    }
}

/// Host and port, settled once per tunnel (or per absolute-form request).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination {
    /// The host.
    pub host: Host,
    /// The port, never 0.
    pub port: u16,
}

impl Destination {
    /// Parses `host:port`; without a port, `default_port` stands in where there is one.
    ///
    /// # Errors
    /// [`DestinationError`]; user information (`user@`) is one.
    pub fn parse(authority: &str, default_port: Option<u16>) -> Result<Self, DestinationError> {
        let (host, port) = split_port(authority)?;
        let port = match port {
            Some(port) => parse_port(port)?,
            None => default_port.ok_or(DestinationError::Port)?,
        };
        Ok(Self { host: Host::parse(host)?, port })
    }

    /// True where an authority is spelled as this destination spells itself, which needs no parsing. False says nothing.
    #[must_use]
    pub fn is_spelled(&self, authority: &str, default_port: u16) -> bool {
        // An address of IPv6 stands in brackets there.
        if self.host.as_str().contains(':') {
            return false;
        }
        match authority.strip_prefix(self.host.as_str()) {
            Some("") => self.port == default_port,
            Some(rest) => rest.strip_prefix(':').is_some_and(|port| parse_port(port) == Ok(self.port)),
            None => false,
        }
    }

    /// `host` for the default port of `scheme`, else `host:port`: what belongs into a `Host` field.
    #[must_use]
    pub fn authority(&self, scheme: Scheme) -> String {
        match self.port == scheme.default_port() {
            true if self.host.as_str().contains(':') => self.host.to_string(),
            true => self.host.as_str().to_owned(),
            false => self.to_string(),
        }
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<&str>), DestinationError> {
    if authority.starts_with('[') {
        let end = authority.find(']').ok_or(DestinationError::Brackets)?;
        let (host, rest) = authority.split_at(end + 1);
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(DestinationError::Brackets),
        };
    }
    match authority.split_once(':') {
        Some((_, port)) if port.contains(':') => Err(DestinationError::Brackets),
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((authority, None)),
    }
}

fn parse_port(text: &str) -> Result<u16, DestinationError> {
    let plain = !text.is_empty() && !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
    if plain { text.parse().map_err(|_| DestinationError::Port) } else { Err(DestinationError::Port) }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Result<String, DestinationError> {
        Host::parse(text).map(|h| h.to_string())
    }

    #[test]
    fn one_form_for_each_host() {
        assert_eq!(host("API.Stripe.COM."), Ok("api.stripe.com".to_owned()));
        assert_eq!(host("127.0.0.1"), Ok("127.0.0.1".to_owned()));
        assert_eq!(host("[::1]"), Ok("[::1]".to_owned()));
        assert_eq!(host("[0:0::1]"), Ok("[::1]".to_owned()));
        assert_eq!(host("xn--pi-7ed.test"), Ok("xn--pi-7ed.test".to_owned()));
    }

    #[test]
    fn what_parsers_disagree_on_is_refused() {
        for bad in [
            "",
            ".",
            "a..b",
            "api.test..",
            "a@b",
            "api.test:x@evil",
            "a,b",
            "a b",
            "%61pi.test",
            "api\u{3002}test",
            "\u{430}pi.test",
            "[[::1]]",
            "[api.test]",
            "[127.0.0.1]",
            "[fe80::1%25lo]",
            "::1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0177.0.0.1",
            "1.2.3.4.5",
            "-a.test",
            "a-.test",
            "a/b",
            "a\\b",
            "a#b",
            "a?b",
            "a\0b",
            "*.test",
            "999.1.1.1",
            "0x",
            "a.0x",
        ] {
            assert!(host(bad).is_err(), "{bad:?} must be refused");
        }
        assert_eq!(host("::1"), Err(DestinationError::Brackets), "said as what it is");
        assert!(host(&"a".repeat(63)).is_ok(), "the longest label");
        assert!(host(&"a".repeat(64)).is_err());
        let longest = format!("{}.{}", ["a"; 95].join("."), "b".repeat(63));
        assert_eq!(longest.len(), HOST_BYTES_MAX);
        assert!(host(&longest).is_ok() && host(&format!("a.{longest}")).is_err(), "the longest name");
        assert!(host(&["a"; 128].join(".")).is_err());
    }

    #[test]
    fn what_is_spelled_alike_is_the_same() {
        let known = ["api.test:443", "api.test:8443", "127.0.0.1:443", "[::1]:443", "[::1]:8443"];
        let said =
            ["", ":", "api.test", "api.test:", "api.test:443", "api.test:0443", "api.test:8443", "api.test:443 "]
                .into_iter()
                .chain(["API.test", "api.test.", "api.test.evil", "api.tes", "127.0.0.1", "::1", "[::1]", "::1:443"]);
        for (known, said) in said.flat_map(|said| known.map(|known| (known, said))) {
            let known = Destination::parse(known, None).unwrap();
            let is_same = Destination::parse(said, Some(443)).is_ok_and(|parsed| parsed == known);
            assert!(is_same || !known.is_spelled(said, 443), "{said:?} is not {known}");
        }
        let known = Destination::parse("api.test:443", None).unwrap();
        assert!(known.is_spelled("api.test", 443) && known.is_spelled("api.test:443", 80));
        assert!(!known.is_spelled("api.test", 80));
    }

    #[test]
    fn ports_are_plain_numbers() {
        let parse = |text| Destination::parse(text, None).map(|d| d.to_string());
        assert_eq!(parse("api.test:443"), Ok("api.test:443".to_owned()));
        assert_eq!(parse("[::1]:8443"), Ok("[::1]:8443".to_owned()));
        for bad in [
            "api.test",
            "api.test:",
            "api.test:0",
            "api.test:65536",
            "api.test:65537",
            "api.test:0443",
            "api.test:+443",
            "api.test:443x",
            "api.test: 443",
            "a:1:2",
            "[::1]443",
            "user@api.test:443",
        ] {
            assert!(parse(bad).is_err(), "{bad:?} must be refused");
        }
        assert_eq!(Destination::parse("api.test", Some(443)).unwrap().port, 443);
        assert_eq!(Destination::parse("[::1]", Some(443)).unwrap().port, 443);
        for bad in ["[::1]443", "[::1]x", "[::1].", "[::1]]"] {
            assert_eq!(Destination::parse(bad, Some(443)), Err(DestinationError::Brackets), "{bad}");
        }
        for colons in ["a:1:2", "::1"] {
            assert_eq!(Destination::parse(colons, Some(443)), Err(DestinationError::Brackets), "{colons}");
        }
    }

    #[test]
    fn a_host_field_says_the_port_where_it_is_not_the_schemes_own() {
        let said = |text: &str, scheme| Destination::parse(text, None).unwrap().authority(scheme);
        for (text, https, http) in [
            ("api.test:443", "api.test", "api.test:443"),
            ("api.test:80", "api.test:80", "api.test"),
            ("api.test:8443", "api.test:8443", "api.test:8443"),
            ("[::1]:443", "[::1]", "[::1]:443"),
        ] {
            assert_eq!((said(text, Scheme::Https), said(text, Scheme::Http)), (https.to_owned(), http.to_owned()));
        }
        assert_eq!((Scheme::Https.as_str(), Scheme::Http.as_str()), ("https", "http"));
        assert_eq!((Scheme::Https.default_port(), Scheme::Http.default_port()), (443, 80));
    }

    #[test]
    fn what_is_shown_is_the_text() {
        let there = Destination::parse("API.test:443", None).unwrap();
        assert_eq!(format!("{there:?} {:?}", there.host), "api.test:443 api.test");
    }
}
