"""`valetkey doctor` has to say of this machine's clients what their rows have shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rows import Possible, Tally, expect

SECONDS_MAX = 120
# The first Node that reads the proxy variables.
_NODE_WITH_PROXY = (22, 21)
# What the doctor calls a client, and the row that has to pass where the doctor says that it works.
WITH_SHIMS = {
    "curl": "curl, Bearer",
    "wget": "wget, as it comes, with the shims",
    "git": "git, clone",
    "python-urllib": "Python urllib",
    "python-requests": "Python requests",
    "python-httpx": "Python httpx",
    "python-aiohttp": "Python aiohttp, as it comes, with the shims",
    "python-stripe": "Python stripe, as it comes, with the shims",
    "pip": "pip",
    "npm": "npm",
    "node-fetch": "Node fetch, as it comes, with the shims",
    "node-agent": "Node stripe, as it comes, with the shims",
    "java": "Java HttpClient",
}
# The row that passes where a client goes around the proxy, which the doctor then has to say.
IGNORING = {
    "python-aiohttp": "Python aiohttp, without trust_env",
    "node-agent": "Node stripe, as it comes",
    "node-fetch": "Node fetch, without agent and switch",
}


def run_doctor(binary: Path, possible: Possible, tally: Tally) -> None:
    """With the shims and without; and that a difference would be noticed."""
    shims, plain = _findings(binary), _findings(binary, "--no-shims")
    tally.settle("doctor agrees with the rows", [] if not tally.results else disagreements(shims, tally.results))
    ignoring = {name: row for name, row in IGNORING.items() if name != "node-fetch" or possible.node_version < _NODE_WITH_PROXY}
    tally.settle("doctor knows who ignores the proxy", _not_told(plain, ignoring, tally.results))
    wrong = [{**finding, "ca": finding["client"] != "curl"} for finding in shims if finding["client"] == "curl"]
    noticed = disagreements(wrong, {WITH_SHIMS["curl"]: True})
    tally.settle("control: a doctor that disagrees is noticed", expect(noticed, "curl: "))


def disagreements(findings: Sequence[Mapping[str, Any]], results: Mapping[str, bool]) -> list[str]:
    """Where the doctor says one thing and the row another; clients that were not run say nothing."""
    told = {finding["client"]: finding["proxy"] is True and finding["ca"] is True for finding in findings}
    rows = {name: row for name, row in WITH_SHIMS.items() if name in told and row in results}
    unlike = {name: row for name, row in rows.items() if told[name] != results[row]}
    return [f"{name}: doctor says {told[name]}, its row {results[row]}" for name, row in unlike.items()]


def _not_told(findings: Sequence[Mapping[str, Any]], ignoring: Mapping[str, str], results: Mapping[str, bool]) -> list[str]:
    told = {finding["client"]: finding["proxy"] for finding in findings}
    rows = {name: row for name, row in ignoring.items() if name in told and row in results}
    return [f"{name}: doctor says proxy {told[name]}" for name, row in rows.items() if (told[name] is False) != results[row]]


def _findings(binary: Path, *flags: str) -> list[dict[str, Any]]:
    """What it says; of the Python that this suite runs with."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": os.environ.get("HOME", "/"), "LANG": "C.UTF-8"}
    command = [str(binary), "doctor", "--json", "--timeout", "30", *flags]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=SECONDS_MAX, check=False)
    found: list[dict[str, Any]] = json.loads(done.stdout)["clients"]
    return found
