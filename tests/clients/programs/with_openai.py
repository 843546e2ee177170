"""openai: a completion, whole or `streamed`; `refused` lists files."""

import os
import sys

from openai import OpenAI

client = OpenAI(api_key=os.environ["API_KEY"], timeout=30)
messages = [{"role": "user", "content": "hello"}]
if sys.argv[1] == "refused":
    print(client.files.list())
elif sys.argv[1] == "streamed":
    for event in client.chat.completions.create(model="m", messages=messages, stream=True):
        print(event.choices[0].delta.content or "", end="", flush=True)
else:
    print(client.chat.completions.create(model="m", messages=messages).choices[0].message.content)
