"""git over HTTP, by git's own CGI program."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

GIT_ENVIRONMENT = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}


def make_repository(directory: Path, content: str) -> None:
    """A bare repository with one file, `README`."""
    work = directory.parent / "work"
    work.mkdir(parents=True)
    (work / "README").write_text(content)
    author = ["-c", "user.name=Test", "-c", "user.email=test@example.com"]
    _git(work, "init", "--quiet", "--initial-branch", "main")
    _git(work, "add", "README")
    _git(work, *author, "commit", "--quiet", "--message", "Begin")
    _git(work, "clone", "--quiet", "--bare", ".", str(directory))
    _git(directory, "config", "http.receivepack", "true")


def serve(root: Path, method: str, target: str, headers: Mapping[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of git's answer."""
    url = urlsplit(target)
    environment = {
        "PATH": os.environ["PATH"],
        **GIT_ENVIRONMENT,
        "GIT_PROJECT_ROOT": str(root),
        "GIT_HTTP_EXPORT_ALL": "1",
        "REQUEST_METHOD": method,
        "PATH_INFO": url.path,
        "QUERY_STRING": url.query,
        "CONTENT_TYPE": headers.get("content-type", ""),
        "CONTENT_LENGTH": str(len(body)),
        "HTTP_CONTENT_ENCODING": headers.get("content-encoding", ""),
        "GIT_PROTOCOL": headers.get("git-protocol", ""),
        "REMOTE_USER": "git",
        "REMOTE_ADDR": "127.0.0.1",
    }
    done = subprocess.run(["git", "http-backend"], env=environment, input=body, capture_output=True, timeout=30, check=True)
    return _parse(done.stdout)


def _parse(output: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = output.partition(b"\r\n\r\n")
    fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
    status = int(fields.pop("Status", "200 OK").split()[0])
    return status, fields, body


def _git(directory: Path, *arguments: str) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(directory), **GIT_ENVIRONMENT}
    subprocess.run(["git", *arguments], cwd=directory, env=environment, check=True, timeout=30)
