"""anthropic: a message, whole, `asynchronous` or `streamed`, as Bearer or by `x-api-key`; `refused` lists batches."""

import asyncio
import os
import sys

from anthropic import Anthropic, AsyncAnthropic

KEY = os.environ["API_KEY"]
ASKED = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}


async def one() -> None:
    print((await AsyncAnthropic(auth_token=KEY, timeout=60).messages.create(**ASKED)).content)


by_header = {"default_headers": {"X-Api-Key": KEY}} if sys.argv[1] == "x-api-key" else {"auth_token": KEY}
client = Anthropic(timeout=60, **by_header)
match sys.argv[1]:
    case "refused":
        print(client.messages.batches.list())
    case "asynchronous":
        asyncio.run(one())
    case "streamed":
        with client.messages.stream(**ASKED) as stream:
            for text in stream.text_stream:
                print(text, end="", flush=True)
    case _:
        print(client.messages.create(**ASKED).content)
