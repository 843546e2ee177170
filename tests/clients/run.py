#!/usr/bin/env python3
"""Runs real clients and SDKs through the sidecar, before upstreams of our own.

Each client must deliver the real key and never the nonce, must never see a real key, must show a stream as it comes, and
must show why it was refused. Each row is run a second time where it has to fail. Prints a line for each, and
`N passed, N failed, N skipped` at the end.
"""

from __future__ import annotations

import argparse
import queue
import re
import subprocess
import sys
import threading
from pathlib import Path

import document
import leaks
from case import Case
from cases import cases
from controls import run_controls
from doctor import run_doctor
from identity import run_identity
from redirected import run_redirected
from rows import Possible, Tally, run_case
from schema import run_schema
from signed import run_signed
from stage import Stage, has_shims, stage
from under_run import run_under_run

WORKERS = 3


def work(binary: Path, waiting: queue.SimpleQueue[Case], possible: Possible, tally: Tally) -> None:
    """Runs what waits on a stage of its own, and looks at the sidecar when nothing is left."""
    try:
        with stage(binary) as on:
            try:
                while True:
                    case = waiting.get_nowait()
                    run = run_case if case.grant is None else run_under_run
                    run(on, case, possible, tally)
            except queue.Empty:
                check_sidecar(on, tally)
    except Exception as error:  # a thread's exception would be lost, and with it the rows that were not run
        tally.settle("the suite itself", [repr(error)])
        raise


def check_sidecar(on: Stage, tally: Tally) -> None:
    """What the sidecar wrote, and how it ends."""
    code = on.sidecar.stop()
    tally.settle("the sidecar ends well", [] if code == 0 else [f"exit code {code}"])
    tally.settle("the audit verifies", [] if on.sidecar.audit_is_sound() else ["valetkey audit verify says no"])
    found = []
    for name, data in on.sidecar.written().items():
        if any(leaks.find(key, data) for key in on.keys.values()):
            found.append(f"a real key is in {name}")
        if any(leaks.find(nonce, data) for nonce in tally.nonces):
            found.append(f"a nonce is in {name}")
    tally.settle("nothing secret is in what the sidecar wrote", found)


def node_version() -> tuple[int, int]:
    """Major and minor version; zeros if there is none."""
    try:
        said = subprocess.run(["node", "--version"], capture_output=True, timeout=30, check=True).stdout.decode()
    except (OSError, subprocess.SubprocessError):
        return 0, 0
    found = re.match(r"v(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def newer_node(node: Path | None) -> Path | None:
    """The directory of the Node that is pinned among the packages; none where npm left it out, as for other machines."""
    programs = node.glob("node_modules/node-linux-*/bin/node") if node else ()
    for program in programs:
        if subprocess.run([program, "--version"], capture_output=True, timeout=30, check=False).returncode == 0:
            return program.parent
    return None


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", type=Path, required=True, help="the valetkey to test")
    parser.add_argument("--node", type=Path, help="the directory with the Node programs and their packages")
    parser.add_argument("--without-node", metavar="REASON", help="skip the Node clients, and say why")
    parser.add_argument("--only", metavar="TEXT", help="run the clients alone whose names hold this")
    parser.add_argument("--write-docs", type=Path, metavar="FILE", help="write down what was seen, as docs/CLIENTS.md has it")
    return parser.parse_args()


def main() -> int:
    """Runs everything that was asked for."""
    given = arguments()
    waiting: queue.SimpleQueue[Case] = queue.SimpleQueue()
    for case in cases():
        if given.only is None or given.only in case.name:
            waiting.put(case)
    tally = Tally()
    without_node = given.without_node or "no --node was given"
    possible = Possible(given.node, newer_node(given.node), node_version(), without_node, has_shims(given.binary))
    workers = [threading.Thread(target=work, args=(given.binary, waiting, possible, tally)) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    if given.only is None or given.only in "redirected":
        run_redirected(given.binary, possible, tally)
    for worker in workers:
        worker.join()
    run_doctor(given.binary, possible, tally)
    if given.only is None or given.only in "schema":
        run_schema(given.binary, tally)
    if given.only is None or given.only in "identity":
        run_identity(given.binary, tally)
    if given.only is None or given.only in "signed":
        run_signed(given.binary, tally)
    with stage(given.binary) as on:
        run_controls(on, tally)
    if given.write_docs:
        document.write(given.write_docs, tally.seen)
    tally.settle("docs/CLIENTS.md has these clients", document.drift(document.committed()))
    print(f"{tally.passed} passed, {tally.failed} failed, {tally.skipped} skipped")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
