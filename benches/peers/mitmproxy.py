"""Swaps one header, and sends every host to its origin."""

import os

NONCE = f"Bearer {os.environ['BENCH_NONCE']}"
CREDENTIAL = f"Bearer {os.environ['BENCH_KEY']}"
H2_HOST = os.environ["BENCH_H2_HOST"]


def address(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


ORIGIN = address(os.environ["BENCH_ORIGIN"])
ORIGIN_H2 = address(os.environ["BENCH_ORIGIN_H2"])


def requestheaders(flow):
    """Before the body, so that it can be streamed. The request is readdressed and not the connection: mitmproxy looks
    its connections up by the request's address, and would open one for each request."""
    request = flow.request
    name = request.host_header
    request.host, request.port = ORIGIN_H2 if request.host == H2_HOST else ORIGIN
    request.host_header = name
    if request.headers.get("authorization") == NONCE:
        request.headers["authorization"] = CREDENTIAL


def server_connect(data):
    """TLS to the origin is for the host that the client asked for."""
    data.server.sni = data.client.sni
