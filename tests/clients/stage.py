"""What clients are run before: upstreams of our own, a sidecar, a proxy that swaps nothing, and a trap."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from blind_proxy import BlindProxy, Trap
from fake_upstream import FakeUpstream
from grpc_upstream import GrpcUpstream
from sidecar import Sidecar

HERE = Path(__file__).parent
KEYTOOL_SECONDS_MAX = 60
TRUSTSTORE_PASSWORD = "changeit"
PREFIXES = {
    "STRIPE_KEY": "rk_live_",
    "GITHUB_KEY": "ghp_",
    "SLACK_KEY": "xoxb-",
    "OPENAI_KEY": "sk-proj-",
    "ANTHROPIC_KEY": "sk-ant-",
    "PACKAGES_KEY": "pypi-",
    "GRPC_KEY": "grpc-",
    "SOCKETS_KEY": "sockets-",
    "ATTACHED_KEY": "attached-",
}
HOSTS = {
    "api.stripe.com": "STRIPE_KEY",
    "api.github.com": "GITHUB_KEY",
    "github.com": "GITHUB_KEY",
    "slack.com": "SLACK_KEY",
    "api.openai.com": "OPENAI_KEY",
    "api.anthropic.com": "ANTHROPIC_KEY",
    "pypi.example.com": "PACKAGES_KEY",
    "npm.example.com": "PACKAGES_KEY",
    "grpc.example.com": "GRPC_KEY",
    "sockets.example.com": "SOCKETS_KEY",
    "attached.example.com": "ATTACHED_KEY",
}


@dataclass(frozen=True)
class Block:
    """The variables that send a client through one proxy."""

    plain: Mapping[str, str]
    with_shims: Mapping[str, str]
    """The same, and what helps clients that read no such variable; as `plain` where the build has no shims."""


@dataclass(frozen=True)
class Stage:
    """Clients are run on it one after the other, so that what arrives is known to be theirs."""

    directory: Path
    keys: Mapping[str, str]
    """The real keys, by host."""
    credentials: Mapping[str, str]
    """The same by the variables that the policy names."""
    upstream: FakeUpstream
    sidecar: Sidecar
    blind: BlindProxy
    trap: Trap
    through: Block
    """What sends a client through the sidecar."""
    past: Block
    """What sends it through the proxy that swaps nothing."""


def has_shims(binary: Path) -> bool:
    """Whether this build makes shims."""
    done = subprocess.run([str(binary), "env", "--help"], capture_output=True, timeout=30, check=False)
    return b"--shims" in done.stdout


@contextmanager
def stage(binary: Path, *flags: str) -> Iterator[Stage]:
    """Starts everything, with keys that exist nowhere else. `flags` are more of them for the sidecar."""
    credentials = {name: prefix + secrets.token_hex(20) for name, prefix in PREFIXES.items()}
    keys = {host: credentials[name] for host, name in HOSTS.items()}
    with tempfile.TemporaryDirectory(prefix="valetkey-clients-") as place, ExitStack() as ends:
        directory = Path(place)
        upstream = FakeUpstream(keys, directory)
        ends.callback(upstream.close)
        grpc = GrpcUpstream(keys["grpc.example.com"], upstream.authority, upstream.inbox)
        ends.callback(grpc.close)
        sidecar = Sidecar(binary, HERE / "policy.toml", directory / "sidecar")
        (sidecar.directory / "upstream.pem").write_bytes(upstream.ca_file.read_bytes())
        ends.callback(sidecar.stop)
        others = {"grpc.example.com": grpc.port}
        sidecar.start(credentials, {**dict.fromkeys(keys, upstream.port), **others}, flags)
        blind = BlindProxy({**dict.fromkeys(keys, upstream.port), **others})
        ends.callback(blind.close)
        trap = Trap()
        ends.callback(trap.close)
        other = directory / "other"
        other.mkdir()
        for name in ("ca.pem", "ca-bundle.pem"):
            shutil.copy(upstream.ca_file, other / name)
        through = _block(sidecar, sidecar.proxy, sidecar.directory / "public", directory / "shims")
        past = _block(sidecar, blind.address, other, directory / "other-shims")
        yield Stage(directory, keys, credentials, upstream, sidecar, blind, trap, through, past)


def _block(sidecar: Sidecar, proxy: str, published: Path, shims: Path) -> Block:
    """What `valetkey env` gives for this proxy, and for a JVM what it does not give."""
    java = _java_options(proxy, published) if shutil.which("keytool") else {}
    plain = {**java, **sidecar.environment(proxy, published)}
    with_shims = sidecar.environment(proxy, published, shims) if has_shims(sidecar.binary) else {}
    return Block(plain, {**plain, **with_shims})


def _java_options(proxy: str, published: Path) -> dict[str, str]:
    """A JVM reads no PEM: the CA is put into a truststore, where the sidecar has not written one."""
    store = published / "truststore.p12"
    if not store.exists():
        command = ["keytool", "-importcert", "-noprompt", "-alias", "ca", "-storetype", "PKCS12"]
        command += ["-file", str(published / "ca.pem"), "-keystore", str(store), "-storepass", TRUSTSTORE_PASSWORD]
        subprocess.run(command, capture_output=True, timeout=KEYTOOL_SECONDS_MAX, check=True)
    host, port = proxy.removeprefix("http://").split(":")
    trust = f"-Djavax.net.ssl.trustStore={store} -Djavax.net.ssl.trustStorePassword={TRUSTSTORE_PASSWORD}"
    return {"JAVA_TOOL_OPTIONS": f"-Dhttps.proxyHost={host} -Dhttps.proxyPort={port} {trust}"}
