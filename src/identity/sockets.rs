//! The kernel's table of TCP sockets: `/proc/self/net/tcp` and `tcp6` (proc_net_tcp in the kernel's documentation).

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Sockets that are looked through; a machine with more of them gets no answer.
const LINES_MAX: usize = 65_536;
/// A line is 150 bytes long in `tcp`, below 200 in `tcp6`.
const LINE_BYTES_MAX: u64 = 512;

/// The uid of the socket whose own address is `peer` and whose remote one is `local`.
pub(super) fn owner(peer: SocketAddr, local: SocketAddr) -> Option<u32> {
    if !is_on_this_machine(peer.ip(), local.ip()) {
        return None;
    }
    lookup(peer, local)
}

/// The uid of the socket whose own address is `peer`, one of this machine's, and whose remote one is `original`.
pub(super) fn owner_of_redirected(peer: SocketAddr, original: SocketAddr) -> Option<u32> {
    // An address that nobody here has could be in the table as the local end of a TPROXY connection of our own.
    if is_of_this_machine(peer) { lookup(peer, original) } else { None }
}

/// True unless the kernel says that no address of this machine's is this one: where it can say nothing, as without a
/// descriptor, or of an address that is of one interface alone, it may be.
pub(super) fn is_of_this_machine(peer: SocketAddr) -> bool {
    let bound = UdpSocket::bind((peer.ip(), 0));
    bound.map_or_else(|error| error.kind() != ErrorKind::AddrNotAvailable, |_| true)
}

/// The uid of the socket with these two addresses.
pub(super) fn lookup(peer: SocketAddr, local: SocketAddr) -> Option<u32> {
    // A socket of IPv6 can carry IPv4: it is in `tcp6` then.
    let tables: &[&str] =
        if peer.is_ipv4() { &["/proc/self/net/tcp", "/proc/self/net/tcp6"] } else { &["/proc/self/net/tcp6"] };
    tables.iter().find_map(|path| search(BufReader::new(File::open(path).ok()?), peer, local).ok()?)
}

/// Loopback on both ends, or one address talking to itself. Anything else may be another machine's socket that looks
/// like one of ours.
fn is_on_this_machine(peer: IpAddr, local: IpAddr) -> bool {
    (peer.is_loopback() && local.is_loopback()) || (peer == local && !peer.is_unspecified())
}

fn search(mut table: impl BufRead, peer: SocketAddr, local: SocketAddr) -> io::Result<Option<u32>> {
    let mut line = Vec::with_capacity(256);
    for _ in 0..LINES_MAX {
        line.clear();
        if table.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let socket = std::str::from_utf8(&line).ok().and_then(Socket::parse);
        if let Some(socket) = socket.filter(|socket| socket.own == peer && socket.remote == local) {
            return Ok(socket.held_by());
        }
    }
    Ok(None)
}

/// One line of the table.
#[derive(Debug, PartialEq, Eq)]
struct Socket {
    own: SocketAddr,
    remote: SocketAddr,
    state: u8,
    uid: u32,
    inode: u64,
}

impl Socket {
    /// Columns: number, own address, remote address, state, queues, timer, retransmissions, uid, timeout, inode, ….
    /// `None` for the heading and for anything that does not look as documented.
    fn parse(line: &str) -> Option<Self> {
        let mut columns = line.split_ascii_whitespace();
        let own = address(columns.nth(1)?)?;
        let remote = address(columns.next()?)?;
        let state = u8::from_str_radix(columns.next()?, 16).ok()?;
        let uid = columns.nth(3)?.parse().ok()?;
        let inode = columns.nth(1)?.parse().ok()?;
        Some(Self { own, remote, state, uid, inode })
    }

    /// Its owner, where a process holds it. Without an inode nobody does, and the uid shown is 0 whoever it was;
    /// of the states (`include/net/tcp_states.h`) only these are of a connection that somebody can hold.
    fn held_by(&self) -> Option<u32> {
        const ESTABLISHED: u8 = 1;
        const FIN_WAIT_1: u8 = 4;
        const FIN_WAIT_2: u8 = 5;
        const CLOSE_WAIT: u8 = 8;
        let is_connected = matches!(self.state, ESTABLISHED | FIN_WAIT_1 | FIN_WAIT_2 | CLOSE_WAIT);
        (is_connected && self.inode != 0).then_some(self.uid)
    }
}

/// `0100007F:1F90`: the address in words of 32 bits, each a number as this machine reads it from memory; the port
/// plain. IPv4 in IPv6 comes out as IPv4.
fn address(text: &str) -> Option<SocketAddr> {
    let (words, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let ip = match words.len() {
        8 => IpAddr::from(Ipv4Addr::from(word(words)?)),
        32 => {
            let mut bytes = [0; 16];
            for (place, at) in bytes.chunks_exact_mut(4).zip((0..32).step_by(8)) {
                place.copy_from_slice(&word(words.get(at..at + 8)?)?);
            }
            Ipv6Addr::from(bytes).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

fn word(digits: &str) -> Option<[u8; 4]> {
    u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    const TCP: &str = include_str!("../../tests/vectors/identity/tcp");
    const TCP6: &str = include_str!("../../tests/vectors/identity/tcp6");

    fn find(table: &str, peer: &str, local: &str) -> Option<u32> {
        search(table.as_bytes(), peer.parse().unwrap(), local.parse().unwrap()).unwrap()
    }

    #[test]
    fn the_line_of_the_peer_is_found_and_not_our_own() {
        assert_eq!(find(TCP, "127.0.0.1:51000", "127.0.0.1:8080"), Some(1000));
        assert_eq!(find(TCP, "127.0.0.1:8080", "127.0.0.1:51000"), Some(2102));
        assert_eq!(find(TCP, "10.1.2.3:40000", "10.1.2.3:8080"), Some(1001));
    }

    #[test]
    fn states_without_an_owner_are_never_believed() {
        assert_eq!(find(TCP, "127.0.0.1:51001", "127.0.0.1:8080"), None, "TIME_WAIT");
        assert_eq!(find(TCP, "127.0.0.1:51002", "127.0.0.1:8080"), None, "FIN_WAIT_2 without inode");
        assert_eq!(find(TCP, "127.0.0.1:51003", "127.0.0.1:8080"), Some(1000), "FIN_WAIT_2 that is held");
        assert_eq!(find(TCP, "127.0.0.1:51004", "127.0.0.1:8080"), Some(1000), "CLOSE_WAIT that is held");
        assert_eq!(find(TCP, "127.0.0.1:51005", "127.0.0.1:8080"), None, "SYN_SENT");
        assert_eq!(find(TCP, "127.0.0.1:51006", "127.0.0.1:8080"), None, "ESTABLISHED, not accepted yet");
        assert_eq!(find(TCP, "0.0.0.0:8080", "0.0.0.0:0"), None, "LISTEN");
    }

    #[test]
    fn ipv6_is_read_word_by_word() {
        assert_eq!(find(TCP6, "[::1]:52000", "[::1]:8080"), Some(1000));
        assert_eq!(find(TCP6, "[2001:db8:1:2:3:4:5:6]:52001", "[2001:db8:1:2:3:4:5:6]:8080"), Some(1002));
        assert_eq!(find(TCP6, "127.0.0.1:52002", "127.0.0.1:8080"), Some(1003), "IPv4 in IPv6");
    }

    #[test]
    fn lines_that_are_not_as_documented_are_passed_over() {
        let table = format!("{}\n{TCP}", "x ".repeat(5000));
        assert_eq!(find(&table, "127.0.0.1:51000", "127.0.0.1:8080"), Some(1000));
        let good = TCP.lines().nth(2).unwrap();
        assert!(Socket::parse(good).is_some());
        for cut in 0..70 {
            assert_eq!(Socket::parse(&good[..cut]), None, "cut at {cut}");
        }
        assert_eq!(address("0100007F"), None);
        assert_eq!(address("0100007:1F90"), None);
        assert_eq!(address("0100007F:1F900"), None);
    }

    #[test]
    fn a_table_that_is_too_long_gives_no_answer() {
        let (heading, line) = (TCP.lines().next().unwrap(), TCP.lines().nth(2).unwrap());
        let table = |filler| format!("{}{line}\n", format!("{heading}\n").repeat(filler));
        assert_eq!(find(&table(LINES_MAX - 1), "127.0.0.1:51000", "127.0.0.1:8080"), Some(1000));
        assert_eq!(find(&table(LINES_MAX), "127.0.0.1:51000", "127.0.0.1:8080"), None);
    }

    #[test]
    fn only_ends_on_this_machine_count() {
        let cases = [
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.9.9.9", true),
            ("::1", "::1", true),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("127.0.0.1", "10.1.2.3", false),
            ("10.1.2.3", "127.0.0.1", false),
            ("0.0.0.0", "0.0.0.0", false),
        ];
        for (peer, local, expected) in cases {
            assert_eq!(is_on_this_machine(peer.parse().unwrap(), local.parse().unwrap()), expected, "{peer} {local}");
        }
    }
}
