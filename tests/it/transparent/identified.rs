//! Who the caller is, when the connection was redirected.

use super::{AGENT, ELSEWHERE, OTHER, PATIENCE, Scene};

#[tokio::test]
async fn another_user_s_nonce_is_refused() {
    let Some(scene) = Scene::new().await else { return };
    for address in ELSEWHERE {
        let nonce = scene.nonce().await;
        let reply = scene.get(OTHER, address, &nonce).await;
        assert_eq!((reply.status(), reply.refusal()), (403, Some("agent_mismatch")), "{address}: {reply:?}");
        assert_eq!(scene.get(AGENT, address, &nonce).await.status(), 200, "{address}");
    }
    let record = scene.stage.sidecar.audited(|record| record["code"] == "agent_mismatch").await;
    assert_eq!(record["presented_by.identity"], format!("uid:{OTHER}"), "{record:#}");
}

/// Two connections from one port to two places: the kernel gives the second another source port, on its way to us.
#[tokio::test]
async fn who_cannot_be_told_is_nobody() {
    let Some(scene) = Scene::in_clear_text().await else { return };
    let bind = |to: &'static str| {
        scene.inner.inside(AGENT, move || {
            use socket2::{Domain, Socket, Type};
            let address = |text: &str| text.parse::<std::net::SocketAddr>().expect("an address").into();
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            socket.set_reuse_address(true).expect("an option");
            socket.bind(&address("10.77.0.2:40123")).expect("a port");
            socket.connect(&address(to)).expect("redirected");
            socket.set_nonblocking(true).expect("an option");
            std::net::TcpStream::from(socket)
        })
    };
    let (_first, second) = (bind("198.51.100.7:80"), bind("198.51.100.8:80"));
    let mut second = tokio::net::TcpStream::from_std(second).expect("a stream");
    let nonce = scene.nonce().await;
    let request = format!("GET / HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\n\r\n");
    tokio::io::AsyncWriteExt::write_all(&mut second, request.as_bytes()).await.expect("writable");
    let said = crate::support::wire::read_answers(&mut second, 1, PATIENCE).await;
    assert!(said.contains("valetkey-error: agent_unidentified"), "{said}");
}
