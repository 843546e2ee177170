"""A gRPC server of our own, HTTP/2 alone: one unary call and a bidirectional one."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import trustme

import answers
from received import Inbox, Received

HOST = "grpc.example.com"
METHOD_SAY = "/demo.Echo/Say"
METHOD_CHAT = "/demo.Echo/Chat"
# Outside of every scope.
METHOD_FORGET = "/demo.Echo/Forget"


class GrpcUpstream:
    """It answers to the real key alone, and keeps what arrived."""

    def __init__(self, key: str, authority: trustme.CA, inbox: Inbox) -> None:
        self._key = key
        self._inbox = inbox
        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        handlers = {
            "Forget": grpc.unary_unary_rpc_method_handler(self._forget),
            "Say": grpc.unary_unary_rpc_method_handler(self._say),
            "Chat": grpc.stream_stream_rpc_method_handler(self._chat),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("demo.Echo", handlers),))
        certificate = authority.issue_cert(HOST)
        chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
        credentials = grpc.ssl_server_credentials([(certificate.private_key_pem.bytes(), chain)])
        self.port: int = self._server.add_secure_port("127.0.0.1:0", credentials)
        self._server.start()

    def close(self) -> None:
        """Ends it."""
        self._server.stop(None).wait(10)

    def _say(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        self._enter(METHOD_SAY, context)
        # The key comes back in a trailer as well.
        context.set_trailing_metadata((("x-echo", self._key),))
        return self._answer(message)

    def _forget(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        self._enter(METHOD_FORGET, context)
        return self._answer(message)

    def _chat(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        self._enter(METHOD_CHAT, context)
        for message in messages:
            yield self._answer(message)

    def _enter(self, path: str, context: grpc.ServicerContext) -> None:
        headers = tuple((name, _text(value)) for name, value in context.invocation_metadata())
        received = Received(HOST, "POST", path, headers, b"")
        self._inbox.keep(received)
        if not received.carries(self._key):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "the key is not the real one")

    def _answer(self, message: bytes) -> bytes:
        return f"{answers.said(HOST, self._key)} to {message.decode()}".encode()


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")
