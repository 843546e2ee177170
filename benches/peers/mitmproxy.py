"""Swaps one header, and sends every host to the origin."""

import os

NONCE = f"Bearer {os.environ['BENCH_NONCE']}"
CREDENTIAL = f"Bearer {os.environ['BENCH_KEY']}"
ADDRESS, PORT = os.environ["BENCH_ORIGIN"].rsplit(":", 1)


def server_connect(data):
    data.server.address = (ADDRESS, int(PORT))


def request(flow):
    if flow.request.headers.get("authorization") == NONCE:
        flow.request.headers["authorization"] = CREDENTIAL
