"""Java's own client, from a single source file."""

from __future__ import annotations

from pathlib import Path

from case import REPOSITORY, SENTENCE, Case, Client, allowed, ignores, refused

JAVA = Client(
    "Java HttpClient", ("java", "--version"), "`https.proxyHost` and `https.proxyPort` in `JAVA_TOOL_OPTIONS`",
    "`javax.net.ssl.trustStore` in `JAVA_TOOL_OPTIONS`", program="javac",
)  # fmt: skip

_SOURCE = str(Path(__file__).parent / "programs" / "WithHttpClient.java")
# As short a start as can be: each run compiles the file and is over at once.
_JAVA = ("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")


def cases() -> list[Case]:
    """HTTP/2, allowed and refused; and what the JVM makes of the variables that others read."""
    repository = "https://api.github.com/repos/acme/demo"
    around = "https://{trap}/"
    # By default a JVM goes directly to all of 127/8.
    obeys = (*_JAVA, "-Dhttp.nonProxyHosts=", _SOURCE, around)
    return [
        allowed(JAVA, "", REPOSITORY, *_JAVA, _SOURCE, repository),
        refused(JAVA, REPOSITORY, *_JAVA, _SOURCE, f"{repository}/issues", shows=SENTENCE),
        ignores(JAVA, "by HTTPS_PROXY alone", REPOSITORY, ("env", "-u", "JAVA_TOOL_OPTIONS", *obeys), obeys),
    ]
