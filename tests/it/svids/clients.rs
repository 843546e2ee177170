//! Programs whose proxy is an `https://` URL.

use std::process::{Command, Output};

use super::{Scene, WORKER, policy, scene};
use crate::support::outer::{address, lay, svid};
use crate::support::remote::write;

/// curl, with nothing from its surroundings.
fn curl(scene: &Scene, nonce: &str, arguments: &[&str]) -> Output {
    let path = |name: &str| scene.stage.sidecar.path(name).to_str().expect("a path").to_owned();
    let mut command = Command::new("curl");
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.args(["-q", "-sS", "-v", "--max-time", "20", "--cacert", &path("public/ca.pem")]);
    command.args(["--proxy-cacert", &path("server.pem")]);
    command.args(["-x", &format!("https://{}", address(&scene.stage.sidecar))]);
    command.args(["-H", &format!("Authorization: Bearer {nonce}")]);
    command.args(arguments).arg("https://api.test/x").output().expect("curl")
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_shows_its_certificate() {
    let scene = scene(&policy(), |builder, _| builder).await;
    write(&scene.stage.sidecar.path("server.pem"), &scene.entry.server.pem, 0o644);
    lay(scene.directory.path(), "worker", &svid(&scene.mesh, &[WORKER], |_| {}));
    lay(scene.directory.path(), "stranger", &svid(&scene.far, &[WORKER], |_| {}));
    let nonce = scene.stage.reader().await;
    let path = |name: &str| scene.stage.sidecar.path(name).to_str().expect("a path").to_owned();
    for (who, more, wanted) in [
        ("worker", "--http2", "HTTP/2 200"),
        ("worker", "--http1.1", "HTTP/1.1 200"),
        ("stranger", "--http2", "403 identity_refused"),
        ("", "--http2", "HTTP/2 401"),
    ] {
        let (certificate, key) = (path(&format!("{who}.pem")), path(&format!("{who}.key")));
        let shown = ["--proxy-cert", &certificate, "--proxy-key", &key, more];
        let output = curl(&scene, &nonce, if who.is_empty() { &shown[4..] } else { &shown });
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(log.contains(wanted), "{who}: {log}");
    }
    assert_eq!(scene.stage.upstream.seen().len(), 2);
    scene.stage.assert_silent(&[&nonce]);
}

/// `HTTPS_PROXY=https://…`, a client certificate in the context of the proxy, standard library alone.
const PYTHON: &str = r#"
import http.client, ssl, sys
directory, host, port, nonce = sys.argv[1:]
outer = ssl.create_default_context(cafile=directory + "/server.pem")
outer.load_cert_chain(directory + "/worker.pem", directory + "/worker.key")
inner = ssl.create_default_context(cafile=directory + "/public/ca.pem")
proxy = http.client.HTTPSConnection(host, int(port), context=outer, timeout=20)
proxy.connect()
proxy.sock.sendall(b"CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n\r\n")
head = b""
while not head.endswith(b"\r\n\r\n"):
    head += proxy.sock.recv(1) or sys.exit("closed")
assert b" 200 " in head, head
below, above = ssl.MemoryBIO(), ssl.MemoryBIO()
tls = inner.wrap_bio(below, above, server_hostname="api.test")
def step(what):
    while True:
        try:
            done = what()
            proxy.sock.sendall(above.read())
            return done
        except ssl.SSLWantReadError:
            proxy.sock.sendall(above.read())
            below.write(proxy.sock.recv(65536) or sys.exit("closed"))
step(tls.do_handshake)
request = f"GET /x HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {nonce}\r\nConnection: close\r\n\r\n"
step(lambda: tls.write(request.encode()))
print(step(lambda: tls.read(65536)).decode())
"#;

#[tokio::test(flavor = "multi_thread")]
async fn python_speaks_tls_within_tls() {
    let scene = scene(&policy(), |builder, _| builder).await;
    write(&scene.stage.sidecar.path("server.pem"), &scene.entry.server.pem, 0o644);
    lay(scene.directory.path(), "worker", &svid(&scene.mesh, &[WORKER], |_| {}));
    let nonce = scene.stage.reader().await;
    let there = address(&scene.stage.sidecar);
    let output = Command::new("python3")
        .args(["-I", "-c", PYTHON])
        .arg(scene.directory.path())
        .args([there.ip().to_string(), there.port().to_string(), nonce.clone()])
        .output()
        .expect("python3");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("HTTP/1.1 200"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    scene.stage.assert_silent(&[&nonce]);
}
