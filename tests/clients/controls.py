"""Shows that the tests notice what they are there for, beside a proxy that swaps nothing."""

from __future__ import annotations

import base64

import document
from case import Case
from cases import cases
from judge import Run, complaints
from received import Received
from rows import Possible, Tally, expect, run_client
from sidecar import Nonce
from stage import Stage

PATIENCE_SECONDS = 1
NOTHING = Possible(None, None, (0, 0), "", has_shims=False)
"""No Node is needed here."""


def run_controls(on: Stage, tally: Tally) -> None:
    """Each has to be noticed. The stage's sidecar ends here."""
    _unknown_nonce(on, tally)
    _made_up(on, tally)
    _stream_held_back(on, tally)
    on.sidecar.stop()
    edited = on.directory / "edited.jsonl"
    edited.write_bytes(on.sidecar.written()["audit.jsonl"].replace(b"github", b"githab", 1))
    tally.settle("control: an edited audit is noticed", ["it verifies"] if on.sidecar.audit_is_sound(edited) else [])
    text = document.committed().replace("`GIT_SSL_CAINFO`", "`CURL_CA_BUNDLE`")
    tally.settle("control: another way to find the CA is noticed", expect(document.drift(text), "git: another"))


def _unknown_nonce(on: Stage, tally: Tally) -> None:
    case = _case("Python requests")
    nonce = Nonce("an_" + "0" * 33, "ghp_an_" + "0" * 33)
    run = run_client(on, case, nonce.placeholder, on.through, NOTHING)
    tally.settle("control: an unknown nonce is noticed", expect(complaints(case, run, nonce, on.keys), "exit code"))


def _made_up(on: Stage, tally: Tally) -> None:
    """Runs that never were, each with one fault."""
    case = _case("Python requests")
    key, nonce = on.keys[case.where.host], Nonce("an_" + "1" * 33, "ghp_an_" + "1" * 33)

    def noticed(what: str, wanted: str, output: str = "", headers: tuple[tuple[str, str], ...] = (), target: str = "/") -> None:
        received = Received(case.where.host, "GET", target, (("authorization", f"Bearer {key}"), *headers), b"")
        found = complaints(case, Run(0, f"{case.shows} echo=<{'*' * len(key)}> {output}".encode(), [received]), nonce, on.keys)
        tally.settle(f"control: {what} is noticed", expect(found, wanted) if wanted else found)

    for form, text in (("plain", key), ("base64", base64.b64encode(f"ab{key}".encode()).decode()), ("hex", key.encode().hex())):
        noticed(f"a key in an output, {form},", "holds the real key", text)
    noticed("a nonce in an output", "holds the nonce", nonce.nonce)
    noticed("a nonce in a query", "received the nonce", target=f"/?key={nonce.nonce}")
    noticed("a nonce in a header", "received the nonce", headers=(("x-other", nonce.placeholder),))
    noticed("a header for the proxy", "received proxy-connection", headers=(("proxy-connection", "keep-alive"),))
    noticed("nothing where there is nothing", "")


def _stream_held_back(on: Stage, tally: Tally) -> None:
    """A client that prints at its end alone, as one does behind a proxy that gathers the answer."""
    case = _case("curl, streamed")
    nonce = on.sidecar.mint("worker", case.where.service, case.where.scopes)
    gathers = ("sh", "-c", 'all=$("$@"); printf "%s" "$all"', "sh", *case.command)
    run = run_client(on, case, nonce.placeholder, on.through, NOTHING, gathers, PATIENCE_SECONDS)
    found = complaints(case, run, nonce, on.keys)
    tally.settle("control: a stream that is held back is noticed", expect(found, "the first event was not shown", run.output))


def _case(name: str) -> Case:
    return next(case for case in cases() if case.name == name)
