#!/usr/bin/env python3
"""Runs an agent for one task, with a nonce in place of the API key. Standard library only.

    python3 orchestrator.py --agent billing --task refund-4711 \\
        --service stripe --scope read:customers --key STRIPE_API_KEY -- python3 agent.py

It mints over the sidecar's control socket, starts the agent with the nonce and with the proxy and CA variables, waits,
and revokes the nonce whatever happened. The agent's exit code is its own.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

ANSWER_SECONDS_MAX = 10
# Most clients *replace* their roots by what these name, so they get the system's roots and the sidecar's CA.
BUNDLE_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO")
# These add to the roots, so they get the CA alone.
CA_VARIABLES = ("NODE_EXTRA_CA_CERTS", "DENO_CERT")
# What an agent may know of our own environment.
HANDED_ON = ("PATH", "HOME", "LANG", "TZ", "VIRTUAL_ENV")


class Refused(Exception):
    """The control API said no; the text says why."""


class Sidecar:
    """The control API, over its Unix socket."""

    def __init__(self, control: str) -> None:
        self._control = control

    def mint(self, body: dict[str, Any]) -> dict[str, Any]:
        """A nonce. With the key, a call that is sent again after a hiccup gets the same one."""
        headers = {"Content-Type": "application/json", "Idempotency-Key": str(uuid.uuid4())}
        status, answer = self._call("POST", "/v1/nonces", headers, json.dumps(body))
        if status != 201:
            raise Refused(f"{answer.get('code')}: {answer.get('detail')}")
        return answer

    def revoke(self, nonce_id: str) -> None:
        """Ends a nonce at once, on connections that are already open too."""
        status, answer = self._call("DELETE", f"/v1/nonces/{nonce_id}", {}, None)
        if status != 204:
            raise Refused(f"{answer.get('code')}: {answer.get('detail')}")

    def _call(self, method: str, path: str, headers: dict[str, str], body: str | None) -> tuple[int, dict[str, Any]]:
        connection = _Connection(self._control)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else {}
        finally:
            connection.close()


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=ANSWER_SECONDS_MAX)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(ANSWER_SECONDS_MAX)
        self.sock.connect(self._path)


def environment(minted: dict[str, Any], given: argparse.Namespace) -> dict[str, str]:
    """What the agent is started with: the nonce where the key would be, and the way through the sidecar."""
    own = {name: os.environ[name] for name in HANDED_ON if name in os.environ}
    proxy = {name: minted["proxy"] for name in ("HTTPS_PROXY", "https_proxy")}
    direct = {name: "localhost,127.0.0.1,::1" for name in ("NO_PROXY", "no_proxy")}
    bundle = {name: str(given.ca / "ca-bundle.pem") for name in BUNDLE_VARIABLES}
    added = {name: str(given.ca / "ca.pem") for name in CA_VARIABLES}
    # In the shape that the service's SDKs insist on, or as it is.
    key = minted["placeholders"].get(given.service, minted["nonce"])
    return {**own, **proxy, **direct, **bundle, **added, "NODE_USE_ENV_PROXY": "1", given.key: key}


def arguments() -> argparse.Namespace:
    """What was typed."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    base = f"{runtime}/valetkey" if runtime else f"/tmp/valetkey-{os.getuid()}"
    control = os.environ.get("VALETKEY_CONTROL", f"{base}/control.sock")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--control", default=control, help="the sidecar's control socket")
    parser.add_argument("--ca", type=Path, default=Path("certs/public"), help="the directory of `serve --ca-publish`")
    parser.add_argument("--agent", required=True, help="whose nonce, as the policy names it")
    parser.add_argument("--task", required=True)
    parser.add_argument("--service", required=True)
    parser.add_argument("--scope", required=True, action="append")
    parser.add_argument("--ttl", default="5m")
    parser.add_argument("--key", required=True, metavar="VARIABLE", help="where the agent looks for its API key")
    parser.add_argument("command", nargs="+", help="the agent")
    given = parser.parse_args()
    given.ca = given.ca.resolve()
    return given


def main() -> int:
    """Mints, runs, revokes."""
    given = arguments()
    sidecar = Sidecar(given.control)
    try:
        asked = {"agent": given.agent, "task": given.task, "service": given.service, "scope": given.scope, "ttl": given.ttl}
        minted = sidecar.mint(asked)
    except (Refused, OSError) as error:
        print(f"orchestrator: no nonce: {error}", file=sys.stderr)
        return 1
    print(f"orchestrator: minted {minted['id']} for {minted['expires_in']} s", flush=True)
    try:
        return subprocess.run(given.command, env=environment(minted, given), check=False).returncode
    finally:
        sidecar.revoke(minted["id"])
        print(f"orchestrator: revoked {minted['id']}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
