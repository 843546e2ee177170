"""The clients: what each runs, with which nonce, and what must be seen of it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = Path(__file__).parent / "programs"

# What a refusal says. The body's sentence where the client shows bodies, the reason phrase where it shows no more.
SENTENCE = "valetkey out_of_scope:"
REASON = "out_of_scope:"


@dataclass(frozen=True)
class Case:
    """One run of a client. `{key}` in its command is the placeholder, `{work}` an empty directory of its own."""

    name: str
    service: str
    host: str
    scopes: tuple[str, ...]
    command: tuple[str, ...]
    shows: str
    """What its output must hold: of the answer where it is allowed, of the refusal otherwise."""
    is_refused: bool = False
    is_echoed: bool = True
    """Whether its output holds the masked echo of the key."""
    is_node: bool = False


def cases(node: Path | None) -> list[Case]:
    """Every client, allowed and refused."""
    return [*_curl(), *_git(), *_python(), *_node(node or Path("node"))]


def _curl() -> list[Case]:
    curl = ("curl", "--silent", "--show-error", "--include", "--fail-with-body", "--max-time", "30")
    customers = "https://api.stripe.com/v1/customers"
    refund = (*curl, "--user", "{key}:", "--data", "charge=ch_1", "https://api.stripe.com/v1/refunds")
    repository = (*curl, "--header", "Authorization: token {key}", "https://api.github.com/repos/acme/demo")
    customer = ("stripe", "api.stripe.com", ("read:customers",))
    return [
        _allowed("curl, Basic user", *customer, (*curl, "--user", "{key}:", customers)),
        _allowed("curl, Bearer", *customer, (*curl, "--header", "Authorization: Bearer {key}", customers)),
        _allowed("curl, HTTP/1.1", *customer, (*curl, "--http1.1", "--user", "{key}:", customers)),
        _allowed("curl, token", "github", "api.github.com", ("read:metadata",), repository),
        _refused("curl", *customer, refund, SENTENCE),
    ]


def _git() -> list[Case]:
    clone = ("git", "clone", "https://x-access-token:{key}@github.com/acme/demo.git", "{work}/demo")
    # The clone's own file is the proof; a key in it would be packed, and no proxy could find it there.
    show = ("sh", "-c", '"$@" && cat {work}/demo/README', "sh", *clone)
    github = ("github", "github.com")
    return [
        Case("git clone", *github, ("git:fetch",), show, "hello from github.com", is_echoed=False),
        _refused("git clone", *github, ("read:metadata",), clone, SENTENCE),
    ]


def _python() -> list[Case]:
    made: list[Case] = []
    for name, service, host, scopes, shows in (
        ("requests", "github", "api.github.com", ("read:metadata",), REASON),
        ("httpx", "slack", "slack.com", ("write:messages",), REASON),
        ("openai", "openai", "api.openai.com", ("generate",), SENTENCE),
        ("anthropic", "anthropic", "api.anthropic.com", ("generate",), SENTENCE),
        ("stripe", "stripe", "api.stripe.com", ("read:customers",), SENTENCE),
    ):
        command = (sys.executable, str(PROGRAMS / f"with_{name}.py"))
        where = (service, host, scopes)
        made.append(_allowed(f"Python {name}", *where, (*command, "allowed")))
        if name == "openai":
            made.append(_allowed("Python openai, streamed", *where, (*command, "streamed")))
        made.append(_refused(f"Python {name}", *where, (*command, "refused"), shows))
    return made


def _node(node: Path) -> list[Case]:
    fetch = ("node", str(node / "fetch.mjs"))
    openai = ("node", str(node / "openai.mjs"))
    repository = ("github", "api.github.com", ("read:metadata",))
    generate = ("openai", "api.openai.com", ("generate",))
    return [
        _allowed("Node fetch", *repository, (*fetch, "allowed"), is_node=True),
        _refused("Node fetch", *repository, (*fetch, "refused"), SENTENCE, is_node=True),
        _allowed("Node openai", *generate, (*openai, "allowed"), is_node=True),
        _allowed("Node openai, streamed", *generate, (*openai, "streamed"), is_node=True),
        _refused("Node openai", *generate, (*openai, "refused"), SENTENCE, is_node=True),
    ]


def _allowed(
    name: str, service: str, host: str, scopes: tuple[str, ...], command: tuple[str, ...], is_node: bool = False
) -> Case:
    return Case(name, service, host, scopes, command, f"hello from {host}", is_node=is_node)


def _refused(
    name: str, service: str, host: str, scopes: tuple[str, ...], command: tuple[str, ...], shows: str, is_node: bool = False
) -> Case:
    return Case(f"{name}, refused", service, host, scopes, command, shows, True, False, is_node)
