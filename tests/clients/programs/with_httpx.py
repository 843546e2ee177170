"""httpx: a message to Slack, by HTTP/1.1 or `http2`; `refused` deletes one."""

import os
import sys

import httpx

headers = {"Authorization": f"Bearer {os.environ['API_KEY']}"}
method = "delete" if sys.argv[1] == "refused" else "postMessage"
with httpx.Client(http2=sys.argv[1] == "http2", headers=headers, timeout=30) as client:
    answer = client.post(f"https://slack.com/api/chat.{method}", json={"channel": "C1"})
answer.raise_for_status()
print(answer.http_version, answer.headers, answer.text)
if sys.argv[1] == "http2":
    assert answer.http_version == "HTTP/2"
