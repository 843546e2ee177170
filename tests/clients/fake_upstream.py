"""An upstream of our own that imitates several APIs over TLS, and keeps what it got.

It answers only to the real key; its certificates are from a CA that is made when it starts.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import trustme

import answers
import git_backend
import packages
import sockets
from received import Gate, Inbox, Received

BODY_BYTES_MAX = 1 << 20
SMALL_CHUNKS_BYTES = 8192
IDLE_SECONDS = 60


class FakeUpstream:
    """All hosts on one port of the loopback interface."""

    def __init__(self, keys: Mapping[str, str], directory: Path) -> None:
        self.keys = dict(keys)
        self.repositories = directory / "repositories"
        git_backend.make_repository(self.repositories / "acme" / "demo.git", answers.said("github.com", "none"))
        self.inbox = Inbox()
        self.gate = Gate()
        self.authority = authority = trustme.CA()
        self.ca_file = directory / "upstream.pem"
        authority.cert_pem.write_to_path(str(self.ca_file))
        self._server = _serve(self, _tls(authority, list(self.keys)))
        self.port: int = self._server.server_address[1]

    def take(self) -> list[Received]:
        """What arrived since the last call."""
        return self.inbox.take()

    def close(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._server.server_close()


def _tls(authority: trustme.CA, hosts: list[str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*hosts).configure_cert(context)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _serve(upstream: FakeUpstream, context: ssl.SSLContext) -> ThreadingHTTPServer:
    class Handler(_Handler):
        owner = upstream
        tls = context

    server = _Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing: a client that hangs up is seen in what arrived."""


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    owner: FakeUpstream
    tls: ssl.SSLContext
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS

    def setup(self) -> None:
        # Here and not at the listener: a handshake that stalls must not hold up other connections.
        self.request.settimeout(IDLE_SECONDS)
        self.request = self.tls.wrap_socket(self.request, server_side=True)
        super().setup()

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: what arrived is kept."""

    def do_GET(self) -> None:
        self._answer(self._received(b""))

    def do_POST(self) -> None:
        self._answer(self._received(self._read_body()))

    def _received(self, body: bytes) -> Received:
        headers = tuple((name.lower(), value) for name, value in self.headers.items())
        host = (self.headers["Host"] or "").removesuffix(":443")
        received = Received(host, self.command, self.path, headers, body)
        self.owner.inbox.keep(received)
        return received

    def _answer(self, received: Received) -> None:
        key = self.owner.keys.get(received.host)
        if key is None or not received.carries(key):
            content_type, body = answers.unauthorised(received.host)
            self._send(401, {"Content-Type": content_type, "WWW-Authenticate": "Basic"}, body)
        elif received.host == "github.com":
            headers = dict(received.headers)
            self._send(*git_backend.serve(self.owner.repositories, received.method, received.target, headers, received.body))
        elif (self.headers["Upgrade"] or "").lower() == "websocket":
            self._upgrade(received, key)
        else:
            self._imitate(received, key)

    def _imitate(self, received: Received, key: str) -> None:
        text = answers.said(received.host, key)
        path = urlsplit(received.target).path
        if _parsed(received.body).get("stream") and (parts := answers.events(received.host, path, text)):
            self._stream(*parts)
            return
        found = answers.body(received.host, path, text) or packages.body(received.host, path)
        if found is None:
            self._send(404, {"Content-Type": "application/json"}, b'{"error": {"message": "no such endpoint"}}')
        else:
            # The key comes back in a header as well.
            self._send(200, {"Content-Type": found[0], "X-Echo": key}, found[1])

    def _stream(self, first: bytes, rest: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self._chunk(first)
        # The client has to show the first event before there is a second; otherwise the answer breaks off.
        if self.owner.gate.wait():
            self._chunks(rest)
        else:
            self.close_connection = True

    def _upgrade(self, received: Received, key: str) -> None:
        self.close_connection = True
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", sockets.accept(self.headers["Sec-WebSocket-Key"]))
        self.end_headers()
        text = answers.said(received.host, key)
        sockets.echo(self.rfile, self.wfile, lambda message: f"{text} to {message}")

    def _send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self._chunks(body)

    def _chunks(self, body: bytes) -> None:
        # Small chunks at first, so that every echo is cut somewhere.
        for start in range(0, min(len(body), SMALL_CHUNKS_BYTES), 23):
            self._chunk(body[start : min(start + 23, SMALL_CHUNKS_BYTES)])
        if len(body) > SMALL_CHUNKS_BYTES:
            self._chunk(body[SMALL_CHUNKS_BYTES:])
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, chunk: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(min(int(self.headers.get("Content-Length", "0")), BODY_BYTES_MAX))
        parts = []
        while size := int(self.rfile.readline(64), 16):
            parts.append(self.rfile.read(min(size, BODY_BYTES_MAX)))
            self.rfile.readline(8)
        self.rfile.readline(8)
        return b"".join(parts)


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
