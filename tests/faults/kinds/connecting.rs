//! Faults before there is HTTP: no listener, no handshake, no certificate that holds, no name.

use super::{Kind, Row, kind};
use crate::scene::{Expect, Scene};
use crate::support::policies;
use crate::upstream::{At, Fault, Step, Tls};

const UNREACHABLE: Expect = Expect::Refused(&["upstream_unreachable"]);
const UNSURE: Expect = Expect::Refused(&["upstream_unreachable", "upstream_tls"]);
const LATE: Expect = Expect::Refused(&["upstream_timeout"]);
const TLS: Expect = Expect::Refused(&["upstream_tls"]);

pub fn all() -> Vec<Kind> {
    let plain = |at, step: Step| Fault::h1(at, move || vec![step.clone()]);
    let tls = |tls| Fault { tls, ..Fault::none() };
    let clear = Step::Say(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_vec());
    let rows = vec![
        Row::new("connect_refused", plain(At::Connect, Step::Close), UNREACHABLE),
        Row::new("connect_reset", plain(At::Accepted, Step::Reset), UNSURE),
        Row::new("connect_closed", plain(At::Accepted, Step::Close), UNSURE),
        Row::new("connect_silent", plain(At::Accepted, Step::Hold), LATE),
        Row::new("handshake_closed", plain(At::Hello, Step::Close), UNSURE),
        Row::new("handshake_reset", plain(At::Hello, Step::Reset), UNSURE),
        Row::new("handshake_silent", plain(At::Hello, Step::Hold), LATE),
        Row::new("handshake_in_clear_text", plain(At::Hello, clear), UNSURE),
        Row::new("handshake_alert", plain(At::Hello, Step::Say(vec![21, 3, 3, 0, 2, 2, 40])), UNSURE),
        Row::new("handshake_half", plain(At::Hello, Step::Say(vec![22, 3, 3, 0, 200, 2, 0, 0])), UNSURE),
        Row::new("certificate_of_another_name", tls(Tls::OtherName), TLS),
        Row::new("certificate_expired", tls(Tls::Expired), TLS),
        Row::new("certificate_not_yet_valid", tls(Tls::NotYet), TLS),
        Row::new("certificate_of_another_ca", tls(Tls::OtherAuthority), TLS),
        Row::new("closed_after_handshake", plain(At::Secured, Step::Close), UNREACHABLE),
        Row::new("reset_after_handshake", plain(At::Secured, Step::Reset), UNREACHABLE),
    ];
    let mut kinds: Vec<Kind> = rows.into_iter().map(Row::kind).collect();
    kinds.push(kind("no_such_name", no_such_name));
    kinds
}

/// Another host of the service has no address: `.invalid` never has (RFC 6761).
async fn no_such_name(case: super::Case) {
    let policy = policies::ONE_API.replace("hosts = [\"api.test\"]", "hosts = [\"api.test\", \"nowhere.invalid\"]");
    let scene = Scene::with(case, Fault::none(), &policy, |builder, _| builder).await;
    let reply = scene.sidecar.agent().get("nowhere.invalid", "/x", &scene.reader).await;
    let code = reply.refusal().unwrap_or_default();
    assert!(["upstream_unreachable", "upstream_timeout"].contains(&code), "{} {code}", reply.status);
    assert_eq!(scene.upstream.recorder.sends().len(), 0);
    scene.works("/after").await;
    scene.finish().await;
}
