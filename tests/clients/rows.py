"""Runs one client after the other on a stage: through the sidecar, and through a proxy that swaps nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import answers
from case import Case
from judge import Run, complaints, excerpt
from received import Gate
from sidecar import Nonce
from stage import Block, Stage

CLIENT_SECONDS_MAX = 90
FIRST_EVENT_SECONDS_MAX = 30


@dataclass(frozen=True)
class Seen:
    """What a client was seen to speak."""

    alpn: tuple[str, ...]
    connect: str
    http: str


@dataclass
class Tally:
    """What has been run so far, by all who run."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    results: dict[str, bool] = field(default_factory=dict)
    """What each row came to, by its name."""
    nonces: list[str] = field(default_factory=list)
    seen: dict[str, Seen] = field(default_factory=dict)
    """By the case's name."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def settle(self, name: str, found: list[str]) -> None:
        """Counts and prints one result."""
        with self._lock:
            self.results[name] = not found
            if found:
                self.failed += 1
                print(f"FAIL  {name}: {'; '.join(found)}", flush=True)
            else:
                self.passed += 1
                print(f"ok    {name}", flush=True)

    def skip(self, name: str, reason: str) -> None:
        """Counts and prints what is not run."""
        with self._lock:
            self.skipped += 1
            print(f"skip  {name}: {reason}", flush=True)


@dataclass(frozen=True)
class Possible:
    """What can be run here."""

    node: Path | None
    newer_node: Path | None
    """The directory of the program of the Node that the suite pins."""
    node_version: tuple[int, int]
    without_node: str
    has_shims: bool

    def why_not(self, case: Case) -> str | None:
        """Why this client cannot be run; none if it can."""
        client = case.client
        if case.has_shims and not self.has_shims:
            return "this build has no shims"
        if client.node and self.node is None:
            return self.without_node
        if case.has_newer_node and self.newer_node is None:
            return "npm has no newer Node for this machine"
        if client.node and not case.has_newer_node and self.node_version < client.node:
            return f"needs Node {client.node[0]}.{client.node[1]}"
        if client.program and shutil.which(client.program) is None:
            return f"{client.program} is not installed"
        return None


def run_case(on: Stage, case: Case, possible: Possible, tally: Tally) -> None:
    """Runs a client with a nonce of its own, and then shows that its row would notice a proxy that swaps nothing."""
    if reason := possible.why_not(case):
        tally.skip(case.name, reason)
        return
    nonce = on.sidecar.mint("worker", case.where.service, case.where.scopes)
    tally.nonces.append(nonce.nonce)
    audit = on.sidecar.directory / "audit.jsonl"
    begin = audit.stat().st_size
    run = run_client(on, case, nonce.placeholder, on.through, possible)
    found = complaints(case, run, nonce, on.keys)
    tally.settle(case.name, [*found, f"printed: {excerpt(run.output)}"] if found else [])
    http = spoken(audit, begin)
    control(on, case, nonce, possible, tally)
    offers = on.blind.offers
    if offers and http:
        tally.seen[case.name] = Seen(offers[0].alpn, offers[0].http, http)


def control(on: Stage, case: Case, nonce: Nonce, possible: Possible, tally: Tally) -> None:
    """The same client where the row has to fail."""
    on.blind.offers.clear()
    if case.around:
        run = run_client(on, case, nonce.placeholder, on.through, possible, case.around)
        wanted = "it did not go around the proxy"
    else:
        run = run_client(on, case, nonce.placeholder, on.past, possible)
        # The proxy's credentials end at the proxy, whatever it is.
        wanted = "without the real key" if case.is_attached else "received the nonce"
    tally.settle(f"control: {case.name}", expect(complaints(case, run, nonce, on.keys), wanted, run.output))


def expect(found: list[str], wanted: str, output: bytes = b"") -> list[str]:
    """Empty if one of the complaints is the one that has to be there."""
    if any(wanted in complaint for complaint in found):
        return []
    return [f"it was not noticed; found {found}; printed: {excerpt(output)}"]


def run_client(
    on: Stage,
    case: Case,
    placeholder: str,
    block: Block,
    possible: Possible,
    instead: tuple[str, ...] = (),
    patience: float = FIRST_EVENT_SECONDS_MAX,
    user: int | None = None,
) -> Run:
    """Runs one client with the variables that it needs and none of ours. `patience`: how long a stream waits at most for
    its first event to be shown, in seconds. `user`: whose directory it works in, if not ours."""
    work = workplace(on, user)
    command = filled(on, case, instead or case.command, work, placeholder, possible)
    variables = dict(block.with_shims if case.has_shims else block.plain)
    if case.is_attached:
        # A user with an empty password: Python's requests sends nothing where there is no colon.
        variables = {name: value.replace("http://", f"http://{placeholder}:@") for name, value in variables.items()}
    else:
        variables["API_KEY"] = placeholder
    return observe(on, command, work, {**own_variables(case, work, possible), **variables, **case.environment}, patience)


def workplace(on: Stage, user: int | None = None) -> Path:
    """An empty directory for one run."""
    work = Path(tempfile.mkdtemp(dir=on.directory))
    if user is not None:
        os.chown(work, user, user)
    return work


def filled(on: Stage, case: Case, command: Sequence[str], work: Path, placeholder: str, possible: Possible) -> list[str]:
    """The command with all that it leaves open, and its files beside it."""
    fill = {"{key}": placeholder, "{work}": str(work), "{node}": str(possible.node), "{trap}": on.trap.address}
    for name, text in case.files.items():
        (work / name).write_text(_filled(text, fill))
    return [_filled(part, fill) for part in command]


def own_variables(case: Case, work: Path, possible: Possible) -> dict[str, str]:
    """What every program finds, with or without a proxy."""
    path = f"{possible.newer_node}:{os.environ['PATH']}" if case.has_newer_node else os.environ["PATH"]
    return {"PATH": path, "HOME": str(work), "LANG": "C.UTF-8", "GIT_TERMINAL_PROMPT": "0"}


def observe(
    on: Stage,
    command: list[str],
    work: Path,
    environment: Mapping[str, str],
    patience: float = FIRST_EVENT_SECONDS_MAX,
) -> Run:
    """Runs a command, with what arrives meanwhile."""
    on.upstream.take()
    on.trap.take()
    gate = on.upstream.gate = Gate(patience)
    code, output = _watch(command, work, environment, gate)
    return Run(code, output, on.upstream.take(), gate.was_passed, on.trap.take())


def _watch(command: list[str], work: Path, environment: Mapping[str, str], gate: Gate) -> tuple[int, bytes]:
    """Exit code and output; opens the gate as soon as the first event of a stream is in the output."""
    child = subprocess.Popen(
        command, cwd=work, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        bufsize=0, start_new_session=True,
    )  # fmt: skip
    assert child.stdout is not None
    late = threading.Timer(CLIENT_SECONDS_MAX, os.killpg, (child.pid, signal.SIGKILL))
    late.start()
    output = b""
    while part := child.stdout.read(65536):
        output += part
        if answers.FIRST.encode() in output:
            gate.open()
    code = child.wait()
    late.cancel()
    return code, output if code != -signal.SIGKILL else output + b" (it did not end)"


def spoken(audit: Path, begin: int) -> str:
    """The versions of HTTP that the sidecar was spoken to with, by its own audit."""
    with audit.open("rb") as file:
        file.seek(begin)
        records = [json.loads(line) for line in file.read().splitlines()]
    return ", ".join(sorted({record["http.version"] for record in records if record["type"] == "decision"}))


def _filled(text: str, fill: Mapping[str, str]) -> str:
    for name, value in fill.items():
        text = text.replace(name, value)
    return text
