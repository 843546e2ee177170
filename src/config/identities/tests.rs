//! How identities are spelled.

use super::*;

#[test]
fn identities_are_spelled_in_one_way() {
    for good in [
        "any",
        "uid:0",
        "bearer:file:/run/valetkey/mint-token",
        "kubernetes:agents/orchestrator",
        "spiffe://example.org/orchestrator",
        "oidc:ci:repository=acme/app",
        "oidc:ci:ref=refs/heads/main,repository=acme/app",
        "oidc:ci:sub=repo:acme/app:ref:refs/heads/main",
        "mtls:orchestrator.example.org",
    ] {
        assert_eq!(parse_identity(good).map(|identity| identity.to_string()).as_deref(), Some(good));
    }
    for bad in [
        "",
        "Any",
        "uid:",
        "uid:01",
        "uid:+1",
        "uid:4294967295",
        "bearer:x",
        "bearer:file:x",
        "bearer:file:",
        "kubernetes:ns",
        "kubernetes:ns/",
        "spiffe://example.org",
        "oidc:ci",
        "oidc:ci:",
        "oidc:ci:a",
        "oidc:ci:a=",
        "oidc:ci:=b",
        "oidc:ci:a=b,",
        "oidc:ci:a=b,a=c",
        "oidc:ci:a=b, c=d",
        "mtls:",
        "mtls:*.x",
        "unix:1",
        "root",
    ] {
        assert_eq!(parse_identity(bad), None, "{bad}");
    }
}
