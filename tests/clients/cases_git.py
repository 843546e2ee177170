"""git over HTTPS."""

from __future__ import annotations

from case import SENTENCE, Case, Client, Where

GIT = Client("git", ("git", "--version"), "`HTTPS_PROXY`", "`GIT_SSL_CAINFO`", program="git")

_URL = "https://x-access-token:{key}@github.com/acme/demo.git"
_CLONE = ("git", "clone", "--quiet", _URL, "{work}/demo")
# Larger than http.postBuffer, so that it is sent in chunks of no known length.
_PUSH = """
set -e
git clone --quiet "$1" demo
cd demo
git checkout --quiet -b work
head -c 300000 /dev/urandom > large
git add large
git -c user.name=Test -c user.email=test@example.com commit --quiet --message Work
git -c http.postBuffer=65536 push --quiet origin work
git ls-remote "$1" refs/heads/work
"""


def cases() -> list[Case]:
    """The clone's own file is the proof; a key in it would be packed, and no proxy could find it there."""
    fetch, push = _where("git:fetch"), _where("git:fetch", "git:push")
    show = ("sh", "-c", '"$@" && cat {work}/demo/README', "sh", *_CLONE)
    header = ("git", "-c", "http.extraHeader=Authorization: Bearer {key}", "ls-remote", "https://github.com/acme/demo.git")
    return [
        Case(GIT, "clone", fetch, show, "hello from github.com", is_echoed=False),
        Case(GIT, "Bearer", fetch, header, "refs/heads/main", is_echoed=False),
        Case(GIT, "push", push, ("sh", "-c", _PUSH, "sh", _URL), "refs/heads/work", is_echoed=False),
        Case(GIT, "clone, refused", _where("read:metadata"), _CLONE, SENTENCE, is_refused=True, is_echoed=False),
        Case(GIT, "push, refused", _where("read:metadata"), _refused_push(), SENTENCE, is_refused=True, is_echoed=False),
    ]


def _refused_push() -> tuple[str, ...]:
    made = (
        "git init --quiet demo && cd demo && git -c user.name=T -c user.email=t@example.com commit --quiet --allow-empty -m W"
    )
    return ("sh", "-c", made + ' && git push --quiet "$1" HEAD:refs/heads/other', "sh", _URL)


def _where(*scopes: str) -> Where:
    return Where("github", "github.com", scopes)
