//! Three APIs, each with its own way of carrying a key.

use super::answered;
use crate::cli::demo::agent::{Call, Protocol, Reply};
use crate::cli::demo::canary::{Canaries, shorten};
use crate::cli::demo::scene::{Check, Scene};
use crate::cli::demo::stage::{Nonce, Stage};
use crate::cli::demo::trouble::Trouble;
use crate::cli::demo::upstream::{GITHUB, INTERNAL, Received, STRIPE};

/// One call, both ends of it.
struct Seen {
    host: &'static str,
    /// The header that carries the key.
    header: &'static str,
    /// What it should hold when it arrives.
    credential: String,
    nonce: Nonce,
    reply: Reply,
    received: Vec<Received>,
}

/// An API, and how it takes a key.
#[derive(Clone, Copy)]
struct Api {
    service: &'static str,
    scope: &'static str,
    host: &'static str,
    path: &'static str,
    header: &'static str,
    /// Before the key, with its space.
    scheme: &'static str,
    protocol: Protocol,
}

/// In the order of [`Canaries::all`].
const APIS: [Api; 3] = [
    Api {
        service: "stripe",
        scope: "read:customers",
        host: STRIPE,
        path: "/v1/customers",
        header: "authorization",
        scheme: "Bearer ",
        protocol: Protocol::Http1,
    },
    Api {
        service: "github",
        scope: "read:user",
        host: GITHUB,
        path: "/user",
        header: "authorization",
        scheme: "token ",
        protocol: Protocol::Http2,
    },
    Api {
        service: "internal",
        scope: "read",
        host: INTERNAL,
        path: "/v1/echo/base64",
        header: "x-api-key",
        scheme: "",
        protocol: Protocol::Http1,
    },
];

pub(super) async fn play(stage: &mut Stage, scene: &mut Scene) -> Result<(), Trouble> {
    let canaries = stage.canaries.clone();
    for (api, canary) in APIS.into_iter().zip(canaries.all()) {
        let Api { host, header, scheme, .. } = api;
        let nonce = stage.mint(api.service, api.scope, 300).await?;
        let before = stage.upstream.received_count();
        let call = Call::get(host, api.path, (header, format!("{scheme}{}", nonce.placeholder)));
        scene.tell("agent sends", format!("{}   {header}: {scheme}{}", call.line(), nonce.shown()));
        let reply = stage.agent.call(call, api.protocol).await?;
        let received = stage.upstream.received_after(before);
        let seen = Seen { host, header, credential: format!("{scheme}{canary}"), nonce, reply, received };
        seen.tell(scene, canary);
        scene.checks.extend(judge(&seen, &canaries));
    }
    Ok(())
}

impl Seen {
    fn tell(&self, scene: &mut Scene, canary: &str) {
        for request in &self.received {
            let value = shorten(&request.header(self.header), &[canary]);
            scene.tell("upstream gets", format!("{} {}   {}: {value}", request.method, request.target, self.header));
        }
        scene.tell("agent gets", format!("{} {}", self.reply.status, self.reply.text()));
    }
}

fn judge(seen: &Seen, canaries: &Canaries) -> Vec<Check> {
    let host = seen.host;
    let arrived: Vec<_> = seen.received.iter().map(|request| request.header(seen.header)).collect();
    let everything: Vec<u8> = seen.received.iter().flat_map(Received::everything).collect();
    let nonce = memchr::memmem::find(&everything, seen.nonce.plain.as_bytes());
    let hide = |text: &str| shorten(text, &canaries.all());
    let mut delivered = Check::same(
        format!("{host} receives the real credential, once, in the nonce's place"),
        &seen.credential,
        arrived.join(", "),
    );
    (delivered.expected, delivered.seen) = (hide(&delivered.expected), hide(&delivered.seen));
    vec![
        answered(&format!("the call to {host}"), &seen.reply),
        delivered,
        Check::same(format!("{host} never sees the nonce"), "none", nonce.map_or("none", |_| "the nonce")),
        Check::without_credential(&format!("the answer of {host}"), &seen.reply.everything(), canaries),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::scenes::samples::{assert_broken, nonce, ok, received, refusal};

    fn seen(canaries: &Canaries, header: &str) -> Seen {
        let mut request = received("GET", "/v1/customers");
        request.headers.insert("authorization", header.parse().unwrap());
        Seen {
            host: STRIPE,
            header: "authorization",
            credential: format!("Bearer {}", canaries.stripe),
            nonce: nonce("123"),
            reply: ok("{}"),
            received: vec![request],
        }
    }

    #[test]
    fn what_is_not_as_promised_is_seen() {
        let canaries = Canaries::new().unwrap();
        let good = format!("Bearer {}", canaries.stripe);
        assert_broken(&judge(&seen(&canaries, &good), &canaries), &[]);
        assert_broken(&judge(&seen(&canaries, "Bearer sk_test_an_123"), &canaries), &["receives", "never sees"]);
        let wrong = format!("Bearer {}", canaries.github);
        assert_broken(&judge(&seen(&canaries, &wrong), &canaries), &["receives"]);

        let mut twice = seen(&canaries, &good);
        twice.received.push(twice.received[0].clone());
        assert_broken(&judge(&twice, &canaries), &["receives"]);
        let nothing = Seen { received: Vec::new(), ..seen(&canaries, &good) };
        assert_broken(&judge(&nothing, &canaries), &["receives"]);
        let refused = Seen { reply: refusal(502, "upstream_tls", ""), ..seen(&canaries, &good) };
        assert_broken(&judge(&refused, &canaries), &["is answered"]);
        let leaking = Seen { reply: ok(&canaries.internal), ..seen(&canaries, &good) };
        assert_broken(&judge(&leaking, &canaries), &["no credential in"]);
    }
}
