"""curl and wget."""

from __future__ import annotations

from case import ANTHROPIC, CUSTOMERS, OPENAI, REASON, REPOSITORY, Case, Client, allowed, attached, refused, shimmed

CURL = Client("curl", ("curl", "--version"), "`HTTPS_PROXY`", "`CURL_CA_BUNDLE` or `SSL_CERT_FILE`", program="curl")
WGET = Client(
    "wget", ("wget", "--version"), "`https_proxy`, in lower case alone", "none: `--ca-certificate`, or a line in `WGETRC`",
    "the CA named in the command or in `WGETRC`", program="wget",
)  # fmt: skip

_CURL = ("curl", "--silent", "--show-error", "--no-buffer", "--include", "--fail-with-body", "--max-time", "60")
_WGET = ("wget", "--server-response", "--output-document", "-", "--tries", "1", "--timeout", "30")
_CUSTOMERS = "https://api.stripe.com/v1/customers"
_REPOSITORY = "https://api.github.com/repos/acme/demo"
_JSON = ("--header", "Content-Type: application/json", "--data")
_BEARER = ("--header", "Authorization: Bearer {key}")


def cases() -> list[Case]:
    """Each place of a key that curl is used with; HTTP/2, HTTP/1.1, and no ALPN at all (wget)."""
    stream = ("https://api.openai.com/v1/chat/completions", *_JSON, '{"model": "m", "stream": true}')
    message = ("https://api.anthropic.com/v1/messages", *_JSON, '{"model": "m"}')
    # A shell, since wget reads no variable for its CA.
    wget = ("sh", "-c", '"$@" --ca-certificate "$SSL_CERT_FILE"', "sh", *_WGET, *_BEARER)
    return [
        allowed(CURL, "Basic user", CUSTOMERS, *_CURL, "--user", "{key}:", _CUSTOMERS),
        allowed(CURL, "Bearer", CUSTOMERS, *_CURL, *_BEARER, _CUSTOMERS),
        allowed(CURL, "HTTP/1.1", CUSTOMERS, *_CURL, "--http1.1", "--user", "{key}:", _CUSTOMERS),
        allowed(CURL, "token", REPOSITORY, *_CURL, "--header", "Authorization: token {key}", _REPOSITORY),
        allowed(CURL, "x-api-key", ANTHROPIC, *_CURL, "--header", "x-api-key: {key}", *message),
        allowed(CURL, "streamed", OPENAI, *_CURL, *_BEARER, *stream, is_streamed=True),
        allowed(CURL, "streamed, HTTP/1.1", OPENAI, *_CURL, "--http1.1", *_BEARER, *stream, is_streamed=True),
        refused(CURL, CUSTOMERS, *_CURL, "--user", "{key}:", "--data", "charge=ch_1", "https://api.stripe.com/v1/refunds"),
        attached(CURL, *_CURL, "https://attached.example.com/demo"),
        allowed(WGET, "", REPOSITORY, *wget, _REPOSITORY),
        shimmed(WGET, REPOSITORY, *_WGET, *_BEARER, _REPOSITORY),
        refused(WGET, REPOSITORY, *wget, f"{_REPOSITORY}/issues", shows=REASON),
    ]
