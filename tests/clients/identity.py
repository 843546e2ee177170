"""Tokens of a real OpenID provider: whoever mints over TLS, and the agent that opens a tunnel."""

from __future__ import annotations

import http.client
import json
import secrets
import socket
import ssl
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme
import urllib3

import leaks
from fake_upstream import FakeUpstream
from oidc_provider import ISSUER, OTHER, Provider
from rows import Tally
from sidecar import Sidecar
from stage import HERE

HOST, CONTROL = "attached.example.com", "control.example.com"
SECONDS_MAX = 30
FINE = "hello from"


@dataclass(frozen=True)
class Scene:
    """A sidecar that believes one provider."""

    provider: Provider
    sidecar: Sidecar
    upstream: FakeUpstream
    key: str
    control: trustme.CA
    tally: Tally

    def mint(self, token: str) -> tuple[int, str]:
        """Mints with this token; the status, and the nonce or what was said."""
        trust = ssl.create_default_context()
        self.control.configure_trust(trust)
        port = int(json.loads((self.sidecar.directory / "ready.json").read_text())["control_tcp"].rsplit(":", 1)[1])
        connection = http.client.HTTPSConnection(CONTROL, timeout=SECONDS_MAX)
        stream = socket.create_connection(("127.0.0.1", port), SECONDS_MAX)
        connection.sock = trust.wrap_socket(stream, server_hostname=CONTROL)
        try:
            asked = {"agent": "worker", "task": "t", "grants": [{"service": "attached", "scopes": ["read"]}]}
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
            connection.request("POST", "/v1/nonces", json.dumps(asked), headers)
            answer = connection.getresponse()
            said = json.loads(answer.read())
            return answer.status, said.get("nonce") or f"{said['code']}: {said['detail']}"
        finally:
            connection.close()

    def fetch(self, nonce: str, token: str | None) -> str:
        """What an agent with this nonce and this token is told, by the upstream or instead of it."""
        shown = {"Proxy-Authorization": f"Bearer {token}"} if token else {}
        ca = str(self.sidecar.directory / "public" / "ca.pem")
        with urllib3.ProxyManager(self.sidecar.proxy, proxy_headers=shown, ca_certs=ca, retries=False) as proxy:
            try:
                answer = proxy.request("GET", f"https://{HOST}/demo", headers={"Authorization": f"Bearer {nonce}"})
                return f"{answer.status} {answer.data.decode()}"
            except urllib3.exceptions.HTTPError as error:
                return repr(error)

    def expect_mint(self, name: str, token: str, status: int, text: str = "") -> str:
        """Mints and settles one row; what came."""
        got, said = self.mint(token)
        is_fine = got == status and text in said
        self.tally.settle(f"OpenID provider: {name}", [] if is_fine else [f"{got} {said}"])
        return said

    def expect_fetch(self, name: str, nonce: str, token: str | None, text: str) -> None:
        """Fetches and settles one row."""
        said = self.fetch(nonce, token)
        self.tally.settle(f"OpenID provider: {name}", [] if text in said else [said])


def run_identity(binary: Path, tally: Tally) -> None:
    """Everything, before one provider."""
    with _scene(binary, tally) as scene:
        nonce = _believed(scene)
        _not_believed(scene, nonce)
        _changed(scene)
        _away(scene, nonce)
        tokens = [name for name, data in scene.sidecar.written().items() if b"eyJ" in data or leaks.find(nonce, data)]
        tally.settle("OpenID provider: no token is written down", tokens)
        tally.settle("OpenID provider: the audit verifies", [] if scene.sidecar.audit_is_sound() else ["it does not"])


@contextmanager
def _scene(binary: Path, tally: Tally) -> Iterator[Scene]:
    with tempfile.TemporaryDirectory(prefix="valetkey-identity-") as place, ExitStack() as ends:
        directory, key, control = Path(place), f"attached-{secrets.token_hex(20)}", trustme.CA()
        provider, upstream = Provider(), FakeUpstream({HOST: key}, directory)
        ends.callback(provider.stop)
        ends.callback(upstream.close)
        said = provider.discovered()
        algorithm = said["id_token_signing_alg_values_supported"][0]
        text = (HERE / "identity.toml").read_text().replace("{issuer}", said["issuer"])
        text = text.replace("{jwks}", said["jwks_uri"]).replace("{algorithm}", algorithm)
        policy = directory / "identity.toml"
        policy.write_text(text)
        sidecar = Sidecar(binary, policy, directory / "sidecar")
        (sidecar.directory / "upstream.pem").write_bytes(upstream.ca_file.read_bytes())
        provider.authority.cert_pem.write_to_path(str(sidecar.directory / "provider.pem"))
        flags = _listener(control, sidecar.directory)
        ends.callback(sidecar.stop)
        sidecar.start({"ATTACHED_KEY": key}, {HOST: upstream.port, ISSUER: provider.port}, flags)
        yield Scene(provider, sidecar, upstream, key, control, tally)


def _listener(control: trustme.CA, directory: Path) -> tuple[str, ...]:
    """The certificate and the key of the control listener, and its flags."""
    leaf = control.issue_cert(CONTROL)
    chain, key = directory / "control.pem", directory / "control.key"
    chain.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    key.touch(0o600)
    key.write_bytes(leaf.private_key_pem.bytes())
    return ("--control-tcp", "127.0.0.1:0", "--control-tls-cert", str(chain), "--control-tls-key", str(key))


def _believed(on: Scene) -> str:
    nonce = on.expect_mint("a token of it mints", on.provider.token("orchestrator"), 201, "an_")
    on.upstream.take()
    on.expect_fetch("a token of it opens a tunnel", nonce, on.provider.token("worker-7"), f"200 {{\"description\": \"{FINE} {HOST}")
    arrived = on.upstream.take()
    carried = len(arrived) == 1 and arrived[0].carries(on.key) and not arrived[0].for_the_proxy()
    on.tally.settle("OpenID provider: the upstream has the key and no token", [] if carried else [repr(arrived)])
    return nonce


def _not_believed(on: Scene, nonce: str) -> None:
    provider = on.provider
    on.expect_mint("another audience mints nothing", provider.token("orchestrator", "other"), 401, "audience")
    on.expect_mint("another issuer mints nothing", provider.token("orchestrator", issuer=OTHER), 401, "issuer")
    on.expect_mint("another subject mints nothing", provider.token("somebody"), 401, "knows no minter")
    on.expect_mint("an agent mints nothing", provider.token("worker-7"), 403, "forbidden")
    on.expect_fetch("another audience opens no tunnel", nonce, provider.token("worker-7", "other"), "403 identity_refused")
    on.expect_fetch("another issuer opens no tunnel", nonce, provider.token("worker-7", issuer=OTHER), "403 identity_refused")
    on.expect_fetch("another subject may not use the nonce", nonce, provider.token("worker-8"), "agent_mismatch")
    on.expect_fetch("nobody may use the nonce", nonce, None, "agent_unidentified")
    head, claims, signature = provider.token("orchestrator").split(".")
    flipped = ("B" if signature[9] == "A" else "A").join((signature[:9], signature[10:]))
    on.expect_mint("another signature mints nothing", f"{head}.{claims}.{flipped}", 401, "signature")
    provider.names_keys = False
    on.expect_mint("a token that names no key mints nothing", provider.token("orchestrator"), 401, "key")
    provider.names_keys = True


def _changed(on: Scene) -> None:
    before, kid = on.provider.token("orchestrator"), on.provider.keys()[0]["kid"]
    on.provider.change_key()
    on.tally.settle("OpenID provider: it has another key", [] if on.provider.keys()[0]["kid"] != kid else ["it has not"])
    on.expect_mint("a token of its new key mints", on.provider.token("orchestrator"), 201)
    on.expect_mint("a token of its withdrawn key mints nothing", before, 401, "key")


def _until_asked_again(on: Scene, token: str) -> None:
    """Of a provider that was away too often, keys are asked for once in 10 s; until then nothing can be said of them."""
    deadline = time.monotonic() + SECONDS_MAX
    while on.mint(token)[0] == 503 and time.monotonic() < deadline:
        time.sleep(0.2)


def _away(on: Scene, nonce: str) -> None:
    known = on.provider.token("orchestrator")
    on.provider.change_key()
    unknown, agents = on.provider.token("orchestrator"), on.provider.token("worker-7")
    on.provider.stop()
    on.expect_mint("while it is away, a token of its last key mints", known, 201)
    on.expect_mint("while it is away, a token of a key that nobody knows mints nothing", unknown, 503, "identity_unavailable")
    on.expect_fetch("while it is away, such a token opens no tunnel", nonce, agents, "503 identity_unavailable")
    on.provider.start()
    _until_asked_again(on, unknown)
    on.expect_mint("when it is back, that token mints", unknown, 201)
    on.expect_fetch("when it is back, that token opens a tunnel", nonce, agents, f"200 {{\"description\": \"{FINE} {HOST}")
