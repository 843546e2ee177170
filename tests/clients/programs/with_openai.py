"""openai: a completion, whole, `asynchronous` or `streamed`; `responses, streamed`; `refused` lists files."""

import asyncio
import os
import sys

from openai import AsyncOpenAI, OpenAI

# Without it, the SDK looks for `OPENAI_API_KEY`.
KEY = os.environ.get("API_KEY")
MESSAGES = [{"role": "user", "content": "hello"}]


async def several() -> None:
    client = AsyncOpenAI(api_key=KEY, timeout=60)
    asked = [client.chat.completions.create(model="m", messages=MESSAGES) for _ in range(3)]
    print([answer.choices[0].message.content for answer in await asyncio.gather(*asked)])


client = OpenAI(api_key=KEY, timeout=60)
match sys.argv[1]:
    case "refused":
        print(client.files.list())
    case "asynchronous":
        asyncio.run(several())
    case "streamed":
        for event in client.chat.completions.create(model="m", messages=MESSAGES, stream=True):
            print(event.choices[0].delta.content or "", end="", flush=True)
    case "responses, streamed":
        for event in client.responses.create(model="m", input="hello", stream=True):
            if event.type == "response.output_text.delta":
                print(event.delta, end="", flush=True)
    case _:
        print(client.chat.completions.create(model="m", messages=MESSAGES).choices[0].message.content)
