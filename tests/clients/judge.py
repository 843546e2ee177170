"""What is wrong with a run of a client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import leaks
from case import Case
from received import Received
from sidecar import Nonce


@dataclass(frozen=True)
class Run:
    """What a client did."""

    code: int
    output: bytes
    received: Sequence[Received]
    was_streamed: bool = False
    """The second event was sent, after the first had been shown."""
    visits: int = 0
    """Connections that went around the proxy."""


def complaints(case: Case, run: Run, nonce: Nonce, keys: Mapping[str, str]) -> list[str]:
    """Everything that is not as promised; empty if all is well. `keys` are the real ones, by host."""
    if case.around:
        found = _ignored(run)
    elif case.is_refused:
        found = _refused(run)
    else:
        found = _allowed(case, run, keys[case.where.host])
    if run.visits and not case.around:
        found.append("it went around the proxy")
    if case.shows.encode() not in run.output:
        found.append(f"its output does not show {case.shows!r}")
    found += [f"the upstream received the nonce ({form})" for form in _forms(nonce, run.received)]
    found += sorted({f"the upstream received {name}" for request in run.received for name in request.for_the_proxy()})
    for host, key in keys.items():
        if form := leaks.find(key, run.output):
            found.append(f"its output holds the real key of {host} ({form})")
    if form := leaks.find(nonce.nonce, run.output):
        found.append(f"its output holds the nonce ({form})")
    return found


def excerpt(output: bytes) -> str:
    """Enough of what a client printed to see what went wrong."""
    text = " ".join(output.decode(errors="replace").split())
    return text if len(text) <= 800 else f"{text[:300]} … {text[-500:]}"


def _allowed(case: Case, run: Run, key: str) -> list[str]:
    found = [] if run.code == 0 else [f"exit code {run.code}"]
    if not run.received:
        found.append("nothing reached the upstream")
    if not all(received.host == case.where.host and received.carries(key) for received in run.received):
        found.append("a request reached the upstream without the real key")
    if case.is_echoed and f"echo=<{'*' * len(key)}>".encode() not in run.output:
        found.append("its output does not show the masked echo")
    if case.is_streamed and not run.was_streamed:
        found.append("the first event was not shown while the second was still to come")
    return found


def _refused(run: Run) -> list[str]:
    found = ["it ended well"] if run.code == 0 else []
    if run.received:
        found.append(f"{len(run.received)} requests reached the upstream")
    return found


def _ignored(run: Run) -> list[str]:
    found = [] if run.visits else ["it did not go around the proxy"]
    return [*found, *_refused(run)]


def _forms(nonce: Nonce, received: Sequence[Received]) -> list[str]:
    forms = (leaks.find(nonce.nonce, request.every_byte()) for request in received)
    return sorted({form for form in forms if form})
