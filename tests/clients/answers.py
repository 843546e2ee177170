"""What the imitated APIs answer, in the shapes that their SDKs read.

Each answer holds `hello from HOST` and an echo of the key that arrived: what a client prints shows that the answer came
through and that the echo was masked.
"""

from __future__ import annotations

import json
from typing import Any


def said(host: str, key: str) -> str:
    """The text in each answer."""
    return f"hello from {host} echo=<{key}>"


def body(host: str, path: str, asked: dict[str, Any], text: str) -> tuple[str, bytes] | None:
    """Content type and body of the answer to an authorised request; none if there is no such endpoint."""
    match host, path:
        case "api.stripe.com", "/v1/customers/cus_1":
            return _json(_customer(text))
        case "api.stripe.com", "/v1/customers":
            return _json({"object": "list", "url": "/v1/customers", "has_more": False, "data": [_customer(text)]})
        case "api.github.com", "/repos/acme/demo":
            return _json({"id": 1, "full_name": "acme/demo", "description": text})
        case "slack.com", "/api/chat.postMessage":
            return _json({"ok": True, "channel": "C1", "ts": "1.1", "message": {"text": text}})
        case "api.openai.com", "/v1/chat/completions" if asked.get("stream"):
            return _events([_chunk({"content": text}, None), _chunk({}, "stop"), "[DONE]"])
        case "api.openai.com", "/v1/chat/completions":
            return _json(_completion(text))
        case "api.anthropic.com", "/v1/messages":
            return _json(_message(text))
        case _:
            return None


def unauthorised() -> bytes:
    """What is said to a request without the real key."""
    return json.dumps({"error": {"type": "authentication_error", "message": "the key is not the real one"}}).encode()


def _json(value: object) -> tuple[str, bytes]:
    return "application/json", json.dumps(value).encode()


def _events(events: list[object]) -> tuple[str, bytes]:
    lines = [event if isinstance(event, str) else json.dumps(event) for event in events]
    return "text/event-stream", "".join(f"data: {line}\n\n" for line in lines).encode()


def _customer(text: str) -> dict[str, Any]:
    return {"id": "cus_1", "object": "customer", "created": 1, "livemode": False, "metadata": {}, "description": text}


def _completion(text: str) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return {"id": "c1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}


def _chunk(delta: dict[str, Any], end: str | None) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": end, "delta": delta}
    return {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def _message(text: str) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
