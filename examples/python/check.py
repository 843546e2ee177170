#!/usr/bin/env python3
"""Runs the example through a real sidecar, before an upstream that plays the API.

VALETKEY_BINARY names the sidecar; the Python that runs this needs the packages of tests/clients/requirements.txt.
Prints a line for each check, and `N passed, N failed, N skipped` at the end.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests" / "clients"))

import leaks  # noqa: E402
from fake_upstream import FakeUpstream  # noqa: E402
from sidecar import Sidecar  # noqa: E402

HOST = "api.stripe.com"
RUN_SECONDS_MAX = 60


def run(sidecar: Sidecar, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The orchestrator, with an agent behind `--`."""
    place = sidecar.directory
    own = ("--control", f"{place}/run/control.sock", "--ca", f"{place}/public", "--task", "refund-4711")
    command = [sys.executable, str(HERE / "orchestrator.py"), *own, "--service", "stripe", "--key", "STRIPE_API_KEY", *arguments]
    environment = {"PATH": os.environ["PATH"]}
    return subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=RUN_SECONDS_MAX, check=False
    )  # fmt: skip


def checks(sidecar: Sidecar, upstream: FakeUpstream, key: str) -> dict[str, bool]:
    """What the example does, and what it must never do."""
    agent = ("--", sys.executable, str(HERE / "agent.py"))
    done = run(sidecar, "--agent", "billing", "--scope", "read:customers", *agent)
    print(done.stdout)
    received = upstream.take()
    stranger = run(sidecar, "--agent", "stranger", "--scope", "read:customers", *agent)
    wide = run(sidecar, "--agent", "billing", "--scope", "write:refunds", *agent)
    failing = run(sidecar, "--agent", "billing", "--scope", "read:customers", "--", sys.executable, "-c", "exit(3)")
    audit = [json.loads(line) for line in (sidecar.directory / "audit.jsonl").read_text().splitlines()]
    ends = [record.get("cause") for record in audit if record["type"] == "lease_end"]
    return {
        "the agent did its task": done.returncode == 0 and f"agent: cus_1: hello from {HOST}" in done.stdout,
        "the upstream got the real key, once": len(received) == 1 and received[0].carries(key),
        "the upstream never got a nonce": not any(b"an_" in request.every_byte() for request in received),
        "the agent never got the real key": not leaks.find(key, done.stdout.encode()),
        "a refusal is told to the agent": "refused by the sidecar (out_of_scope)" in done.stdout,
        "an agent that the policy does not know gets no nonce": stranger.returncode == 1 and "unknown_agent" in stranger.stdout,
        "nor does one that asks for more than it may have": wide.returncode == 1 and "scope_not_grantable" in wide.stdout,
        "the agent's exit code is handed on": failing.returncode == 3,
        "each nonce was revoked at the end": ends == ["revoked", "revoked"],
        "the audit verifies": sidecar.audit_is_sound(),
    }


def main() -> int:
    """Plays it all."""
    binary = os.environ.get("VALETKEY_BINARY")
    if not binary:
        print("VALETKEY_BINARY has to name the valetkey to run", file=sys.stderr)
        return 2
    key = "rk_live_" + secrets.token_hex(20)
    with tempfile.TemporaryDirectory(prefix="valetkey-example-") as place:
        upstream = FakeUpstream({HOST: key}, Path(place))
        sidecar = Sidecar(Path(binary), HERE / "policy.toml", Path(place) / "sidecar")
        try:
            # The upstream's CA is what this sidecar takes for the system's roots.
            sidecar.start({"STRIPE_RESTRICTED_KEY": key, "SSL_CERT_FILE": str(upstream.ca_file)}, {HOST: upstream.port})
            results = checks(sidecar, upstream, key)
        finally:
            sidecar.stop()
            upstream.close()
    for name, held in results.items():
        print(f"{'ok   ' if held else 'FAIL '} {name}")
    failed = sum(not held for held in results.values())
    print(f"{len(results) - failed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
