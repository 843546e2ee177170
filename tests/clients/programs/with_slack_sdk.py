"""slack_sdk: a message; `refused` deletes one."""

import os
import sys

from slack_sdk import WebClient

client = WebClient(token=os.environ["API_KEY"], timeout=30)
if sys.argv[1] == "refused":
    print(client.chat_delete(channel="C1", ts="1.1"))
else:
    print(client.chat_postMessage(channel="C1", text="hello"))
