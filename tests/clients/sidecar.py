"""The built binary as a process of its own, and an orchestrator on its control socket."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

READY_SECONDS_MAX = 30
END_SECONDS_MAX = 30


@dataclass(frozen=True)
class Nonce:
    """A minted nonce, and how its service wants it written."""

    nonce: str
    placeholder: str


class Sidecar:
    """A running sidecar; everything that it writes is in one directory."""

    def __init__(self, binary: Path, policy: Path, directory: Path) -> None:
        self.binary = binary
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        text = policy.read_text().replace("{dir}", str(directory))
        (directory / "policy.toml").write_text(text)
        self._process: subprocess.Popen[bytes] | None = None
        self.proxy = ""
        self.connect_to: list[str] = []
        """The flags that lead to our upstreams."""

    def start(self, credentials: Mapping[str, str], ports: Mapping[str, int], flags: Sequence[str] = ()) -> None:
        """Starts it before upstreams at these ports, by host, and waits until it is ready. `flags` are more of them."""
        self.connect_to = [part for host in ports for part in ("--connect-to", f"{host}:443:127.0.0.1:{ports[host]}")]
        command = [str(self.binary), "serve", *self._flags(), *self.connect_to, *flags]
        with (self.directory / "stderr.log").open("wb") as log, (self.directory / "stdout.log").open("wb") as output:
            self._process = subprocess.Popen(
                command, env={"PATH": os.environ["PATH"], **credentials}, stdin=subprocess.DEVNULL, stdout=output, stderr=log
            )
        self.proxy = f"http://{self._wait_until_ready()['proxy']}"

    def mint(self, agent: str, service: str, scopes: Sequence[str]) -> Nonce:
        """A nonce for some scopes of one service."""
        grants = [{"service": service, "scopes": list(scopes)}]
        answer = self._call("POST", "/v1/nonces", {"agent": agent, "task": "clients", "grants": grants})
        return Nonce(answer["nonce"], answer.get("placeholders", {}).get(service, answer["nonce"]))

    def environment(self, proxy: str = "", published: Path | None = None, shims: Path | None = None) -> dict[str, str]:
        """The variables that clients need, as `valetkey env` gives them; of this sidecar where no other proxy is named."""
        command = [str(self.binary), "env", "--json", "--proxy", proxy or self.proxy]
        command += ["--ca-publish", str(published or self.directory / "public")]
        command += ["--shims", str(shims)] if shims else []
        done = subprocess.run(
            command, env={"PATH": os.environ["PATH"]}, capture_output=True, timeout=END_SECONDS_MAX, check=True
        )
        return {str(name): str(value) for name, value in json.loads(done.stdout).items()}

    def audit_is_sound(self, audit: Path | None = None) -> bool:
        """What `valetkey audit verify` says, of its own audit where no other is named."""
        command = [str(self.binary), "audit", "verify", str(audit or self.directory / "audit.jsonl")]
        return subprocess.run(command, capture_output=True, timeout=END_SECONDS_MAX, check=False).returncode == 0

    def written(self) -> dict[str, bytes]:
        """Everything that it wrote outside its own control socket, by name."""
        names = ("audit.jsonl", "stderr.log", "stdout.log")
        return {name: (self.directory / name).read_bytes() for name in names}

    def stop(self) -> int:
        """Asks it to end; its exit code."""
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(END_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _flags(self) -> list[str]:
        place = self.directory
        return [
            *("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--ca-in-memory"),
            *("--policy", f"{place}/policy.toml", "--control", f"{place}/run/control.sock"),
            *("--audit", f"{place}/audit.jsonl", "--ca-publish", f"{place}/public"),
            *("--ready-file", f"{place}/ready.json"),
        ]

    def _wait_until_ready(self) -> dict[str, str]:
        assert self._process is not None
        until = time.monotonic() + READY_SECONDS_MAX
        while time.monotonic() < until and self._process.poll() is None:
            try:
                ready: dict[str, str] = json.loads((self.directory / "ready.json").read_text())
                return ready
            except (OSError, ValueError):
                time.sleep(0.02)
        log = (self.directory / "stderr.log").read_text(errors="replace")
        raise RuntimeError(f"the sidecar was not ready:\n{log}")

    def _call(self, method: str, path: str, body: object) -> dict[str, Any]:
        connection = _UnixConnection(self.directory / "run" / "control.sock")
        try:
            connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            if answer.status not in (200, 201):
                raise RuntimeError(f"{method} {path}: {answer.status} {text.decode(errors='replace')}")
            value: dict[str, Any] = json.loads(text)
            return value
        finally:
            connection.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("valetkey", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
