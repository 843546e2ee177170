"""grpcio: one call, or a `bidirectional` one, whose second message is sent after the first answer; `refused` calls another."""

import os
import sys
import threading

import grpc

METADATA = (("authorization", f"Bearer {os.environ['API_KEY']}"),)
with grpc.secure_channel("grpc.example.com:443", grpc.ssl_channel_credentials()) as channel:
    if sys.argv[1] == "bidirectional":
        answered = threading.Event()

        def messages():
            yield b"one"
            # No second before the first was answered: with a proxy that gathers messages, it would never be sent.
            if answered.wait(30):
                yield b"two"

        for answer in channel.stream_stream("/demo.Echo/Chat")(messages(), metadata=METADATA, timeout=60):
            answered.set()
            print(answer.decode(), flush=True)
    else:
        method = "Forget" if sys.argv[1] == "refused" else "Say"
        answer, call = channel.unary_unary(f"/demo.Echo/{method}").with_call(b"one", metadata=METADATA, timeout=30)
        print(answer.decode(), call.trailing_metadata())
