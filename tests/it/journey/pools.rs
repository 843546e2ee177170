//! Connections to upstreams are kept for the next request.

use crate::support::policies::one_api_with;
use crate::support::{FakeUpstream, TestSidecar, canary};

/// More hosts than connections are kept for.
const HOSTS: u64 = 1_100;
/// How often the host that is in use is asked meanwhile.
const EVERY: u64 = 100;

#[tokio::test]
async fn many_hosts_do_not_push_out_the_one_that_is_in_use() {
    let upstream = FakeUpstream::plain().await;
    let hosts = "hosts = [\"api.test\", \"api.test:80\", \"*.api.test:80\"]";
    let policy = one_api_with("cleartext = true")
        .replace("hosts = [\"api.test\"]", hosts)
        .replace("upstream_ca = \"{dir}/api.pem\"\n", "");
    let sidecar = TestSidecar::with_policy(&policy)
        .upstream(&["api.test:80"], "api", &upstream)
        .flag("--connect-to")
        .flag(&format!(":80:{}", upstream.address))
        .environment("API_KEY", &canary())
        .start()
        .await;
    let nonce = sidecar.orchestrator().mint("worker", "api", "read").await.nonce;
    let agent = sidecar.agent();
    let ask = async |host: &str| {
        let head = format!("GET http://{host}/x HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {nonce}\r\n\r\n");
        let answer = agent.raw(head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    };
    for number in 0..HOSTS {
        if number % EVERY == 0 {
            ask("api.test").await;
        }
        ask(&format!("h{number}.api.test")).await;
    }
    ask("api.test").await;
    assert_eq!(upstream.connections(), HOSTS + 1, "one for each host");
}
