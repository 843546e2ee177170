"""What is said of a client, and of one run of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

# What a refusal says. The body's sentence where the client shows bodies, the reason phrase where it shows no more.
SENTENCE = "valetkey out_of_scope:"
REASON = "out_of_scope:"


@dataclass(frozen=True)
class Client:
    """A client, as docs/CLIENTS.md has it."""

    name: str
    version: tuple[str, ...]
    """Where its version stands: `pip NAME`, `npm NAME`, or the command that tells it."""
    proxy: str
    """How it finds the proxy."""
    ca: str
    """How it finds the CA."""
    needs: str = ""
    """What it needs beside the variables."""
    program: str | None = None
    """What has to be installed, where that is not sure."""
    node: tuple[int, int] | None = None
    """The Node that it needs at least, if it runs on Node."""
    refusal: str = ""
    """How it shows a refusal, where that is more than a word of `REASON` or `SENTENCE`."""


@dataclass(frozen=True)
class Where:
    """A host, the service that it belongs to, and the scopes that a nonce has."""

    service: str
    host: str
    scopes: tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """One run of a client.

    In its command and its files `{key}` is the placeholder, `{work}` an empty directory of its own, `{node}` the
    directory of the Node programs, `{trap}` an address that only those reach who go around the proxy.
    """

    client: Client
    what: str
    where: Where
    command: tuple[str, ...]
    shows: str
    """What its output must hold: of the answer where it is allowed, of the refusal otherwise."""
    is_refused: bool = False
    is_echoed: bool = True
    """Whether its output holds the masked echo of the key."""
    is_streamed: bool = False
    """Whether the upstream sends the second event only after this client has shown the first."""
    around: tuple[str, ...] = ()
    """For a client that ignores the proxy: the same thing made to obey it, which the test must notice."""
    files: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    has_newer_node: bool = False
    """Whether it is run by the Node that the suite pins, which reads the proxy variables, and not by the machine's."""
    has_shims: bool = False
    """Whether it is run with the shims, without which it would ignore the variables."""
    is_attached: bool = False
    """Whether it has its nonce as the proxy's credentials alone."""
    grant: str | None = None
    """For a client that is run by `valetkey run`: the variables that it asks for, as `=NAME`, or nothing for the usual ones."""
    code: int = 0
    """What it ends with, as far as that is known; where it is 0 and the client is refused, with any other number."""

    @property
    def name(self) -> str:
        """What it is called in the results."""
        return f"{self.client.name}, {self.what}" if self.what else self.client.name


def allowed(client: Client, what: str, where: Where, *command: str, is_streamed: bool = False) -> Case:
    """The answer arrives, with the masked echo of the key."""
    return Case(client, what, where, command, f"hello from {where.host}", is_streamed=is_streamed)


def shimmed(client: Client, where: Where, *command: str) -> Case:
    """Allowed, by the shims and with no word in the code."""
    return replace(allowed(client, "as it comes, with the shims", where, *command), has_shims=True)


def newer(case: Case) -> Case:
    """The same by a Node that reads the proxy variables."""
    return replace(case, what=f"{case.what}, Node 24", has_newer_node=True)


def attached(client: Client, *command: str) -> Case:
    """Allowed, with no key in the request."""
    return replace(allowed(client, "by the proxy's credentials", ATTACHED, *command), is_attached=True)


def by_run(case: Case, grant: str = "", code: int = 0) -> Case:
    """The same under `valetkey run`, where nothing else is set; `code` is what it ends with."""
    what = ", ".join(part for part in ("under `valetkey run`", case.what) if part)
    return replace(case, what=what, grant=grant, code=code)


def refused(client: Client, where: Where, *command: str, shows: str = SENTENCE) -> Case:
    """The request is outside of the scopes."""
    return Case(client, "refused", where, command, shows, is_refused=True, is_echoed=False)


def ignores(client: Client, what: str, where: Where, command: tuple[str, ...], obeys: tuple[str, ...]) -> Case:
    """It is known to go around the proxy; `obeys` is what makes it go through."""
    return Case(client, what, where, command, "", is_echoed=False, around=obeys)


CUSTOMERS = Where("stripe", "api.stripe.com", ("read:customers",))
REPOSITORY = Where("github", "api.github.com", ("read:metadata",))
MESSAGES = Where("slack", "slack.com", ("write:messages",))
OPENAI = Where("openai", "api.openai.com", ("generate",))
ANTHROPIC = Where("anthropic", "api.anthropic.com", ("generate",))
PYPI = Where("pypi", "pypi.example.com", ("read",))
NPM = Where("npm", "npm.example.com", ("read",))
GRPC = Where("grpc", "grpc.example.com", ("talk",))
ATTACHED = Where("attached", "attached.example.com", ("read",))
SOCKETS = Where("sockets", "sockets.example.com", ("talk",))
