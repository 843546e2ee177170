//! What a CA that is limited by name constraints may sign (RFC 5280, 4.2.1.10).

use std::collections::BTreeSet;
use std::net::IpAddr;

use rcgen::{CidrSubnet, GeneralSubtree, NameConstraints};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use crate::model::Host;

/// Names and addresses. A name stands for itself and for all names below it: certificates know no narrower limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permitted {
    names: BTreeSet<String>,
    addresses: BTreeSet<IpAddr>,
}

impl Permitted {
    /// These hosts; `None` without a name, as a limit on names alone would then be none.
    #[must_use]
    pub fn new<'a>(hosts: impl IntoIterator<Item = &'a Host>) -> Option<Self> {
        let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for host in hosts {
            match host.ip() {
                Some(address) => _ = addresses.insert(address),
                None => _ = names.insert(host.as_str().to_owned()),
            }
        }
        (!names.is_empty()).then_some(Self { names, addresses })
    }

    /// As the certificate says it.
    pub(super) fn constraints(&self) -> NameConstraints {
        let names = self.names.iter().map(|name| GeneralSubtree::DnsName(name.clone()));
        let addresses = self.addresses.iter().map(|address| GeneralSubtree::IpAddress(only(*address)));
        // A limit on names says nothing of addresses: without one that may be signed, all are excluded.
        let excluded =
            if self.addresses.is_empty() { everywhere().map(GeneralSubtree::IpAddress).into() } else { vec![] };
        NameConstraints { permitted_subtrees: names.chain(addresses).collect(), excluded_subtrees: excluded }
    }

    /// What a certificate permits; `None` if it is not limited, or in a way that we do not limit one.
    pub(super) fn read(certificate: &X509Certificate<'_>) -> Option<Self> {
        let constraints = certificate.name_constraints().ok()??;
        let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for subtree in constraints.value.permitted_subtrees.iter().flatten() {
            match &subtree.base {
                GeneralName::DNSName(name) => _ = names.insert((*name).to_owned()),
                GeneralName::IPAddress(bytes) => _ = addresses.insert(address(bytes)?),
                _ => return None,
            }
        }
        let is_closed =
            !addresses.is_empty() || constraints.value.excluded_subtrees.as_ref().is_some_and(|e| e.len() == 2);
        (constraints.critical && !names.is_empty() && is_closed).then_some(Self { names, addresses })
    }

    /// Names and addresses, for people.
    #[must_use]
    pub fn texts(&self) -> Vec<String> {
        self.names.iter().cloned().chain(self.addresses.iter().map(ToString::to_string)).collect()
    }
}

fn only(address: IpAddr) -> CidrSubnet {
    match address {
        IpAddr::V4(address) => CidrSubnet::V4(address.octets(), [0xff; 4]),
        IpAddr::V6(address) => CidrSubnet::V6(address.octets(), [0xff; 16]),
    }
}

fn everywhere() -> [CidrSubnet; 2] {
    [CidrSubnet::V4([0; 4], [0; 4]), CidrSubnet::V6([0; 16], [0; 16])]
}

/// An address with a mask that leaves nothing open.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    let (address, mask) = bytes.split_at_checked(bytes.len() / 2)?;
    if mask.iter().any(|byte| *byte != 0xff) {
        return None;
    }
    let v4 = <[u8; 4]>::try_from(address).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(address).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::Arc;

    use rcgen::{Issuer, KeyPair};
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls::crypto::ring::default_provider;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{Error, RootCertStore};

    use super::*;
    use crate::authority::certificate::{self, Validity};
    use crate::authority::{Authority, AuthorityError, Home, PublicPart, bundle};
    use crate::clock::{Clock as _, SystemClock};

    fn hosts(texts: &[&str]) -> Vec<Host> {
        texts.iter().map(|text| Host::parse(text).unwrap()).collect()
    }

    fn permitted(texts: &[&str]) -> Permitted {
        Permitted::new(&hosts(texts)).unwrap()
    }

    struct Made {
        issuer: Issuer<'static, KeyPair>,
        der: CertificateDer<'static>,
        now: i64,
    }

    fn made(texts: &[&str]) -> Made {
        let now = SystemClock.now().wall.as_second();
        let key = certificate::new_key().unwrap();
        let der = certificate::new_authority(&key, now, 86_400, Some(&permitted(texts))).unwrap();
        Made { issuer: Issuer::from_ca_cert_der(&der, key).unwrap(), der, now }
    }

    impl Made {
        fn leaf(&self, host: &Host) -> CertificateDer<'static> {
            let validity = Validity { from: self.now - 60, until: self.now + 3600 };
            certificate::new_leaf(host, validity, &certificate::new_key().unwrap(), &self.issuer).unwrap()
        }
    }

    /// What rustls says of a leaf for this host.
    fn judge(made: &Made, host: &str) -> Result<(), Error> {
        let leaf = made.leaf(&Host::parse(host).unwrap());
        let mut roots = RootCertStore::empty();
        roots.add(made.der.clone()).unwrap();
        let provider = Arc::new(default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).unwrap();
        verifier.verify_server_cert(&leaf, &[], &name, &[], UnixTime::now()).map(drop)
    }

    #[test]
    fn a_leaf_for_another_host_is_refused_by_rustls() {
        let names = made(&["api.stripe.test", "internal.test"]);
        for host in ["api.stripe.test", "internal.test", "below.internal.test"] {
            assert_eq!(judge(&names, host), Ok(()), "{host}");
        }
        for host in ["stripe.test", "xapi.stripe.test", "bank.test", "127.0.0.1", "[::1]"] {
            let told = format!("{:?}", judge(&names, host));
            assert!(told.contains("NameConstraintViolation"), "{host}: {told}");
        }
        let both = made(&["api.test", "10.0.0.1"]);
        assert_eq!(["api.test", "10.0.0.1"].map(|host| judge(&both, host)), [Ok(()), Ok(())]);
        for host in ["10.0.0.2", "bank.test", "[::1]"] {
            assert!(judge(&both, host).is_err(), "{host}");
        }
    }

    #[test]
    fn a_leaf_for_another_host_is_refused_by_openssl() {
        let (place, made) = (tempfile::tempdir().unwrap(), made(&["api.test"]));
        let ca = place.path().join("ca.pem");
        std::fs::write(&ca, bundle::pem(&made.der)).unwrap();
        let verify = |host: &str| {
            let leaf = place.path().join("leaf.pem");
            std::fs::write(&leaf, bundle::pem(&made.leaf(&Host::parse(host).unwrap()))).unwrap();
            let ran = Command::new("openssl").args(["verify", "-x509_strict", "-CAfile"]).arg(&ca).arg(&leaf).output();
            ran.ok().map(|ran| (ran.status.success(), String::from_utf8_lossy(&ran.stderr).into_owned()))
        };
        let Some((is_good, said)) = verify("api.test") else { return };
        assert!(is_good, "{said}");
        for host in ["bank.test", "127.0.0.1"] {
            let (is_good, said) = verify(host).unwrap();
            assert!(!is_good && said.contains("subtree"), "{host}: {said}");
        }
    }

    #[test]
    fn what_is_there_must_permit_the_same() {
        let wanted = permitted(&["api.test", "10.0.0.1"]);
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("ca");
        let open = |permitted| Authority::open_constrained(&path, Arc::new(SystemClock), permitted).err();
        assert!(open(&wanted).is_none(), "it is made");
        assert!(open(&wanted).is_none(), "and found");
        assert!(matches!(open(&permitted(&["api.test"])), Some(AuthorityError::OtherNames { .. })));
        let shown = PublicPart::read(&path).unwrap().unwrap();
        assert_eq!(shown.describe().permitted, Some(wanted.clone()));
        let free = place.path().join("free");
        Authority::open(&Home::Directory(free.clone()), Arc::new(SystemClock)).unwrap();
        let refused = Authority::open_constrained(&free, Arc::new(SystemClock), &wanted).err();
        assert!(matches!(refused, Some(AuthorityError::OtherNames { .. })), "an unlimited one does not pass for it");
        assert_eq!(Permitted::new(&hosts(&["10.0.0.1"])), None);
    }
}
