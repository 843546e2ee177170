"""Python's clients and SDKs."""

from __future__ import annotations

import sys
from pathlib import Path

from case import (
    ANTHROPIC,
    CUSTOMERS,
    GRPC,
    MESSAGES,
    OPENAI,
    REASON,
    REPOSITORY,
    SENTENCE,
    SOCKETS,
    Case,
    Client,
    Where,
    allowed,
    attached,
    ignores,
    refused,
    shimmed,
)  # fmt: skip

PROGRAMS = Path(__file__).parent / "programs"
_VARIABLE = "`HTTPS_PROXY`"
_REQUESTS = "`REQUESTS_CA_BUNDLE` or `CURL_CA_BUNDLE`"
_OPENSSL = "`SSL_CERT_FILE`"


def cases() -> list[Case]:
    """Allowed in each way in which it is used, and refused."""
    return [*_http(), *_apis(), *_others()]


def _http() -> list[Case]:
    urllib = Client("Python urllib", (sys.executable, "--version"), _VARIABLE, _OPENSSL)
    aiohttp = _client("aiohttp", "`HTTPS_PROXY`, with `trust_env=True` in code alone", _OPENSSL, "`trust_env=True` in code")
    urllib3 = _client(
        "urllib3", "none: `ProxyManager` in code", "none: `ca_certs` in code", "`ProxyManager` and `ca_certs` in code"
    )
    around = "https://{trap}/"
    return [
        *_both(_client("requests", ca=_REQUESTS), REPOSITORY, "requests", REASON),
        attached(_client("requests", ca=_REQUESTS), *_run("requests", "attached")),
        *_both(_client("httpx"), MESSAGES, "httpx", REASON, "http2"),
        *_both(aiohttp, REPOSITORY, "aiohttp", REASON),
        ignores(
            aiohttp, "without trust_env", REPOSITORY, _run("aiohttp", "around", around), _run("aiohttp", "through", around)
        ),
        shimmed(aiohttp, REPOSITORY, *_run("aiohttp", "plain")),
        *_both(urllib3, REPOSITORY, "urllib3", SENTENCE),
        ignores(urllib3, "PoolManager", REPOSITORY, _run("urllib3", "around", around), _run("urllib3", "through", around)),
        *_both(urllib, REPOSITORY, "urllib", REASON),
    ]


def _apis() -> list[Case]:
    stripe = _client("stripe", ca="none: `stripe.ca_bundle_path` in code", needs="`stripe.ca_bundle_path` in code")
    return [
        *_both(_client("openai"), OPENAI, "openai", SENTENCE, "asynchronous", "streamed", "responses, streamed"),
        *_both(_client("anthropic"), ANTHROPIC, "anthropic", SENTENCE, "x-api-key", "asynchronous", "streamed"),
        *_both(stripe, CUSTOMERS, "stripe", SENTENCE),
        shimmed(stripe, CUSTOMERS, *_run("stripe", "plain")),
        *_both(_client("slack_sdk"), MESSAGES, "slack_sdk", SENTENCE),
        *_both(_client("PyGithub", ca=_REQUESTS), REPOSITORY, "pygithub", SENTENCE),
    ]


def _others() -> list[Case]:
    grpc = _client("grpcio", "`https_proxy` or `grpc_proxy`, in lower case alone", "`GRPC_DEFAULT_SSL_ROOTS_FILE_PATH`")
    websockets = _client("websockets")
    return [
        *_both(grpc, GRPC, "grpcio", SENTENCE, "bidirectional"),
        *_both(websockets, SOCKETS, "websockets", SENTENCE),
    ]


def python_case(name: str, where: Where, program: str, how: str) -> Case:
    """A client of these in another way of running it."""
    client = next(case.client for case in cases() if case.client.name == name)
    if how == "refused":
        return refused(client, where, *_run(program, how), shows=SENTENCE)
    is_streamed = how == "streamed"
    return allowed(client, how if is_streamed else "", where, *_run(program, how), is_streamed=is_streamed)


def _client(package: str, proxy: str = _VARIABLE, ca: str = _OPENSSL, needs: str = "") -> Client:
    return Client(f"Python {package}", ("pip", package), proxy, ca, needs)


def _both(client: Client, where: Where, program: str, shows: str, *ways: str) -> list[Case]:
    """Allowed in the usual way and in the others, and refused."""
    made = [allowed(client, "", where, *_run(program, "allowed"))]
    made += [allowed(client, way, where, *_run(program, way), is_streamed="streamed" in way) for way in ways]
    return [*made, refused(client, where, *_run(program, "refused"), shows=shows)]


def _run(program: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, str(PROGRAMS / f"with_{program}.py"), *arguments)
