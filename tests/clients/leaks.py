"""Looks for a secret in bytes, in the forms in which one comes back."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from urllib.parse import quote

PIECE_BYTES = 16
"""A piece of a secret this long counts as the secret."""


def forms(secret: str) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of the forms: pieces as they are, hex, base64 at each offset, percent, JSON."""
    raw = secret.encode()
    for start in range(max(1, len(raw) - PIECE_BYTES + 1)):
        yield "plain", raw[start : start + PIECE_BYTES]
    yield "hex", raw.hex().encode()
    yield "hex", raw.hex().upper().encode()
    yield "percent", "".join(f"%{byte:02X}" for byte in raw).encode()
    yield "percent", quote(secret, safe="").encode()
    yield "JSON", json.dumps("".join(f"\\u{ord(letter):04x}" for letter in secret)).replace("\\\\", "\\")[1:-1].encode()
    for offset in range(3):
        yield "base64", _inner_base64(raw, offset, base64.b64encode)
        yield "base64url", _inner_base64(raw, offset, base64.urlsafe_b64encode)


def find(secret: str, data: bytes) -> str | None:
    """The form in which the secret is in the data, if it is."""
    return next((name for name, form in forms(secret) if form in data), None)


def _inner_base64(raw: bytes, offset: int, encode: Callable[[bytes], bytes]) -> bytes:
    """The characters that depend on the secret alone, wherever in a longer text it begins."""
    text = encode(b"\0" * offset + raw)
    begin = (0, 2, 3)[offset]
    end = (offset + len(raw)) * 8 // 6
    return text[begin:end]
