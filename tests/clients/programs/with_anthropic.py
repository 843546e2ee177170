"""anthropic: a message; `refused` lists batches."""

import os
import sys

from anthropic import Anthropic

client = Anthropic(api_key=os.environ["API_KEY"], timeout=30)
if sys.argv[1] == "refused":
    print(client.messages.batches.list())
else:
    message = client.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "hello"}])
    print(message.content)
