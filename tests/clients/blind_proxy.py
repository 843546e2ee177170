"""A proxy that relays tunnels and swaps nothing: what the tests must notice. It keeps what clients offer, as well."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass

HEAD_BYTES_MAX = 65536
IDLE_SECONDS = 60


@dataclass(frozen=True)
class Offer:
    """How a client asked for a tunnel, and what it began TLS with."""

    http: str
    """The version on the request line."""
    alpn: tuple[str, ...]


class BlindProxy:
    """Answers every CONNECT with a tunnel to the port that the host has here."""

    def __init__(self, ports: Mapping[str, int]) -> None:
        self._ports = dict(ports)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.offers: list[Offer] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Takes no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            client.settimeout(IDLE_SECONDS)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                self._tunnel(client)
            except OSError:
                return

    def _tunnel(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head and len(head) < HEAD_BYTES_MAX and (part := client.recv(4096)):
            head += part
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        port = self._ports.get(words[1].rsplit(":", 1)[0]) if len(words) == 3 else None
        if port is None:
            client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            return
        client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        hello = _first_record(client)
        self.offers.append(Offer(words[2], offered(hello)))
        with socket.create_connection(("127.0.0.1", port)) as upstream:
            upstream.sendall(hello)
            back = threading.Thread(target=_relay, args=(upstream, client), daemon=True)
            back.start()
            _relay(client, upstream)
            back.join()


def _first_record(client: socket.socket) -> bytes:
    record = b""
    while (len(record) < 5 or len(record) < 5 + int.from_bytes(record[3:5], "big")) and (part := client.recv(65536)):
        record += part
    return record


def offered(hello: bytes) -> tuple[str, ...]:
    """The protocols in a ClientHello (RFC 8446, 4.1.2; RFC 7301, 3.1)."""
    at = 5 + 4 + 2 + 32  # the record's head, the message's head, the version, the random
    at += 1 + hello[at : at + 1][0] if len(hello) > at else 0
    at += 2 + int.from_bytes(hello[at : at + 2], "big")
    at += 1 + (hello[at] if len(hello) > at else 0)
    end = at + 2 + int.from_bytes(hello[at : at + 2], "big")
    at += 2
    while at + 4 <= min(end, len(hello)):
        kind, length = int.from_bytes(hello[at : at + 2], "big"), int.from_bytes(hello[at + 2 : at + 4], "big")
        if kind == 16:
            return _names(hello[at + 6 : at + 4 + length])
        at += 4 + length
    return ()


def _names(listed: bytes) -> tuple[str, ...]:
    names = []
    while listed:
        names.append(listed[1 : 1 + listed[0]].decode("latin-1"))
        listed = listed[1 + listed[0] :]
    return tuple(names)


def _relay(source: socket.socket, sink: socket.socket) -> None:
    try:
        while part := source.recv(65536):
            sink.sendall(part)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        return


class Trap:
    """A port that only those reach who go around the proxy; in 127/8, but not an address that NO_PROXY names."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.2", 0))
        self.address = f"127.0.0.2:{self._listener.getsockname()[1]}"
        self._lock = threading.Lock()
        self._visits = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def take(self) -> int:
        """How many came since the last call."""
        with self._lock:
            visits, self._visits = self._visits, 0
        return visits

    def close(self) -> None:
        """Takes no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._visits += 1
            client.close()
