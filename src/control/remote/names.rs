//! The names by which the control API may be called, as they stand in `Host`.

use std::net::IpAddr;

/// The names of a Unix socket; there is no other, so that no web page can reach it by a name of its own.
const LOCAL: [&str; 3] = ["", "localhost", "valetkey"];

/// Names of one listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::control) enum Names {
    /// A Unix socket's, or a supervisor's channel's.
    Local,
    /// Those of the certificate, in lower case.
    Certificate {
        /// `a.example.org`, `*.example.org`
        hosts: Vec<String>,
        /// Addresses.
        addresses: Vec<IpAddr>,
    },
}

impl Names {
    /// True where requests may come without `Host`.
    pub(in crate::control) fn may_be_absent(&self) -> bool {
        *self == Self::Local
    }

    /// True for a `Host` that is one of these, with whatever port.
    pub(in crate::control) fn hold(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        match self {
            Self::Local => LOCAL.contains(&host.as_str()),
            Self::Certificate { hosts, addresses } => {
                let Some(name) = without_port(&host) else { return false };
                let address: Option<IpAddr> = name.trim_start_matches('[').trim_end_matches(']').parse().ok();
                match address {
                    Some(address) => addresses.contains(&address),
                    None => hosts.iter().any(|known| covers(known, name)),
                }
            }
        }
    }
}

/// The host of `HOST` or `HOST:PORT`, brackets included.
fn without_port(host: &str) -> Option<&str> {
    let end = host.find(']').map_or(0, |at| at + 1);
    let Some(colon) = host.get(end..)?.find(':') else { return Some(host) };
    let (name, port) = host.split_at(end + colon);
    port.get(1..)?.parse::<u16>().ok().map(|_| name)
}

/// A certificate's name covers itself; one with `*.` covers one label more (RFC 9525, 6.3).
fn covers(known: &str, name: &str) -> bool {
    match known.strip_prefix("*.") {
        None => known == name,
        Some(parent) => name.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_certificates_names_are_ours() {
        let names = Names::Certificate {
            hosts: vec!["a.test".into(), "*.b.test".into()],
            addresses: vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()],
        };
        for good in ["a.test", "A.Test:8443", "x.b.test:1", "127.0.0.1", "127.0.0.1:8443", "[::1]:1", "[::1]"] {
            assert!(names.hold(good), "{good}");
        }
        for bad in [
            "",
            "localhost",
            "valetkey",
            "b.test",
            "x.y.b.test",
            ".b.test",
            "a.test:",
            "a.test:x",
            "a.test:80:80",
            "127.0.0.2",
        ] {
            assert!(!names.hold(bad), "{bad}");
        }
        assert!(Names::Local.hold("localhost") && Names::Local.hold("") && !Names::Local.hold("a.test"));
    }
}
