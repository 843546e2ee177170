"""Schemathesis asks the control API everything that docs/openapi.json allows, and much that it does not."""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rows import Tally
from sidecar import Sidecar
from stage import HERE, PREFIXES

DOCUMENT = HERE.parent.parent / "docs" / "openapi.json"
SECONDS_MAX = 300
EXAMPLES_MAX = 20
BYTES_MAX = 65536


def run_schema(binary: Path, tally: Tally, document: Path = DOCUMENT) -> None:
    """No answer may be a failure of ours, or anything that the document does not say.

    Left out are the stream of events, which has no end, and that all that fits the shapes is taken: they say less than
    the API, such as that of two fields there has to be one.
    """
    with tempfile.TemporaryDirectory(prefix="valetkey-schema-") as place:
        sidecar = Sidecar(binary, _policy(Path(place)), Path(place) / "sidecar")
        sidecar.start({name: prefix + secrets.token_hex(20) for name, prefix in PREFIXES.items()}, {})
        try:
            with _port(sidecar.directory / "run" / "control.sock") as port:
                code, output = _ask(document, port, Path(place))
                tally.settle("the control API does what openapi.json says", _complaints(code, output))
                # An answer that the document does not know has to be noticed.
                other = Path(place) / "other.json"
                other.write_text(document.read_text().replace('"identity"', '"identities"'))
                code, output = _ask(other, port, Path(place), "--include-path", "/v1/whoami")
                missed = [] if code == 1 and "identities" in output else [f"exit code {code}", output[-2000:]]
                tally.settle("control: an answer that openapi.json does not know is noticed", missed)
        finally:
            code = sidecar.stop()
        tally.settle("the sidecar behind the control API ends well", [] if code == 0 else [f"exit code {code}"])


def _complaints(code: int, output: str) -> list[str]:
    return [] if code == 0 else [f"exit code {code}", output[-8000:]]


def _policy(place: Path) -> Path:
    """That of the other tests, without an upstream."""
    policy = place / "policy.toml"
    lines = (HERE / "policy.toml").read_text().splitlines(keepends=True)
    policy.write_text("".join(line for line in lines if not line.startswith("upstream_ca")))
    return policy


def _ask(document: Path, port: int, place: Path, *more: str) -> tuple[int, str]:
    """Runs it; exit code and output."""
    command = [str(Path(sys.executable).with_name("st")), "run", str(document), "--url", f"http://127.0.0.1:{port}"]
    command += ["--header", "Host: localhost", "--no-color", "--generation-deterministic", "--request-timeout", "20"]
    command += ["--max-examples", str(EXAMPLES_MAX), "--exclude-checks", "positive_data_acceptance"]
    command += more or ("--exclude-path", "/v1/events")
    done = subprocess.run(command, cwd=place, capture_output=True, timeout=SECONDS_MAX, check=False)
    return done.returncode, (done.stdout + done.stderr).decode(errors="replace")


@contextmanager
def _port(path: Path) -> Iterator[int]:
    """A port on loopback that leads to this socket, whose connections are then this process's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_lead, args=(listener, path), daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            # A thread in `accept` would not notice that it is closed.
            listener.shutdown(socket.SHUT_RDWR)


def _lead(listener: socket.socket, path: Path) -> None:
    while True:
        try:
            caller, _ = listener.accept()
        except OSError:
            return
        called = socket.socket(socket.AF_UNIX)
        called.connect(str(path))
        for source, target in ((caller, called), (called, caller)):
            threading.Thread(target=_copy, args=(source, target), daemon=True).start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    """What the one says, up to its end; what is there then is told to the other."""
    try:
        while data := source.recv(BYTES_MAX):
            target.sendall(data)
    except OSError:
        pass
    finally:
        try:
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass
