//! Which addresses may be dialled.
//!
//! The standard library's `is_global` and friends are unstable or know nothing of addresses inside addresses, so the
//! registries are written out here: IANA's special-purpose registries for IPv4 and IPv6 (RFC 6890 and later) and the
//! metadata services of the large clouds. Cases as data: `tests/vectors/addresses.json`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use ipnet::{Ipv4Net, Ipv6Net};
use rustix::io::Errno;

use super::{DialError, Reach};

/// What kind of address it is; the later, the worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Global unicast: for everybody.
    Public,
    /// Loopback, private use, shared, reserved, transition mechanisms: only where `private = true`.
    Private,
    /// Metadata services, link-local, multicast, unspecified, documentation, discard: never.
    Never,
}

impl Kind {
    /// Whether a destination of this reach may have such an address.
    #[must_use]
    pub fn is_within(self, reach: Reach) -> bool {
        match (self, reach) {
            (Self::Public, Reach::Public | Reach::Private) | (Self::Private, Reach::Private) => true,
            (Self::Private, Reach::Public) | (Self::Never, Reach::Public | Reach::Private) => false,
        }
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(segments: [u16; 8], prefix: u8) -> Ipv6Net {
    let [a, b, c, d, e, f, g, h] = segments;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix)
}

const V4_NEVER: [Ipv4Net; 10] = [
    v4(0, 0, 0, 0, 8),          // "this network"; Linux takes 0.0.0.0 for loopback
    v4(100, 100, 100, 200, 32), // metadata: Alibaba Cloud
    v4(168, 63, 129, 16, 32),   // metadata: Azure's wire server
    v4(169, 254, 0, 0, 16),     // link-local, with the metadata of AWS, ECS, EKS, Google, Azure, OpenStack, …
    v4(192, 0, 0, 192, 32),     // metadata: Oracle Cloud
    v4(192, 0, 2, 0, 24),       // documentation (RFC 5737)
    v4(198, 51, 100, 0, 24),    // documentation
    v4(203, 0, 113, 0, 24),     // documentation
    v4(224, 0, 0, 0, 4),        // multicast
    v4(255, 255, 255, 255, 32), // broadcast
];

const V4_PRIVATE: [Ipv4Net; 9] = [
    v4(10, 0, 0, 0, 8),     // private use (RFC 1918)
    v4(100, 64, 0, 0, 10),  // shared, carrier-grade NAT (RFC 6598)
    v4(127, 0, 0, 0, 8),    // loopback
    v4(172, 16, 0, 0, 12),  // private use
    v4(192, 0, 0, 0, 24),   // protocol assignments (RFC 6890)
    v4(192, 88, 99, 0, 24), // 6to4 relays, deprecated (RFC 7526)
    v4(192, 168, 0, 0, 16), // private use
    v4(198, 18, 0, 0, 15),  // benchmarks (RFC 2544)
    v4(240, 0, 0, 0, 4),    // reserved
];

const V6_NEVER: [Ipv6Net; 10] = [
    v6([0, 0, 0, 0, 0, 0, 0, 0], 128),                   // unspecified
    v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64),                // discard (RFC 6666)
    v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32),           // documentation (RFC 3849)
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20),               // documentation (RFC 9637)
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0], 32),           // metadata: AWS ::254, EKS ::23, its time and DNS
    v6([0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42], 128),        // metadata: Scaleway
    v6([0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe], 128), // metadata: Oracle Cloud
    v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128),       // metadata: Google Cloud
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),               // link-local
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8),                // multicast
];

/// Global unicast as far as it is given out (RFC 4291, 2.4); anything else is not public.
const V6_GLOBAL: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);
/// In there, though not for everybody: protocol assignments with Teredo, benchmarks and ORCHID (RFC 2928), 6to4.
const V6_PRIVATE: [Ipv6Net; 2] = [v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), SIX_TO_FOUR];

/// NAT64 as everybody knows it (RFC 6052): public inside is public outside.
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96);
/// NAT64 for local use (RFC 8215).
const NAT64_LOCAL: Ipv6Net = v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48);
const MAPPED: Ipv6Net = v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96);
const COMPATIBLE: Ipv6Net = v6([0, 0, 0, 0, 0, 0, 0, 0], 96);
/// IPv4-translated (RFC 2765).
const TRANSLATED: Ipv6Net = v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96);
const SIX_TO_FOUR: Ipv6Net = v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16);
const TEREDO: Ipv6Net = v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32);

/// The kind of an address; of one that carries another within, the worse of both.
#[must_use]
pub fn kind(address: IpAddr) -> Kind {
    match address {
        IpAddr::V4(address) => kind_v4(address),
        IpAddr::V6(address) => {
            let within = inner(address).into_iter().map(kind_v4).max();
            kind_v6(address).max(within.unwrap_or(Kind::Public))
        }
    }
}

fn kind_v4(address: Ipv4Addr) -> Kind {
    if V4_NEVER.iter().any(|net| net.contains(&address)) {
        return Kind::Never;
    }
    if V4_PRIVATE.iter().any(|net| net.contains(&address)) { Kind::Private } else { Kind::Public }
}

/// The outer address alone.
fn kind_v6(address: Ipv6Addr) -> Kind {
    if V6_NEVER.iter().any(|net| net.contains(&address)) {
        return Kind::Never;
    }
    let outwards = V6_GLOBAL.contains(&address) || NAT64.contains(&address) || MAPPED.contains(&address);
    let private = V6_PRIVATE.iter().any(|net| net.contains(&address));
    if outwards && !private { Kind::Public } else { Kind::Private }
}

/// The IPv4 addresses that an IPv6 address carries within.
fn inner(address: Ipv6Addr) -> Vec<Ipv4Addr> {
    let octets = address.octets();
    let at = |places: [usize; 4]| Ipv4Addr::from(places.map(|place| octets[place]));
    let tail = at([12, 13, 14, 15]);
    if MAPPED.contains(&address) || NAT64.contains(&address) || TRANSLATED.contains(&address) {
        return vec![tail];
    }
    // ::1 is loopback, not an IPv4 address that begins with zeros.
    if COMPATIBLE.contains(&address) && address != Ipv6Addr::LOCALHOST {
        return vec![tail];
    }
    if SIX_TO_FOUR.contains(&address) {
        return vec![at([2, 3, 4, 5])];
    }
    if TEREDO.contains(&address) {
        return vec![at([4, 5, 6, 7]), Ipv4Addr::from(!u32::from(tail))];
    }
    if NAT64_LOCAL.contains(&address) {
        // The operator's prefix may be 48, 56, 64 or 96 long (RFC 6052, 2.2; octet 8 is skipped). Zeros stand where
        // an address of another length has its suffix.
        let places = [[6, 7, 9, 10], [7, 9, 10, 11], [9, 10, 11, 12], [12, 13, 14, 15]];
        return places.map(at).into_iter().filter(|inner| inner.octets()[0] != 0).collect();
    }
    Vec::new()
}

/// Our own listeners.
#[derive(Debug, Clone, Default)]
pub(super) struct Own(Vec<SocketAddr>);

impl Own {
    pub(super) fn new(listeners: Vec<SocketAddr>) -> Self {
        Self(listeners.into_iter().map(canonical).collect())
    }

    /// Whether a connection to `address` would end at one of them.
    pub(super) fn is_ours(&self, address: SocketAddr) -> bool {
        self.is_reached(address, is_local)
    }

    /// As [`Own::is_ours`]; `is_local` says whether an address is this
    /// machine's, and is asked only about a port of ours.
    fn is_reached(&self, address: SocketAddr, is_local: impl Fn(IpAddr) -> bool) -> bool {
        let address = canonical(address);
        self.0.iter().filter(|own| own.port() == address.port()).any(|own| {
            let ip = own.ip();
            // All of loopback counts as one: what listens on one address of it may be forwarded to from another.
            let loopback = ip.is_loopback() && address.ip().is_loopback();
            ip == address.ip() || loopback || (ip.is_unspecified() && is_local(address.ip()))
        })
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Whether an address belongs to this machine: one can bind to it. In doubt it does.
fn is_local(ip: IpAddr) -> bool {
    if ip.is_loopback() || ip.is_unspecified() {
        return true;
    }
    match UdpSocket::bind((ip, 0)) {
        Ok(_) => true,
        Err(error) => !matches!(Errno::from_io_error(&error), Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT)),
    }
}

/// All of the addresses, if every one may be dialled.
pub(super) fn vet(addresses: Vec<SocketAddr>, reach: Reach, own: &Own) -> Result<Vec<SocketAddr>, DialError> {
    if addresses.is_empty() {
        return Err(DialError::Unresolved);
    }
    let allowed = |address: &SocketAddr| kind(address.ip()).is_within(reach) && !own.is_ours(*address);
    if addresses.iter().all(allowed) { Ok(addresses) } else { Err(DialError::Forbidden) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn addresses_are_judged_as_the_vectors_say() {
        let text = include_str!("../../tests/vectors/addresses.json");
        let vectors: BTreeMap<String, Vec<(String, String)>> = serde_json::from_str(text).unwrap();
        let mut rows = 0;
        for (expected, addresses) in &vectors {
            for (address, why) in addresses {
                let got = kind(address.parse().unwrap_or_else(|_| panic!("{address}")));
                assert_eq!(format!("{got:?}").to_lowercase(), *expected, "{address}: {why}");
                rows += 1;
            }
        }
        assert!(rows >= 100, "{rows}");
    }

    #[test]
    fn reach_decides_about_private_addresses_only() {
        let within = |reach| [Kind::Public, Kind::Private, Kind::Never].map(|kind| kind.is_within(reach));
        assert_eq!(within(Reach::Public), [true, false, false]);
        assert_eq!(within(Reach::Private), [true, true, false]);
    }

    /// No IPv4 address may be judged more mildly for being wrapped.
    #[test]
    fn wrapping_never_helps() {
        let mut state = 1_u32;
        for _ in 0..20_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let plain = Ipv4Addr::from(state);
            let [a, b, c, d] = plain.octets().map(u16::from);
            let (high, low) = ((a << 8) | b, (c << 8) | d);
            let wrapped = [
                Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, high, low),
                Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
                Ipv6Addr::new(0x2001, 0, 0x5db8, 0x1, 0, 0, !high, !low),
                Ipv6Addr::new(0x2001, 0, high, low, 0, 0, !0x5db8, !0x1),
            ];
            for outer in wrapped.into_iter().filter(|outer| *outer != Ipv6Addr::LOCALHOST) {
                assert!(kind(outer.into()) >= kind(plain.into()), "{outer} wraps {plain}");
            }
        }
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn our_listeners_are_known_by_every_local_address() {
        let here = |ip: IpAddr| ip == IpAddr::from([10, 0, 0, 5]) || ip.is_loopback();
        let cases = [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "127.9.9.9:80", true),
            ("127.0.0.1:80", "[::1]:80", true),
            ("127.0.0.1:80", "[::ffff:127.0.0.1]:80", true),
            ("127.0.0.1:80", "10.0.0.5:80", false),
            ("[::ffff:127.0.0.1]:80", "127.0.0.1:80", true),
            ("10.0.0.5:80", "10.0.0.5:80", true),
            ("10.0.0.5:80", "[::ffff:10.0.0.5]:80", true),
            ("10.0.0.5:80", "127.0.0.1:80", false),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "10.0.0.5:80", true),
            ("0.0.0.0:80", "[::ffff:10.0.0.5]:80", true),
            ("0.0.0.0:80", "10.0.0.6:80", false),
            ("0.0.0.0:80", "10.0.0.5:81", false),
            ("[::]:80", "10.0.0.5:80", true),
            ("[::]:80", "[::1]:80", true),
        ];
        for (own, dialled, reached) in cases {
            let own_listeners = Own::new(vec![address("9.9.9.9:1"), address(own)]);
            assert_eq!(own_listeners.is_reached(address(dialled), here), reached, "{own} by {dialled}");
        }
    }

    #[test]
    fn a_local_address_is_one_that_can_be_bound() {
        assert!(is_local([127, 0, 0, 1].into()));
        assert!(is_local(Ipv4Addr::UNSPECIFIED.into()));
        assert!(!is_local([203, 0, 113, 7].into()));
    }

    #[test]
    fn one_bad_address_refuses_all() {
        let own = Own::new(vec![address("127.0.0.1:8080")]);
        let vet = |list: &[&str], reach| vet(list.iter().map(|text| address(text)).collect(), reach, &own);
        assert_eq!(vet(&["9.9.9.9:443", "10.0.0.1:443"], Reach::Public), Err(DialError::Forbidden));
        assert!(vet(&["9.9.9.9:443", "10.0.0.1:443"], Reach::Private).is_ok());
        assert_eq!(vet(&["9.9.9.9:443", "169.254.169.254:443"], Reach::Private), Err(DialError::Forbidden));
        assert_eq!(vet(&["9.9.9.9:8080", "127.0.0.1:8080"], Reach::Private), Err(DialError::Forbidden));
        assert_eq!(vet(&["9.9.9.9:443", "149.112.112.112:443"], Reach::Public).unwrap().len(), 2);
        assert_eq!(vet(&[], Reach::Public), Err(DialError::Unresolved));
    }
}
