"""A WebSocket (RFC 6455) that answers each message; short text messages and no extensions."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from io import BufferedIOBase

_ACCEPT = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TEXT, _CLOSE = 1, 8
MESSAGES_MAX = 100


def accept(key: str) -> str:
    """`Sec-WebSocket-Accept` to the client's `Sec-WebSocket-Key` (RFC 6455, 4.2.2)."""
    return base64.b64encode(hashlib.sha1((key + _ACCEPT).encode()).digest()).decode()


def echo(reader: BufferedIOBase, writer: BufferedIOBase, answer: Callable[[str], str]) -> None:
    """Answers messages until the other side closes."""
    for _ in range(MESSAGES_MAX):
        opcode, payload = _receive(reader)
        if opcode != _TEXT:
            writer.write(_frame(_CLOSE, payload[:2]))
            return
        writer.write(_frame(_TEXT, answer(payload.decode()).encode()))
        writer.flush()


def _receive(reader: BufferedIOBase) -> tuple[int, bytes]:
    head = reader.read(2)
    if len(head) < 2:
        return _CLOSE, b""
    length = head[1] & 0x7F
    if length == 126:
        length = int.from_bytes(reader.read(2), "big")
    mask = reader.read(4)
    payload = reader.read(length)
    return head[0] & 0xF, bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


def _frame(opcode: int, payload: bytes) -> bytes:
    length = bytes([len(payload)]) if len(payload) < 126 else b"\x7e" + len(payload).to_bytes(2, "big")
    return bytes([0x80 | opcode]) + length + payload
