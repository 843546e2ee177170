//! Network namespaces of our own, for what only a kernel can do to connections: redirect them.

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::thread::{Gid, LinkNameSpaceType, Uid};
use rustix::thread::{move_into_link_name_space, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::skip;

/// How long connecting may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A network namespace with a loopback; deleted when dropped.
pub struct Namespace {
    name: String,
}

/// Where `ip` is missing or we are not root, says so and is false.
pub fn can_have_namespaces() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        skip("only root can make network namespaces");
    }
    is_root && is_installed("ip", "-V", "iproute2")
}

/// Where there can be no namespaces or `nft` is missing, which makes the kernel redirect, says so and is false.
pub fn can_redirect() -> bool {
    can_have_namespaces() && is_installed("nft", "--version", "nftables")
}

fn is_installed(program: &str, flag: &str, package: &str) -> bool {
    let run = Command::new(program).arg(flag).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let works = run.is_ok_and(|status| status.success());
    if !works {
        skip(format!("`{program}` (Debian: {package}) is not installed"));
    }
    works
}

impl Namespace {
    /// A new one. Panics where [`can_have_namespaces`] is false.
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("valetkey-{}-{number}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]));
        let namespace = Self { name };
        namespace.shell("ip link set lo up");
        namespace
    }

    /// Two namespaces with a cable: `inner` has `outside0`, 10.77.0.2 and fd77::2, and `outer` for a gateway, which has
    /// `inside0`, 10.77.0.1 and fd77::1.
    pub fn pair() -> (Self, Self) {
        let (inner, outer) = (Self::new(), Self::new());
        run(Command::new("ip").args(["link", "add", "outside0", "netns", &inner.name, "type", "veth"]).args([
            "peer",
            "name",
            "inside0",
            "netns",
            &outer.name,
        ]));
        outer.shell(
            "ip addr add 10.77.0.1/24 dev inside0
             ip addr add fd77::1/64 dev inside0 nodad
             ip link set inside0 up",
        );
        inner.shell(
            "ip addr add 10.77.0.2/24 dev outside0
             ip addr add fd77::2/64 dev outside0 nodad
             ip link set outside0 up
             ip route add default via 10.77.0.1
             ip -6 route add default via fd77::1",
        );
        (inner, outer)
    }

    /// Runs a script as root; each line has to work.
    pub fn shell(&self, script: &str) {
        run(Command::new("ip").args(["netns", "exec", &self.name, "sh", "-euc", script]));
    }

    /// Loads an nftables ruleset; what the kernel says if it cannot.
    pub fn rules(&self, ruleset: &str) -> Result<(), String> {
        self.inside(0, || {
            let mut nft = Command::new("nft");
            nft.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).stdout(Stdio::null());
            let mut child = nft.spawn().map_err(|error| error.to_string())?;
            child.stdin.take().expect("an input").write_all(ruleset.as_bytes()).map_err(|error| error.to_string())?;
            let output = child.wait_with_output().map_err(|error| error.to_string())?;
            if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
        })
    }

    /// Runs `act` on a thread in here, as this user; what it makes (sockets, processes) stays in here.
    pub fn inside<T: Send>(&self, uid: u32, act: impl FnOnce() -> T + Send) -> T {
        let link = File::open(format!("/run/netns/{}", self.name)).expect("the namespace");
        let thread = move || {
            move_into_link_name_space(link.as_fd(), Some(LinkNameSpaceType::Network)).expect("root");
            if uid != 0 {
                let (gid, uid) = (Gid::from_raw(uid), Uid::from_raw(uid));
                set_thread_groups(&[gid]).expect("root");
                set_thread_res_gid(gid, gid, gid).expect("root");
                set_thread_res_uid(uid, uid, uid).expect("root");
            }
            act()
        };
        std::thread::scope(|scope| scope.spawn(thread).join()).expect("no panic")
    }

    /// A listener in here.
    pub fn listener(&self, address: &str) -> tokio::net::TcpListener {
        let listener = self.inside(0, || std::net::TcpListener::bind(address)).expect("a port");
        listener.set_nonblocking(true).expect("an option");
        tokio::net::TcpListener::from_std(listener).expect("a listener")
    }

    /// A connection from in here, as this user.
    pub async fn connect(&self, uid: u32, to: &str) -> std::io::Result<tokio::net::TcpStream> {
        let to: SocketAddr = to.parse().expect("an address");
        let stream = self.inside(uid, || std::net::TcpStream::connect_timeout(&to, PATIENCE))?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        tokio::net::TcpStream::from_std(stream)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
