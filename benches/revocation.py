#!/usr/bin/env python3
"""How long after a call to revoke begins a stream of that nonce is cut: quiet, and one that its client never reads.

Usage: benches/revocation.py BINARY [ROUNDS]; needs openssl. Everything stays on loopback and in a directory that is
removed at the end. Prints milliseconds from the moment the call is written until the end of the stream is seen: of the
quiet one by its client, of the other one by the upstream, whose connection ends.
"""

import contextlib
import json
import os
import queue
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time

POLICY = """version = 1
[credentials.c]
source = "env"
name = "KEY"
hosts = ["api.test"]
[services.api]
hosts = ["api.test"]
credential = "c"
slots = ["bearer"]
upstream_ca = "{here}/ca.pem"
[[services.api.scopes]]
name = "all"
risk = "low"
allow = ["GET /quiet", "GET /flood"]
[agents.load]
identity = ["any"]
grants = {{ api = ["all"] }}
[minters.bench]
identity = ["uid:{uid}"]
agents = ["load"]
may = ["mint", "revoke"]
"""


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def certificates():
    """A CA, and a leaf of it for the upstream."""
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2",
            "-subj", "/CN=bench", "-addext", "basicConstraints=critical,CA:TRUE")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "leaf.key", "-out", "leaf.csr", "-subj", "/CN=api.test")
    with open("leaf.ext", "w") as file:
        file.write("subjectAltName=DNS:api.test\n")
    openssl("x509", "-req", "-in", "leaf.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out",
            "leaf.pem", "-days", "2", "-extfile", "leaf.ext")


# When the upstream's connection of a flood ended.
FLOODS_ENDED = queue.Queue()


def stream(connection, tls):
    """An answer without end: an event each 20 ms, or as fast as it is taken."""
    head = b""
    with contextlib.suppress(OSError):
        wire = tls.wrap_socket(connection, server_side=True)
        while b"\r\n\r\n" not in head:
            head += wire.recv(4096)
        wire.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            if b"/flood" in head:
                wire.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            else:
                wire.sendall(b"a\r\ndata: x1\n\n\r\n")
                time.sleep(0.02)
    if b"/flood" in head:
        FLOODS_ENDED.put(time.perf_counter())


def upstream():
    """Listens; the port."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain("leaf.pem", "leaf.key")
    listener = socket.create_server(("127.0.0.1", 0))

    def accept():
        while True:
            threading.Thread(target=stream, args=(listener.accept()[0], tls), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


def revoke(identifier):
    with socket.socket(socket.AF_UNIX) as control:
        control.connect("control.sock")
        control.sendall(f"DELETE /v1/nonces/{identifier} HTTP/1.1\r\nHost: valetkey\r\n\r\n".encode())
        answer = control.recv(4096)
    assert answer.split()[1].startswith(b"2"), answer


def once(binary, proxy, agents, path, number):
    """Milliseconds until the call was answered, and until the stream had ended."""
    minted = subprocess.run([binary, "nonce", "create", "--control", "control.sock", "--agent", "load", "--task",
                             f"t{number}", "--grant", "api:all", "--json"], check=True, capture_output=True)
    lease = json.loads(minted.stdout)
    tunnel = socket.create_connection(proxy)
    tunnel.sendall(b"CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n\r\n")
    assert b" 200 " in tunnel.recv(4096)
    wire = agents.wrap_socket(tunnel, server_hostname="api.test")
    wire.sendall(f"GET {path} HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {lease['nonce']}\r\n\r\n".encode())
    assert b" 200 " in wire.recv(4096)
    ended = FLOODS_ENDED if path == "/flood" else queue.Queue()

    def read():
        with contextlib.suppress(OSError):
            while wire.recv(65536):
                pass
        ended.put(time.perf_counter())

    if path == "/quiet":
        threading.Thread(target=read, daemon=True).start()
    time.sleep(0.3)  # until all buffers of a flood are full
    assert ended.empty()
    begun = time.perf_counter()
    revoke(lease["id"])
    answered = time.perf_counter()
    # The client of a flood is still there, and has read nothing but the head.
    took = ended.get(timeout=10) - begun
    wire.close()
    return (answered - begun) * 1e3, took * 1e3


def main():
    binary, rounds = os.path.abspath(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 50
    here = tempfile.mkdtemp()
    os.chdir(here)
    certificates()
    with open("policy.toml", "w") as file:
        file.write(POLICY.format(here=here, uid=os.getuid()))
    command = [binary, "serve", "--ca-in-memory", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--policy",
               "policy.toml", "--control", "control.sock", "--audit", "audit.jsonl", "--ca-publish", "public",
               "--ready-file", "ready.json", "--connect-to", f":443:127.0.0.1:{upstream()}"]
    environment = dict(os.environ, KEY="sk_bench_0123456789abcdefghijklmnopqrstuv")
    with open("log", "w") as log:
        sidecar = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        for _ in range(100):
            if os.path.exists("ready.json"):
                break
            time.sleep(0.05)
        host, port = json.load(open("ready.json"))["proxy"].rsplit(":", 1)
        agents = ssl.create_default_context(cafile="public/ca.pem")
        for path in ("/quiet", "/flood"):
            times = [once(binary, (host, int(port)), agents, path, number) for number in range(rounds)]
            for name, column in (("answered", 0), ("stream ended", 1)):
                values = [pair[column] for pair in times]
                print(f"{path} {name}: median {statistics.median(values):.2f} ms, longest {max(values):.2f} ms")
    finally:
        sidecar.terminate()
        sidecar.wait(30)
        shutil.rmtree(here)


if __name__ == "__main__":
    main()
