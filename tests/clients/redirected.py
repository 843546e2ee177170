"""Clients that know of no proxy: deploy/redirect.nft brings their connections to `serve --transparent`.

`run_redirected` starts this file once more, in a network namespace of its own that ends with it. There the names of the
upstreams lead out of the machine, so that only the redirection can bring anybody to the sidecar. No variable names a proxy.
Each row's control redirects to the upstream itself, with the nonce as it is.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from case import CUSTOMERS, REPOSITORY, Case
from cases import cases
from cases_node import node_case
from cases_python import python_case
from judge import complaints, excerpt
from rows import Possible, Tally, expect, run_client
from stage import HOSTS, Block, Stage, has_shims, stage

RULES = Path(__file__).parents[2] / "deploy" / "redirect.nft"
# The user and the port that the rules name.
USER, PORT = 1000, 15001
SECONDS_MAX = 300
# Python, Node and their packages may be where root alone reads.
_READS = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
AGENT = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", *_READS, "--")
_NAMESPACE = ("unshare", "--net", "--mount")
# An address for documentation alone (RFC 5737), behind a cable that ends in here.
_ELSEWHERE = "203.0.113.10"
_SETUP = """
ip link set lo up
ip link add outside0 type veth peer name outside1
ip addr add 10.77.0.2/24 dev outside0
ip link set outside0 up
ip link set outside1 up
ip route add default via 10.77.0.1
mount --bind "$1" /etc/hosts
shift
exec "$@"
"""


def why_not() -> str | None:
    """Why this cannot be run here; none if it can."""
    if os.geteuid() != 0:
        return "only root can make network namespaces"
    missing = [program for program in ("unshare", "ip", "nft", "mount", "setpriv") if shutil.which(program) is None]
    if missing:
        return f"{', '.join(missing)} is not installed"
    made = subprocess.run([*_NAMESPACE, "true"], capture_output=True, timeout=30, check=False)
    if made.returncode != 0:
        return f"no network namespace: {excerpt(made.stderr)}"
    become = subprocess.run([*AGENT, "true"], capture_output=True, timeout=30, check=False)
    return f"no other user: {excerpt(become.stderr)}" if become.returncode != 0 else None


def run_redirected(binary: Path, possible: Possible, tally: Tally) -> None:
    """All rows, in a process and a namespace of their own."""
    if reason := why_not():
        tally.skip("redirected clients", reason)
        return
    with tempfile.NamedTemporaryFile("w", prefix="valetkey-clients-hosts-") as hosts:
        hosts.write("127.0.0.1 localhost\n" + "".join(f"{_ELSEWHERE} {host}\n" for host in HOSTS))
        hosts.flush()
        os.chmod(hosts.name, 0o644)
        command = [*_NAMESPACE, "sh", "-euc", _SETUP, "sh", hosts.name, sys.executable, __file__, str(binary)]
        command += [str(possible.node or ""), json.dumps(possible.node_version), possible.without_node]
        done = subprocess.run(command, capture_output=True, timeout=SECONDS_MAX, check=False)
    for line in done.stdout.splitlines():
        name, found, reason = json.loads(line)
        if reason is None:
            tally.settle(name, found)
        else:
            tally.skip(name, reason)
    tally.settle("redirected clients", [] if done.returncode == 0 else [excerpt(done.stderr)])


def _cases() -> list[Case]:
    """Clients that would ignore the proxy variables, and two that would not."""
    curl = [case for case in cases() if case.name in ("curl, streamed", "curl, refused")]
    ignoring = [
        python_case("Python aiohttp", REPOSITORY, "aiohttp", "plain"),
        python_case("Python urllib3", REPOSITORY, "urllib3", "around"),
        node_case("Node stripe", CUSTOMERS, "stripe", "around"),
    ]
    return [replace(case, what=", ".join(part for part in (case.what, "redirected") if part)) for case in [*ignoring, *curl]]


def _without_proxy(block: Mapping[str, str]) -> Block:
    """The variables for the CA alone."""
    kept = {name: value for name, value in block.items() if "proxy" not in name.lower() and name != "JAVA_TOOL_OPTIONS"}
    return Block(kept, kept)


def _redirect(port: int) -> None:
    rules = RULES.read_text().replace(f"define transparent = {PORT}", f"define transparent = {port}")
    subprocess.run(["nft", "-f", "-"], input=rules.encode(), timeout=30, check=True)


def _row(on: Stage, case: Case, possible: Possible, past: bool) -> list[str]:
    nonce = on.sidecar.mint("worker", case.where.service, case.where.scopes)
    block = _without_proxy((on.past if past else on.through).plain)
    run = run_client(on, case, nonce.placeholder, block, possible, (*AGENT, *case.command), user=USER)
    found = complaints(case, run, nonce, on.keys)
    if past:
        return expect(found, "received the nonce", run.output)
    return [*found, f"printed: {excerpt(run.output)}"] if found else []


def _say(name: str, found: list[str], reason: str | None = None) -> None:
    print(json.dumps([name, found, reason]), flush=True)


def _inside(binary: Path, possible: Possible) -> None:
    """Everything in the namespace."""
    with stage(binary, "--transparent", f"127.0.0.1:{PORT}") as on:
        # The agent's user reads the CA in there.
        on.directory.chmod(0o711)
        runnable = []
        for case in _cases():
            if reason := possible.why_not(case):
                _say(case.name, [], reason)
            else:
                runnable.append(case)
        for past in (False, True):
            _redirect(on.upstream.port if past else PORT)
            for case in runnable:
                _say(f"control: {case.name}" if past else case.name, _row(on, case, possible, past))
        code = on.sidecar.stop()
        _say("redirected: the sidecar ends well", [] if code == 0 else [f"exit code {code}"])
        _say("redirected: the audit verifies", [] if on.sidecar.audit_is_sound() else ["valetkey audit verify says no"])


if __name__ == "__main__":
    BINARY, NODE, VERSION, WITHOUT = sys.argv[1:]
    MAJOR, MINOR = json.loads(VERSION)
    _inside(Path(BINARY), Possible(Path(NODE) if NODE else None, None, (MAJOR, MINOR), WITHOUT, has_shims(Path(BINARY))))
