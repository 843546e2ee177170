//! The sockets of another process, looked at from outside.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{getpeername, getsockname, sockopt::tcp_nodelay};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::agent::PATIENCE;
use super::skip;
use super::wire::read_answers;

/// One end of a TCP connection.
#[derive(Debug, Clone, Copy)]
pub struct Tcp {
    pub local: SocketAddr,
    pub peer: SocketAddr,
    /// `TCP_NODELAY`.
    pub says_no_delay: bool,
}

/// Asks `api.test` for something on an open connection, which stays open.
pub async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), target: &str, nonce: &str) {
    let head = format!("GET {target} HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("writable");
    let answer = read_answers(stream, 1, PATIENCE).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// How many descriptors a process has open; `None`, said on standard error, where nobody may look.
pub fn descriptors(pid: u32) -> Option<usize> {
    numbers(pid).map(|numbers| numbers.len())
}

/// The connected TCP sockets of a process; `None`, said on standard error, where nobody may look.
///
/// `TCP_NODELAY` is not in what the kernel tells of a socket (`/proc/net/tcp`, `ss`), so that each is duplicated with
/// `pidfd_getfd(2)` and asked itself. A sidecar is not dumpable: that takes `CAP_SYS_PTRACE`, which root has outside
/// containers.
pub fn connected(pid: u32) -> Option<Vec<Tcp>> {
    let process = Pid::from_raw(pid.cast_signed()).expect("a pid");
    let process = pidfd_open(process, PidfdFlags::empty()).expect("a process");
    let mut found = Vec::new();
    for number in numbers(pid)? {
        match pidfd_getfd(&process, number, PidfdGetfdFlags::empty()) {
            Ok(descriptor) => found.extend(tcp(&descriptor)),
            Err(Errno::PERM | Errno::NOSYS) => return skipped("the descriptors of another process cannot be had"),
            // Closed meanwhile.
            Err(Errno::BADF) => {}
            Err(error) => panic!("pidfd_getfd: {error}"),
        }
    }
    Some(found)
}

/// All connected sockets of a process say `TCP_NODELAY`, and so many of them belong to each of these addresses.
pub fn assert_no_delay(pid: u32, expected: &[(&str, SocketAddr, usize)]) {
    let Some(sockets) = connected(pid) else { return };
    for (what, address, count) in expected {
        let found = sockets.iter().filter(|tcp| [tcp.local, tcp.peer].contains(address)).count();
        assert_eq!(found, *count, "{what} at {address}: {sockets:#?}");
    }
    assert_eq!(sockets.len(), expected.iter().map(|(_, _, count)| count).sum::<usize>(), "no others: {sockets:#?}");
    let delayed: Vec<&Tcp> = sockets.iter().filter(|tcp| !tcp.says_no_delay).collect();
    assert!(delayed.is_empty(), "Nagle's algorithm is on: {delayed:#?}");
}

fn numbers(pid: u32) -> Option<Vec<i32>> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
        return skipped("the descriptors of another process cannot be seen");
    };
    Some(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

fn skipped<T>(why: &str) -> Option<T> {
    skip(why);
    None
}

/// `None` for what is no TCP socket, or not connected.
fn tcp(descriptor: &OwnedFd) -> Option<Tcp> {
    let peer = SocketAddr::try_from(getpeername(descriptor).ok()??).ok()?;
    let local = SocketAddr::try_from(getsockname(descriptor).ok()?).ok()?;
    Some(Tcp { local, peer, says_no_delay: tcp_nodelay(descriptor.as_fd()).expect("an option") })
}
