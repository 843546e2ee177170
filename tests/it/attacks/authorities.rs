//! Another destination than the one that was judged, in every place where one can be named.

use super::{outcome, send};
use crate::support::Stage;

#[tokio::test]
async fn a_host_that_is_not_the_tunnels_is_refused() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let hosts = "evil.test|api.test:444|api.test:80|api.test:0443|api.test:+443|api.test:443x|api.test:0|api.test:65979|\
                 api.test:|api.test..|.api.test|api.test@evil.test|evil.test@api.test|u:p@api.test|api.test, evil.test|\
                 api.test,api.test|api.test evil.test|api.test\tevil.test|api.test/evil|api.test#|api.test?|\
                 api.test\\evil.test|%61pi.test|api%2etest|api\u{3002}test|[api.test]|[::1]|127.0.0.1|api.test;evil|\
                 xn--api.test|api_test|\u{430}pi.test|api.test.evil.test|evilapi.test|*.test||\"api.test\"|http://api.test";
    for host in hosts.split('|') {
        let bytes =
            format!("GET /x HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {nonce}\r\nConnection: close\r\n\r\n");
        let answer = send(&stage, bytes.as_bytes()).await;
        assert!(matches!(outcome(&answer).0, 400 | 421), "{host:?}: {answer}");
    }
    assert!(stage.upstream.seen().is_empty(), "nothing arrived");
    stage.assert_silent(&[&nonce]);
}

#[tokio::test]
async fn a_target_that_names_another_place_is_refused() {
    let stage = Stage::new().await;
    let nonce = stage.reader().await;
    let targets = "https://evil.test/x https://api.test@evil.test/x https://evil.test@api.test/x http://api.test/x \
                   https://api.test:444/x ftp://api.test/x //evil.test/x https:/x https:///x wss://api.test/x \
                   https://api.test\\@evil.test/x https://[::1]/x evil.test:443 api.test:443 * ! @evil.test/x :443/x";
    for target in targets.split_ascii_whitespace() {
        let answer = send(&stage, &super::request(&format!("GET {target}"), "", &nonce, "")).await;
        assert!(matches!(outcome(&answer).0, 400 | 421), "{target:?}: {answer}");
    }
    assert!(stage.upstream.seen().is_empty(), "nothing arrived");
}

#[tokio::test]
async fn connect_takes_host_and_port_and_nothing_else() {
    let stage = Stage::new().await;
    let targets = "api.test api.test: api.test:0 api.test:65979 api.test:0443 api.test:+443 u@api.test:443 \
                   api.test:443@evil.test:443 api.test,evil.test:443 [[::1]]:443 [api.test]:443 0x7f.1:443 127.1:443 \
                   2130706433:443 0177.0.0.1:443 0x7f000001:443 017700000001:443 0:443 127.0.0.01:443 \
                   api.test%00:443 /x https://api.test:443 https://api.test:443/x api..test:443 \
                   -api.test:443 api.test:443/x api.test:443?x xn--:443";
    for target in targets.split_ascii_whitespace() {
        let (answer, _) = stage.sidecar.agent().connect(target).await;
        assert_eq!(outcome(&answer).0, 400, "{target:?}: {answer}");
    }
    for target in ["api.test:22", "api.test:8443", "127.0.0.1:22", "evil.test:8443"] {
        let (answer, _) = stage.sidecar.agent().connect(target).await;
        assert_eq!(outcome(&answer).0, 403, "{target:?}: {answer}");
    }
}
