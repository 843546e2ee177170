use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    KeyPair, KeyUsagePurpose, NameConstraints, SanType, date_time_ymd,
};

use super::*;

const ID: &str = "spiffe://example.org/worker";
const NAME: &str = "worker.test";
/// In the middle of what certificates are made for here.
const NOW: i64 = 1_750_000_000;

type Ca = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn root(name: &str) -> Ca {
    CertifiedIssuer::self_signed(authority(name), KeyPair::generate().unwrap()).unwrap()
}

fn params(names: &[SanType]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names.to_vec();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    (params.not_before, params.not_after) = (date_time_ymd(2025, 1, 1), date_time_ymd(2026, 1, 1));
    params
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

fn signed(params: &CertificateParams, by: &Ca) -> CertificateDer<'static> {
    params.signed_by(&KeyPair::generate().unwrap(), by).unwrap().der().clone()
}

/// A trust domain, another one, and a CA of names.
struct Scene {
    directory: tempfile::TempDir,
    mesh: Ca,
    other: Ca,
    names: Ca,
}

impl Scene {
    fn new() -> Self {
        let scene = Self {
            directory: tempfile::tempdir().unwrap(),
            mesh: root("mesh"),
            other: root("other"),
            names: root("names"),
        };
        scene.lay("mesh", &scene.mesh.pem());
        scene.lay("other", &scene.other.pem());
        scene.lay("names", &scene.names.pem());
        scene
    }

    fn lay(&self, name: &str, pem: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.directory.path().join(name);
        std::fs::write(&path, pem).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    }

    fn judge(&self, chain: &[CertificateDer<'static>]) -> Result<String, Refused> {
        self.judge_at(chain, NOW).map(|(identity, _)| identity.to_string())
    }

    fn judge_at(&self, chain: &[CertificateDer<'static>], now: i64) -> Result<(Identity, i64), Refused> {
        let ca = |name: &str, trust_domain: Option<&str>| ClientCa {
            name: name.into(),
            trust_domain: trust_domain.map(str::to_owned),
            source: CaSource::File(self.directory.path().join(name)),
        };
        let cas = [ca("mesh", Some("example.org")), ca("other", Some("other.org")), ca("names", None)];
        let clock: SharedClock = crate::clock::ManualClock::new();
        let proven = certify(&cas.map(|ca| Arc::new(Voucher::new(ca, &clock))), chain, now)?;
        Ok((proven.identity, proven.end))
    }
}

#[test]
fn each_ca_vouches_for_its_own_alone() {
    let scene = Scene::new();
    let judge = |names: &[SanType], by: &Ca| scene.judge(&[signed(&params(names), by)]);
    assert_eq!(judge(&[uri(ID)], &scene.mesh).as_deref(), Ok(ID));
    assert_eq!(judge(&[uri(ID), dns(NAME)], &scene.mesh).as_deref(), Ok(ID));
    assert_eq!(judge(&[dns(NAME)], &scene.names).as_deref(), Ok("mtls:worker.test"));
    for (names, by) in [
        (vec![uri(ID)], &scene.other),
        (vec![uri(ID)], &scene.names),
        (vec![dns(NAME)], &scene.mesh),
        (vec![uri("spiffe://elsewhere.org/worker")], &scene.mesh),
        (vec![uri("spiffe://other.org/worker")], &scene.mesh),
    ] {
        assert_eq!(judge(&names, by), Err(Refused::CertificateAuthority), "{names:?}");
    }
    for names in [[uri(ID), uri("spiffe://example.org/x")], [uri("spiffe://example.org"), dns(NAME)]] {
        assert_eq!(judge(&names, &scene.mesh), Err(Refused::CertificateName), "{names:?}");
    }
    assert_eq!(scene.judge(&[]), Err(Refused::CertificateName));
    assert_eq!(scene.judge(&[CertificateDer::from(vec![1, 2, 3])]), Err(Refused::CertificateName));
    let own = params(&[uri(ID)]).self_signed(&KeyPair::generate().unwrap()).unwrap();
    assert_eq!(scene.judge(&[own.der().clone()]), Err(Refused::CertificateAuthority));
}

#[test]
fn a_certificate_holds_within_its_time_and_that_of_those_above_it() {
    let scene = Scene::new();
    let leaf = signed(&params(&[uri(ID)]), &scene.mesh);
    let (from, to) = (date_time_ymd(2025, 1, 1).unix_timestamp(), date_time_ymd(2026, 1, 1).unix_timestamp());
    assert_eq!(scene.judge_at(std::slice::from_ref(&leaf), from).unwrap().1, to);
    assert!(scene.judge_at(std::slice::from_ref(&leaf), to).is_ok());
    for now in [from - 1, to + 1, -1] {
        assert_eq!(scene.judge_at(std::slice::from_ref(&leaf), now).err(), Some(Refused::CertificateOver), "{now}");
    }
    let mut above = authority("below mesh");
    (above.not_before, above.not_after) = (date_time_ymd(2025, 1, 1), date_time_ymd(2025, 7, 1));
    let above = CertifiedIssuer::signed_by(above, KeyPair::generate().unwrap(), &scene.mesh).unwrap();
    let leaf = signed(&params(&[uri(ID)]), &above);
    let end = date_time_ymd(2025, 7, 1).unix_timestamp();
    let chain = [leaf.clone(), above.der().clone()];
    assert_eq!(scene.judge_at(&chain, NOW).unwrap().1, end, "the first of them that is over");
    assert_eq!(scene.judge_at(&chain, end + 1).err(), Some(Refused::CertificateOver));
    assert_eq!(scene.judge(&[leaf]), Err(Refused::CertificateAuthority), "without the one above it");
}

#[test]
fn a_chain_ends_with_the_authority_that_it_leads_to() {
    let scene = Scene::new();
    let of_years = |from, to| {
        let mut params = authority("mesh");
        (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 7, 1));
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    };
    let short = of_years(2025, 2025);
    let end = date_time_ymd(2025, 7, 1).unix_timestamp();
    let leaf = signed(&params(&[uri(ID)]), &short);
    let judge = |pem: &str, now| {
        scene.lay("mesh", pem);
        scene.judge_at(std::slice::from_ref(&leaf), now).map(|(_, end)| end)
    };
    assert_eq!(judge(&short.pem(), NOW), Ok(end));
    assert_eq!(judge(&short.pem(), end), Ok(end), "its last second");
    assert_eq!(judge(&short.pem(), end + 1), Err(Refused::CertificateOver));
    // Another one, of the same name, says nothing of it; and the same key, certified for longer, does.
    assert_eq!(judge(&(short.pem() + &of_years(2025, 2030).pem()), end + 1), Err(Refused::CertificateOver));
    let mut longer = authority("mesh");
    longer.not_after = date_time_ymd(2030, 1, 1);
    let longer = longer.self_signed(short.key()).unwrap().pem();
    let leaf_end = date_time_ymd(2026, 1, 1).unix_timestamp();
    assert_eq!(judge(&(short.pem() + &longer), end + 1), Ok(leaf_end));
    assert_eq!(judge(&(longer + &short.pem()), NOW), Ok(leaf_end), "the order means nothing");
    assert_eq!(judge(&of_years(2026, 2030).pem(), NOW), Err(Refused::CertificateAuthority), "not its key");
    let mut later = authority("mesh");
    later.not_before = date_time_ymd(2026, 1, 1);
    let later = later.self_signed(short.key()).unwrap().pem();
    assert_eq!(judge(&later, NOW), Err(Refused::CertificateOver), "not yet there");
}

#[test]
fn a_bundle_is_certificates_one_behind_the_other() {
    use crate::identity::workload::Content;
    let (one, two) = (root("one"), root("two"));
    let leaf = signed(&params(&[uri(ID)]), &two);
    let whole = [one.der().as_ref(), two.der().as_ref()].concat();
    let anchors = Anchors::parse(&whole).unwrap();
    assert!(anchors.verify(&leaf, &[], NOW).is_ok());
    assert_eq!(Anchors::parse(one.der()).unwrap().verify(&leaf, &[], NOW), Err(Refused::CertificateAuthority));
    assert_eq!(Anchors::parse(&[]).unwrap().verify(&leaf, &[], NOW), Err(Refused::CertificateAuthority), "none");
    for bad in [&whole[..whole.len() - 1], &[whole.as_slice(), &[0]].concat(), one.pem().as_bytes(), b"x"] {
        assert!(Anchors::parse(bad).is_none());
    }
}

#[test]
fn what_the_key_is_for_is_looked_at() {
    let scene = Scene::new();
    let judge = |names: &[SanType], by: &Ca, edit: &dyn Fn(&mut CertificateParams)| {
        let mut params = params(names);
        edit(&mut params);
        scene.judge(&[signed(&params, by)])
    };
    let none = |params: &mut CertificateParams| params.key_usages.clear();
    let agreement = |params: &mut CertificateParams| params.key_usages = vec![KeyUsagePurpose::KeyAgreement];
    let server =
        |params: &mut CertificateParams| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let both = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    };
    assert_eq!(judge(&[uri(ID)], &scene.mesh, &both).as_deref(), Ok(ID));
    assert_eq!(judge(&[dns(NAME)], &scene.names, &none).as_deref(), Ok("mtls:worker.test"));
    assert_eq!(judge(&[uri(ID)], &scene.mesh, &none), Err(Refused::CertificateUse), "an SVID has to say it");
    for (names, by) in [(uri(ID), &scene.mesh), (dns(NAME), &scene.names)] {
        assert_eq!(judge(std::slice::from_ref(&names), by, &agreement), Err(Refused::CertificateUse));
        assert_eq!(judge(std::slice::from_ref(&names), by, &server), Err(Refused::CertificateUse));
        let ca = |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        assert_eq!(judge(std::slice::from_ref(&names), by, &ca), Err(Refused::CertificateName));
    }
    let signs = |params: &mut CertificateParams| params.key_usages.push(KeyUsagePurpose::KeyCertSign);
    assert_eq!(judge(&[uri(ID)], &scene.mesh, &signs), Err(Refused::CertificateName));
}

#[test]
fn the_file_counts_as_it_is_now() {
    let scene = Scene::new();
    let (old, new) = (signed(&params(&[uri(ID)]), &scene.mesh), root("mesh, later"));
    let fresh = signed(&params(&[uri(ID)]), &new);
    let both = scene.mesh.pem() + &new.pem();
    for (pem, holds) in [(scene.mesh.pem(), [true, false]), (both, [true, true]), (new.pem(), [false, true])] {
        scene.lay("mesh", &pem);
        assert_eq!([&old, &fresh].map(|leaf| scene.judge(std::slice::from_ref(leaf)).is_ok()), holds);
    }
    for broken in ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        scene.lay("mesh", broken);
        assert_eq!(scene.judge(std::slice::from_ref(&fresh)), Err(Refused::Unavailable), "{broken}");
    }
    std::fs::remove_file(scene.directory.path().join("mesh")).unwrap();
    assert_eq!(scene.judge(&[fresh]), Err(Refused::Unavailable));
}

#[test]
fn a_limited_authority_names_nobody_by_a_common_name() {
    let scene = Scene::new();
    let mut common = params(&[]);
    common.distinguished_name = rcgen::DistinguishedName::new();
    common.distinguished_name.push(DnType::CommonName, NAME);
    let below = |limits: Option<NameConstraints>| {
        let mut above = authority("below names");
        above.name_constraints = limits;
        let above = CertifiedIssuer::signed_by(above, KeyPair::generate().unwrap(), &scene.names).unwrap();
        scene.judge(&[signed(&common, &above), above.der().clone()])
    };
    assert_eq!(below(None).as_deref(), Ok("mtls:worker.test"));
    let elsewhere = vec![GeneralSubtree::DnsName("team-a.test".into())];
    let limits = NameConstraints { permitted_subtrees: elsewhere, excluded_subtrees: Vec::new() };
    assert_eq!(below(Some(limits)), Err(Refused::CertificateName));
}
