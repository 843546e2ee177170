//! TPROXY: nothing is translated, the socket itself has the address that the client wanted.

use std::sync::Arc;

use super::{AGENT, Curl, ELSEWHERE, OTHER, curl, for_the_agent, trust};
use crate::support::namespace::can_redirect;
use crate::support::{FakeUpstream, Namespace, Stage, policies, skip};

/// What brings marked packets to this machine itself.
const ROUTES: &str = "ip rule add fwmark 1 lookup 100
    ip route add local default dev lo table 100
    ip -6 rule add fwmark 1 lookup 100
    ip -6 route add local default dev lo table 100";

/// The agent's own connections, on the machine that it shares with the sidecar.
const LOCAL: &str = r#"
table inet local {
	chain output {
		type route hook output priority mangle;
		meta skuid { 1000, 1001 } oifname != "lo" tcp dport { 80, 443 } meta mark set 1
	}
	chain prerouting {
		type filter hook prerouting priority mangle;
		meta mark 1 meta nfproto ipv4 meta l4proto tcp tproxy ip to 127.0.0.1:15001
		meta mark 1 meta nfproto ipv6 meta l4proto tcp tproxy ip6 to [::1]:15001
	}
}
"#;

/// A sidecar in `home` that takes TPROXY connections.
async fn stage(home: &Arc<Namespace>, policy: &str, rules: &str, listeners: &[&str]) -> Option<Stage> {
    home.shell(ROUTES);
    if let Err(error) = home.rules(rules) {
        skip(format!("this kernel has no TPROXY: {error}"));
        return None;
    }
    let upstream = FakeUpstream::start_on(home.listener("127.0.0.1:0"), &["api.test"]);
    let transparent = |builder: crate::support::Builder| {
        let builder = builder.inside(home).flag("--tproxy").flag("--allow-remote");
        listeners.iter().fold(builder, |builder, address| builder.flag("--transparent").flag(address))
    };
    Some(Stage::of(policy, upstream, transparent).await)
}

async fn get(from: &Arc<Namespace>, stage: &Stage, uid: u32, address: &str, nonce: &str) -> Curl {
    let trusted = trust(&[("ca.pem", &stage.sidecar.text("public/ca.pem"))]);
    let (resolve, bearer) = (format!("api.test:443:{address}"), format!("Authorization: Bearer {nonce}"));
    curl(from, uid, &trusted, &["--resolve", &resolve, "-H", &bearer, "https://api.test/echo"]).await
}

#[tokio::test]
async fn an_agent_on_the_same_machine_is_served_and_known() {
    if !can_redirect() {
        return;
    }
    let (inner, _outer) = Namespace::pair();
    let inner = Arc::new(inner);
    let policy = for_the_agent(policies::ONE_API);
    let Some(stage) = stage(&inner, &policy, LOCAL, &["127.0.0.1:15001", "[::1]:15001"]).await else { return };
    for address in ELSEWHERE {
        let nonce = stage.reader().await;
        let reply = get(&inner, &stage, AGENT, address, &nonce).await;
        assert_eq!(reply.status(), 200, "{address}: {reply:?}\n{}", stage.sidecar.log());
        let reply = get(&inner, &stage, OTHER, address, &nonce).await;
        assert_eq!(reply.refusal(), Some("agent_mismatch"), "{address}: {reply:?}");
    }
    inner.connect(AGENT, "127.0.0.1:15001").await.expect("a listener");
    stage.sidecar.audited(|record| record["code"] == "transparent_loop").await;
}

#[tokio::test]
async fn a_gateway_serves_agents_of_other_machines_whom_it_cannot_know() {
    if !can_redirect() {
        return;
    }
    let (inner, outer) = Namespace::pair();
    let (inner, outer) = (Arc::new(inner), Arc::new(outer));
    let rules = include_str!("../../../deploy/tproxy.nft");
    let policy = for_the_agent(&policies::one_api_with("anonymous = true"));
    let Some(stage) = stage(&outer, &policy, rules, &["[::]:15001"]).await else { return };
    let trusted = trust(&[("ca.pem", &stage.sidecar.text("public/ca.pem"))]);
    for address in ELSEWHERE {
        let resolve = format!("api.test:443:{address}");
        let reply = curl(&inner, AGENT, &trusted, &["--resolve", &resolve, "https://api.test/echo"]).await;
        assert_eq!(reply.status(), 200, "{address}: {reply:?}\n{}", stage.sidecar.log());
        let reply = get(&inner, &stage, AGENT, address, &stage.reader().await).await;
        assert_eq!(reply.refusal(), Some("agent_unidentified"), "{address}: {reply:?}");
    }
    for address in ["10.77.0.1:15001", "[fd77::1]:15001"] {
        inner.connect(AGENT, address).await.expect("a listener");
    }
    stage.sidecar.audited(|record| record["code"] == "transparent_loop").await;
    let forwarded = inner.connect(AGENT, "198.51.100.7:8443").await;
    assert!(forwarded.is_err(), "nothing else goes through");
}
