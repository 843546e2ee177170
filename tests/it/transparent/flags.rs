//! How it is asked for.

use super::{SIDECAR, for_the_agent};
use crate::support::stranger::can_be_others;
use crate::support::{Builder, canary, policies};

fn with(policy: &str, flags: &[&str]) -> (Option<i32>, String) {
    let builder = Builder::new(policy).file("api.pem", "").environment("API_KEY", &canary());
    flags.iter().fold(builder, |builder, flag| builder.flag(flag)).fails()
}

#[test]
fn beyond_loopback_it_is_asked_for_twice_and_never_open_to_anybody() {
    let named = for_the_agent(policies::ONE_API);
    for flags in
        [&["--transparent=0.0.0.0:0"][..], &["--transparent=[::]:0"], &["--transparent=127.0.0.1:0", "--tproxy"]]
    {
        let (code, said) = with(&named, flags);
        assert_eq!(code, Some(5), "{flags:?}: {said}");
        assert!(said.contains("--allow-remote"), "{said}");
        let (code, said) = with(policies::ONE_API, &[flags, &["--allow-remote"]].concat());
        assert_eq!(code, Some(5), "{flags:?}: {said}");
        assert!(said.contains("any"), "{said}");
    }
}

#[test]
fn tproxy_is_about_a_transparent_listener() {
    let (code, said) = with(&for_the_agent(policies::ONE_API), &["--tproxy", "--allow-remote"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("--transparent"), "{said}");
}

#[test]
fn tproxy_without_the_capability_says_so_at_start() {
    if !can_be_others() {
        return;
    }
    let flags = ["--tproxy", "--allow-remote", "--transparent=127.0.0.1:0"];
    let upstream_ca = policies::ONE_API.replace("upstream_ca = \"{dir}/api.pem\"", "");
    let builder = Builder::new(&for_the_agent(&upstream_ca)).environment("API_KEY", &canary()).user(SIDECAR);
    let (code, said) = flags.iter().fold(builder, |builder, flag| builder.flag(flag)).fails();
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("CAP_NET_ADMIN"), "{said}");
}

#[test]
fn clients_that_know_of_no_proxy_cannot_be_asked_for_its_credentials() {
    let policy = format!("{}\n[egress]\nproxy_auth = \"required\"\n", policies::ONE_API);
    let (code, said) = with(&policy, &["--transparent=127.0.0.1:0"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("egress.proxy_auth"), "{said}");
}
