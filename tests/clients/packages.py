"""A package index of our own: one wheel as PyPI has it, one tarball as npm's registry has it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import zipfile

PYPI = "pypi.example.com"
NPM = "npm.example.com"
_WHEEL = "demo_vk-1.0-py3-none-any.whl"
_TARBALL = "demo-vk-1.0.0.tgz"


def body(host: str, path: str) -> tuple[str, bytes] | None:
    """Content type and body, to an authorised request."""
    match host, path.rstrip("/"):
        case "pypi.example.com", "/simple/demo-vk":
            digest = hashlib.sha256(_wheel()).hexdigest()
            return "text/html", f'<!DOCTYPE html><a href="/files/{_WHEEL}#sha256={digest}">{_WHEEL}</a>'.encode()
        case "pypi.example.com", found if found == f"/files/{_WHEEL}":
            return "application/octet-stream", _wheel()
        case "npm.example.com", "/demo-vk":
            return "application/json", json.dumps(_packument()).encode()
        case "npm.example.com", found if found == f"/demo-vk/-/{_TARBALL}":
            return "application/octet-stream", _tarball()
        case _:
            return None


def _wheel() -> bytes:
    files = {
        "demo_vk.py": f"print('hello from {PYPI}')\n",
        "demo_vk-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: demo-vk\nVersion: 1.0\n",
        "demo_vk-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    names = [*files, "demo_vk-1.0.dist-info/RECORD"]
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name in names:
            # A date of its own, so that each making gives the same bytes.
            text = files.get(name, "".join(f"{each},,\n" for each in names))
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), text)
    return made.getvalue()


def _tarball() -> bytes:
    files = {
        "package/package.json": json.dumps({"name": "demo-vk", "version": "1.0.0", "main": "index.js"}),
        "package/index.js": f"console.log('hello from {NPM}')\n",
    }
    made = io.BytesIO()
    # Not compressed: gzip would write down the time.
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return made.getvalue()


def _packument() -> dict[str, object]:
    digest = base64.b64encode(hashlib.sha512(_tarball()).digest()).decode()
    dist = {"tarball": f"https://{NPM}/demo-vk/-/{_TARBALL}", "integrity": f"sha512-{digest}"}
    version = {"name": "demo-vk", "version": "1.0.0", "dist": dist}
    return {"name": "demo-vk", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
