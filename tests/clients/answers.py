"""What the imitated APIs answer, in the shapes that their SDKs read.

Each answer holds `hello from HOST` and an echo of the key that arrived: what a client prints shows that the answer came
through and that the echo was masked.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

FIRST = "the first event; "
"""What a stream begins with. The second event comes only once the client has shown this."""


def said(host: str, key: str) -> str:
    """The text in each answer."""
    return f"hello from {host} echo=<{key}>"


def body(host: str, path: str, text: str) -> tuple[str, bytes] | None:
    """Content type and body of the answer to an authorised request; none if there is no such endpoint."""
    match host, path:
        case "api.stripe.com", "/v1/customers/cus_1":
            return _json(_customer(text))
        case "api.stripe.com", "/v1/customers":
            return _json({"object": "list", "url": "/v1/customers", "has_more": False, "data": [_customer(text)]})
        case "api.github.com", "/repos/acme/demo":
            return _json({"id": 1, "full_name": "acme/demo", "description": text})
        case "attached.example.com", "/demo":
            return _json({"description": text})
        case "slack.com", "/api/chat.postMessage":
            return _json({"ok": True, "channel": "C1", "ts": "1.1", "message": {"text": text}})
        case "api.openai.com", "/v1/chat/completions":
            return _json(_completion(text))
        case "api.anthropic.com", "/v1/messages":
            return _json({**_message(), "content": [{"type": "text", "text": text}], "stop_reason": "end_turn"})
        case _:
            return None


def events(host: str, path: str, text: str) -> tuple[bytes, bytes] | None:
    """The first part of a stream and the rest, as server-sent events; none if the endpoint does not stream."""
    match host, path:
        case "api.openai.com", "/v1/chat/completions":
            return _data(_chunk(FIRST)), _data(_chunk(text)) + _data(_chunk(None)) + b"data: [DONE]\n\n"
        case "api.openai.com", "/v1/responses":
            return _named([_delta(0, FIRST)]), _named([_delta(1, text), {"type": "response.output_text.done", "text": text}])
        case "api.anthropic.com", "/v1/messages":
            return _named(_begun_message()), _named([_text_delta(text), *_ended_message()])
        case _:
            return None


def unauthorised(host: str) -> tuple[str, bytes]:
    """What is said to a request without the real key, as this API says it: content type and body."""
    text = "the key is not the real one"
    match host:
        case "api.github.com":
            return _json({"message": f"Bad credentials: {text}", "documentation_url": "https://docs.github.com/rest"})
        case "slack.com":
            return _json({"ok": False, "error": "invalid_auth"})
        case "api.openai.com":
            error = {
                "message": f"Incorrect API key provided: {text}",
                "type": "invalid_request_error",
                "code": "invalid_api_key",
            }
            return _json({"error": error})
        case "api.anthropic.com":
            return _json({"type": "error", "error": {"type": "authentication_error", "message": text}})
        case "api.stripe.com":
            return _json({"error": {"type": "invalid_request_error", "message": f"Invalid API Key provided: {text}"}})
        case "npm.example.com":
            return _json({"error": text})
        case _:
            return "text/plain", text.encode()


def _json(value: object) -> tuple[str, bytes]:
    return "application/json", json.dumps(value).encode()


def _data(event: object) -> bytes:
    return f"data: {json.dumps(event)}\n\n".encode()


def _named(events: Sequence[dict[str, Any]]) -> bytes:
    return b"".join(f"event: {event['type']}\n".encode() + _data(event) for event in events)


def _customer(text: str) -> dict[str, Any]:
    return {"id": "cus_1", "object": "customer", "created": 1, "livemode": False, "metadata": {}, "description": text}


def _completion(text: str) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return {"id": "c1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}


def _chunk(text: str | None) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": None if text else "stop", "delta": {"content": text} if text else {}}
    return {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def _delta(number: int, text: str) -> dict[str, Any]:
    place = {"item_id": "i1", "output_index": 0, "content_index": 0, "logprobs": []}
    return {"type": "response.output_text.delta", "sequence_number": number, "delta": text, **place}


def _message() -> dict[str, Any]:
    usage = {"input_tokens": 1, "output_tokens": 1}
    same = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": []}
    return {**same, "stop_reason": None, "stop_sequence": None, "usage": usage}


def _begun_message() -> list[dict[str, Any]]:
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    return [{"type": "message_start", "message": _message()}, block, _text_delta(FIRST)]


def _text_delta(text: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}


def _ended_message() -> list[dict[str, Any]]:
    delta = {"stop_reason": "end_turn", "stop_sequence": None}
    ends = {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 2}}
    return [{"type": "content_block_stop", "index": 0}, ends, {"type": "message_stop"}]
