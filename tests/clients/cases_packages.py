"""pip and npm, before a package index of our own."""

from __future__ import annotations

import sys

from case import NPM, PYPI, REASON, SENTENCE, Case, Client

PIP = Client(
    "pip", ("pip", "pip"), "`HTTPS_PROXY`", "`PIP_CERT` or `REQUESTS_CA_BUNDLE`", "the key as the password in the index's URL",
    refusal="the reason phrase, with `-vv` alone",
)  # fmt: skip
NPM_CLIENT = Client(
    "npm", ("npm", "--version"), "`HTTPS_PROXY`", "`npm_config_cafile`", "the key as `_authToken` of the registry",
    program="npm",
    refusal="the sentence, with `dialect = \"npm\"` in the policy; else the reason phrase",
)  # fmt: skip

_QUIET = ("--no-input", "--no-cache-dir", "--disable-pip-version-check", "--retries", "0")
_PIP = (sys.executable, "-m", "pip", *_QUIET, "install")
_INDEX = ("--index-url", "https://__token__:{key}@pypi.example.com/simple/", "--target", "{work}/site")
_NPM = ("npm", "install", "--no-audit", "--no-fund", "--no-update-notifier", "--fetch-retries", "0", "--loglevel", "http")
_NPMRC = "registry=https://npm.example.com/\n//npm.example.com/:_authToken={key}\n"


def cases() -> list[Case]:
    """What was installed is run: it says where it is from."""
    install = (*_PIP, *_INDEX)
    run = ("sh", "-c", '"$@" && PYTHONPATH={work}/site "$PYTHON" -c "import demo_vk"', "sh", *install, "demo-vk")
    node = ("sh", "-c", '"$@" && node -e "require(\'demo-vk\')"', "sh", *_NPM, "demo-vk")
    own = {"PIP_CONFIG_FILE": "/dev/null", "PYTHON": sys.executable}
    files = {".npmrc": _NPMRC, "package.json": '{"name": "work", "private": true}'}
    return [
        Case(PIP, "", PYPI, run, "hello from pypi.example.com", is_echoed=False, environment=own),
        Case(PIP, "refused", PYPI, (*install, "-vv", "other"), REASON, is_refused=True, is_echoed=False, environment=own),
        Case(NPM_CLIENT, "", NPM, node, "hello from npm.example.com", is_echoed=False, files=files),
        Case(NPM_CLIENT, "refused", NPM, (*_NPM, "other"), SENTENCE, is_refused=True, is_echoed=False, files=files),
    ]
