"""Node's clients and SDKs."""

from __future__ import annotations

from dataclasses import replace

from case import (
    ANTHROPIC,
    CUSTOMERS,
    GRPC,
    MESSAGES,
    OPENAI,
    REPOSITORY,
    SENTENCE,
    SOCKETS,
    Case,
    Client,
    Where,
    allowed,
    ignores,
    newer,
    refused,
    shimmed,
)  # fmt: skip

_CA = "`NODE_EXTRA_CA_CERTS`"
_FETCH = "as Node's fetch"
_AGENT = "`EnvHttpProxyAgent` of undici before Node 22.21"
_NODE = (20, 0)


def cases() -> list[Case]:
    """Allowed in each way in which it is used, and refused."""
    return [*_http(), *_apis(), *_others()]


def _http() -> list[Case]:
    fetch = Client(
        "Node fetch",
        ("node", "--version"),
        "`HTTPS_PROXY` with `NODE_USE_ENV_PROXY=1`, from Node 22.21",
        _CA,
        _AGENT,
        node=_NODE,
    )
    undici = _client("undici", "none: `EnvHttpProxyAgent` in code, which reads `HTTPS_PROXY`", "`EnvHttpProxyAgent` in code")
    axios = _client("axios", "`HTTPS_PROXY`")
    around = "https://{trap}/"
    without = ("env", "-u", "NODE_USE_ENV_PROXY")
    return [
        *_both(fetch, REPOSITORY, "fetch"),
        newer(allowed(fetch, "by variables alone", REPOSITORY, *_run("fetch_plain"))),
        ignores(fetch, "without agent and switch", REPOSITORY, (*without, *_run("fetch_plain", around)), _run("fetch", around)),
        shimmed(fetch, REPOSITORY, *_run("fetch_plain")),
        *_both(undici, REPOSITORY, "undici"),
        *_both(axios, REPOSITORY, "axios"),
        newer(allowed(axios, "", REPOSITORY, *_run("axios", "allowed"))),
    ]


def _apis() -> list[Case]:
    stripe = _client(
        "stripe", "none: `httpAgent` or `createFetchHttpClient` in code", "`httpAgent` or `createFetchHttpClient` in code"
    )
    around = "{trap}"
    return [
        *_both(_client("openai", _FETCH, _AGENT), OPENAI, "openai", "streamed"),
        *_both(_client("@anthropic-ai/sdk", _FETCH, _AGENT), ANTHROPIC, "anthropic", "streamed"),
        *_both(stripe, CUSTOMERS, "stripe", "fetch client"),
        ignores(stripe, "as it comes", CUSTOMERS, _run("stripe", "around", around), _run("stripe", "through", around)),
        shimmed(stripe, CUSTOMERS, *_run("stripe", "around")),
        newer(shimmed(stripe, CUSTOMERS, *_run("stripe", "around"))),
        *_both(_client("@octokit/rest", _FETCH, _AGENT), REPOSITORY, "octokit"),
        *_both(_client("@slack/web-api", _FETCH, _AGENT), MESSAGES, "slack"),
        *_plain("openai", OPENAI, "openai", "plain, streamed"),
        *_plain("@anthropic-ai/sdk", ANTHROPIC, "anthropic", "plain, streamed"),
        *_plain("@octokit/rest", REPOSITORY, "octokit"),
        *_plain("@slack/web-api", MESSAGES, "slack"),
    ]


def _others() -> list[Case]:
    sockets = _client("ws", "none: `https-proxy-agent` in code", "`https-proxy-agent` in code")
    grpc = _client(
        "@grpc/grpc-js", "`https_proxy` or `grpc_proxy`, in lower case alone", ca="`GRPC_DEFAULT_SSL_ROOTS_FILE_PATH`"
    )
    around = "wss://{trap}/"
    return [
        *_both(sockets, SOCKETS, "ws"),
        ignores(sockets, "as it comes", REPOSITORY, _run("ws", "around", around), _run("ws", "through", around)),
        shimmed(sockets, SOCKETS, *_run("ws", "around")),
        newer(shimmed(sockets, SOCKETS, *_run("ws", "around"))),
        *_both(grpc, GRPC, "grpc", "bidirectional"),
    ]


def _plain(package: str, where: Where, program: str, *ways: str) -> list[Case]:
    """With Node's own fetch, by the variables alone."""
    client = _client(package, _FETCH, _AGENT)
    made = [newer(allowed(client, "by variables alone", where, *_run(program, "plain")))]
    for way in ways:
        case = allowed(client, "by variables alone, streamed", where, *_run(program, way), is_streamed="streamed" in way)
        made.append(newer(case))
    refusal = refused(client, where, *_run(program, "plain, refused"), shows=SENTENCE)
    return [*made, newer(replace(refusal, what="by variables alone, refused"))]


def node_case(name: str, where: Where, program: str, how: str) -> Case:
    """A client of these in another way of running it."""
    client = next(case.client for case in cases() if case.client.name == name)
    if "refused" in how:
        return refused(client, where, *_run(program, how), shows=SENTENCE)
    what = "streamed" if "streamed" in how else ""
    return allowed(client, what, where, *_run(program, how), is_streamed=bool(what))


def _client(package: str, proxy: str, needs: str = "", ca: str = _CA) -> Client:
    return Client(f"Node {package}", ("npm", package), proxy, ca, needs, node=_NODE)


def _both(client: Client, where: Where, program: str, *ways: str) -> list[Case]:
    made = [allowed(client, "", where, *_run(program, "allowed"))]
    made += [allowed(client, way, where, *_run(program, way), is_streamed="streamed" in way) for way in ways]
    return [*made, refused(client, where, *_run(program, "refused"), shows=SENTENCE)]


def _run(program: str, *arguments: str) -> tuple[str, ...]:
    return ("node", f"{{node}}/{program}.mjs", *arguments)
