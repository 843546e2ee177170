"""Some clients as `valetkey run` starts them: the keys are where the SDKs look, and nothing else is said."""

from __future__ import annotations

from dataclasses import replace

from case import CUSTOMERS, OPENAI, SENTENCE, Case, Where, allowed, by_run, refused
from cases_git import GIT
from cases_node import node_case
from cases_python import python_case
from cases_tools import CURL

# A shell, since only the run knows the nonces.
_CURL = 'exec curl --silent --show-error --fail-with-body --max-time 60 --user "$STRIPE_API_KEY:" "$@"'
_CLONE = 'git clone --quiet "https://x-access-token:$GITHUB_TOKEN@github.com/acme/demo.git" demo && cat demo/README'
_GIT = Where("github", "github.com", ("git:fetch",))
_NO_GIT = Where("github", "github.com", ("read:metadata",))


def cases() -> list[Case]:
    """Allowed, streamed and refused, each with the exit code that the client has by itself."""
    curl = ("sh", "-c", _CURL, "curl")
    clone = Case(GIT, "clone", _GIT, ("sh", "-c", _CLONE), "hello from github.com", is_echoed=False)
    refusal = replace(clone, what="refused", where=_NO_GIT, shows=SENTENCE, is_refused=True)
    return [
        by_run(allowed(CURL, "", CUSTOMERS, *curl, "https://api.stripe.com/v1/customers")),
        by_run(refused(CURL, CUSTOMERS, *curl, "--data", "charge=ch_1", "https://api.stripe.com/v1/refunds"), code=22),
        by_run(clone),
        by_run(refusal, code=128),
        by_run(python_case("Python openai", OPENAI, "openai", "bare")),
        by_run(python_case("Python openai", OPENAI, "openai", "streamed")),
        by_run(python_case("Python openai", OPENAI, "openai", "refused"), code=1),
        by_run(python_case("Python stripe", CUSTOMERS, "stripe", "plain")),
        by_run(node_case("Node stripe", CUSTOMERS, "stripe", "around")),
        by_run(node_case("Node openai", OPENAI, "openai", "plain")),
        by_run(node_case("Node openai", OPENAI, "openai", "plain, streamed")),
        by_run(node_case("Node openai", OPENAI, "openai", "plain, refused"), code=1),
    ]
