//! Authorities: one text is one place, however often it is parsed and printed, and no name is an address in disguise.

use valetkey::model::{Destination, Host, Scheme};

/// What is parsed prints and parses as itself; `CONNECT`, `Host` and SNI name one host; no resolver takes the host for an
/// address that it is not.
///
/// # Panics
/// Where that does not hold.
pub fn authority(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for default_port in [None, Some(80), Some(443)] {
        if let Ok(destination) = Destination::parse(text, default_port) {
            judge(text, default_port, &destination);
        }
    }
    if let Some((one, other)) = text.split_once('\n') {
        agree(one, other);
    }
}

fn judge(text: &str, default_port: Option<u16>, destination: &Destination) {
    let printed = destination.to_string();
    assert_eq!(Destination::parse(&printed, None).as_ref(), Ok(destination), "CONNECT {printed} of {text:?}");
    for scheme in [Scheme::Https, Scheme::Http] {
        let host = destination.authority(scheme);
        let read = Destination::parse(&host, Some(scheme.default_port()));
        assert_eq!(read.as_ref(), Ok(destination), "Host: {host} of {text:?}");
    }
    let sni = destination.host.to_string();
    assert_eq!(Host::parse(&sni).as_ref(), Ok(&destination.host), "SNI {sni} of {text:?}");
    let port = default_port.unwrap_or(0);
    if destination.is_spelled(text, port) {
        assert_eq!(Destination::parse(text, Some(port)).as_ref(), Ok(destination), "{text:?} is spelled so");
    }
    let elsewhere =
        Destination { port: if destination.port == 1 { 2 } else { destination.port - 1 }, ..destination.clone() };
    for (own, other) in [(destination, &elsewhere), (&elsewhere, destination)] {
        assert!(!own.is_spelled(&other.to_string(), port), "{own} is not spelled {other}");
        let is_there = own.is_spelled(other.host.as_str(), other.port);
        assert!(!is_there, "{own} is not spelled {} where that is port {}", other.host, other.port);
    }
    assert!(destination.port != 0 && text.is_ascii(), "{text:?}");
    assert!(!text.contains(|c: char| c.is_whitespace() || "@,/\\%?#;".contains(c)), "{text:?} has a second reading");
    judge_host(text, &destination.host);
    judge_by_http(text, destination);
}

fn judge_host(text: &str, host: &Host) {
    let name = host.as_str();
    assert!(!name.ends_with('.') && !name.is_empty() && name.len() <= 253, "{name:?} of {text:?}");
    assert!(!name.bytes().any(|b| b.is_ascii_uppercase()), "{name:?} of {text:?}");
    match (host.ip(), as_a_resolver_reads_it(name)) {
        (Some(std::net::IpAddr::V4(own)), Some(theirs)) => assert_eq!(own.octets(), theirs.to_be_bytes(), "{text:?}"),
        (Some(std::net::IpAddr::V4(_)) | None, None) | (Some(std::net::IpAddr::V6(_)), _) => {}
        (ours, theirs) => panic!("{text:?} is {ours:?} to us and {theirs:?} to a resolver"),
    }
}

/// The `http` crate, from which hyper takes what it writes.
fn judge_by_http(text: &str, destination: &Destination) {
    let Ok(theirs) = text.parse::<http::uri::Authority>() else { return };
    let host = theirs.host().trim_start_matches('[').trim_end_matches(']');
    let is_v6 = destination.host.as_str().contains(':');
    let same = host.strip_suffix('.').unwrap_or(host).eq_ignore_ascii_case(destination.host.as_str());
    assert!(same || is_v6, "{text:?} is {host} to http, {destination} to us");
    if let Some(port) = theirs.port_u16() {
        assert_eq!(port, destination.port, "{text:?}");
    }
}

/// Two texts that name one place print alike.
fn agree(one: &str, other: &str) {
    let (Ok(one), Ok(other)) = (Destination::parse(one, Some(443)), Destination::parse(other, Some(443))) else {
        return;
    };
    assert_eq!(one == other, one.to_string() == other.to_string(), "{one} and {other}");
    let is_spelled = one.is_spelled(&other.authority(Scheme::Https), 443);
    assert!(!is_spelled || one == other, "{one} is not spelled {other}");
}

/// `inet_aton` of common C libraries: one to four parts, decimal, octal or hexadecimal, the last one filling the rest.
fn as_a_resolver_reads_it(name: &str) -> Option<u32> {
    let parts: Vec<&str> = name.split('.').collect();
    if parts.len() > 4 {
        return None;
    }
    let number = |part: &str| match part.strip_prefix("0x").or_else(|| part.strip_prefix("0X")) {
        Some(hex) => (hex.bytes().all(|b| b.is_ascii_hexdigit())).then(|| u64::from_str_radix(hex, 16).unwrap_or(0)),
        None if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) => None,
        None if part.len() > 1 && part.starts_with('0') => u64::from_str_radix(part, 8).ok(),
        None => part.parse().ok(),
    };
    let (last, first) = parts.split_last()?;
    let mut address = 0;
    for part in first {
        address = address << 8 | number(part).filter(|part| *part < 256)?;
    }
    let rest_bits = 8 * (4 - first.len());
    let last = number(last).filter(|last| *last < 1 << rest_bits)?;
    u32::try_from(address << rest_bits | last).ok()
}
