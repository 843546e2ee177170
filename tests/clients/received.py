"""What arrived at an upstream."""

from __future__ import annotations

import base64
import binascii
import threading
from dataclasses import dataclass


@dataclass(frozen=True)
class Received:
    """One request as it arrived."""

    host: str
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def carries(self, key: str) -> bool:
        """True if the key stands where a key may stand."""
        headers = dict(self.headers)
        values = {headers.get("authorization", "").split(" ", 1)[-1], headers.get("x-api-key", "")}
        return key in values | {part for pair in self._basic() for part in pair.split(":", 1)}

    def every_byte(self) -> bytes:
        """The whole request, and what is in its Basic credentials."""
        head = "\n".join([self.method, self.target, *(f"{name}: {value}" for name, value in self.headers)])
        return "\n".join([head, *self._basic()]).encode() + b"\n\n" + self.body

    def for_the_proxy(self) -> list[str]:
        """Names of headers that were meant for the proxy alone."""
        return [name for name, _ in self.headers if name.startswith("proxy-")]

    def _basic(self) -> list[str]:
        pairs = []
        for name, value in self.headers:
            if name == "authorization" and value.lower().startswith("basic "):
                try:
                    pairs.append(base64.b64decode(value[6:]).decode())
                except (binascii.Error, UnicodeDecodeError):
                    continue
        return pairs


class Inbox:
    """What arrived and was not taken yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._received: list[Received] = []

    def take(self) -> list[Received]:
        """What arrived since the last call."""
        with self._lock:
            taken, self._received = self._received, []
        return taken

    def keep(self, received: Received) -> None:
        """Remembers a request."""
        with self._lock:
            self._received.append(received)


class Gate:
    """Holds the second event of a stream back until the client has shown the first."""

    def __init__(self, seconds_max: float = 30) -> None:
        self._seconds_max = seconds_max
        self._open = threading.Event()
        self.was_passed = False

    def open(self) -> None:
        """Lets the second event go."""
        self._open.set()

    def wait(self) -> bool:
        """True once it is open; false if that did not happen in time."""
        self.was_passed = self._open.wait(self._seconds_max)
        return self.was_passed
