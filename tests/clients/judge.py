"""What is wrong with a run of a client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import leaks
from cases import Case
from fake_upstream import Received
from sidecar import Nonce


@dataclass(frozen=True)
class Run:
    """What a client did."""

    code: int
    output: bytes
    received: Sequence[Received]


def complaints(case: Case, run: Run, nonce: Nonce, keys: Mapping[str, str]) -> list[str]:
    """Everything that is not as promised; empty if all is well. `keys` are the real ones, by host."""
    found = _refused(run) if case.is_refused else _allowed(case, run, keys[case.host])
    if case.shows.encode() not in run.output:
        found.append(f"its output does not show {case.shows!r}: {_excerpt(run.output)}")
    found += [f"the upstream received the nonce ({form})" for form in _forms(nonce, run.received)]
    for host, key in keys.items():
        if form := leaks.find(key, run.output):
            found.append(f"its output holds the real key of {host} ({form})")
    if form := leaks.find(nonce.nonce, run.output):
        found.append(f"its output holds the nonce ({form})")
    return found


def _allowed(case: Case, run: Run, key: str) -> list[str]:
    found = [] if run.code == 0 else [f"exit code {run.code}"]
    if not run.received:
        found.append("nothing reached the upstream")
    if not all(received.host == case.host and received.carries(key) for received in run.received):
        found.append("a request reached the upstream without the real key")
    if case.is_echoed and f"echo=<{'*' * len(key)}>".encode() not in run.output:
        found.append("its output does not show the masked echo")
    return found


def _refused(run: Run) -> list[str]:
    found = ["it ended well"] if run.code == 0 else []
    if run.received:
        found.append(f"{len(run.received)} requests reached the upstream")
    return found


def _forms(nonce: Nonce, received: Sequence[Received]) -> list[str]:
    forms = (leaks.find(nonce.nonce, request.every_byte()) for request in received)
    return sorted({form for form in forms if form})


def _excerpt(output: bytes) -> str:
    text = " ".join(output.decode(errors="replace").split())
    return text if len(text) <= 600 else f"{text[:200]} … {text[-400:]}"
