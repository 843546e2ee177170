//! The admin listener: probes and metrics, read-only.

use crate::support::agent::with;
use crate::support::sidecar::eventually;
use crate::support::{FakeUpstream, Stage};

#[tokio::test]
async fn readiness_tells_the_truth_about_the_audit() {
    let well = Stage::new().await;
    let ready = well.sidecar.admin_get("/readyz?verbose").await;
    assert_eq!(ready.status, 200, "{}", ready.text());
    for check in ["authority", "policy", "listeners", "audit", "serving"] {
        assert!(ready.text().contains(&format!("\"{check}\":\"ok\"")), "{}", ready.text());
    }
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let ill = Stage::with(upstream, |builder| builder.audit("/dev/full")).await;
    let ready = ill.sidecar.admin_get("/readyz").await;
    assert_eq!(ready.status, 503, "{}", ready.text());
    assert!(ready.text().contains("audit"), "{}", ready.text());
    assert_eq!(ill.sidecar.admin_get("/livez").await.status, 200, "a restart would not help");
    let metrics = ill.sidecar.admin_get("/metrics").await.text();
    assert!(metrics.contains("valetkey_audit_healthy 0"), "{metrics}");
}

#[tokio::test]
async fn it_is_read_only() {
    let stage = Stage::new().await;
    for (request, status) in [
        ("POST /readyz HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "405"),
        ("DELETE /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "405"),
        ("GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", "400"),
        ("GET /debug HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
    ] {
        let answer = stage.sidecar.agent().at(stage.sidecar.admin).raw(request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
    }
}

#[tokio::test]
async fn the_documented_series_are_there_and_count() {
    let stage = Stage::new().await;
    let minted = stage.sidecar.orchestrator().mint("worker", "api", "read").await;
    let agent = stage.sidecar.agent();
    let bearer = format!("Bearer {}", minted.nonce);
    agent.get("api.test", "/x", &minted.nonce).await;
    agent.send(with("POST", "api.test", "/x", &[("authorization", &bearer)], "")).await;
    stage.sidecar.orchestrator().revoke(&minted.id).await;
    let text = stage.sidecar.admin_get("/metrics").await.text();
    for line in [
        "valetkey_exchanges_total{service=\"api\",decision=\"allowed\",code=\"ok\"} 1",
        "valetkey_exchanges_total{service=\"api\",decision=\"refused\",code=\"out_of_scope\"} 1",
        "valetkey_upstream_attempts_total{service=\"api\",outcome=\"ok\"} 1",
        "valetkey_nonces_minted_total 1",
        "valetkey_nonces_ended_total{cause=\"revoked\"} 1",
        "valetkey_nonces_live 0",
        "valetkey_audit_healthy 1",
        "valetkey_credential_healthy{credential=\"api\"} 1",
        "valetkey_overhead_seconds_count 1",
        "valetkey_panics_total 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    assert!(text.contains("valetkey_overhead_seconds_bucket{le=\"0.00005\"}"), "{text}");
    assert!(text.contains("valetkey_policy_info{digest=\"") && text.ends_with("# EOF\n"), "{text}");
    stage.assert_clean(text.as_bytes(), "the metrics");
    assert!(!text.contains(&minted.nonce) && !text.contains(&minted.id));
}

#[tokio::test]
async fn open_connections_are_counted_while_they_are_open() {
    let stage = Stage::new().await;
    let tunnel = stage.sidecar.agent().tls_tunnel("api.test", "api.test", &[]).await.expect("TLS");
    let count = async || {
        let text = stage.sidecar.admin_get("/metrics").await.text();
        let line = text.lines().find_map(|line| line.strip_prefix("valetkey_connections_open ")).map(str::to_owned);
        line.expect("a gauge")
    };
    let open = count().await;
    drop(tunnel);
    for _ in 0..200 {
        if count().await == "0" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(count().await, "0");
    assert_eq!(open, "1", "a tunnel is a connection for as long as it lasts");
}

#[tokio::test]
async fn nothing_that_an_agent_or_a_minter_can_choose_is_a_label() {
    let stage = Stage::new().await;
    let minted = stage
        .sidecar
        .orchestrator()
        .mint_with(serde_json::json!({
            "agent": "worker", "task": "weird-task", "service": "api", "scope": "read",
            "instance": "weird-instance", "labels": {"weird-label": "weird-value"},
        }))
        .await;
    let series = async || {
        let text = stage.sidecar.admin_get("/metrics").await.text();
        assert!(!text.contains("weird"), "{text}");
        text.lines().filter(|line| !line.starts_with('#')).count()
    };
    let agent = stage.sidecar.agent();
    let round = async |round: u32| {
        let bearer = format!("Bearer {}", minted.nonce);
        let (host, path) = (format!("weird-{round}.test"), format!("/weird/{round}"));
        agent.get("api.test", &path, &minted.nonce).await;
        agent.send(with("GET", &host, "/x", &[], "")).await;
        agent.send(with("WEIRD", "api.test", "/x", &[("authorization", &bearer), ("user-agent", "weird")], "")).await;
        agent.get("api.test", "/x", &format!("an_weird{round}")).await;
        agent.raw(format!("CONNECT weird{round}:1 HTTP/1.1\r\nHost: weird{round}:1\r\n\r\n").as_bytes()).await;
    };
    round(0).await;
    let before = series().await;
    for number in 1..6 {
        round(number).await;
    }
    assert_eq!(series().await, before, "no series more, whatever is sent");
}

#[tokio::test]
async fn logs_are_json_where_nobody_reads_them_and_hold_no_secrets() {
    let upstream = FakeUpstream::start(&["api.test"]).await;
    let stage = Stage::with(upstream, |builder| builder.flag("--log-level").flag("trace")).await;
    let nonce = stage.reader().await;
    for path in ["/echo", "/header", "/x?key=weird"] {
        stage.sidecar.agent().get("api.test", path, &nonce).await;
        stage.sidecar.agent().send_h2(crate::support::agent::get("api.test", path, &nonce)).await;
    }
    eventually("something to be logged", || stage.sidecar.log().contains("ready").then_some(())).await;
    for line in stage.sidecar.log().lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok_and(|line| line.is_object()), "{line}");
    }
    stage.assert_silent(&[&nonce]);
}
