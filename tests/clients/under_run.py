"""Clients under `valetkey run`, with neither a proxy nor a CA nor a key set by us.

The run's own refusals are on the standard error that it shares with the client. The control of what is allowed is a run
whose policy names another credential; that of what is refused is a run that has to be quiet.
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path

import leaks
from case import Case
from judge import Run, complaints, excerpt
from rows import Possible, Tally, expect, filled, observe, own_variables, workplace
from sidecar import Nonce
from stage import Stage

# What the command was given is known to nobody else, so that it is written down before the client begins.
_RECORDER = ("sh", "-c", 'env > environment; exec "$@"', "sh")
_NONCE = re.compile(r"an_[0-9A-Za-z]{33}")
_NAMED = re.compile(r'^name = "[A-Z]+_KEY"$', re.MULTILINE)
_NOT_TOLD = "the run did not tell of the refusal"


def run_under_run(on: Stage, case: Case, possible: Possible, tally: Tally) -> None:
    """Runs it, and then shows that its row would notice what it is there for."""
    if reason := possible.why_not(case):
        tally.skip(case.name, reason)
        return
    policy = on.sidecar.directory / "policy.toml"
    run, found = _run(on, case, possible, policy, dict(on.credentials))
    tally.settle(case.name, [*found, f"printed: {excerpt(run.output)}"] if found else [])
    if case.is_refused:
        run, found = _run(on, case, possible, policy, dict(on.credentials), "--quiet")
        wanted = _NOT_TOLD
    else:
        other = on.directory / "other.toml"
        other.write_text(_NAMED.sub('name = "OTHER_KEY"', policy.read_text()))
        run, found = _run(on, case, possible, other, {"OTHER_KEY": f"other-{secrets.token_hex(20)}"})
        wanted = "without the real key"
    tally.settle(f"control: {case.name}", expect(found, wanted, run.output))


def _run(
    on: Stage, case: Case, possible: Possible, policy: Path, credentials: dict[str, str], *flags: str
) -> tuple[Run, list[str]]:
    """One run, and what is wrong with it."""
    work = workplace(on)
    command = filled(on, case, case.command, work, "", possible)
    audit = work / "audit.jsonl"
    grant = f"{case.where.service}:{','.join(case.where.scopes)}{case.grant}"
    start = [str(on.sidecar.binary), "run", "--policy", str(policy), "--audit", str(audit), "--grant", grant]
    start += [*flags, *on.sidecar.connect_to, "--", *_RECORDER]
    run = observe(on, [*start, *command], work, {**own_variables(case, work, possible), **credentials, **case.environment})
    given = (work / "environment").read_text() if (work / "environment").exists() else ""
    nonce = _NONCE.search(given)
    if nonce is None:
        return run, [f"the command was given no nonce; printed: {excerpt(run.output)}"]
    found = complaints(case, run, Nonce(nonce[0], nonce[0]), on.keys)
    if case.is_refused and run.code != case.code:
        found.append(f"exit code {run.code}, where the client's own is {case.code}")
    if case.is_refused and not re.search(rb"valetkey: refused .*: out_of_scope: ", run.output):
        found.append(_NOT_TOLD)
    for what, data in (("the command's environment", given.encode()), ("the run's audit", audit.read_bytes())):
        found += [f"a real key is in {what}" for key in {*on.keys.values(), *credentials.values()} if leaks.find(key, data)]
    if leaks.find(nonce[0], audit.read_bytes()):
        found.append("the nonce is in the run's audit")
    if not on.sidecar.audit_is_sound(audit):
        found.append("valetkey audit verify says no to the run's audit")
    return run, found
