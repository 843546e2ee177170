//! Each rule, broken once.

use super::*;

const RULES: &str = r#"
graph = { targets = [] }
licenses = { allow = ["MIT", "Apache-2.0 WITH LLVM-exception", "ISC"] }
sources = { unknown-registry = "deny", unknown-git = "deny" }

[bans]
multiple-versions = "warn"
wildcards = "deny"
deny = [{ crate = "rsa", reason = "slow" }]
"#;

fn package(name: &str, license: &str) -> Package {
    Package {
        name: name.to_owned(),
        version: "1.0.0".to_owned(),
        license: Some(license.to_owned()),
        source: Some(CRATES_IO.to_owned()),
        ..Package::default()
    }
}

fn found(packages: &[Package]) -> Findings {
    judge(&toml::from_str(RULES).expect("rules"), packages).expect("a verdict")
}

#[test]
fn a_licence_must_be_allowed() {
    for fine in ["MIT", "MIT OR GPL-3.0", "MIT/Apache-2.0", "MIT AND ISC", "Apache-2.0 WITH LLVM-exception"] {
        assert!(found(&[package("a", fine)]).errors.is_empty(), "{fine}");
    }
    for bad in ["GPL-3.0", "MIT AND GPL-3.0", "Apache-2.0", "proprietary"] {
        assert_eq!(found(&[package("a", bad)]).errors.len(), 1, "{bad}");
    }
    assert_eq!(found(&[Package { license: None, ..package("a", "MIT") }]).errors.len(), 1);
}

#[test]
fn a_banned_crate_is_named_with_who_needs_it() {
    let banned = Package { dependents: ["b".to_owned()].into(), ..package("rsa", "MIT") };
    assert_eq!(found(&[banned]).errors, ["rsa 1.0.0 is banned: slow; needed by b"]);
}

#[test]
fn only_the_usual_registry_is_a_source() {
    for other in ["git+https://example.com/a#1", "registry+https://example.com/index"] {
        assert_eq!(found(&[Package { source: Some(other.to_owned()), ..package("a", "MIT") }]).errors.len(), 1);
    }
    assert!(found(&[Package { source: None, ..package("own", "MIT") }]).errors.is_empty());
}

#[test]
fn our_own_packages_name_versions() {
    let wild = || Package { wildcards: vec!["a".to_owned()], ..package("own", "MIT") };
    assert_eq!(found(&[Package { source: None, ..wild() }]).errors.len(), 1);
    assert!(found(&[wild()]).errors.is_empty(), "others' manifests are their own affair");
}

#[test]
fn two_versions_are_a_warning() {
    let findings = found(&[package("a", "MIT"), Package { version: "2.0.0".to_owned(), ..package("a", "MIT") }]);
    assert!(findings.errors.is_empty());
    assert_eq!(findings.warnings, ["a is here in 1.0.0 and 2.0.0"]);
}

#[test]
fn what_is_not_understood_is_an_error() {
    assert!(toml::from_str::<Rules>(&RULES.replace("wildcards", "wild-cards")).is_err());
    assert!(toml::from_str::<Rules>(&format!("{RULES}\n[advisories]\nyanked = \"deny\"")).is_err());
}
