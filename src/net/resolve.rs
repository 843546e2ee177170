//! Names to addresses.
//!
//! A name is looked up as it stands and never with a search list: `api` is not `api.default.svc.cluster.local`. The
//! trailing dot that tells the system so also hides the name from its hosts file, so that file is read here, first,
//! as systems do by default.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::io::AsyncReadExt;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::model::Host;

use super::DialError;

/// Look-ups that wait for the system at once. They cannot be cancelled, so a flood of dead names would take all of the
/// runtime's blocking threads.
const LOOKUPS_MAX: usize = 64;
/// The part of a hosts file that is read, in bytes.
const HOSTS_BYTES_MAX: u64 = 1024 * 1024;

/// Asks the hosts file, then the system.
#[derive(Debug)]
pub(super) struct Resolver {
    hosts: PathBuf,
    lookups: Arc<Semaphore>,
}

impl Resolver {
    /// The resolver of this machine.
    pub(super) fn system() -> Self {
        Self::with_hosts("/etc/hosts".into())
    }

    fn with_hosts(hosts: PathBuf) -> Self {
        Self { hosts, lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }

    /// All addresses of a host, without duplicates, in the system's order.
    ///
    /// # Errors
    /// [`DialError::Unresolved`] when there are none.
    pub(super) async fn resolve(&self, host: &Host) -> Result<Vec<IpAddr>, DialError> {
        if let Some(address) = host.ip() {
            return Ok(vec![address]);
        }
        let mut addresses = from_hosts(&self.read_hosts().await, host.as_str());
        if addresses.is_empty() {
            addresses = match host.as_str() {
                // RFC 6761, 6.3: never a question for a DNS server.
                name if name == "localhost" || name.ends_with(".localhost") => {
                    vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
                }
                name => self.ask(format!("{name}.")).await?,
            };
        }
        let mut seen = std::collections::HashSet::new();
        addresses.retain(|address| seen.insert(*address));
        if addresses.is_empty() { Err(DialError::Unresolved) } else { Ok(addresses) }
    }

    /// The hosts file; a missing or unreadable one has no names in it.
    async fn read_hosts(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match tokio::fs::File::open(&self.hosts).await {
            Ok(file) => match file.take(HOSTS_BYTES_MAX).read_to_end(&mut bytes).await {
                Ok(_) => bytes,
                Err(_) => Vec::new(),
            },
            Err(error) => {
                if error.kind() != ErrorKind::NotFound {
                    tracing::debug!(%error, "the hosts file cannot be read");
                }
                bytes
            }
        }
    }

    async fn ask(&self, name: String) -> Result<Vec<IpAddr>, DialError> {
        // The permit goes along, since the system's answer is waited for even when nobody wants it any more.
        let permit = Arc::clone(&self.lookups).acquire_owned().await.map_err(|_| DialError::Unresolved)?;
        let asked = spawn_blocking(move || {
            let _permit = permit;
            (name.as_str(), 0).to_socket_addrs().map(|found| found.map(|address| address.ip()).collect())
        });
        match asked.await {
            Ok(Ok(addresses)) => Ok(addresses),
            Ok(Err(_)) | Err(_) => Err(DialError::Unresolved),
        }
    }
}

/// The addresses of a name in a hosts file (`hosts(5)`): address, then names; `#` begins a comment.
fn from_hosts(text: &[u8], name: &str) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for line in String::from_utf8_lossy(text).lines() {
        let line = line.split('#').next().unwrap_or("");
        let mut words = line.split_ascii_whitespace();
        let Some(Ok(address)) = words.next().map(str::parse) else { continue };
        if words.any(|word| word.strip_suffix('.').unwrap_or(word).eq_ignore_ascii_case(name)) {
            addresses.push(address);
        }
    }
    addresses
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io::Write;

    /// A resolver with a hosts file of its own.
    pub(in crate::net) fn with(text: &str) -> (tempfile::NamedTempFile, Resolver) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let resolver = Resolver::with_hosts(file.path().to_owned());
        (file, resolver)
    }

    fn host(text: &str) -> Host {
        Host::parse(text).unwrap()
    }

    fn ips(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_hosts_file_is_read_as_systems_do() {
        let text =
            b"# 1.1.1.1 api.test\n\n  9.9.9.9\tAPI.test alias.test # x.test\n\xff\xfe bad\n::9 alias.test api.test.\n\
            127.1 api.test\n9.9.9.9.9 api.test\nfe80::1%lo api.test\n8.8.8.8 notapi.test api.test.evil\n7.7.7.7";
        assert_eq!(from_hosts(text, "api.test"), ips(&["9.9.9.9", "::9"]));
        assert_eq!(from_hosts(text, "alias.test"), ips(&["9.9.9.9", "::9"]));
        assert_eq!(from_hosts(text, "x.test"), ips(&[]));
        assert_eq!(from_hosts(b"", "api.test"), ips(&[]));
    }

    #[tokio::test]
    async fn literals_are_taken_as_they_are() {
        let (_file, resolver) = with("9.9.9.9 127.0.0.1\n");
        assert_eq!(resolver.resolve(&host("127.0.0.1")).await, Ok(ips(&["127.0.0.1"])));
        assert_eq!(resolver.resolve(&host("[::ffff:127.0.0.1]")).await, Ok(ips(&["::ffff:127.0.0.1"])));
    }

    #[tokio::test]
    async fn the_hosts_file_comes_first_and_names_an_address_once() {
        let (_file, resolver) = with("9.9.9.9 api.test\n::9 api.test\n9.9.9.9 api.test\n10.0.0.1 localhost\n");
        assert_eq!(resolver.resolve(&host("api.test")).await, Ok(ips(&["9.9.9.9", "::9"])));
        assert_eq!(resolver.resolve(&host("localhost")).await, Ok(ips(&["10.0.0.1"])));
    }

    #[tokio::test]
    async fn localhost_is_loopback_without_any_file() {
        let resolver = Resolver::with_hosts("/nonexistent/hosts".into());
        let loopback = Ok(ips(&["127.0.0.1", "::1"]));
        assert_eq!(resolver.resolve(&host("localhost")).await, loopback);
        assert_eq!(resolver.resolve(&host("api.localhost")).await, loopback);
    }

    #[tokio::test]
    async fn a_name_that_is_nowhere_is_unresolved() {
        // RFC 6761, 6.4: no resolver has an answer for it.
        let resolver = Resolver::system();
        assert_eq!(resolver.resolve(&host("nowhere.invalid")).await, Err(DialError::Unresolved));
    }
}
