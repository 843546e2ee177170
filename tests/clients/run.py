#!/usr/bin/env python3
"""Runs real clients and SDKs through the sidecar, before an upstream of our own.

Each client must deliver the real key and never the nonce, must never see a real key, and must show why it was refused.
Prints a line for each, and `N passed, N failed, N skipped` at the end.
"""

from __future__ import annotations

import argparse
import base64
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import leaks
from blind_proxy import BlindProxy
from cases import Case, cases
from fake_upstream import FakeUpstream
from judge import Run, complaints
from sidecar import Nonce, Sidecar

CLIENT_SECONDS_MAX = 90
PREFIXES = {
    "STRIPE_KEY": "rk_live_",
    "GITHUB_KEY": "ghp_",
    "SLACK_KEY": "xoxb-",
    "OPENAI_KEY": "sk-proj-",
    "ANTHROPIC_KEY": "sk-ant-",
}
HOSTS = {
    "api.stripe.com": "STRIPE_KEY",
    "api.github.com": "GITHUB_KEY",
    "github.com": "GITHUB_KEY",
    "slack.com": "SLACK_KEY",
    "api.openai.com": "OPENAI_KEY",
    "api.anthropic.com": "ANTHROPIC_KEY",
}


@dataclass
class Tally:
    """What has been run so far."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    nonces: list[str] = field(default_factory=list)

    def settle(self, name: str, found: list[str]) -> None:
        """Counts and prints one result."""
        if found:
            self.failed += 1
            print(f"FAIL  {name}: {'; '.join(found)}", flush=True)
        else:
            self.passed += 1
            print(f"ok    {name}", flush=True)

    def skip(self, name: str, reason: str) -> None:
        """Counts and prints what is not run."""
        self.skipped += 1
        print(f"skip  {name}: {reason}", flush=True)


@dataclass(frozen=True)
class Stage:
    """An upstream and a sidecar before it."""

    directory: Path
    keys: Mapping[str, str]
    upstream: FakeUpstream
    sidecar: Sidecar


@contextmanager
def stage(binary: Path) -> Iterator[Stage]:
    """Starts both, with keys that exist nowhere else."""
    credentials = {name: prefix + secrets.token_hex(20) for name, prefix in PREFIXES.items()}
    keys = {host: credentials[name] for host, name in HOSTS.items()}
    with tempfile.TemporaryDirectory(prefix="valetkey-clients-") as place:
        directory = Path(place)
        upstream = FakeUpstream(keys, directory)
        sidecar = Sidecar(binary, Path(__file__).with_name("policy.toml"), directory / "sidecar")
        (sidecar.directory / "upstream.pem").write_bytes(upstream.ca_file.read_bytes())
        try:
            sidecar.start(credentials, list(keys), upstream.port)
            yield Stage(directory, keys, upstream, sidecar)
        finally:
            sidecar.stop()
            upstream.close()


def run_client(on: Stage, case: Case, placeholder: str, environment: Mapping[str, str]) -> Run:
    """Runs one client with the variables that it needs and none of ours."""
    work = Path(tempfile.mkdtemp(dir=on.directory))
    own = {"PATH": os.environ["PATH"], "HOME": str(work), "LANG": "C.UTF-8", "API_KEY": placeholder, "GIT_TERMINAL_PROMPT": "0"}
    command = [part.replace("{key}", placeholder).replace("{work}", str(work)) for part in case.command]
    on.upstream.take()
    try:
        done = subprocess.run(
            command, cwd=work, env={**own, **environment}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=CLIENT_SECONDS_MAX, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        return Run(-1, (late.stdout or b"") + b" (it did not end)", on.upstream.take())
    return Run(done.returncode, done.stdout, on.upstream.take())


def run_cases(on: Stage, chosen: list[Case], without_node: str | None, tally: Tally) -> None:
    """Runs the clients, each with a nonce of its own."""
    environment = on.sidecar.environment()
    for case in chosen:
        if case.is_node and without_node:
            tally.skip(case.name, without_node)
            continue
        nonce = on.sidecar.mint("worker", case.service, case.scopes)
        tally.nonces.append(nonce.nonce)
        tally.settle(case.name, complaints(case, run_client(on, case, nonce.placeholder, environment), nonce, on.keys))


def run_controls(on: Stage, chosen: list[Case], tally: Tally) -> None:
    """Shows that the tests notice what they are there for."""
    case = next(case for case in chosen if case.name == "Python requests")
    environment = on.sidecar.environment()

    unknown = Nonce("an_" + "0" * 33, "ghp_an_" + "0" * 33)
    run = run_client(on, case, unknown.placeholder, environment)
    tally.settle("control: an unknown nonce is noticed", _expect(complaints(case, run, unknown, on.keys), "exit code"))

    nonce = on.sidecar.mint("worker", case.service, case.scopes)
    tally.nonces.append(nonce.nonce)
    proxy = BlindProxy(on.upstream.port)
    blind = {name: proxy.address if "proxy" in name.lower() else str(on.upstream.ca_file) for name in environment}
    run = run_client(on, case, nonce.placeholder, {**blind, "NO_PROXY": "", "no_proxy": ""})
    proxy.close()
    found = complaints(case, run, nonce, on.keys)
    tally.settle("control: a proxy that swaps nothing is noticed", _expect(found, "received the nonce"))

    key = on.keys[case.host]
    for form, text in (("plain", key), ("base64", base64.b64encode(f"ab{key}".encode()).decode()), ("hex", key.encode().hex())):
        found = complaints(case, Run(0, f"echo={text}".encode(), []), nonce, on.keys)
        tally.settle(f"control: a key in an output is noticed, {form}", _expect(found, "holds the real key"))


def _expect(found: list[str], wanted: str) -> list[str]:
    return [] if any(wanted in complaint for complaint in found) else [f"it was not noticed; found {found}"]


def check_sidecar(on: Stage, tally: Tally) -> None:
    """What the sidecar wrote, and how it ends."""
    code = on.sidecar.stop()
    tally.settle("the sidecar ends well", [] if code == 0 else [f"exit code {code}"])
    tally.settle("the audit verifies", [] if on.sidecar.audit_is_sound() else ["valetkey audit verify says no"])
    edited = on.directory / "edited.jsonl"
    edited.write_bytes(on.sidecar.written()["audit.jsonl"].replace(b"slack", b"slick", 1))
    tally.settle("control: an edited audit is noticed", ["it verifies"] if on.sidecar.audit_is_sound(edited) else [])
    found = []
    for name, data in on.sidecar.written().items():
        if any(leaks.find(key, data) for key in on.keys.values()):
            found.append(f"a real key is in {name}")
        if any(leaks.find(nonce, data) for nonce in tally.nonces):
            found.append(f"a nonce is in {name}")
    tally.settle("nothing secret is in what the sidecar wrote", found)


def main() -> int:
    """Runs everything that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", type=Path, required=True, help="the valetkey to test")
    parser.add_argument("--node", type=Path, help="the directory with the Node programs and their packages")
    parser.add_argument("--without-node", metavar="REASON", help="skip the Node clients, and say why")
    parser.add_argument("--only", metavar="TEXT", help="run the clients alone whose names hold this")
    given = parser.parse_args()
    without_node = given.without_node if given.node is None else None
    every = cases(given.node)
    chosen = [case for case in every if given.only is None or given.only in case.name]
    tally = Tally()
    with stage(given.binary) as on:
        run_cases(on, chosen, without_node, tally)
        run_controls(on, every, tally)
        check_sidecar(on, tally)
    print(f"{tally.passed} passed, {tally.failed} failed, {tally.skipped} skipped")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
