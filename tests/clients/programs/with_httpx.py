"""httpx: a message to Slack; `refused` deletes one."""

import os
import sys

import httpx

headers = {"Authorization": f"Bearer {os.environ['API_KEY']}"}
method = "delete" if sys.argv[1] == "refused" else "postMessage"
answer = httpx.post(f"https://slack.com/api/chat.{method}", headers=headers, json={"channel": "C1"}, timeout=30)
answer.raise_for_status()
print(answer.headers, answer.text)
